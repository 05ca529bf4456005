//! The texts of `who`, `from`, `can` and `agent`, parsed once at load. Never judges a request.

use super::method::Methods;
use super::source::{Flaw, shown};
use crate::issuer::NameSet;
use crate::path::Pattern;
use crate::spiffe::{self, SpiffeId};
use std::sync::Arc;

/// A name, of one issuer where the rule says so (`group:entra|support`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) issuer: Option<Arc<str>>,
    pub(super) name: Arc<str>,
}

/// A workload or an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Party {
    /// `*`
    Every,
    /// By the id an issuer gave it.
    Named(Name),
    /// `/shop/web`: this SPIFFE path of our trust domain or one below it, by whole segments.
    Below(Arc<str>),
    /// `spiffe://…`: exactly this SPIFFE ID.
    Exact(Arc<str>),
}

/// One entry of `who`; several mean *or*.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    Anyone,
    SignedIn,
    /// Always of one issuer: ids of two issuers are different people.
    User {
        issuer: Arc<str>,
        id: Arc<str>,
    },
    Group(Name),
    Role(Name),
    Scope(Name),
    Workload(Party),
    Agent(Party),
}

/// One entry of `from`; several mean *or*.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum From {
    Edge,
    Below(Arc<str>),
    Exact(Arc<str>),
}

/// One `METHOD[,METHOD] /pattern`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Can {
    pub(super) text: Arc<str>,
    pub(super) methods: Methods,
    pub(super) pattern: Pattern,
}

const NAME_BYTES_MAX: usize = 512;
const ACR_BYTES_MAX: usize = 128;
const SEGMENTS_MAX: usize = 32;
const WHO_FIX: &str = "write one of `anyone`, `signed-in`, `user:<issuer>|<id>`, `group:<name>`, `role:<name>`, \
                       `scope:<name>`, `workload:<path>`, `agent:<name>`";

pub(super) fn parse_who(text: &str) -> Result<Who, Flaw> {
    let text = text.trim();
    match text {
        "anyone" => return Ok(Who::Anyone),
        "signed-in" => return Ok(Who::SignedIn),
        _ => {}
    }
    let Some((kind, value)) = text.split_once(':') else {
        return Err(Flaw::new(format!("`{}` names nobody", shown(text)), WHO_FIX));
    };
    let value = value.trim();
    match kind {
        "user" => parse_user(value),
        "group" => parse_name(kind, value).map(Who::Group),
        "role" => parse_name(kind, value).map(Who::Role),
        "scope" => parse_name(kind, value).map(Who::Scope),
        "workload" => parse_party(kind, value).map(Who::Workload),
        "agent" => parse_party(kind, value).map(Who::Agent),
        _ => Err(Flaw::new(format!("`{}:` is no kind of caller", shown(kind)), WHO_FIX)),
    }
}

/// Whose word a text of `who` takes; for those who read a rule file, not for decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vouched {
    /// `group:support`: that of every issuer whose tokens can hold the name.
    ByAny { set: NameSet, name: Arc<str> },
    /// `group:entra|support`, `user:entra|2f4c…`: that of one issuer.
    By { issuer: Arc<str> },
}

impl Vouched {
    /// `None`: it needs nobody's word (`anyone`, a SPIFFE ID), or cannot be read.
    pub fn of(who: &str) -> Option<Vouched> {
        let (set, name) = match parse_who(who).ok()? {
            Who::User { issuer, .. } => return Some(Vouched::By { issuer }),
            Who::Group(name) => (Some(NameSet::Groups), name),
            Who::Role(name) => (Some(NameSet::Roles), name),
            Who::Scope(name) => (Some(NameSet::Scopes), name),
            Who::Workload(Party::Named(name)) | Who::Agent(Party::Named(name)) => (None, name),
            Who::Anyone | Who::SignedIn | Who::Workload(_) | Who::Agent(_) => return None,
        };
        match (name.issuer, set) {
            (Some(issuer), _) => Some(Vouched::By { issuer }),
            (None, Some(set)) => Some(Vouched::ByAny { set, name: name.name }),
            (None, None) => None,
        }
    }
}

/// `acr: c1`. It stands in a quoted list of a header field, where a space would make it two.
pub(super) fn parse_acr(text: &str) -> Result<Arc<str>, Flaw> {
    let text = text.trim();
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\');
    if text.is_empty() || text.len() > ACR_BYTES_MAX || !text.bytes().all(plain) {
        return Err(Flaw::new(
            format!("`{}` is no authentication context", shown(text)),
            format!(
                "write what the issuer has in `acr`, or Entra in `acrs`, as in `acr: c1`: at most {ACR_BYTES_MAX} bytes \
                 without spaces; make a list of several"
            ),
        ));
    }
    Ok(text.into())
}

