//! Bodies: both ways as they come, whole, and never ended cleanly when they broke.

use super::{ACME, Stage, get};
use crate::upstream::{Answer, Defect, Gate, Rule};

#[test]
fn tokens_pass_as_they_arrive() {
    let stage = Stage::new();
    let gate = Gate::closed();
    let pieces = (0..5).map(|number| format!("data: token-{number}\n\n").into()).collect();
    let fields = vec![("content-type".to_owned(), "text/event-stream".to_owned())];
    let answer = Answer::Pieces { status: 200, fields, pieces, gate: Some(gate.clone()) };
    stage.upstream.script(Rule::always(answer).path("/gated"));
    let mut wire = stage.open(ACME);
    wire.send(get(ACME, "/gated").as_bytes());
    for number in 0..5 {
        // The provider sends the next token only when this one has come: a held-back stream would never end.
        let so_far = wire.until(format!("token-{number}\n\n").as_bytes());
        let next = format!("token-{}", number + 1);
        assert!(memchr::memmem::find(&so_far, next.as_bytes()).is_none());
        gate.open();
    }
}

#[test]
fn uploads_arrive_whole() {
    let stage = Stage::new();
    let body = crate::upstream::pattern(3_000_000);
    let mut wire = stage.open(ACME);
    wire.send(format!("POST /upload HTTP/1.1\r\nHost: {ACME}\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
    wire.send(&body);
    let answered = wire.answer();
    answered.assert_status(200);
    assert_eq!(answered.json()["bytes"], 3_000_000);
    assert_eq!(stage.upstream.only(ACME).body, body);
}

#[test]
fn chunked_uploads_arrive_whole() {
    let stage = Stage::new();
    let mut wire = stage.open(ACME);
    let chunks: String = (0..200).map(|n| format!("{:x}\r\n{}\r\n", 100, (n % 10).to_string().repeat(100))).collect();
    let head = format!("POST /upload HTTP/1.1\r\nHost: {ACME}\r\nTransfer-Encoding: chunked\r\n\r\n");
    wire.send(format!("{head}{chunks}0\r\n\r\n").as_bytes());
    let answered = wire.answer();
    answered.assert_status(200);
    assert_eq!(answered.json()["bytes"], 20_000);
}

#[test]
fn head_has_no_body_and_the_connection_goes_on() {
    let stage = Stage::new();
    let mut wire = stage.open(ACME);
    let head = wire.ask(&format!("HEAD /download?bytes=5000 HTTP/1.1\r\nHost: {ACME}\r\n\r\n"));
    head.assert_status(200);
    assert_eq!(head.value("content-length").unwrap_or("5000"), "5000");
    let next = wire.ask(&get(ACME, "/download?bytes=10"));
    assert_eq!(next.body.len(), 10);
    for status in [204, 304] {
        wire.ask(&get(ACME, &format!("/status/{status}"))).assert_status(status);
    }
    wire.ask(&get(ACME, "/")).assert_status(200);
}

#[test]
fn expect_continue_is_answered() {
    // PX-25
    let stage = Stage::new();
    let mut wire = stage.open(ACME);
    let head = format!("POST /echo/body HTTP/1.1\r\nHost: {ACME}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    wire.send(head.as_bytes());
    wire.head_only().assert_status(100);
    wire.send(b"hello");
    let answered = wire.answer();
    answered.assert_status(200);
    assert_eq!(answered.text(), "hello");
}

#[test]
fn trailers_survive() {
    let stage = Stage::new();
    let mut wire = stage.open(ACME);
    wire.send(format!("GET /trailers HTTP/1.1\r\nHost: {ACME}\r\nTE: trailers\r\n\r\n").as_bytes());
    let all = String::from_utf8_lossy(&wire.until(b"0\r\n")).into_owned();
    let rest = if all.contains("x-checksum: 42") {
        all
    } else {
        String::from_utf8_lossy(&wire.until(b"\r\n\r\n")).into_owned()
    };
    assert!(rest.to_lowercase().contains("x-checksum: 42"), "{rest}");
}

#[test]
fn a_broken_body_is_seen_as_broken() {
    // PX-46
    let stage = Stage::new();
    let answered = stage.get(ACME, "/broken");
    answered.assert_status(200);
    assert!(!answered.complete, "{answered:?}");
    let Some(finished) = stage.curl(&["--http2", "-o", "/dev/null", "https://api.acme.example/broken"]) else { return };
    assert_ne!(finished.code(), 0);
}

#[test]
fn a_close_delimited_body_arrives_whole() {
    let stage = Stage::new();
    stage.upstream.defect(ACME, Defect::Raw("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end".into()));
    let answered = stage.get(ACME, "/");
    answered.assert_status(200);
    assert_eq!(answered.text(), "until the end");
}

#[test]
fn a_short_body_is_seen_as_short() {
    let stage = Stage::new();
    stage.upstream.defect(ACME, Defect::Raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ntoo short".into()));
    let answered = stage.get(ACME, "/");
    assert!(answered.status == 502 || !answered.complete, "{answered:?}");
}

#[test]
fn protocols_are_chosen_for_each_side_by_itself() {
    use crate::upstream::Offer;
    let stage = Stage::new();
    for (offer, version) in [(Offer::Http1, http::Version::HTTP_11), (Offer::Http2, http::Version::HTTP_2)] {
        for (flag, expected) in [("--http1.1", "1.1"), ("--http2", "2")] {
            stage.upstream.forget();
            let host = if offer == Offer::Http1 { ACME } else { super::OTHER };
            stage.upstream.defect(host, Defect::Offers(offer));
            let url = format!("https://{host}/echo/body");
            let arguments = [flag, "-d", "hello", "-w", " %{http_version}", &url];
            let Some(finished) = stage.curl(&arguments) else { return };
            assert_eq!(finished.stdout(), format!("hello {expected}"), "{}", finished.stderr());
            assert_eq!(stage.upstream.only(host).version, version);
        }
    }
}

#[test]
fn both_versions_of_tls_are_accepted() {
    let stage = Stage::new();
    for flags in [["--tls-max", "1.2"], ["--tls-max", "1.3"]] {
        let arguments = [&flags[..], &["-o", "/dev/null", "-w", "%{http_code}", "https://api.acme.example/"]].concat();
        let Some(finished) = stage.curl(&arguments) else { return };
        assert_eq!(finished.stdout(), "200", "{flags:?}: {}", finished.stderr());
    }
}

#[test]
fn upstream_connections_are_used_again() {
    let stage = Stage::new();
    for _ in 0..5 {
        stage.get(ACME, "/").assert_status(200);
    }
    assert_eq!(stage.upstream.seen_at(ACME).len(), 5);
    assert_eq!(stage.upstream.connections_for(ACME).len(), 1);
    let used: std::collections::BTreeSet<u64> = stage.upstream.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(used.len(), 1);
}

#[test]
fn a_slow_first_byte_holds_up_nobody_else() {
    let stage = Stage::new();
    let gate = Gate::closed();
    let held = Answer::When(gate.clone(), Box::new(Answer::text(200, "at last")));
    stage.upstream.script(Rule::always(held).path("/held"));
    let late = Answer::After(std::time::Duration::from_millis(200), Box::new(Answer::Usual));
    stage.upstream.script(Rule::always(late).path("/late"));
    let mut wire = stage.open(ACME);
    wire.send(get(ACME, "/held").as_bytes());
    stage.get(ACME, "/late").assert_status(200);
    stage.get(ACME, "/other").assert_status(200);
    gate.open();
    assert_eq!(wire.answer().text(), "at last");
}

#[test]
fn redirects_are_passed_on_and_never_followed() {
    // RT-16
    let stage = Stage::new();
    for to in ["https://api.other.example/", "http://169.254.169.254/", "//evil.example/", "/elsewhere"] {
        stage.upstream.forget();
        let answered = stage.get(ACME, &format!("/redirect?to={}", to.replace('/', "%2F").replace(':', "%3A")));
        answered.assert_status(302);
        assert_eq!(answered.value("location"), Some(to));
        assert_eq!(stage.upstream.seen().len(), 1);
    }
}

#[test]
fn many_requests_over_one_http2_connection() {
    let stage = Stage::new();
    let urls: Vec<String> = (0..40).map(|number| format!("https://{ACME}/n/{number}")).collect();
    let mut arguments = vec!["--http2", "--parallel", "--parallel-max", "40", "--fail"];
    arguments.extend(urls.iter().map(String::as_str));
    let Some(finished) = stage.curl(&arguments) else { return };
    finished.assert_code(0);
    assert_eq!(stage.upstream.seen_at(ACME).len(), 40);
    stage.upstream.assert_carried(ACME, stage.acme.as_str());
}
