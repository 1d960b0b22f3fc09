//! From a request to its answer: read it whole, record it, then the script, then what the provider would do.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::{self, StreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::json;

use super::record::{Connection, Seen};
use super::script::{Answer, Gate};
use super::{State, git, llm, services, socket};

pub type Fault = Box<dyn std::error::Error + Send + Sync>;
pub type Body = UnsyncBoxBody<Bytes, Fault>;

pub async fn answer(
    state: Arc<State>,
    connection: Connection,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Fault> {
    let switched =
        (request.uri().path() == "/socket" && socket::wanted(request.headers())).then(|| socket::accept(&mut request));
    let (parts, body) = request.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().into_iter().flatten();
    let trailers = trailers.map(|(n, v)| (n.as_str().to_owned(), v.as_bytes().to_vec())).collect();
    let mut seen = Seen::new(&connection, &parts, collected.to_bytes(), trailers);
    let scripted = state.scripted(&seen);
    seen.scripted = scripted.as_ref().and_then(Answer::status);
    state.seen.lock().unwrap().push(seen.clone());
    if let Some(switched) = switched {
        return Ok(switched);
    }
    let mut next = scripted.unwrap_or(Answer::Usual);
    loop {
        next = match next {
            Answer::Whole { status, fields, body } => {
                return head(status, &fields).body(whole(body)).map_err(Into::into);
            }
            Answer::Pieces { status, fields, pieces, gate } => {
                return head(status, &fields).body(in_pieces(pieces, gate)).map_err(Into::into);
            }
            Answer::Broken { status, fields, pieces } => {
                return head(status, &fields).body(broken(pieces)).map_err(Into::into);
            }
            Answer::Trailed { body, trailers } => return Ok(trailed(body, &trailers)),
            Answer::Reset => return Err("scripted reset".into()),
            Answer::After(delay, inner) => {
                tokio::time::sleep(delay).await;
                *inner
            }
            Answer::When(gate, inner) => {
                gate.pass().await;
                *inner
            }
            Answer::Usual => return usual(&state, &seen).await,
        };
    }
}

async fn usual(state: &Arc<State>, seen: &Seen) -> Result<Response<Body>, Fault> {
    if let Some(answer) = diagnostic(seen) {
        return Ok(answer);
    }
    let known = seen.credential().is_some_and(|credential| state.is_known(&credential));
    let echo = seen.credential().filter(|_| state.echoes.load(Ordering::Relaxed));
    let text = llm::text(echo.as_deref());
    let host = seen.host.split(':').next().unwrap_or_default();
    let mut answer = match host {
        "api.anthropic.com" => llm::anthropic(seen, known, &text),
        "api.openai.com" | "openrouter.ai" => llm::openai(seen, known, &text),
        "generativelanguage.googleapis.com" => llm::gemini(seen, known, &text),
        _ => return service(state, seen, known, host).await,
    };
    if let Some(value) = echo.and_then(|credential| http::HeaderValue::try_from(credential).ok()) {
        answer.headers_mut().insert("x-you-sent", value);
    }
    Ok(answer)
}

async fn service(state: &Arc<State>, seen: &Seen, known: bool, host: &str) -> Result<Response<Body>, Fault> {
    match host {
        "github.com" => git::backend(state, seen, known).await,
        "api.github.com" => Ok(services::github(seen, known)),
        "api.telegram.org" => Ok(services::telegram(seen, known)),
        "slack.com" => Ok(services::slack(seen, known)),
        "api.stripe.com" => Ok(to_json(200, &json!({"object": "balance", "livemode": known}))),
        _ => Ok(services::generic(seen, known)),
    }
}

/// Paths that every host answers, with or without a credential.
fn diagnostic(seen: &Seen) -> Option<Response<Body>> {
    let number = |name: &str, usual: usize| seen.query(name).and_then(|v| v.parse().ok()).unwrap_or(usual);
    let response = match seen.path() {
        // Everything that the provider was sent comes back, the credential included.
        "/echo/fields" => {
            let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
            let fields: Vec<_> = seen.fields.iter().map(|(n, v)| json!([n, text(v)])).collect();
            to_json(200, &json!({"method": seen.method, "target": seen.target, "fields": fields}))
        }
        "/echo/body" => plain(200, seen.body.clone()),
        // The credential comes back in a field, a location, a cookie and a reason.
        "/echo/in-fields" => {
            let secret = seen.credential().unwrap_or_default();
            Response::builder()
                .status(200)
                .header("x-echo", format!("you said {secret}."))
                .header("location", format!("https://elsewhere.example/?k={secret}"))
                .header("etag", format!("\"{secret}\""))
                .header("content-length", "0")
                .body(whole(Bytes::new()))
                .unwrap()
        }
        // The credential comes back in pieces of `size` bytes.
        "/echo/split" => {
            let text = format!("before {} after", seen.credential().unwrap_or_default());
            let size = number("size", 1).max(1);
            let pieces = text.into_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
            let fields = [("content-type".to_owned(), "text/plain".to_owned())];
            head(200, &fields).body(in_pieces(pieces, None)).unwrap()
        }
        "/upload" => to_json(200, &json!({"bytes": seen.body.len(), "sha256": seen.body_digest()})),
        "/download" => plain(200, pattern(number("bytes", 1024))),
        "/sse" => {
            let count = number("n", 10);
            let mut pieces: Vec<Bytes> = (0..count).map(|i| Bytes::from(format!("data: token-{i}\n\n"))).collect();
            pieces.push(Bytes::from_static(b"data: [DONE]\n\n"));
            event_stream(pieces, None)
        }
        "/slow" => {
            let delay = Duration::from_millis(number("ms", 100) as u64);
            let late = stream::once(async move {
                tokio::time::sleep(delay).await;
                Ok::<_, Fault>(Frame::data(Bytes::from_static(b"late")))
            });
            Response::new(boxed(late))
        }
        "/trailers" => {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-checksum", http::HeaderValue::from_static("42"));
            let frames = [Frame::data(Bytes::from_static(b"body")), Frame::trailers(trailers)];
            let mut response = Response::new(boxed(stream::iter(frames.map(Ok::<_, Fault>))));
            response.headers_mut().insert("trailer", http::HeaderValue::from_static("x-checksum"));
            response
        }
        // The credential comes back in trailers, plain and as gRPC encodes its details.
        "/echo/trailers" => {
            let secret = seen.credential().unwrap_or_default();
            let mut trailers = http::HeaderMap::new();
            let mut put = |name, value: String| trailers.insert(name, http::HeaderValue::try_from(value).unwrap());
            put("x-echo", format!("you said {secret}."));
            put("grpc-message", secret.bytes().map(|byte| format!("%{byte:02X}")).collect());
            put("grpc-status-details-bin", STANDARD_NO_PAD.encode(format!("\u{8}\u{7}{secret}")));
            put("x-last", "1".to_owned());
            let frames = [Frame::data(Bytes::from_static(b"body")), Frame::trailers(trailers)];
            let mut response = Response::new(boxed(stream::iter(frames.map(Ok::<_, Fault>))));
            let names = http::HeaderValue::from_static("x-echo, grpc-message, grpc-status-details-bin, x-last");
            response.headers_mut().insert("trailer", names);
            response
        }
        "/redirect" => {
            let to = seen.query("to").unwrap_or_else(|| "https://api.other.example/".to_owned());
            let builder = Response::builder().status(302).header("location", to);
            builder.body(whole(Bytes::new())).unwrap()
        }
        "/broken" => {
            let fields = [("content-type".to_owned(), "text/plain".to_owned())];
            head(200, &fields).body(broken(vec![Bytes::from_static(b"half of it")])).unwrap()
        }
        path => {
            let status = path.strip_prefix("/status/")?.parse::<u16>().ok()?;
            plain(status, Bytes::from(format!("status {status}\n")))
        }
    };
    Some(response)
}

pub fn head(status: u16, fields: &[(String, String)]) -> http::response::Builder {
    let builder = Response::builder().status(StatusCode::from_u16(status).unwrap());
    fields.iter().fold(builder, |builder, (name, value)| builder.header(name, value))
}

pub fn plain(status: u16, body: Bytes) -> Response<Body> {
    let fields = [("content-type".to_owned(), "text/plain".to_owned())];
    head(status, &fields).body(whole(body)).unwrap()
}

pub fn to_json(status: u16, body: &serde_json::Value) -> Response<Body> {
    let fields = [("content-type".to_owned(), "application/json".to_owned())];
    head(status, &fields).body(whole(Bytes::from(body.to_string()))).unwrap()
}

pub fn event_stream(pieces: Vec<Bytes>, gate: Option<Gate>) -> Response<Body> {
    let fields = [("content-type".to_owned(), "text/event-stream".to_owned())];
    head(200, &fields).body(in_pieces(pieces, gate)).unwrap()
}

pub fn whole(body: Bytes) -> Body {
    Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// Bytes that do not repeat within a piece, so that a lost or doubled piece changes the digest.
pub fn pattern(length: usize) -> Bytes {
    (0..length).map(|at| ((at * 31 + at / 251) % 256) as u8).collect::<Vec<u8>>().into()
}

fn in_pieces(pieces: Vec<Bytes>, gate: Option<Gate>) -> Body {
    let frames = stream::iter(pieces).enumerate().then(move |(at, piece)| {
        let gate = gate.clone();
        async move {
            match gate {
                Some(gate) if at > 0 => gate.pass().await,
                // Without a gate each piece still becomes a frame of its own on the wire.
                _ => tokio::task::yield_now().await,
            }
            Ok::<_, Fault>(Frame::data(piece))
        }
    });
    boxed(frames)
}

fn trailed(body: Bytes, trailers: &[(String, String)]) -> Response<Body> {
    let field = |(name, value): &(String, String)| {
        (http::HeaderName::try_from(name).unwrap(), http::HeaderValue::try_from(value).unwrap())
    };
    let announced = trailers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let fields = trailers.iter().map(field).collect();
    let frames = [Frame::data(body), Frame::trailers(fields)];
    let mut response = Response::new(boxed(stream::iter(frames.map(Ok::<_, Fault>))));
    response.headers_mut().insert("trailer", http::HeaderValue::try_from(announced).unwrap());
    response
}

fn broken(pieces: Vec<Bytes>) -> Body {
    let sent = stream::iter(pieces).map(|piece| Ok::<_, Fault>(Frame::data(piece)));
    // Pending once, so that what stands before it is written first.
    let end = stream::once(async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err::<Frame<Bytes>, Fault>("scripted break".into())
    });
    boxed(sent.chain(end))
}

fn boxed(frames: impl Stream<Item = Result<Frame<Bytes>, Fault>> + Send + 'static) -> Body {
    let frames: Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Fault>> + Send>> = Box::pin(frames);
    StreamBody::new(frames).boxed_unsync()
}
