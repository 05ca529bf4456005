//! What a target is told: where its endpoints are, how to reach them, what to expect of them. And the key that says which
//! targets are the same. Nothing here is opened or resolved.
use super::{ADDRESSES_MAX, HealthCheck, Key, Outliers, Retries};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct TargetSettings {
    pub addresses: Addresses,
    /// HTTP/2: by ALPN over TLS, with prior knowledge without. No fall back to HTTP/1.1.
    pub http2: bool,
    pub tls: Option<UpstreamTls>,
    /// Resolving, connecting and the TLS handshake together, per address.
    pub connect_timeout: Duration,
    /// From the end of the request to the head of the answer. While a body is being sent the wait begins anew whenever the
    /// upstream takes a part of it or we wait for the client; it then ends after one to two times this long.
    pub first_byte_timeout: Duration,
    /// From the call to the head of the answer: resolving, connecting, sending and every repetition together.
    pub request_timeout: Duration,
    /// An unused connection is closed after this long (checked every second).
    pub idle_timeout: Duration,
    /// A connection takes no new request once it is this old, or up to a tenth younger, so that not all end together
    /// (checked every second).
    pub max_age: Duration,
    /// For more than one address, and for names that may have more.
    pub outliers: Outliers,
    pub health: Option<HealthCheck>,
    /// Boxed, as nearly no target has any.
    pub retries: Option<Box<Retries>>,
    /// The endpoints want a [`super::Preface`]; this is the one for connections of our own.
    pub own_preface: Option<Vec<u8>>,
}

/// Where the endpoints are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addresses {
    /// host, port. Names are resolved at each connect, and once at a time. At most [`ADDRESSES_MAX`].
    Listed(Vec<(String, u16)>),
    /// Every address of this name is an endpoint. It is looked up anew after each `refresh`.
    Dns { host: String, port: u16, refresh: Duration },
}

/// Whom to expect at the other end, and who we are.
#[derive(Debug, Clone)]
pub struct UpstreamTls {
    /// The name to send, and to verify unless there is a `spiffe_id`.
    pub server_name: String,
    /// The workload to expect: exactly this one, vouched for by `roots_pem` alone.
    pub spiffe_id: Option<String>,
    /// PEM. With a name: besides the system's roots.
    pub roots_pem: Option<Arc<[u8]>>,
    /// Our own certificate, for upstreams that ask for one.
    pub identity: Option<Arc<ClientIdentity>>,
}

/// Certificate chain and key as PEM. The key is never printed or copied, and wiped in the end.
pub struct ClientIdentity {
    pub certificate_pem: Vec<u8>,
    pub key_pem: zeroize::Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientIdentity")
    }
}

impl UpstreamTls {
    /// A peer known by its name.
    pub fn named(name: &str, roots_pem: Option<Arc<[u8]>>) -> UpstreamTls {
        UpstreamTls { server_name: name.to_owned(), spiffe_id: None, roots_pem, identity: None }
    }
}

impl TargetSettings {
    /// `Err` says what is wrong, in words for the config's author.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Addresses::Listed(addresses) = &self.addresses
            && (addresses.is_empty() || addresses.len() > ADDRESSES_MAX)
        {
            return Err(format!("an upstream has 1 to {ADDRESSES_MAX} addresses"));
        }
        if self.http2 && self.own_preface.is_some() {
            return Err("a connection with a PROXY header carries one request, and HTTP/2 is for many".into());
        }
        Ok(())
    }

    /// Is there more than one endpoint to choose from, or anything to find out about them?
    pub(super) fn is_fleet(&self) -> bool {
        let several = match &self.addresses {
            Addresses::Listed(addresses) => addresses.len() > 1,
            Addresses::Dns { .. } => true,
        };
        several || self.health.is_some() || self.retries.is_some()
    }

    /// Every field ends with its length or stands alone, so that no two settings read alike.
    pub(super) fn key(&self) -> Key {
        let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        let mut part = |bytes: &[u8]| {
            hash.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(bytes);
        };
        // Closed types of names and numbers: their debug form tells all of them apart.
        part(format!("{:?}", (&self.addresses, self.http2, self.idle_timeout, self.max_age)).as_bytes());
        part(format!("{:?}", (&self.outliers, &self.health, &self.retries, &self.own_preface)).as_bytes());
        if let Some(tls) = &self.tls {
            part(format!("{:?}", (&tls.server_name, &tls.spiffe_id)).as_bytes());
            part(tls.roots_pem.as_deref().unwrap_or_default());
            if let Some(identity) = &tls.identity {
                part(&identity.certificate_pem);
                part(&identity.key_pem);
            }
        }
        let mut key = Key::default();
        for (to, from) in key.iter_mut().zip(hash.finish().as_ref()) {
            *to = *from;
        }
        key
    }
}
