//! Bytes to events and back: one pure module per protocol. No socket, file, clock or random source, and no judgement of
//! who may do what.

pub mod ext_authz;
pub mod forwarded;
pub mod grpc;
pub mod hop;
pub mod identity;
pub mod network;
pub mod openmetrics;
pub mod otlp;
mod protobuf;
pub mod proxy_protocol;
pub mod question;
pub mod token_exchange;
pub mod trace_context;
pub mod websocket;
