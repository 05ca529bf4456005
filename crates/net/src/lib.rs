//! The tokio shell: listeners, TLS, HTTP/1 (our own, towards both sides) and HTTP/2 (hyper's), upstream pools, drain. hyper,
//! h2 and rustls types never leave this crate; the `http` crate's do.

pub mod answer;
pub mod body;
pub mod chunked;
pub mod client;
mod client_certificate;
mod connection;
mod date;
pub mod flood;
pub mod guard;
mod head;
mod listener;
mod live;
pub mod preamble;
mod seldom;
pub mod server;
pub mod settings;
mod socket;
mod timer;
mod tls;
pub mod tunnel;
mod unix;
pub mod upstream;
mod worker;

pub use body::{Body, BodyEnd, BodyError, BodySender, End, Recode};
pub use client_certificate::Peer;
pub use seldom::Seldom;
pub use server::{Connection, Refusal, Server, Service};

/// Boxed: on its way to the upstream it goes through a dozen futures, and each would copy its half kilobyte.
pub type Request = Box<http::Request<Body>>;
pub type Response = http::Response<Body>;
