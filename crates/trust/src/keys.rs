//! The key engine of one issuer (DESIGN: keys of issuers) as a pure machine: events and a clock in, fetches and key sets out.
use crate::jwk::KeySet;
use std::sync::Arc;

/// The keys of one issuer as a data plane sees them.
#[derive(Debug, Clone)]
pub struct IssuerKeys {
    pub set: Arc<KeySet>,
    /// Grows by one with every change of the set.
    pub version: u64,
    /// Unix seconds of the last good answer; `None` before the first.
    pub fetched_at: Option<i64>,
}
