//! The house rules that a compiler does not know: floors, the ways out of a secret, no test forgotten.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regex::Regex;

/// The floors of `src/`, from the ground up. A module imports only from lower floors.
const FLOORS: &[(u8, &[&str])] = &[
    // The ground: types that know nothing of each other. Floor 1 is built of them.
    (0, &["secret", "id", "code", "clock", "spawn", "sys"]),
    (1, &["message", "placeholder", "home", "scrub"]),
    (2, &["agent", "vault", "tls", "telemetry"]),
    (3, &["policy"]),
    (4, &["provider"]),
    (5, &["upstream"]),
    (6, &["pool", "source"]),
    (7, &["config"]),
    (8, &["proxy", "admin", "launch"]),
    (9, &["app"]),
    (10, &["cli"]),
    (11, &["main"]),
];

/// The files in which a secret's bytes are taken out of their type, and why there.
const EXPOSES: &[(&str, &str)] = &[
    ("src/app/control.rs", "a session's token, for the process that asked for it"),
    ("src/cli/agent.rs", "a new agent's token, shown once"),
    ("src/cli/secret/reveal.rs", "a value that a person asked to see, of a vault that was made for it"),
    ("src/launch/environment.rs", "the agent's own token, in its own environment"),
    ("src/placeholder.rs", "keys the hash that placeholders are made with"),
    ("src/provider/credential.rs", "the credential's own lock: to its audience only"),
    ("src/provider/kind.rs", "the shape of a value, and whether it fits its slots"),
    ("src/provider/scheme/values.rs", "the parts of a value with several fields"),
    ("src/scrub/patterns.rs", "what to look for in responses, in every encoding"),
    ("src/scrub/redact.rs", "what to look for in our own lines"),
    ("src/source/login.rs", "a login's tokens: to its own token endpoint, and back into the vault"),
    ("src/telemetry/chain.rs", "keys of the chain of records"),
    ("src/upstream/chain/url.rs", "the password for another proxy, to that proxy"),
    ("src/vault/agents.rs", "the digest of a new token"),
    ("src/vault/payload.rs", "what is sealed into a record"),
    ("src/vault/reveal.rs", "keys the permit to show values"),
    ("src/vault/root/passphrase.rs", "the passphrase that the root key is made of"),
    ("src/vault/value.rs", "what a person typed, made clean; the masked form"),
    ("src/upstream/channel.rs", "the password for another proxy, in a request that it takes whole"),
];

/// A file with its code in it, comments and its own tests left out.
struct Source {
    name: String,
    code: String,
    lines: usize,
}

