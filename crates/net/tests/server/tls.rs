//! TLS towards clients: versions, ALPN, groups, SNI, tickets, a new certificate under live connections.
use crate::raw::{LIMIT, TestServer, identity, start_with};
use net::settings::{CertificateDemand, ClientCertificates, TlsIdentity};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, SignatureScheme, StreamOwned};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// Accepts any certificate: these tests ask which one was shown.
#[derive(Debug)]
struct AnyCertificate(CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn client(version: &'static rustls::SupportedProtocolVersion, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let provider = aws_lc_rs::default_provider();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn connect(server: &TestServer, config: &Arc<ClientConfig>) -> Tls {
    let stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let name = ServerName::try_from("a.example").unwrap();
    let mut tls = StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock).unwrap();
    }
    tls
}

fn get(tls: &mut Tls) -> String {
    tls.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        let mut buffer = [0; 4096];
        let count = tls.read(&mut buffer).unwrap();
        assert!(count > 0, "closed early");
        answer.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(answer).unwrap()
}

fn certificate(tls: &Tls) -> Vec<u8> {
    tls.conn.peer_certificates().unwrap()[0].to_vec()
}

fn with_tls() -> TestServer {
    start_with(|settings| settings.tls = Some(identity("a.example")))
}

#[test]
fn both_versions_are_served_and_alpn_chooses() {
    let server = with_tls();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let check = |offered: &[&[u8]], chosen: Option<&[u8]>| {
            let tls = connect(&server, &client(version, offered));
            assert_eq!(tls.conn.alpn_protocol(), chosen);
        };
        check(&[b"h2", b"http/1.1"], Some(b"h2"));
        check(&[b"http/1.1"], Some(b"http/1.1"));
        check(&[], None);
        let mut tls = connect(&server, &client(version, &[]));
        assert!(get(&mut tls).starts_with("HTTP/1.1 200 "));
        assert_eq!(tls.conn.protocol_version(), Some(version.version));
    }
    assert_eq!(*server.seen.server_names.lock().unwrap(), [Some("a.example".to_owned()), Some("a.example".to_owned())]);
}

#[test]
fn the_post_quantum_group_is_chosen() {
    let server = with_tls();
    let tls = connect(&server, &client(&rustls::version::TLS13, &[]));
    assert_eq!(
        tls.conn.negotiated_key_exchange_group().map(|group| group.name()),
        Some(rustls::NamedGroup::X25519MLKEM768)
    );
}

#[test]
fn sessions_resume() {
    let server = with_tls();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = client(version, &[]);
        get(&mut connect(&server, &config));
        let mut again = connect(&server, &config);
        assert_eq!(again.conn.handshake_kind(), Some(HandshakeKind::Resumed));
        get(&mut again);
    }
}

/// Shows this certificate and signs with this key, whether or not they belong together.
#[derive(Debug)]
struct Shown(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
    fn has_certs(&self) -> bool {
        true
    }
}

fn showing(
    version: &'static rustls::SupportedProtocolVersion,
    certificate: &TlsIdentity,
    key: &TlsIdentity,
) -> Arc<ClientConfig> {
    let key = PrivateKeyDer::from_pem_slice(&key.key_pem).unwrap();
    let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(&certificate.certificate_pem).unwrap()];
    let mut config = ClientConfig::clone(&client(version, &[]));
    config.client_auth_cert_resolver = Arc::new(Shown(Arc::new(rustls::sign::CertifiedKey::new(chain, key))));
    Arc::new(config)
}

fn asking(demand: CertificateDemand, ca_pem: Option<Vec<u8>>) -> TestServer {
    let client_certificates = Some(ClientCertificates { demand, ca_pem, svids_of: None });
    start_with(|settings| settings.tls = Some(TlsIdentity { client_certificates, ..identity("a.example") }))
}

/// Is a request of this client answered? A server that dislikes the certificate says so only after the client's handshake.
fn is_served(server: &TestServer, config: &Arc<ClientConfig>) -> bool {
    let stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let name = ServerName::try_from("a.example").unwrap();
    let mut tls = StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream);
    let mut first = [0; 12];
    let asked = tls.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    asked.and_then(|()| tls.read_exact(&mut first)).is_ok() && first == *b"HTTP/1.1 200"
}

