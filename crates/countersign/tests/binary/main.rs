//! The binary as its users meet it: real processes, real sockets, real files. Nothing here reaches into its parts.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod access_log;
mod audit;
mod authz;
mod authz_caddy;
mod authz_envoy;
mod authz_nginx;
mod authz_questions;
mod browsers;
mod check;
mod dashboard;
mod dev;
mod doctor;
mod fleet;
mod grpc;
mod hostile_fields;
mod hostile_http;
mod hostile_rules;
mod hostile_tokens;
mod hostile_upstream;
mod in_front;
mod introspection;
mod keys_of_issuers;
mod lifecycle;
mod overage;
mod possession;
mod published;
mod review;
mod serving;
mod step_up;
mod streaming;
mod telemetry;
mod token_endpoint;
mod token_endpoint_hostile;
mod top;
mod websocket;
mod websocket_h2;
