//! Tunnels over real sockets: a server whose service opens one to a raw upstream, whatever is asked for.
use super::*;
use crate::settings::{Limits, ServerSettings, Timeouts};
use crate::upstream::tests::{new_target, settings};
use crate::upstream::{Opened, Pool, Target, TargetSettings};
use crate::{Connection, Refusal, Request, Response, Server, Service};
use http::StatusCode;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

const LIMIT: Duration = Duration::from_secs(10);
/// In the place of parts that may pass.
const PANIC: u64 = u64::MAX - 1;
const SWITCH: &str = "HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";

/// What the test allows, and what it learns.
struct World {
    /// Parts that may pass; `u64::MAX`: all.
    parts_left: AtomicU64,
    asked: AtomicUsize,
    panics: AtomicUsize,
    ends: Mutex<Vec<TunnelEnd>>,
    failures: Mutex<Vec<String>>,
    target: Arc<Target>,
    idle_timeout: Duration,
}

impl Permission for World {
    fn withdrawn(&self) -> Option<Withdrawn> {
        self.asked.fetch_add(1, SeqCst);
        match self.parts_left.load(SeqCst) {
            u64::MAX => None,
            0 => Some(Withdrawn::RulesChanged),
            PANIC => panic!("as asked"),
            left => {
                self.parts_left.store(left - 1, SeqCst);
                None
            }
        }
    }
}

struct App {
    world: Arc<World>,
    pool: Pool,
}

impl Service for App {
    async fn call(&self, request: Request, _: &Arc<Connection>) -> Response {
        if request.extensions().get::<Wanted>().is_none() {
            return Response::new(Body::full("plain"));
        }
        let world = &self.world;
        match self.pool.ask_for_tunnel(&world.target, request).await {
            Ok(Opened::Answer(response)) => response,
            Ok(Opened::Tunnel(head, stream)) => {
                let told = Arc::clone(world);
                let terms = Terms {
                    idle_timeout: world.idle_timeout,
                    permission: Arc::clone(world) as Arc<dyn Permission>,
                    on_end: Box::new(move |end| told.ends.lock().unwrap().push(end)),
                };
                head.map(|_| stream.into_body(terms))
            }
            Err(error) => {
                world.failures.lock().unwrap().push(error.to_string());
                let mut response = Response::new(Body::full(error.to_string()));
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                response
            }
        }
    }
    fn refused(&self, _: Refusal, _: &Connection) {}
    fn panicked(&self, _: &Connection) {
        self.world.panics.fetch_add(1, SeqCst);
    }
}

struct Running {
    server: Option<Server>,
    address: SocketAddr,
    world: Arc<World>,
}

/// An upstream that does with each connection, its head already read, what the test says.
fn upstream(act: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let act = Arc::new(act);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let act = Arc::clone(&act);
            std::thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                    head.push(byte[0]);
                }
                act(stream);
            });
        }
    });
    address
}

