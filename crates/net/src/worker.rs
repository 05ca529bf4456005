//! One worker: a thread, a current-thread runtime, its listeners, its connections and one coarse clock for all their limits.
//! It never looks into a request.
use crate::connection::serve;
use crate::live::{Clock, Cut, Live};
use crate::seldom::Seldom;
use crate::server::{Connection, NO_ADDRESS, Refusal, Service};
use crate::settings::{Limits, Timeouts};
use crate::tls::Acceptor;
use crate::tunnel::Watched;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// While draining, how long an idle HTTP/1 connection is kept for a request that may already be on its way.
const DRAIN_IDLE: Duration = Duration::from_secs(1);
/// How long the accept queue is emptied after it was closed to newcomers: a few round trips of clients in mid-handshake.
const DRAIN_ACCEPT: Duration = Duration::from_millis(100);
/// How often a full process says so.
pub(crate) const WARN_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    Draining,
    Cut,
}

/// What all workers of a server share.
pub(crate) struct Process {
    pub(crate) preamble: Option<crate::preamble::Preamble>,
    pub(crate) limits: Limits,
    pub(crate) timeouts: Timeouts,
    pub(crate) tls: Option<Acceptor>,
    pub(crate) open: AtomicUsize,
    pub(crate) next_id: AtomicU64,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) full: Seldom,
}

pub(crate) struct Worker<S> {
    pub(crate) service: S,
    pub(crate) process: Arc<Process>,
    pub(crate) clock: Arc<Clock>,
    connections: Mutex<HashMap<u64, Arc<Live>>>,
    pub(crate) tunnels: Watched,
    /// Wakes `run` when the last connection is gone.
    emptied: tokio::sync::Notify,
}

/// A connection's place in the worker's books, given back on drop.
pub(crate) struct Place<S> {
    worker: Arc<Worker<S>>,
    id: u64,
}

impl<S> Drop for Place<S> {
    fn drop(&mut self) {
        self.worker.process.open.fetch_sub(1, Relaxed);
        let mut connections = self.worker.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.remove(&self.id);
        if connections.is_empty() {
            self.worker.emptied.notify_one();
        }
    }
}

impl<S: Service> Worker<S> {
    pub(crate) fn new(service: S, process: Arc<Process>) -> Arc<Worker<S>> {
        Arc::new(Worker {
            service,
            process,
            clock: Arc::new(Clock::new()),
            connections: Mutex::new(HashMap::new()),
            tunnels: Watched::default(),
            emptied: tokio::sync::Notify::new(),
        })
    }

    /// Serves until drained or cut. Returns how many connections were cut.
    pub(crate) async fn run(
        self: Arc<Self>,
        listeners: Vec<std::net::TcpListener>,
        local: Vec<std::os::unix::net::UnixListener>,
    ) -> usize {
        let ticks = tokio::spawn(Arc::clone(&self).tick());
        let mut accepting = Vec::new();
        for listener in listeners {
            match TcpListener::from_std(listener) {
                Ok(listener) => accepting.push(tokio::spawn(Arc::clone(&self).accept(listener))),
                Err(error) => tracing::error!(%error, "cannot register a listener"),
            }
        }
        accepting.extend(local.into_iter().map(|listener| tokio::spawn(Arc::clone(&self).accept_local(listener))));
        for task in accepting {
            // A panic in an accept loop is reported by the runtime; the drain goes on.
            let _ = task.await;
        }
        let mut phase = self.process.phase.clone();
        loop {
            if self.open_here() == 0 || *phase.borrow_and_update() == Phase::Cut {
                break;
            }
            tokio::select! {
                biased;
                changed = phase.changed() => if changed.is_err() { break },
                () = self.emptied.notified() => {}
            }
        }
        ticks.abort();
        self.open_here()
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.process.phase.borrow() != Phase::Running
    }

    fn open_here(&self) -> usize {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut phase = self.process.phase.clone();
        let local = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
        while *phase.borrow_and_update() == Phase::Running {
            tokio::select! {
                biased;
                _ = phase.changed() => {}
                () = self.room(local) => match next(&listener, &mut phase).await {
                    Some(Ok((stream, remote))) => self.start(stream, local, remote),
                    Some(Err(error)) => pause(&error).await,
                    None => {}
                },
            }
        }
        if *phase.borrow() == Phase::Draining {
            self.empty_backlog(listener, local).await;
        }
    }

