//! What a proxy that asks before it forwards (nginx `auth_request`, Traefik and Caddy forward-auth, Envoy `ext_authz`) says
//! about the request it has: method, target, host, scheme and client address. It never takes one of them from another
//! place than the configured one, and judges nobody.
//!
//! These proxies copy the client's own fields into their question, so a field the proxy forgets to set may be the client's.
//! Each fact therefore has exactly one field and stands in it exactly once; anything else is a [`Fault`].
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::identity;

/// Where a proxy says what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    pub request: RequestPlaces,
    pub scheme: HeaderName,
    pub address: HeaderName,
}

/// Where method, target and host stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestPlaces {
    /// In fields; the question's own request line and `Host` mean nothing.
    Fields { method: HeaderName, uri: HeaderName, host: HeaderName },
    /// In the question's own request line and `Host`, as Envoy's HTTP `ext_authz` repeats them.
    Own,
}

/// The request that a verdict is wanted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub method: Method,
    /// Path and query, byte for byte as the proxy said them.
    pub target: Uri,
    /// Lower-case, without port and trailing dot.
    pub host: String,
    /// Host and port as the client wrote them: what a proof of possession was made for.
    pub authority: HeaderValue,
    pub https: bool,
    pub address: IpAddr,
}

/// Why a question cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The proxy's: it does not say what it must.
    #[error("`{0}` is missing")]
    Missing(HeaderName),
    /// The proxy's: it added to what the client sent, instead of replacing it.
    #[error("`{0}` stands more than once, or as a list")]
    Multiple(HeaderName),
    /// The proxy's: it says something else in this field.
    #[error("`{field}` holds no {due}")]
    Malformed { field: HeaderName, due: &'static str },
    /// The client's: no such request is valid.
    #[error("{0}")]
    Request(String),
}

impl Places {
    /// Reads the question out of its request line and fields. Call it before the fields are cleaned.
    pub fn read(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Question, Fault> {
        let [said_method, said_target, said_host, scheme, address] = self.find(headers)?;
        let https = read_scheme(required(scheme, &self.scheme)?, &self.scheme)?;
        let address = read_address(required(address, &self.address)?, &self.address)?;
        match &self.request {
            RequestPlaces::Fields { method, uri, host } => {
                let authority = required(said_host, host)?;
                Ok(Question {
                    method: read_method(required(said_method, method)?, method)?,
                    target: read_target(required(said_target, uri)?, uri)?,
                    host: read_host(authority)?,
                    authority: authority.clone(),
                    https,
                    address,
                })
            }
            RequestPlaces::Own => Ok(Question {
                method: method.clone(),
                target: uri.clone(),
                host: identity::request_host(uri, headers).map_err(|error| Fault::Request(error.to_string()))?,
                authority: own_authority(uri, headers)?,
                https,
                address,
            }),
        }
    }

    /// The field of each fact, in one pass.
    fn find<'a>(&self, headers: &'a HeaderMap) -> Result<[Option<&'a HeaderValue>; 5], Fault> {
        let (scheme, address) = (Some(&self.scheme), Some(&self.address));
        let names = match &self.request {
            RequestPlaces::Fields { method, uri, host } => [Some(method), Some(uri), Some(host), scheme, address],
            RequestPlaces::Own => [None, None, None, scheme, address],
        };
        let mut found = [None; 5];
        for (name, value) in headers {
            for (place, _) in found.iter_mut().zip(names).filter(|(_, wanted)| *wanted == Some(name)) {
                if place.replace(value).is_some() {
                    return Err(Fault::Multiple(name.clone()));
                }
            }
        }
        Ok(found)
    }
}

/// `Host` or, where a target stands in its place, its authority: that they agree was checked.
fn own_authority(uri: &Uri, headers: &HeaderMap) -> Result<HeaderValue, Fault> {
    let of_target = || uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    let found = headers.get(http::header::HOST).cloned().or_else(of_target);
    found.ok_or_else(|| Fault::Request("no host".into()))
}

/// Configured places must differ: one field cannot be two facts.
pub fn first_doubled<'a>(names: &[&'a HeaderName]) -> Option<&'a HeaderName> {
    names.iter().enumerate().find(|(at, name)| names.iter().take(*at).any(|earlier| earlier == *name)).map(|(_, n)| *n)
}

fn required<'a>(value: Option<&'a HeaderValue>, name: &HeaderName) -> Result<&'a HeaderValue, Fault> {
    // A proxy's variable that is unset leaves an empty field.
    value.filter(|value| !value.is_empty()).ok_or_else(|| Fault::Missing(name.clone()))
}

fn read_method(value: &HeaderValue, field: &HeaderName) -> Result<Method, Fault> {
    if value.as_bytes().contains(&b',') {
        return Err(Fault::Multiple(field.clone()));
    }
    Method::from_bytes(value.as_bytes()).map_err(|_| Fault::Request("the method is no token".into()))
}

fn read_target(value: &HeaderValue, field: &HeaderName) -> Result<Uri, Fault> {
    // No target holds a space: two of them, joined as lists are.
    if value.as_bytes().windows(2).any(|pair| pair == b", ") {
        return Err(Fault::Multiple(field.clone()));
    }
    target(value.as_bytes())
}

/// Path and query, and the very bytes: nothing is decoded, dropped or added.
pub(crate) fn target(bytes: &[u8]) -> Result<Uri, Fault> {
    if bytes.first() != Some(&b'/') {
        return Err(Fault::Request("the target does not begin with `/`".into()));
    }
    let plain = |byte: &u8| (0x21..0x7f).contains(byte) && !matches!(byte, b'#' | b'"' | b'<' | b'>');
    let path_bytes = bytes.iter().position(|byte| *byte == b'?').unwrap_or(bytes.len());
    let in_path = bytes.iter().take(path_bytes).any(|byte| matches!(byte, b'^' | b'`' | b'{' | b'}'));
    if in_path || !bytes.iter().all(plain) {
        return Err(Fault::Request("a forbidden character in the target".into()));
    }
    match Uri::try_from(bytes) {
        Ok(uri) if uri.path_and_query().is_some_and(|target| target.as_str().as_bytes() == bytes) => Ok(uri),
        _ => Err(Fault::Request("the target is no path and query".into())),
    }
}

fn read_host(value: &HeaderValue) -> Result<String, Fault> {
    let text = value.to_str().map_err(|_| Fault::Request("the host holds bytes that are no text".into()))?;
    identity::named_host(text).map_err(|error| Fault::Request(error.to_string()))
}

fn read_scheme(value: &HeaderValue, field: &HeaderName) -> Result<bool, Fault> {
    match value.as_bytes() {
        b"https" => Ok(true),
        b"http" => Ok(false),
        list if list.contains(&b',') => Err(Fault::Multiple(field.clone())),
        _ => Err(Fault::Malformed { field: field.clone(), due: "scheme (`http` or `https`)" }),
    }
}

fn read_address(value: &HeaderValue, field: &HeaderName) -> Result<IpAddr, Fault> {
    if value.as_bytes().contains(&b',') {
        return Err(Fault::Multiple(field.clone()));
    }
    let text = value.to_str().ok();
    let found = text.and_then(address);
    found.ok_or_else(|| Fault::Malformed { field: field.clone(), due: "address of a client, without port" })
}

/// An address in its shortest true form; the zone of a link-local one says nothing to anybody else.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    let bare = text.split_once('%').map_or(text, |(address, _)| address);
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}
