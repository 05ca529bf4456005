//! What a `when` expression may read: the one table of `context`, its Cedar schema, and the values of one request. An
//! attribute that is not known, such as groups an issuer left out, is an error and never an empty value.

use super::decide::{Judge, Peer};
use super::params::{self, Kind, ParamError};
use crate::principal::{self, Membership, Principal};
use cedar_policy::RestrictedExpression;
use serde_json::{Value, json};
use std::sync::Arc;

/// One attribute of `context`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fact {
    Method,
    Path,
    Host,
    Subject,
    Id,
    Issuer,
    Kind,
    Client,
    Acr,
    Amr,
    AuthTime,
    Groups,
    Roles,
    Scopes,
    Agent,
    Peer,
    Time,
    ClientIp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    Texts,
    Number,
    Address,
}

/// One row: `section` is empty for attributes of `context` itself.
pub(super) struct Row {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    pub(super) fact: Fact,
    shape: Shape,
    /// Strict validation asks for `has` before it is read.
    optional: bool,
}

const fn row(section: &'static str, name: &'static str, fact: Fact, shape: Shape, optional: bool) -> Row {
    Row { section, name, fact, shape, optional }
}

pub(super) const ROWS: [Row; 18] = [
    row("request", "method", Fact::Method, Shape::Text, false),
    row("request", "path", Fact::Path, Shape::Text, false),
    row("request", "host", Fact::Host, Shape::Text, false),
    row("principal", "subject", Fact::Subject, Shape::Text, false),
    row("principal", "id", Fact::Id, Shape::Text, false),
    row("principal", "issuer", Fact::Issuer, Shape::Text, false),
    row("principal", "kind", Fact::Kind, Shape::Text, false),
    row("principal", "client", Fact::Client, Shape::Text, true),
    row("principal", "acr", Fact::Acr, Shape::Text, true),
    row("principal", "amr", Fact::Amr, Shape::Texts, false),
    row("principal", "auth_time", Fact::AuthTime, Shape::Number, true),
    row("principal", "groups", Fact::Groups, Shape::Texts, false),
    row("principal", "roles", Fact::Roles, Shape::Texts, false),
    row("principal", "scopes", Fact::Scopes, Shape::Texts, false),
    row("", "agent", Fact::Agent, Shape::Text, true),
    row("", "peer", Fact::Peer, Shape::Text, false),
    row("", "time", Fact::Time, Shape::Number, false),
    row("", "client_ip", Fact::ClientIp, Shape::Address, false),
];

/// A query parameter that an expression reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Param {
    pub(super) name: Arc<str>,
    pub(super) kind: Kind,
    /// The expression asks `has` first; otherwise a missing parameter is an error.
    pub(super) optional: bool,
}

