//! TLS towards clients: 1.2 and 1.3, X25519MLKEM768 preferred, ALPN, session tickets, a certificate that can be replaced while
//! running. It asks for a client certificate where it is told to, and never renegotiates (rustls cannot).
use crate::client_certificate::Peer;
use crate::server::{StartError, Tls};
use crate::settings::TlsIdentity;
use ::aws_lc_rs::digest::{SHA256, digest};
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::ProducesTickets;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The configuration new handshakes use. Ticket keys outlive a change of certificate, so that sessions resume across it.
pub(crate) struct Acceptor {
    config: ArcSwap<ServerConfig>,
    tickets: Arc<dyn ProducesTickets>,
    /// Every client is a workload, for no other comes in.
    proves_peers: bool,
}

impl Acceptor {
    pub(crate) fn new(identity: &TlsIdentity) -> Result<Acceptor, StartError> {
        let tickets = aws_lc_rs::Ticketer::new().map_err(|error| StartError::Tls(error.to_string()))?;
        let config = configure(identity, Arc::clone(&tickets))?;
        Ok(Acceptor { config: ArcSwap::from_pointee(config), tickets, proves_peers: identity.proves_peers() })
    }
    pub(crate) fn replace(&self, identity: &TlsIdentity) -> Result<(), StartError> {
        if identity.proves_peers() != self.proves_peers {
            return Err(StartError::Tls("whether clients must be workloads cannot change while running".into()));
        }
        self.config.store(Arc::new(configure(identity, Arc::clone(&self.tickets))?));
        Ok(())
    }
    pub(crate) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.config.load_full()).accept(stream).await
    }

    /// What a finished handshake settled, and whether it chose HTTP/2.
    pub(crate) fn settled(&self, stream: &TlsStream<TcpStream>) -> (Tls, bool) {
        let (_, session) = stream.get_ref();
        let version = match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "unknown",
        };
        let leaf = session.peer_certificates().and_then(<[_]>::first);
        let tls = Tls {
            version,
            server_name: session.server_name().map(str::to_owned),
            client_certificate: leaf.map(|leaf| {
                let mut hash = [0; 32];
                hash.copy_from_slice(digest(&SHA256, leaf).as_ref());
                hash
            }),
            peer: leaf.filter(|_| self.proves_peers).and_then(|leaf| Peer::of(leaf)).map(Box::new),
        };
        (tls, session.alpn_protocol() == Some(b"h2"))
    }
}

impl TlsIdentity {
    fn proves_peers(&self) -> bool {
        self.client_certificates.as_ref().is_some_and(|wanted| wanted.svids_of.is_some())
    }

    /// Would a listener take this certificate and key? For checking a configuration before it runs.
    pub fn check(&self) -> Result<(), StartError> {
        let tickets = aws_lc_rs::Ticketer::new().map_err(|error| StartError::Tls(error.to_string()))?;
        configure(self, tickets).map(drop)
    }
}

/// `Err` says which of both is no PEM.
pub(crate) fn chain_and_key(
    certificate_pem: &[u8],
    key_pem: &[u8],
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let chain = CertificateDer::pem_slice_iter(certificate_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("the certificate is no PEM: {error}"))?;
    if chain.is_empty() {
        return Err("the certificate file holds no certificate".into());
    }
    let key =
        PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| format!("the key is no PEM private key: {error}"))?;
    Ok((chain, key))
}

fn configure(identity: &TlsIdentity, tickets: Arc<dyn ProducesTickets>) -> Result<ServerConfig, StartError> {
    let wrong = |what: &str, why: String| StartError::Tls(format!("{what}: {why}"));
    let (chain, key) = chain_and_key(&identity.certificate_pem, &identity.key_pem).map_err(StartError::Tls)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let wanted = identity.client_certificates.as_ref();
    let clients = match wanted {
        None => rustls::server::WebPkiClientVerifier::no_client_auth(),
        Some(wanted) => crate::client_certificate::verifier(wanted, &provider)?,
    };
    // Between workloads there is no old client to be kind to.
    let versions: &[&rustls::SupportedProtocolVersion] = match identity.proves_peers() {
        true => &[&rustls::version::TLS13],
        false => &[&rustls::version::TLS13, &rustls::version::TLS12],
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| StartError::Tls(error.to_string()))?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(|error| wrong("certificate and key do not fit", error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if wanted.is_some() {
        // A resumed session would show a certificate whose key nobody proved to hold on this connection.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        return Ok(config);
    }
    config.ticketer = tickets;
    // One ticket per full handshake: browsers use one, and each costs an encryption and 200 bytes.
    config.send_tls13_tickets = 1;
    Ok(config)
}
