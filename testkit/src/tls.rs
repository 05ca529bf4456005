//! Certificates for tests: self-signed, or of a small CA made on the spot.
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Chain and key as PEM.
#[derive(Clone)]
pub struct Identity {
    pub certificate_pem: String,
    pub key_pem: String,
}

/// A CA that signs server certificates.
pub struct Ca {
    pub certificate_pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Ca {
    pub fn new() -> Ca {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "testkit CA");
        let certificate_pem = params.self_signed(&key).unwrap().pem();
        Ca { certificate_pem, issuer: rcgen::Issuer::new(params, key) }
    }

    /// A certificate for these names (DNS names or IP addresses).
    pub fn server(&self, names: &[&str]) -> Identity {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = rcgen::CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() }
    }

    /// An X.509-SVID, or what would be one but for its URIs. The names count for nothing in it.
    pub fn svid(&self, uris: &[&str], names: &[&str]) -> Identity {
        self.svid_until(uris, names, None)
    }

    /// The same, with an end of its own.
    pub fn svid_until(&self, uris: &[&str], names: &[&str], end: Option<std::time::SystemTime>) -> Identity {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        let uris = uris.iter().map(|uri| rcgen::SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        if let Some(end) = end {
            params.not_after = end.into();
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() }
    }
}

/// SHA-256 of the certificate in base64url: what `cnf.x5t#S256` of a token holds that is bound to it (RFC 8705 §3.1).
pub fn sha256(identity: &Identity) -> String {
    let der = CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).expect("a certificate in PEM");
    crate::signing::base64url(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der))
}

impl Default for Ca {
    fn default() -> Ca {
        Ca::new()
    }
}

/// rustls' server side of an identity, HTTP/1.1 only.
pub(crate) fn server_config(identity: &Identity) -> Arc<rustls::ServerConfig> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes())
        .collect::<Result<_, _>>()
        .expect("certificates in PEM");
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).expect("a key in PEM");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a key that fits");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}
