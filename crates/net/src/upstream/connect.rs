//! From an address to an open stream: resolve, connect, shake hands. Names are resolved anew for each connection.
use super::name::Name;
use super::roots;
use super::stream::Stream;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

/// Addresses of one name that are tried.
const ADDRESSES_TRIED_MAX: usize = 8;

/// TLS towards one name: always verified, 1.2 or 1.3.
pub(crate) struct TlsClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// HTTP/2 has to be agreed upon; HTTP/1.1 may also go unmentioned.
    must_agree: bool,
}

/// Why there is no stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectError {
    /// Name, network, time.
    Unreachable(String),
    /// TLS failed for another reason than the certificate.
    Handshake(String),
    /// The certificate is not the peer's, not valid now, or from no known root.
    Identity(String),
}

impl TlsClient {
    pub(crate) fn new(name: &str, roots_pem: Option<&[u8]>, alpn: &[u8]) -> Result<TlsClient, String> {
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let server_name =
            ServerName::try_from(bare.to_owned()).map_err(|_| format!("`{name}` is no name a certificate can hold"))?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots::with_extra(roots_pem)?)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(TlsClient { config: Arc::new(config), name: server_name, must_agree: alpn == b"h2" })
    }

    async fn shake_hands(&self, stream: TcpStream) -> Result<Stream, ConnectError> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(self.name.clone(), stream).await.map_err(|error| handshake_error(&error))?;
        if self.must_agree && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(ConnectError::Handshake("the upstream did not agree to HTTP/2".into()));
        }
        Ok(Stream::Tls(Box::new(stream)))
    }
}

fn handshake_error(error: &io::Error) -> ConnectError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(why @ (rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)) => {
            ConnectError::Identity(why.to_string())
        }
        Some(why) => ConnectError::Handshake(why.to_string()),
        None => ConnectError::Handshake(error.to_string()),
    }
}

/// The address that `host` already is, if it is one.
pub(crate) fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, port))
}

/// The addresses of `host`, at most eight of them.
pub(crate) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Some(address) = literal(host, port) {
        return Ok(vec![address]);
    }
    let found = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| ConnectError::Unreachable(format!("the name was not resolved: {error}")))?;
    let addresses: Vec<_> = found.take(ADDRESSES_TRIED_MAX).collect();
    if addresses.is_empty() {
        return Err(ConnectError::Unreachable("the name has no address".into()));
    }
    Ok(addresses)
}

/// Tries `addresses` in turn; each gets an equal part of the time that is left.
pub(crate) async fn connect(
    addresses: &[SocketAddr],
    tls: Option<&TlsClient>,
    deadline: Instant,
) -> Result<Stream, ConnectError> {
    let mut last = ConnectError::Unreachable("no address to connect to".into());
    let mut left = u32::try_from(addresses.len()).unwrap_or(1);
    for address in addresses {
        let share = deadline.saturating_duration_since(Instant::now()) / left.max(1);
        left = left.saturating_sub(1);
        match timeout(share, connect_one(*address, tls)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = too_late(share),
        }
    }
    Err(last)
}

async fn connect_one(address: SocketAddr, tls: Option<&TlsClient>) -> Result<Stream, ConnectError> {
    let stream =
        TcpStream::connect(address).await.map_err(|error| ConnectError::Unreachable(format!("{address}: {error}")))?;
    stream.set_nodelay(true).map_err(|error| ConnectError::Unreachable(error.to_string()))?;
    if let Err(error) = socket2::SockRef::from(&stream).set_tcp_keepalive(&crate::listener::keepalive()) {
        tracing::debug!(%error, "cannot ask after a silent upstream");
    }
    match tls {
        Some(tls) => tls.shake_hands(stream).await,
        None => Ok(Stream::Plain(stream)),
    }
}

/// Resolves and connects, all of it within `limit`.
pub(super) async fn open(name: &Name, tls: Option<&TlsClient>, limit: Duration) -> Result<Stream, ConnectError> {
    let deadline = Instant::now() + limit;
    let addresses = timeout(limit, name.resolve()).await.map_err(|_| too_late(limit))??;
    connect(&addresses, tls, deadline).await
}

fn too_late(limit: Duration) -> ConnectError {
    ConnectError::Unreachable(format!("no connection within {limit:?}"))
}
