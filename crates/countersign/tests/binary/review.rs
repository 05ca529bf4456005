//! Bypasses that a hostile reading once found: each stays closed.
use crate::serving::Setup;
use serde_json::json;
use testkit::client;
use testkit::issuer::Issuer;
use testkit::upstream::Upstream;

#[test]
fn a5_an_encoded_first_segment_does_not_lead_to_another_service() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let mut setup = Setup::new(&issuer.url(), &upstream.url());
    let admin = format!(
        "service: admin\nupstream: \"{}\"\nexpose: {{ host: \"*\", path: \"/@admin/**\" }}\nrules: [{{ name: admins, who: \"group:admins\", can: \"GET /**\" }}]\n",
        upstream.url()
    );
    let open =
        admin.replace("service: admin", "service: open").replace("/@admin/**", "/**").replace("group:admins", "anyone");
    setup.services = vec![("admin".into(), admin), ("open".into(), open)];
    let serving = setup.start();
    for path in ["/@admin/x", "/%40admin/x", "/%40ad%6Din/x", "/./@admin/x", "/y/../@admin/x"] {
        assert_eq!(serving.get(path, None).status, 401, "{path}");
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(serving.get("/elsewhere", None).status, 200);
}

#[test]
fn a9_a_lower_case_method_does_not_pass_a_never() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let mut setup = Setup::new(&issuer.url(), &upstream.url());
    setup.services[0].1 = format!(
        "service: orders\nupstream: \"{}\"\nexpose: {{ host: \"*\", path: /** }}\nrules: [{{ name: all, who: \"group:support\", can: \"* /**\" }}]\n\
         never: [{{ name: nobody deletes, who: anyone, can: \"DELETE /**\" }}]\n",
        upstream.url()
    );
    let serving = setup.start();
    let token = issuer.token("ana", "acme", &json!({ "groups": ["support"] }));
    serving.wait_ready_for("/x", &token);
    let before = upstream.count();
    let bearer = format!("Bearer {token}");
    let fields = [("host", "shop.acme.example"), ("authorization", bearer.as_str())];
    for (method, status) in [("DELETE", 403), ("delete", 400), ("Delete", 400)] {
        assert_eq!(client::request(serving.edge, method, "/x", &fields, "").status, status, "{method}");
    }
    assert_eq!(upstream.count(), before);
}

#[test]
fn a_second_process_leaves_the_first_ones_log_alone() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let serving = Setup::new(&issuer.url(), &upstream.url()).start();
    let config = serving.folder.path().join("countersign.yaml").display().to_string();
    let (status, _, error) = testkit::process::run(env!("CARGO_BIN_EXE_countersign"), &["run", "-c", &config]);
    assert!(!status.success() && error.contains("another countersign runs"), "{error}");
    serving.get("/public/x", None);
    let (code, text) = serving.command(&["audit", "verify"]);
    assert_eq!(code, 0, "{text}");
}
