//! The tokio shell: listeners, TLS, the HTTP engine, upstream pools, drain. hyper, h2 and rustls types never leave this
//! crate; the `http` crate's do.

pub mod body;
pub mod client;
pub mod server;
pub mod settings;
pub mod upstream;

pub use body::{Body, BodyEnd, BodyError, End};
pub use server::{Connection, Refusal, Server, Service};

pub type Request = http::Request<Body>;
pub type Response = http::Response<Body>;
