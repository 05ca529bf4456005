//! Listeners and connections: accept, TLS, HTTP/1.1 and HTTP/2, limits, timeouts, drain, certificate hot swap.
use crate::{
    Request, Response,
    client_certificate::Peer,
    listener,
    seldom::Seldom,
    settings::{ServerSettings, TlsIdentity},
    tls::Acceptor,
    unix::{self, Door},
    worker::{Phase, Process, WARN_EVERY, Worker},
};
use std::any::Any;
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Threads per worker for what the system can only do by blocking: resolving names.
const BLOCKING_THREADS_MAX: usize = 8;

/// In the place of the addresses that a Unix-domain socket has not: no TCP connection comes from here.
pub(crate) const NO_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// One accepted connection, as the socket and the handshake prove it.
#[derive(Debug)]
pub struct Connection {
    pub id: u64,
    pub local: SocketAddr,
    /// The client: the other end of the socket, or whom a preamble named.
    pub remote: SocketAddr,
    /// `None` without TLS.
    pub tls: Option<Tls>,
    /// What the service keeps for as long as the connection lives; nobody else reads it.
    pub kept: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Connection {
    /// Did it come over a Unix-domain socket? Then neither end has an address (`0.0.0.0`), and the socket's file said who may
    /// connect.
    pub fn is_unix(&self) -> bool {
        self.remote == NO_ADDRESS
    }
}

#[derive(Debug, Clone)]
pub struct Tls {
    pub version: &'static str,
    pub server_name: Option<String>,
    /// SHA-256 of the client's certificate (DER), whose key it proved to hold in this handshake. Not an identity: without a
    /// configured CA anybody can make one. It is for tokens that are bound to it (RFC 8705).
    pub client_certificate: Option<[u8; 32]>,
    /// The workload that the client is, where nobody else comes in (`ClientCertificates::svids_of`).
    pub peer: Option<Box<Peer>>,
}

/// A request or connection that never reached the service, for counting and for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Malformed(&'static str),
    HeaderTooLarge,
    HeaderTimeout,
    Handshake,
    HandshakeTimeout,
    /// The limit is reached and newcomers wait in the backlog. Said once per wait, about the listener.
    TooManyConnections,
    Flood(&'static str),
    /// What a trusted proxy owes before the first byte is missing or malformed.
    Preamble(&'static str),
}

/// What answers requests. One per worker; called on that worker's thread.
pub trait Service: Send + Sync + 'static {
    fn call(&self, request: Request, connection: &Arc<Connection>) -> impl Future<Output = Response> + Send;
    /// A refusal made below the service; must be cheap.
    fn refused(&self, refusal: Refusal, connection: &Connection);
    /// A panic was caught while answering: the connection ends, this counts it.
    fn panicked(&self, connection: &Connection);
}

/// A running server: workers, listeners, live connections. Dropping it cuts everything.
pub struct Server {
    process: Arc<Process>,
    phase: watch::Sender<Phase>,
    addresses: Vec<SocketAddr>,
    /// Unix-domain sockets.
    doors: Vec<Door>,
    workers: Vec<JoinHandle<usize>>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("cannot listen at `{}`", path.display())]
    Socket { path: PathBuf, source: std::io::Error },
    #[error("certificate or key: {0}")]
    Tls(String),
    #[error("cannot start a worker")]
    Worker(#[source] std::io::Error),
}

impl Server {
    /// Starts `workers` threads. `make(worker)` builds the service of each worker on that worker's thread.
    pub fn start<S: Service>(
        settings: ServerSettings,
        make: impl Fn(usize) -> S + Send + Sync + 'static,
    ) -> Result<Server, StartError> {
        Server::start_with(settings, &[], make)
    }

    /// As [`Server::start`], and listens at these Unix-domain sockets besides. Their files are made for owner and group
    /// (0660), and removed in the end.
    pub fn start_with<S: Service>(
        settings: ServerSettings,
        sockets: &[PathBuf],
        make: impl Fn(usize) -> S + Send + Sync + 'static,
    ) -> Result<Server, StartError> {
        let workers = settings.workers.max(1);
        let bound = listener::bind(&settings.listen, workers)?;
        let mut doors = Vec::with_capacity(sockets.len());
        let mut local = Vec::with_capacity(sockets.len());
        for path in sockets {
            let failed = |source| StartError::Socket { path: path.clone(), source };
            let (door, listener) = unix::bind(path).map_err(failed)?;
            doors.push(door);
            local.push(listener);
        }
        let (phase, observed) = watch::channel(Phase::Running);
        let process = Arc::new(Process {
            tls: settings.tls.as_ref().map(Acceptor::new).transpose()?,
            preamble: settings.preamble,
            limits: settings.limits,
            timeouts: settings.timeouts,
            open: AtomicUsize::new(0),
            next_id: AtomicU64::new(1),
            phase: observed,
            full: Seldom::every(WARN_EVERY),
        });
        let mut server =
            Server { process, phase, addresses: bound.addresses, doors, workers: Vec::with_capacity(workers) };
        let make = Arc::new(make);
        for (index, listeners) in bound.per_worker.into_iter().enumerate() {
            // A socket's file has one queue, from which all workers take.
            let local =
                local.iter().map(UnixListener::try_clone).collect::<Result<_, _>>().map_err(StartError::Worker)?;
            server.spawn(index, (listeners, local), Arc::clone(&make))?;
        }
        Ok(server)
    }

    fn spawn<S: Service>(
        &mut self,
        index: usize,
        (listeners, local): (Vec<std::net::TcpListener>, Vec<UnixListener>),
        make: Arc<impl Fn(usize) -> S + Send + Sync + 'static>,
    ) -> Result<(), StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .build()
            .map_err(StartError::Worker)?;
        let process = Arc::clone(&self.process);
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                let cut = runtime.block_on(async { Worker::new(make(index), process).run(listeners, local).await });
                // A drop would wait for a name server that says nothing, and with it the end of the process.
                runtime.shutdown_background();
                cut
            })
            .map_err(StartError::Worker)?;
        self.workers.push(thread);
        Ok(())
    }

    /// The bound addresses (port 0 resolved).
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }
    /// Paths of the Unix-domain sockets.
    pub fn sockets(&self) -> impl Iterator<Item = &Path> {
        self.doors.iter().map(Door::path)
    }
    pub fn has_tls(&self) -> bool {
        self.process.tls.is_some()
    }
    /// New handshakes use the new certificate; live connections go on.
    pub fn replace_tls(&self, identity: TlsIdentity) -> Result<(), StartError> {
        match &self.process.tls {
            Some(acceptor) => acceptor.replace(&identity),
            None => Err(StartError::Tls("the listener was started without TLS".into())),
        }
    }
    pub fn open_connections(&self) -> usize {
        self.process.open.load(Relaxed)
    }
    /// Stop accepting, GOAWAY / `Connection: close`, finish what is in flight within `grace`, then cut. Returns how many were cut.
    /// Blocks the calling thread; do not call it from a worker.
    pub fn drain(mut self, grace: Duration) -> usize {
        // Newcomers find no file; those who found one are in its queue, which the workers empty.
        self.doors.clear();
        self.phase.send_replace(Phase::Draining);
        let until = Instant::now() + grace;
        while Instant::now() < until && !self.workers.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.stop()
    }

    fn stop(&mut self) -> usize {
        self.phase.send_replace(Phase::Cut);
        // A worker that panicked outside every connection cut all of its own: there is nothing left to count.
        self.workers.drain(..).map(|worker| worker.join().unwrap_or(0)).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
