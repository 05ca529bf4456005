//! Listeners and connections: accept, TLS, HTTP/1.1 and HTTP/2, limits, timeouts, drain, certificate hot swap.
use crate::{
    Request, Response,
    settings::{ServerSettings, TlsIdentity},
};
use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

/// One accepted connection, as the socket and the handshake prove it.
#[derive(Debug)]
pub struct Connection {
    pub id: u64,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// `None` without TLS.
    pub tls: Option<Tls>,
}

#[derive(Debug, Clone)]
pub struct Tls {
    pub version: &'static str,
    pub server_name: Option<String>,
}

/// A request or connection that never reached the service, for counting and for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Malformed(&'static str),
    HeaderTooLarge,
    HeaderTimeout,
    Handshake,
    HandshakeTimeout,
    TooManyConnections,
    Flood(&'static str),
}

/// What answers requests. One per worker; called on that worker's thread.
pub trait Service: Send + Sync + 'static {
    fn call(&self, request: Request, connection: &Arc<Connection>) -> impl Future<Output = Response> + Send;
    /// A refusal made below the service; must be cheap.
    fn refused(&self, refusal: Refusal, connection: &Connection);
    /// A panic was caught while answering: the connection ends, this counts it.
    fn panicked(&self, connection: &Connection);
}

/// A running server: workers, listeners, live connections.
pub struct Server {
    _private: (),
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("certificate or key: {0}")]
    Tls(String),
    #[error("cannot start a worker")]
    Worker(#[source] std::io::Error),
}

impl Server {
    /// Starts `workers` threads. `make(worker)` builds the service of each worker on that worker's thread.
    pub fn start<S: Service>(
        _settings: ServerSettings,
        _make: impl Fn(usize) -> S + Send + Sync + 'static,
    ) -> Result<Server, StartError> {
        todo!()
    }
    /// The bound addresses (port 0 resolved).
    pub fn addresses(&self) -> Vec<SocketAddr> {
        todo!()
    }
    /// New handshakes use the new certificate; live connections go on.
    pub fn replace_tls(&self, _identity: TlsIdentity) -> Result<(), StartError> {
        todo!()
    }
    pub fn open_connections(&self) -> usize {
        todo!()
    }
    /// Stop accepting, GOAWAY / `Connection: close`, finish what is in flight within `grace`, then cut. Returns how many were cut.
    pub fn drain(self, _grace: Duration) -> usize {
        todo!()
    }
}
