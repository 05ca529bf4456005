//! The audit log of a running process: whole, refusing any changed byte, saying what a crash cut off.
use crate::serving::Setup;
use testkit::issuer::Issuer;
use testkit::upstream::Upstream;

#[test]
fn a10_the_log_is_whole_and_one_flipped_byte_anywhere_names_its_record() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let serving = Setup::new(&issuer.url(), &upstream.url()).start();
    let token = issuer.token("ana", "acme", &serde_json::json!({ "groups": ["support"] }));
    serving.wait_ready_for("/orders/1", &token);
    for _ in 0..5 {
        serving.get("/orders/1", Some(&token));
        serving.get("/orders/1", None);
    }
    let (code, text) = serving.command(&["audit", "verify"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("whole"), "{text}");

    let copy = serving.folder.path().join("copy.ndjson");
    let bytes = std::fs::read(serving.audit_file()).unwrap();
    let copy_name = copy.display().to_string();
    // Every 97th byte: through all lines and fields, in bounded time.
    for at in (0..bytes.len() - 1).step_by(97) {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        std::fs::write(&copy, bad).unwrap();
        let (status, out, _) =
            testkit::process::run(env!("CARGO_BIN_EXE_countersign"), &["audit", "verify", "--file", &copy_name]);
        let line = 1 + bytes[..at].iter().filter(|b| **b == b'\n').count();
        assert_eq!(status.code(), Some(1), "byte {at}: {out}");
        assert!(
            out.contains("not whole") && out.contains(&format!("{copy_name}:{line}")),
            "byte {at} of line {line}: {out}"
        );
    }
}

#[test]
fn a10_a_cut_line_is_named_with_the_file_it_stands_in() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let serving = Setup::new(&issuer.url(), &upstream.url()).start();
    serving.expect(&serving.get("/orders/1", None), 401, "token_missing");
    let bytes = std::fs::read(serving.audit_file()).unwrap();
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    let log = serving.folder.path().join("copy.ndjson").display().to_string();
    // What a rotation and a kill leave: an older file that ends in the middle of a line, and an empty new one.
    let older = format!("{log}.1234567890123");
    std::fs::write(&older, &bytes[..bytes.len() - 20]).unwrap();
    std::fs::write(&log, "").unwrap();
    let verify = |more: &[&str]| {
        let arguments = [&["audit", "verify", "--file", &log], more].concat();
        let (status, out, error) = testkit::process::run(env!("CARGO_BIN_EXE_countersign"), &arguments);
        assert_eq!(status.code(), Some(0), "{out}{error}");
        out
    };
    let told = verify(&[]);
    assert!(told.contains(&format!("truncated at {older}:{lines}:")), "{told}");
    let document: serde_json::Value = serde_json::from_str(&verify(&["--json"])).unwrap();
    assert_eq!(document["truncated_at"], serde_json::json!([{ "file": older, "line": lines }]));
}

#[test]
fn no_record_and_no_log_line_ever_holds_a_token() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let serving = Setup::new(&issuer.url(), &upstream.url()).start();
    let token = issuer.token("ana", "acme", &serde_json::json!({ "groups": ["support"] }));
    serving.wait_ready_for("/orders/1", &token);
    let expired = issuer.token("ana", "acme", &serde_json::json!({ "exp": 1 }));
    serving.get("/orders/1", Some(&expired));
    serving.get("/orders/1", Some(&format!("{token}x")));
    serving.command(&["audit", "verify"]);
    let record = std::fs::read_to_string(serving.audit_file()).unwrap();
    assert!(record.contains("\"permit\"") && record.contains("\"expired\""), "{record}");
    for output in [record, serving.process.stderr(), serving.process.stdout(), serving.metrics()] {
        assert!(!output.contains("eyJ"), "{output}");
    }
}

#[test]
fn records_can_be_searched_and_shown() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let serving = Setup::new(&issuer.url(), &upstream.url()).start();
    let token = issuer.token("ana", "acme", &serde_json::json!({ "groups": ["support"] }));
    serving.wait_ready_for("/orders/1", &token);
    let refused = serving.get("/orders/2", None);
    let id = refused.field("countersign-decision").unwrap().to_owned();
    let (code, text) = serving.command(&["audit", "grep", "reason=token_missing"]);
    assert!(code == 0 && text.contains(&id), "{text}");
    assert_eq!(serving.command(&["audit", "grep", "sub=id|nobody"]).0, 1);
    let (code, text) = serving.command(&["audit", "show", &id]);
    assert!(code == 0 && text.contains("\"/orders/2\""), "{text}");
}
