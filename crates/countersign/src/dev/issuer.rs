//! The demo's OpenID provider: discovery and keys over HTTP, tokens only over the operator's socket. For `countersign dev`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, StatusCode, header};
use net::{Body, Connection, Refusal, Request, Response};
use serde_json::{Value, json};

pub const AUDIENCE: &str = "countersign-demo";
const KID: &str = "demo-1";
const TOKEN_LIFE_S: i64 = 3600;

/// Who can be somebody in the demo, and in which groups.
const PEOPLE: [(&str, &[&str]); 2] = [("ana", &["support"]), ("bo", &["finance"])];
const AGENT: &str = "report-bot";

/// The demo issuer: one ES256 key, made anew at each start.
pub struct Issuer {
    url: String,
    key: EcdsaKeyPair,
}

impl Issuer {
    pub fn new(address: SocketAddr) -> anyhow::Result<Issuer> {
        let random = SystemRandom::new();
        let failed = |_| anyhow!("cannot make the demo issuer's key");
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(failed)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref())
            .context("the demo issuer's key")?;
        Ok(Issuer { url: format!("http://{address}"), key })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// An access token (RFC 9068) for one of the demo's people or its agent; with `agent`, for the agent acting for `name`.
    pub fn token(&self, name: &str, agent: Option<&str>, now: i64) -> anyhow::Result<String> {
        let known = || {
            let names: Vec<&str> = PEOPLE.iter().map(|(name, _)| *name).chain([AGENT]).collect();
            names.join(", ")
        };
        let people = BTreeMap::from(PEOPLE);
        let (groups, client) = match (name, people.get(name)) {
            (AGENT, _) => (&[][..], AGENT),
            (_, Some(groups)) => (*groups, "demo-cli"),
            _ => return Err(anyhow!("nobody is called `{name}` in the demo: try {}", known())),
        };
        let (client, act) = match agent {
            None => (client, Value::Null),
            Some(AGENT) if people.contains_key(name) => (AGENT, json!({ "sub": AGENT })),
            Some(other) => {
                return Err(anyhow!("`{other}` is no agent that can act for `{name}`: the demo has {AGENT}"));
            }
        };
        let mut claims = serde_json::Map::new();
        for (name, value) in [
            ("iss", json!(self.url)),
            ("sub", json!(name)),
            ("aud", json!(AUDIENCE)),
            ("client_id", json!(client)),
            ("groups", json!(groups)),
            ("iat", json!(now)),
            ("exp", json!(now + TOKEN_LIFE_S)),
            ("jti", json!(uuid::Uuid::now_v7().to_string())),
            ("scope", json!("orders")),
            ("act", act),
        ] {
            if !value.is_null() {
                claims.insert(name.to_owned(), value);
            }
        }
        let claims = Value::Object(claims);
        self.sign(&claims)
    }

    fn sign(&self, claims: &Value) -> anyhow::Result<String> {
        let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": KID });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_| anyhow!("cannot sign"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }

    fn jwks(&self) -> Value {
        // An uncompressed point: 0x04, 32 bytes x, 32 bytes y.
        let point = self.key.public_key().as_ref();
        let part = |range| URL_SAFE_NO_PAD.encode(point.get(range).unwrap_or_default());
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KID, "x": part(1..33), "y": part(33..65) }] })
    }

    fn discovery(&self) -> Value {
        json!({
            "issuer": self.url,
            "jwks_uri": format!("{}/jwks", self.url),
            "id_token_signing_alg_values_supported": ["ES256"],
            "subject_types_supported": ["public"],
            "response_types_supported": ["code"],
        })
    }
}

/// Serves the issuer's two documents. The key arrives once the listener's address, and so its name, is known.
pub struct Documents(pub Arc<std::sync::OnceLock<Issuer>>);

impl net::Service for Documents {
    fn call(&self, request: Request, _connection: &Arc<Connection>) -> impl Future<Output = Response> + Send {
        let document = self.0.get().and_then(|issuer| match request.uri().path() {
            "/.well-known/openid-configuration" => Some(issuer.discovery()),
            "/jwks" => Some(issuer.jwks()),
            _ => None,
        });
        let mut response = Response::new(Body::empty());
        match document {
            Some(document) => {
                *response.body_mut() = Body::full(document.to_string());
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
            }
            None => *response.status_mut() = StatusCode::NOT_FOUND,
        }
        async move { response }
    }

    fn refused(&self, _refusal: Refusal, _connection: &Connection) {}

    fn panicked(&self, _connection: &Connection) {}
}
