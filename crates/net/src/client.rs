//! A small HTTPS client for control: GET and POST with a deadline, a size limit, no redirects. For discovery documents, keys
//! and questions about tokens. It keeps no connection, sends no credentials but those it is handed, and follows nothing.
use crate::body::{Body, BodyError};
use crate::upstream::connect::{self, ConnectError, TlsClient};
use crate::upstream::exchange::Outgoing;
use crate::upstream::http1::{Home, Http1, Reply, Sending};
use crate::upstream::stream::Stream;
use bytes::Bytes;
use http::{HeaderMap, Request, Uri, header};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

mod address;
#[cfg(test)]
mod tests;

const USER_AGENT: &str = concat!("countersign/", env!("CARGO_PKG_VERSION"));

/// What to fetch and the limits of the fetch.
#[derive(Debug, Clone, Copy)]
pub struct Get<'a> {
    pub url: &'a str,
    /// `If-None-Match`
    pub etag: Option<&'a str>,
    pub bytes_max: usize,
    pub connect_timeout: Duration,
    pub total_timeout: Duration,
    /// Extra roots, PEM.
    pub roots_pem: Option<&'a [u8]>,
    /// Refuse private, loopback and link-local addresses (SSRF guard), resolved once and connected to as resolved.
    pub public_addresses_only: bool,
}

/// What to send, to where [`Get`] says (its `etag` counts for nothing). No `Debug`: it holds credentials.
pub struct Post<'a> {
    pub to: Get<'a>,
    pub content_type: &'static str,
    pub accept: &'static str,
    /// `Authorization`
    pub authorization: Option<http::HeaderValue>,
    pub body: Bytes,
}

#[derive(Debug, Clone)]
pub struct Got {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GetError {
    #[error("`{0}` is no http(s) URL")]
    Url(String),
    #[error("cannot resolve or connect: {0}")]
    Connect(String),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("the address {0} is private and not allowed for this issuer")]
    PrivateAddress(String),
    #[error("no whole answer within {0:?}")]
    Timeout(Duration),
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the answer is no valid HTTP: {0}")]
    Protocol(String),
}

/// One GET, and whatever status answered it: a redirect is returned as it is.
pub async fn get(get: Get<'_>) -> Result<Got, GetError> {
    let place = Place::parse(get.url)?;
    let request = request(&get, &place)?;
    timeout(get.total_timeout, fetch(&get, &place, request)).await.unwrap_or(Err(GetError::Timeout(get.total_timeout)))
}

/// One POST, as [`get`].
pub async fn post(post: Post<'_>) -> Result<Got, GetError> {
    post_with(post, &HeaderMap::new()).await
}

/// One POST with further fields, which are treated as secrets.
pub async fn post_with(post: Post<'_>, fields: &HeaderMap) -> Result<Got, GetError> {
    let (get, place) = (post.to, Place::parse(post.to.url)?);
    let mut builder = Request::post(place.target.clone())
        .header(header::HOST, &place.authority)
        .header(header::ACCEPT, post.accept)
        .header(header::CONTENT_TYPE, post.content_type)
        .header(header::CONTENT_LENGTH, post.body.len())
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close");
    if let Some(mut authorization) = post.authorization {
        authorization.set_sensitive(true);
        builder = builder.header(header::AUTHORIZATION, authorization);
    }
    for (name, value) in fields {
        let mut value = value.clone();
        value.set_sensitive(true);
        builder = builder.header(name, value);
    }
    let request = builder.body(Body::full(post.body)).map_err(|error| GetError::Url(error.to_string()))?;
    timeout(get.total_timeout, fetch(&get, &place, request)).await.unwrap_or(Err(GetError::Timeout(get.total_timeout)))
}

/// A URL taken apart.
struct Place {
    tls: bool,
    host: String,
    port: u16,
    /// As `Host` says it: without the scheme's default port.
    authority: String,
    target: Uri,
}

impl Place {
    fn parse(url: &str) -> Result<Place, GetError> {
        let wrong = || GetError::Url(url.chars().take(200).collect());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let (tls, default_port) = match uri.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        // User and password in a URL belong to nobody here.
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(wrong());
        }
        let port = authority.port_u16().unwrap_or(default_port);
        let host = authority.host().to_ascii_lowercase();
        let shown = if port == default_port { host.clone() } else { format!("{host}:{port}") };
        let target = uri.path_and_query().map_or("/", |path| path.as_str()).parse().map_err(|_| wrong())?;
        Ok(Place { tls, host, port, authority: shown, target })
    }
}

async fn fetch(get: &Get<'_>, place: &Place, request: Request<Body>) -> Result<Got, GetError> {
    let stream = open(get, place).await?;
    let mut connection = Http1::new(stream, get.total_timeout, None);
    let (head, body) = request.into_parts();
    let request = Request::from_parts(head, ());
    let mut sending = Sending::of(&request, Outgoing::unwatched(body));
    let head = connection.exchange(&mut sending).await.map_err(|lost| GetError::Protocol(lost.to_string()))?;
    let response = Reply::answer(connection, head, sending, Home(None), Instant::now())
        .map_err(|why| GetError::Protocol(why.to_owned()))?;
    let (head, body) = response.into_parts();
    let body = body.read_all(get.bytes_max).await.map_err(|error| match error {
        BodyError::TooLarge => GetError::TooLarge(get.bytes_max),
        other => GetError::Protocol(other.to_string()),
    })?;
    Ok(Got { status: head.status.as_u16(), headers: head.headers, body })
}

fn request(get: &Get<'_>, place: &Place) -> Result<Request<Body>, GetError> {
    let mut builder = Request::get(place.target.clone())
        .header(header::HOST, &place.authority)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close");
    if let Some(etag) = get.etag {
        builder = builder.header(header::IF_NONE_MATCH, etag);
    }
    builder.body(Body::empty()).map_err(|error| GetError::Url(error.to_string()))
}

/// Resolved once; what was judged is what is connected to.
async fn open(get: &Get<'_>, place: &Place) -> Result<Stream, GetError> {
    let tls = match place.tls {
        true => Some(TlsClient::new(&place.host, get.roots_pem, b"http/1.1").map_err(GetError::Tls)?),
        false => None,
    };
    let deadline = Instant::now() + get.connect_timeout;
    let addresses = timeout_at(deadline, connect::resolve(&place.host, place.port))
        .await
        .map_err(|_| GetError::Connect(format!("the name was not resolved within {:?}", get.connect_timeout)))?
        .map_err(refused)?;
    if get.public_addresses_only {
        only_public(&addresses)?;
    }
    connect::connect(&addresses, tls.as_ref(), &[], deadline).await.map_err(refused)
}

/// One private address among several is as bad as one alone: an attacker who answers DNS chooses both.
fn only_public(addresses: &[SocketAddr]) -> Result<(), GetError> {
    match addresses.iter().find(|address| !address::is_public(address.ip())) {
        Some(address) => Err(GetError::PrivateAddress(address.ip().to_string())),
        None => Ok(()),
    }
}

fn refused(error: ConnectError) -> GetError {
    match error {
        ConnectError::Unreachable(why) => GetError::Connect(why),
        ConnectError::Handshake(why) | ConnectError::Identity(why) => GetError::Tls(why),
    }
}
