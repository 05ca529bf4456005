//! Judges one HTTP/1 request head, line by line, as strictly as a proxy must: what two parsers could read in
//! two ways is refused (RFC 9112 §2.2, §3, §5.1, §6.3, §11). It never changes a byte and never allocates for ordinary heads.

/// What to answer, and why; `reason` is a fixed text for counting and for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    pub status: u16,
    pub reason: &'static str,
}

pub(crate) const fn bad(reason: &'static str) -> Violation {
    Violation { status: 400, reason }
}

/// How the body after a head is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TransferCoding {
    Chunked,
    /// `chunked` last, after a coding we do not know: 501.
    Unknown,
}

/// What the lines judged so far said.
#[derive(Debug, Default)]
pub(crate) struct Head {
    request_line: Option<RequestLine>,
    fields: usize,
    length: Option<u64>,
    coding: Option<TransferCoding>,
    /// Only kept when the target is in absolute form.
    host: Option<Box<[u8]>>,
    hosts: usize,
}

#[derive(Debug)]
struct RequestLine {
    version: Version,
    head_method: bool,
    /// Authority of an absolute-form target, to be compared with `Host`.
    authority: Option<Box<[u8]>>,
}

impl Head {
    pub(crate) fn has_request_line(&self) -> bool {
        self.request_line.is_some()
    }
    pub(crate) fn is_head_request(&self) -> bool {
        self.request_line.as_ref().is_some_and(|line| line.head_method)
    }

    /// `line` without its CRLF. The empty line is not given here.
    pub(crate) fn line(&mut self, line: &[u8], fields_max: usize) -> Result<(), Violation> {
        if self.request_line.is_none() {
            self.request_line = Some(request_line(line)?);
            return Ok(());
        }
        self.fields += 1;
        if self.fields > fields_max {
            return Err(Violation { status: 431, reason: "too many header fields" });
        }
        let (name, value) = field(line)?;
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &[u8]) -> Result<(), Violation> {
        self.hosts += 1;
        if self.hosts > 1 {
            return Err(bad("several Host fields"));
        }
        let value = value.trim_ascii();
        if !authority_is_plain(value) {
            return Err(bad("Host is no host"));
        }
        if self.request_line.as_ref().is_some_and(|line| line.authority.is_some()) {
            self.host = Some(value.into());
        }
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Violation> {
        if self.length.is_some() {
            return Err(bad("several Content-Length fields"));
        }
        self.length = Some(content_length(value.trim_ascii()).ok_or(bad("Content-Length is no number"))?);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Violation> {
        if self.coding.is_some() {
            return Err(bad("several Transfer-Encoding fields"));
        }
        // A tab is legal white space, but parsers differ about it: only spaces are taken off.
        let value = trim_spaces(value);
        if value.eq_ignore_ascii_case(b"chunked") {
            self.coding = Some(TransferCoding::Chunked);
            return Ok(());
        }
        let known_shape = value.rsplit(|&byte| byte == b',').next().map(trim_spaces);
        let earlier = value.split(|&byte| byte == b',').map(trim_spaces);
        let codings = earlier.clone().count();
        let unknown = earlier.take(codings.saturating_sub(1)).all(|coding| {
            [&b"gzip"[..], b"x-gzip", b"deflate", b"compress", b"x-compress"]
                .iter()
                .any(|known| coding.eq_ignore_ascii_case(known))
        });
        if codings > 1 && unknown && known_shape.is_some_and(|last| last.eq_ignore_ascii_case(b"chunked")) {
            self.coding = Some(TransferCoding::Unknown);
            return Ok(());
        }
        Err(bad("Transfer-Encoding is not exactly chunked"))
    }

    /// Judges the head as a whole after its empty line.
    pub(crate) fn end(&mut self) -> Result<Framing, Violation> {
        let Some(line) = &self.request_line else { return Err(bad("no request line")) };
        if line.version == Version::Http11 && self.hosts == 0 {
            return Err(bad("no Host field"));
        }
        if let (Some(authority), Some(host)) = (&line.authority, &self.host)
            && !authority.eq_ignore_ascii_case(host)
        {
            return Err(bad("Host differs from the target's authority"));
        }
        match (self.coding, self.length) {
            (Some(_), Some(_)) => Err(bad("both Content-Length and Transfer-Encoding")),
            (Some(_), None) if line.version == Version::Http10 => Err(bad("Transfer-Encoding in HTTP/1.0")),
            (Some(TransferCoding::Unknown), None) => {
                Err(Violation { status: 501, reason: "a transfer coding that is not implemented" })
            }
            (Some(TransferCoding::Chunked), None) => Ok(Framing::Chunked),
            (None, Some(0) | None) => Ok(Framing::None),
            (None, Some(length)) => Ok(Framing::Length(length)),
        }
    }
}

/// Digits alone, and at most nineteen: they fit, only values of the size of `u64::MAX` would not.
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}

/// The lines of a whole head, without their ends, up to the empty one. That a client ends each with CRLF is judged before.
pub(crate) struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    pub(crate) fn of(head: &'a [u8]) -> Lines<'a> {
        Lines { rest: head }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memchr(b'\n', self.rest)?;
        let (line, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest.get(1..).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Some(line).filter(|line| !line.is_empty())
    }
}

fn trim_spaces(mut value: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' '] = value {
        value = rest;
    }
    value
}

/// One field line split at its colon, name and value checked (RFC 9110 §5.1, §5.5).
pub(crate) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(bad("a folded header field"));
    }
    let Some((name, value)) = memchr::memchr(b':', line).and_then(|colon| line.split_at_checked(colon)) else {
        return Err(bad("a header field without a colon"));
    };
    if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
        return Err(bad("a header field name with a forbidden character"));
    }
    let value = value.get(1..).unwrap_or_default();
    if has_control(value) {
        return Err(bad("a header field value with a control character"));
    }
    Ok((name, value))
}

