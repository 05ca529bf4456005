//! The connections to one address: which are idle, which are busy, which are gone. It opens them, and never sends.
use super::connect::{self, ConnectError};
use super::exchange::Outgoing;
use super::name::Name;
use super::stream::{Meter, Metered};
use super::{ForwardError, IDLE_MAX, Target};
use hyper::client::conn::{http1, http2};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

/// Busy connections looked at when one is wanted; the others wait for the next look.
const SETTLED_PER_LOOK: usize = 16;
/// Requests on one HTTP/2 connection before another is opened.
const STREAMS_PER_CONNECTION: usize = 100;
const HTTP2_CONNECTIONS_MAX: usize = 8;
const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const FRAME_BYTES_MAX: u32 = 16 * 1024;
/// What one stream holds of a body that the upstream does not take.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
const HEADER_TABLE_BYTES: u32 = 4096;
/// Streams that we reset and whose late frames are still expected.
const RESET_STREAMS_MAX: usize = 64;
/// Streams that the upstream may open and reset, or break, before the connection ends.
const UPSTREAM_RESETS_MAX: usize = 128;

pub(super) struct Endpoint {
    name: Name,
    label: Arc<str>,
    shelf: Mutex<Shelf>,
    http2: Mutex<Vec<Http2>>,
    /// One HTTP/2 connection is opened at a time, so that a burst shares it.
    opening: Semaphore,
    pub(super) in_flight: Arc<AtomicU32>,
}

/// HTTP/1.1 connections between two requests.
#[derive(Default)]
struct Shelf {
    /// The last one was used last.
    ready: Vec<Http1>,
    /// The head of the answer has passed; its body may still be passing.
    busy: Vec<Http1>,
}

pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<Outgoing>,
    pub(super) meter: Arc<Meter>,
    last_used: Instant,
}

#[derive(Clone)]
pub(super) struct Http2 {
    pub(super) sender: http2::SendRequest<Outgoing>,
    /// Clones of this are in flight.
    pub(super) streams: Arc<()>,
    meter: Arc<Meter>,
    pub(super) takes_tunnels: Arc<TakesTunnels>,
    last_used: Instant,
}

/// Whether the upstream announced that it takes an extended CONNECT (RFC 8441 §3). Only the connection's task can tell,
/// and it looks when it is asked.
#[derive(Default)]
pub(super) struct TakesTunnels {
    pub(super) asked: Notify,
    pub(super) announced: AtomicBool,
}

impl Shelf {
    /// Moves what has become idle to `ready`; drops what has ended or is one too many.
    fn settle(&mut self, looks_max: usize) {
        let from = self.busy.len().saturating_sub(looks_max);
        for at in (from..self.busy.len()).rev() {
            let Some(connection) = self.busy.get(at) else { continue };
            if connection.sender.is_closed() {
                drop(self.busy.swap_remove(at));
            } else if connection.sender.is_ready() {
                let connection = self.busy.swap_remove(at);
                if self.ready.len() < IDLE_MAX {
                    self.ready.push(connection);
                }
            }
        }
    }
}

impl Endpoint {
    pub(super) fn new(host: &str, port: u16) -> Endpoint {
        let name = Name::new(host.to_owned(), port);
        Endpoint {
            label: name.shown().into(),
            name,
            shelf: Mutex::default(),
            http2: Mutex::default(),
            opening: Semaphore::new(1),
            in_flight: Arc::default(),
        }
    }

