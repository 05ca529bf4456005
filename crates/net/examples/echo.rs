//! The server alone with a small service, to point h2spec, h2load and nc at:
//! `cargo run -p net --example echo -- 127.0.0.1:8080 [certificate.pem key.pem]`. It forwards nothing.
use net::settings::{Limits, ServerSettings, Timeouts, TlsIdentity};
use net::{Body, Connection, Refusal, Request, Response, Server, Service};
use std::sync::Arc;
use std::time::Duration;

struct Echo {
    kilobyte: bytes::Bytes,
}

impl Service for Echo {
    async fn call(&self, request: Request, _connection: &Arc<Connection>) -> Response {
        match request.method() {
            &http::Method::POST | &http::Method::PUT => Response::new(request.into_body()),
            _ => Response::new(Body::full(self.kilobyte.clone())),
        }
    }
    fn refused(&self, refusal: Refusal, connection: &Connection) {
        tracing::info!(?refusal, remote = %connection.remote, "refused");
    }
    fn panicked(&self, _connection: &Connection) {}
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = arguments.first().map_or("127.0.0.1:8080", String::as_str).parse()?;
    let tls = match (arguments.get(1), arguments.get(2)) {
        (Some(certificate), Some(key)) => Some(TlsIdentity {
            certificate_pem: std::fs::read(certificate)?,
            key_pem: std::fs::read(key)?,
            client_certificates: None,
        }),
        _ => None,
    };
    let server = Server::start(
        ServerSettings {
            listen: vec![address],
            tls,
            preamble: None,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            workers: 1,
        },
        |_| Echo { kilobyte: bytes::Bytes::from(vec![b'x'; 1024]) },
    )?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::signal::ctrl_c())?;
    server.drain(Duration::from_secs(10));
    Ok(())
}
