//! The connections to one address: which are idle, which are busy, which are gone. It opens them, and never sends.
use super::connect::{self, ConnectError};
use super::exchange::Outgoing;
use super::http1::Http1;
use super::name::Name;
use super::stream::Channel;
use super::{ForwardError, IDLE_MAX, Target};
use hyper::client::conn::http2;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

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

pub(crate) struct Endpoint {
    name: Name,
    label: Arc<str>,
    /// HTTP/1.1 connections between two requests. The last one was used last.
    idle: Mutex<Vec<Http1>>,
    http2: Mutex<Vec<Http2>>,
    /// One HTTP/2 connection is opened at a time, so that a burst shares it.
    opening: Semaphore,
    pub(super) in_flight: Arc<AtomicU32>,
}

#[derive(Clone)]
pub(super) struct Http2 {
    pub(super) sender: http2::SendRequest<Outgoing>,
    /// Clones of this are in flight.
    pub(super) streams: Arc<()>,
    /// From then on it carries no new request.
    retire: Instant,
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

impl Endpoint {
    pub(super) fn new(host: &str, port: u16) -> Endpoint {
        let name = Name::new(host.to_owned(), port);
        Endpoint {
            label: name.shown().into(),
            name,
            idle: Mutex::default(),
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

    fn idle(&self) -> MutexGuard<'_, Vec<Http1>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn http2_connections(&self) -> MutexGuard<'_, Vec<Http2>> {
        self.http2.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most recently used idle connection that is still open.
    pub(super) fn take_idle(&self, idle_timeout: Duration, now: Instant) -> Option<Http1> {
        let mut idle = self.idle();
        while let Some(mut connection) = idle.pop() {
            if connection.is_usable(now) && now.duration_since(connection.last_used) < idle_timeout {
                return Some(connection);
            }
        }
        None
    }

    /// A connection whose exchange ended well.
    pub(super) fn put_back(&self, mut connection: Http1, now: Instant) {
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            connection.last_used = now;
            idle.push(connection);
        }
    }

    /// `preface` is what the connection begins with, if anything.
    pub(super) async fn open_http1(&self, target: &Target, preface: &[u8]) -> Result<Http1, ForwardError> {
        let stream = self.open(target, preface).await?;
        let lasts = target.tls.as_ref().and_then(|tls| tls.lasts(&stream));
        Ok(Http1::new(stream, target.settings.max_age, lasts))
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
        let now = Instant::now();
        let (sender, mut connection) = Http2Limits::builder()
            .handshake(Channel::new(stream))
            .await
            .map_err(|error| self.unreachable(error.to_string()))?;
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
        let retire = super::retirement(now, target.settings.max_age);
        Ok(Http2 { sender, streams: Arc::default(), retire, takes_tunnels, last_used: now })
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
    pub(super) fn sweep(&self, idle_timeout: Duration) {
        let now = Instant::now();
        self.idle().retain_mut(|connection| {
            connection.is_usable(now) && now.duration_since(connection.last_used) < idle_timeout
        });
        self.http2_connections().retain(|connection| {
            let in_use = Arc::strong_count(&connection.streams) > 1;
            let is_fresh = in_use || now.duration_since(connection.last_used) < idle_timeout;
            !connection.sender.is_closed() && is_fresh && now < connection.retire
        });
    }

    pub(super) fn idle_connections(&self) -> usize {
        let unused = |connection: &&Http2| Arc::strong_count(&connection.streams) == 1;
        self.idle().len() + self.http2_connections().iter().filter(unused).count()
    }
    pub(super) fn is_empty(&self) -> bool {
        self.idle().is_empty() && self.http2_connections().is_empty()
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
