//! Which certificate authorities an https peer may use: those of the system, and those given. It verifies nothing itself.
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::sync::{Arc, OnceLock};

/// The system's roots, read once per process: reading them costs milliseconds.
fn native() -> &'static Arc<RootCertStore> {
    static NATIVE: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    NATIVE.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::debug!(%error, "a system root was passed over");
        }
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(found.certs);
        Arc::new(store)
    })
}

/// The system's roots and the certificates of `pem`.
pub(crate) fn with_extra(pem: Option<&[u8]>) -> Result<Arc<RootCertStore>, String> {
    let Some(pem) = pem else { return Ok(Arc::clone(native())) };
    let mut store = RootCertStore::clone(native());
    add(&mut store, pem)?;
    Ok(Arc::new(store))
}

/// The certificates of `pem` and no others: the bundle of one trust domain.
pub(super) fn only(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    add(&mut store, pem)?;
    Ok(store)
}

fn add(store: &mut RootCertStore, pem: &[u8]) -> Result<(), String> {
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("the roots are no PEM: {error}"))?;
        store.add(certificate).map_err(|error| format!("a root is no usable certificate: {error}"))?;
        count += 1;
    }
    if count == 0 { Err("the roots hold no certificate".into()) } else { Ok(()) }
}
