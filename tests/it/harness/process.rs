//! Processes: commands that end, and the daemon that does not.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::home::Home;

/// Long enough for a slow machine; nothing waits this long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a command left behind.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout_bytes: Vec<u8>,
    pub stderr_bytes: Vec<u8>,
}

impl Finished {
    pub fn code(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        self.status.code().unwrap_or_else(|| -self.status.signal().unwrap_or(0))
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout_bytes).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr_bytes).into_owned()
    }

    pub fn json(&self) -> Value {
        let text = self.stdout();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}\nstderr: {}", self.stderr()))
    }

    pub fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.code(), code, "exit code\nstdout: {}\nstderr: {}", self.stdout(), self.stderr());
        self
    }

    /// Each of the words stands on stderr, letter case aside.
    pub fn assert_says(&self, words: &[&str]) -> &Self {
        let text = self.stderr();
        for word in words {
            assert!(text.to_lowercase().contains(&word.to_lowercase()), "stderr has no {word:?}: {text}");
        }
        self
    }
}

/// Runs a command with `input` on stdin, to its end; kills it past the time that anything should take.
pub fn run_command(mut command: Command, input: &[u8]) -> Finished {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let shown = format!("{command:?}");
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A command that does not read closes the pipe, which is no failure.
    std::thread::spawn(move || drop(stdin.write_all(&input)));
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    let status = wait(&mut child, PATIENCE * 3).unwrap_or_else(|| {
        let _ = child.kill();
        panic!("{shown} did not end")
    });
    Finished { status, stdout_bytes: stdout.join().unwrap(), stderr_bytes: stderr.join().unwrap() }
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// Waits for the end of a child, no longer than `limit`.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Repeats a question until it has an answer, no longer than the harness waits for anything.
pub fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    until_for(PATIENCE, what, ask)
}

/// The same for what takes its time by itself.
pub fn until_for<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a signal to a child of ours.
pub fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[derive(Default)]
struct Output {
    so_far: Mutex<SoFar>,
    more: Condvar,
}

#[derive(Default)]
struct SoFar {
    bytes: Vec<u8>,
    ended: bool,
}

/// A stream of a living process, as far as it has come.
#[derive(Clone, Default)]
pub struct Stream(Arc<Output>);

