//! Traces and metrics to an OpenTelemetry collector (OTLP over HTTP, protobuf). Off unless configured.
//!
//! Spans are made of audit records, on the audit thread; a thread of its own sends them in batches. Its queue is bounded and
//! what it loses is counted: a collector that is slow, gone or lying holds up nothing.

mod deliver;
mod export;
mod spans;
#[cfg(test)]
mod tests;

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::HeaderName;
use zeroize::Zeroizing;

pub use export::{Otlp, StartError, Stats};

use crate::traces;

/// A header field whose value nobody else should see.
pub type SecretField = (HeaderName, Zeroizing<String>);

/// Where to, as whom, and what. No `Debug`: it holds secrets.
pub struct Settings {
    /// `/v1/traces` and `/v1/metrics` are appended.
    pub endpoint: String,
    /// Fields that the collector asks for.
    pub fields: Vec<SecretField>,
    /// Further roots, PEM.
    pub roots_pem: Option<Vec<u8>>,
    /// Of one export.
    pub timeout: Duration,
    /// `service.name`.
    pub service_name: String,
    pub traces: Option<traces::Settings>,
    /// How often metrics are sent.
    pub metrics: Option<Duration>,
}

impl Settings {
    /// Whether a restart would change anything.
    pub fn is_same(&self, other: &Settings) -> bool {
        let plain = |of: &Settings| {
            (
                of.endpoint.clone(),
                of.roots_pem.clone(),
                of.timeout,
                of.service_name.clone(),
                of.traces.clone(),
                of.metrics,
            )
        };
        let same_field = |(one, other): (&SecretField, &SecretField)| {
            one.0 == other.0 && verify_slices_are_equal(one.1.as_bytes(), other.1.as_bytes()).is_ok()
        };
        plain(self) == plain(other)
            && self.fields.len() == other.fields.len()
            && self.fields.iter().zip(&other.fields).all(same_field)
    }
}
