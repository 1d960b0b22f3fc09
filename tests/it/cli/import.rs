//! `secret import`, and the one way to see a value.

use serde_json::{Value, json};

use crate::harness::{Canary, Finished, Home};

struct Desk {
    home: Home,
    outside: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { home: Home::empty(), outside: tempfile::tempdir().unwrap() }
    }

    /// The files with the keys stand outside of what is searched for them.
    fn import(&self, name: &str, text: &str, more: &[&str]) -> Finished {
        let path = self.outside.path().join(name);
        std::fs::write(&path, text).unwrap();
        self.home.command(&[&["secret", "import", path.to_str().unwrap()], more].concat())
    }

    fn list(&self) -> Vec<Value> {
        let listed = self.home.command(&["secret", "list", "--json"]);
        listed.assert_code(0);
        listed.json().as_array().unwrap().clone()
    }

    fn canary(&self, canary: Canary) -> Canary {
        self.home.guard(&canary);
        canary
    }
}

fn fate<'a>(fates: &'a Value, name: &str) -> &'a Value {
    fates.as_array().unwrap().iter().find(|fate| fate["name"] == name).unwrap_or_else(|| panic!("{name} in {fates}"))
}

#[test]
fn a_dotenv_file_gives_its_keys_and_leaves_its_settings() {
    let desk = Desk::new();
    let (anthropic, openai) = (desk.canary(Canary::anthropic()), desk.canary(Canary::openai()));
    let text = format!(
        "# keys\nexport ANTHROPIC_API_KEY={}\nOPENAI_API_KEY=\"{}\" # the team's\nPORT=8080\nEMPTY=\n",
        anthropic.as_str(),
        openai.as_str()
    );
    let dry = desk.import(".env", &text, &["--dry-run", "--json"]);
    dry.assert_code(0).assert_says(&["dry run"]);
    assert!(!desk.home.path().join("vault.db").exists(), "a dry run makes nothing");
    let fates = dry.json();
    assert_eq!(fate(&fates, "ANTHROPIC_API_KEY")["action"], "new");
    assert_eq!(fate(&fates, "ANTHROPIC_API_KEY")["provider"], "anthropic");
    assert_eq!(fate(&fates, "PORT")["action"], "passed-over");
    assert!(fate(&fates, "OPENAI_API_KEY")["masked"].as_str().unwrap().starts_with("sk-proj-***..."));

    desk.import(".env", &text, &[]).assert_code(0).assert_says(&["imported 2 of 4"]);
    let all = desk.list();
    let names: Vec<_> =
        all.iter().map(|one| (one["name"].as_str().unwrap(), one["provider"].as_str().unwrap())).collect();
    assert_eq!(names, [("ANTHROPIC_API_KEY", "anthropic"), ("OPENAI_API_KEY", "openai")]);
    assert!(all.iter().all(|one| one["env"] == one["name"] && one["install"] == true));
    // Once more changes nothing; another value is a new version.
    let again = desk.import(".env", &text, &["--json"]).json();
    assert_eq!(fate(&again, "OPENAI_API_KEY")["action"], "same");
    let newer = desk.canary(Canary::openai());
    desk.import(".env", &format!("OPENAI_API_KEY={}\n", newer.as_str()), &[]).assert_code(0);
    let versions: Vec<_> = desk.list().iter().map(|one| one["version"].as_u64().unwrap()).collect();
    assert_eq!(versions, [1, 2]);
    desk.import(".env", "PORT=8080\n", &["--all"]).assert_code(0);
    assert_eq!(desk.list().len(), 3);
}

