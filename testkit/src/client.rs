//! A client that sends exactly the bytes it is given and tells exactly what came back. It never mends a request.
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::http1::{Head, read_chunked, read_sized};

/// Longest wait for any byte.
const READ_LIMIT: Duration = Duration::from_secs(15);

/// An answer, taken apart.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// Status line and fields, every byte.
    pub head: Vec<u8>,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Response {
    /// First value of a field; names are compared without case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }
}

/// One TCP connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(address: impl ToSocketAddrs) -> Connection {
        let stream = TcpStream::connect(address).expect("a listener");
        stream.set_read_timeout(Some(READ_LIMIT)).unwrap();
        stream.set_write_timeout(Some(READ_LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Connection { stream: BufReader::new(stream) }
    }

    /// Errors when the other side has closed.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// The next answer to a request that is not a HEAD; 1xx answers are answers too. `None` when the connection ends.
    pub fn read(&mut self) -> Option<Response> {
        self.read_for("GET")
    }

    /// The next answer to a request of this method.
    pub fn read_for(&mut self, method: &str) -> Option<Response> {
        let head = Head::read(&mut self.stream)?;
        let status = head.first_line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let mut response = Response {
            status,
            head: head.raw.clone(),
            fields: head.fields.clone(),
            body: Vec::new(),
            trailers: vec![],
        };
        let bodiless = method == "HEAD" || status / 100 == 1 || status == 204 || status == 304;
        let body = &mut response.body;
        if bodiless {
        } else if head.is_chunked() {
            response.trailers = read_chunked(&mut self.stream, |piece| body.extend_from_slice(piece)).ok()?;
        } else if let Some(bytes) = head.content_length() {
            read_sized(&mut self.stream, bytes, |piece| body.extend_from_slice(piece)).ok()?;
        } else {
            self.stream.read_to_end(body).ok()?;
        }
        Some(response)
    }

    /// So many bytes of whatever comes.
    pub fn read_bytes(&mut self, count: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).map(|()| bytes)
    }

    /// Everything until the end of the connection.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset is an end too.
        let _ = self.stream.read_to_end(&mut bytes);
        bytes
    }

    /// Has the other side closed, without another byte? Waits up to 15 seconds for either.
    pub fn is_closed(&mut self) -> bool {
        match self.stream.fill_buf() {
            Ok(bytes) => bytes.is_empty(),
            Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        }
    }

    /// No more bytes from here; answers can still come.
    pub fn finish(&mut self) {
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
    }

    pub fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }
}

/// Sends the bytes on a new connection and reads one answer; `None` if there is none.
pub fn send(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Option<Response> {
    let mut connection = Connection::open(address);
    let method = String::from_utf8_lossy(bytes.as_ref()).split(' ').next().unwrap_or_default().to_owned();
    connection.write(bytes).ok()?;
    connection.read_for(&method)
}

/// An answer as another program shows it: head, empty line, body without its framing. `None` if it is none.
pub fn parse(shown: &[u8]) -> Option<Response> {
    let end = shown.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = shown.split_at(end + 4);
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let field = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    Some(Response {
        status,
        head: head.to_vec(),
        fields: lines.filter_map(field).collect(),
        body: body.to_vec(),
        trailers: vec![],
    })
}

/// A plain request with `Host` and `Connection: close`, and these further fields.
#[track_caller]
pub fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Response {
    let body = body.as_ref();
    let mut head = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\n");
    if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str(&format!("host: {address}\r\n"));
    }
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    send(address, bytes).unwrap_or_else(|| panic!("no answer to {method} {target}"))
}

/// `GET` with these further fields.
#[track_caller]
pub fn get(address: SocketAddr, target: &str, fields: &[(&str, &str)]) -> Response {
    request(address, "GET", target, fields, "")
}
