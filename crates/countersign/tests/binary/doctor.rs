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

#[test]
fn a_name_nobody_configured_is_exit_2_and_the_names_are_told() {
    let issuer = Issuer::start();
    let world = world(&issuer.url(), "");
    let config = world.folder.path().join("countersign.yaml");
    let (status, out, error) =
        testkit::process::run(env!("CARGO_BIN_EXE_countersign"), &["doctor", "entra", "-c", config.to_str().unwrap()]);
    assert!(status.code() == Some(2) && out.contains("the platform file names"), "{out}{error}");
}
