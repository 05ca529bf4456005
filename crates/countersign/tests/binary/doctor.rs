//! `countersign doctor` against an issuer in many states, and against a certified provider.
use serde_json::{Value, json};

use crate::keys_of_issuers::Provider;
use testkit::issuer::{Fault, Issuer};
use testkit::process::Process;
use testkit::signing::Kind;

struct World {
    folder: tempfile::TempDir,
}

/// Only the files: the doctor needs no running process.
fn world(issuer: &str, more: &str) -> World {
    let folder = tempfile::tempdir().unwrap();
    let platform = format!(
        "version: 1\ntrust_domain: acme.example\nedge: {{ listen: 127.0.0.1:0 }}\nservices: s/*.yaml\nissuers:\n\
         \x20 id: {{ issuer: \"{issuer}\", audience: [acme], claims: {{ groups: groups }}{more} }}\n"
    );
    std::fs::create_dir(folder.path().join("s")).unwrap();
    std::fs::write(folder.path().join("s/a.yaml"), "service: a\nupstream: http://127.0.0.1:1\n").unwrap();
    std::fs::write(folder.path().join("countersign.yaml"), platform).unwrap();
    let private = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    private("secret", "secret");
    private("key.pem", &rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem());
    World { folder }
}

impl World {
    fn ask(&self, arguments: &[&str], token: &str) -> (i32, String) {
        let config = self.folder.path().join("countersign.yaml");
        let mut all = vec!["doctor", "id", "-c", config.to_str().unwrap()];
        all.extend_from_slice(arguments);
        let mut process = Process::start(env!("CARGO_BIN_EXE_countersign"), &all);
        if !token.is_empty() {
            process.write_line(token);
        }
        process.close_stdin();
        let status = process.wait(crate::serving::LIMIT);
        (status.code().unwrap(), process.stdout() + &process.stderr())
    }

    /// Section, name and text of what is wrong.
    #[track_caller]
    fn wrong(&self, code: i32) -> Vec<(String, String, String)> {
        let (found, text) = self.ask(&["--json"], "");
        assert_eq!(found, code, "{text}");
        let report: Value = serde_json::from_str(&text).unwrap();
        let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
        let findings = report["findings"].as_array().unwrap().iter();
        let wrong = findings.filter(|finding| finding["mark"] == "wrong");
        wrong.map(|finding| (text(finding, "section"), text(finding, "name"), text(finding, "text"))).collect()
    }

