//! What one audit line says. Field names are stable and documented in `docs/audit.md`; times are Unix milliseconds.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trust::policy::{ClauseTrace, Explanation, RuleTrace};
use trust::token::Facts;

use crate::access_log::Seen;
use crate::traces::Span;

/// Longest text taken from a request into a record; what is longer ends in `…`.
pub const TEXT_BYTES_MAX: usize = 1024;
/// OCSF 1.x class of a decision on an HTTP request: HTTP Activity.
pub const OCSF_HTTP_ACTIVITY: u32 = 4002;

/// One decision on one request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Decision id, as told to the caller.
    pub id: String,
    /// Unix milliseconds at which the request's head was complete.
    pub time_ms: u64,
    /// OCSF class (HTTP Activity 4002).
    pub class_uid: u32,
    /// `permit`, `deny`, `step_up`, `refuse` (no decision was reached), `error` (permitted, then failed) or `preflight` (a
    /// browser's question about other origins, answered by `cors:` alone).
    pub decision: Decision,
    /// Code of `trust::reason`; absent when the upstream answered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Cow<'static, str>>,
    /// For operators: what exactly failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service: Option<Arc<str>>,
    /// The deciding rule and where it stands.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<Arc<trust::policy::RuleId>>,
    /// Shadow rules that matched: recorded, not enforced.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub shadow: Vec<Arc<trust::policy::RuleId>>,
    /// Epoch of the snapshot the request was judged against.
    pub epoch: u64,
    pub request: RequestFacts,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub principal: Option<Arc<PrincipalFacts>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub token: Option<TokenFacts>,
    /// `txn` of the Txn-Token that went upstream.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub txn: Option<Arc<str>>,
    /// base64url SHA-256 of the Txn-Token (`tth`, WIRE §2).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tth: Option<Arc<str>>,
    /// Of an upstream with more than one address, or after a retry: who answered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub upstream: Option<Box<UpstreamFacts>>,
    /// SPIFFE ID of this edge.
    pub own: Arc<str>,
    /// Status sent; 499 when the client went away first.
    pub status: u16,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Microseconds from the request's head to its verdict, to the answer's head, and to the answer's end.
    pub verdict_us: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_byte_us: Option<u64>,
    pub total_us: u64,
    /// The decision opened a tunnel: `websocket`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tunnel: Option<Cow<'static, str>>,
    /// It is the end of what an earlier line with this id tells of: the line's kind says so.
    #[serde(skip)]
    pub is_end: bool,
    /// How the answer ended: `complete`, `client_gone`, `upstream_failed`, `panic`. With a tunnel: `open`, or why it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<Cow<'static, str>>,
    /// Of the trace that our span belongs to; without traces of our own that of `traceparent`, when the request carried a valid
    /// one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace_id: Option<String>,
    /// For refusals: the nearest rules, clause by clause.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub explanation: Option<Explanation>,
    /// For the access log, if there is one. Never written into the audit log.
    #[serde(skip)]
    pub seen: Option<Box<Seen>>,
    /// For traces, if there are any. Never written into the audit log.
    #[serde(skip)]
    pub span: Option<Box<Span>>,
}

impl Record {
    /// Roughly how many bytes of memory it holds while it waits; what others may share is counted, too.
    pub(super) fn memory(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let request = &self.request;
        size_of::<Record>()
            + self.id.len()
            + [&self.detail, &self.trace_id].into_iter().map(text).sum::<usize>()
            + [&self.txn, &self.tth].into_iter().flatten().map(|text| text.len()).sum::<usize>()
            + [&request.host, &request.path].into_iter().map(String::len).sum::<usize>()
            + request.method.len()
            + self.upstream.as_ref().map_or(0, |upstream| size_of::<UpstreamFacts>() + upstream.address.len())
            + self.principal.as_deref().map_or(0, memory_of_principal)
            + self.token.as_ref().and_then(|token| token.facts.as_deref()).map_or(0, memory_of_facts)
            + self.explanation.as_ref().map_or(0, memory_of_explanation)
            + self.seen.as_ref().map_or(0, |seen| seen.memory())
            + self.span.as_ref().map_or(0, |span| span.memory())
    }
}

