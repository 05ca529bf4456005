//! The key engine of one issuer (DESIGN: keys of issuers) as a pure machine: events and a clock in, fetches and key sets out.
//!
//! It never fetches, sleeps, logs or draws randomness: its caller does, as [`Effects`] say. A bad answer never takes the
//! place of a good one, and nobody who sends tokens can make it fetch more often than its budget allows.
mod budget;
mod freshness;
mod machine;
mod ring;
#[cfg(test)]
mod tests;
mod words;

use crate::jwk::KeySet;
use std::sync::Arc;

pub use freshness::Freshness;
pub use machine::Machine;
pub use ring::KeyReport;
pub use words::{
    Answer, DOCUMENT_BYTES_MAX, Effects, Event, Fetch, KID_BYTES_MAX, Limits, Notice, Now, Outcome, Report,
    RestoreError, Restored, State,
};

/// The keys of one issuer as a data plane sees them.
#[derive(Debug, Clone)]
pub struct IssuerKeys {
    pub set: Arc<KeySet>,
    /// Grows by one with every change of the set.
    pub version: u64,
    /// Unix seconds of the last good answer; `None` before the first.
    pub fetched_at: Option<i64>,
}
