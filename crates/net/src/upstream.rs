//! Upstream pools: one per worker. Forwarding takes the permit by value, so nothing is forwarded without a decision.
use crate::{Request, Response};
use std::sync::Arc;
use std::time::Duration;

/// Where to forward. Compiled once per snapshot; equal targets share connections across snapshots by their key.
pub struct Target {
    _private: (),
}

#[derive(Debug, Clone)]
pub struct TargetSettings {
    /// host, port
    pub addresses: Vec<(String, u16)>,
    pub http2: bool,
    /// name to verify, extra roots PEM
    pub tls: Option<(String, Option<Arc<[u8]>>)>,
    pub connect_timeout: Duration,
    pub first_byte_timeout: Duration,
    pub idle_timeout: Duration,
}

impl Target {
    pub fn new(_settings: TargetSettings) -> Result<Target, String> {
        todo!()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("cannot connect to {address}: {why}")]
    Connect { address: String, why: String },
    #[error("the upstream's certificate was not accepted: {0}")]
    Identity(String),
    #[error("no answer within {0:?}")]
    FirstByteTimeout(Duration),
    #[error("the upstream broke off or answered no valid HTTP: {0}")]
    Protocol(String),
    /// The *client's* body failed before the answer began: the fault is the client's.
    #[error("the request's body failed: {0}")]
    RequestBody(crate::BodyError),
}

/// A worker's upstream connections.
pub struct Pool {
    _private: (),
}

impl Pool {
    pub fn new() -> Pool {
        todo!()
    }
    /// `request.uri()` holds path and query only; `Host`/`:authority` is taken from the `Host` field. Hop-by-hop fields
    /// are already removed by the caller. A request on a reused connection that died before any byte of an answer is sent
    /// again once if its method is idempotent and its body empty.
    pub async fn forward(
        &self,
        _permit: trust::policy::Permit,
        _target: &Arc<Target>,
        _request: Request,
    ) -> Result<Response, ForwardError> {
        todo!()
    }
}
impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}
