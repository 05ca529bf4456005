//! A tiny HTTP/1.1 origin on loopback for the checks that xtask runs itself: one thread, one request per connection, and it
//! keeps what it received. It is no benchmark's origin and no test of HTTP.
use anyhow::{Context as _, Result};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(5);
const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The head of a request, line by line, without line ends.
pub(crate) type Head = Vec<String>;

pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    received: Receiver<Head>,
}

impl Origin {
    /// Answers every GET of `path` (any path when it is `*`) with `document` until this process ends.
    pub(crate) fn start(path: &str, document: String) -> Result<Origin> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (sender, received) = channel();
        let path = path.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is no concern of the origin's.
                if let Ok(head) = serve(&stream, &path, &document) {
                    drop(sender.send(head));
                }
            }
        });
        Ok(Origin { address, received })
    }

    /// The next request that arrived, waiting a little for it.
    pub(crate) fn next(&self) -> Result<Head> {
        self.received.recv_timeout(WAIT).context("no request reached the origin")
    }
}

/// The value of a header field in a head.
pub(crate) fn field<'a>(head: &'a Head, name: &str) -> Option<&'a str> {
    let mut fields = head.iter().filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn serve(mut stream: &TcpStream, path: &str, document: &str) -> Result<Head> {
    stream.set_read_timeout(Some(WAIT))?;
    let mut reader = BufReader::new(stream);
    let mut head = Head::new();
    for line in reader.by_ref().lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    skip_body(&head, &mut reader)?;
    let asked = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let (status, body) = if path == "*" || asked == path { ("200 OK", document) } else { ("404 Not Found", "") };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(answer.as_bytes())?;
    if !asked.is_empty() && !head.first().is_some_and(|line| line.starts_with("HEAD ")) {
        stream.write_all(body.as_bytes())?;
    }
    Ok(head)
}

fn skip_body(head: &Head, reader: &mut BufReader<&TcpStream>) -> Result<()> {
    if field(head, "transfer-encoding").is_some() {
        for line in reader.take(BODY_BYTES_MAX).lines() {
            if line? == "0" {
                break;
            }
        }
    } else if let Some(length) = field(head, "content-length") {
        std::io::copy(&mut reader.take(length.parse::<u64>()?.min(BODY_BYTES_MAX)), &mut std::io::sink())?;
    }
    Ok(())
}