    /// This is wrong, in these words, and nothing else but the verdict that follows from it.
    #[track_caller]
    fn check(&self, code: i32, section: &str, name: &str, part: &str) {
        let wrong = self.wrong(code);
        let (verdict, named): (Vec<_>, Vec<_>) = wrong.into_iter().partition(|(section, ..)| section == "verdict");
        let [(found_section, found_name, text)] = named.as_slice() else { panic!("{named:#?} {verdict:#?}") };
        assert_eq!((found_section.as_str(), found_name.as_str()), (section, name), "{text}");
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_sound_issuer_is_called_sound_and_a_token_tells_whom_it_makes() {
    let issuer = Issuer::start();
    issuer.cache_control(Some("max-age=600"));
    issuer.tell_time(0);
    let world = world(&issuer.url(), "");
    assert_eq!(world.wrong(0), []);
    let token = issuer.token("ana", "acme", &json!({ "groups": ["support"], "scope": "orders.read" }));
    let metrics = world.folder.path().join("countersign.prom");
    let (code, text) = world.ask(&["--token", "--metrics", metrics.to_str().unwrap()], &token);
    assert_eq!(code, 0, "{text}");
    for part in ["fresh for 600 s", "person `id|ana`", "support", "orders.read", "nothing wrong found"] {
        assert!(text.contains(part), "`{part}` is missing:\n{text}");
    }
    assert!(!text.contains(&token) && !text.contains("eyJ"), "a token is never printed back");
    let metrics = std::fs::read_to_string(&metrics).unwrap();
    assert!(metrics.contains("countersign_doctor_ok{issuer=\"id\"} 1\n"), "{metrics}");
    let foreign = issuer.token("ana", "elsewhere", &json!({}));
    let (code, text) = world.ask(&["--token"], &foreign);
    assert!(code == 1 && text.contains("audience"), "{text}");
}

#[test]
fn each_broken_state_is_named() {
    let check = |ill: &dyn Fn(&Issuer), code: i32, section: &str, name: &str, part: &str| {
        let issuer = Issuer::start();
        ill(&issuer);
        world(&issuer.url(), "").check(code, section, name, part);
    };
    let html = |issuer: &Issuer| issuer.misbehave_in_discovery(Fault::Html);
    check(&html, 1, "discovery", "document", "it is a web page");
    let slash = |issuer: &Issuer| issuer.claim_issuer(Some(&(issuer.url() + "/")));
    check(&slash, 1, "discovery", "issuer", "write that under `issuer:`");
    check(&|issuer| issuer.tell_time(-600), 1, "clock", "difference", "ahead of the issuer");
    check(&|issuer| issuer.tell_time(600), 1, "clock", "difference", "behind the issuer");
    check(&|issuer| issuer.misbehave(Fault::EmptyKeys), 1, "keys", "set", "no usable key");
    check(&|issuer| issuer.misbehave(Fault::Html), 1, "keys", "set", "it is a web page");
    check(&|issuer| issuer.misbehave(Fault::Status(500)), 1, "keys", "answer", "status 500");
    let redirect = |issuer: &Issuer| issuer.misbehave(Fault::Redirect("https://elsewhere.example/keys".into()));
    check(&redirect, 1, "keys", "answer", "redirects are not followed");
    check(&|issuer| issuer.misbehave(Fault::Huge), 1, "keys", "answer", "larger than");
}

#[test]
fn keys_that_fit_no_allowed_algorithm_are_named() {
    let issuer = Issuer::start_with(&[Kind::Es256]);
    world(&issuer.url(), ", algorithms: [RS256]").check(
        1,
        "keys",
        "algorithms",
        "no key fits an allowed algorithm (RS256)",
    );
}

#[test]
fn an_issuer_that_is_down_is_exit_3_with_the_reason() {
    let issuer = Issuer::start();
    issuer.down();
    let wrong = world(&issuer.url(), "").wrong(3);
    assert!(wrong.iter().any(|(section, _, text)| section == "discovery" && text.contains("refused")), "{wrong:#?}");
    assert!(wrong.iter().any(|(section, ..)| section == "verdict"), "{wrong:#?}");
}

#[test]
fn a_certified_provider_is_sound() {
    let provider = Provider::start(0);
    let world = world(&provider.url, "");
    let (code, text) = world.ask(&[], "");
    assert!(code == 0 && text.contains("jwks_uri") && text.contains("keys for what is allowed"), "{text}");
}

const BY_SECRET: &str = ", introspection: { client_id: nobody, client_secret_file: secret }";
const BY_KEY: &str = ", introspection: { client_id: ES256, client_auth: { private_key_file: key.pem } }";

/// An issuer that is sound but for how it answers about tokens.
#[test]
fn each_broken_introspection_is_named() {
    let check_as = |more: &str, ill: &dyn Fn(&Issuer), code: i32, name: &str, part: &str| {
        let issuer = Issuer::start();
        ill(&issuer);
        world(&issuer.url(), more).check(code, "introspection", name, part);
    };
    let check = |ill: &dyn Fn(&Issuer), name: &str, part: &str| check_as(BY_SECRET, ill, 1, name, part);
    let fails = |fault: Fault| move |issuer: &Issuer| issuer.misbehave_in_introspection(fault.clone());
    check(&fails(Fault::Status(401)), "client", "`nobody` is not accepted (401): is the secret the current one");
    check(&fails(Fault::Status(403)), "client", "`nobody` is not accepted (403)");
    check_as(BY_KEY, &fails(Fault::Status(401)), 1, "client", "does it know the public half of this key");
    let methods = |issuer: &Issuer| {
        issuer.misbehave_in_introspection(Fault::Status(401));
        issuer.announce(json!({ "introspection_endpoint_auth_methods_supported": ["client_secret_post"] }));
    };
    check(&methods, "client", "it takes client_secret_post only, and we send client_secret_basic");
    check(&fails(Fault::Status(404)), "answer", "nobody takes questions there (404)");
    check(&fails(Fault::Status(500)), "answer", "it answers 500");
    check(&fails(Fault::Redirect("https://elsewhere.example/".into())), "answer", "redirects are not followed");
    check(&fails(Fault::Html), "answer", "no JSON by its `Content-Type`");
    check(&fails(Fault::Close), "answer", "Check the name, the firewall");
    check(&fails(Fault::Hang), "answer", "no whole answer within 2s");
    check(&fails(Fault::Huge), "answer", "larger than");
    check(&fails(Fault::Body("{\"active\":false,\"active\":true}".into())), "answer", "not so that it can be believed");
    let says = |answer: Value| move |issuer: &Issuer| issuer.introspect_as(answer.clone());
    check(&says(json!({ "active": true, "sub": "ana" })), "answer", "invented on the spot");
    check(&says(json!({ "active": "false" })), "answer", "neither true nor false");
    check(&says(json!({})), "answer", "neither true nor false");
    let nowhere = |issuer: &Issuer| issuer.announce(json!({ "introspection_endpoint": null }));
    check(&nowhere, "place", "discovery names no `introspection_endpoint`");
    let elsewhere =
        |issuer: &Issuer| issuer.announce(json!({ "introspection_endpoint": "https://elsewhere.example/" }));
    check(&elsewhere, "place", "on another host");
    let signed = BY_SECRET.replace(" }", ", signed: required }");
    check_as(&signed, &|_| {}, 1, "answer", "the answer is not signed");
    let forged = |issuer: &Issuer| {
        let other = Issuer::start();
        let token = other.mint(&json!({ "typ": "token-introspection+jwt" }), &json!({ "iss": issuer.url() }));
        issuer.introspect_as_text("application/token-introspection+jwt", &token);
    };
    check_as(&signed, &forged, 1, "answer", "the signed answer is not accepted");
}

#[test]
fn a_sound_introspection_is_called_sound() {
    let issuer = Issuer::start();
    let (code, text) = world(&issuer.url(), BY_SECRET).ask(&[], "");
    assert!(
        code == 0 && text.contains("`nobody` is accepted") && text.contains("an invented token is not active"),
        "{text}"
    );
    let asked = issuer.introspected();
    assert!(asked.len() == 1 && asked[0].form.starts_with("token=countersign-doctor-"), "{asked:?}");

    let claims = json!({
        "iss": issuer.url(), "aud": "nobody", "iat": testkit::dpop::claims("GET", "x", "")["iat"],
        "token_introspection": { "active": false }
    });
    let token = issuer.mint(&json!({ "typ": "token-introspection+jwt" }), &claims);
    issuer.introspect_as_text("application/token-introspection+jwt", &token);
    let (code, text) = world(&issuer.url(), &BY_SECRET.replace(" }", ", signed: required }")).ask(&[], "");
    assert!(code == 0 && text.contains("as `signed: required` asks") && !text.contains(&token), "{text}");
}

/// The client's own way of proving itself is tried, and a key or secret that the provider does not know is found out.
#[test]
fn a_certified_providers_introspection_is_tried() {
    let mut provider = Provider::start(0);
    let sound = world(&provider.url, BY_SECRET);
    assert_eq!(sound.wrong(0), []);
    std::fs::write(sound.folder.path().join("secret"), "another").unwrap();
    sound.check(1, "introspection", "client", "`nobody` is not accepted (401, `invalid_client`)");
    let by_key = world(&provider.url, BY_KEY);
    by_key.check(1, "introspection", "client", "does it know the public half of this key");
    let pem: String = serde_json::from_str(&provider.ask("client-key ES256")).unwrap();
    std::fs::write(by_key.folder.path().join("key.pem"), pem).unwrap();
    assert_eq!(by_key.wrong(0), []);
}

#[test]
fn a_name_nobody_configured_is_exit_2_and_the_names_are_told() {
    let issuer = Issuer::start();
    let world = world(&issuer.url(), "");
    let config = world.folder.path().join("countersign.yaml");
    let (status, out, error) =
        testkit::process::run(env!("CARGO_BIN_EXE_countersign"), &["doctor", "entra", "-c", config.to_str().unwrap()]);
    assert!(status.code() == Some(2) && out.contains("the platform file names"), "{out}{error}");
}