/// Why an expression could not be evaluated for one request. The rule then does not allow, or, in `never`, refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WhenError {
    #[error(transparent)]
    Param(#[from] ParamError),
    #[error("the issuer did not say which {0} the caller has")]
    MembershipUnknown(&'static str),
    #[error("the client's address is not known")]
    NoClientIp,
    #[error("{0}")]
    Evaluation(String),
}

impl Fact {
    /// The value for this request; `None` for an optional attribute that is not there.
    pub(super) fn value(self, judge: &Judge<'_>) -> Result<Option<RestrictedExpression>, WhenError> {
        let input = judge.input;
        let value = match self {
            Fact::Method => Some(text(input.method)),
            Fact::Path => Some(text(input.path.as_str())),
            Fact::Host => Some(text(input.host)),
            Fact::Time => Some(RestrictedExpression::new_long(input.now)),
            Fact::Peer => Some(match input.peer {
                Peer::Edge => text("edge"),
                Peer::Workload(id) => text(id.as_str()),
            }),
            Fact::ClientIp => Some(address(input.client_ip.ok_or(WhenError::NoClientIp)?)),
            Fact::Agent => acting(input.principal).map(|agent| text(&agent)),
            _ => match input.principal {
                Some(principal) => self.of_principal(principal)?,
                None => None,
            },
        };
        Ok(value)
    }

    fn of_principal(self, principal: &Principal) -> Result<Option<RestrictedExpression>, WhenError> {
        let assurance = &principal.assurance;
        Ok(match self {
            Fact::Subject => Some(text(&principal.subject)),
            Fact::Id => Some(text(&principal.id)),
            Fact::Issuer => Some(text(&principal.issuer)),
            Fact::Kind => Some(text(kind_name(principal.kind))),
            Fact::Client => principal.client.as_deref().map(text),
            Fact::Acr => assurance.acr.as_deref().map(text),
            Fact::Amr => Some(RestrictedExpression::new_set(assurance.amr.iter().map(|amr| text(amr)))),
            Fact::AuthTime => assurance.auth_time.map(RestrictedExpression::new_long),
            Fact::Groups => Some(members(&principal.groups, "groups")?),
            Fact::Roles => Some(members(&principal.roles, "roles")?),
            Fact::Scopes => Some(members(&principal.scopes, "scopes")?),
            _ => None,
        })
    }
}

impl Param {
    pub(super) fn value(&self, judge: &Judge<'_>) -> Result<Option<RestrictedExpression>, WhenError> {
        match params::find(judge.input.query, &self.name, self.kind)? {
            None if self.optional => Ok(None),
            None => Err(ParamError::Missing(self.name.to_string()).into()),
            Some(value) => Ok(Some(match value {
                params::Value::Text(value) => RestrictedExpression::new_string(value),
                params::Value::Number(value) => RestrictedExpression::new_long(value),
                params::Value::Flag(value) => RestrictedExpression::new_bool(value),
                params::Value::Decimal(value) => RestrictedExpression::new_decimal(value),
                params::Value::Address(ip) => address(ip),
            })),
        }
    }
}

/// The agent now acting: the one that acts for the principal, else the principal if it is an agent itself.
pub(super) fn acting(principal: Option<&Principal>) -> Option<Arc<str>> {
    let principal = principal?;
    match (&principal.agent, principal.kind) {
        (Some(agent), _) => Some(Arc::clone(&agent.name)),
        (None, principal::Kind::Agent) => Some(Arc::clone(&principal.id)),
        (None, principal::Kind::Person | principal::Kind::Workload) => None,
    }
}

pub(super) fn kind_name(kind: principal::Kind) -> &'static str {
    match kind {
        principal::Kind::Person => "person",
        principal::Kind::Workload => "workload",
        principal::Kind::Agent => "agent",
    }
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

/// IPv4 addresses mapped into IPv6 are the IPv4 addresses they are, so that a range means what it says.
fn address(ip: std::net::IpAddr) -> RestrictedExpression {
    RestrictedExpression::new_ip(ip.to_canonical().to_string())
}

fn members(membership: &Membership, what: &'static str) -> Result<RestrictedExpression, WhenError> {
    if !membership.is_complete() {
        return Err(WhenError::MembershipUnknown(what));
    }
    Ok(RestrictedExpression::new_set(membership.names().map(|name| text(name))))
}

/// The type of `context` for one expression, as Cedar's JSON schema writes it. `anonymous`: the rule also names callers
/// without a token, so `principal` is optional.
pub(super) fn context_type(params: &[Param], anonymous: bool) -> Value {
    let attributes = |section: &str| -> serde_json::Map<String, Value> {
        let rows = ROWS.iter().filter(|row| row.section == section);
        rows.map(|row| (row.name.to_owned(), attribute(shape_type(row.shape), row.optional))).collect()
    };
    let params = params.iter().map(|param| (param.name.to_string(), attribute(kind_type(param.kind), param.optional)));
    let mut request = attributes("request");
    request.insert("params".to_owned(), attribute(record(params.collect()), false));
    let mut context = attributes("");
    context.insert("request".to_owned(), attribute(record(request), false));
    context.insert("principal".to_owned(), attribute(record(attributes("principal")), anonymous));
    record(context)
}

fn record(attributes: serde_json::Map<String, Value>) -> Value {
    json!({ "type": "Record", "attributes": attributes })
}

fn attribute(mut of: Value, optional: bool) -> Value {
    if let Some(object) = of.as_object_mut() {
        object.insert("required".to_owned(), Value::Bool(!optional));
    }
    of
}

fn shape_type(shape: Shape) -> Value {
    match shape {
        Shape::Text => json!({ "type": "String" }),
        Shape::Texts => json!({ "type": "Set", "element": { "type": "String" } }),
        Shape::Number => json!({ "type": "Long" }),
        Shape::Address => json!({ "type": "Extension", "name": "ipaddr" }),
    }
}

fn kind_type(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({ "type": "String" }),
        Kind::Number => json!({ "type": "Long" }),
        Kind::Flag => json!({ "type": "Boolean" }),
        Kind::Decimal => json!({ "type": "Extension", "name": "decimal" }),
        Kind::Address => json!({ "type": "Extension", "name": "ipaddr" }),
    }
}
