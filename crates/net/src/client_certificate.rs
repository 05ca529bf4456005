//! Client certificates: asked for, and the handshake's proof that the client holds the key checked. Without a CA any
//! certificate will do, for it is compared with what an access token is bound to (RFC 8705) and tells nobody's name.
//!
//! Where a CA is named, a certificate must besides come from it. One makes an identity only on a listener that lets nobody in
//! but the workloads of a trust domain: then it is an X.509-SVID of that domain, and a finished handshake makes a [`Peer`].
use crate::seldom::Seldom;
use crate::server::StartError;
use crate::settings::{CertificateDemand, ClientCertificates};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trust::spiffe::SpiffeId;
use trust::svid::{self, SvidError};

/// A caller with a wrong certificate comes again and again: the log says it this often.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// A client that its handshake proved to be this workload. Nothing but a finished handshake makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    id: SpiffeId,
    ends_at: i64,
}

impl Peer {
    /// Of a leaf that the handshake's verifier let in.
    pub(crate) fn of(leaf: &CertificateDer<'_>) -> Option<Peer> {
        Some(Peer { id: svid::leaf_id(leaf).ok()?, ends_at: svid::not_after(leaf).ok()? })
    }

    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// A connection may live longer than the certificate it was made with. `now` in Unix seconds.
    pub fn is_current(&self, now: i64) -> bool {
        now <= self.ends_at
    }
}

pub(crate) fn verifier(
    wanted: &ClientCertificates,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, StartError> {
    let mandatory = wanted.demand == CertificateDemand::Require || wanted.svids_of.is_some();
    let Some(ca_pem) = &wanted.ca_pem else {
        if wanted.svids_of.is_some() {
            return Err(StartError::Tls("no CA is named that the clients' X.509-SVIDs come from".into()));
        }
        return Ok(Arc::new(DangerAnyCertificate { provider: Arc::clone(provider), mandatory }));
    };
    let wrong = |why: String| StartError::Tls(format!("the CA of client certificates: {why}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if mandatory { builder } else { builder.allow_unauthenticated() };
    let chain = builder.build().map_err(|error| wrong(error.to_string()))?;
    match &wanted.svids_of {
        None => Ok(chain),
        Some(domain) => {
            Ok(Arc::new(SvidClients { chain, trust_domain: domain.clone(), said: Seldom::every(SAY_AGAIN) }))
        }
    }
}

/// Why a certificate with a good chain lets nobody in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum NoPeer {
    #[error(transparent)]
    Svid(SvidError),
    #[error("it is `{found}`, which is not of the trust domain `{domain}`")]
    Foreign { found: String, domain: String },
}

/// Lets in who holds an X.509-SVID of one trust domain, from that domain's own CAs.
#[derive(Debug)]
struct SvidClients {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: String,
    said: Seldom,
}

impl SvidClients {
    fn identify(&self, leaf: &CertificateDer<'_>) -> Result<(), NoPeer> {
        let id = svid::leaf_id(leaf).map_err(NoPeer::Svid)?;
        svid::not_after(leaf).map_err(NoPeer::Svid)?;
        if id.trust_domain() == self.trust_domain {
            return Ok(());
        }
        Err(NoPeer::Foreign { found: id.as_str().to_owned(), domain: self.trust_domain.clone() })
    }
}

impl ClientCertVerifier for SvidClients {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    /// The chain first: what an unproved certificate says is worth no look.
    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(leaf, intermediates, now)?;
        self.identify(leaf).map(|()| verified).map_err(|why| {
            if self.said.is_due(Instant::now()) {
                tracing::warn!(%why, "a client showed a certificate of the right CA that is no X.509-SVID of ours; it was not let in");
            }
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Takes every certificate whose key the client proved to hold (`CertificateVerify`), whoever made it, expired or not. What
/// it shows is "the same key as before" and nothing else.
#[derive(Debug)]
struct DangerAnyCertificate {
    provider: Arc<CryptoProvider>,
    mandatory: bool,
}

impl ClientCertVerifier for DangerAnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
