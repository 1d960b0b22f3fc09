use super::*;

#[tokio::test]
async fn a_value_comes_back_from_the_next_opening() {
    let place = place();
    let value = canary();
    let (vault, opening) = Vault::open_or_create(&place.home, &KeySource::default()).await.unwrap();
    assert_eq!(opening, Opening::Created);
    let stored = vault.set(draft("anthropic:work"), secret(&value), NOW).await.unwrap();
    assert_eq!((stored.version, stored.created, stored.updated), (1, NOW, NOW));
    assert_eq!(stored.masked, format!("sk-ant-***...{}", &value[value.len() - 4..]));
    drop(vault);

    let (vault, opening) = Vault::open_or_create(&place.home, &KeySource::default()).await.unwrap();
    assert_eq!(opening, Opening::Existing);
    assert_eq!(vault.list().await.unwrap(), [stored]);
    let opened = opened(&vault, "anthropic:work").await.unwrap();
    assert!(opened.secret.matches(value.as_bytes()));
    assert_eq!(opened.hosts, ["api.anthropic.com"]);
    assert_eq!(opened.provider, Some(ProviderId::parse("anthropic").unwrap()));
    assert_eq!((opened.kind.as_str(), opened.scope, opened.version), ("api-key", Scope::Shared, 1));
}

#[tokio::test]
async fn a_vault_in_memory_works_the_same() {
    let vault = Vault::ephemeral().await.unwrap();
    let value = canary();
    vault.set(draft("anthropic:work"), secret(&value), NOW).await.unwrap();
    assert!(opened(&vault, "anthropic:work").await.unwrap().secret.matches(value.as_bytes()));
    let token = vault.create_agent(&agent("coder"), NOW).await.unwrap();
    assert_eq!(vault.tokens().await.unwrap()[0].digest, vault.digest(token.expose()));
}
