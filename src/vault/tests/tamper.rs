use rusqlite::types::Value;

use super::*;
use std::time::Duration;

/// Two credentials, one with a history and one private, an agent with tokens, and one that was revoked.
async fn stocked() -> (Place, Vault) {
    let place = place();
    let vault = place.vault().await;
    vault.set(draft("anthropic:work"), secret(&canary()), NOW).await.unwrap();
    vault.set(draft("anthropic:work"), secret(&canary()), later(1)).await.unwrap();
    let private = Scope::Agent(agent("coder"));
    let other = Draft { scope: private, env: Some("OPENAI_API_KEY".to_owned()), ..draft("openai:main") };
    vault.set(other, secret(&canary()), NOW).await.unwrap();
    vault.create_agent(&agent("coder"), NOW).await.unwrap();
    vault.create_session(&agent("coder"), Duration::from_secs(60), NOW).await.unwrap();
    vault.create_agent(&agent("gone"), NOW).await.unwrap();
    vault.revoke_agent(&agent("gone"), NOW).await.unwrap();
    (place, vault)
}

/// Every other value that a column could hold after somebody wrote to it: of bytes and texts, one with a bit flipped in
/// each place.
fn variations(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => vec![Value::Integer(0), Value::Text(String::new()), Value::Blob(Vec::new())],
        Value::Integer(number) => {
            let mut all: Vec<_> = (0..63).map(|bit| Value::Integer(number ^ (1 << bit))).collect();
            all.extend([Value::Null, Value::Integer(-1), Value::Integer(i64::MIN)]);
            all
        }
        Value::Text(text) => {
            let mut all = vec![Value::Null, Value::Text(format!("{text}x")), Value::Text(String::new())];
            for at in 0..text.len() {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1;
                all.push(Value::Text(String::from_utf8(bytes).unwrap()));
            }
            all
        }
        Value::Blob(bytes) => {
            let mut all = vec![Value::Null, Value::Blob(Vec::new()), Value::Blob([bytes.as_slice(), b"\0"].concat())];
            // The tests of the record format flip every byte of a record; of those, every fifth is enough here.
            let step = if bytes.len() > 64 { 5 } else { 1 };
            for at in (0..bytes.len()).step_by(step) {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                all.push(Value::Blob(changed));
                if at % 20 == 0 {
                    all.push(Value::Blob(bytes[..at].to_vec()));
                }
            }
            all
        }
        Value::Real(_) => unreachable!("no table of ours has a real number"),
    }
}

struct Column {
    table: &'static str,
    name: String,
    rows: Vec<(Vec<Value>, Value)>,
}

