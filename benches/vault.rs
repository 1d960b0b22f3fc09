//! How fast the vault opens, lists and decrypts.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use criterion::{Criterion, criterion_group, criterion_main};
use keyferry::clock::WallTime;
use keyferry::home::Home;
use keyferry::id::CredentialName;
use keyferry::secret::Secret;
use keyferry::vault::{Draft, KeySource, Scope, Vault};

const MANY: usize = 10_000;

fn draft(number: usize) -> Draft {
    let name = CredentialName::parse(&format!("openai:key{number}")).unwrap();
    Draft {
        provider: name.provider().cloned(),
        name,
        kind: "api-key".to_owned(),
        scope: Scope::Shared,
        env: Some("OPENAI_API_KEY".to_owned()),
        install: true,
        hosts: vec!["api.openai.com".to_owned()],
        description: None,
        label: None,
    }
}

fn vault(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // In memory where there is such a place: filling is not what is measured.
    let memory = std::path::Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let home = Home::at(dir.path().join("home"));
    let source = KeySource::default();
    let vault = runtime.block_on(async {
        let (vault, _) = Vault::open_or_create(&home, &source).await.unwrap();
        for number in 0..MANY {
            let value = Secret::new(format!("sk-{number:0>60}").into_bytes());
            vault.set(draft(number), value, WallTime(1)).await.unwrap();
        }
        vault
    });
    let snapshot = runtime.block_on(vault.snapshot()).unwrap();
    let one = snapshot.first().unwrap();
    criterion.bench_function("vault/decrypt one", |bench| bench.iter(|| vault.unseal(one).unwrap()));
    let mut group = criterion.benchmark_group("vault/10,000 credentials");
    group.sample_size(10);
    group.bench_function("open", |bench| {
        bench.iter(|| runtime.block_on(Vault::open(&home, &source)).unwrap());
    });
    group.bench_function("list", |bench| bench.iter(|| runtime.block_on(vault.list()).unwrap().len()));
    group.finish();
}

criterion_group!(benches, vault);
criterion_main!(benches);
