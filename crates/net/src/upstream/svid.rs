//! Is the upstream the workload it should be? Its chain is verified against the trust bundle alone, and its SPIFFE ID has to
//! be exactly the one expected; its DNS names count for nothing. This is where a handshake becomes a verified peer.
use super::roots;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use std::sync::Arc;
use trust::spiffe::SpiffeId;
use trust::svid::{SvidError, leaf_id};

/// Why a certificate with a good chain is not the peer's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum NotThePeer {
    #[error(transparent)]
    Svid(SvidError),
    #[error("it is `{found}`, and `{expected}` was expected")]
    Other { found: String, expected: String },
}

#[derive(Debug)]
pub(super) struct SvidVerifier {
    expected: SpiffeId,
    bundle: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl SvidVerifier {
    pub(super) fn new(expected: SpiffeId, bundle_pem: &[u8], provider: Arc<CryptoProvider>) -> Result<Self, String> {
        Ok(SvidVerifier { expected, bundle: Arc::new(roots::only(bundle_pem)?), provider })
    }

    fn identify(&self, leaf: &CertificateDer<'_>) -> Result<(), NotThePeer> {
        let found = leaf_id(leaf).map_err(NotThePeer::Svid)?;
        if found == self.expected {
            return Ok(());
        }
        let (found, expected) = (found.as_str().to_owned(), self.expected.as_str().to_owned());
        Err(NotThePeer::Other { found, expected })
    }
}

impl ServerCertVerifier for SvidVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.bundle,
            intermediates,
            now,
            algorithms,
        )?;
        let wrong = |why| Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))));
        self.identify(leaf).map(|()| ServerCertVerified::assertion()).map_err(wrong)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
