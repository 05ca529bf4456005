//! Entra's group overage, resolved at Microsoft Graph: through the running binary, against our fake of Graph (simulated from
//! Microsoft's documentation; nothing here was tried against the live service).
use crate::serving::{Serving, Setup};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use testkit::graph::Graph;
use testkit::issuer::Issuer;
use testkit::upstream::Upstream;

const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const SUPPORT: &str = "aaaaaaaa-0000-4000-8000-000000000001";
const INTERNS: &str = "aaaaaaaa-0000-4000-8000-000000000002";

struct World {
    issuer: Issuer,
    graph: Graph,
    upstream: Upstream,
    serving: Serving,
}

impl World {
    fn start() -> World {
        World::start_as("client_secret_file: secret", Vec::new())
    }

    fn start_as(proof: &str, files: Vec<(String, Vec<u8>)>) -> World {
        let (issuer, graph, upstream) = (Issuer::start(), Graph::start(), Upstream::start());
        let mut setup = Setup::new(&issuer.url(), &upstream.url());
        setup.issuers = format!(
            "  entra: {{ preset: entra, tenant: {TENANT}, audience: [acme], algorithms: [ES256], jwks_uri: \"{}\", \
             claims: {{ groups: groups }}, \
             graph: {{ client_id: app, {proof}, endpoint: \"{}/\", login: \"{}\" }} }}\n",
            issuer.jwks_url(),
            graph.url(),
            graph.url()
        );
        setup.files.push(("secret".into(), b"s3cret&".to_vec()));
        setup.files.extend(files);
        for (_, text) in &mut setup.services {
            *text = text.replace("group:support", &format!("group:{SUPPORT}"));
            *text = text.replace("group:interns", &format!("group:{INTERNS}"));
            let notes =
                format!("rules:\n  - {{ name: support reads notes, who: \"group:{SUPPORT}\", can: GET /notes/** }}\n");
            *text = text.replace("rules:\n", &notes);
        }
        let serving = setup.start();
        let world = World { issuer, graph, upstream, serving };
        world.serving.wait_ready_for("/orders/1", &world.token("00", json!({ "groups": [SUPPORT] })));
        assert_eq!(world.graph.asked(), [], "a token that lists its groups needs nobody else's word");
        world
    }

    /// A token of the person whose object id ends in these digits.
    fn token(&self, who: &str, changes: Value) -> String {
        let claims = json!({
            "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"), "tid": TENANT, "ver": "2.0",
            "oid": format!("bbbbbbbb-0000-4000-8000-0000000000{who}"), "azp": "web", "scp": "Orders.Read", "client_id": null
        });
        let claims = testkit::signing::overlay(self.issuer.claims(who, "acme", &claims), &changes);
        self.issuer.mint(&json!({ "typ": "JWT" }), &claims)
    }

    /// As Entra says that there are too many, pointing to where nobody should be asked.
    fn overage(&self, who: &str) -> String {
        let there = format!("{}/evil", self.graph.url());
        let sources = json!({ "src1": { "endpoint": there } });
        self.token(who, json!({ "_claim_names": { "groups": "src1" }, "_claim_sources": sources }))
    }

    fn questions_for_groups(&self) -> Vec<(String, String)> {
        self.graph.asked().into_iter().filter(|(path, _)| path.contains("getMemberObjects")).collect()
    }
}