    /// From a Unix-domain socket. Its file is removed before the drain begins, so its queue can be emptied for good.
    async fn accept_local(self: Arc<Self>, listener: std::os::unix::net::UnixListener) {
        let rest = listener.try_clone();
        let listener = match tokio::net::UnixListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "cannot register a listener"),
        };
        let mut phase = self.process.phase.clone();
        while *phase.borrow_and_update() == Phase::Running {
            tokio::select! {
                biased;
                _ = phase.changed() => {}
                () = self.room(NO_ADDRESS) => tokio::select! {
                    biased;
                    _ = phase.changed() => {}
                    accepted = listener.accept() => match accepted.and_then(|(stream, _)| stream.into_std()) {
                        Ok(stream) => self.start_local(stream),
                        Err(error) => pause(&error).await,
                    },
                },
            }
        }
        while let Ok(rest) = &rest
            && let Ok((stream, _)) = rest.accept()
        {
            self.start_local(stream);
        }
    }

    fn start_local(self: &Arc<Self>, stream: std::os::unix::net::UnixStream) {
        match crate::unix::as_stream(stream) {
            Ok(stream) => self.start(stream, NO_ADDRESS, NO_ADDRESS),
            Err(error) => tracing::warn!(%error, "cannot register a connection"),
        }
    }

    /// A listener that closes resets what waits in its queue. So the queue is closed to newcomers first (their SYN is
    /// dropped and sent again, to another listener or to none), and emptied, also of handshakes that were under way.
    async fn empty_backlog(self: &Arc<Self>, listener: TcpListener, local: SocketAddr) {
        if let Err(error) = crate::listener::close_to_newcomers(&listener) {
            tracing::debug!(%error, "cannot close the accept queue");
        }
        let until = tokio::time::Instant::now() + DRAIN_ACCEPT;
        while let Ok(accepted) = tokio::time::timeout_at(until, listener.accept()).await {
            match accepted {
                Ok((stream, remote)) => self.start(stream, local, remote),
                Err(error) => pause(&error).await,
            }
        }
        // The runtime may not know yet of what came last: the socket itself is asked until its queue is empty.
        let Ok(listener) = listener.into_std() else { return };
        while let Ok((stream, remote)) = listener.accept() {
            if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
                self.start(stream, local, remote);
            }
        }
    }

    /// Waits while the process holds as many connections as it may: newcomers stay in the backlog.
    async fn room(&self, local: SocketAddr) {
        if self.process.open.load(Relaxed) < self.process.limits.connections_max {
            return;
        }
        // Said once per wait, and about the listener: no client was refused yet.
        self.service.refused(
            Refusal::TooManyConnections,
            &Connection { id: 0, local, remote: local, tls: None, kept: OnceLock::new() },
        );
        while self.process.open.load(Relaxed) >= self.process.limits.connections_max {
            if self.process.full.is_due(Instant::now()) {
                tracing::warn!(
                    listener = %local,
                    connections_max = self.process.limits.connections_max,
                    "connection limit reached: new clients wait; raise edge.limits.connections or find who holds them"
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn start(self: &Arc<Self>, stream: TcpStream, local: SocketAddr, remote: SocketAddr) {
        let id = self.process.next_id.fetch_add(1, Relaxed);
        let local = stream.local_addr().unwrap_or(local);
        let waiting =
            if self.process.tls.is_some() { crate::live::Waiting::Handshake } else { crate::live::Waiting::Head };
        let live = Arc::new(Live::new(Arc::clone(&self.clock), waiting));
        self.process.open.fetch_add(1, Relaxed);
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&live));
        let place = Place { worker: Arc::clone(self), id };
        let connection = Connection { id, local, remote, tls: None, kept: OnceLock::new() };
        let worker = Arc::clone(self);
        tokio::spawn(async move {
            let _place = place;
            serve(worker, live, connection, stream).await;
        });
    }

    /// One look at every connection per tick: ten thousand of them cost some tens of microseconds.
    async fn tick(self: Arc<Self>) {
        let started = Instant::now();
        let timeouts = &self.process.timeouts;
        let shortest = timeouts
            .handshake
            .min(timeouts.header)
            .min(timeouts.idle)
            .min(timeouts.body_stall)
            .min(Duration::from_secs(2));
        let period = (shortest / 8).clamp(Duration::from_millis(10), Duration::from_millis(250));
        let mut interval = tokio::time::interval(period);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut phase = self.process.phase.clone();
        let mut draining_since = None;
        loop {
            tokio::select! {
                biased;
                changed = phase.changed() => if changed.is_err() { return },
                _ = interval.tick() => {}
            }
            self.clock.set(started.elapsed());
            crate::date::refresh(std::time::SystemTime::now());
            if draining_since.is_none() && self.is_draining() {
                draining_since = Some(Instant::now());
                self.each(|live| {
                    live.close_after_answer();
                    live.wake();
                });
            }
            self.tunnels.look(timeouts.body_stall);
            let close_idle = draining_since.is_some_and(|since| since.elapsed() >= DRAIN_IDLE);
            self.each(|live| match live.overdue(timeouts) {
                Cut::None if close_idle && live.is_idle() => live.set_cut(Cut::Idle),
                Cut::None => {}
                cut => live.set_cut(cut),
            });
        }
    }

    fn each(&self, mut look: impl FnMut(&Live)) {
        for live in self.connections.lock().unwrap_or_else(PoisonError::into_inner).values() {
            look(live);
        }
    }
}

async fn next(
    listener: &TcpListener,
    phase: &mut watch::Receiver<Phase>,
) -> Option<std::io::Result<(TcpStream, SocketAddr)>> {
    tokio::select! {
        biased;
        _ = phase.changed() => None,
        accepted = listener.accept() => Some(accepted),
    }
}

/// A connection that died in the queue is nothing; no free file descriptor is a reason to wait instead of spinning.
async fn pause(error: &std::io::Error) {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        tracing::warn!(%error, "cannot accept");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// `None` when the future panicked: the caller ends what it belongs to, and nothing else.
pub(crate) async fn catch_panic<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}
