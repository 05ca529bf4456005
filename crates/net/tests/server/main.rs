//! The server over real sockets: what clients may send, what they get, and what becomes of their connection.
mod http1;
mod http2;
mod lifecycle;
mod raw;
mod slow;
mod streaming;
mod tls;
