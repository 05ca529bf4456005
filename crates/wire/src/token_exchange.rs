//! Requests for a Txn-Token at a token endpoint: RFC 8693 in the profile of draft-ietf-oauth-transaction-tokens. The form is
//! read strictly: no parameter twice, none left unread that would change what is asked for. It verifies no token and
//! grants nothing.
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use http::{Method, Uri};

use crate::{identity, question};

pub const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub const TXN_TOKEN: &str = "urn:ietf:params:oauth:token-type:txn_token";
pub const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// A JWT of an issuer whose access tokens are of no other kind, as those of GitHub Actions and Kubernetes.
pub const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// `Content-Type` of a request.
pub const MEDIA_TYPE: &str = "application/x-www-form-urlencoded";

/// More than any request needs: the profile has ten parameters.
const PARAMETERS_MAX: usize = 32;

/// Parameters that authenticate a client in another way, or change what is asked for in a way that is not done here. To
/// ignore them would be to answer another question.
const REFUSED: [(&str, Fault); 7] = [
    ("actor_token", Fault::Actor),
    ("actor_token_type", Fault::Actor),
    ("resource", Fault::Resource),
    ("client_secret", Fault::OtherAuthentication),
    ("client_assertion", Fault::OtherAuthentication),
    ("client_assertion_type", Fault::OtherAuthentication),
    ("authorization_details", Fault::AuthorizationDetails),
];

/// Why a request for a token is refused before any token is looked at. The texts are for the caller, and hold nothing of his.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the body is no form: `name=value` pairs, percent-encoded UTF-8, joined by `&`")]
    Form,
    #[error("more than 32 parameters")]
    TooMany,
    #[error("a parameter stands more than once")]
    Multiple,
    #[error("`{0}` is missing or empty")]
    Missing(&'static str),
    #[error("`grant_type` is not `urn:ietf:params:oauth:grant-type:token-exchange`")]
    GrantType,
    #[error("`requested_token_type` is not `urn:ietf:params:oauth:token-type:txn_token`")]
    RequestedType,
    #[error("`audience` is not the name of this trust domain")]
    Audience,
    #[error("`scope` is not one scope; a Txn-Token has one purpose")]
    Scope,
    #[error("{}", .0.why())]
    SubjectType(SubjectType),
    #[error("`client_id` is not the SPIFFE ID of the caller's certificate")]
    ClientId,
    #[error("the caller is known by its certificate; send no other means of authentication")]
    OtherAuthentication,
    #[error("`actor_token` is not taken: who acts is said by the subject token")]
    Actor,
    #[error("`resource` is not taken: `request_details` names the request that the token is for")]
    Resource,
    #[error("`authorization_details` is not taken: `request_details` names the request that the token is for")]
    AuthorizationDetails,
    #[error("the method of `request_details` is no method")]
    Method,
    #[error("the path of `request_details` is no path and query as it would be sent")]
    Path,
    #[error("the host of `request_details` is no host")]
    Host,
    #[error("`req_ip` of `request_context` is no address")]
    Address,
}

/// Kinds of subject token that are not exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectType {
    Refresh,
    Id,
    TxnToken,
    SelfSigned,
    UnsignedJson,
    Other,
}

impl SubjectType {
    fn of(urn: &str) -> SubjectType {
        match urn.strip_prefix("urn:ietf:params:oauth:token-type:") {
            Some("refresh_token") => SubjectType::Refresh,
            Some("id_token") => SubjectType::Id,
            Some("txn_token") => SubjectType::TxnToken,
            Some("self_signed") => SubjectType::SelfSigned,
            Some("unsigned_json") => SubjectType::UnsignedJson,
            _ => SubjectType::Other,
        }
    }

    const fn why(self) -> &'static str {
        match self {
            SubjectType::Refresh => {
                "a refresh token is for its issuer alone; send the access token as `subject_token`, and tell nobody the refresh \
                 token"
            }
            SubjectType::Id => {
                "an ID token tells a client who signed in, and lets nobody call anything; send the access token as `subject_token`"
            }
            SubjectType::TxnToken => {
                "a Txn-Token is not replaced here: pass it on unchanged, or ask again with the access token it came from"
            }
            SubjectType::SelfSigned | SubjectType::UnsignedJson => {
                "nobody's own word makes a Txn-Token here; send an access token of a configured issuer"
            }
            SubjectType::Other => {
                "`subject_token_type` is neither `urn:ietf:params:oauth:token-type:access_token` nor \
                 `urn:ietf:params:oauth:token-type:jwt`"
            }
        }
    }
}

