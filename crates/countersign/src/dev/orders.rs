//! The demo service behind the edge: it verifies the Txn-Token it gets, as any service can, and says who called it.

use std::sync::{Arc, OnceLock};

use http::{HeaderValue, StatusCode, header};
use net::{Body, Connection, Refusal, Request, Response};
use proxy::clock::UnixMs;
use proxy::minter::Minter;
use serde_json::{Value, json};
use trust::txn::Verifier;

const WELCOME: &str = include_str!("welcome.html");

/// Answers every path; the rules in front of it decide who gets here.
pub struct Orders {
    /// Where the edge's public keys are; set once the edge runs.
    pub minter: Arc<OnceLock<Arc<Minter>>>,
}

impl Orders {
    fn answer(&self, request: &Request) -> Response {
        if request.uri().path() == "/" {
            return typed(StatusCode::OK, "text/html; charset=utf-8", welcome(request));
        }
        let identity = match request.headers().get("txn-token") {
            Some(token) => self.identity(token),
            None => json!(null),
        };
        let fields: Vec<&str> = request.headers().keys().map(http::HeaderName::as_str).collect();
        let body = json!({
            "service": "orders",
            "method": request.method().as_str(),
            "path": request.uri().path(),
            "called_by": identity,
            "fields_seen": fields,
        });
        typed(StatusCode::OK, "application/json", format!("{body:#}\n"))
    }

    fn identity(&self, token: &HeaderValue) -> Value {
        let (Some(minter), Ok(token)) = (self.minter.get(), token.to_str()) else {
            return json!({ "refused": "the Txn-Token cannot be checked yet" });
        };
        let may_mint = |minter: &str| minter.ends_with("/edge");
        let verifier = Verifier::new("demo.example", &minter.published(), may_mint);
        match verifier.verify(token, UnixMs::now().seconds()) {
            Ok(verified) => Value::Object(verified.claims().clone()),
            Err(refused) => json!({ "refused": refused.to_string() }),
        }
    }
}

/// The page names the address it was opened by, where that is plain text.
fn welcome(request: &Request) -> String {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let plain = |host: &&str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    WELCOME.replace("EDGE_HOST", host.filter(plain).unwrap_or("localhost:8080"))
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

impl net::Service for Orders {
    fn call(&self, request: Request, _connection: &Arc<Connection>) -> impl Future<Output = Response> + Send {
        let response = self.answer(&request);
        async move { response }
    }

    fn refused(&self, _refusal: Refusal, _connection: &Connection) {}

    fn panicked(&self, _connection: &Connection) {}
}
