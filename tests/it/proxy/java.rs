//! Java: no proxy variables, no authentication to a proxy, no PEM files.

use super::{ACME, CONFIG};
use crate::harness::{Canary, Home, Serve, Tool, need, script};
use crate::upstream::TestUpstream;

#[test]
fn javas_own_clients_work_through_run() {
    java_works(|_| None);
}

#[test]
fn they_work_beside_a_daemon_too() {
    java_works(|home| Some(home.serve()));
}

fn java_works(beside: impl FnOnce(&Home) -> Option<Serve>) {
    let Some(java) = need("proxy", Tool::Java) else { return };
    let upstream = TestUpstream::start();
    let home = Home::with(&upstream, CONFIG);
    let acme = Canary::plain();
    home.stock(&upstream, "acme:work", &acme, &[]);
    let _daemon = beside(&home);
    let mut command = home.keyferry(&["run", "--"]);
    command.arg(java).arg(script("HttpsClient.java")).arg(format!("https://{ACME}/java"));
    command.env("JAVA_TOOL_OPTIONS", "-Xshare:auto");
    let finished = home.finish(command, b"");
    finished.assert_code(0);
    let output = finished.stdout();
    assert!(output.contains("HttpClient 200") && output.contains("HttpURLConnection 200"), "{output}");
    upstream.assert_carried(ACME, acme.as_str());
    assert_eq!(upstream.seen_at(ACME).len(), 2);
    let lines = home.access_log();
    assert!(lines.iter().all(|line| line["agent"] == "default" && line["decision"] == "injected"));
    let mut spoken: Vec<&str> = lines.iter().filter_map(|line| line["protocol"].as_str()).collect();
    spoken.sort_unstable();
    assert_eq!(spoken, ["h2", "http/1.1"]);
}
