//! Envoy's `envoy.service.auth.v3.Authorization/Check` as bytes: the question out of a gRPC message, the answer into one.
//! It decides nothing, and never copies what it can borrow.
//!
//! Shapes and field numbers: `envoy/service/auth/v3/external_auth.proto` and `attribute_context.proto` of Envoy's public
//! API; framing: "gRPC over HTTP/2". Fields that are not needed are passed over. What protobuf would settle silently (a
//! field that stands twice, the last one counting) is an error here: the verdict is for one request.
mod answer;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::net::IpAddr;

use crate::identity;
use crate::protobuf::{Fields, Malformed, Value};
use crate::question::{Question, address, target};
pub use answer::{Answer, health_serving};

/// `POST` to this path asks.
pub const CHECK_PATH: &str = "/envoy.service.auth.v3.Authorization/Check";
/// `grpc.health.v1`: is the server there?
pub const HEALTH_PATH: &str = "/grpc.health.v1.Health/Check";

const FRAME_HEAD_BYTES: usize = 5;

/// One `CheckRequest`, as far as it is needed.
#[derive(Debug)]
pub struct Check {
    pub question: Question,
    /// The client's fields, without pseudo-fields; values share the message's memory.
    pub headers: HeaderMap,
    /// `HTTP/1.1`, `HTTP/2` …: what the client spoke.
    pub protocol: String,
}

/// Why a message is no question. The caller must be denied: an error of gRPC would let the request pass where Envoy is
/// told to allow when it cannot ask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    #[error("the gRPC frame is broken or compressed")]
    Frame,
    #[error("the message is no valid protobuf")]
    Protobuf,
    #[error("`{0}` is missing")]
    Missing(&'static str),
    #[error("`{0}` stands more than once")]
    Twice(&'static str),
    #[error("`{0}` is not what Envoy would send")]
    Malformed(&'static str),
    #[error("`{0}` and the request's fields differ")]
    Differs(&'static str),
    /// The client's fault, not Envoy's.
    #[error("{0}")]
    Request(String),
}

impl From<Malformed> for CheckError {
    fn from(_: Malformed) -> CheckError {
        CheckError::Protobuf
    }
}

/// The one message in a gRPC request body (length-prefixed, not compressed).
pub fn message(body: &Bytes) -> Result<Bytes, CheckError> {
    let [0, a, b, c, d, message @ ..] = &**body else { return Err(CheckError::Frame) };
    if usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])) != Ok(message.len()) {
        return Err(CheckError::Frame);
    }
    Ok(body.slice(FRAME_HEAD_BYTES..))
}

impl Check {
    /// Reads a `CheckRequest`.
    pub fn parse(message: &Bytes) -> Result<Check, CheckError> {
        let attributes = only(message, 1, "attributes")?.ok_or(CheckError::Missing("attributes"))?;
        let request = only(attributes, 4, "request")?.ok_or(CheckError::Missing("attributes.request"))?;
        let http = only(request, 2, "http")?.ok_or(CheckError::Missing("attributes.request.http"))?;
        let http = Http::parse(http)?;
        let (headers, pseudo) = fields(&http, message)?;
        let method = needed(http.method, "http.method")?;
        let path = needed(http.path, "http.path")?;
        let host = needed(http.host, "http.host")?;
        let scheme = needed(http.scheme, "http.scheme")?;
        pseudo.agree([(":method", method), (":path", path), (":authority", host)])?;
        // Envoy never splits these off any more; if it did, the target would not be the bytes it sends.
        if http.query.is_some_and(|text| !text.is_empty()) || http.fragment.is_some_and(|text| !text.is_empty()) {
            return Err(CheckError::Malformed("http.query"));
        }
        let request = |error: crate::question::Fault| CheckError::Request(error.to_string());
        let question = Question {
            method: Method::from_bytes(method.as_bytes())
                .map_err(|_| CheckError::Request("the method is no token".into()))?,
            target: target(path.as_bytes()).map_err(request)?,
            host: identity::named_host(host).map_err(|error| CheckError::Request(error.to_string()))?,
            authority: HeaderValue::from_str(host).map_err(|error| CheckError::Request(error.to_string()))?,
            https: match scheme {
                "https" => true,
                "http" => false,
                _ => return Err(CheckError::Malformed("http.scheme")),
            },
            address: source_address(attributes)?,
        };
        Ok(Check { question, headers, protocol: http.protocol.unwrap_or_default().to_owned() })
    }
}

/// `AttributeContext.HttpRequest`.
#[derive(Default)]
struct Http<'a> {
    method: Option<&'a str>,
    path: Option<&'a str>,
    host: Option<&'a str>,
    scheme: Option<&'a str>,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
    protocol: Option<&'a str>,
    /// `map<string, string> headers`.
    map: Vec<&'a [u8]>,
    /// `HeaderMap header_map`, with `encode_raw_headers`.
    list: Option<&'a [u8]>,
}

