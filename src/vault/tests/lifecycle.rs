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

#[tokio::test]
async fn a_new_value_is_a_new_version_and_the_old_ones_stay() {
    let place = place();
    let vault = place.vault().await;
    let values = [canary(), canary(), canary()];
    let mut stored = vault.set(draft("anthropic:work"), secret(&values[0]), NOW).await.unwrap();
    let id = stored.id;
    for (at, value) in values.iter().enumerate().skip(1) {
        stored = vault.set(stored.draft(), secret(value), later(at as u64)).await.unwrap();
    }
    assert_eq!((stored.version, stored.created, stored.updated, stored.id), (3, NOW, later(2), id));
    let history = vault.history(&stored.name, &Scope::Shared).await.unwrap().unwrap();
    let expected: Vec<_> = (0..3)
        .rev()
        .map(|at| VersionInfo {
            version: at + 1,
            created: later(at),
            masked: preview(&secret(&values[at as usize])),
            current: at == 2,
        })
        .collect();
    assert_eq!(history, expected);
    assert!(opened(&vault, "anthropic:work").await.unwrap().secret.matches(values[2].as_bytes()));
    assert_eq!(vault.history(&name("none"), &Scope::Shared).await.unwrap(), None);
}

#[tokio::test]
async fn a_rollback_brings_back_the_value_with_its_own_hosts() {
    let place = place();
    let vault = place.vault().await;
    let values = [canary(), canary()];
    vault.set(draft("anthropic:work"), secret(&values[0]), NOW).await.unwrap();
    let other =
        Draft { hosts: vec!["elsewhere.example".to_owned()], label: Some("new".to_owned()), ..draft("anthropic:work") };
    vault.set(other, secret(&values[1]), later(1)).await.unwrap();
    let work = name("anthropic:work");
    let stored = vault.rollback(&work, &Scope::Shared, 1, later(2)).await.unwrap().unwrap();
    assert_eq!((stored.version, stored.label.as_deref()), (3, Some("new")));
    assert_eq!(stored.hosts, ["api.anthropic.com"]);
    assert!(opened(&vault, "anthropic:work").await.unwrap().secret.matches(values[0].as_bytes()));
    assert!(vault.rollback(&work, &Scope::Shared, 9, NOW).await.unwrap().is_none());
    assert!(vault.rollback(&name("none"), &Scope::Shared, 1, NOW).await.unwrap().is_none());
}

#[tokio::test]
async fn a_deleted_credential_is_gone_and_its_name_free() {
    let place = place();
    let vault = place.vault().await;
    let first = vault.set(draft("anthropic:work"), secret(&canary()), NOW).await.unwrap();
    vault.set(draft("anthropic:work"), secret(&canary()), NOW).await.unwrap();
    vault.set(draft("openai:main"), secret(&canary()), NOW).await.unwrap();
    assert!(vault.delete(&first.name, &Scope::Shared).await.unwrap());
    assert!(!vault.delete(&first.name, &Scope::Shared).await.unwrap());
    assert_eq!(vault.list().await.unwrap().len(), 1);
    let again = vault.set(draft("anthropic:work"), secret(&canary()), later(1)).await.unwrap();
    assert_eq!((again.version, again.created), (1, later(1)));
    assert_ne!(again.id, first.id);
    assert!(vault.verify().await.unwrap().faults.is_empty());
}

