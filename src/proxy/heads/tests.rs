//! Connections whose heads come late, in pieces or not at all.

use std::convert::Infallible;
use std::sync::atomic::AtomicU32;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::Instant;

use super::*;
use crate::proxy::limits::KEEP_ALIVE;
use crate::spawn::Spawner;

/// One end of a connection that counts how often its peer was told that bytes arrived.
struct Far(DuplexStream, Arc<AtomicU32>);

impl Acknowledge for Far {
    fn acknowledge(&self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

impl AsyncRead for Far {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Far {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A connection that is served as an agent's is; each answer is the request's body.
fn served() -> DuplexStream {
    counted().0
}

fn counted() -> (DuplexStream, Arc<AtomicU32>) {
    let (near, far) = tokio::io::duplex(4096);
    let count = Arc::<AtomicU32>::default();
    let refuse = |status: StatusCode| Bytes::from(format!("HTTP/1.1 {} ours\r\n\r\n", status.as_u16()));
    let (stream, turn) = watch(Far(far, Arc::clone(&count)), Box::new(refuse));
    let service = service_fn(move |request: Request<Incoming>| {
        let taken = turn.take(&request);
        async move {
            let answer = async { Response::new(Full::new(request.into_body().collect().await.unwrap().to_bytes())) };
            Ok::<_, Infallible>(taken.serve(answer).await)
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(KEEP_ALIVE);
    Spawner::default().spawn(async move {
        let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    });
    (near, count)
}

/// How long until the peer closes.
async fn closes(stream: &mut DuplexStream) -> Duration {
    let begun = Instant::now();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    begun.elapsed()
}

/// Sends a whole request and reads its answer.
async fn ask(stream: &mut DuplexStream) {
    stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok") {
        stream.read_buf(&mut answer).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_dribbles_is_cut_off_after_ten_seconds() {
    // DO-01: one byte every two seconds, first on a fresh connection, then on one that has served.
    for before in 0..3 {
        let mut stream = served();
        for _ in 0..before {
            ask(&mut stream).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        let begun = Instant::now();
        for byte in b"GET / HTTP/1.1\r\nhost: a\r\n" {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let took = begun.elapsed();
        assert!(took >= HEAD_WAIT && took <= HEAD_WAIT + Duration::from_secs(4), "{before}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_stops_is_cut_off_too() {
    // DO-01
    let mut stream = served();
    stream.write_all(b"GET / HTTP/1.1\r\nhos").await.unwrap();
    assert_eq!(closes(&mut stream).await.as_secs(), HEAD_WAIT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_read_gets_our_answer_behind_the_ones_before() {
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(500_000));
    let good = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok";
    for (bad, status) in [("GET /\r\n\r\n", "400"), ("GET / HTTP/1.1\r\nno colon\r\n\r\n", "400"), (&long, "431")] {
        for before in 0..3 {
            let stream = served();
            let (mut read, mut write) = tokio::io::split(stream);
            let sent = format!("{}{bad}", good.repeat(before));
            let (_, answer) = tokio::join!(
                async move {
                    let _ = write.write_all(sent.as_bytes()).await;
                    let _ = write.shutdown().await;
                },
                async {
                    let mut answer = String::new();
                    let _ = read.read_to_string(&mut answer).await;
                    answer
                }
            );
            assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), before, "{answer}");
            assert!(answer.ends_with(&format!("HTTP/1.1 {status} ours\r\n\r\n")), "{answer}");
            assert_eq!(answer.matches("HTTP/1.1 4").count(), 1, "{answer}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_may_wait_two_minutes() {
    let mut stream = served();
    ask(&mut stream).await;
    tokio::time::sleep(KEEP_ALIVE - Duration::from_secs(1)).await;
    ask(&mut stream).await;
    assert_eq!(closes(&mut stream).await.as_secs(), KEEP_ALIVE.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_body_may_take_its_time() {
    let mut stream = served();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\n").await.unwrap();
    for byte in b"slowok" {
        tokio::time::sleep(Duration::from_secs(30)).await;
        stream.write_all(&[*byte]).await.unwrap();
    }
    let mut answer = Vec::new();
    while !answer.ends_with(b"slowok") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
    }
}

#[tokio::test]
async fn only_an_agent_that_has_more_to_say_is_told_that_its_bytes_arrived() {
    let (mut stream, told) = counted();
    let mut answer = [0; 1024];
    let begun = told.load(Ordering::Relaxed);
    for _ in 0..5 {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut answer).await.unwrap() > 0);
    }
    // Once for the connection's beginning.
    assert!(told.load(Ordering::Relaxed) <= begun + 1);
    let before = told.load(Ordering::Relaxed);
    for part in ["POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n", "\r\n", "o", "k"] {
        let told_of = told.load(Ordering::Relaxed);
        stream.write_all(part.as_bytes()).await.unwrap();
        while part != "k" && told.load(Ordering::Relaxed) == told_of {
            tokio::task::yield_now().await;
        }
    }
    assert!(stream.read(&mut answer).await.unwrap() > 0);
    assert!(told.load(Ordering::Relaxed) >= before + 3);
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_http2_outlives_the_others_of_its_connection() {
    let (near, far) = tokio::io::duplex(4096);
    let (stream, turn) = pass(Far(far, Arc::default()));
    let service = service_fn(move |request: Request<Incoming>| {
        let taken = turn.take(&request);
        async move {
            let slow = async {
                if request.uri().path() == "/slow" {
                    tokio::time::sleep(Duration::from_secs(300)).await;
                }
                Response::new(Full::new(Bytes::from_static(b"ok")))
            };
            Ok::<_, Infallible>(taken.serve(slow).await)
        }
    });
    let spawner = Spawner::default();
    let mut builder = hyper::server::conn::http2::Builder::new(spawner.clone());
    builder.timer(TokioTimer::new()).keep_alive_interval(Some(Duration::from_secs(30)));
    spawner.spawn(async move {
        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
    });
    let client = hyper::client::conn::http2::Builder::new(spawner.clone());
    let (sender, connection) = client.handshake::<_, Full<Bytes>>(TokioIo::new(near)).await.unwrap();
    spawner.spawn(async move {
        let _ = connection.await;
    });
    let ask = |path: &str| {
        let request = Request::get(format!("https://a{path}")).body(Full::default()).unwrap();
        sender.clone().send_request(request)
    };
    let (slow, quick) = tokio::join!(ask("/slow"), ask("/quick"));
    assert_eq!(quick.unwrap().status(), StatusCode::OK);
    assert_eq!(slow.unwrap().status(), StatusCode::OK);
}

/// A body that comes in two pieces with a moment between them.
struct Halves(Vec<&'static str>, bool);

impl Body for Halves {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.1 = !self.1;
        if self.1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.0.pop().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes())))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_ends_like_a_refusal_goes_out_as_it_is() {
    const END: &str = "a transcript: HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let (mut near, far) = tokio::io::duplex(4096);
    let refuse = |_| Bytes::from_static(b"ours");
    let (stream, turn) = watch(Far(far, Arc::default()), Box::new(refuse));
    let service = service_fn(move |request: Request<Incoming>| {
        let taken = turn.take(&request);
        async move { Ok::<_, Infallible>(taken.serve(async { Response::new(Halves(vec![END, "first "], false)) }).await) }
    });
    Spawner::default().spawn(async move {
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    });
    for _ in 0..2 {
        near.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") || !answer.windows(6).any(|bytes| bytes == b"first ") {
            let read = tokio::time::timeout(Duration::from_secs(60), near.read_buf(&mut answer)).await;
            assert!(matches!(read, Ok(Ok(1..))), "{read:?} {:?}", String::from_utf8_lossy(&answer));
        }
        assert!(answer.ends_with(format!("first {END}").as_bytes()), "{:?}", String::from_utf8_lossy(&answer));
    }
    // One that is hyper's own is still replaced.
    near.write_all(b"no head at all\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    near.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"ours");
}
