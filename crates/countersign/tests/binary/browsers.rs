//! What browsers and clients are told before they may use a service: CORS, and where to get tokens.
use serde_json::json;

use crate::serving::{Serving, Setup};
use testkit::client::{self, Response};
use testkit::issuer::Issuer;
use testkit::upstream::Upstream;

const APP: &str = "https://app.acme.example";

struct World {
    issuer: Issuer,
    upstream: Upstream,
    serving: Serving,
}

fn world(more: &str) -> World {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let mut setup = Setup::new(&issuer.url(), &upstream.url());
    setup.services = vec![("orders".into(), crate::serving::orders(&upstream.url()) + more)];
    let serving = setup.start();
    World { issuer, upstream, serving }
}

impl World {
    fn preflight(&self, origin: &str, method: &str) -> Response {
        let fields = [
            ("host", "shop.acme.example"),
            ("origin", origin),
            ("access-control-request-method", method),
            ("access-control-request-headers", "authorization"),
        ];
        client::request(self.serving.edge, "OPTIONS", "/orders/1", &fields, "")
    }
}

#[test]
fn flow_77_a_preflight_is_answered_without_a_token_and_never_reaches_the_service() {
    let world = world(&format!("cors: {{ origins: \"{APP}\", credentials: true, expose: x-total }}\n"));
    let answer = world.preflight(APP, "GET");
    assert_eq!(answer.status, 204, "{}", answer.text());
    assert_eq!(answer.field("access-control-allow-origin"), Some(APP));
    assert!(answer.field("access-control-allow-headers").unwrap().contains("authorization"));
    assert_eq!(world.serving.record(&answer)["decision"], "preflight");
    for (origin, method) in [("https://evil.example", "GET"), (APP, "TRACE")] {
        let answer = world.preflight(origin, method);
        world.serving.expect(&answer, 403, "cors_refused");
    }
    assert_eq!(world.preflight("https://evil.example", "GET").field("access-control-allow-origin"), None);
    assert_eq!(world.upstream.count(), 0);
    // A question without its method is a request like any other.
    let fields = [("host", "shop.acme.example"), ("origin", APP)];
    world.serving.expect(
        &client::request(world.serving.edge, "OPTIONS", "/orders/1", &fields, ""),
        401,
        "token_missing",
    );
}

#[test]
fn scripts_of_listed_origins_may_read_answers_and_refusals() {
    let world = world(&format!("cors: {{ origins: \"{APP}\", credentials: true, expose: x-total }}\n"));
    let token = world.issuer.token("ana", "acme", &json!({ "groups": ["support"] }));
    for (token, status) in [(Some(token.as_str()), 200), (None, 401)] {
        let answer = world.serving.get_with("/orders/1", token, &[("origin", APP)]);
        assert_eq!(answer.status, status);
        assert_eq!(answer.field("access-control-allow-origin"), Some(APP));
        assert_eq!(answer.field("access-control-allow-credentials"), Some("true"));
        assert!(answer.field("access-control-expose-headers").unwrap().contains("x-total"));
        let answer = world.serving.get_with("/orders/1", token, &[("origin", "https://evil.example")]);
        assert_eq!((answer.status, answer.field("access-control-allow-origin")), (status, None));
        assert_eq!(answer.field("vary"), Some("Origin"));
    }
}

#[test]
fn without_cors_the_service_answers_for_itself() {
    let world = world("");
    let answer = world.preflight(APP, "GET");
    world.serving.expect(&answer, 401, "token_missing");
    let answer = world.serving.get_with("/public/x", None, &[("origin", APP)]);
    assert_eq!((answer.status, answer.field("vary"), answer.field("access-control-allow-origin")), (200, None, None));
}

#[test]
fn refusals_point_to_where_tokens_come_from() {
    let world = world("resource_metadata: { resource: https://shop.acme.example/orders, scopes: [orders.read] }\n");
    let refused = world.serving.get("/orders/1", None);
    let challenge = refused.field("www-authenticate").unwrap();
    let url = "https://shop.acme.example/.well-known/oauth-protected-resource/orders";
    assert!(challenge.contains(&format!("resource_metadata=\"{url}\"")), "{challenge}");
    let answer = world.serving.get("/.well-known/oauth-protected-resource/orders", None);
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("application/json")));
    let document = answer.json();
    assert_eq!(document["resource"], "https://shop.acme.example/orders");
    assert_eq!(document["authorization_servers"], json!([world.issuer.url()]));
    assert_eq!(document["scopes_supported"], json!(["orders.read"]));
    assert_eq!(document["bearer_methods_supported"], json!(["header"]));
    // Elsewhere there is none, and the path is the service's own.
    let fields = [("host", "other.acme.example")];
    let other = client::get(world.serving.edge, "/.well-known/oauth-protected-resource/orders", &fields);
    world.serving.expect(&other, 401, "token_missing");
    assert_eq!(world.upstream.count(), 0);
}