#[tokio::test]
async fn one_name_can_be_shared_and_private_at_once() {
    let place = place();
    let vault = place.vault().await;
    let private = Scope::Agent(agent("coder"));
    let work = name("anthropic:work");
    let (mine, ours) = (canary(), canary());
    vault.set(Draft { scope: private.clone(), ..draft("anthropic:work") }, secret(&mine), NOW).await.unwrap();
    vault.set(draft("anthropic:work"), secret(&ours), NOW).await.unwrap();
    assert_eq!(vault.list().await.unwrap().len(), 2);
    assert_eq!(vault.find(&work, None).await.unwrap().unwrap().scope, Scope::Shared);
    assert_eq!(vault.find(&work, Some(&private)).await.unwrap().unwrap().scope, private);
    for credential in vault.snapshot().await.unwrap() {
        let expected = if credential.stored.scope == Scope::Shared { &ours } else { &mine };
        assert!(vault.unseal(&credential).unwrap().secret.matches(expected.as_bytes()));
    }
    assert!(vault.delete(&work, &Scope::Shared).await.unwrap());
    assert_eq!(vault.find(&work, None).await.unwrap().unwrap().scope, private);
    assert_eq!(vault.find(&work, Some(&Scope::Shared)).await.unwrap(), None);
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_and_changes_nothing() {
    let place = place();
    let vault = place.vault().await;
    vault.set(draft("anthropic:work"), secret(&canary()), NOW).await.unwrap();
    let before = observe(&vault).await.unwrap();
    let bad_value = |value: &str| (draft("anthropic:work"), value.to_owned());
    let long = "x".repeat(1025);
    let cases: Vec<(Draft, String)> = vec![
        bad_value(""),
        bad_value("\n"),
        bad_value("one\ntwo"),
        bad_value("a\0b"),
        bad_value(&"x".repeat(1 << 20)),
        (Draft { kind: String::new(), ..draft("a") }, canary()),
        (Draft { kind: "API Key".to_owned(), ..draft("a") }, canary()),
        (Draft { env: Some("1ABC".to_owned()), ..draft("a") }, canary()),
        (Draft { env: Some("A=B".to_owned()), ..draft("a") }, canary()),
        (Draft { description: Some("a\nb".to_owned()), ..draft("a") }, canary()),
        (Draft { label: Some(long), ..draft("a") }, canary()),
        (Draft { hosts: vec!["*".to_owned()], ..draft("a") }, canary()),
        (Draft { hosts: vec!["a.example/path".to_owned()], ..draft("a") }, canary()),
        (Draft { hosts: vec!["a.example".to_owned(); 65], ..draft("a") }, canary()),
    ];
    for (draft, value) in cases {
        let text = format!("{draft:?}");
        let error = vault.set(draft, secret(&value), NOW).await.unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}: {text}");
        assert!(value.len() < 8 || !error.to_string().contains(&value), "{text}");
    }
    assert_eq!(observe(&vault).await.unwrap(), before);
}

// VA-22
#[tokio::test]
async fn texts_are_stored_as_they_are() {
    let place = place();
    let vault = place.vault().await;
    let text = "'; DROP TABLE credential; -- \"%_\\ käse 🔑";
    let given = Draft { description: Some(text.to_owned()), label: Some(text.to_owned()), ..draft("a.b_c~d-1") };
    vault.set(given.clone(), secret(&canary()), NOW).await.unwrap();
    let stored = vault.find(&name("a.b_c~d-1"), None).await.unwrap().unwrap();
    assert_eq!(stored.draft(), given);
}

#[tokio::test]
async fn hosts_are_kept_in_their_one_form() {
    let place = place();
    let vault = place.vault().await;
    let hosts = ["API.Example.com", "*.example.org", "local.example:8443", "10.0.0.1:80"].map(str::to_owned).to_vec();
    let stored = vault.set(Draft { hosts, ..draft("a") }, secret(&canary()), NOW).await.unwrap();
    assert_eq!(stored.hosts, ["api.example.com", "*.example.org", "local.example:8443", "10.0.0.1:80"]);
    assert_eq!(opened(&vault, "a").await.unwrap().hosts, stored.hosts);
}

#[tokio::test]
async fn a_document_keeps_its_lines() {
    let place = place();
    let vault = place.vault().await;
    let text = "-----BEGIN X-----\nabc\n-----END X-----\n\n";
    let given = Draft { kind: "github-app".to_owned(), ..draft("a") };
    let stored = vault.set(given, secret(text), NOW).await.unwrap();
    assert_eq!(stored.masked, "***");
    assert!(opened(&vault, "a").await.unwrap().secret.matches(&text.as_bytes()[..text.len() - 1]));
    vault.rollback(&name("a"), &Scope::Shared, 1, NOW).await.unwrap().unwrap();
    assert!(opened(&vault, "a").await.unwrap().secret.matches(&text.as_bytes()[..text.len() - 1]));
}

#[tokio::test]
async fn the_data_version_moves_with_credentials_and_agents_only() {
    let place = place();
    let (vault, other) = (place.vault().await, place.vault().await);
    let mut last = vault.data_version().await.unwrap();
    let mut moved = async |expected: bool| {
        let now = vault.data_version().await.unwrap();
        assert_eq!(now != last, expected);
        last = now;
    };
    moved(false).await;
    other.set(draft("a"), secret(&canary()), NOW).await.unwrap();
    moved(true).await;
    vault.set(draft("a"), secret(&canary()), NOW).await.unwrap();
    moved(true).await;
    other.create_agent(&agent("coder"), NOW).await.unwrap();
    moved(true).await;
    other.touch_agents(vec![(agent("coder"), NOW)]).await.unwrap();
    other.save_pool_rows(vec![PoolRow { scope: "a".to_owned(), json: "{}".to_owned() }]).await.unwrap();
    moved(false).await;
    other.delete(&name("a"), &Scope::Shared).await.unwrap();
    moved(true).await;
}

