//! `countersign dev` as a newcomer meets it: the three things to try, and nothing left behind.
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use testkit::client;
use testkit::process::{Process, run};

const LIMIT: Duration = Duration::from_secs(30);
const PROGRAM: &str = env!("CARGO_BIN_EXE_countersign");

struct Dev {
    process: Process,
    edge: SocketAddr,
    state: tempfile::TempDir,
}

fn dev() -> Dev {
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().join("state").display().to_string();
    let process = Process::start(PROGRAM, &["dev", "--listen", "127.0.0.1:0", "--json", "--state", &folder]);
    let mut dev = Dev { process, edge: ([127, 0, 0, 1], 0).into(), state };
    let ready: Value = serde_json::from_str(&dev.process.wait_line("ready", LIMIT)).unwrap();
    let port = ready["edge"].as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap();
    dev.edge.set_port(port);
    dev
}

impl Dev {
    fn command(&self, arguments: &[&str]) -> (i32, String) {
        let folder = self.state.path().join("state").display().to_string();
        let (status, out, error) = run(PROGRAM, &[arguments, &["--state", &folder]].concat());
        (status.code().unwrap(), out + &error)
    }

    fn get(&self, name: Option<&str>) -> client::Response {
        let bearer = name.map(|name| format!("Bearer {}", self.command(&["token", name]).1.trim()));
        let fields: Vec<(&str, &str)> = bearer.iter().map(|value| ("authorization", value.as_str())).collect();
        client::get(self.edge, "/orders/42", &fields)
    }
}

#[test]
fn ana_is_let_in_bo_is_told_why_not_and_nobody_is_asked_to_sign_in() {
    let dev = dev();
    let ana = dev.get(Some("ana"));
    assert_eq!(ana.status, 200, "{}", ana.text());
    assert_eq!(ana.json()["called_by"]["sub"], "demo|ana");
    assert_eq!(ana.json()["called_by"]["tctx"]["g"][0], "support");

    let bo = dev.get(Some("bo"));
    assert_eq!(bo.status, 403);
    let id = bo.json()["decision"].as_str().unwrap().to_owned();
    assert_eq!(bo.field("countersign-decision"), Some(id.as_str()));
    let (code, why) = dev.command(&["why", &id]);
    assert_eq!(code, 0, "{why}");
    assert!(why.contains("denied") && why.contains("support reads orders") && why.contains("group:support"), "{why}");

    let nobody = dev.get(None);
    assert_eq!(nobody.status, 401);
    assert!(nobody.field("www-authenticate").unwrap().starts_with("Bearer"));
}

#[test]
fn an_agent_acting_for_ana_is_judged_as_both() {
    let dev = dev();
    let token = dev.command(&["token", "ana", "--agent", "report-bot"]).1;
    let bearer = format!("Bearer {}", token.trim());
    let fields = [("authorization", bearer.as_str())];
    let read = client::get(dev.edge, "/orders/42", &fields);
    assert_eq!(read.json()["called_by"]["act"]["sub"], "report-bot");
    let delete = client::request(dev.edge, "DELETE", "/orders/42", &fields, "");
    assert_eq!(delete.status, 403);
    let for_bo = dev.command(&["token", "bo", "--agent", "report-bot"]).1;
    let bearer = format!("Bearer {}", for_bo.trim());
    assert_eq!(client::get(dev.edge, "/orders/42", &[("authorization", bearer.as_str())]).status, 403);
}

#[test]
fn a_step_up_nobody_can_give_yet_is_asked_for_by_rfc_9470() {
    let dev = dev();
    let token = dev.command(&["token", "ana"]).1;
    let bearer = format!("Bearer {}", token.trim());
    let answer = client::request(dev.edge, "POST", "/orders/42/refund", &[("authorization", &bearer)], "");
    assert_eq!(answer.status, 401);
    let challenge = answer.field("www-authenticate").unwrap();
    assert!(
        challenge.contains("error=\"insufficient_user_authentication\"") && challenge.contains("max_age=300"),
        "{challenge}"
    );
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    // Without --state the folder is the runtime folder; a folder of our own as its parent shows what stays.
    let runtime = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(PROGRAM);
    command.args(["dev", "--listen", "127.0.0.1:0"]).env("XDG_RUNTIME_DIR", runtime.path());
    let mut process = Process::start_command(command);
    process.wait_line("ready", LIMIT);
    assert!(std::fs::read_dir(runtime.path()).unwrap().next().is_some());
    process.signal("INT");
    assert!(process.wait(LIMIT).success());
    assert!(std::fs::read_dir(runtime.path()).unwrap().next().is_none());
}