impl<'a> Http<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Http<'a>, CheckError> {
        let mut http = Http::default();
        let mut fields = Fields::of(bytes);
        while let Some((number, value)) = fields.next()? {
            let (place, name) = match number {
                2 => (&mut http.method, "http.method"),
                4 => (&mut http.path, "http.path"),
                5 => (&mut http.host, "http.host"),
                6 => (&mut http.scheme, "http.scheme"),
                7 => (&mut http.query, "http.query"),
                8 => (&mut http.fragment, "http.fragment"),
                10 => (&mut http.protocol, "http.protocol"),
                3 => {
                    http.map.push(value.bytes()?);
                    continue;
                }
                13 => {
                    once(&mut http.list, value.bytes()?, "http.header_map")?;
                    continue;
                }
                // The id, the size and the body: nothing is decided by them.
                _ => continue,
            };
            once(place, value.text()?, name)?;
        }
        if http.list.is_some() && !http.map.is_empty() {
            return Err(CheckError::Twice("http.headers"));
        }
        Ok(http)
    }
}

/// Pseudo-fields, which Envoy repeats among the fields.
#[derive(Default)]
struct Pseudo<'a>(Vec<(&'a [u8], &'a [u8])>);

impl Pseudo<'_> {
    fn agree(&self, expected: [(&'static str, &str); 3]) -> Result<(), CheckError> {
        for (name, text) in expected {
            let mut found = self.0.iter().filter(|(pseudo, _)| *pseudo == name.as_bytes());
            match (found.next(), found.next()) {
                (_, Some(_)) => return Err(CheckError::Twice(name)),
                (Some((_, value)), None) if *value != text.as_bytes() => return Err(CheckError::Differs(name)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn fields<'a>(http: &Http<'a>, message: &Bytes) -> Result<(HeaderMap, Pseudo<'a>), CheckError> {
    let mut headers = HeaderMap::with_capacity(http.map.len().max(16));
    let mut pseudo = Pseudo::default();
    let mut add = |entry: &'a [u8], names: EntryNumbers| -> Result<(), CheckError> {
        let (name, value) = names.read(entry)?;
        if name.first() == Some(&b':') {
            pseudo.0.push((name, value));
            return Ok(());
        }
        let bad = || CheckError::Request("a field of the request is no valid field".into());
        let name = HeaderName::from_bytes(name).map_err(|_| bad())?;
        let value = HeaderValue::from_maybe_shared(message.slice_ref(value)).map_err(|_| bad())?;
        headers.try_append(name, value).map_err(|_| CheckError::Request("too many fields".into()))?;
        Ok(())
    };
    for entry in &http.map {
        add(entry, EntryNumbers { key: 1, value: 2, raw_value: None })?;
    }
    let mut list = Fields::of(http.list.unwrap_or_default());
    while let Some((number, value)) = list.next()? {
        if number == 1 {
            add(value.bytes()?, EntryNumbers { key: 1, value: 2, raw_value: Some(3) })?;
        }
    }
    Ok((headers, pseudo))
}

/// Where name and value stand in one entry of a map, or in one `config.core.v3.HeaderValue`.
struct EntryNumbers {
    key: u32,
    value: u32,
    raw_value: Option<u32>,
}

impl EntryNumbers {
    fn read<'a>(&self, entry: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), CheckError> {
        let (mut key, mut value) = (None, None);
        let mut fields = Fields::of(entry);
        while let Some((number, content)) = fields.next()? {
            if number == self.key {
                once(&mut key, content.bytes()?, "a field's name")?;
            } else if number == self.value || Some(number) == self.raw_value {
                once(&mut value, content.bytes()?, "a field's value")?;
            }
        }
        Ok((key.ok_or(CheckError::Missing("a field's name"))?, value.unwrap_or_default()))
    }
}

/// `attributes.source.address.socket_address.address`: the client, as Envoy settled it.
fn source_address(attributes: &[u8]) -> Result<IpAddr, CheckError> {
    const NAME: &str = "source.address";
    let missing = CheckError::Missing(NAME);
    let source = only(attributes, 1, "source")?.ok_or(missing.clone())?;
    let place = only(source, 1, NAME)?.ok_or(missing.clone())?;
    let socket = only(place, 1, NAME)?.ok_or(missing.clone())?;
    let text = only(socket, 2, NAME)?.ok_or(missing)?;
    let text = std::str::from_utf8(text).map_err(|_| CheckError::Protobuf)?;
    address(text).ok_or(CheckError::Malformed(NAME))
}

/// The content of the one field with this number.
fn only<'a>(message: &'a [u8], wanted: u32, name: &'static str) -> Result<Option<&'a [u8]>, CheckError> {
    let mut found = None;
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        if number == wanted {
            once(&mut found, value.bytes()?, name)?;
        }
    }
    Ok(found)
}

fn once<T>(place: &mut Option<T>, value: T, name: &'static str) -> Result<(), CheckError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(CheckError::Twice(name)),
    }
}

fn needed<'a>(value: Option<&'a str>, name: &'static str) -> Result<&'a str, CheckError> {
    value.filter(|text| !text.is_empty()).ok_or(CheckError::Missing(name))
}

impl<'a> Value<'a> {
    fn bytes(self) -> Result<&'a [u8], CheckError> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Number(_) => Err(CheckError::Protobuf),
        }
    }

    fn text(self) -> Result<&'a str, CheckError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| CheckError::Protobuf)
    }
}
