//! Serves the admin interface.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use crate::admin::api::{Control, ControlError};
use crate::spawn::Spawner;

/// A command's body: names and durations only.
const MOST_BODY: usize = 64 * 1024;
/// Admin connections at once; scrapers and a few commands.
const MOST_CONNECTIONS: usize = 64;

/// Serves health and metrics on `listener` until the process stops.
pub async fn serve_tcp(listener: TcpListener, control: Arc<dyn Control>, spawner: Spawner) {
    let permits = Arc::new(tokio::sync::Semaphore::new(MOST_CONNECTIONS));
    let local = listener.local_addr().ok();
    loop {
        let accepted = tokio::select! {
            () = spawner.stopping() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
        let _ = stream.set_nodelay(true);
        let (control, stop) = (Arc::clone(&control), spawner.clone());
        spawner.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = public(&request, &*control, local);
                async move { Ok::<_, Infallible>(response) }
            });
            connection(stream, service, stop).await;
            drop(permit);
        });
    }
}

/// Binds the admin socket and serves commands on it until the process stops.
///
/// # Errors
/// The operating system's, a path that cannot be bound above all.
pub async fn serve_socket(path: &Path, control: Arc<dyn Control>, spawner: Spawner) -> io::Result<()> {
    let listener = crate::home::bind_socket(path, 0o600).await?;
    let permits = Arc::new(tokio::sync::Semaphore::new(MOST_CONNECTIONS));
    let own = rustix::process::geteuid().as_raw();
    let path = path.to_owned();
    let accepting = spawner.clone();
    spawner.spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = accepting.stopping() => break,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            // The mode keeps others out; the kernel's word on who is there is asked all the same.
            let peer = stream.peer_cred().map(|cred| cred.uid());
            if !matches!(peer, Ok(uid) if uid == own || uid == 0) {
                continue;
            }
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
            let (control, stop) = (Arc::clone(&control), accepting.clone());
            accepting.spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let control = Arc::clone(&control);
                    async move { Ok::<_, Infallible>(command(request, &*control).await) }
                });
                connection(stream, service, stop).await;
                drop(permit);
            });
        }
        let _ = std::fs::remove_file(&path);
    });
    Ok(())
}

async fn connection<S, F, R>(stream: S, service: F, stop: Spawner)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: hyper::service::Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible, Future = R>,
    R: Future<Output = Result<Response<Full<Bytes>>, Infallible>>,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30)).max_headers(50);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stop.stopping() => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(Duration::from_secs(2), connection).await;
        }
    }
}

fn public(request: &Request<Incoming>, control: &dyn Control, local: Option<SocketAddr>) -> Response<Full<Bytes>> {
    if !is_ours(request, local) {
        return text(StatusCode::FORBIDDEN, "this listener answers to its own address only\n");
    }
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/healthz") => text(StatusCode::OK, "ok\n"),
        (&Method::GET | &Method::HEAD, "/readyz") if control.ready() => text(StatusCode::OK, "ready\n"),
        (&Method::GET | &Method::HEAD, "/readyz") => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        (&Method::GET | &Method::HEAD, "/metrics") => {
            let mut response = text(StatusCode::OK, control.metrics());
            let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        (_, "/healthz" | "/readyz" | "/metrics") => text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n"),
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

/// Against pages that a browser was led to (RT-14): the Host is an address or localhost, and there is no Origin.
fn is_ours(request: &Request<Incoming>, local: Option<SocketAddr>) -> bool {
    if request.headers().contains_key(ORIGIN) {
        return false;
    }
    let Some(host) = request.headers().get(HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = host
        .rsplit_once(':')
        .map_or(host, |(name, port)| if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host });
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| {
            ip.is_loopback() || local.is_some_and(|local| local.ip() == ip || local.ip().is_unspecified())
        })
}

async fn command(request: Request<Incoming>, control: &dyn Control) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = match tokio::time::timeout(Duration::from_secs(5), Limited::new(body, MOST_BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        _ => return failure(&refused(400, "the request body is too large or did not arrive")),
    };
    let given: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap_or(Value::Null) };
    let text_of = |key: &str| given.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let result = match (&parts.method, parts.uri.path()) {
        (&Method::GET, "/v1/status") => Ok(control.status()),
        (&Method::GET, "/v1/config") => Ok(control.config()),
        (&Method::GET, "/v1/profiles") => Ok(control.profiles()),
        (&Method::POST, "/v1/why") => control.why(&text_of("agent"), &text_of("method"), &text_of("url")),
        (&Method::POST, "/v1/profiles") => control.profile(&text_of("profile"), &text_of("action")).map(|()| json!({})),
        (&Method::POST, "/v1/profiles/test") => control.test(&text_of("profile")).await,
        (&Method::POST, "/v1/reload") => control.reload().await,
        (&Method::POST, "/v1/refresh") => control.refresh().await.map(|()| json!({})),
        (&Method::POST, "/v1/sessions") => {
            let ttl = given.get("ttl_seconds").and_then(Value::as_u64).unwrap_or(43_200);
            let session = control.session(&text_of("agent"), ttl).await;
            session.and_then(|session| serde_json::to_value(session).map_err(|_| refused(500, "not representable")))
        }
        (&Method::POST, "/v1/sessions/end") => control.end_session(&text_of("token")).await.map(|()| json!({})),
        _ => Err(refused(404, "unknown command")),
    };
    match result {
        Ok(value) => json_response(StatusCode::OK, &value),
        Err(error) => failure(&error),
    }
}

fn refused(status: u16, message: &str) -> ControlError {
    ControlError { status, message: message.to_owned(), hint: None }
}

fn failure(error: &ControlError) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json_response(status, &json!({"error": {"message": error.message, "hint": error.hint}}))
}

fn json_response(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
