//! Through another proxy: the configuration's, and for `run` the one that the caller's environment names.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::{ACME, CONFIG, Stage, get};
use crate::harness::{Canary, HTTP1, Home, LISTEN, Tool, Wire, connect_request, need};
use crate::upstream::TestUpstream;

/// A company's proxy: what it was asked, and what it does.
struct Corporate {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone, Copy)]
enum Does {
    /// Leads every tunnel and every request to these.
    Relays { tls: SocketAddr, plain: SocketAddr },
    /// Says this and closes.
    Answers(&'static str),
}

impl Corporate {
    fn new(does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&heads);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || drop(serve(client, does, &seen)));
            }
        });
        Self { address, heads }
    }

    fn before(upstream: &TestUpstream) -> Self {
        Self::new(Does::Relays { tls: upstream.address(), plain: upstream.plain_address() })
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn serve(mut client: TcpStream, does: Does, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0u8; 1];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    seen.lock().unwrap().push(head.clone());
    let (tls, plain) = match does {
        Does::Answers(text) => return client.write_all(text.as_bytes()),
        Does::Relays { tls, plain } => (tls, plain),
    };
    let mut server = if head.starts_with("CONNECT ") {
        let server = TcpStream::connect(tls)?;
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        server
    } else {
        let (line, fields) = head.split_once("\r\n").unwrap();
        let path = line.split(' ').nth(1).unwrap().splitn(4, '/').nth(3).unwrap();
        let mut server = TcpStream::connect(plain)?;
        server.write_all(format!("GET /{path} HTTP/1.1\r\n{fields}").as_bytes())?;
        server
    };
    let (mut up, mut down) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut up, &mut down);
        let _ = down.shutdown(Shutdown::Write);
    });
    std::io::copy(&mut server, &mut client)?;
    client.shutdown(Shutdown::Write)
}

/// A daemon whose upstream has no address of its own: only the proxy knows the way.
fn stage(proxy: &str) -> Stage {
    let upstream = TestUpstream::start();
    let home = Home::with(&upstream, "");
    let timeouts = "  timeouts: {connect: 5s, response: 20s, idle: 20s}\n";
    let section = format!("upstream:\n  extra_roots: [provider-root.pem]\n  proxy: {proxy}\n{timeouts}");
    home.write_config(&format!("{LISTEN}{section}{CONFIG}"));
    let (acme, other) = (Canary::plain(), Canary::plain());
    home.stock(&upstream, "acme:work", &acme, &[]);
    let token = home.agent("coder");
    let daemon = home.serve();
    Stage { daemon, home, upstream, token, acme, other }
}

/// The stage with a proxy before its upstream, which is there before the daemon.
fn relayed(
    url: impl Fn(SocketAddr) -> String,
    more: &str,
    prepare: impl FnOnce(&Home, SocketAddr),
) -> (Stage, Corporate) {
    let upstream = TestUpstream::start();
    let corporate = Corporate::before(&upstream);
    let home = Home::with(&upstream, "");
    let section = format!("upstream:\n  extra_roots: [provider-root.pem]\n  proxy: {}\n{more}", url(corporate.address));
    home.write_config(&format!("{LISTEN}{section}{CONFIG}"));
    prepare(&home, corporate.address);
    let (acme, other) = (Canary::plain(), Canary::plain());
    home.stock(&upstream, "acme:work", &acme, &[]);
    let token = home.agent("coder");
    let daemon = home.serve();
    (Stage { daemon, home, upstream, token, acme, other }, corporate)
}

#[test]
fn everything_goes_through_the_configured_proxy() {
    let (stage, corporate) = relayed(|address| format!("http://{address}"), "", |_, _| {});
    stage.get(ACME, "/chained").assert_status(200);
    stage.upstream.assert_carried(ACME, stage.acme.as_str());
    // A blind tunnel.
    let mut wire =
        stage.tunnel("tunnel.example:443").tls(&stage.upstream.root_file(), "tunnel.example", HTTP1).unwrap();
    wire.ask(&get("tunnel.example", "/")).assert_status(200);
    // Cleartext goes in absolute-form: many proxies allow CONNECT to 443 only.
    let authorization = stage.authorization();
    let plain = format!("GET http://plain.example/x?y HTTP/1.1\r\nHost: plain.example\r\n{authorization}\r\n");
    stage.wire().ask(&plain).assert_status(200);
    let heads = corporate.heads();
    assert_eq!(heads.len(), 3);
    assert_eq!(heads[0], format!("CONNECT {ACME}:443 HTTP/1.1\r\nHost: {ACME}:443\r\n\r\n"));
    assert!(heads[1].starts_with("CONNECT tunnel.example:443 HTTP/1.1\r\n"));
    assert!(heads[2].starts_with("GET http://plain.example/x?y HTTP/1.1\r\n"), "{}", heads[2]);
    assert!(heads.iter().all(|head| !head.to_ascii_lowercase().contains("authorization")), "{heads:?}");
    // What the guard refuses by its address or name, the other proxy is not asked for.
    for host in ["127.0.0.1", "169.254.169.254", "localhost"] {
        let answered = stage.wire().ask(&format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n"));
        assert_eq!(answered.status, 403, "{host}: {answered:?}");
    }
    assert_eq!(corporate.heads().len(), 3);
}

#[test]
fn a_password_stands_in_a_file_and_goes_to_the_proxy_alone() {
    let password = Canary::plain();
    let (stage, corporate) = relayed(
        |_| "file:corp-proxy".to_owned(),
        "",
        |home, address| {
            let file = home.path().join("corp-proxy");
            std::fs::write(&file, format!("http://user:{}@{address}\n", password.as_str())).unwrap();
            crate::harness::private(&file);
        },
    );
    stage.get(ACME, "/").assert_status(200);
    let authorization = stage.authorization();
    let plain = format!("GET http://plain.example/ HTTP/1.1\r\nHost: plain.example\r\n{authorization}\r\n");
    stage.wire().ask(&plain).assert_status(200);
    let basic = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(format!("user:{}", password.as_str()))
    };
    for head in corporate.heads() {
        assert!(head.to_ascii_lowercase().contains("proxy-authorization: basic"), "{head}");
        assert!(head.contains(&basic));
    }
    let status = stage.home.command(&["status", "--json"]).stdout();
    assert!(status.contains(&corporate.address.to_string()) && !status.contains(password.as_str()), "{status}");
}

