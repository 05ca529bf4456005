//! The access log of a running process: nginx's own lines for the same requests, rotation, and a disk that is full.
use serde_json::{Value, json};
use std::path::PathBuf;
use testkit::issuer::Issuer;
use testkit::upstream::Upstream;

use crate::serving::nginx::Nginx;
use crate::serving::{LIMIT, Serving, Setup};

fn start(upstream: &str, keys: &str) -> (Issuer, Serving) {
    let issuer = Issuer::start();
    let mut setup = Setup::new(&issuer.url(), upstream);
    setup.extra = format!("access_log: {{ file: access.log{keys} }}\n");
    (issuer, setup.start())
}

fn file(serving: &Serving) -> PathBuf {
    serving.folder.path().join("access.log")
}

fn lines(path: &std::path::Path, count: usize) -> Vec<String> {
    let what = format!("{count} lines in {}", path.display());
    testkit::wait_value(&what, LIMIT, || {
        let text = String::from_utf8(std::fs::read(path).ok()?).expect("plain text");
        let found: Vec<String> = text.lines().map(str::to_owned).collect();
        assert!(found.len() <= count, "{text}");
        (found.len() == count && text.ends_with('\n')).then_some(found)
    })
}

/// Between the brackets stands the time.
fn without_time(line: &str) -> String {
    let (before, rest) = line.split_once('[').expect("a time");
    let (time, after) = rest.split_once(']').expect("a time");
    assert!(time.len() == "22/Nov/2026:13:20:00 +0000".len(), "{line}");
    format!("{before}[]{after}")
}

#[test]
fn a10_combined_lines_of_hostile_requests_are_those_of_nginx() {
    let (behind, peer) = (Nginx::start(), Nginx::start_with_log());
    let (_issuer, serving) = start(&behind.url(), ", format: combined, query: true");
    let host = "Host: shop.acme.example\r\n";
    let requests: Vec<Vec<u8>> = [
        "GET /public/a HTTP/1.1\r\n\r\n",
        "GET /public/a?b=1&token=x%22 HTTP/1.1\r\nReferer: https://a.example/?q=\"quoted\"\r\nUser-Agent: curl/8.1\r\n\r\n",
        "GET /public/%22%201.2.3.4%20-%20- HTTP/1.1\r\nUser-Agent: a\" 200 1 \"-\" \"b\\\\\r\n\r\n",
        "GET /public/tab HTTP/1.1\r\nUser-Agent: a\tb\r\nReferer:\r\n\r\n",
        "GET /public/latin HTTP/1.1\r\nUser-Agent: caf\u{e9}\u{9b}31m\u{ff}\r\n\r\n",
        "GET /public/escapes HTTP/1.1\r\nReferer: a\\x22b\r\nUser-Agent: \\x22 \u{a0}\r\n\r\n",
        "HEAD /public/head HTTP/1.1\r\nUser-Agent: -\r\n\r\n",
        "POST /public/post HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        "GET /public/old HTTP/1.0\r\nUser-Agent: \u{80}old\r\n\r\n",
    ]
    .into_iter()
    .map(|text| {
        let text = text.replacen("\r\n", &format!("\r\n{host}Connection: close\r\n"), 1);
        // Each character is one byte: what is beyond ASCII goes out raw.
        text.chars().map(|c| u8::try_from(u32::from(c)).expect("latin-1")).collect()
    })
    .collect();
    for (at, bytes) in requests.iter().enumerate() {
        let shown = String::from_utf8_lossy(bytes);
        let ours = testkit::client::send(serving.edge, bytes).expect("an answer").status;
        let theirs = testkit::client::send(peer.address(), bytes).expect("an answer").status;
        assert_eq!((ours, theirs), (200, 200), "{shown}");
        let count = at + 1;
        let (ours, theirs) = (lines(&file(&serving), count), lines(&peer.log(), count));
        assert_eq!(without_time(&ours[at]), without_time(&theirs[at]), "{shown}");
    }
}