#[test]
fn auth_profiles_become_profiles() {
    let desk = Desk::new();
    let (token, key, access) =
        (desk.canary(Canary::setup_token()), desk.canary(Canary::openai()), desk.canary(Canary::setup_token()));
    let refresh = desk.canary(Canary::plain());
    let profiles = json!({
        "anthropic:titanium": {"provider": "anthropic", "type": "token", "token": token.as_str(), "label": "Titanium"},
        "openai:main": {"provider": "openai", "type": "api_key", "key": key.as_str()},
        "anthropic:login": {"provider": "anthropic", "type": "oauth", "access": access.as_str(),
            "refresh": refresh.as_str(), "expires": 4_000_000_000_000_u64, "email": "a@b.example"},
        "anthropic:past": {"provider": "anthropic", "type": "oauth", "access": "past", "refresh": "x", "expires": 1_000},
        "unknown-one:x": {"provider": "unknown-one", "type": "token", "token": "whatever-it-is"},
    });
    let finished = desk.import("auth-profiles.json", &profiles.to_string(), &["--json"]);
    finished.assert_code(0);
    let fates = finished.json();
    assert_eq!(fate(&fates, "anthropic:titanium")["type"], "setup-token");
    assert!(fate(&fates, "anthropic:login")["reason"].as_str().unwrap().contains("2096"));
    for passed in ["anthropic:past", "unknown-one:x"] {
        assert_eq!(fate(&fates, passed)["action"], "passed-over", "{passed}");
    }
    let all = desk.list();
    assert_eq!(all.len(), 3);
    let titanium = all.iter().find(|one| one["name"] == "anthropic:titanium").unwrap();
    assert_eq!((&titanium["label"], &titanium["type"]), (&"Titanium".into(), &"setup-token".into()));
    // The same within the form that has a version.
    let nested = json!({"version": 1, "profiles": profiles}).to_string();
    let again = desk.import("auth-profiles.json", &nested, &["--json"]).json();
    assert_eq!(fate(&again, "anthropic:titanium")["action"], "same");
}

#[test]
fn a_fault_anywhere_leaves_everything_out_and_repeats_no_line() {
    let desk = Desk::new();
    let (good, odd) = (desk.canary(Canary::openai()), desk.canary(Canary::plain()));
    let cases = [
        (".env", format!("OPENAI_API_KEY={}\nANTHROPIC_API_KEY={}\n", good.as_str(), odd.as_str()), "--force"),
        (".env", format!("OPENAI_API_KEY={}\n{} is no line\n", good.as_str(), odd.as_str()), ":2:"),
        (".env", format!("OPENAI_API_KEY={}\nOPENAI_API_KEY={}\n", good.as_str(), odd.as_str()), "twice"),
        ("a.json", format!("{{\"openai:a\": {{\"token\": \"{}\"}}, \"openai:b\": {{}}}}", good.as_str()), "no token"),
        ("a.json", format!("{{\"openai:a\": {{\"token\": \"{}\"", good.as_str()), "JSON"),
        ("a.json", format!("{{\"openai:a\": \"{}\"}}", good.as_str()), "no profile"),
    ];
    for (name, text, says) in cases {
        desk.import(name, &text, &[]).assert_code(1).assert_says(&[says]);
        assert!(!desk.home.path().join("vault.db").exists(), "{says}");
    }
    desk.home.command(&["secret", "import", "absent.env"]).assert_code(1).assert_says(&["absent.env"]);
}

#[test]
fn a_value_is_shown_only_by_a_vault_that_was_made_for_it() {
    let home = Home::empty();
    home.set("openai:work", &Canary::openai(), &[]);
    home.command(&["secret", "reveal", "openai:work", "--yes"]).assert_code(1).assert_says(&["--allow-reveal"]);
    home.command(&["init", "--allow-reveal"]).assert_code(1).assert_says(&["vault already"]);
    std::fs::write(home.path().join("vault.reveal"), [7u8; 32]).unwrap();
    crate::harness::private(&home.path().join("vault.reveal"));
    home.command(&["secret", "reveal", "openai:work", "--yes"]).assert_code(1);

    let open = Home::empty();
    open.command(&["init", "--allow-reveal"]).assert_code(0).assert_says(&["warning"]);
    let value = format!("{}-{}", "shown", std::process::id());
    let set = open.keyferry(&["secret", "set", "openai:work", "--force"]);
    open.finish(set, value.as_bytes()).assert_code(0);
    open.command(&["secret", "reveal", "openai:work", "--no-input"]).assert_code(2).assert_says(&["--yes"]);
    let shown = open.command(&["secret", "reveal", "openai:work", "--yes"]);
    shown.assert_code(0);
    assert_eq!(shown.stdout(), format!("{value}\n"));
    let audit = open.file("logs/audit.jsonl");
    assert!(audit.contains("secret.revealed") && !audit.contains(&value));
}