/// A request of which everything but the JSON parameters was read. The token in it must not be shown: no `Debug`.
pub struct Exchange {
    pub subject_token: String,
    /// What the Txn-Token shall be for.
    pub scope: String,
    /// JSON: the environment of the original request. Empty when nothing is said.
    pub request_context: String,
    /// JSON: the request that the token is for.
    pub request_details: String,
}

impl Exchange {
    /// Reads the form. `caller` is the SPIFFE ID that mutual TLS proved.
    pub fn read(body: &[u8], trust_domain: &str, caller: &str) -> Result<Exchange, Fault> {
        let mut form = Form::parse(body)?;
        if form.required("grant_type")? != GRANT_TYPE {
            return Err(Fault::GrantType);
        }
        if let Some((_, fault)) = REFUSED.iter().find(|(name, _)| form.holds(name)) {
            return Err(*fault);
        }
        if form.take("client_id").is_some_and(|client| client != caller) {
            return Err(Fault::ClientId);
        }
        if form.required("requested_token_type")? != TXN_TOKEN {
            return Err(Fault::RequestedType);
        }
        let subject_type = form.required("subject_token_type")?;
        if ![ACCESS_TOKEN, JWT].contains(&subject_type.as_str()) {
            return Err(Fault::SubjectType(SubjectType::of(&subject_type)));
        }
        if form.required("audience")? != trust_domain {
            return Err(Fault::Audience);
        }
        let scope = form.required("scope")?;
        // RFC 6749 §3.3
        if !scope.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)) {
            return Err(Fault::Scope);
        }
        Ok(Exchange {
            subject_token: form.required("subject_token")?,
            scope,
            request_context: form.take("request_context").unwrap_or_default(),
            request_details: form.required("request_details")?,
        })
    }
}

/// The request that a token is for, in the words of whoever will send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub method: Method,
    /// Path and query, byte for byte as they will be sent.
    pub target: Uri,
    /// Lower-case, without port and trailing dot.
    pub host: String,
}

impl Named {
    pub fn read(method: &str, path: &str, host: &str) -> Result<Named, Fault> {
        Ok(Named {
            method: Method::from_bytes(method.as_bytes()).map_err(|_| Fault::Method)?,
            target: question::target(path.as_bytes()).map_err(|_| Fault::Path)?,
            host: identity::named_host(host).map_err(|_| Fault::Host)?,
        })
    }
}

/// An address in its shortest true form.
pub fn address(text: &str) -> Result<IpAddr, Fault> {
    question::address(text).ok_or(Fault::Address)
}

/// The parameters of a form, none of them twice, those without a value left out (RFC 6749 §3.2).
struct Form(Vec<(String, String)>);

impl Form {
    fn parse(body: &[u8]) -> Result<Form, Fault> {
        let mut names: Vec<String> = Vec::new();
        let mut filled = Vec::new();
        for pair in body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            if names.len() == PARAMETERS_MAX {
                return Err(Fault::TooMany);
            }
            let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let (name, value) = pair.split_at_checked(at).ok_or(Fault::Form)?;
            let (name, value) = (decoded(name)?, decoded(value.strip_prefix(b"=").unwrap_or_default())?);
            // An empty one counts as well: two readers might disagree about which of two is meant.
            if names.contains(&name) {
                return Err(Fault::Multiple);
            }
            names.push(name.clone());
            if !value.is_empty() {
                filled.push((name, value));
            }
        }
        Ok(Form(filled))
    }

    fn holds(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn required(&mut self, name: &'static str) -> Result<String, Fault> {
        self.take(name).ok_or(Fault::Missing(name))
    }
}

/// `application/x-www-form-urlencoded` as RFC 6749 appendix B has it: UTF-8, `+` for a space, and nothing but printable ASCII
/// outside the escapes.
fn decoded(text: &[u8]) -> Result<String, Fault> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => hex(rest.next())? << 4 | hex(rest.next())?,
            0x21..=0x7e => *byte,
            _ => return Err(Fault::Form),
        });
    }
    match String::from_utf8(out) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(Fault::Form),
    }
}

fn hex(digit: Option<&u8>) -> Result<u8, Fault> {
    let digit = digit.and_then(|digit| char::from(*digit).to_digit(16)).ok_or(Fault::Form)?;
    u8::try_from(digit).map_err(|_| Fault::Form)
}
