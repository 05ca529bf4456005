//! A small HTTPS client for control: GET with a deadline, a size limit, no redirects. For discovery documents and keys.
use bytes::Bytes;
use std::time::Duration;

/// What to fetch and the limits of the fetch.
#[derive(Debug, Clone)]
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

pub async fn get(_get: Get<'_>) -> Result<Got, GetError> {
    todo!()
}
