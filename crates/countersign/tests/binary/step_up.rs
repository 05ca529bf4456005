//! Rules that need the issuer's word for a stronger sign-in, through the running binary: asked for in the words of RFC 9470,
//! and in Entra's where the client understands them (simulated from Microsoft's documentation).
use crate::serving::{Serving, Setup};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testkit::client::Response;
use testkit::issuer::Issuer;
use testkit::upstream::Upstream;

const TENANT: &str = "11111111-2222-3333-4444-555555555555";

struct World {
    issuer: Issuer,
    upstream: Upstream,
    serving: Serving,
}

impl World {
    fn start(issuers: &dyn Fn(&Issuer) -> String, acr: &str, ready: Value) -> World {
        let (issuer, upstream) = (Issuer::start(), Upstream::start());
        let mut setup = Setup::new(&issuer.url(), &upstream.url());
        setup.issuers = issuers(&issuer);
        setup.services = vec![(
            "orders".into(),
            format!(
                "service: orders\nupstream: \"{}\"\nexpose: {{ host: \"*\", path: /** }}\nrules:\n\
                 \x20 - {{ name: people read, who: signed-in, can: GET /orders/** }}\n\
                 \x20 - {{ name: strong people write, who: [signed-in, \"role:job\"], can: POST /orders/**, acr: {acr} }}\n",
                upstream.url()
            ),
        )];
        let serving = setup.start();
        let world = World { issuer, upstream, serving };
        world.serving.wait_ready_for("/orders/1", &world.token(ready));
        world
    }

    fn token(&self, claims: Value) -> String {
        self.issuer.mint(&json!({ "typ": "JWT" }), &self.issuer.claims("ana", "acme", &claims))
    }

    fn write(&self, claims: Value) -> Response {
        let bearer = format!("Bearer {}", self.token(claims));
        let fields = [("host", "shop.acme.example"), ("authorization", bearer.as_str())];
        testkit::client::request(self.serving.edge, "POST", "/orders/1", &fields, String::new())
    }

    /// Refused without reaching the service, with these challenges.
    #[track_caller]
    fn refuse(&self, claims: Value, status: u16, reason: &str) -> String {
        let before = self.upstream.count();
        let answer = self.write(claims);
        let record = self.serving.expect(&answer, status, reason);
        assert_eq!((&record["decision"], self.upstream.count()), (&json!("step_up"), before));
        answer.field("www-authenticate").unwrap_or_default().to_owned()
    }
}

/// Claims of a person's token from Entra.
fn entra(changes: Value) -> Value {
    let base = json!({
        "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"), "tid": TENANT, "ver": "2.0",
        "oid": "bbbbbbbb-0000-4000-8000-000000000001", "azp": "web", "scp": "Orders.ReadWrite", "client_id": null
    });
    testkit::signing::overlay(base, &changes)
}

#[test]
fn entras_clients_are_sent_back_with_a_claims_challenge() {
    let issuers = |issuer: &Issuer| {
        format!(
            "  entra: {{ preset: entra, tenant: {TENANT}, audience: [acme], algorithms: [ES256], jwks_uri: \"{}\" }}\n",
            issuer.jwks_url()
        )
    };
    let world = World::start(&issuers, "[c1, c2]", entra(json!({})));
    let capable = json!({ "xms_cc": ["cp1"] });
    let challenge = world.refuse(entra(capable.clone()), 401, "claims_challenge");
    let expected = format!(
        "Bearer realm=\"{TENANT}\", authorization_uri=\"https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/authorize\", \
         error=\"insufficient_claims\", claims=\""
    );
    let claims = challenge
        .strip_prefix(&expected)
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or_else(|| panic!("{challenge}"));
    let claims: Value = serde_json::from_slice(&STANDARD.decode(claims).unwrap()).unwrap();
    assert_eq!(claims, json!({ "access_token": { "acrs": { "essential": true, "value": "c1" } } }));

    // The new token, and one that Entra gave for another context.
    let with = |acrs: Value| entra(json!({ "xms_cc": ["cp1"], "acrs": acrs }));
    assert_eq!(world.write(with(json!(["c9", "c2"]))).status, 200);
    world.refuse(with(json!(["c9"])), 401, "claims_challenge");
    world.refuse(with(json!("c1")), 401, "claims_challenge");
    world.refuse(entra(json!({ "xms_cc": ["cp1"], "acr": "c1" })), 401, "claims_challenge");
    // A client that would not understand is not sent in a circle.
    assert_eq!(world.refuse(entra(json!({})), 403, "claims_unsupported"), "");
    assert_eq!(world.write(entra(json!({ "acrs": ["c1"] }))).status, 200);
    // Programs cannot sign in more strongly, and are not asked to.
    let program = entra(json!({ "idtyp": "app", "scp": null, "roles": ["job"], "xms_cc": ["cp1"] }));
    world.serving.expect(&world.write(program), 403, "no_rule_matched");
}

#[test]
fn other_issuers_are_asked_by_acr_values() {
    let issuers = |issuer: &Issuer| {
        format!("  id: {{ issuer: \"{}\", audience: [acme], claims: {{ roles: roles }} }}\n", issuer.url())
    };
    let world = World::start(&issuers, "[gold, silver]", json!({ "scope": "x" }));
    let person = |changes: Value| testkit::signing::overlay(json!({ "scope": "x" }), &changes);
    for weak in [json!({}), json!({ "acr": "bronze" }), json!({ "acr": "Gold" }), json!({ "acrs": ["gold"] })] {
        let challenge = world.refuse(person(weak), 401, "step_up");
        assert!(
            challenge.contains("error=\"insufficient_user_authentication\"")
                && challenge.contains("acr_values=\"gold silver\"")
        );
    }
    assert_eq!(world.write(person(json!({ "acr": "silver" }))).status, 200);
}
