//! Lines of hostile requests, and a disk that is full, moved away or not there.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{AccessLog, Collect, Format, Seen, Settings, TEXT_BYTES_MAX, line};
use crate::audit::Record;
use crate::audit::record::{PrincipalFacts, RequestFacts};

fn settings(folder: &Path, format: Format) -> Settings {
    Settings { file: folder.join("access.log"), format, query: false, subject: true }
}

fn record(target: &[u8], subject: &str) -> Box<Record> {
    let request = RequestFacts {
        method: "GET".into(),
        host: "shop.acme.example".into(),
        client_ip: Some(IpAddr::from([203, 0, 113, 7])),
        protocol: "HTTP/2".into(),
        ..RequestFacts::default()
    };
    let who = PrincipalFacts { subject: subject.into(), ..PrincipalFacts::default() };
    let seen = Seen { target: target.into(), referer: None, user_agent: Some(b"curl/8".as_slice().into()) };
    Box::new(Record {
        id: "D1".into(),
        time_ms: 1_795_353_599_500,
        total_us: 600_000,
        status: 200,
        bytes_out: 17,
        request,
        principal: (!subject.is_empty()).then(|| Arc::new(who)),
        seen: Some(Box::new(seen)),
        ..Record::default()
    })
}

fn line_of(record: &Record, format: Format, subject: bool) -> String {
    let mut bytes = Vec::new();
    let settings = Settings { subject, ..settings(Path::new(""), format) };
    line::write(&mut bytes, record, &settings);
    String::from_utf8(bytes).unwrap()
}

fn check_combined(target: &[u8], subject: &str, expected: &str) {
    assert_eq!(line_of(&record(target, subject), Format::Combined, true), format!("203.0.113.7 - {expected}\n"));
}

#[test]
fn a_combined_line_is_that_of_nginx() {
    let rest = "\" 200 17 \"-\" \"curl/8\"";
    check_combined(b"/a", "", &format!("- [22/Nov/2026:13:20:00 +0000] \"GET /a HTTP/2.0{rest}"));
    check_combined(b"/a", "id|ana", &format!("id|ana [22/Nov/2026:13:20:00 +0000] \"GET /a HTTP/2.0{rest}"));
    let hidden = line_of(&record(b"/a", "id|ana"), Format::Combined, false);
    assert!(hidden.starts_with("203.0.113.7 - - ["), "{hidden}");
}

#[test]
fn a10_no_text_of_a_request_ends_its_field_or_its_line() {
    let rest = "\" 200 17 \"-\" \"curl/8\"";
    check_combined(
        b"/\" 200 0\r\n1.2.3.4 \x1b[31m\\\xc3\xa9\x7f",
        "id|a b\"\n] \"GET /",
        &format!(
            "id|a\\x20b\\x22\\x0A]\\x20\\x22GET\\x20/ [22/Nov/2026:13:20:00 +0000] \
             \"GET /\\x22 200 0\\x0D\\x0A1.2.3.4 \\x1B[31m\\x5C\\xC3\\xA9\\x7F HTTP/2.0{rest}"
        ),
    );
    let text = line_of(&record(b"/\"\r\n\x1b\x7f\xc2\x9b\xff", "a\nb\u{1b}"), Format::Json, true);
    assert_eq!(text.lines().count(), 1);
    assert!(text.chars().all(|c| !c.is_control() || c == '\n'), "{text:?}");
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["target"], "/\"\r\n\u{1b}\u{fffd}\u{fffd}\u{fffd}");
    assert_eq!(
        (line["subject"].as_str(), line["time"].as_str()),
        (Some("a\nb\u{1b}"), Some("2026-11-22T13:19:59.500Z"))
    );
    assert!(line.get("referer").is_none(), "what was not sent is not said");
}

#[test]
fn a10_no_byte_whatever_adds_a_quote_a_space_or_a_line() {
    let plain = line_of(&record(b"/x", "x"), Format::Combined, true);
    let count = |line: &str, what: char| line.matches(what).count();
    for byte in 0..=255u8 {
        let field = || Some(Box::from([byte].as_slice()));
        let mut record = record(&[b'/', byte], &String::from(char::from(byte)));
        record.seen = Some(Box::new(Seen { target: [b'/', byte].into(), referer: field(), user_agent: field() }));
        let line = line_of(&record, Format::Combined, true);
        assert!(
            line.is_ascii() && count(&line, '\n') == 1 && line.chars().all(|c| !c.is_control() || c == '\n'),
            "{byte}"
        );
        assert_eq!(count(&line, '"'), count(&plain, '"'), "{byte}: {line}");
        // A space stays one where quotes hold it: in the target, the referer and the user agent.
        let more = if byte == b' ' { 3 } else { 0 };
        assert_eq!(count(&line, ' '), count(&plain, ' ') + more, "{byte}: {line}");
        assert_eq!(line_of(&record, Format::Json, true).lines().count(), 1, "{byte}");
    }
}