fn memory_of_principal(who: &PrincipalFacts) -> usize {
    let texts = who.groups.iter().chain(&who.roles).chain(&who.scopes);
    let lists = texts.map(|text| size_of::<Arc<str>>() + text.len()).sum::<usize>();
    size_of::<PrincipalFacts>() + who.subject.len() + lists
}

fn memory_of_facts(facts: &Facts) -> usize {
    facts.audience.iter().map(|audience| size_of::<String>() + audience.len()).sum()
}

fn memory_of_explanation(explanation: &Explanation) -> usize {
    let clause = |clause: &ClauseTrace| {
        size_of::<ClauseTrace>()
            + clause.clause.len()
            + clause.asks.len()
            + clause.change.as_ref().map_or(0, String::len)
    };
    let clauses = explanation.rules.iter().flat_map(|rule| &rule.clauses).map(clause);
    explanation.rules.len() * size_of::<RuleTrace>() + clauses.sum::<usize>()
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Permit,
    Deny,
    StepUp,
    #[default]
    Refuse,
    Error,
    Preflight,
}

impl Decision {
    pub fn name(self) -> &'static str {
        match self {
            Decision::Permit => "permit",
            Decision::Deny => "deny",
            Decision::StepUp => "step_up",
            Decision::Refuse => "refuse",
            Decision::Error => "error",
            Decision::Preflight => "preflight",
        }
    }
}

/// Where a proxy that asked came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Asker {
    Address(IpAddr),
    Socket(Socket),
}

/// A Unix-domain socket has no address to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Socket {
    Unix,
}

/// The request, as judged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RequestFacts {
    pub method: Cow<'static, str>,
    pub host: String,
    /// Normalised path: the bytes decided on and forwarded; the raw path when it was refused.
    pub path: String,
    /// Who calls, as the rules see it: `edge`, also through a proxy that asked (`authz`); `client` when no decision was reached.
    pub peer: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client_ip: Option<IpAddr>,
    /// The proxy that asked, and was told `status`; what it then did is not known here. Absent at the edge.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proxy: Option<Asker>,
    pub protocol: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tls: Option<Cow<'static, str>>,
    pub connection: u64,
}

/// The endpoint that answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpstreamFacts {
    /// `host:port`.
    pub address: Arc<str>,
    /// 1 when the first endpoint that was chosen answered; connections that failed count.
    pub tries: u32,
}

/// The principal, projected to what rules can ask for, so that a decision can be replayed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PrincipalFacts {
    pub kind: Cow<'static, str>,
    pub subject: Arc<str>,
    pub issuer: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client: Option<Arc<str>>,
    /// Groups that some loaded rule mentions.
    pub groups: Vec<Arc<str>>,
    /// `complete` or `unknown` (the issuer left some out).
    pub groups_state: Cow<'static, str>,
    pub roles: Vec<Arc<str>>,
    pub scopes: Vec<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub acr: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub auth_time: Option<i64>,
}

/// What was seen of the access token and of the keys it was checked with. Never the token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenFacts {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub issuer: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facts: Option<Arc<Facts>>,
    /// Version and age (seconds) of the issuer's key set at the decision.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub keys_version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub keys_age_s: Option<i64>,
    /// The token leaves groups out, they were asked for, and this is why they are still unknown.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub groups_unknown: Option<Arc<str>>,
    /// Verified now (`false`) or found among the verified tokens (`true`).
    pub cached: bool,
}

/// Cuts a text to [`TEXT_BYTES_MAX`] at a character boundary.
pub fn bounded(text: &str) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text.to_owned();
    }
    let cut = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", text.get(..cut).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a10_texts_are_bounded_at_a_character() {
        assert_eq!(bounded("short"), "short");
        let long = bounded(&"é".repeat(TEXT_BYTES_MAX));
        assert!(long.len() <= TEXT_BYTES_MAX + '…'.len_utf8());
        assert!(long.ends_with('…'));
    }
}