/// Written without branches so that the compiler makes vector code of it.
pub(crate) fn has_control(value: &[u8]) -> bool {
    value.iter().fold(0, |found, &byte| found | u8::from((byte < 0x20) & (byte != b'\t')) | u8::from(byte == 0x7f)) != 0
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0usize;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, clippy::indexing_slicing, reason = "byte < 256")]
        {
            let character = byte as u8;
            table[byte] = character.is_ascii_alphanumeric()
                || matches!(
                    character,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                );
        }
        byte += 1;
    }
    table
};

/// RFC 9110 §5.6.2
fn is_token(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).copied().unwrap_or(false)
}

fn request_line(line: &[u8]) -> Result<RequestLine, Violation> {
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target)) = (parts.next(), parts.next()) else {
        return Err(bad("no request line"));
    };
    let Some(version) = parts.next() else { return Err(bad("HTTP/0.9")) };
    if parts.next().is_some() || method.is_empty() || target.is_empty() || !method.iter().all(|&byte| is_token(byte)) {
        return Err(bad("a malformed request line"));
    }
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return Err(Violation { status: 505, reason: "an HTTP version that is not supported" });
        }
        _ => return Err(bad("a malformed HTTP version")),
    };
    Ok(RequestLine { version, head_method: method == b"HEAD", authority: target_form(method, target)? })
}

/// RFC 9112 §3.2. Returns the authority of an absolute-form target.
fn target_form(method: &[u8], target: &[u8]) -> Result<Option<Box<[u8]>>, Violation> {
    if method == b"CONNECT" {
        return Err(Violation { status: 501, reason: "CONNECT is not implemented" });
    }
    match target {
        [b'/', ..] if target_is_plain(target) => Ok(None),
        b"*" if method == b"OPTIONS" => Ok(None),
        b"*" => Err(bad("asterisk-form without OPTIONS")),
        [b'/', ..] => Err(bad("a forbidden character in the target")),
        _ => absolute_form(target).map(Some),
    }
}

fn absolute_form(target: &[u8]) -> Result<Box<[u8]>, Violation> {
    let rest = strip_prefix_ignore_case(target, b"http://").or_else(|| strip_prefix_ignore_case(target, b"https://"));
    let Some(rest) = rest else { return Err(bad("a target that is neither a path nor an http URL")) };
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !authority_is_plain(authority) || !target_is_plain(path) {
        return Err(bad("a forbidden character in the target"));
    }
    Ok(authority.into())
}

fn strip_prefix_ignore_case<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Visible ASCII without the fragment mark and what neither a URI nor a browser puts there unencoded. A query may hold
/// braces and back ticks, because browsers send them so (WHATWG URL, query percent-encode set).
pub(crate) fn target_is_plain(target: &[u8]) -> bool {
    let (path, query) = target.split_at(memchr::memchr(b'?', target).unwrap_or(target.len()));
    let visible =
        |plain: bool, &byte: &u8| plain & (byte > 0x20) & (byte < 0x7f) & !matches!(byte, b'#' | b'"' | b'<' | b'>');
    path.iter().fold(true, |plain, byte| visible(plain, byte) & !matches!(byte, b'^' | b'`' | b'{' | b'}'))
        && query.iter().fold(true, visible)
}

/// `host [":" port]` (RFC 9110 §7.2), never empty, never with user information.
pub(crate) fn authority_is_plain(authority: &[u8]) -> bool {
    let (host, rest) = match authority {
        [b'[', rest @ ..] => {
            let Some((inside, after)) =
                memchr::memchr(b']', rest).and_then(|end| Some((rest.get(..end)?, rest.get(end + 1..)?)))
            else {
                return false;
            };
            let address =
                !inside.is_empty() && inside.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
            (address, after)
        }
        _ => {
            let end = memchr::memchr(b':', authority).unwrap_or(authority.len());
            let (name, after) = authority.split_at(end);
            let plain = !name.is_empty()
                && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'));
            (plain, after)
        }
    };
    host && match rest {
        [] => true,
        [b':', port @ ..] => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}
