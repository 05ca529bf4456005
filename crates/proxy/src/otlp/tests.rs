//! Collectors that are slow, dead, overloaded, or lie: what is lost is counted, and nobody waits for them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use wire::trace_context::TraceParent;

use super::deliver::Patience;
use super::export::Limits;
use super::{Otlp, Settings, spans};
use crate::audit::{Record, Sink as _};
use crate::traces::{self, Span, TrustParent};

const WAIT: Duration = Duration::from_secs(30);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Gives each request the next answer, the last one again and again. An empty answer is none, for as long as it is waited for.
struct Collector {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Collector {
    fn start(answers: &[&str]) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let answers: Vec<String> = answers.iter().map(|text| (*text).to_owned()).collect();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let at = count.fetch_add(1, Ordering::SeqCst);
                let answer = answers.get(at).or(answers.last()).cloned().unwrap_or_default();
                std::thread::spawn(move || serve(stream.unwrap(), &answer));
            }
        });
        Collector { address, requests }
    }
}

fn serve(mut stream: TcpStream, answer: &str) {
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    while !is_whole(&seen) {
        match stream.read(&mut chunk) {
            Ok(bytes @ 1..) => seen.extend_from_slice(&chunk[..bytes]),
            _ => return,
        }
    }
    if answer.is_empty() {
        // Until the other side gives up.
        let _gone = stream.read(&mut chunk);
        return;
    }
    // It may have given up already.
    let _sent = stream.write_all(answer.as_bytes());
}

