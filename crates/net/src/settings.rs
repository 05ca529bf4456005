//! What a listener and its workers may do, and for how long. Every limit has a safe default.
use crate::preamble::Preamble;
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct ServerSettings {
    pub listen: Vec<SocketAddr>,
    pub tls: Option<TlsIdentity>,
    /// Before the first byte, TLS included.
    pub preamble: Option<Preamble>,
    pub limits: Limits,
    pub timeouts: Timeouts,
    /// One current-thread runtime and one SO_REUSEPORT listener each.
    pub workers: usize,
}

/// Certificate chain and key as PEM. The key is never printed.
#[derive(Clone)]
pub struct TlsIdentity {
    pub certificate_pem: Vec<u8>,
    pub key_pem: Vec<u8>,
    /// `None`: clients are not asked for a certificate.
    pub client_certificates: Option<ClientCertificates>,
}

/// Whether clients are asked for a certificate, and from whom it must be. It is an identity only where `svids_of` says
/// so: see [`crate::server::Tls`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    pub demand: CertificateDemand,
    /// PEM of the CAs it must come from; `None`: any certificate whose key the client holds.
    pub ca_pem: Option<Vec<u8>>,
    /// A trust domain. Then a client without an X.509-SVID of it, from these CAs, does not come in, and TLS is 1.3.
    pub svids_of: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateDemand {
    /// Clients without one come in as well.
    Request,
    /// A handshake without one fails.
    Require,
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsIdentity")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Whole head: request line and fields. 431 beyond.
    pub header_bytes_max: usize,
    pub header_fields_max: usize,
    /// Open connections per process; beyond it new ones wait in the backlog.
    pub connections_max: usize,
    /// HTTP/2: concurrent streams per connection.
    pub streams_max: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { header_bytes_max: 32 * 1024, header_fields_max: 100, connections_max: 20_000, streams_max: 128 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    pub handshake: Duration,
    /// From the first byte (or the accept) to the whole head.
    pub header: Duration,
    /// Keep-alive without a request; HTTP/2 without a stream.
    pub idle: Duration,
    /// A client that sends, or takes, no byte of a body for this long is cut.
    pub body_stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            body_stall: Duration::from_secs(60),
        }
    }
}