fn columns(database: &rusqlite::Connection, tables: &[&'static str]) -> Vec<Column> {
    let mut all = Vec::new();
    for table in tables {
        let mut info = database.prepare(&format!("SELECT name, pk FROM pragma_table_info('{table}')")).unwrap();
        let names: Vec<(String, i64)> =
            info.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
        let keys: Vec<_> = names.iter().filter(|(_, key)| *key > 0).map(|(name, _)| name.clone()).collect();
        for (name, _) in &names {
            let select = format!("SELECT {}, {name} FROM {table}", keys.join(", "));
            let mut statement = database.prepare(&select).unwrap();
            let rows = statement.query_map([], |row| {
                let key = (0..keys.len()).map(|at| row.get(at)).collect::<Result<Vec<Value>, _>>()?;
                Ok((key, row.get(keys.len())?))
            });
            let rows = rows.unwrap().map(Result::unwrap).collect();
            all.push(Column { table, name: name.clone(), rows });
        }
    }
    all
}

/// Undoes what `change` did to the database, so that each change is seen alone.
async fn with_change(
    database: &rusqlite::Connection,
    column: &Column,
    key: &[Value],
    value: &Value,
    check: impl AsyncFnOnce(),
) {
    let keys = ["record", "version", "term", "name", "digest", "only"];
    let names: Vec<String> = {
        let mut info = database
            .prepare(&format!("SELECT name FROM pragma_table_info('{}') WHERE pk > 0 ORDER BY pk", column.table))
            .unwrap();
        let names = info.query_map([], |row| row.get(0)).unwrap();
        names.map(Result::unwrap).collect()
    };
    assert!(names.iter().all(|name| keys.contains(&name.as_str())));
    let place: Vec<String> = names.iter().enumerate().map(|(at, name)| format!("{name} IS ?{}", at + 2)).collect();
    let update = format!("UPDATE {} SET {} = ?1 WHERE {}", column.table, column.name, place.join(" AND "));
    let parameters = |value: &Value, key: &[Value]| {
        rusqlite::params_from_iter(std::iter::once(value.clone()).chain(key.iter().cloned()).collect::<Vec<_>>())
    };
    let original = column.rows.iter().find(|(at, _)| at == key).unwrap().1.clone();
    match database.execute(&update, parameters(value, key)) {
        // STRICT, NOT NULL, CHECK and UNIQUE keep some of them out already.
        Err(_) => return,
        Ok(changed) => assert_eq!(changed, 1),
    }
    check().await;
    let mut moved = key.to_vec();
    if let Some(at) = names.iter().position(|name| *name == column.name) {
        moved[at] = value.clone();
    }
    assert_eq!(database.execute(&update, parameters(&original, &moved)).unwrap(), 1);
}

// VA-01, VA-04, VA-05
#[tokio::test]
async fn a_change_in_any_column_is_refused() {
    let (place, vault) = stocked().await;
    let before = observe(&vault).await.unwrap();
    let database = place.database();
    let mut changes = 0;
    for column in columns(&database, &["credential", "version", "agent", "token", "manifest"]) {
        for (key, value) in &column.rows {
            for other in variations(value) {
                let what = format!("{}.{} {key:?} -> {other:?}", column.table, column.name);
                with_change(&database, &column, key, &other, async || {
                    changes += 1;
                    let error = observe(&vault).await.expect_err(&what);
                    assert!(matches!(error, VaultError::Corrupt { .. }), "{what}: {error}");
                })
                .await;
            }
        }
    }
    assert!(changes > 1000, "{changes}");
    assert_eq!(observe(&vault).await.unwrap(), before);
}

// VA-01
#[tokio::test]
async fn a_change_in_the_keyring_is_refused() {
    let (place, vault) = stocked().await;
    let before = observe(&vault).await.unwrap();
    drop(vault);
    let database = place.database();
    let mut changes = 0;
    for column in columns(&database, &["keyring", "meta"]) {
        for (key, value) in &column.rows {
            for other in variations(value) {
                let what = format!("{}.{} {key:?} -> {other:?}", column.table, column.name);
                with_change(&database, &column, key, &other, async || {
                    changes += 1;
                    let error = match place.reopen().await {
                        Ok(vault) => observe(&vault).await.expect_err(&what),
                        Err(error) => error,
                    };
                    assert!(
                        matches!(error, VaultError::Corrupt { .. } | VaultError::WrongKey { .. }),
                        "{what}: {error}"
                    );
                })
                .await;
            }
        }
    }
    assert!(changes > 200, "{changes}");
    assert_eq!(observe(&place.reopen().await.unwrap()).await.unwrap(), before);
}

/// What somebody who can write to the database, but has no key, might try.
async fn refused(statement: &str) {
    let (place, vault) = stocked().await;
    place.database().execute_batch(statement).unwrap();
    let error = observe(&vault).await.expect_err(statement);
    assert!(matches!(error, VaultError::Corrupt { .. }), "{statement}: {error}");
    let error = match place.reopen().await {
        Ok(vault) => observe(&vault).await.expect_err(statement),
        Err(error) => error,
    };
    assert!(matches!(error, VaultError::Corrupt { .. }), "{statement}: {error}");
}

// VA-03, VA-04, VA-05, VA-06, VA-08
#[tokio::test]
async fn forged_swapped_missing_and_older_rows_are_refused() {
    for statement in [
        "UPDATE credential SET hosts = '[\"evil.test\"]' WHERE name = 'anthropic:work'",
        "UPDATE credential SET scope = 'shared' WHERE name = 'openai:main'",
        "UPDATE credential SET version = 1 WHERE name = 'anthropic:work'",
        "DELETE FROM credential WHERE name = 'openai:main'",
        "DELETE FROM version WHERE version = 2",
        "DELETE FROM version WHERE version = 1 AND record IN (SELECT record FROM credential WHERE version = 2)",
        "DELETE FROM credential; DELETE FROM version",
        "DELETE FROM token",
        "DELETE FROM agent WHERE name = 'gone'",
        "UPDATE agent SET revoked = NULL",
        "UPDATE token SET revoked = NULL",
        "UPDATE token SET expires = expires + 1000000 WHERE session = 1",
        "UPDATE token SET agent = 'coder'",
        "INSERT INTO token SELECT randomblob(32), agent, session, created, expires, NULL, mac FROM token LIMIT 1",
        "INSERT INTO agent SELECT 'admin', created, revoked, mac FROM agent LIMIT 1",
        "DELETE FROM manifest",
        "UPDATE manifest SET epoch = epoch - 1",
        "DELETE FROM keyring",
        "DELETE FROM keyring WHERE term = 1",
        "UPDATE keyring SET sealed = (SELECT sealed FROM keyring WHERE term = 0) WHERE term = 1",
        "DELETE FROM meta",
        // Two values exchanged: of one kind, and a preview in a value's place.
        "CREATE TEMP TABLE t AS SELECT * FROM version; UPDATE version SET sealed =
           (SELECT sealed FROM t WHERE t.record <> version.record AND t.version = 1) WHERE version = 1",
        "UPDATE version SET sealed = preview",
        "UPDATE version SET preview = (SELECT preview FROM version AS v WHERE v.version = 2)",
    ] {
        // The keyring is read when the vault is opened; a vault that is open goes on with what it has.
        if statement.contains("keyring") || statement.contains("meta") {
            let (place, vault) = stocked().await;
            drop(vault);
            place.database().execute_batch(statement).unwrap();
            let error = match place.reopen().await {
                Ok(vault) => observe(&vault).await.expect_err(statement),
                Err(error) => error,
            };
            assert!(matches!(error, VaultError::Corrupt { .. }), "{statement}: {error}");
        } else {
            refused(statement).await;
        }
    }
}

// VA-06
#[tokio::test]
async fn a_row_from_an_earlier_day_is_refused() {
    let (place, vault) = stocked().await;
    let database = place.database();
    database
        .execute_batch(
            "ATTACH ':memory:' AS old; CREATE TABLE old.credential AS SELECT * FROM main.credential;
        CREATE TABLE old.token AS SELECT * FROM main.token; CREATE TABLE old.agent AS SELECT * FROM main.agent",
        )
        .unwrap();
    vault.set(draft("anthropic:work"), secret(&canary()), later(5)).await.unwrap();
    vault.revoke_agent(&agent("coder"), later(5)).await.unwrap();
    let after = observe(&vault).await.unwrap();
    for (table, key) in [("credential", "record"), ("token", "digest"), ("agent", "name")] {
        database.execute_batch(&format!("CREATE TABLE old.now AS SELECT * FROM main.{table}")).unwrap();
        database
            .execute_batch(&format!("DELETE FROM main.{table}; INSERT INTO main.{table} SELECT * FROM old.{table}"))
            .unwrap();
        let error = observe(&vault).await.expect_err(&format!("{table} by {key}"));
        assert!(matches!(error, VaultError::Corrupt { .. }), "{error}");
        database
            .execute_batch(&format!(
                "DELETE FROM main.{table}; INSERT INTO main.{table} SELECT * FROM old.now; DROP TABLE old.now"
            ))
            .unwrap();
    }
    assert_eq!(observe(&vault).await.unwrap(), after);
}

// VA-03
#[tokio::test]
async fn rows_of_another_vault_are_refused() {
    let (one, vault) = stocked().await;
    let (two, _) = stocked().await;
    // The very same root key makes them no more alike.
    std::fs::copy(one.home.master_key(), two.home.master_key()).unwrap();
    let database = one.database();
    database.execute("ATTACH ?1 AS other", [two.home.vault_db().to_str().unwrap()]).unwrap();
    for table in ["credential", "version", "agent", "token", "manifest"] {
        database
            .execute_batch(&format!("DELETE FROM main.{table}; INSERT INTO main.{table} SELECT * FROM other.{table}"))
            .unwrap();
    }
    assert!(matches!(observe(&vault).await, Err(VaultError::Corrupt { .. })));
}

/// Damage to one sealed value is seen when that value is opened, and the others go on.
#[tokio::test]
async fn one_damaged_value_does_not_stop_the_others() {
    let (place, vault) = stocked().await;
    place.database().execute_batch("UPDATE version SET sealed = zeroblob(length(sealed)) WHERE version = 2").unwrap();
    let error = opened(&vault, "anthropic:work").await.unwrap_err();
    assert_eq!(error.code(), crate::code::Code::VaultCorrupt);
    assert!(error.to_string().contains("anthropic:work"), "{error}");
    assert!(opened(&vault, "openai:main").await.is_ok());
    assert_eq!(vault.list().await.unwrap().len(), 2);
    let faults = vault.verify().await.unwrap().faults;
    assert_eq!(faults.len(), 1);
    assert!(faults[0].to_string().contains("version 2 of credential anthropic:work"), "{}", faults[0]);
    // It can be mended by setting it again, or removed.
    vault.set(draft("anthropic:work"), secret(&canary()), later(9)).await.unwrap();
    assert!(opened(&vault, "anthropic:work").await.is_ok());
    assert!(vault.delete(&name("anthropic:work"), &Scope::Shared).await.unwrap());
    assert!(vault.verify().await.unwrap().faults.is_empty());
}

/// A snapshot's row that was changed in memory, or after its MAC was checked, does not move a value either.
#[tokio::test]
async fn a_value_opens_only_for_the_binding_that_was_sealed_with_it() {
    let place = place();
    let vault = place.vault().await;
    vault.set(draft("anthropic:work"), secret(&canary()), NOW).await.unwrap();
    let credential = vault.snapshot().await.unwrap().remove(0);
    assert!(vault.unseal(&credential).is_ok());
    let changes: [fn(&mut Stored); 7] = [
        |stored| stored.hosts = vec!["evil.test".to_owned()],
        |stored| stored.hosts.clear(),
        |stored| stored.kind = "setup-token".to_owned(),
        |stored| stored.scope = Scope::Agent(AgentName::parse("coder").unwrap()),
        |stored| stored.provider = None,
        |stored| stored.name = CredentialName::parse("anthropic:other").unwrap(),
        |stored| stored.version += 1,
    ];
    for change in changes {
        let mut changed = credential.clone();
        change(&mut changed.stored);
        assert!(matches!(vault.unseal(&changed), Err(VaultError::Corrupt { .. })), "{:?}", changed.stored);
    }
}
