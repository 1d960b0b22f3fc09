//! Git over https: the real `git http-backend`, behind Basic authentication with a known secret as the password.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use tokio::io::AsyncWriteExt;

use super::State;
use super::answer::{Body, Fault, head, plain, whole};
use super::record::Seen;

/// Makes a bare repository with one commit.
pub fn create(root: &Path, scratch: &Path, name: &str, file: &str, content: &str) {
    let bare = root.join(format!("{name}.git"));
    let work = scratch.join("work");
    std::fs::create_dir_all(&bare).unwrap();
    git(&bare, scratch, &["init", "--quiet", "--bare", "--initial-branch=main", "."]);
    git(scratch, scratch, &["init", "--quiet", "--initial-branch=main", work.to_str().unwrap()]);
    std::fs::write(work.join(file), content).unwrap();
    git(&work, scratch, &["add", "."]);
    git(&work, scratch, &["commit", "--quiet", "-m", "first"]);
    git(&work, scratch, &["push", "--quiet", bare.to_str().unwrap(), "main"]);
    std::fs::remove_dir_all(&work).unwrap();
}

fn git(dir: &Path, home: &Path, arguments: &[&str]) {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", home)
        .envs([("GIT_AUTHOR_NAME", "t"), ("GIT_AUTHOR_EMAIL", "t@test.example")])
        .envs([("GIT_COMMITTER_NAME", "t"), ("GIT_COMMITTER_EMAIL", "t@test.example")])
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Answers as GitHub's git endpoint: 401 with a challenge, or the CGI's answer.
pub async fn backend(state: &Arc<State>, seen: &Seen, known: bool) -> Result<Response<Body>, Fault> {
    if !known {
        let mut refused = plain(401, Bytes::from_static(b"Repository not found.\n"));
        let challenge = http::HeaderValue::from_static("Basic realm=\"GitHub\"");
        refused.headers_mut().insert("www-authenticate", challenge);
        return Ok(refused);
    }
    let mut child = tokio::process::Command::new("git")
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_PROJECT_ROOT", &state.repositories)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        // The repositories may belong to another user where the tests run in a container.
        .envs([("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")])
        .env("REQUEST_METHOD", &seen.method)
        .env("PATH_INFO", seen.path())
        .env("QUERY_STRING", seen.target.split_once('?').map_or("", |(_, query)| query))
        .env("CONTENT_TYPE", seen.first("content-type").unwrap_or_default())
        .env("CONTENT_LENGTH", seen.body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", seen.first("content-encoding").unwrap_or_default())
        .env("GIT_PROTOCOL", seen.first("git-protocol").unwrap_or_default())
        .env("REMOTE_USER", "reader")
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or("no stdin")?;
    let body = seen.body.clone();
    let feeding = tokio::spawn(async move {
        let _ = stdin.write_all(&body).await;
    });
    let output = child.wait_with_output().await?;
    feeding.await?;
    let bytes = output.stdout;
    let end = memchr::memmem::find(&bytes, b"\r\n\r\n").ok_or("the CGI gave no head")?;
    let mut status = 200;
    let mut fields = Vec::new();
    for line in String::from_utf8_lossy(&bytes[..end]).lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("status") {
            status = value.trim().split(' ').next().unwrap_or("500").parse()?;
        } else {
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    head(status, &fields).body(whole(Bytes::copy_from_slice(&bytes[end + 4..]))).map_err(Into::into)
}
