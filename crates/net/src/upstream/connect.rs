//! From an address to an open stream: resolve, connect, shake hands. Names are resolved anew for each connection.
use super::UpstreamTls;
use super::name::Name;
use super::roots;
use super::stream::Stream;
use super::svid::SvidVerifier;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use trust::spiffe::SpiffeId;

/// Addresses of one name that are tried.
const ADDRESSES_TRIED_MAX: usize = 8;
/// Addresses of one name that are read at all.
const ADDRESSES_MAX: usize = 1024;

/// TLS towards one peer, known by its name or its SPIFFE ID: always verified, 1.2 or 1.3.
pub(crate) struct TlsClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// HTTP/2 has to be agreed upon; HTTP/1.1 may also go unmentioned.
    must_agree: bool,
    /// The peer is known by an SVID, whose end is the connection's.
    by_svid: bool,
    /// When our own certificate ends, in Unix seconds.
    own_end: Option<i64>,
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

impl ConnectError {
    pub(super) fn why(self) -> String {
        match self {
            ConnectError::Unreachable(why) | ConnectError::Identity(why) => why,
            ConnectError::Handshake(why) => format!("TLS: {why}"),
        }
    }
}

impl TlsClient {
    /// A peer known by its name, which the system's roots or those of `roots_pem` vouch for.
    pub(crate) fn new(name: &str, roots_pem: Option<&[u8]>, alpn: &[u8]) -> Result<TlsClient, String> {
        TlsClient::build(&UpstreamTls::named(name, roots_pem.map(Into::into)), alpn)
    }

    pub(super) fn build(tls: &UpstreamTls, alpn: &[u8]) -> Result<TlsClient, String> {
        let name = &tls.server_name;
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let server_name =
            ServerName::try_from(bare.to_owned()).map_err(|_| format!("`{name}` is no name a certificate can hold"))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| error.to_string())?;
        let roots = tls.roots_pem.as_deref();
        let config = match &tls.spiffe_id {
            None => config.with_root_certificates(roots::with_extra(roots)?),
            Some(id) => {
                let id = SpiffeId::parse(id).map_err(|error| error.to_string())?;
                let bundle = roots.ok_or("a SPIFFE ID is verified against a trust bundle, and none was given")?;
                let verifier = SvidVerifier::new(id, bundle, provider)?;
                config.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let mut own_end = None;
        let mut config = match &tls.identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = crate::tls::chain_and_key(&identity.certificate_pem, &identity.key_pem)?;
                own_end = chain.first().and_then(|leaf| trust::svid::not_after(leaf).ok());
                let wrong = |error| format!("certificate and key do not fit: {error}");
                config.with_client_auth_cert(chain, key).map_err(wrong)?
            }
        };
        if tls.spiffe_id.is_some() || tls.identity.is_some() {
            // Each connection proves anew who both ends are.
            config.resumption = Resumption::disabled();
        }
        config.alpn_protocols = vec![alpn.to_vec()];
        let (must_agree, by_svid) = (alpn == b"h2", tls.spiffe_id.is_some());
        Ok(TlsClient { config: Arc::new(config), name: server_name, must_agree, by_svid, own_end })
    }

    async fn shake_hands(&self, stream: TcpStream) -> Result<Stream, ConnectError> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(self.name.clone(), stream).await.map_err(|error| handshake_error(&error))?;
        if self.must_agree && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(ConnectError::Handshake("the upstream did not agree to HTTP/2".into()));
        }
        Ok(Stream::Tls(Box::new(stream)))
    }

    /// How long a connection may last: not beyond the certificates by which both ends proved who they are.
    pub(super) fn lasts(&self, stream: &Stream) -> Option<Duration> {
        let Stream::Tls(stream) = stream else { return None };
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).filter(|_| self.by_svid);
        // One that was verified and cannot be read twice does not happen; it would end at once.
        let peer_end = leaf.map(|leaf| trust::svid::not_after(leaf).unwrap_or(0));
        let end = [peer_end, self.own_end].into_iter().flatten().min()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(Duration::from_secs(u64::try_from(end).unwrap_or(0)).saturating_sub(now))
    }
}

fn handshake_error(error: &io::Error) -> ConnectError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(why @ (rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)) => {
            ConnectError::Identity(why_not(why))
        }
        Some(why) => ConnectError::Handshake(why.to_string()),
        None => ConnectError::Handshake(error.to_string()),
    }
}

/// Our own words where the refusal is our own.
fn why_not(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(why)) => why.to_string(),
        error => error.to_string(),
    }
}

/// The address that `host` already is, if it is one.
pub(crate) fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, port))
}

/// The addresses of `host` that one connection tries.
pub(crate) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Some(address) = literal(host, port) {
        return Ok(vec![address]);
    }
    let mut addresses = resolve_all(host, port).await?;
    addresses.truncate(ADDRESSES_TRIED_MAX);
    Ok(addresses)
}

/// All addresses of `host`; at least one.
pub(super) async fn resolve_all(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    let found = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| ConnectError::Unreachable(format!("the name was not resolved: {error}")))?;
    let addresses: Vec<_> = found.take(ADDRESSES_MAX).collect();
    if addresses.is_empty() {
        return Err(ConnectError::Unreachable("the name has no address".into()));
    }
    Ok(addresses)
}

/// Tries `addresses` in turn; each gets an equal part of the time that is left. `preface` goes out first, before TLS.
pub(crate) async fn connect(
    addresses: &[SocketAddr],
    tls: Option<&TlsClient>,
    preface: &[u8],
    deadline: Instant,
) -> Result<Stream, ConnectError> {
    let mut last = ConnectError::Unreachable("no address to connect to".into());
    let mut left = u32::try_from(addresses.len()).unwrap_or(1);
    for address in addresses {
        let share = deadline.saturating_duration_since(Instant::now()) / left.max(1);
        left = left.saturating_sub(1);
        match timeout(share, connect_one(*address, tls, preface)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = too_late(share),
        }
    }
    Err(last)
}

async fn connect_one(address: SocketAddr, tls: Option<&TlsClient>, preface: &[u8]) -> Result<Stream, ConnectError> {
    let mut stream =
        TcpStream::connect(address).await.map_err(|error| ConnectError::Unreachable(format!("{address}: {error}")))?;
    stream.set_nodelay(true).map_err(|error| ConnectError::Unreachable(error.to_string()))?;
    if let Err(error) = socket2::SockRef::from(&stream).set_tcp_keepalive(&crate::listener::keepalive()) {
        tracing::debug!(%error, "cannot ask after a silent upstream");
    }
    if !preface.is_empty() {
        let failed = |error| ConnectError::Unreachable(format!("{address}: {error}"));
        stream.write_all(preface).await.map_err(failed)?;
    }
    match tls {
        Some(tls) => tls.shake_hands(stream).await,
        None => Ok(Stream::Plain(stream)),
    }
}

/// Resolves and connects, all of it within `limit`.
pub(super) async fn open(
    name: &Name,
    tls: Option<&TlsClient>,
    preface: &[u8],
    limit: Duration,
) -> Result<Stream, ConnectError> {
    let deadline = Instant::now() + limit;
    let addresses = timeout(limit, name.resolve()).await.map_err(|_| too_late(limit))??;
    connect(&addresses, tls, preface, deadline).await
}

fn too_late(limit: Duration) -> ConnectError {
    ConnectError::Unreachable(format!("no connection within {limit:?}"))
}
