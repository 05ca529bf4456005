//! Upstream pools: one per worker. Forwarding takes the permit by value, so nothing is forwarded without a decision.
//!
//! A request goes out on an idle connection of its target, the most recently used first, or on a new one. A connection is
//! used again only when its last exchange ended cleanly: the HTTP library says so, not we. A request is sent twice only if
//! that cannot do harm (see [`Pool::forward`]). It never judges who may call whom, and never looks into a body.
use crate::{Request, Response};
use http::uri::PathAndQuery;
use std::sync::Arc;
use std::time::Duration;

pub(crate) mod connect;
mod endpoint;
mod exchange;
mod group;
mod name;
pub(crate) mod roots;
pub(crate) mod stream;
#[cfg(test)]
pub(crate) mod tests;

use group::Group;

/// Idle connections kept per address and worker.
pub const IDLE_MAX: usize = 64;
/// Addresses of one target.
pub const ADDRESSES_MAX: usize = 64;

/// Where to forward. Compiled once per snapshot; equal targets share connections across snapshots by their key.
pub struct Target {
    settings: TargetSettings,
    tls: Option<connect::TlsClient>,
    key: Key,
}

/// Two targets may share connections if and only if this is equal: it covers addresses, protocol, name and roots.
type Key = [u8; 32];

#[derive(Debug, Clone)]
pub struct TargetSettings {
    /// host, port. Names are resolved at each connect, and once at a time. At most [`ADDRESSES_MAX`].
    pub addresses: Vec<(String, u16)>,
    /// HTTP/2: by ALPN over TLS, with prior knowledge without. No fall back to HTTP/1.1.
    pub http2: bool,
    /// name to verify, extra roots PEM
    pub tls: Option<(String, Option<Arc<[u8]>>)>,
    /// Resolving, connecting and the TLS handshake together, per address.
    pub connect_timeout: Duration,
    /// From the end of the request to the head of the answer. While a body is being sent the wait begins anew whenever the
    /// upstream takes a part of it or we wait for the client; it then ends after one to two times this long.
    pub first_byte_timeout: Duration,
    /// From the call to the head of the answer: resolving, connecting, sending and every repetition together.
    pub request_timeout: Duration,
    /// An unused connection is closed after this long (checked every second).
    pub idle_timeout: Duration,
}

/// Put into a request's extensions: waits this long for the head of the answer, in the place of both the target's
/// `first_byte_timeout` and its `request_timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience(pub Duration);

impl Target {
    /// `Err` says what is wrong with the settings, in words for the config's author.
    pub fn new(settings: TargetSettings) -> Result<Target, String> {
        if settings.addresses.is_empty() || settings.addresses.len() > ADDRESSES_MAX {
            return Err(format!("an upstream has 1 to {ADDRESSES_MAX} addresses"));
        }
        let tls = match &settings.tls {
            Some((name, roots)) => {
                let alpn: &[u8] = if settings.http2 { b"h2" } else { b"http/1.1" };
                Some(connect::TlsClient::new(name, roots.as_deref(), alpn)?)
            }
            None => None,
        };
        let key = key(&settings);
        Ok(Target { settings, tls, key })
    }
}

/// Every field ends with its length or stands alone, so that no two settings read alike.
fn key(settings: &TargetSettings) -> Key {
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut part = |bytes: &[u8]| {
        hash.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(bytes);
    };
    for (host, port) in &settings.addresses {
        part(host.as_bytes());
        part(&port.to_be_bytes());
    }
    part(&[u8::from(settings.http2), u8::from(settings.tls.is_some())]);
    if let Some((name, roots)) = &settings.tls {
        part(name.as_bytes());
        part(roots.as_deref().unwrap_or_default());
    }
    part(&settings.idle_timeout.as_nanos().to_be_bytes());
    let mut key = Key::default();
    for (to, from) in key.iter_mut().zip(hash.finish().as_ref()) {
        *to = *from;
    }
    key
}

#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("cannot connect to {address}: {why}")]
    Connect { address: String, why: String },
    #[error("the upstream's certificate was not accepted: {0}")]
    Identity(String),
    #[error("no answer within {0:?}")]
    FirstByteTimeout(Duration),
    #[error("no answer within {0:?}, connecting and repetitions included")]
    RequestTimeout(Duration),
    #[error("the upstream broke off or answered no valid HTTP: {0}")]
    Protocol(String),
    /// The *client's* body failed before the answer began: the fault is the client's.
    #[error("the request's body failed: {0}")]
    RequestBody(crate::BodyError),
}

/// A worker's upstream connections. Dropping it closes the idle ones; the others end with their exchange.
pub struct Pool {
    groups: Arc<group::Groups>,
}

impl Pool {
    pub fn new() -> Pool {
        Pool { groups: Arc::default() }
    }

    /// `request.uri()` holds path and query only; `Host`/`:authority` is taken from the `Host` field. Hop-by-hop fields
    /// are already removed by the caller. A request on a reused connection that died before any byte of an answer is sent
    /// again once if its method is idempotent and its body empty; one that was never written is sent again whatever it is.
    /// Where connecting fails, up to two further addresses are tried. Dropping the future, or the answer's body, cancels
    /// the exchange upstream. The answer's body counts nothing and limits nothing: that is for the caller.
    pub fn forward(
        &self,
        permit: trust::policy::Permit,
        target: &Arc<Target>,
        request: Request,
    ) -> impl Future<Output = Result<Response, ForwardError>> + Send {
        // What is forwarded was decided on; the permit is spent here.
        drop(permit);
        self.send(target, request)
    }

    async fn send(&self, target: &Arc<Target>, mut request: Request) -> Result<Response, ForwardError> {
        // Our own server asks the client to go on when the body is first polled.
        request.headers_mut().remove(http::header::EXPECT);
        exchange::fit(&mut request, target)?;
        let group: Arc<Group> = group::Groups::of(&self.groups, target);
        let mut response = exchange::run(&group, target, request).await?;
        *response.version_mut() = http::Version::HTTP_11;
        if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            return Err(ForwardError::Protocol("it switched protocols unasked".into()));
        }
        Ok(response)
    }

    /// Connections not in use, for tests and metrics.
    pub fn idle_connections(&self) -> usize {
        self.groups.idle_connections()
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

/// Path and query of a request, `/` if it has none.
fn path_and_query(uri: &http::Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}