/// `agent: [report-bot]`, also with the prefix that `who` needs.
pub(super) fn parse_agent(text: &str) -> Result<Party, Flaw> {
    let text = text.trim();
    let value = text.strip_prefix("agent:").map_or(text, str::trim);
    match parse_party("agent", value)? {
        Party::Named(name) if name.issuer.is_none() && value.contains(':') && !value.contains('|') => Err(Flaw::new(
            format!("`{}` is no agent", shown(text)),
            "write the agent's name, as in `agent: report-bot`",
        )),
        party => Ok(party),
    }
}

fn parse_user(value: &str) -> Result<Who, Flaw> {
    let name = parse_name("user", value)?;
    match name.issuer {
        Some(issuer) => Ok(Who::User { issuer, id: name.name }),
        None => Err(Flaw::new(
            format!("`user:{}` does not say which issuer's user", shown(value)),
            format!(
                "write `user:<issuer>|{}` with the name the issuer has in countersign.yaml; ids are unique within one \
                 issuer only",
                shown(value)
            ),
        )),
    }
}

fn parse_name(kind: &str, value: &str) -> Result<Name, Flaw> {
    let (issuer, name) = match value.split_once('|') {
        Some((issuer, name)) => (Some(issuer.trim()), name.trim()),
        None => (None, value),
    };
    let empty = name.is_empty() || issuer.is_some_and(str::is_empty);
    if empty {
        return Err(Flaw::new(format!("`{kind}:{}` has no name", shown(value)), format!("write `{kind}:<name>`")));
    }
    if name == "*" {
        return Err(Flaw::new(
            format!("`{kind}:*` names every {kind}"),
            format!("name one {kind}, or write `signed-in` for every person"),
        ));
    }
    check_text(kind, value)?;
    Ok(Name { issuer: issuer.map(Arc::from), name: name.into() })
}

fn check_text(kind: &str, value: &str) -> Result<(), Flaw> {
    if value.len() > NAME_BYTES_MAX {
        return Err(Flaw::new(
            format!("the name after `{kind}:` is {} bytes long", value.len()),
            format!("use at most {NAME_BYTES_MAX} bytes"),
        ));
    }
    if value.chars().any(char::is_control) {
        return Err(Flaw::new(
            format!("the name after `{kind}:` holds a control character"),
            "remove it; it is often a line break inside quotes",
        ));
    }
    Ok(())
}

fn parse_party(kind: &str, value: &str) -> Result<Party, Flaw> {
    if value == "*" {
        return Ok(Party::Every);
    }
    if value.starts_with('/') {
        return parse_spiffe_path(value).map(Party::Below);
    }
    if value.starts_with("spiffe://") {
        return parse_spiffe_id(value).map(Party::Exact);
    }
    let name = parse_name(kind, value)?;
    if kind == "workload" && name.issuer.is_none() {
        return Err(Flaw::new(
            format!("`workload:{}` does not say whose workload", shown(value)),
            format!(
                "write `workload:/<path>` for a workload of the trust domain, or `workload:<issuer>|{}` for one that \
                 an issuer vouches for",
                shown(value)
            ),
        ));
    }
    Ok(Party::Named(name))
}

fn parse_spiffe_path(text: &str) -> Result<Arc<str>, Flaw> {
    match spiffe::check_path(text) {
        Ok(()) => Ok(text.into()),
        Err(error) => Err(Flaw::new(
            format!("`{}` is no SPIFFE path: {error}", shown(text)),
            "write the path of the workload's SPIFFE ID, as in `/shop/web`; it covers everything below it, so `*` is \
             not needed",
        )),
    }
}

fn parse_spiffe_id(text: &str) -> Result<Arc<str>, Flaw> {
    match SpiffeId::parse(text) {
        Ok(id) => Ok(id.as_str().into()),
        Err(error) => Err(Flaw::new(
            format!("`{}` is no SPIFFE ID: {error}", shown(text)),
            "write it as `spiffe://<trust domain>/<path>`",
        )),
    }
}

pub(super) fn parse_from(text: &str) -> Result<From, Flaw> {
    let text = text.trim();
    if text == "edge" {
        return Ok(From::Edge);
    }
    if text.starts_with('/') {
        return parse_spiffe_path(text).map(From::Below);
    }
    if text.starts_with("spiffe://") {
        return parse_spiffe_id(text).map(From::Exact);
    }
    let bare = !text.is_empty() && spiffe::check_path(&format!("/{text}")).is_ok();
    let fix = if bare {
        format!("write `/{text}` if you mean that path of the trust domain, or `edge`")
    } else {
        "write `edge`, a SPIFFE path as in `/shop/web`, or a whole `spiffe://` ID".to_owned()
    };
    Err(Flaw::new(format!("`{}` is no calling workload", shown(text)), fix))
}

