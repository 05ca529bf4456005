//! Which header fields carry identity, and are therefore stripped at every door (WIRE §4), and the request checks that
//! HTTP libraries leave to us.
use http::{HeaderMap, HeaderName};

/// Why a request's fields are refused with 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("field name `{0}` holds an underscore")]
    Underscore(String),
    #[error("`Host` is missing")]
    HostMissing,
    #[error("`Host` stands more than once")]
    HostTwice,
    #[error("`Host` `{0}` is no host")]
    HostInvalid(String),
    #[error("the target's authority differs from `Host`")]
    AuthorityDiffers,
    #[error("`Connection` nominates `{0}`")]
    ConnectionNominates(String),
}

/// Is this an identity field that no client may send? Case-insensitive, `_` folded to `-`.
pub fn is_identity(_name: &HeaderName) -> bool {
    todo!()
}

/// Removes identity fields and hop-by-hop fields (RFC 9110 §7.6.1), drops `cs` from `tracestate` and our cookies from
/// `Cookie`, refuses what WIRE §4 refuses.
pub fn clean_request(_headers: &mut HeaderMap) -> Result<(), FieldError> {
    todo!()
}

/// Removes hop-by-hop fields and `Countersign-*`/`Txn-Token` from an upstream's answer.
pub fn clean_response(_headers: &mut HeaderMap) {
    todo!()
}

/// The one host this request is for, lower-case without port, from target authority and `Host`; both must agree.
pub fn request_host(_uri: &http::Uri, _headers: &HeaderMap) -> Result<String, FieldError> {
    todo!()
}
