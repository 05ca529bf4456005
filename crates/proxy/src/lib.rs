//! The data plane: the edge, the authz role, the token endpoint, its token cache, its minter, its audit sink, its access
//! log, its traces, its metrics and its admin endpoint.
//!
//! It never fetches keys, reads configuration files or decides by itself: control publishes snapshots, `trust` judges,
//! `net` moves the bytes.

pub mod access_log;
pub mod admin;
pub mod answer;
pub mod audit;
pub mod authz;
pub mod clock;
mod cors;
pub mod edge;
pub mod forwarded;
pub mod ids;
pub mod judge;
pub mod metrics;
pub mod minter;
pub mod otlp;
pub mod token_cache;
pub mod token_endpoint;
pub mod traces;
pub mod upstreams;
pub mod view;
