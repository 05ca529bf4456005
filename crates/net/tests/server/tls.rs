//! TLS towards clients: versions, ALPN, groups, SNI, tickets, a new certificate under live connections.
use crate::raw::{LIMIT, TestServer, identity, start_with};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
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