#[test]
fn api_62_groups_that_the_token_leaves_out_are_asked_for_once() {
    let world = World::start();
    world.graph.answer(json!({ "@odata.context": "x", "value": [SUPPORT.to_uppercase()] }));
    let token = world.overage("01");
    for _ in 0..3 {
        assert_eq!(world.serving.get("/orders/1", Some(&token)).status, 200);
    }
    let asked = world.questions_for_groups();
    let path = "/v1.0/users/bbbbbbbb-0000-4000-8000-000000000001/getMemberObjects".to_owned();
    assert_eq!(asked, [(path, r#"{"securityEnabledOnly":true}"#.to_owned())]);
    let (path, form) = world.graph.asked().remove(0);
    assert_eq!(path, format!("/{TENANT}/oauth2/v2.0/token"));
    let host = world.graph.url().replace(':', "%3A").replace('/', "%2F");
    let expected =
        format!("grant_type=client_credentials&client_id=app&client_secret=s3cret%26&scope={host}%2F.default");
    assert_eq!(form, expected);
    assert!(
        !world.graph.asked().iter().any(|(path, _)| path.contains("evil")),
        "where the token points is never asked"
    );
    let record = world.serving.record(&world.serving.get("/orders/1", Some(&token)));
    assert_eq!(record["principal"]["groups_state"], "complete", "{record:#}");
    // In the group that is kept out, among more than the token could list.
    world.graph.answer(json!({ "value": [SUPPORT, INTERNS] }));
    let answer = world.serving.get("/orders/1", Some(&world.overage("02")));
    world.serving.expect(&answer, 403, "never_matched");
    // In neither.
    world.graph.answer(json!({ "value": [] }));
    let answer = world.serving.get("/orders/1", Some(&world.token("03", json!({ "hasgroups": true }))));
    world.serving.expect(&answer, 403, "no_rule_matched");
    assert!(world.upstream.last().field("txn-token").is_some());
}

/// As Microsoft documents certificate credentials: PS256, the certificate's thumbprint, the token endpoint as `aud`.
#[test]
fn a_certificate_proves_the_app_to_entra() {
    use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["app.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let files = vec![
        ("app.key".to_owned(), key.serialize_pem().into_bytes()),
        ("app.pem".to_owned(), certificate.pem().into_bytes()),
    ];
    let world = World::start_as("client_auth: { private_key_file: app.key, certificate_file: app.pem }", files);
    world.graph.answer(json!({ "value": [SUPPORT] }));
    assert_eq!(world.serving.get("/orders/1", Some(&world.overage("05"))).status, 200);

    let (_, form) = world.graph.asked().remove(0);
    let rest = form.strip_prefix(
        "grant_type=client_credentials&client_id=app&client_assertion_type=\
         urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=",
    );
    let (assertion, scope) = rest.unwrap_or_else(|| panic!("{form}")).split_once('&').unwrap();
    assert!(scope.starts_with("scope=") && scope.ends_with("%2F.default"), "{scope}");
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key.public_key_raw())
        .verify(signed.as_bytes(), &bytes(signature))
        .expect("signed by the certificate's key");
    let (header, claims) = signed.split_once('.').unwrap();
    let thumbprint = URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.der()));
    let header: Value = serde_json::from_slice(&bytes(header)).unwrap();
    assert_eq!(header, json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint }));
    let claims: Value = serde_json::from_slice(&bytes(claims)).unwrap();
    let endpoint = format!("{}/{TENANT}/oauth2/v2.0/token", world.graph.url());
    assert_eq!((&claims["iss"], &claims["sub"], &claims["aud"]), (&json!("app"), &json!("app"), &json!(endpoint)));
    let everything = std::fs::read_to_string(world.serving.audit_file()).unwrap() + &world.serving.process.stderr();
    assert!(!everything.contains(assertion) && !everything.contains("PRIVATE KEY"));
}

#[test]
fn api_62_programs_are_asked_for_as_programs() {
    let world = World::start();
    world.graph.answer(json!({ "value": [SUPPORT] }));
    let program = json!({ "hasgroups": true, "idtyp": "app", "scp": null });
    assert_eq!(world.serving.get("/orders/1", Some(&world.token("04", program))).status, 200);
    let asked = world.questions_for_groups();
    assert_eq!(asked[0].0, "/v1.0/servicePrincipals/bbbbbbbb-0000-4000-8000-000000000004/getMemberObjects");
}

#[test]
fn api_63_while_graph_fails_groups_are_unknown_for_allow_and_for_never() {
    let world = World::start();
    world.graph.answer(json!({ "value": [SUPPORT] }));
    let refuse = |who: &str, why: &str| {
        let token = world.overage(who);
        // Nobody can say that he is not in the group that is kept out …
        let answer = world.serving.get("/orders/1", Some(&token));
        let record = world.serving.expect(&answer, 403, "never_matched");
        let told = record["token"]["groups_unknown"].as_str().unwrap_or_default().to_owned();
        assert!(told.contains(why), "{told}");
        // … nor that he is in the one that may; from the cache too, with the reason.
        let again = world.serving.expect(&world.serving.get("/notes/1", Some(&token)), 403, "groups_unknown");
        assert_eq!(again["token"]["groups_unknown"], told);
        assert_eq!(world.serving.get("/public/x", Some(&token)).status, 200, "other rules go on");
    };
    world.graph.fail_tokens(Some(400));
    refuse("11", "are `client_id` and its secret or key right?");
    world.graph.fail_tokens(None);
    for (who, status, why) in
        [("12", 403, "consent"), ("13", 404, "no such person"), ("14", 500, "500"), ("15", 302, "302")]
    {
        world.graph.fail(Some(status));
        refuse(who, why);
    }
    world.graph.fail(None);
    for (who, document, why) in [
        ("16", json!({ "value": [SUPPORT], "@odata.nextLink": "https://evil.example/" }), "more pages"),
        ("17", json!({ "value": "x" }), "no collection"),
        ("18", json!({}), "no collection"),
        ("19", json!({ "value": ["not an id"] }), "is none"),
    ] {
        world.graph.answer(document);
        refuse(who, why);
    }
    world.graph.answer(json!({ "value": [SUPPORT] }));
    // An object id that is none is never put into a URL.
    let odd = world.token("20", json!({ "hasgroups": true, "oid": "../../../me" }));
    let before = world.graph.asked().len();
    let answer = world.serving.get("/notes/1", Some(&odd));
    world.serving.expect(&answer, 403, "groups_unknown");
    assert_eq!(world.graph.asked().len(), before);
    assert_eq!(world.serving.get("/orders/1", Some(&world.overage("21"))).status, 200);
    world.graph.down();
    refuse("22", "Graph");
    let everything = std::fs::read_to_string(world.serving.audit_file()).unwrap() + &world.serving.process.stderr();
    assert!(!everything.contains("s3cret") && !everything.contains("graph-token"));
}