#[tokio::test]
async fn pool_rows_are_replaced_by_scope() {
    let place = place();
    let vault = place.vault().await;
    let row = |scope: &str, json: &str| PoolRow { scope: scope.to_owned(), json: json.to_owned() };
    vault.save_pool_rows(vec![row("b", "1"), row("a", "2")]).await.unwrap();
    vault.save_pool_rows(vec![row("b", "3"), row("c", "4")]).await.unwrap();
    assert_eq!(vault.pool_rows().await.unwrap(), [row("a", "2"), row("b", "3"), row("c", "4")]);
    vault.save_pool_rows(vec![row("a", "")]).await.unwrap();
    assert_eq!(vault.pool_rows().await.unwrap().len(), 2);
}

#[tokio::test]
async fn derived_keys_are_stable_and_differ_by_use_and_vault() {
    let place = place();
    let vault = place.vault().await;
    let key = vault.derived_key("placeholder");
    assert_eq!(key.len(), 32);
    assert!(!key.matches(vault.derived_key("sticky").expose()));
    drop(vault);
    assert!(place.vault().await.derived_key("placeholder").matches(key.expose()));
    assert!(!Vault::ephemeral().await.unwrap().derived_key("placeholder").matches(key.expose()));
}

/// No form of a value, a token or a key is in any file but the key file, while the vault is open and afterwards.
#[tokio::test]
async fn no_file_of_the_home_holds_a_value() {
    // EX-23
    let place = place();
    let vault = place.vault().await;
    let values: Vec<String> = (0..8).map(|_| canary()).collect();
    let mut hidden: Vec<Vec<u8>> = values.iter().map(|value| value.clone().into_bytes()).collect();
    for (at, value) in values.iter().enumerate() {
        vault.set(draft(&format!("anthropic:p{}", at / 2)), secret(value), NOW).await.unwrap();
    }
    let token = vault.create_agent(&agent("coder"), NOW).await.unwrap();
    hidden.push(token.expose().to_vec());
    hidden.push(std::fs::read(place.home.master_key()).unwrap());
    vault.delete(&name("anthropic:p0"), &Scope::Shared).await.unwrap();

    assert_eq!(hits(place.dir.path(), &hidden, &place.home.master_key()), 0);
    assert!(place.home.vault_db().with_file_name("vault.db-wal").exists(), "the log was looked through as well");
    drop(vault);
    assert_eq!(hits(place.dir.path(), &hidden, &place.home.master_key()), 0);
    std::fs::write(place.dir.path().join("control"), values[3].as_bytes()).unwrap();
    assert!(hits(place.dir.path(), &hidden, &place.home.master_key()) > 0, "the search finds what is there");
}

fn hits(dir: &std::path::Path, hidden: &[Vec<u8>], except: &std::path::Path) -> usize {
    use base64::Engine as _;
    let mut forms = Vec::new();
    for value in hidden {
        forms.push(value.clone());
        forms.push(value.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes());
        forms.push(value.iter().map(|byte| format!("{byte:02X}")).collect::<String>().into_bytes());
        forms.push(value.iter().rev().copied().collect());
        for skip in 0..3 {
            // Whatever stands before it, one of the three alignments shows; the ends depend on the neighbours.
            for engine in
                [base64::engine::general_purpose::STANDARD_NO_PAD, base64::engine::general_purpose::URL_SAFE_NO_PAD]
            {
                let text = engine.encode(&value[skip..]);
                forms.push(text.as_bytes()[..text.len() - 2].to_vec());
            }
        }
        // Neither the preview's last four with what is before them, nor any long piece.
        forms.push(value[value.len() - 8..].to_vec());
        forms.push(value[value.len() / 2..value.len() / 2 + 8].to_vec());
    }
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            count += hits(&path, hidden, except);
        } else if path != except {
            let bytes = std::fs::read(&path).unwrap();
            count += forms.iter().filter(|form| memchr::memmem::find(&bytes, form).is_some()).count();
        }
    }
    count
}

