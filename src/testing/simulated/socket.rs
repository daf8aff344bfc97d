//! From replies to what happens on a socket: slow bodies, connections cut short, a port that nobody listens on.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use axum::routing::{get, post};
use axum::serve::{IncomingStream, Listener};
use futures_util::stream;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::engine::{CHAT_PATH, COMPLETIONS_PATH, HEALTH_PATH, METRICS_PATH, MODELS_PATH, SimulatedEngine};
use super::reply::{Pace, SimulatedReply, SimulatedResponse};

/// More than any request of this crate, as a bound.
const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;
/// How long a connection stays open after the first part of a body that is cut, so that the part arrives.
const BEFORE_CUT: Duration = Duration::from_millis(10);

/// The routes of the server.
pub(super) fn router(engine: SimulatedEngine) -> Router {
    Router::new()
        .route(CHAT_PATH, post(handle))
        .route(COMPLETIONS_PATH, post(handle))
        .route(MODELS_PATH, get(handle))
        .route(HEALTH_PATH, get(handle))
        .route(METRICS_PATH, get(handle))
        .fallback(handle)
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .with_state(engine)
}

async fn handle(
    State(engine): State<SimulatedEngine>,
    ConnectInfo(line): ConnectInfo<Line>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match engine.handle(uri.path(), authorization, &body).await {
        SimulatedReply::Response(response) => respond(response, None),
        SimulatedReply::CloseEarly { response, after_bytes } => respond(response, Some(after_bytes)),
        SimulatedReply::Reset | SimulatedReply::Refused => {
            line.cut();
            // Never sent, since the line is cut.
            Response::new(Body::empty())
        }
    }
}

fn respond(response: SimulatedResponse, cut_after_bytes: Option<usize>) -> Response {
    let length = response.body.len();
    let (body, length) = match (cut_after_bytes, response.pace) {
        (Some(bytes), _) => (cut_body(response.body.slice(..bytes.min(length))), Some(length)),
        (None, Pace::Whole) => (Body::from(response.body), None),
        (None, Pace::Drip { bytes, interval }) => (drip_body(response.body, bytes.max(1), interval), Some(length)),
        (None, Pace::Endless) => (endless_body(response.body), None),
    };
    let mut out = Response::new(body);
    *out.status_mut() = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &response.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            out.headers_mut().insert(name, value);
        }
    }
    if let Some(length) = length {
        out.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    out
}

fn cut_body(first: Bytes) -> Body {
    Body::from_stream(stream::unfold(Some(first), |first| async move {
        if let Some(first) = first {
            return Some((Ok(first), None));
        }
        tokio::time::sleep(BEFORE_CUT).await;
        Some((Err(io::Error::from(io::ErrorKind::ConnectionAborted)), None))
    }))
}

fn drip_body(body: Bytes, bytes: usize, interval: Duration) -> Body {
    Body::from_stream(stream::unfold(body, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(interval).await;
        let part = rest.split_to(bytes.min(rest.len()));
        Some((Ok::<_, io::Error>(part), rest))
    }))
}

fn endless_body(body: Bytes) -> Body {
    Body::from_stream(stream::unfold(body, |body| async move {
        // Lets other tasks run when the client reads as fast as this writes.
        tokio::task::yield_now().await;
        Some((Ok::<_, io::Error>(body.clone()), body))
    }))
}

/// A handle on a connection, to cut it from outside.
#[derive(Clone, Debug)]
pub(super) struct Line(Arc<LineState>);

#[derive(Debug, Default)]
struct LineState {
    is_cut: AtomicBool,
    waker: AtomicWaker,
}

impl Line {
    /// The connection's next read or write fails, and its socket is reset.
    fn cut(&self) {
        self.0.is_cut.store(true, Ordering::SeqCst);
        self.0.waker.wake();
    }
}

impl Connected<IncomingStream<'_, Door>> for Line {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.io().line.clone()
    }
}

/// A listening socket whose connections can be cut; they all are when it is dropped.
#[derive(Debug)]
pub(super) struct Door {
    listener: TcpListener,
    lines: Vec<Weak<LineState>>,
    engine: SimulatedEngine,
}

impl Door {
    pub(super) fn new(listener: TcpListener, engine: SimulatedEngine) -> Self {
        Self { listener, lines: Vec::new(), engine }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.lines.iter().filter_map(Weak::upgrade).for_each(|line| Line(line).cut());
    }
}

impl Listener for Door {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // Best effort: without it small answers are only a little later.
        let _ = stream.set_nodelay(true);
        let line = Line(Arc::default());
        self.lines.retain(|line| line.strong_count() > 0);
        self.lines.push(Arc::downgrade(&line.0));
        self.engine.count_connection(true);
        (Wire { stream, line, engine: self.engine.clone() }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that can be cut.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    line: Line,
    engine: SimulatedEngine,
}

impl Wire {
    /// Fails when the line is cut, and else sees to it that the task is woken when it will be.
    fn check(&self, context: &mut Context<'_>) -> io::Result<()> {
        self.line.0.waker.register(context.waker());
        if self.line.0.is_cut.load(Ordering::SeqCst) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.line.0.is_cut.load(Ordering::SeqCst) {
            // Makes the end a reset instead of an orderly close; without it the client sees the connection end all the same.
            let _ = self.stream.set_zero_linger();
        }
        self.engine.count_connection(false);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