#[test]
fn queries_are_written_on_request_only_and_texts_are_bounded() {
    let read = |query, target: &str, agent: &str| {
        let headers = [(http::header::USER_AGENT, http::HeaderValue::from_str(agent).unwrap())];
        Collect { query }.read(&target.parse().unwrap(), &headers.into_iter().collect())
    };
    assert_eq!(*read(false, "/a?token=secret", "a").target, *b"/a");
    assert_eq!(*read(true, "/a?b=1", "a").target, *b"/a?b=1");
    let long = "x".repeat(TEXT_BYTES_MAX);
    assert_eq!(*read(false, "/", &long).user_agent.unwrap(), *long.as_bytes());
    let seen = read(true, &format!("/?{long}"), &format!("{long}x"));
    let cut = seen.user_agent.as_ref().unwrap();
    assert!(cut.len() == TEXT_BYTES_MAX + 3 && cut.ends_with(b"x..."));
    assert!(seen.target.len() == TEXT_BYTES_MAX + 3 && seen.memory() > 2 * TEXT_BYTES_MAX);
}

#[test]
fn a_tunnel_is_told_of_once_when_it_ended_and_a_question_never() {
    let open = Record { tunnel: Some("websocket".into()), ..*record(b"/", "") };
    assert_eq!(line_of(&open, Format::Combined, true), "");
    assert_ne!(line_of(&Record { is_end: true, ..open }, Format::Combined, true), "");
    assert_eq!(line_of(&Record { seen: None, ..*record(b"/", "") }, Format::Json, true), "");
}

/// Brings records and waits until each is written or lost: (written, missing).
fn bring(log: &AccessLog, records: &[Box<Record>]) -> (u64, u64) {
    let counts = || (log.stats().written.load(Ordering::Relaxed), log.stats().missing.load(Ordering::Relaxed));
    let before = counts();
    log.sink().take(records);
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let (written, missing) = counts();
        let new = (written - before.0, missing - before.1);
        if new.0 + new.1 >= records.len() as u64 {
            return new;
        }
        assert!(Instant::now() < end, "{new:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn lines_beyond_the_bound_are_lost_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let log = AccessLog::open_with(settings(folder.path(), Format::Combined), 250).unwrap();
    let (written, missing) = bring(&log, &[record(b"/a", ""), record(b"/b", ""), record(b"/c", ""), record(b"/d", "")]);
    assert!(written >= 1 && missing >= 1 && written + missing == 4, "{written} {missing}");
    assert_eq!(bring(&log, &[record(b"/e", "")]), (1, 0), "there is room again");
    log.stop();
}

#[test]
fn a_rotated_file_is_followed_at_once_when_told_and_soon_when_not() {
    let folder = tempfile::tempdir().unwrap();
    let of = settings(folder.path(), Format::Json);
    let log = AccessLog::open(of.clone()).unwrap();
    bring(&log, &[record(b"/1", "")]);
    std::fs::rename(&of.file, folder.path().join("access.log.1")).unwrap();
    log.reopen();
    bring(&log, &[record(b"/2", "")]);
    std::fs::rename(&of.file, folder.path().join("access.log.2")).unwrap();
    bring(&log, &[record(b"/3", "")]);
    log.stop();
    for (name, target) in [("access.log.1", "/1"), ("access.log.2", "/2"), ("access.log", "/3")] {
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(text.lines().count() == 1 && text.contains(&format!("\"{target}\"")), "{name}: {text}");
    }
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(&of.file).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
}

#[test]
fn a_full_disk_loses_lines_and_nothing_else() {
    let log = AccessLog::open(Settings { file: "/dev/full".into(), ..settings(Path::new(""), Format::Json) }).unwrap();
    assert_eq!(bring(&log, &[record(b"/1", ""), record(b"/2", "")]), (0, 2));
    log.stop();
}

#[test]
fn what_cannot_be_opened_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str| {
        let of = Settings { file: folder.path().join(name), ..settings(folder.path(), Format::Json) };
        assert!(AccessLog::open(of).is_err(), "{name}");
    };
    check("missing/access.log");
    check("");
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    check("pipe");
}
