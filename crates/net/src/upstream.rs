//! Upstream pools: one per worker. Forwarding takes the permit by value, so nothing is forwarded without a decision.
//!
//! A request goes out on an idle connection of its target, the most recently used first, or on a new one. A connection is
//! used again only when its last exchange ended cleanly, with nothing behind its answer. A request is sent twice only if
//! that cannot do harm (see [`Pool::forward`]). It never judges who may call whom, and never looks into a body.
use crate::{Request, Response};
use http::uri::PathAndQuery;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

mod balance;
pub(crate) mod connect;
pub(crate) mod endpoint;
pub(crate) mod exchange;
mod fleet;
mod group;
pub(crate) mod http1;
mod latency;
mod message;
mod name;
mod probe;
mod retry;
pub(crate) mod roots;
mod settings;
pub(crate) mod stream;
mod svid;
#[cfg(test)]
pub(crate) mod tests;
mod tries;
mod tunnelled;

pub use balance::Outliers;
pub use fleet::{Fleets, State, Status};
pub use probe::HealthCheck;
pub use retry::Retries;
pub use settings::{Addresses, ClientIdentity, TargetSettings, UpstreamTls};

use fleet::Fleet;
use group::Group;
pub use tunnelled::Opened;

/// Idle connections kept per address and worker.
pub const IDLE_MAX: usize = 64;
/// Addresses of one target.
pub const ADDRESSES_MAX: usize = 64;

/// Where to forward. Made by [`Fleets::target`], once per snapshot; equal targets share connections, and what is known of
/// their endpoints, across snapshots by their key.
pub struct Target {
    settings: TargetSettings,
    tls: Option<Arc<connect::TlsClient>>,
    key: Key,
    /// Absent for one fixed address that nobody asks after: there is nothing to choose and nothing to learn.
    fleet: Option<Arc<Fleet>>,
}

/// Two targets may share connections if and only if this is equal: it covers addresses, protocol, expected identity, roots,
/// our own certificate, and how the endpoints are watched.
type Key = [u8; 32];

/// Put into a request's extensions: waits this long for the head of the answer, in the place of both the target's
/// `first_byte_timeout` and its `request_timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience(pub Duration);

impl Target {
    /// Is the client's address to be told, by a [`Preface`] in the request's extensions?
    pub fn wants_preface(&self) -> bool {
        self.settings.own_preface.is_some()
    }

    /// What is known of its endpoints; `None` where there is one fixed address that nobody asks after.
    pub fn status(&self) -> Option<Status> {
        self.fleet.as_ref().map(|fleet| fleet.status())
    }
}

/// An extension of a request: the bytes that its connection begins with, before TLS. Such a connection carries this request
/// and no other.
#[derive(Debug, Clone)]
pub struct Preface(pub Vec<u8>);

/// An extension of an answer from a fleet, or after a retry: who gave it, and at which try.
#[derive(Debug, Clone)]
pub struct Answered {
    pub address: Arc<str>,
    pub tries: u32,
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
    /// One endpoint of a fleet, or the last of several that were tried, failed so.
    #[error("{error} (from {endpoint})")]
    At { endpoint: Arc<str>, error: Box<ForwardError> },
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
    /// Where connecting fails, up to two further addresses are tried. More is tried again only as [`Retries`] say. Dropping the future, or the answer's body, cancels
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
        if let Some(fleet) = target.fleet.as_ref().filter(|fleet| !fleet.is_known()) {
            Box::pin(fleet.known(target.settings.connect_timeout)).await?;
        }
        let group: Arc<Group> = group::Groups::of(&self.groups, target);
        let mut response = exchange::run(&group, target, request).await?;
        *response.version_mut() = http::Version::HTTP_11;
        if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            return Err(ForwardError::Protocol("it switched protocols unasked".into()));
        }
        Ok(response)
    }

    /// The same for a request that asks for a WebSocket: `Upgrade` and `Connection`, or the extended CONNECT, are added here,
    /// `Sec-WebSocket-*` are the caller's. Sent once, on a connection of its own over HTTP/1.1. An answer that does not
    /// switch is an answer as ever.
    pub async fn open(
        &self,
        permit: trust::policy::Permit,
        target: &Arc<Target>,
        request: Request,
    ) -> Result<Opened, ForwardError> {
        drop(permit);
        self.ask_for_tunnel(target, request).await
    }

    pub(crate) async fn ask_for_tunnel(&self, target: &Arc<Target>, request: Request) -> Result<Opened, ForwardError> {
        if let Some(fleet) = target.fleet.as_ref().filter(|fleet| !fleet.is_known()) {
            Box::pin(fleet.known(target.settings.connect_timeout)).await?;
        }
        let group: Arc<Group> = group::Groups::of(&self.groups, target);
        tunnelled::open(&group, target, request).await
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

/// Can these roots (PEM) be used? `Err` says why not.
pub fn check_roots(pem: &[u8]) -> Result<(), String> {
    roots::only(pem).map(drop)
}

/// At least 0, less than 1, anew each time: to spread what would else happen everywhere at once. Never for secrets.
fn jitter() -> f64 {
    let drawn = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0u8);
    f64::from(u32::try_from(drawn >> 32).unwrap_or(0)) / (f64::from(u32::MAX) + 1.0)
}

/// When a connection that opens now takes its last new request: what happens to all at some age does not happen to all at
/// once.
fn retirement(now: Instant, age: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);
    now + age.min(NEVER).mul_f64(1.0 - jitter() / 10.0)
}

/// Path and query of a request, `/` if it has none.
fn path_and_query(uri: &http::Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}
