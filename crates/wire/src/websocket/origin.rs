//! Whose page asks: a browser names the origin of the page that opens a WebSocket, and says nothing else about it (no Fetch
//! Metadata). It compares texts only, and resolves no name.
use http::{HeaderMap, HeaderValue, header};

/// An origin as RFC 6454 §6.2 writes it: scheme, host, and the port unless it is the scheme's own; all in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    https: bool,
    host: String,
    /// `None`: the scheme's own.
    port: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    #[error(
        "an origin is `https://host` or `http://host`, with `:port` if it is not the default one, and nothing after it"
    )]
    Form,
}

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

impl Origin {
    pub fn parse(text: &str) -> Result<Origin, OriginError> {
        let text = text.to_ascii_lowercase();
        let (https, authority) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(authority), _) => (true, authority),
            (None, Some(authority)) => (false, authority),
            (None, None) => return Err(OriginError::Form),
        };
        let (host, port) = split(authority).ok_or(OriginError::Form)?;
        let own_port = if https { HTTPS_PORT } else { HTTP_PORT };
        Ok(Origin { https, host: host.to_owned(), port: port.filter(|port| *port != own_port) })
    }

    /// Does a page of this origin talk to its own host? `authority` is what the request says in `Host` or `:authority`. Where
    /// the client spoke TLS with us, a page that came without it is another origin: anyone on its way could have written it.
    /// Without TLS here, something before us may have ended it, so the default port of either scheme is meant.
    fn is_own(&self, authority: &str, client_spoke_tls: bool) -> bool {
        if client_spoke_tls && !self.https {
            return false;
        }
        let authority = authority.to_ascii_lowercase();
        let Some((host, port)) = split(&authority) else { return false };
        let own_port = |port: &u16| *port == HTTPS_PORT || (*port == HTTP_PORT && !client_spoke_tls);
        host == self.host && port.filter(|port| !own_port(port)) == self.port
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// `host [":" port]`, nothing else.
fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let end = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at_checked(end)?;
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let plain = match inner {
        Some(address) => address.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')),
        None => host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')),
    };
    if !plain || host.is_empty() || inner.is_some_and(str::is_empty) {
        return None;
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Some((host, None)),
        Some("") => Some((host, None)),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some((host, Some(digits.parse().ok()?))),
        _ => None,
    }
}

/// May the page that asks (`Origin`) open a WebSocket here? Without the field it is no browser that asks. `others` are the
/// origins that may besides the request's own.
pub fn origin_is_own(headers: &HeaderMap, authority: &HeaderValue, client_spoke_tls: bool, others: &[Origin]) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return true };
    if origins.next().is_some() {
        return false;
    }
    // `null` and other schemes are origins too, and never ours.
    let Some(origin) = origin.to_str().ok().and_then(|text| Origin::parse(text).ok()) else { return false };
    let is_own = authority.to_str().is_ok_and(|authority| origin.is_own(authority, client_spoke_tls));
    is_own || others.contains(&origin)
}