fn is_whole(seen: &[u8]) -> bool {
    let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&seen[..end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    seen.len() >= end + 4 + length.unwrap_or(0)
}

fn settings(address: SocketAddr) -> Settings {
    Settings {
        endpoint: format!("http://{address}"),
        fields: Vec::new(),
        roots_pem: None,
        timeout: Duration::from_millis(300),
        service_name: "test".into(),
        traces: Some(traces::Settings { sample: traces::MILLION, trust_parent: TrustParent::Never, caller: false }),
        metrics: None,
    }
}

fn limits() -> Limits {
    let patience = Patience { first_pause: Duration::from_millis(20), give_up_after: Duration::from_millis(200) };
    Limits { spans: 8, batch: 4, gather: Duration::from_millis(5), patience, ..Limits::default() }
}

fn exporter(address: SocketAddr, limits: Limits) -> Otlp {
    let otlp = Otlp::with_limits(Arc::new(settings(address)), limits);
    otlp.start(Arc::new(Registry::default())).unwrap();
    otlp
}

fn record(sampled: bool) -> Box<Record> {
    let itself = TraceParent { trace_id: [1; 16], span_id: [2; 8], sampled };
    let span = Span { itself, parent: None, link: None, https: false, route: None, user_agent: None };
    Box::new(Record { status: 200, span: Some(Box::new(span)), ..Record::default() })
}

#[expect(clippy::vec_box, reason = "a sink is given what the audit queue holds")]
fn records(count: usize) -> Vec<Box<Record>> {
    (0..count).map(|_| record(true)).collect()
}

fn wait(what: &str, counter: &AtomicU64, expected: u64) {
    let end = Instant::now() + WAIT;
    while counter.load(Ordering::Relaxed) != expected {
        assert!(Instant::now() < end, "{what}: {} and not {expected}", counter.load(Ordering::Relaxed));
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_is_not_sampled_and_the_end_of_a_tunnel_are_no_spans() {
    assert!(spans::encode(&record(true), false).is_some());
    assert!(spans::encode(&record(false), false).is_none());
    assert!(spans::encode(&Record { is_end: true, ..*record(true) }, false).is_none());
    assert!(spans::encode(&Record { span: None, ..*record(true) }, false).is_none());
}

/// Texts that the encoded span holds and does not hold.
fn check_span(change: impl FnOnce(&mut Record), holds: &[&str], lacks: &[&str]) {
    let mut record = record(true);
    record.request.method = "GET".into();
    record.request.protocol = "HTTP/2".into();
    change(&mut record);
    let span = spans::encode(&record, false).unwrap();
    let has = |text: &&&str| span.windows(text.len()).any(|part| part == text.as_bytes());
    let missing: Vec<_> = holds.iter().filter(|text| !has(text)).collect();
    let found: Vec<_> = lacks.iter().filter(has).collect();
    assert!(missing.is_empty() && found.is_empty(), "missing {missing:?}, found {found:?}: {span:?}");
}

#[test]
fn a_span_says_what_the_conventions_ask_for() {
    let span = |record: &mut Record, change: fn(&mut Span)| change(record.span.as_mut().unwrap());
    check_span(
        |_| {},
        &["GET", "url.scheme", "http", "status_code"],
        &["https", "error.type", "_OTHER", "server.address"],
    );
    check_span(|record| span(record, |span| span.https = true), &["https"], &[]);
    check_span(|record| span(record, |span| span.route = Some("/a/**".into())), &["GET /a/**", "http.route"], &[]);
    // No caller makes a name of a span, nor a value that dashboards group by.
    let strange = |record: &mut Record| record.request.method = "PURGE-7".into();
    check_span(strange, &["HTTP", "_OTHER", "http.request.method_original", "PURGE-7"], &[]);
    check_span(|record| record.status = 404, &["status_code"], &["error.type"]);
    check_span(|record| record.status = 503, &["error.type", "503"], &[]);
    let ours = |record: &mut Record| {
        record.status = 502;
        record.reason = Some("upstream_connect".into());
    };
    check_span(ours, &["error.type", "upstream_connect"], &["502"]);
    check_span(|record| record.ended = Some("upstream_failed".into()), &["error.type", "upstream_failed"], &[]);
    check_span(|record| record.status = 499, &[], &["status_code", "error.type"]);
}

#[test]
fn a_batch_is_tried_again_when_the_collector_asks_for_it() {
    for busy in ["429 Too Many Requests", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"] {
        let later = format!("HTTP/1.1 {busy}\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n");
        let collector = Collector::start(&[&later, OK]);
        let otlp = exporter(collector.address, limits());
        otlp.clone().take(&records(3));
        wait(busy, &otlp.stats().spans_sent, 3);
        assert_eq!(collector.requests.load(Ordering::SeqCst), 2);
        otlp.stop();
    }
}

#[test]
fn what_the_collector_refuses_is_counted_and_not_tried_again() {
    let check = |answer: &str, refused: u64, sent: u64| {
        let collector = Collector::start(&[answer]);
        let otlp = exporter(collector.address, limits());
        otlp.clone().take(&records(3));
        wait(answer, &otlp.stats().spans_refused, refused);
        wait(answer, &otlp.stats().spans_sent, sent);
        assert_eq!(collector.requests.load(Ordering::SeqCst), 1, "{answer}");
        otlp.stop();
    };
    for status in ["400 Bad Request", "401 Unauthorized", "500 Internal Server Error", "307 Temporary Redirect"] {
        check(&format!("HTTP/1.1 {status}\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"), 3, 0);
    }
    let partial = "\u{a}\u{6}\u{8}\u{2}\u{12}\u{2}no";
    check(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{partial}", partial.len()), 2, 1);
    // A liar: it rejects more than it was given.
    check("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n\u{a}\u{3}\u{8}\u{7f}\u{0}", 3, 0);
    let huge = "x".repeat(1024 * 1024);
    check(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{huge}", huge.len()), 3, 0);
}

#[test]
fn a_collector_that_is_not_there_is_given_up_and_counted() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let otlp = exporter(address, limits());
    otlp.clone().take(&records(2));
    wait("nobody listens", &otlp.stats().spans_given_up, 2);
    otlp.stop();
    let nonsense = Collector::start(&["what is this\r\n\r\n"]);
    let otlp = exporter(nonsense.address, limits());
    otlp.clone().take(&records(2));
    wait("no HTTP", &otlp.stats().spans_given_up, 2);
    otlp.stop();
}

#[test]
fn a_collector_that_hangs_costs_spans_and_no_time_of_those_who_bring_them() {
    let collector = Collector::start(&[""]);
    let otlp = exporter(collector.address, Limits { batch: 8, ..limits() });
    let (done, brought) = mpsc::channel();
    let mut sink = otlp.clone();
    std::thread::spawn(move || {
        (0..100).for_each(|_| sink.take(&records(10)));
        done.send(()).unwrap();
    });
    brought.recv_timeout(WAIT).expect("bringing waits for nobody");
    let stats = otlp.stats();
    assert!(stats.spans_overflowed.load(Ordering::Relaxed) >= 2, "ten never fit into eight");
    let lost = || stats.spans_overflowed.load(Ordering::Relaxed) + stats.spans_given_up.load(Ordering::Relaxed);
    let end = Instant::now() + WAIT;
    while lost() < 1000 {
        assert!(Instant::now() < end, "{} of 1000 are accounted for", lost());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((lost(), stats.spans_sent.load(Ordering::Relaxed)), (1000, 0));
    otlp.stop();
}

#[test]
fn the_end_sends_what_waits_and_is_bounded() {
    let collector = Collector::start(&[OK]);
    let long = Duration::from_secs(3600);
    let otlp = exporter(collector.address, Limits { gather: long, ..limits() });
    otlp.clone().take(&records(3));
    otlp.stop();
    assert_eq!(otlp.stats().spans_sent.load(Ordering::Relaxed), 3);
    let hangs = Collector::start(&[""]);
    let otlp = exporter(hangs.address, Limits { stop: Duration::from_millis(10), ..limits() });
    otlp.clone().take(&records(3));
    otlp.stop();
    assert_eq!(otlp.stats().spans_sent.load(Ordering::Relaxed), 0);
}

#[test]
fn settings_are_the_same_only_if_their_secrets_are() {
    let with = |secret: &str| {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let fields = vec![(http::HeaderName::from_static("api-key"), zeroize::Zeroizing::new(secret.to_owned()))];
        Settings { fields, ..settings(address) }
    };
    assert!(with("a").is_same(&with("a")) && !with("a").is_same(&with("b")));
    assert!(!with("a").is_same(&Settings { fields: Vec::new(), ..with("a") }));
    assert!(!with("a").is_same(&Settings { timeout: Duration::ZERO, ..with("a") }));
}