impl Stream {
    pub fn of(mut from: impl Read + Send + 'static) -> Self {
        let stream = Self::default();
        let output = Arc::clone(&stream.0);
        std::thread::spawn(move || {
            let mut buffer = [0u8; 4096];
            loop {
                let count = from.read(&mut buffer).unwrap_or(0);
                let mut so_far = output.so_far.lock().unwrap_or_else(PoisonError::into_inner);
                so_far.bytes.extend_from_slice(&buffer[..count]);
                so_far.ended = count == 0;
                output.more.notify_all();
                if so_far.ended {
                    return;
                }
            }
        });
        stream
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.so_far.lock().unwrap_or_else(PoisonError::into_inner).bytes).into_owned()
    }

    /// Waits until a line has `word`, and returns the line.
    pub fn line_with(&self, word: &str) -> String {
        self.wait(&format!("a line with {word:?}"), |text, _| {
            let whole = text.rsplit_once('\n')?.0;
            whole.lines().find(|line| line.contains(word)).map(ToOwned::to_owned)
        })
    }

    /// Waits until `word` has come, in a line that is not ended perhaps: a question is none.
    pub fn shows(&self, word: &str) {
        self.wait(&format!("{word:?}"), |text, _| text.contains(word).then_some(()));
    }

    /// All of it, when it has ended.
    pub fn whole(&self) -> String {
        self.wait("the end", |text, ended| ended.then(|| text.to_owned()))
    }

    fn wait<T>(&self, what: &str, look: impl Fn(&str, bool) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        let mut so_far = self.0.so_far.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let text = String::from_utf8_lossy(&so_far.bytes).into_owned();
            if let Some(found) = look(&text, so_far.ended) {
                return found;
            }
            let now = Instant::now();
            assert!(now < end && !so_far.ended, "{what} did not come; so far: {text}");
            so_far = self.0.more.wait_timeout(so_far, end - now).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A running daemon. Dropping it kills it; what it printed counts as received.
pub struct Serve {
    child: Child,
    pub stdout: Stream,
    pub stderr: Stream,
    received: super::home::Received,
    pub proxy: SocketAddr,
    pub base_url: SocketAddr,
    pub admin: SocketAddr,
}

impl Serve {
    pub fn start(home: &Home, more: &[&str]) -> Self {
        Self::from_command(home, home.keyferry(&[&["serve"], more].concat()))
    }

    /// Starts the daemon by `command` and waits until `status` and `/readyz` say that it is ready.
    pub fn from_command(home: &Home, command: Command) -> Self {
        let (mut child, stdout, stderr) = spawn(command);
        let status = until("the daemon's readiness", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("serve ended with {status}\nstdout: {}\nstderr: {}", stdout.text(), stderr.text());
            }
            let asked = home.finish(home.keyferry(&["status", "--json"]), b"");
            let status: Value = serde_json::from_slice(&asked.stdout_bytes).ok()?;
            let admin = listener(&status, "admin")?;
            ready(admin).then_some(status)
        });
        let address = |name: &str| listener(&status, name).unwrap_or_else(|| panic!("no listener {name} in {status}"));
        let (proxy, base_url, admin) = (address("proxy"), address("base_url"), address("admin"));
        Self { child, stdout, stderr, received: home.received(), proxy, base_url, admin }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, which: Signal) {
        signal(&self.child, which);
    }

    /// Asks it to stop and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended()
    }

    pub fn ended(&mut self) -> ExitStatus {
        wait(&mut self.child, PATIENCE).expect("the daemon did not end")
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What the kernel shows of the process, and what it tells scrapers: sinks like any other.
    pub fn look_over(&mut self) {
        if !self.is_running() {
            return;
        }
        let mut seen = Vec::new();
        for name in ["environ", "cmdline", "comm"] {
            if let Ok(bytes) = std::fs::read(format!("/proc/{}/{name}", self.pid())) {
                seen.push((format!("/proc/PID/{name}"), bytes));
            }
        }
        // A daemon that was stopped or choked by its test need not answer.
        if let Ok((_, text)) = plain_get(self.admin, "/metrics") {
            seen.push(("/metrics".to_owned(), text.into_bytes()));
        }
        self.received.lock().unwrap().extend(seen);
    }

    /// `GET` at the admin listener.
    pub fn admin_get(&self, path: &str) -> (u16, String) {
        plain_get(self.admin, path).expect("the admin listener answers")
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut received = self.received.lock().unwrap();
        received.push(("serve's stdout".to_owned(), self.stdout.text().into_bytes()));
        received.push(("serve's stderr".to_owned(), self.stderr.text().into_bytes()));
    }
}

/// Starts a process whose streams are read as they come.
pub fn spawn(mut command: Command) -> (Child, Stream, Stream) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = Stream::of(child.stdout.take().unwrap());
    let stderr = Stream::of(child.stderr.take().unwrap());
    (child, stdout, stderr)
}

/// The address of a listener in what `status --json` says: a map of names, or a list of objects with a name.
fn listener(status: &Value, name: &str) -> Option<SocketAddr> {
    fn address(value: &Value) -> Option<SocketAddr> {
        match value {
            Value::String(text) => text.trim_start_matches("http://").parse().ok(),
            Value::Object(map) => map.values().find_map(address),
            Value::Array(list) => list.iter().find_map(address),
            _ => None,
        }
    }
    match &status["listeners"] {
        Value::Object(map) => map.get(name).and_then(address),
        Value::Array(list) => {
            list.iter().find(|one| one.as_object().is_some_and(|o| o.values().any(|v| v == name))).and_then(address)
        }
        _ => None,
    }
}

fn ready(admin: SocketAddr) -> bool {
    plain_get(admin, "/readyz").is_ok_and(|(status, _)| status == 200)
}

/// A `GET` without TLS; the connection is closed after it.
pub fn plain_get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}
