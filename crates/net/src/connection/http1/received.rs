//! A request head that the guard let through, as the request it is. It never judges: what cannot be read here was refused
//! there, but for what the library of HTTP types will not have.
use crate::head::{Lines, Violation, bad};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};

/// A head, and what its connection has to know of it.
pub(super) struct Received {
    pub(super) head: http::request::Parts,
    pub(super) is_head: bool,
    pub(super) is_http_10: bool,
    /// The client keeps the connection.
    pub(super) keeps: bool,
    pub(super) takes_trailers: bool,
    pub(super) wants_upgrade: bool,
    pub(super) expects_continue: bool,
}

impl Received {
    /// `bytes` is a whole head with its line ends, which the guard has judged.
    pub(super) fn read(bytes: &[u8]) -> Result<Received, Violation> {
        let head = Bytes::copy_from_slice(bytes.trim_ascii_start());
        let mut lines = Lines::of(&head);
        let (parts, ()) = http::Request::new(()).into_parts();
        let mut received = Received {
            head: parts,
            is_head: false,
            is_http_10: false,
            keeps: false,
            takes_trailers: false,
            wants_upgrade: false,
            expects_continue: false,
        };
        received.request_line(&head, lines.next().unwrap_or_default())?;
        let (mut says_close, mut says_keep_alive) = (false, false);
        received.head.headers = HeaderMap::with_capacity(16);
        for line in lines {
            let Some((name, value)) = memchr::memchr(b':', line).and_then(|colon| line.split_at_checked(colon)) else {
                continue;
            };
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            let name =
                HeaderName::from_bytes(name).map_err(|_| bad("a header field name with a forbidden character"))?;
            match name {
                header::CONNECTION => {
                    says_close |= has_option(value, b"close");
                    says_keep_alive |= has_option(value, b"keep-alive");
                }
                header::TE => received.takes_trailers |= has_option(value, b"trailers"),
                header::UPGRADE => received.wants_upgrade = true,
                header::EXPECT => received.expects_continue |= value.eq_ignore_ascii_case(b"100-continue"),
                _ => {}
            }
            let value = HeaderValue::from_maybe_shared(head.slice_ref(value))
                .map_err(|_| bad("a header field value with a control character"))?;
            received.head.headers.append(name, value);
        }
        received.keeps = if received.is_http_10 { says_keep_alive && !says_close } else { !says_close };
        received.wants_upgrade &= !received.is_http_10;
        received.expects_continue &= !received.is_http_10;
        Ok(received)
    }

    fn request_line(&mut self, head: &Bytes, line: &[u8]) -> Result<(), Violation> {
        let mut parts = line.split(|byte| *byte == b' ');
        let (method, target, version) = (parts.next(), parts.next(), parts.next());
        let method = method.unwrap_or_default();
        self.head.method = Method::from_bytes(method).map_err(|_| bad("a malformed request line"))?;
        let target = head.slice_ref(target.unwrap_or_default());
        self.head.uri = Uri::from_maybe_shared(target).map_err(|_| bad("a forbidden character in the target"))?;
        self.is_http_10 = version == Some(b"HTTP/1.0");
        self.head.version = if self.is_http_10 { Version::HTTP_10 } else { Version::HTTP_11 };
        self.is_head = self.head.method == Method::HEAD;
        Ok(())
    }
}

fn has_option(value: &[u8], option: &[u8]) -> bool {
    value.split(|byte| matches!(byte, b',' | b';')).any(|part| part.trim_ascii().eq_ignore_ascii_case(option))
}