#[test]
fn hosts_can_be_excepted() {
    let (stage, corporate) = relayed(|address| format!("http://{address}"), "  no_proxy: [acme.example]\n", |_, _| {});
    // Without the proxy the name leads nowhere.
    let answered = stage.get(ACME, "/");
    assert!(matches!(answered.status, 502 | 504), "{answered:?}");
    assert!(corporate.heads().is_empty());
}

#[test]
fn a_proxy_that_refuses_is_told_apart() {
    const HTML: &str = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\nnope";
    const NTLM: &str =
        "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n";
    for (answer, said, logged) in [
        (HTML, "refused the connection", "403 Forbidden, text/html"),
        (NTLM, "did not accept Keyferry's credentials", "407, NTLM"),
        ("<html>Please log in</html>", "does not answer as an HTTP proxy", "does not answer as an HTTP proxy"),
    ] {
        let corporate = Corporate::new(Does::Answers(answer));
        let mut stage = stage(&format!("http://{}", corporate.address));
        let inside = stage.get(ACME, "/");
        inside.assert_refused(502, "upstream_unreachable");
        assert!(inside.text().contains(said), "{}", inside.text());
        assert!(!inside.text().contains(&corporate.address.to_string()));
        let blind = stage.connect("tunnel.example:443");
        blind.assert_refused(502, "upstream_unreachable");
        if answer == NTLM {
            // In absolute-form, too, the 407 is not the agent's to answer.
            let authorization = stage.authorization();
            let plain = format!("GET http://plain.example/ HTTP/1.1\r\nHost: plain.example\r\n{authorization}\r\n");
            stage.wire().ask(&plain).assert_refused(502, "upstream_unreachable");
        }
        stage.stop();
        let lines = stage.home.access_log();
        let line = lines.iter().find(|line| line["host"] == ACME).unwrap();
        assert!(line["detail"].as_str().unwrap().contains(logged), "{line}");
    }
}

#[test]
fn serve_takes_no_proxy_from_its_environment() {
    // RT-19
    let upstream = TestUpstream::start();
    let corporate = Corporate::before(&upstream);
    let home = Home::with(&upstream, CONFIG);
    home.stock(&upstream, "acme:work", &Canary::plain(), &[]);
    let token = home.agent("coder");
    let mut command = home.keyferry(&["serve"]);
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env(name, format!("http://{}", corporate.address));
    }
    let daemon = crate::harness::Serve::from_command(&home, command);
    let mut wire = Wire::connect(&home, daemon.proxy);
    wire.send(connect_request(&format!("{ACME}:443"), "coder", &token).as_bytes());
    wire.head_only().assert_status(200);
    let mut wire = wire.tls(&home.path().join("ca/ca.pem"), ACME, HTTP1).unwrap();
    wire.ask(&get(ACME, "/")).assert_status(200);
    assert!(corporate.heads().is_empty());
}

#[test]
fn run_takes_the_callers_proxy() {
    let Some(curl) = need("proxy", Tool::Curl) else { return };
    let upstream = TestUpstream::start();
    let corporate = Corporate::before(&upstream);
    let home = Home::with(&upstream, "");
    home.write_config(&format!("upstream:\n  extra_roots: [provider-root.pem]\n{CONFIG}"));
    let acme = Canary::plain();
    home.stock(&upstream, "acme:work", &acme, &[]);
    let curl = curl.to_str().unwrap().to_owned();
    let url = format!("https://{ACME}/through");
    let arguments = ["run", "--", &curl, "-sS", "--max-time", "50", "-o", "/dev/null", "-w", "%{http_code}", &url];
    let run = |variables: &[(&str, String)]| {
        let mut command = home.keyferry(&arguments);
        command.envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
        home.finish(command, b"")
    };
    let proxy = format!("http://me:pw@{}", corporate.address);
    let finished = run(&[("HTTPS_PROXY", proxy.clone()), ("NO_PROXY", "internal.example".to_owned())]);
    assert_eq!(finished.stdout(), "200", "{}", finished.stderr());
    upstream.assert_carried(ACME, acme.as_str());
    let heads = corporate.heads();
    assert!(heads.len() == 1 && heads[0].contains("Proxy-Authorization: Basic bWU6cHc="), "{heads:?}");
    // Excepted, it leads nowhere without an address.
    let finished = run(&[("HTTPS_PROXY", proxy), ("NO_PROXY", "elsewhere.example,.acme.example".to_owned())]);
    assert_eq!(finished.stdout(), "502", "{}", finished.stderr());
    assert_eq!(corporate.heads().len(), 1);
    // A proxy that cannot be taken is not passed by.
    let finished = run(&[("ALL_PROXY", "socks5://127.0.0.1:1".to_owned())]);
    finished.assert_code(125).assert_says(&["ALL_PROXY", "only http:// proxies"]);
}
