//! As much of an HTTP/1.1 server as issuer and upstream need: a listener that can go away and come back, heads as they came,
//! bodies counted. It judges nothing: what arrives is recorded as it arrived.
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A read that lasts longer is a test that hangs.
const READ_LIMIT: Duration = Duration::from_secs(60);

pub(crate) trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// One accepted connection.
pub(crate) struct Connection {
    pub(crate) stream: BufReader<Box<dyn Duplex>>,
    /// The listener goes down: answer nothing more.
    pub(crate) down: Arc<AtomicBool>,
}

type Handler = Arc<dyn Fn(Connection) + Send + Sync>;

/// A listener on a loopback port of its own.
pub(crate) struct Listener {
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    handler: Handler,
    accepted: Arc<AtomicUsize>,
    running: Mutex<Option<Running>>,
}

struct Running {
    down: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    thread: JoinHandle<()>,
}

impl Listener {
    pub(crate) fn start(
        tls: Option<Arc<ServerConfig>>,
        handler: impl Fn(Connection) + Send + Sync + 'static,
    ) -> Listener {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
        let address = socket.local_addr().unwrap();
        let listener =
            Listener { address, tls, handler: Arc::new(handler), accepted: Arc::default(), running: Mutex::new(None) };
        listener.run(socket);
        listener
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Refuses connections and cuts the open ones.
    pub(crate) fn down(&self) {
        let Some(running) = lock(&self.running).take() else {
            return;
        };
        running.down.store(true, Ordering::SeqCst);
        // Wakes the accept; whether somebody listened does not matter.
        drop(TcpStream::connect(self.address));
        running.thread.join().expect("the accepting thread");
        for stream in lock(&running.open).drain(..) {
            // Already closed by the other side is fine.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Listens again on the same port.
    pub(crate) fn up(&self) {
        if lock(&self.running).is_none() {
            self.run(TcpListener::bind(self.address).expect("the same port again"));
        }
    }

    fn run(&self, socket: TcpListener) {
        let down = Arc::new(AtomicBool::new(false));
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let (handler, tls, accepted) = (Arc::clone(&self.handler), self.tls.clone(), Arc::clone(&self.accepted));
        let (stop, streams) = (Arc::clone(&down), Arc::clone(&open));
        let thread = std::thread::spawn(move || {
            for stream in socket.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                accepted.fetch_add(1, Ordering::SeqCst);
                let Ok(copy) = stream.try_clone() else { continue };
                lock(&streams).push(copy);
                let (handler, tls, down) = (Arc::clone(&handler), tls.clone(), Arc::clone(&stop));
                std::thread::spawn(move || {
                    let end = stream.try_clone();
                    serve(stream, tls, down, &handler);
                    // The copy kept for `down` would hold the connection open.
                    if let Ok(end) = end {
                        let _ = end.shutdown(std::net::Shutdown::Both);
                    }
                });
            }
        });
        *lock(&self.running) = Some(Running { down, open, thread });
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.down();
    }
}

fn serve(stream: TcpStream, tls: Option<Arc<ServerConfig>>, down: Arc<AtomicBool>, handler: &Handler) {
    stream.set_read_timeout(Some(READ_LIMIT)).unwrap();
    stream.set_write_timeout(Some(READ_LIMIT)).unwrap();
    // Small answers must not wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let stream: Box<dyn Duplex> = match tls {
        None => Box::new(stream),
        Some(config) => Box::new(StreamOwned::new(ServerConnection::new(config).unwrap(), stream)),
    };
    handler(Connection { stream: BufReader::with_capacity(64 * 1024, stream), down });
}

/// A request's or an answer's head, as it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    pub(crate) raw: Vec<u8>,
    pub(crate) first_line: String,
    pub(crate) fields: Vec<(String, String)>,
}

impl Head {
    /// `None` at the end of the connection, or when it breaks.
    pub(crate) fn read(from: &mut impl BufRead) -> Option<Head> {
        let mut head = Head::default();
        loop {
            let mut line = Vec::new();
            if from.take(1 << 20).read_until(b'\n', &mut line).ok()? == 0 {
                return None;
            }
            head.raw.extend_from_slice(&line);
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            if text.is_empty() {
                return (!head.first_line.is_empty()).then_some(head);
            }
            if head.first_line.is_empty() {
                head.first_line = text;
            } else {
                let (name, value) = text.split_once(':').unwrap_or((&text, ""));
                head.fields.push((name.to_owned(), value.trim().to_owned()));
            }
        }
    }

    /// First value of a field; names are compared without case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_chunked(&self) -> bool {
        self.field("transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().contains("chunked"))
    }

    pub(crate) fn content_length(&self) -> Option<u64> {
        self.field("content-length")?.parse().ok()
    }
}

/// Reads a body of the given length, handing on every piece. Errors when it breaks off.
pub(crate) fn read_sized(from: &mut impl BufRead, bytes: u64, mut piece: impl FnMut(&[u8])) -> std::io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let buffer = from.fill_buf()?;
        if buffer.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let take = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        piece(&buffer[..take]);
        from.consume(take);
        left -= take as u64;
    }
    Ok(())
}

/// Reads a chunked body, handing on every piece; returns the trailer fields.
pub(crate) fn read_chunked(
    from: &mut impl BufRead,
    mut piece: impl FnMut(&[u8]),
) -> std::io::Result<Vec<(String, String)>> {
    loop {
        let line = read_line(from)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(std::io::Error::other)?;
        if size == 0 {
            break;
        }
        read_sized(from, size, &mut piece)?;
        if !read_line(from)?.is_empty() {
            return Err(std::io::Error::other("no CRLF after a chunk"));
        }
    }
    let mut trailers = Vec::new();
    loop {
        let line = read_line(from)?;
        if line.is_empty() {
            return Ok(trailers);
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        trailers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn read_line(from: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = Vec::new();
    if from.take(1 << 20).read_until(b'\n', &mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
}

/// A whole answer with a `Content-Length`.
pub(crate) fn answer(to: &mut dyn Write, status: u16, fields: &[(&str, &str)], body: &[u8]) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} Status\r\n");
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if status != 304 {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut whole = head.into_bytes();
    whole.extend_from_slice(body);
    to.write_all(&whole)?;
    to.flush()
}
