//! Draining, cutting, panics, ports.
use crate::raw::{TestServer, start, start_with};
use net::Server;
use net::server::StartError;
use net::settings::{Limits, ServerSettings, Timeouts};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

const GRACE: Duration = Duration::from_secs(10);
/// A client that is not answered while the port closes tries again after a second, and is told that nobody listens.
const CONNECT: Duration = Duration::from_millis(500);

fn drain_in_background(server: &mut TestServer, grace: Duration) -> std::thread::JoinHandle<usize> {
    let server = server.server.take().unwrap();
    std::thread::spawn(move || server.drain(grace))
}

#[test]
fn draining_finishes_what_is_in_flight_and_says_close() {
    let mut server = start();
    let mut raw = server.connect();
    raw.get("/wait");
    server.seen.wait_for("the request", |seen| seen.requests.lock().unwrap().len() == 1);
    let drained = drain_in_background(&mut server, GRACE);
    crate::raw::wait_until("the end of listening", || std::net::TcpStream::connect(server.address).is_err());
    server.seen.go.notify_one();
    let (head, body) = raw.answer();
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert_eq!(body, "waited");
    assert_eq!(raw.read_to_end(), "");
    assert_eq!(drained.join().unwrap(), 0);
}

#[test]
fn a_unix_socket_is_served_like_a_port_and_drained_like_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("door.sock");
    let seen = Arc::new(crate::raw::Seen::default());
    let settings = ServerSettings {
        listen: Vec::new(),
        tls: None,
        preamble: None,
        limits: Limits::default(),
        timeouts: Timeouts::default(),
        workers: 2,
    };
    let made = Arc::clone(&seen);
    let server =
        Server::start_with(settings, std::slice::from_ref(&path), move |_| crate::raw::App::new(Arc::clone(&made)))
            .unwrap();
    assert_eq!(server.sockets().collect::<Vec<_>>(), [path.as_path()]);
    let connect = || {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(GRACE)).unwrap();
        stream
    };
    let ask = |stream: &mut UnixStream, path: &str| {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a.example\r\n\r\n").as_bytes()).unwrap();
    };
    let answer = |mut stream: UnixStream| {
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    // Several on one connection, many connections: whichever worker takes them.
    let mut clients: Vec<UnixStream> = (0..8).map(|_| connect()).collect();
    for client in &mut clients {
        for _ in 0..3 {
            ask(client, "/");
            let mut byte = [0; 1];
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\nhello") {
                client.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
        }
    }
    let mut busy = connect();
    ask(&mut busy, "/wait");
    seen.wait_for("the request", |seen| seen.requests.lock().unwrap().len() == 25);
    let drained = std::thread::spawn(move || server.drain(GRACE));
    crate::raw::wait_until("the socket's end", || !path.exists());
    seen.go.notify_one();
    let text = answer(busy).unwrap();
    assert!(text.contains("connection: close") && text.ends_with("waited"), "{text}");
    assert_eq!(drained.join().unwrap(), 0);
    let taken = Server::start_with(
        ServerSettings {
            listen: Vec::new(),
            tls: None,
            preamble: None,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            workers: 1,
        },
        &[folder.path().join("none/door.sock")],
        move |_| crate::raw::App::new(Arc::clone(&seen)),
    );
    assert!(matches!(taken, Err(StartError::Socket { source, .. }) if source.kind() == ErrorKind::NotFound));
}

#[test]
fn draining_closes_idle_connections_and_cuts_the_rest_after_its_grace() {
    let mut server = start();
    let mut idle = server.connect();
    idle.get("/");
    idle.answer();
    let mut busy = server.connect();
    busy.get("/wait");
    server.seen.wait_for("the request", |seen| seen.requests.lock().unwrap().len() == 2);
    let drained = drain_in_background(&mut server, Duration::from_secs(2));
    assert_eq!(idle.read_to_end(), "");
    assert_eq!(drained.join().unwrap(), 1);
    assert_eq!(server.seen.given_up.load(SeqCst), 1);
    assert_eq!(busy.read_to_end(), "");
}

/// One client that uses connections as HTTP says: an answer with `Connection: close` is the last on its connection. Returns
/// how many answers it got and which requests failed.
fn load(address: SocketAddr, stop: &AtomicBool) -> (usize, Vec<std::io::Error>) {
    let (mut answers, mut failures) = (0, Vec::new());
    // A refused connection: the listener is gone, which is no failed request.
    while !stop.load(SeqCst)
        && let Ok(stream) = TcpStream::connect(address)
    {
        stream.set_read_timeout(Some(crate::raw::LIMIT)).unwrap();
        let mut is_reused = false;
        loop {
            match exchange(&stream) {
                Ok(is_last) => {
                    answers += 1;
                    is_reused = true;
                    if is_last {
                        break;
                    }
                }
                // Closed before a byte of an answer on a connection that was idle: a client repeats it (RFC 9112 §9.3.1).
                // A request that was under way when the server closed meets a reset instead of an end.
                Err(error)
                    if is_reused
                        && matches!(
                            error.kind(),
                            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                        ) =>
                {
                    break;
                }
                Err(error) => {
                    failures.push(error);
                    break;
                }
            }
        }
    }
    (answers, failures)
}