/// The parts of one `can` text: several may stand in it, separated by ` · `.
pub(super) fn split_can(text: &str) -> impl Iterator<Item = &str> {
    text.split('·').map(str::trim)
}

pub(super) fn parse_can(text: &str) -> Result<Can, Flaw> {
    let mut words = text.split_ascii_whitespace();
    let (Some(methods), Some(pattern), None) = (words.next(), words.next(), words.next()) else {
        return Err(shape_flaw(text));
    };
    if let Some(flaw) = later_verb(methods) {
        return Err(flaw);
    }
    if methods.starts_with('/') {
        return Err(shape_flaw(text));
    }
    Ok(Can {
        text: format!("{methods} {pattern}").into(),
        methods: parse_methods(methods)?,
        pattern: parse_pattern(pattern)?,
    })
}

fn shape_flaw(text: &str) -> Flaw {
    let first = text.split_ascii_whitespace().next().unwrap_or_default();
    if let Some(flaw) = later_verb(first) {
        return flaw;
    }
    let fix = if first.starts_with('/') {
        format!("say which methods: `GET {first}`, or `* {first}` for all of them")
    } else {
        "write a method and a path, as in `GET /orders/**`, `GET,POST /orders` or `* /orders/*`; put ` · ` between two \
         of them, or make a list"
            .to_owned()
    };
    Flaw::new(format!("`{}` is not a method and a path", shown(text)), fix)
}

fn later_verb(word: &str) -> Option<Flaw> {
    matches!(word, "PUBLISH" | "SUBSCRIBE" | "CONNECT" | "CALL").then(|| {
        Flaw::new(
            format!("`{word}` is not available on HTTP services in this version"),
            "use HTTP methods here, as in `GET /orders/**`",
        )
    })
}

fn parse_methods(text: &str) -> Result<Methods, Flaw> {
    if text == "*" {
        return Ok(Methods::ALL);
    }
    let mut methods = Methods::NONE;
    for word in text.split(',') {
        if let Some(flaw) = later_verb(word) {
            return Err(flaw);
        }
        match Methods::of_rule(word) {
            Some(method) => methods = methods.with(method),
            None => return Err(method_flaw(word)),
        }
    }
    Ok(methods)
}

fn method_flaw(word: &str) -> Flaw {
    let upper = word.to_ascii_uppercase();
    let what = format!("`{}` is not an HTTP method", shown(word));
    if Methods::of_rule(&upper).is_some() {
        return Flaw::new(what, format!("write `{upper}`: methods are case-sensitive"));
    }
    Flaw::new(what, "write a registered method such as `GET`, `POST`, `PUT`, `PATCH`, `DELETE`, or `*` for all")
}

fn parse_pattern(text: &str) -> Result<Pattern, Flaw> {
    let pattern = Pattern::parse(text).map_err(|error| {
        Flaw::new(
            format!("`{}` is no path pattern: {error}", shown(text)),
            "write a plain path; `*` stands for one whole segment and `**`, as the last, for any number of them",
        )
    })?;
    if pattern.segments().len() > SEGMENTS_MAX {
        return Err(Flaw::new(
            format!("`{}` has more than {SEGMENTS_MAX} segments", shown(text)),
            "shorten it and end it with `**`",
        ));
    }
    Ok(pattern)
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.issuer {
            Some(issuer) => write!(f, "{issuer}|{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl std::fmt::Display for Party {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Party::Every => f.write_str("*"),
            Party::Named(name) => write!(f, "{name}"),
            Party::Below(text) | Party::Exact(text) => f.write_str(text),
        }
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Who::Anyone => f.write_str("anyone"),
            Who::SignedIn => f.write_str("signed-in"),
            Who::User { issuer, id } => write!(f, "user:{issuer}|{id}"),
            Who::Group(name) => write!(f, "group:{name}"),
            Who::Role(name) => write!(f, "role:{name}"),
            Who::Scope(name) => write!(f, "scope:{name}"),
            Who::Workload(party) => write!(f, "workload:{party}"),
            Who::Agent(party) => write!(f, "agent:{party}"),
        }
    }
}

impl std::fmt::Display for From {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            From::Edge => f.write_str("edge"),
            From::Below(text) | From::Exact(text) => f.write_str(text),
        }
    }
}
