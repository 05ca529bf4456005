//! The head of an upstream's answer over HTTP/1.1 (RFC 9112 §4 to §6). What could be read in two ways is no answer. Pure: how
//! the bytes are split changes nothing. It never reads a body.
use crate::chunked::Decoder;
use crate::head::{Lines, content_length, has_control};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// Of one head; also the limit of a header list over HTTP/2.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const FIELDS_MAX: usize = 256;
/// Interim answers (1xx) before the answer.
const INTERIM_MAX: usize = 16;

/// How an answer's body is delimited (RFC 9112 §6.3).
#[derive(Debug)]
pub enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    Chunked(Box<Decoder>),
    /// Until the connection closes.
    Close,
}

/// The head of an answer, and what came with it.
#[derive(Debug)]
pub struct Head {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub framing: Framing,
    /// The upstream keeps the connection open.
    pub keeps: bool,
    /// What came behind it.
    pub rest: Bytes,
}

/// Reads heads until one that is no interim answer.
pub struct Heads {
    held: Vec<u8>,
    /// So much of it has no end of a head in it.
    searched: usize,
    is_head: bool,
    interim: usize,
    is_empty: bool,
}

impl Heads {
    /// `is_head`: the request was a HEAD.
    pub fn new(is_head: bool) -> Heads {
        Heads { held: Vec::new(), searched: 0, is_head, interim: 0, is_empty: true }
    }
    /// Did no byte come yet?
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// `Some` once a head is whole. `Err` says why it is none; ask no more then.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<Head>, &'static str> {
        self.is_empty = false;
        if self.held.is_empty() {
            let found = self.judge(bytes)?;
            return match found {
                Judged::Head(head) => Ok(Some(head)),
                Judged::More(from) => {
                    self.held = bytes.get(from..).unwrap_or_default().to_vec();
                    Ok(None)
                }
            };
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        match self.judge(&held)? {
            Judged::Head(head) => Ok(Some(head)),
            Judged::More(from) => {
                held.drain(..from);
                self.held = held;
                Ok(None)
            }
        }
    }

    fn judge(&mut self, bytes: &[u8]) -> Result<Judged, &'static str> {
        let mut from = 0;
        loop {
            let bytes = bytes.get(from..).unwrap_or_default();
            let within = bytes.get(..HEAD_BYTES_MAX).unwrap_or(bytes);
            let Some(end) = end_of_head(within, self.searched) else {
                if within.len() == HEAD_BYTES_MAX {
                    return Err("the head of its answer is too large");
                }
                // Its last two bytes may be the beginning of the end.
                self.searched = within.len().saturating_sub(2);
                return Ok(Judged::More(from));
            };
            self.searched = 0;
            let head = Head::read(bytes, end, self.is_head)?;
            if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(Judged::Head(head));
            }
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err("too many interim answers");
            }
            from += end;
        }
    }
}

enum Judged {
    Head(Head),
    /// The head that begins there is not whole.
    More(usize),
}

/// Where the head ends, its empty line included. Nothing ends before `from`.
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let mut ends = memchr::memchr_iter(b'\n', bytes.get(from..)?).map(|at| from + at);
    ends.find_map(|at| match bytes.get(at + 1..)? {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

impl Head {
    /// `end` is where the head ends in `bytes`.
    fn read(bytes: &[u8], end: usize, is_head: bool) -> Result<Head, &'static str> {
        let mut rest = Bytes::copy_from_slice(bytes);
        let head = rest.split_to(end);
        let mut lines = Lines::of(&head);
        let (is_http_11, status) = status_line(lines.next().unwrap_or_default())?;
        let mut facts = Facts::default();
        let mut headers = HeaderMap::with_capacity(16);
        for line in lines {
            if headers.len() >= FIELDS_MAX {
                return Err("its answer has too many fields");
            }
            let colon = memchr::memchr(b':', line).ok_or("a header field without a colon")?;
            let (name, value) = line.split_at_checked(colon).unwrap_or_default();
            let value = trim_blanks(value.get(1..).unwrap_or_default());
            // Both types judge what they are made of: no control character, no white space in a name, nothing folded.
            let name = HeaderName::from_bytes(name).map_err(|_| "a header field name with a forbidden character")?;
            facts.note(&name, value)?;
            let value = HeaderValue::from_maybe_shared(head.slice_ref(value))
                .map_err(|_| "a header field value with a control character")?;
            headers.append(name, value);
        }
        let has_no_body = is_head || status.is_informational() || matches!(status.as_u16(), 204 | 304);
        let framing = facts.check(is_http_11)?;
        let framing = if has_no_body { Framing::Length(0) } else { framing };
        // After 101 it speaks another protocol.
        let keeps = !facts.says_close && !status.is_informational() && (is_http_11 || facts.says_keep_alive);
        Ok(Head { status, headers, framing, keeps, rest })
    }
}

/// Most values have one blank before them and none behind.
fn trim_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// `HTTP/1.x SP status [SP reason]`
fn status_line(line: &[u8]) -> Result<(bool, StatusCode), &'static str> {
    const WRONG: &str = "its answer does not begin with an HTTP/1 status line";
    let (is_http_11, rest) = match line.split_at_checked(9).ok_or(WRONG)? {
        (b"HTTP/1.1 ", rest) => (true, rest),
        (b"HTTP/1.0 ", rest) => (false, rest),
        _ => return Err(WRONG),
    };
    let (status, reason) = rest.split_at_checked(3).ok_or(WRONG)?;
    if !matches!(reason.first(), None | Some(b' ')) || has_control(reason) {
        return Err(WRONG);
    }
    Ok((is_http_11, StatusCode::from_bytes(status).map_err(|_| WRONG)?))
}

/// What the fields say about the body and the connection.
#[derive(Default)]
struct Facts {
    length: Option<u64>,
    is_chunked: bool,
    says_close: bool,
    says_keep_alive: bool,
}

impl Facts {
    fn note(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), &'static str> {
        match *name {
            header::CONTENT_LENGTH => {
                let length = content_length(value).ok_or("its Content-Length is no number")?;
                if self.length.is_some_and(|known| known != length) {
                    return Err("its Content-Length fields differ");
                }
                self.length = Some(length);
            }
            header::TRANSFER_ENCODING => {
                if self.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err("its Transfer-Encoding is not exactly chunked");
                }
                self.is_chunked = true;
            }
            header::CONNECTION => {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    self.says_close |= option.eq_ignore_ascii_case(b"close");
                    self.says_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&self, is_http_11: bool) -> Result<Framing, &'static str> {
        match (self.is_chunked, self.length) {
            (true, Some(_)) => Err("its answer has both Content-Length and Transfer-Encoding"),
            (true, None) if !is_http_11 => Err("its answer has Transfer-Encoding in HTTP/1.0"),
            (true, None) => Ok(Framing::Chunked(Box::default())),
            (false, Some(length)) => Ok(Framing::Length(length)),
            (false, None) => Ok(Framing::Close),
        }
    }
}