const VERSIONS: [&rustls::SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

#[test]
fn api_68_a_certificate_counts_only_with_its_key_and_on_its_own_connection() {
    let server = asking(CertificateDemand::Request, None);
    let (own, other) = (identity("client"), identity("other"));
    let hash = |identity: &TlsIdentity| {
        let der = CertificateDer::from_pem_slice(&identity.certificate_pem).unwrap();
        let hash: [u8; 32] =
            ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, &der).as_ref().try_into().unwrap();
        Some(hash)
    };
    for version in VERSIONS {
        let last = || *server.seen.client_certificates.lock().unwrap().last().unwrap();
        assert!(is_served(&server, &showing(version, &own, &own)));
        assert_eq!(last(), hash(&own));
        assert!(is_served(&server, &client(version, &[])), "one without a certificate comes in as well");
        assert_eq!(last(), None);
        let before = server.seen.client_certificates.lock().unwrap().len();
        assert!(!is_served(&server, &showing(version, &own, &other)), "another's certificate without its key");
        assert_eq!(server.seen.client_certificates.lock().unwrap().len(), before);
        // Nothing is resumed: every connection proves its key.
        let config = showing(version, &own, &own);
        get(&mut connect(&server, &config));
        assert_eq!(connect(&server, &config).conn.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn api_68_a_demanded_certificate_must_be_there_and_from_the_ca() {
    let ca = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = params.self_signed(&ca).unwrap().pem().into_bytes();
    let issuer = rcgen::Issuer::new(params, ca);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["client".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let of_ca = TlsIdentity {
        certificate_pem: leaf.pem().into(),
        key_pem: key.serialize_pem().into(),
        client_certificates: None,
    };
    let own = identity("client");
    let any = asking(CertificateDemand::Require, None);
    let from_ca = asking(CertificateDemand::Require, Some(ca_pem.clone()));
    let from_ca_or_none = asking(CertificateDemand::Request, Some(ca_pem));
    for version in VERSIONS {
        let none = client(version, &[]);
        let (own, of_ca) = (showing(version, &own, &own), showing(version, &of_ca, &of_ca));
        let served = |server| [&none, &own, &of_ca].map(|config| is_served(server, config));
        assert_eq!(served(&any), [false, true, true]);
        assert_eq!(served(&from_ca), [false, false, true]);
        assert_eq!(served(&from_ca_or_none), [true, false, true]);
    }
    let (demand, ca_pem) = (CertificateDemand::Request, Some(b"no PEM".to_vec()));
    let bad = ClientCertificates { demand, ca_pem, svids_of: None };
    assert!(TlsIdentity { client_certificates: Some(bad), ..identity("a.example") }.check().is_err());
}

/// A CA in PEM, and what it signs: a leaf with these URIs, for clients and servers.
fn workloads() -> (Vec<u8>, impl Fn(&[&str]) -> TlsIdentity) {
    let ca = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = params.self_signed(&ca).unwrap().pem().into_bytes();
    let issuer = rcgen::Issuer::new(params, ca);
    let svid = move |uris: &[&str]| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = uris.iter().map(|uri| rcgen::SanType::URI((*uri).try_into().unwrap())).collect();
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = rcgen::date_time_ymd(2100, 3, 1);
        let leaf = params.signed_by(&key, &issuer).unwrap();
        TlsIdentity {
            certificate_pem: leaf.pem().into(),
            key_pem: key.serialize_pem().into(),
            client_certificates: None,
        }
    };
    (ca_pem, svid)
}

fn for_workloads(ca_pem: &[u8]) -> TlsIdentity {
    let client_certificates = Some(ClientCertificates {
        demand: CertificateDemand::Require,
        ca_pem: Some(ca_pem.to_vec()),
        svids_of: Some("acme.example".to_owned()),
    });
    TlsIdentity { client_certificates, ..identity("a.example") }
}

#[test]
fn svid_a_client_is_the_workload_of_its_certificate_and_no_other_comes_in() {
    let (ca_pem, svid) = workloads();
    let (foreign_pem, foreign) = workloads();
    let server = start_with(|settings| settings.tls = Some(for_workloads(&ca_pem)));
    let tls13 = &rustls::version::TLS13;
    let (gateway, batch) = (svid(&["spiffe://acme.example/gateway"]), svid(&["spiffe://acme.example/batch"]));
    for (who, id) in [(&gateway, "spiffe://acme.example/gateway"), (&batch, "spiffe://acme.example/batch")] {
        assert!(is_served(&server, &showing(tls13, who, who)));
        let peer = server.seen.peers.lock().unwrap().last().unwrap().clone().unwrap();
        assert_eq!(peer.id().as_str(), id);
        assert!(peer.is_current(4_107_542_400) && !peer.is_current(4_107_542_401), "it ends when its certificate ends");
    }
    let outside = [
        svid(&[]),
        svid(&["spiffe://other.example/gateway"]),
        svid(&["spiffe://acme.example"]),
        svid(&["https://acme.example/gateway"]),
        svid(&["spiffe://acme.example/gateway", "spiffe://acme.example/batch"]),
        foreign(&["spiffe://acme.example/gateway"]),
        identity("gateway"),
    ];
    for who in &outside {
        assert!(!is_served(&server, &showing(tls13, who, who)));
    }
    assert!(!is_served(&server, &showing(tls13, &gateway, &batch)), "a certificate without its key");
    assert!(!is_served(&server, &client(tls13, &[])), "none");
    assert!(!is_served(&server, &showing(&rustls::version::TLS12, &gateway, &gateway)), "TLS 1.2");
    assert_eq!(server.seen.peers.lock().unwrap().len(), 2);
    assert_eq!(connect(&server, &showing(tls13, &gateway, &gateway)).conn.handshake_kind(), Some(HandshakeKind::Full));
    // Other CAs can take their place while it runs; that it is for workloads cannot change.
    let running = server.server.as_ref().unwrap();
    assert!(running.replace_tls(identity("a.example")).is_err());
    running.replace_tls(for_workloads(&foreign_pem)).unwrap();
    assert!(!is_served(&server, &showing(tls13, &gateway, &gateway)));
    assert!(is_served(&server, &showing(tls13, &outside[5], &outside[5])));
}

#[test]
fn svid_a_certificate_makes_no_peer_where_anybody_may_come_in() {
    let (ca_pem, svid) = workloads();
    let gateway = svid(&["spiffe://acme.example/gateway"]);
    for ca in [None, Some(ca_pem.clone())] {
        let server = asking(CertificateDemand::Require, ca);
        assert!(is_served(&server, &showing(&rustls::version::TLS13, &gateway, &gateway)));
        assert_eq!(*server.seen.peers.lock().unwrap(), [None]);
        assert!(server.server.as_ref().unwrap().replace_tls(for_workloads(&ca_pem)).is_err());
    }
    let mut nobody = for_workloads(&ca_pem);
    nobody.client_certificates.as_mut().unwrap().ca_pem = None;
    assert!(nobody.check().is_err(), "no CA, no workloads");
}

#[test]
fn a_new_certificate_is_shown_to_new_connections_only() {
    let server = with_tls();
    let running = server.server.as_ref().unwrap();
    let mut before = connect(&server, &client(&rustls::version::TLS13, &[]));
    get(&mut before);
    running.replace_tls(identity("a.example")).unwrap();
    let mut after = connect(&server, &client(&rustls::version::TLS13, &[]));
    assert_ne!(certificate(&before), certificate(&after));
    get(&mut before);
    get(&mut after);
}

#[test]
fn a_bad_certificate_replaces_nothing() {
    let server = with_tls();
    let running = server.server.as_ref().unwrap();
    let mut wrong_key = identity("a.example");
    wrong_key.key_pem = identity("a.example").key_pem;
    assert!(running.replace_tls(wrong_key).is_err());
    let mut empty = identity("a.example");
    empty.certificate_pem.clear();
    assert!(running.replace_tls(empty).is_err());
    get(&mut connect(&server, &client(&rustls::version::TLS13, &[])));
}

#[test]
fn plain_text_on_the_tls_port_is_refused_and_counted() {
    let server = with_tls();
    let mut raw = server.connect();
    raw.get("/");
    raw.exact(1024);
    server.seen.wait_for("the refusal", |seen| *seen.refusals.lock().unwrap() == [net::Refusal::Handshake]);
    assert_eq!(server.requests(), [""; 0]);
}
