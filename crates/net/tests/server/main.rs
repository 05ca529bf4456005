//! The server over real sockets: what clients may send, what they get, and what becomes of their connection.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should say so and stop"
)]
mod http1;
mod http2;
mod lifecycle;
mod raw;
mod slow;
mod streaming;
mod tls;
