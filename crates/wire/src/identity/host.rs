//! The one host a request is for. Syntax only: it resolves nothing and knows no routes.
use super::{FieldError, shown};
use http::{HeaderMap, Uri, header};
use std::net::Ipv6Addr;

const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// A host in lower case without trailing dot, and its port if it was written and is not the scheme's default.
#[derive(PartialEq, Eq)]
struct Authority {
    host: String,
    port: Option<u16>,
}

/// The one host this request is for, lower-case without port and trailing dot, from target authority and `Host`; both must
/// agree, ports included. An IPv6 literal keeps its brackets.
pub fn request_host(uri: &Uri, headers: &HeaderMap) -> Result<String, FieldError> {
    // A look at each name is cheaper than a look-up by hash.
    let mut fields = headers.iter().filter(|(name, _)| *name == header::HOST).map(|(_, value)| value);
    let field = fields.next();
    if fields.next().is_some() {
        return Err(FieldError::HostTwice);
    }
    let field = match field {
        Some(value) => {
            let text = value.to_str().map_err(|_| invalid(&String::from_utf8_lossy(value.as_bytes())))?;
            Some(authority(text, uri.scheme_str())?)
        }
        None => None,
    };
    let target = match uri.authority() {
        Some(target) => Some(authority(target.as_str(), uri.scheme_str())?),
        None => None,
    };
    match (target, field) {
        (Some(target), Some(field)) if target != field => Err(FieldError::AuthorityDiffers),
        (Some(found), _) | (None, Some(found)) => Ok(found.host),
        (None, None) => Err(FieldError::HostMissing),
    }
}

/// A host and perhaps a port, as text: the host as [`request_host`] gives it.
pub fn named_host(text: &str) -> Result<String, FieldError> {
    authority(text, None).map(|authority| authority.host)
}

fn authority(text: &str, scheme: Option<&str>) -> Result<Authority, FieldError> {
    let (host, port) = split_port(text).ok_or_else(|| invalid(text))?;
    let host = if let Some(literal) = host.strip_prefix('[') {
        let address: Ipv6Addr =
            literal.strip_suffix(']').and_then(|address| address.parse().ok()).ok_or_else(|| invalid(text))?;
        format!("[{address}]")
    } else {
        let host = host.strip_suffix('.').unwrap_or(host);
        if !is_name(host) {
            return Err(invalid(text));
        }
        host.to_ascii_lowercase()
    };
    let default = match scheme {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    };
    Ok(Authority { host, port: port.filter(|port| Some(*port) != default) })
}

/// `host`, `host:` and `host:port`.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let position = |text: &str, wanted: u8| text.bytes().position(|byte| byte == wanted);
    let after_literal = if text.starts_with('[') { position(text, b']').map_or(0, |at| at + 1) } else { 0 };
    let Some(colon) = position(text.get(after_literal..)?, b':').map(|at| at + after_literal) else {
        return Some((text, None));
    };
    let (host, port) = (text.get(..colon)?, text.get(colon + 1..)?);
    if port.is_empty() {
        return Some((host, None));
    }
    // `u16::from_str` takes a plus sign.
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((host, Some(port.parse().ok()?)))
}

fn is_name(host: &str) -> bool {
    let mut label_bytes = 0;
    for byte in host.bytes() {
        match byte {
            b'.' if label_bytes == 0 => return false,
            b'.' => label_bytes = 0,
            b'-' | b'_' => label_bytes += 1,
            _ if byte.is_ascii_alphanumeric() => label_bytes += 1,
            _ => return false,
        }
        if label_bytes > LABEL_BYTES_MAX {
            return false;
        }
    }
    label_bytes > 0 && host.len() <= HOST_BYTES_MAX
}

fn invalid(text: &str) -> FieldError {
    FieldError::HostInvalid(shown(text))
}