/// The daemon moves what it waits for between threads.
#[test]
fn what_the_vault_is_waited_for_with_can_move_between_threads() {
    fn movable<F: Send>(future: impl FnOnce(&'static Vault) -> F) {
        let _ = future;
    }
    movable(|vault| vault.set(draft("a"), secret("value"), NOW));
    movable(|vault| async { vault.delete(&name("a"), &Scope::Shared).await });
    movable(|vault| async { vault.rollback(&name("a"), &Scope::Shared, 1, NOW).await });
    movable(|vault| async { vault.rotate_agent(&agent("a"), NOW).await });
    movable(|vault| async { vault.revoke_agent(&agent("a"), NOW).await });
    movable(|vault| vault.snapshot());
    movable(|vault| vault.verify());
}

#[tokio::test]
async fn what_stands_beside_a_value_changes_without_it() {
    let place = place();
    let vault = place.vault().await;
    let values = [canary(), canary()];
    let stored = vault.set(draft("anthropic:work"), secret(&values[0]), NOW).await.unwrap();
    let stored = vault.set(stored.draft(), secret(&values[1]), later(1)).await.unwrap();
    let (name, shared) = (stored.name.clone(), Scope::Shared);

    let text = Draft { label: Some("new".into()), description: None, ..stored.draft() };
    let after = vault.amend(&name, &shared, text, later(2)).await.unwrap().unwrap();
    assert_eq!((after.version, after.label.as_deref(), after.description.as_deref()), (2, Some("new"), None));
    assert_eq!((after.updated, &after.masked, after.id), (later(1), &stored.masked, stored.id));

    let hosts = Draft { hosts: vec!["gate.example".into()], ..after.draft() };
    let after = vault.amend(&name, &shared, hosts, later(3)).await.unwrap().unwrap();
    assert_eq!((after.version, after.updated), (3, later(1)), "a new version of the same value");
    let sealed = opened(&vault, "anthropic:work").await.unwrap();
    assert_eq!(sealed.hosts, ["gate.example"]);
    assert!(sealed.secret.matches(values[1].as_bytes()));

    let private = Scope::Agent(agent("coder"));
    let moved = Draft { scope: private.clone(), hosts: vec!["b.example".into()], ..after.draft() };
    let after = vault.amend(&name, &shared, moved, later(4)).await.unwrap().unwrap();
    assert_eq!((after.version, &after.scope), (4, &private));
    assert_ne!(after.id, stored.id);
    assert_eq!(vault.history(&name, &shared).await.unwrap(), None);
    let old = vault.rollback(&name, &private, 1, later(5)).await.unwrap().unwrap();
    assert_eq!(old.hosts, ["api.anthropic.com"]);
    assert!(opened(&vault, "anthropic:work").await.unwrap().secret.matches(values[0].as_bytes()));
    assert!(vault.verify().await.unwrap().faults.is_empty());

    vault.set(draft("anthropic:work"), secret(&values[0]), later(6)).await.unwrap();
    let taken = Draft { scope: Scope::Shared, ..old.draft() };
    assert!(matches!(
        vault.amend(&name, &private, taken, later(7)).await,
        Err(VaultError::Field { field: "scope", .. })
    ));
    assert!(vault.amend(&CredentialName::parse("x:y").unwrap(), &shared, old.draft(), NOW).await.unwrap().is_none());
    place.reopen().await.unwrap().verify().await.unwrap();
}

#[tokio::test]
async fn a_reference_is_sealed_in_the_place_of_a_value() {
    let vault = Vault::ephemeral().await.unwrap();
    let stored = vault.set_reference(draft("anthropic:work"), "env:SOME_KEY", NOW).await.unwrap();
    assert!(stored.by_reference);
    assert_eq!(stored.masked, "env:SOME_KEY");
    let sealed = opened(&vault, "anthropic:work").await.unwrap();
    assert_eq!(reference(&sealed.secret), Some("env:SOME_KEY"));
    assert_eq!(reference(&secret("env:SOME_KEY")), None, "a value that reads like one is none");
    let value = vault.set(stored.draft(), secret(&canary()), later(1)).await.unwrap();
    assert!(!value.by_reference);
    let history = vault.history(&stored.name, &Scope::Shared).await.unwrap().unwrap();
    assert_eq!(history[1].masked, "env:SOME_KEY");
}

#[tokio::test]
async fn a_renewal_follows_its_own_version_and_no_other() {
    let place = place();
    let vault = place.vault().await;
    let stored = vault.set(draft("anthropic:work"), secret(&canary()), NOW).await.unwrap();
    let renewed = canary();
    let second = vault.renew(&stored, 1, &secret(&renewed), NOW).await.unwrap().unwrap();
    assert_eq!((second.version, second.id), (2, stored.id));
    assert_eq!(vault.renew(&stored, 1, &secret(&canary()), NOW).await.unwrap(), None, "somebody was first");
    assert!(opened(&vault, "anthropic:work").await.unwrap().secret.matches(renewed.as_bytes()));
    vault.delete(&stored.name, &stored.scope).await.unwrap();
    assert_eq!(vault.renew(&second, 2, &secret(&canary()), NOW).await.unwrap(), None, "it is gone");
    let again = vault.set(draft("anthropic:work"), secret(&canary()), NOW).await.unwrap();
    assert_eq!(vault.renew(&stored, 1, &secret(&canary()), NOW).await.unwrap(), None, "another of the same name");
    assert_eq!(again.version, 1);
}