fn exchange(mut stream: &TcpStream) -> std::io::Result<bool> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        let mut buffer = [0; 1024];
        let count = match stream.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if answer.is_empty() => return Err(error),
            Err(_) => return Err(ErrorKind::InvalidData.into()),
        };
        if count == 0 {
            let within = if answer.is_empty() { ErrorKind::UnexpectedEof } else { ErrorKind::InvalidData };
            return Err(within.into());
        }
        answer.extend_from_slice(&buffer[..count]);
    }
    Ok(memchr::memmem::find(&answer, b"connection: close").is_some())
}

#[test]
fn draining_under_load_fails_no_request() {
    for workers in [1, 2] {
        let mut server = start_with(|settings| settings.workers = workers);
        let running = server.server.take().unwrap();
        let address = server.address;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| load(address, &stop))).collect();
            server.seen.wait_for("some load", |seen| seen.requests.lock().unwrap().len() > 200);
            assert_eq!(running.drain(GRACE), 0);
            stop.store(true, SeqCst);
            for client in clients {
                let (answers, failures) = client.join().unwrap();
                assert!(answers > 0);
                assert!(failures.is_empty(), "{failures:?}");
            }
        });
    }
}

/// A connection that the system completed on our behalf is served, also when it was completed while the port closed.
#[test]
fn draining_loses_no_connection_of_its_queue() {
    for _ in 0..5 {
        let mut server = start_with(|settings| settings.workers = 2);
        let running = server.server.take().unwrap();
        let address = server.address;
        std::thread::scope(|scope| {
            let newcomers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(move || {
                        let mut answers = 0;
                        while let Ok(stream) = TcpStream::connect_timeout(&address, CONNECT) {
                            stream.set_read_timeout(Some(crate::raw::LIMIT)).unwrap();
                            exchange(&stream).unwrap();
                            answers += 1;
                        }
                        answers
                    })
                })
                .collect();
            server.seen.wait_for("some load", |seen| seen.requests.lock().unwrap().len() > 100);
            assert_eq!(running.drain(GRACE), 0);
            assert!(newcomers.into_iter().map(|newcomer| newcomer.join().unwrap()).sum::<usize>() > 0);
        });
    }
}

/// Blocks a thread of its worker, as a name server that says nothing does.
struct Blocking {
    is_blocked: AtomicBool,
    is_over: AtomicBool,
    release: Mutex<mpsc::Receiver<()>>,
}

struct BlockingService(Arc<Blocking>);
impl net::Service for BlockingService {
    async fn call(&self, _: net::Request, _: &Arc<net::Connection>) -> net::Response {
        let blocking = Arc::clone(&self.0);
        let blocked = tokio::task::spawn_blocking(move || {
            blocking.is_blocked.store(true, SeqCst);
            let _ = blocking.release.lock().unwrap().recv_timeout(crate::raw::LIMIT);
            blocking.is_over.store(true, SeqCst);
        });
        blocked.await.unwrap();
        net::Response::new(net::Body::empty())
    }
    fn refused(&self, _: net::Refusal, _: &net::Connection) {}
    fn panicked(&self, _: &net::Connection) {}
}

#[test]
fn a4_draining_does_not_wait_for_a_blocked_thread() {
    let (release, released) = mpsc::channel();
    let blocking = Arc::new(Blocking {
        is_blocked: AtomicBool::new(false),
        is_over: AtomicBool::new(false),
        release: Mutex::new(released),
    });
    let shared = Arc::clone(&blocking);
    let settings = ServerSettings {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        tls: None,
        preamble: None,
        limits: Limits::default(),
        timeouts: Timeouts::default(),
        workers: 1,
    };
    let server = Server::start(settings, move |_| BlockingService(Arc::clone(&shared))).unwrap();
    let mut raw = crate::raw::Raw::connect(server.addresses()[0]);
    raw.get("/");
    crate::raw::wait_until("the blocked thread", || blocking.is_blocked.load(SeqCst));
    assert_eq!(server.drain(Duration::from_millis(50)), 1);
    assert!(!blocking.is_over.load(SeqCst), "the drain waited for the thread");
    release.send(()).unwrap();
}

#[test]
fn dropping_a_server_frees_its_port() {
    let mut server = start();
    let mut raw = server.connect();
    raw.get("/");
    raw.answer();
    drop(server.server.take());
    assert_eq!(raw.read_to_end(), "");
    assert!(std::net::TcpStream::connect(server.address).is_err());
}

#[test]
fn a_panic_ends_its_connection_and_nothing_else() {
    let server = start();
    let mut other = server.connect();
    other.get("/");
    other.answer();
    let answer = server.talk("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    assert_eq!(server.seen.panics.load(SeqCst), 1);
    other.get("/");
    assert_eq!(other.answer().1, "hello");
}

#[test]
fn a_port_in_use_is_an_error_also_for_several_workers() {
    let server = start_with(|settings| settings.workers = 2);
    let settings = ServerSettings {
        listen: vec![server.address],
        tls: None,
        preamble: None,
        limits: Limits::default(),
        timeouts: Timeouts::default(),
        workers: 2,
    };
    let seen = Arc::clone(&server.seen);
    let second = Server::start(settings, move |_| Quiet(Arc::clone(&seen)));
    assert!(matches!(second, Err(StartError::Listen { address, .. }) if address == server.address));
}

struct Quiet(#[expect(dead_code, reason = "only keeps what the closure captured")] Arc<crate::raw::Seen>);
impl net::Service for Quiet {
    async fn call(&self, _: net::Request, _: &Arc<net::Connection>) -> net::Response {
        net::Response::new(net::Body::empty())
    }
    fn refused(&self, _: net::Refusal, _: &net::Connection) {}
    fn panicked(&self, _: &net::Connection) {}
}
