//! One request through the edge while its configuration changes under it. No listener, no issuer: keys come when they are
//! asked for.
use super::*;
use feed::{Current, Expose, Issuer, KeyDemand, KeyDemandOutcome, Service, Snapshot, Upstream};
use net::Service as _;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use testkit::signing::{Kind, SigningKey};
use trust::issuer::{Profile, Settings};
use trust::jwk::KeySet;
use trust::keys::IssuerKeys;
use trust::path::{Pattern, Tolerance};
use trust::policy::{RuleSource, ServicePolicy, ServiceSource};

use crate::audit::tests::on_a_full_disk;
use crate::judge::Proofs;
use crate::metrics::Metrics;
use crate::minter::Minter;
use crate::view::Views;

const ISS: &str = "https://id.acme.example";

/// A service whose upstream nobody answers at: what gets that far is 502.
fn service(strict: bool) -> Service {
    let rule = RuleSource {
        name: "all".into(),
        who: vec!["signed-in".into()],
        can: vec!["GET /**".into()],
        ..RuleSource::default()
    };
    let source = ServiceSource {
        service: "orders".into(),
        trust_domain: "acme.example".into(),
        rules: vec![rule],
        ..ServiceSource::default()
    };
    let second = Duration::from_secs(1);
    Service {
        name: "orders".into(),
        upstream: Some(Upstream::plain(feed::Endpoints::Listed(vec![feed::Address {
            host: "127.0.0.1".into(),
            port: 1,
        }]))),
        expose: vec![Expose { host: "*".into(), path: Pattern::parse("/**").unwrap() }],
        policy: ServicePolicy::compile(&source).unwrap_or_else(|problems| panic!("{problems:?}")),
        tolerance: Tolerance::default(),
        body_bytes_max: 0,
        request_timeout: second * 10,
        strict,
        authorization: Authorization::Strip,
        sender_constrained: trust::issuer::SenderConstrained::Optional,
        txn_reuse: Duration::ZERO,
        cors: None,
        resource: None,
        websocket: None,
    }
}

fn snapshot(epoch: u64, profile: &Arc<Profile>, published: &SigningKey, strict: bool) -> Arc<Snapshot> {
    let (set, _) = KeySet::parse(json!({ "keys": [published.jwk()] }).to_string().as_bytes()).unwrap();
    let keys = IssuerKeys { set: Arc::new(set), version: epoch, fetched_at: Some(UnixMs::now().seconds()) };
    Arc::new(Snapshot {
        epoch,
        trust_domain: "acme.example".into(),
        issuers: vec![Issuer { profile: Arc::clone(profile), keys }],
        services: vec![Arc::new(service(strict))],
    })
}

/// Publishes the next snapshot when it is asked for a key.
struct Next(Current, Arc<Snapshot>);

impl Next {
    fn publish(&self) -> Pin<Box<dyn Future<Output = KeyDemandOutcome> + Send + '_>> {
        assert!(self.0.publish(Arc::clone(&self.1)));
        Box::pin(std::future::ready(KeyDemandOutcome::Refreshed))
    }
}

impl KeyDemand for Next {
    fn unknown_kid<'a>(
        &'a self,
        _: &'a str,
        _: Option<&'a str>,
    ) -> Pin<Box<dyn Future<Output = KeyDemandOutcome> + Send + 'a>> {
        self.publish()
    }

    fn signature_bad<'a>(
        &'a self,
        _: &'a str,
        _: Option<&'a str>,
    ) -> Pin<Box<dyn Future<Output = KeyDemandOutcome> + Send + 'a>> {
        self.publish()
    }
}

/// No issuer is asked about tokens here.
struct Nobody;

impl feed::Introspect for Nobody {
    fn introspect<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: [u8; 32],
    ) -> Pin<Box<dyn Future<Output = feed::IntrospectionOutcome> + Send + 'a>> {
        Box::pin(std::future::ready(feed::IntrospectionOutcome::Unavailable("nobody to ask".into())))
    }
}

impl feed::Groups for Nobody {
    fn groups<'a>(
        &'a self,
        _: &'a str,
        _: &'a trust::token::Overage,
    ) -> Pin<Box<dyn Future<Output = feed::GroupsOutcome> + Send + 'a>> {
        Box::pin(std::future::ready(feed::GroupsOutcome::Unknown("nobody to ask".into())))
    }
}

/// The answer to a request whose token needs a key that comes with another snapshot: `before` and after `audit: strict`.
async fn answer_across(before: bool, after: bool) -> (u16, String) {
    let folder = tempfile::tempdir().unwrap();
    let settings =
        Settings { name: "id".into(), issuer: Some(ISS.into()), audience: vec!["acme".into()], ..Settings::default() };
    let profile = Arc::new(Profile::new(settings).unwrap_or_else(|problems| panic!("{problems:?}")));
    let (old, new) = (SigningKey::generate(Kind::Es256, "old"), SigningKey::generate(Kind::Es256, "new"));
    let current = Current::new();
    assert!(current.publish(snapshot(1, &profile, &old, before)));
    let metrics = Metrics::register(&mut Registry::default());
    let edge = Edge::new(Arc::new(Shared {
        views: Views::new(current.clone(), metrics.clone()),
        metrics,
        audit: on_a_full_disk(folder.path()),
        access_log: None,
        traces: None,
        refuse_unrecorded: AtomicBool::new(false),
        minter: Arc::new(Minter::new("spiffe://acme.example/edge", UnixMs::now().seconds()).unwrap()),
        introspect: Arc::new(Nobody),
        groups: Arc::new(Nobody),
        proofs: Proofs::new().unwrap(),
        key_demand: Arc::new(Next(current, snapshot(2, &profile, &new, after))),
    }));
    let now = UnixMs::now().seconds();
    let claims = json!({
        "iss": ISS, "sub": "ana", "aud": "acme", "client_id": "web", "jti": "1", "iat": now, "exp": now + 300,
    });
    let mut request = Box::new(http::Request::new(Body::empty()));
    *request.uri_mut() = Uri::from_static("/orders/1");
    request.headers_mut().insert(HOST, HeaderValue::from_static("shop.acme.example"));
    let bearer = format!("Bearer {}", new.sign(&json!({}), &claims));
    request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(&bearer).unwrap());
    let remote = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let connection = Arc::new(Connection { id: 1, local: remote, remote, tls: None, kept: Default::default() });
    let response = edge.call(request, &connection).await;
    let status = response.status().as_u16();
    let body = response.into_body().read_all(65_536).await.unwrap();
    let document: Value = serde_json::from_slice(&body).unwrap();
    (status, document["detail"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a10_the_service_finally_routed_to_says_whether_a_record_is_needed() {
    let check = async |before: bool, after: bool, expected: Reason| {
        let (status, detail) = answer_across(before, after).await;
        let public = expected.public();
        assert_eq!(
            (status, detail.as_str()),
            (public.status, public.detail),
            "strict before: {before}, after: {after}"
        );
    };
    check(false, false, Reason::UpstreamConnect).await;
    check(false, true, Reason::AuditUnavailable).await;
    check(true, false, Reason::UpstreamConnect).await;
    check(true, true, Reason::AuditUnavailable).await;
}
