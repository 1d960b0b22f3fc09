//! `redact` and `scan`: what others wrote.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::harness::{Canary, Home};

#[test]
fn redact_masks_stored_values_in_every_form_and_tokens_of_known_shapes() {
    let home = Home::empty();
    let (stored, foreign) = (Canary::plain(), Canary::github());
    home.set("mine", &stored, &[]);
    home.guard(&foreign);
    let hex: String = stored.as_str().bytes().map(|byte| format!("{byte:02x}")).collect();
    let coded = STANDARD.encode(format!("user:{}", stored.as_str()));
    let input = format!(
        "a {} b\nhex {hex}\nAuthorization: Basic {coded}\ntoken {}\nplain\n",
        stored.as_str(),
        foreign.as_str()
    );
    let input = [input.as_bytes(), b"\xff\0\xfe last"].concat();
    let finished = home.finish(home.keyferry(&["redact"]), &input);
    finished.assert_code(0);
    let out = String::from_utf8_lossy(&finished.stdout_bytes).into_owned();
    assert!(out.starts_with("a ***...*** b\nhex ****"), "{out}");
    assert!(out.contains("token ghp_***...***\nplain\n"), "{out}");
    assert!(finished.stdout_bytes.ends_with(b"\xff\0\xfe last"), "other bytes pass as they are");
}

#[test]
fn redact_works_before_anything_is_stored() {
    let home = Home::empty();
    let token = Canary::anthropic();
    home.guard(&token);
    let finished = home.finish(home.keyferry(&["redact"]), format!("x {} y", token.as_str()).as_bytes());
    finished.assert_code(0);
    assert_eq!(finished.stdout(), "x sk-ant-***...*** y");
}

#[test]
fn scan_names_the_place_and_the_secret_and_shows_neither() {
    let home = Home::empty();
    let (stored, token) = (Canary::plain(), Canary::slack());
    home.set("mine", &stored, &[]);
    home.guard(&token);
    // Outside of the home, which is searched at the end.
    let outside = tempfile::tempdir().unwrap();
    let path = |name: &str| outside.path().join(name);
    std::fs::create_dir(path("deep")).unwrap();
    std::fs::write(path("clean.txt"), "nothing here\n").unwrap();
    std::fs::write(path("deep/a.bin"), [&b"\0\xff\n\n"[..], stored.as_str().as_bytes(), b"\0"].concat()).unwrap();
    std::fs::write(path("deep/b.log"), format!("one\ntoken={}\n", token.as_str())).unwrap();
    std::fs::write(path("deep/c.txt"), STANDARD.encode(stored.as_str())).unwrap();
    std::os::unix::fs::symlink(outside.path(), path("deep/loop")).unwrap();

    let scan = |arguments: &[&str]| home.command(&[&["scan"], arguments].concat());
    let all = scan(&[outside.path().to_str().unwrap()]);
    all.assert_code(1);
    let out = all.stdout().to_owned();
    assert!(out.contains("deep/a.bin:3: the value of mine"), "{out}");
    assert!(out.contains("deep/b.log:2: a token xoxb-***"), "{out}");
    assert!(out.contains("deep/c.txt:1: a stored value, encoded"), "{out}");
    assert_eq!(out.lines().count(), 3, "{out}");
    let json = scan(&["--json", path("deep/a.bin").to_str().unwrap()]);
    json.assert_code(1);
    let json = json.json();
    assert_eq!((&json[0]["what"], &json[0]["name"], &json[0]["offset"]), (&"stored".into(), &"mine".into(), &4.into()));
    scan(&[path("clean.txt").to_str().unwrap()]).assert_code(0);
    scan(&["--json", path("clean.txt").to_str().unwrap()]).assert_code(0);
    scan(&[path("absent").to_str().unwrap()]).assert_code(1).assert_says(&["absent"]);
    scan(&[]).assert_code(2);
}