    /// `host:port`.
    pub(super) fn label(&self) -> &Arc<str> {
        &self.label
    }
    pub(super) fn is_at(&self, host: &str, port: u16) -> bool {
        self.name.port == port && self.name.host == host
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn http2_connections(&self) -> MutexGuard<'_, Vec<Http2>> {
        self.http2.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most recently used idle connection that is still open.
    pub(super) fn take_idle(&self, idle_timeout: Duration, now: Instant) -> Option<Http1> {
        let mut shelf = self.shelf();
        shelf.settle(SETTLED_PER_LOOK);
        while let Some(connection) = shelf.ready.pop() {
            if connection.sender.is_ready() && now.duration_since(connection.last_used) < idle_timeout {
                return Some(connection);
            }
        }
        None
    }

    /// Call with the head of the answer in hand. The connection is taken again only once its exchange is over.
    pub(super) fn put_back(&self, mut connection: Http1, now: Instant) {
        if connection.sender.is_closed() {
            return;
        }
        connection.last_used = now;
        self.shelf().busy.push(connection);
    }

    /// `preface` is what the connection begins with, if anything.
    pub(super) async fn open_http1(&self, target: &Target, preface: &[u8]) -> Result<Http1, ForwardError> {
        let stream = self.open(target, preface).await?;
        let lasts = target.tls.as_ref().and_then(|tls| tls.lasts(&stream));
        let (stream, meter) = Metered::new(stream);
        let (sender, connection) =
            http1::Builder::new().handshake(stream).await.map_err(|error| self.unreachable(error.to_string()))?;
        // The task owns the socket. It ends with the connection: when the upstream closes it, when the exchange on it is
        // given up, or when its sender is dropped.
        own(connection, lasts);
        Ok(Http1 { sender, meter, last_used: Instant::now() })
    }

    /// A connection for one request that may turn it into a tunnel. The pool never sees it.
    pub(super) async fn open_upgradable(
        &self,
        target: &Target,
        preface: &[u8],
    ) -> Result<http1::SendRequest<Outgoing>, ForwardError> {
        let stream = self.open(target, preface).await?;
        let lasts = target.tls.as_ref().and_then(|tls| tls.lasts(&stream));
        let stream = Metered::new(stream).0.lasting(lasts);
        let (sender, connection) =
            http1::Builder::new().handshake(stream).await.map_err(|error| self.unreachable(error.to_string()))?;
        // The task owns the socket until the upgrade takes it over, or the exchange ends.
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        Ok(sender)
    }

    /// A connection with room for one more request, opened if there is none. `true` if it was there before.
    pub(super) async fn http2(&self, target: &Target) -> Result<(Http2, bool), ForwardError> {
        if let Some(connection) = self.shared_http2() {
            return Ok((connection, true));
        }
        let permit = self.opening.acquire().await;
        if let Some(connection) = self.shared_http2() {
            return Ok((connection, true));
        }
        let connection = self.open_http2(target).await?;
        let mut connections = self.http2_connections();
        connections.push(connection.clone());
        drop(connections);
        drop(permit);
        Ok((connection, false))
    }

    fn shared_http2(&self) -> Option<Http2> {
        let mut connections = self.http2_connections();
        connections.retain(|connection| !connection.sender.is_closed());
        let full = connections.len() >= HTTP2_CONNECTIONS_MAX;
        let connection = connections.iter_mut().min_by_key(|connection| Arc::strong_count(&connection.streams))?;
        if !full && Arc::strong_count(&connection.streams) > STREAMS_PER_CONNECTION {
            return None;
        }
        connection.last_used = Instant::now();
        Some(connection.clone())
    }

    /// After a GOAWAY no new request goes to this connection; those on it go on.
    pub(super) fn retire(&self, connection: &Http2) {
        self.http2_connections().retain(|known| !Arc::ptr_eq(&known.streams, &connection.streams));
    }

    async fn open_http2(&self, target: &Target) -> Result<Http2, ForwardError> {
        let stream = self.open(target, &[]).await?;
        let lasts = target.tls.as_ref().and_then(|tls| tls.lasts(&stream));
        let (stream, meter) = Metered::new(stream);
        let (sender, mut connection) =
            Http2Limits::builder().handshake(stream).await.map_err(|error| self.unreachable(error.to_string()))?;
        let takes_tunnels = Arc::<TakesTunnels>::default();
        let told = Arc::clone(&takes_tunnels);
        let connection = async move {
            loop {
                tokio::select! {
                    biased;
                    ended = &mut connection => return ended,
                    () = told.asked.notified() => {
                        told.announced.store(connection.is_extended_connect_protocol_enabled(), Relaxed);
                    }
                }
            }
        };
        own(connection, lasts);
        Ok(Http2 { sender, streams: Arc::default(), meter, takes_tunnels, last_used: Instant::now() })
    }

    async fn open(&self, target: &Target, preface: &[u8]) -> Result<super::stream::Stream, ForwardError> {
        let opened = connect::open(&self.name, target.tls.as_deref(), preface, target.settings.connect_timeout).await;
        opened.map_err(|error| match error {
            ConnectError::Identity(why) => ForwardError::Identity(why),
            error => self.unreachable(error.why()),
        })
    }

    fn unreachable(&self, why: String) -> ForwardError {
        ForwardError::Connect { address: self.label.to_string(), why }
    }

    /// Closes what has been idle for too long, and lets what is too old take no new request: whatever passes on it still
    /// ends in its own time.
    pub(super) fn sweep(&self, limits: &Keep) {
        let now = Instant::now();
        let mut shelf = self.shelf();
        shelf.settle(usize::MAX);
        let is_kept = |connection: &Http1| limits.keeps(&connection.meter, now) && !connection.sender.is_closed();
        shelf.ready.retain(|connection| is_kept(connection) && now.duration_since(connection.last_used) < limits.idle);
        shelf.busy.retain(is_kept);
        drop(shelf);
        self.http2_connections().retain(|connection| {
            let in_use = Arc::strong_count(&connection.streams) > 1;
            let is_fresh = in_use || now.duration_since(connection.last_used) < limits.idle;
            !connection.sender.is_closed() && is_fresh && limits.keeps(&connection.meter, now)
        });
    }

    pub(super) fn idle_connections(&self) -> usize {
        let mut shelf = self.shelf();
        shelf.settle(usize::MAX);
        let unused = |connection: &&Http2| Arc::strong_count(&connection.streams) == 1;
        shelf.ready.len() + self.http2_connections().iter().filter(unused).count()
    }
    pub(super) fn is_empty(&self) -> bool {
        let shelf = self.shelf();
        shelf.ready.is_empty() && shelf.busy.is_empty() && self.http2_connections().is_empty()
    }
}

/// Runs a connection. One that was opened by certificates with an end is cut then, whatever is in flight on it.
fn own(connection: impl Future<Output = hyper::Result<()>> + Send + 'static, lasts: Option<Duration>) {
    let ended = |ended: hyper::Result<()>| {
        if let Err(error) = ended {
            tracing::debug!(%error, "an upstream connection ended");
        }
    };
    match lasts {
        None => drop(tokio::spawn(async move { ended(connection.await) })),
        Some(lasts) => drop(tokio::spawn(async move {
            match tokio::time::timeout(lasts, connection).await {
                Ok(result) => ended(result),
                Err(_) => tracing::debug!("an upstream connection ended with a certificate"),
            }
        })),
    }
}

/// How long connections are kept.
pub(super) struct Keep {
    pub(super) idle: Duration,
    pub(super) age: Duration,
}

impl Keep {
    fn keeps(&self, meter: &Meter, now: Instant) -> bool {
        meter.age(now) < self.age.mul_f64(1.0 - meter.lot / 10.0)
    }
}

/// Every limit of an HTTP/2 connection to an upstream: chosen here, none left to the library. (How many streams the upstream
/// may open needs none: the library's client refuses all that is pushed.)
pub(super) struct Http2Limits;

impl Http2Limits {
    pub(super) fn builder() -> http2::Builder<Spawn> {
        let mut builder = http2::Builder::new(Spawn);
        builder
            .timer(crate::timer::TokioTimer)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(false)
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_max_send_streams(STREAMS_PER_CONNECTION)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .header_table_size(HEADER_TABLE_BYTES)
            .max_concurrent_reset_streams(RESET_STREAMS_MAX)
            .max_pending_accept_reset_streams(UPSTREAM_RESETS_MAX)
            .max_local_error_reset_streams(UPSTREAM_RESETS_MAX);
        builder
    }
}

/// Runs what hyper's HTTP/2 client wants run: its connection, and one task per streamed request body.
#[derive(Clone, Copy)]
pub(super) struct Spawn;

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}