#[test]
fn imports_run_downward_only() {
    let import = Regex::new(r"\b(?:crate|keyferry)::(?:\{([^;]*?)\}|([a-z_]+))").unwrap();
    let word = Regex::new(r"(?:^|,)\s*([a-z_]+)").unwrap();
    let mut wrong = Vec::new();
    for source in sources("src") {
        let room = room(&source.name);
        if room == "lib" {
            continue;
        }
        let Some(own) = floor(&room) else {
            wrong.push(format!("{} stands on no floor", source.name));
            continue;
        };
        for found in import.captures_iter(&source.code) {
            let targets: Vec<String> = match (found.get(1), found.get(2)) {
                (Some(list), _) => word.captures_iter(&flat(list.as_str())).map(|c| c[1].to_owned()).collect(),
                (_, Some(one)) => vec![one.as_str().to_owned()],
                _ => Vec::new(),
            };
            for target in targets.iter().filter(|target| **target != room) {
                match floor(target) {
                    Some(other) if other < own => {}
                    Some(other) => wrong.push(format!("{} (floor {own}) uses {target} (floor {other})", source.name)),
                    None => wrong.push(format!("{} uses {target}, which stands on no floor", source.name)),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn secrets_are_exposed_in_the_listed_files_only() {
    let is_test = |name: &str| name.contains("/tests/") || name.ends_with("tests.rs");
    let program = sources("src").into_iter().filter(|source| !is_test(&source.name));
    let exposing = program.filter(|source| source.code.contains(".expose()"));
    let found: BTreeSet<String> = exposing.map(|source| source.name).collect();
    let listed: BTreeSet<String> = EXPOSES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, listed);
}

#[test]
fn only_the_command_line_prints() {
    let print = Regex::new(r"\be?println?!|\banstream::e?print").unwrap();
    let printing = sources("src").into_iter().filter(|source| print.is_match(&source.code));
    let wrong: Vec<String> = printing.map(|s| s.name).filter(|name| !["cli", "main"].contains(&&*room(name))).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn unsafe_code_stands_in_one_file() {
    let keyword = Regex::new(r"\bunsafe\b").unwrap();
    let found = sources("src").into_iter().filter(|source| keyword.is_match(&source.code));
    let wrong: Vec<String> = found.map(|source| source.name).filter(|name| name != "src/sys.rs").collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn every_test_file_is_part_of_the_program() {
    let declared = Regex::new(r"(?m)^\s*(?:pub(?:\([a-z]+\))? )?mod ([a-z_0-9]+);").unwrap();
    let all: BTreeSet<String> = sources("tests/it").into_iter().map(|source| source.name).collect();
    let mut reached = BTreeSet::new();
    let mut open = vec!["tests/it/main.rs".to_owned()];
    while let Some(name) = open.pop() {
        let text = std::fs::read_to_string(root().join(&name)).unwrap();
        let parent = name.strip_suffix("/main.rs").or(name.strip_suffix("/mod.rs"));
        let parent = parent.unwrap_or_else(|| name.strip_suffix(".rs").unwrap()).to_owned();
        for found in declared.captures_iter(&text) {
            let candidates = [format!("{parent}/{}.rs", &found[1]), format!("{parent}/{}/mod.rs", &found[1])];
            open.extend(candidates.into_iter().filter(|candidate| all.contains(candidate)));
        }
        reached.insert(name);
    }
    assert_eq!(all, reached);
    let scripts = std::fs::read_dir(root().join("tests/clients")).unwrap().flatten();
    let tests: String = all.iter().map(|name| std::fs::read_to_string(root().join(name)).unwrap()).collect();
    for script in scripts.map(|entry| entry.file_name().into_string().unwrap()) {
        let is_list = script.ends_with(".json") || script.ends_with(".txt");
        assert!(is_list || tests.contains(&script), "tests/clients/{script} is used by no test");
    }
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    // About 300 lines without its tests is the aim; this is where it ends.
    const LINES: usize = 500;
    let all = sources("src").into_iter().chain(sources("tests/it"));
    let long = all.filter(|source| source.lines > LINES).map(|s| format!("{}: {} lines", s.name, s.lines));
    let long: Vec<String> = long.collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn the_example_configuration_equals_the_defaults() {
    let text = std::fs::read_to_string(root().join("config/keyferry.example.yaml")).unwrap();
    let example = keyferry::config::parse(&text, "keyferry.example.yaml").unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(example.show(), keyferry::config::Config::default().show());
    let comments = text.lines().filter(|line| line.trim_start().starts_with('#')).count();
    assert!(comments > 10, "the example explains itself");
}

#[test]
fn nothing_that_looks_like_a_key_stands_in_the_repository() {
    // Shapes that a scanner would report; test secrets are made at run time.
    let shapes = [
        r"sk-ant-(?:api|oat|admin)\d{2}-[A-Za-z0-9_-]{24,}",
        r"sk-(?:proj|svcacct)-[A-Za-z0-9_-]{24,}",
        r"sk-or-v1-[0-9a-f]{64}",
        r"gh[pousr]_[A-Za-z0-9]{36}",
        r"github_pat_[A-Za-z0-9_]{40,}",
        r"AIza[A-Za-z0-9_-]{35}",
        r"xox[abps]-[0-9]{8,}-[0-9]{8,}-[A-Za-z0-9]{20,}",
        r"\b\d{8,10}:AA[A-Za-z0-9_-]{33}\b",
        r"-----BEGIN (?:EC |RSA )?PRIVATE KEY-----\n[A-Za-z0-9+/=\n]{40,}",
    ];
    let shapes: Vec<Regex> = shapes.iter().map(|shape| Regex::new(shape).unwrap()).collect();
    let mut wrong = Vec::new();
    for file in files(&root(), &|name| !["target", ".git"].contains(&name)) {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let found = shapes.iter().filter_map(|shape| shape.find(&text));
        wrong.extend(found.map(|hit| format!("{}: {}...", file.display(), &hit.as_str()[..12])));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn tests_that_a_plain_run_passes_over_are_listed_with_their_reason() {
    let ignored = Regex::new(r"#\[ignore[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*(?:async\s+)?fn\s+(\w+)").unwrap();
    let mut found = BTreeSet::new();
    for file in ["src", "tests"].iter().flat_map(|dir| files(&root().join(dir), &|_| true)) {
        let name = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if !name.ends_with(".rs") || name.ends_with("architecture.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        found.extend(ignored.captures_iter(&text).map(|captures| (name.clone(), captures[1].to_owned())));
    }
    let list = std::fs::read_to_string(root().join("tests/fixtures/exceptions.txt")).unwrap();
    let mut listed = BTreeSet::new();
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let [file, function, reason] = line.splitn(3, " :: ").collect::<Vec<_>>().try_into().unwrap();
        assert!(reason.len() > 10, "{line}");
        listed.insert((file.to_owned(), function.to_owned()));
    }
    assert_eq!(found, listed);
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(_, rooms)| rooms.contains(&room)).map(|(floor, _)| *floor)
}

/// The top-level module that a file of `src/` belongs to.
fn room(name: &str) -> String {
    let path = name.strip_prefix("src/").unwrap_or(name);
    path.split('/').next().unwrap_or(path).trim_end_matches(".rs").to_owned()
}

/// A use list with its inner lists left out: `a::{b, c}, d` is `a::, d`.
fn flat(list: &str) -> String {
    let mut depth = 0;
    let mut text = String::new();
    for letter in list.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ if depth == 0 => text.push(letter),
            _ => {}
        }
    }
    text
}

fn sources(dir: &str) -> Vec<Source> {
    let mut all: Vec<Source> = Vec::new();
    for file in files(&root().join(dir), &|_| true) {
        if file.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let before_tests = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code = before_tests.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code = code.collect::<Vec<_>>().join("\n");
        let name = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        all.push(Source { name, code, lines: before_tests.lines().count() });
    }
    assert!(!all.is_empty(), "no source in {dir}");
    all
}

fn files(dir: &Path, enter: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let name = entry.file_name();
        if !enter(name.to_str().unwrap_or_default()) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            all.extend(files(&entry.path(), enter));
        } else {
            all.push(entry.path());
        }
    }
    all
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
