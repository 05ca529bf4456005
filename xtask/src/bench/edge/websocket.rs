//! WebSocket messages there and back. One thread holds both ends: it sends a message on every connection, echoes what arrives at
//! the origin's end, and reads what came back, so that the load costs as little as it can and the proxy is never idle for long.
//! Just enough of RFC 6455 for one small text frame at a time, without extensions, over loopback; nobody's WebSocket library.
use anyhow::{Context as _, Result, bail, ensure};
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 48;
const MESSAGE: [u8; 64] = [b'm'; 64];
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// The key and the accept value of RFC 6455 §1.3. Proxies hand both on.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const FINAL_TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;
const WAIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(1);
const HEAD_LINES_MAX: usize = 100;

/// Where proxies find the origin.
pub(super) struct Origin(TcpListener);

impl Origin {
    pub(super) fn bind(port: u16) -> Result<Origin> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).context("the WebSocket origin")?;
        listener.set_nonblocking(true)?;
        Ok(Origin(listener))
    }

    /// How many messages came back in `seconds`, over all connections.
    pub(super) fn messages(&self, port: u16, path: &str, seconds: u32) -> Result<f64> {
        let mut open = (0..CONNECTIONS).map(|_| self.open(port, path)).collect::<Result<Vec<_>>>()?;
        let sent = [&[FINAL_TEXT, MASKED | MESSAGE.len() as u8], &MASK[..], &masked(&MESSAGE, MASK)].concat();
        let end = Instant::now() + Duration::from_secs(seconds.into());
        let mut count: u32 = 0;
        while Instant::now() < end {
            for (client, _) in &mut open {
                client.stream.write_all(&sent)?;
            }
            for (_, origin) in &mut open {
                origin.echo()?;
            }
            for (client, _) in &mut open {
                ensure!(client.message()? == MESSAGE, "another message came back");
                count += 1;
            }
        }
        Ok(count.into())
    }

    /// One WebSocket through the proxy on `port`: the client's end and ours.
    fn open(&self, port: u16, path: &str) -> Result<(End, End)> {
        let mut client = End::of(TcpStream::connect(("127.0.0.1", port))?)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        client.stream.write_all(request.as_bytes())?;
        let mut origin = End::of(self.accept()?)?;
        ensure!(holds(&origin.head()?, "sec-websocket-key", KEY), "the proxy did not hand on the client's key");
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
        );
        origin.stream.write_all(answer.as_bytes())?;
        let head = client.head()?;
        ensure!(head.first().is_some_and(|line| line.contains(" 101 ")), "no WebSocket but `{}`", head.join(" | "));
        ensure!(holds(&head, "sec-websocket-accept", ACCEPT), "a wrong Sec-WebSocket-Accept");
        Ok((client, origin))
    }

    fn accept(&self) -> Result<TcpStream> {
        let deadline = Instant::now() + WAIT;
        loop {
            match self.0.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    std::thread::sleep(POLL);
                }
                Err(error) => bail!("the proxy does not connect to the origin: {error}"),
            }
        }
    }
}

/// One end of a connection.
struct End {
    stream: TcpStream,
    received: BufReader<TcpStream>,
}

impl End {
    fn of(stream: TcpStream) -> Result<End> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WAIT))?;
        Ok(End { received: BufReader::new(stream.try_clone()?), stream })
    }

    /// A head without line ends.
    fn head(&mut self) -> Result<Vec<String>> {
        let lines = self.received.by_ref().lines().take(HEAD_LINES_MAX);
        Ok(lines.take_while(|line| !matches!(line, Ok(line) if line.is_empty())).collect::<Result<_, _>>()?)
    }

    fn message(&mut self) -> Result<Vec<u8>> {
        read_frame(&mut self.received)
    }

    fn echo(&mut self) -> Result<()> {
        let message = self.message()?;
        let length = u8::try_from(message.len())?;
        Ok(self.stream.write_all(&[&[FINAL_TEXT, length], message.as_slice()].concat())?)
    }
}

fn holds(head: &[String], name: &str, value: &str) -> bool {
    let mut fields = head.iter().filter_map(|line| line.split_once(':'));
    fields.any(|(field, it)| field.eq_ignore_ascii_case(name) && it.trim() == value)
}

/// One whole text message of less than 126 bytes, unmasked.
fn read_frame(stream: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut start = [0; 2];
    stream.read_exact(&mut start).context("no message came")?;
    let [kind, length] = start;
    ensure!(kind == FINAL_TEXT && length & !MASKED < 126, "not a small text frame: {kind:#x} {length:#x}");
    let mut mask = [0; 4];
    if length & MASKED != 0 {
        stream.read_exact(&mut mask)?;
    }
    let mut message = vec![0; usize::from(length & !MASKED)];
    stream.read_exact(&mut message)?;
    Ok(masked(&message, mask))
}

fn masked(message: &[u8], mask: [u8; 4]) -> Vec<u8> {
    message.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let check = |bytes: &[u8], expected: Option<&[u8]>| {
            assert_eq!(read_frame(&mut &*bytes).ok().as_deref(), expected, "{bytes:?}");
        };
        check(b"\x81\x02hi", Some(b"hi"));
        // RFC 6455 §5.7.
        check(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", Some(b"Hello"));
        check(b"\x81\x00", Some(b""));
        check(b"\x82\x02hi", None);
        check(b"\xc1\x02hi", None);
        check(b"\x81\x7e\x00\x80", None);
        check(b"\x81\x03hi", None);
        check(b"", None);
    }

    /// Without a proxy between them, both ends meet.
    #[test]
    fn messages_go_there_and_back() {
        let origin = Origin::bind(0).unwrap();
        let port = origin.0.local_addr().unwrap().port();
        let (mut client, mut end) = origin.open(port, "/").unwrap();
        for text in [&b"hi"[..], b"again"] {
            let length = u8::try_from(text.len()).unwrap();
            client
                .stream
                .write_all(&[&[FINAL_TEXT, MASKED | length], &MASK[..], &masked(text, MASK)].concat())
                .unwrap();
            end.echo().unwrap();
            assert_eq!(client.message().unwrap(), text);
        }
    }
}
