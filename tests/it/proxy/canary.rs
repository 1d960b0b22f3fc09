//! The search itself, and one run over every sink there is.

use std::collections::BTreeSet;

use super::{ACME, Stage, get};
use crate::harness::{Canary, Search, form_names, forms_of};

#[test]
fn the_search_finds_every_form_in_every_place() {
    assert!(form_names().len() >= 20, "{:?}", form_names());
    for canary in [Canary::anthropic(), Canary::openai(), Canary::github(), Canary::awkward(), Canary::plain()] {
        let search = Search::new([&canary]);
        let dir = tempfile::tempdir().unwrap();
        for (at, (form, bytes)) in forms_of(&canary).into_iter().enumerate() {
            let text = [b"before ", &bytes[..], b" after"].concat();
            assert!(!search.bytes("memory", &text).is_empty(), "{form}");
            if at % 50 == 0 {
                std::fs::write(dir.path().join(format!("f{at}")), text).unwrap();
            }
        }
        let places: BTreeSet<String> = search.directory(dir.path()).into_iter().map(|hit| hit.place).collect();
        assert_eq!(places.len(), std::fs::read_dir(dir.path()).unwrap().count());
        // What is no secret is no hit.
        assert!(search.bytes("x", b"nothing of the kind stands here, for sure").is_empty());
    }
}

#[test]
fn no_sink_of_a_busy_daemon_holds_a_value() {
    // EX-18, EX-20
    let mut stage = Stage::new();
    let secret = stage.acme.as_str().to_owned();
    for path in ["/echo/fields", "/missing", "/v1?key=placeholder"] {
        stage.open(ACME).ask(&get(ACME, path));
    }
    stage.connect("nowhere.example:443");
    for arguments in [
        &["status", "--json"][..],
        &["profile", "list", "--json"],
        &["secret", "list", "--json"],
        &["secret", "show", "acme:work", "--json"],
        &["secret", "history", "acme:work"],
        &["agent", "list", "--json"],
        &["config", "show", "--json"],
        &["config", "check", "--json"],
        &["provider", "show", "acme", "--json"],
        &["ca", "show", "--json"],
        &["why", "coder", "GET", "https://api.acme.example/x", "--json"],
        &["version", "--json"],
    ] {
        stage.home.command(arguments).assert_code(0);
    }
    for path in ["/healthz", "/readyz", "/metrics", "/", "/v1/status", "/debug/vars"] {
        let (status, text) = stage.daemon.admin_get(path);
        stage.home.observe(path, text.as_bytes());
        assert!(status < 500, "{path}");
    }
    // The proof that there was something to be found: the provider got it, once a request.
    stage.upstream.assert_carried(ACME, &secret);
    stage.stop();
    stage.home.assert_clean();
    let sinks = ["logs/access.jsonl", "logs/audit.jsonl", "vault.db"];
    for sink in sinks {
        assert!(stage.home.path().join(sink).metadata().unwrap().len() > 0, "{sink} is empty, which proves nothing");
    }
}