#[test]
fn a_json_line_names_the_decision_and_holds_no_secret() {
    let upstream = Upstream::start();
    let (issuer, serving) = start(&upstream.url(), ", subject: true");
    let token = issuer.token("ana", "acme", &json!({ "groups": ["support"] }));
    let more = [("user-agent", "curl/8.1"), ("referer", "https://a.example/"), ("cookie", "s=hidden-cookie")];
    let allowed = testkit::wait_value("the token is accepted", LIMIT, || {
        let answer = serving.get_with("/orders/7?api_key=hidden-query", Some(&token), &more);
        (answer.status == 200).then_some(answer)
    });
    let refused = serving.get("/orders/8?api_key=hidden-query", None);
    serving.expect(&refused, 401, "token_missing");
    let found: Vec<Value> = testkit::wait_value("both lines", LIMIT, || {
        let text = std::fs::read_to_string(file(&serving)).ok()?;
        let all: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let of = |id: Option<&str>| all.iter().find(|line| line["id"].as_str() == id).cloned();
        Some(vec![of(allowed.field("countersign-decision"))?, of(refused.field("countersign-decision"))?])
    });
    let first = &found[0];
    for (name, expected) in [
        ("method", json!("GET")),
        ("host", json!("shop.acme.example")),
        ("target", json!("/orders/7")),
        ("protocol", json!("HTTP/1.1")),
        ("client_ip", json!("127.0.0.1")),
        ("status", json!(200)),
        ("service", json!("orders")),
        ("subject", json!("id|ana")),
        ("referer", json!("https://a.example/")),
        ("user_agent", json!("curl/8.1")),
        ("ended", json!("complete")),
    ] {
        assert_eq!(first[name], expected, "{name}: {first}");
    }
    assert!(first["time"].as_str().is_some_and(|time| time.ends_with('Z')) && first["total_us"].as_u64() > Some(0));
    let second = &found[1];
    assert_eq!((&second["status"], &second["reason"]), (&json!(401), &json!("token_missing")), "{second}");
    assert!(second.get("user_agent").is_none() && second.get("subject").is_none(), "{second}");
    let text = std::fs::read_to_string(file(&serving)).unwrap();
    assert!(!text.contains("hidden") && !text.contains("eyJ"), "{text}");
}

#[test]
fn an_access_log_that_was_moved_away_goes_on_under_its_name() {
    let upstream = Upstream::start();
    let (_issuer, serving) = start(&upstream.url(), ", format: combined");
    serving.get("/public/1", None);
    lines(&file(&serving), 1);
    let moved = serving.folder.path().join("access.log.1");
    std::fs::rename(file(&serving), &moved).unwrap();
    serving.process.signal("HUP");
    testkit::wait_for("the file is made anew", LIMIT, || file(&serving).exists());
    serving.get("/public/2", None);
    assert!(lines(&file(&serving), 1)[0].contains("/public/2"));
    assert!(lines(&moved, 1)[0].contains("/public/1"));
}

#[test]
fn a_disk_that_takes_no_line_stops_no_request_and_is_counted() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let mut setup = Setup::new(&issuer.url(), &upstream.url());
    setup.extra = "access_log: { file: /dev/full }\n".into();
    let serving = setup.start();
    for _ in 0..3 {
        serving.expect(&serving.get("/public/1", None), 200, "none");
    }
    testkit::wait_for("lost lines are counted", LIMIT, || {
        serving.metrics().contains("countersign_access_log_missing_total 3")
    });
    serving.wait_log("the access log cannot be written");
    assert!(serving.metrics().contains("countersign_audit_missing_total 0"));
}

#[test]
fn lines_go_to_standard_output_whatever_that_is() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let mut setup = Setup::new(&issuer.url(), &upstream.url());
    setup.extra = "access_log: { file: /dev/stdout, format: combined }\n".into();
    let serving = setup.start();
    serving.get("/public/1", None);
    testkit::wait_for("the line", LIMIT, || serving.process.stdout().contains("\"GET /public/1 HTTP/1.1\" 200 "));
    // There is no name to open anew.
    serving.process.signal("HUP");
    serving.wait_log("the configuration was loaded again");
    serving.get("/public/2", None);
    testkit::wait_for("the next line", LIMIT, || serving.process.stdout().contains("\"GET /public/2 "));

    // As under systemd: a socket.
    let folder = tempfile::tempdir().unwrap();
    setup.write(folder.path());
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.args(["run", "-c"]).arg(folder.path().join("countersign.yaml"));
    let child = command.stdout(std::os::fd::OwnedFd::from(theirs)).stderr(std::process::Stdio::null()).spawn().unwrap();
    let _child = Killed(child);
    drop(command);
    let facts = folder.path().join("state/process.json");
    let found = testkit::wait_value("the process writes its facts", LIMIT, || {
        serde_json::from_slice::<Value>(&std::fs::read(&facts).ok()?).ok()
    });
    let edge = found["edge"][0].as_str().unwrap().parse().unwrap();
    testkit::client::get(edge, "/public/3", &[("host", "shop.acme.example")]);
    ours.set_read_timeout(Some(LIMIT)).unwrap();
    let mut reader = std::io::BufReader::new(ours);
    let mut line = String::new();
    while !line.contains("\"GET /public/3 HTTP/1.1\" 200 ") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut reader, &mut line).unwrap() > 0, "it ended");
    }
}

/// Ends with the test, however that ends.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _ended = self.0.wait();
    }
}

#[test]
fn the_last_lines_are_written_before_the_process_ends() {
    let upstream = Upstream::start();
    let (_issuer, mut serving) = start(&upstream.url(), "");
    for _ in 0..20 {
        serving.get("/public/1", None);
    }
    serving.process.signal("TERM");
    assert!(serving.process.wait(LIMIT).success());
    assert_eq!(std::fs::read_to_string(file(&serving)).unwrap().lines().count(), 20);
}