fn echo(mut stream: TcpStream) {
    stream.write_all(SWITCH.as_bytes()).unwrap();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

fn settings_of(upstream: SocketAddr) -> TargetSettings {
    settings(&[upstream])
}

fn start(target: TargetSettings, idle_timeout: Duration, stall: Duration) -> Running {
    let world = Arc::new(World {
        parts_left: AtomicU64::new(u64::MAX),
        asked: AtomicUsize::new(0),
        panics: AtomicUsize::new(0),
        ends: Mutex::default(),
        failures: Mutex::default(),
        target: Arc::new(new_target(target).unwrap()),
        idle_timeout,
    });
    let shared = Arc::clone(&world);
    let serving = ServerSettings {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        tls: None,
        preamble: None,
        limits: Limits::default(),
        timeouts: Timeouts { body_stall: stall, ..Timeouts::default() },
        workers: 1,
    };
    let server = Server::start(serving, move |_| App { world: Arc::clone(&shared), pool: Pool::new() }).unwrap();
    Running { address: server.addresses()[0], server: Some(server), world }
}

fn start_to(upstream: SocketAddr) -> Running {
    start(settings_of(upstream), LIMIT * 6, LIMIT * 6)
}

impl Running {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// Asks for a tunnel, and reads the head of the answer.
    fn open(&self) -> (TcpStream, String) {
        let mut stream = self.connect();
        stream
            .write_all(b"GET /ws HTTP/1.1\r\nhost: a.example\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
            .unwrap();
        let head = read_head(&mut stream);
        (stream, head)
    }

    fn opened(&self) -> TcpStream {
        let (stream, head) = self.open();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        stream
    }

    /// The end of the only tunnel.
    #[track_caller]
    fn end(&self) -> TunnelEnd {
        wait_until("a tunnel's end", || !self.world.ends.lock().unwrap().is_empty());
        let ends = self.world.ends.lock().unwrap();
        assert_eq!(ends.len(), 1, "{ends:?}");
        ends[0]
    }
}

#[track_caller]
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn read_head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn read_exact(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// What comes until the end; a reset is an end, too.
fn read_to_end(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

#[test]
fn bytes_pass_both_ways_and_are_counted() {
    let running = start_to(upstream(echo));
    let mut client = running.opened();
    for text in ["one", "two", &"three".repeat(50_000)] {
        let mut writer = client.try_clone().unwrap();
        let sent = text.to_owned();
        let writing = std::thread::spawn(move || writer.write_all(sent.as_bytes()).unwrap());
        assert_eq!(read_exact(&mut client, text.len()), text.as_bytes());
        writing.join().unwrap();
    }
    drop(client);
    let end = running.end();
    assert_eq!((end.bytes_in, end.bytes_out, end.ended), (250_006, 250_006, Ended::Client));
    assert!(running.world.asked.load(SeqCst) > 6, "asked before each part");
}

#[test]
fn a_client_that_ends_its_stream_still_gets_the_rest() {
    let running = start_to(upstream(|mut stream| {
        stream.write_all(SWITCH.as_bytes()).unwrap();
        let mut asked = Vec::new();
        stream.read_to_end(&mut asked).unwrap();
        stream.write_all(format!("you said {}", String::from_utf8_lossy(&asked)).as_bytes()).unwrap();
    }));
    let mut client = running.opened();
    client.write_all(b"good bye").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(client), b"you said good bye");
    assert_eq!(running.end().ended, Ended::Client);
}

#[test]
fn an_upstream_that_ends_its_stream_still_hears_the_rest() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    let running = start_to(upstream(move |mut stream| {
        stream.write_all(format!("{SWITCH}bye").as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        *hears.lock().unwrap() = all;
    }));
    let mut client = running.opened();
    let mut said = Vec::new();
    client.read_to_end(&mut said).unwrap();
    assert_eq!(said, b"bye");
    client.write_all(b"one more thing").unwrap();
    drop(client);
    assert_eq!(running.end().ended, Ended::Upstream);
    wait_until("the upstream hears all", || *heard.lock().unwrap() == b"one more thing");
}

#[test]
fn an_upstream_that_vanishes_ends_the_tunnel() {
    let running = start_to(upstream(|mut stream| {
        stream.write_all(format!("{SWITCH}half a fra").as_bytes()).unwrap();
    }));
    let client = running.opened();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(client), b"half a fra");
    running.end();
}

#[test]
fn a_client_that_never_reads_is_cut() {
    let running = start(
        settings_of(upstream(|mut stream| {
            stream.write_all(SWITCH.as_bytes()).unwrap();
            while stream.write_all(&[7; 65536]).is_ok() {}
        })),
        LIMIT * 6,
        Duration::from_millis(300),
    );
    let client = running.opened();
    let end = running.end();
    assert_eq!(end.ended, Ended::Stalled);
    assert!(end.bytes_out < 64 << 20, "{end:?}");
    drop(client);
}

#[test]
fn an_upstream_that_never_reads_is_cut() {
    let running = start(
        settings_of(upstream(|mut stream| {
            stream.write_all(SWITCH.as_bytes()).unwrap();
            loop {
                std::thread::park();
            }
        })),
        LIMIT * 6,
        Duration::from_millis(300),
    );
    let mut client = running.opened();
    while client.write_all(&[7; 65536]).is_ok() {}
    assert_eq!(running.end().ended, Ended::Stalled);
}

#[test]
fn a_silent_tunnel_is_closed_with_a_word() {
    let running = start(settings_of(upstream(echo)), Duration::from_millis(300), LIMIT);
    let client = running.opened();
    assert_eq!(read_to_end(client), b"\x88\x02\x03\xe9");
    let end = running.end();
    assert_eq!((end.ended, end.bytes_in, end.bytes_out), (Ended::Idle, 0, 0), "our own words are not counted");
}

#[test]
fn a6_no_part_passes_once_the_permission_is_gone() {
    let running = start_to(upstream(echo));
    let mut client = running.opened();
    client.write_all(b"\x01\x02hi").unwrap();
    assert_eq!(read_exact(&mut client, 4), b"\x01\x02hi");
    running.world.parts_left.store(0, SeqCst);
    let _ = client.write_all(b"late");
    assert_eq!(read_to_end(client), b"\x88\x02\x03\xf0");
    let end = running.end();
    assert_eq!((end.ended, end.bytes_in, end.bytes_out), (Ended::RulesChanged, 4, 4));
}

#[test]
fn within_a_frame_the_end_comes_without_a_word() {
    let running = start_to(upstream(echo));
    let mut client = running.opened();
    client.write_all(b"\x01\x7dhalf").unwrap();
    assert_eq!(read_exact(&mut client, 6), b"\x01\x7dhalf");
    running.world.parts_left.store(0, SeqCst);
    assert_eq!(read_to_end(client), b"");
    assert_eq!(running.end().ended, Ended::RulesChanged);
}

#[test]
fn a_panic_ends_its_tunnel_and_nothing_else() {
    let running = start_to(upstream(echo));
    let mut client = running.opened();
    running.world.parts_left.store(PANIC, SeqCst);
    let _ = client.write_all(b"x");
    assert_eq!(read_to_end(client), b"");
    assert_eq!(running.end().ended, Ended::Panic);
    // It is counted once it was caught, a moment after the end was told.
    wait_until("the panic is counted", || running.world.panics.load(SeqCst) > 0);
    assert_eq!(running.world.panics.load(SeqCst), 1);
    running.world.parts_left.store(u64::MAX, SeqCst);
    running.opened();
}

#[test]
fn a_panic_that_the_clock_meets_ends_its_tunnel_and_not_the_clock() {
    let running = start_to(upstream(echo));
    let client = running.opened();
    // No byte moves: only the worker's clock asks.
    running.world.parts_left.store(PANIC, SeqCst);
    assert_eq!(read_to_end(client), b"");
    assert_eq!(running.end().ended, Ended::Panic);
    wait_until("the panic is counted", || running.world.panics.load(SeqCst) > 0);

    running.world.parts_left.store(u64::MAX, SeqCst);
    let client = running.opened();
    running.world.parts_left.store(0, SeqCst);
    assert_eq!(read_to_end(client), b"\x88\x02\x03\xf0", "the clock still ends what is withdrawn");
    wait_until("the second end", || running.world.ends.lock().unwrap().len() == 2);
    assert_eq!(running.world.ends.lock().unwrap()[1].ended, Ended::RulesChanged);
    assert_eq!(running.world.panics.load(SeqCst), 1);
}

#[test]
fn a_tunnel_that_is_cut_by_the_drain_says_so() {
    let mut running = start_to(upstream(echo));
    let mut client = running.opened();
    client.write_all(b"hi").unwrap();
    assert_eq!(read_exact(&mut client, 2), b"hi");
    assert_eq!(running.server.take().unwrap().drain(Duration::from_millis(50)), 1, "counted among what was cut");
    assert_eq!(running.end().ended, Ended::Drain);
}

#[test]
fn a6_an_answer_that_is_no_switch_stays_an_answer() {
    for answer in ["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno"] {
        let running = start_to(upstream(move |mut stream| {
            stream.write_all(answer.as_bytes()).unwrap();
            let _ = stream.read(&mut [0; 16]);
        }));
        let (mut client, head) = running.open();
        assert!(head.starts_with(&answer[..12]), "{head}");
        read_exact(&mut client, 2);
        // The connection goes on as HTTP, and ends as HTTP does.
        client.write_all(b"GET / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n").unwrap();
        assert!(read_to_end(client).ends_with(b"plain"));
        assert!(running.world.ends.lock().unwrap().is_empty());
    }
}

#[test]
fn a6_a_switch_that_proves_nothing_is_no_answer() {
    for answer in [
        "HTTP/1.1 101 X\r\nconnection: upgrade\r\n\r\n",
        "HTTP/1.1 101 X\r\nupgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 X\r\nupgrade: websocket, h2c\r\nconnection: upgrade\r\n\r\n",
        "HTTP/1.1 101 X\r\nupgrade: websocket\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        "garbage\r\n\r\n",
        "",
    ] {
        let running = start_to(upstream(move |mut stream| {
            stream.write_all(answer.as_bytes()).unwrap();
        }));
        let (_, head) = running.open();
        assert!(head.starts_with("HTTP/1.1 502 "), "{answer}: {head}");
        assert!(running.world.ends.lock().unwrap().is_empty());
    }
}

#[test]
fn a_client_that_leaves_before_the_answer_leaves_nothing_open() {
    let ended = Arc::new(AtomicUsize::new(0));
    let ends = Arc::clone(&ended);
    let running = start_to(upstream(move |mut stream| {
        let _ = stream.read(&mut [0; 16]);
        ends.fetch_add(1, SeqCst);
    }));
    let mut client = running.connect();
    client
        .write_all(b"GET /ws HTTP/1.1\r\nhost: a.example\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
        .unwrap();
    client.shutdown(Shutdown::Both).unwrap();
    wait_until("the upstream's connection ends", || ended.load(SeqCst) == 1);
}
