use super::*;
use std::time::Duration;

async fn token_states(vault: &Vault) -> Vec<(String, TokenKind, bool)> {
    let tokens = vault.tokens().await.unwrap();
    tokens.into_iter().map(|token| (token.agent.to_string(), token.kind, token.revoked)).collect()
}

async fn alive(vault: &Vault, token: &Secret) -> bool {
    let digest = vault.digest(token.expose());
    vault.tokens().await.unwrap().iter().any(|row| row.digest == digest && !row.revoked)
}

#[tokio::test]
async fn a_token_is_random_and_kept_as_a_keyed_digest() {
    let place = place();
    let vault = place.vault().await;
    let token = vault.create_agent(&agent("coder"), NOW).await.unwrap();
    let text = std::str::from_utf8(token.expose()).unwrap();
    assert!(text.starts_with(TOKEN_PREFIX));
    assert_eq!(text.len(), 4 + 43);
    assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "needs no escape in a URL");
    let row = &vault.tokens().await.unwrap()[0];
    assert_eq!((row.digest, row.expires, row.created), (vault.digest(token.expose()), None, NOW));
    assert_ne!(Vault::ephemeral().await.unwrap().digest(token.expose()), row.digest, "another vault, another digest");
    let agents = vault.agents().await.unwrap();
    assert_eq!(agents, [AgentRow { agent: agent("coder"), created: NOW, last_seen: None, revoked: false }]);
}

#[tokio::test]
async fn an_agent_may_have_several_tokens_until_it_is_rotated() {
    let place = place();
    let vault = place.vault().await;
    let coder = agent("coder");
    let first = vault.create_agent(&coder, NOW).await.unwrap();
    let second = vault.create_agent(&coder, later(1)).await.unwrap();
    let session = vault.create_session(&coder, Duration::from_secs(60), later(1)).await.unwrap();
    let other = vault.create_agent(&agent("other"), NOW).await.unwrap();
    for token in [&first, &second, &session, &other] {
        assert!(alive(&vault, token).await);
    }
    let third = vault.rotate_agent(&coder, later(2)).await.unwrap();
    for token in [&first, &second, &session] {
        assert!(!alive(&vault, token).await);
    }
    assert!(alive(&vault, &third).await && alive(&vault, &other).await);
    assert_eq!(vault.agents().await.unwrap()[0].created, NOW);
    let error = vault.rotate_agent(&agent("nobody"), NOW).await.unwrap_err();
    assert!(matches!(error, VaultError::NoSuchAgent { .. }));
    assert!(error.hint().unwrap().contains("agent create nobody"));
}

#[tokio::test]
async fn a_revoked_agent_has_nothing_left_until_it_is_made_again() {
    let place = place();
    let vault = place.vault().await;
    let coder = agent("coder");
    let token = vault.create_agent(&coder, NOW).await.unwrap();
    assert!(vault.revoke_agent(&coder, later(1)).await.unwrap());
    assert!(!vault.revoke_agent(&agent("nobody"), later(1)).await.unwrap());
    assert!(!alive(&vault, &token).await);
    assert!(vault.agents().await.unwrap()[0].revoked);
    let error = vault.create_session(&coder, Duration::from_secs(60), later(2)).await.unwrap_err();
    assert!(matches!(error, VaultError::AgentRevoked { .. }));
    let again = vault.create_agent(&coder, later(3)).await.unwrap();
    assert!(alive(&vault, &again).await && !alive(&vault, &token).await);
    assert!(!vault.agents().await.unwrap()[0].revoked);
}

#[tokio::test]
async fn a_session_ends_by_itself_and_is_forgotten_in_the_end() {
    let place = place();
    let vault = place.vault().await;
    let coder = agent("coder");
    let session = vault.create_session(&coder, Duration::from_secs(60), NOW).await.unwrap();
    assert_eq!(vault.agents().await.unwrap()[0].agent, coder, "a session makes its agent");
    assert_eq!(vault.tokens().await.unwrap()[0].expires, Some(later(60)));
    assert!(vault.revoke_token(vault.digest(session.expose()), later(1)).await.unwrap());
    assert!(!vault.revoke_token([0; 32], later(1)).await.unwrap());
    vault.create_session(&coder, Duration::from_secs(60), later(2)).await.unwrap();
    assert_eq!(token_states(&vault).await.len(), 2);
    vault.create_session(&coder, Duration::from_secs(60), later(8 * 24 * 3600)).await.unwrap();
    assert_eq!(token_states(&vault).await, [("coder".to_owned(), TokenKind::Session, false)]);
    assert!(vault.verify().await.unwrap().faults.is_empty());
}

#[tokio::test]
async fn an_agents_own_token_is_never_forgotten() {
    let place = place();
    let vault = place.vault().await;
    let token = vault.create_agent(&agent("coder"), NOW).await.unwrap();
    vault.create_session(&agent("coder"), Duration::from_secs(1), later(10 * 365 * 24 * 3600)).await.unwrap();
    assert!(alive(&vault, &token).await);
}

#[tokio::test]
async fn last_seen_moves_forward_only() {
    let place = place();
    let vault = place.vault().await;
    for text in ["a", "b"] {
        vault.create_agent(&agent(text), NOW).await.unwrap();
    }
    vault.touch_agents(vec![(agent("a"), later(5)), (agent("b"), later(1)), (agent("a"), later(3))]).await.unwrap();
    vault.touch_agents(vec![(agent("a"), later(4)), (agent("gone"), later(9))]).await.unwrap();
    vault.touch_agents(Vec::new()).await.unwrap();
    let seen: Vec<_> = vault.agents().await.unwrap().into_iter().map(|row| row.last_seen).collect();
    assert_eq!(seen, [Some(later(5)), Some(later(1))]);
}
