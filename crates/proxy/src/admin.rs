//! The admin address of a data plane: `/metrics`, `/healthz`, `/readyz`, and the public keys of its Txn-Tokens. Read-only; no request here is ever forwarded.

use std::sync::Arc;

use feed::Current;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use net::{Body, Connection, Refusal, Request, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::edge::{JWKS_PATH, published_keys};
use crate::minter::Minter;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the admin address tells.
pub struct Admin {
    pub registry: Arc<Registry>,
    pub current: Current,
    /// Set while the process drains: not ready, still alive.
    pub draining: Arc<std::sync::atomic::AtomicBool>,
    /// Where there is no edge that publishes them, services get the keys here.
    pub minter: Arc<Minter>,
}

impl Admin {
    fn answer(&self, request: &Request) -> Response {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/metrics" => self.metrics(),
            "/healthz" => text(StatusCode::OK, "alive\n"),
            "/readyz" => self.ready(),
            JWKS_PATH => published_keys(&self.minter, request.method()),
            _ => text(StatusCode::NOT_FOUND, "try /metrics, /healthz, /readyz or /.well-known/countersign/jwks.json\n"),
        }
    }

    fn ready(&self) -> Response {
        if self.draining.load(std::sync::atomic::Ordering::Relaxed) {
            return text(StatusCode::SERVICE_UNAVAILABLE, "draining: no new connections are accepted\n");
        }
        match self.current.load() {
            Some(snapshot) => text(StatusCode::OK, format!("ready at epoch {}\n", snapshot.epoch)),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "not ready: no snapshot is loaded yet\n"),
        }
    }

    fn metrics(&self) -> Response {
        let mut out = String::with_capacity(16 * 1024);
        match encode(&mut out, &self.registry) {
            Ok(()) => {
                let mut response = text(StatusCode::OK, out);
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS));
                response
            }
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n"),
        }
    }
}

fn text(status: StatusCode, body: impl Into<bytes::Bytes>) -> Response {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl net::Service for Admin {
    fn call(&self, request: Request, _connection: &Arc<Connection>) -> impl Future<Output = Response> + Send {
        let response = self.answer(&request);
        async move { response }
    }

    fn refused(&self, _refusal: Refusal, _connection: &Connection) {}

    fn panicked(&self, _connection: &Connection) {
        tracing::error!("a panic was caught on the admin address");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn minter() -> Arc<Minter> {
        Arc::new(Minter::new("spiffe://acme.example/edge", 1).unwrap())
    }

    fn check(admin: &Admin, path: &str, expected: u16) {
        let request = Box::new(http::Request::get(path).body(Body::empty()).unwrap());
        assert_eq!(admin.answer(&request).status().as_u16(), expected, "{path}");
    }

    #[test]
    fn ready_only_between_the_first_snapshot_and_the_drain() {
        let draining = Arc::new(AtomicBool::new(false));
        let admin = Admin {
            registry: Arc::default(),
            current: Current::new(),
            draining: Arc::clone(&draining),
            minter: minter(),
        };
        check(&admin, "/healthz", 200);
        check(&admin, "/readyz", 503);
        let (trust_domain, issuers, services) = ("acme.example".into(), vec![], vec![]);
        admin.current.publish(Arc::new(feed::Snapshot { epoch: 1, trust_domain, issuers, services }));
        check(&admin, "/readyz", 200);
        draining.store(true, Ordering::Relaxed);
        check(&admin, "/readyz", 503);
        check(&admin, "/healthz", 200);
    }

    #[test]
    fn only_four_paths_are_answered_and_only_to_readers() {
        let admin =
            Admin { registry: Arc::default(), current: Current::new(), draining: Arc::default(), minter: minter() };
        check(&admin, "/metrics", 200);
        check(&admin, JWKS_PATH, 200);
        check(&admin, "/orders/42", 404);
        let post = Box::new(http::Request::post("/metrics").body(Body::empty()).unwrap());
        assert_eq!(admin.answer(&post).status().as_u16(), 405);
    }
}
