//! Rules: from a service file's clauses to a native decision structure, and the decision. Default deny; `never` wins; an
//! error while deciding denies. Only this module makes a [`Permit`].
use crate::{
    path::{NormalPath, Tolerance},
    principal::Principal,
    reason::Reason,
    spiffe::SpiffeId,
};
use std::sync::Arc;

/// Where a rule stands, for messages and records: `services/orders.yaml:7`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Place {
    pub file: String,
    pub line: u32,
    pub column: u32,
}

/// One rule as written (texts are parsed by `compile`, which reports every problem with its field).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleSource {
    pub name: String,
    pub place: Place,
    pub who: Vec<String>,
    pub from: Vec<String>,
    pub can: Vec<String>,
    pub fresh_s: Option<u64>,
    pub passkey: bool,
    pub hardware_key: bool,
    pub agent: Vec<String>,
    pub when: Option<String>,
    /// `mode: shadow`: decided and recorded, not enforced.
    pub shadow: bool,
    /// `txn: per-request`
    pub txn_per_request: bool,
}

/// One service's rules as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceSource {
    pub service: String,
    pub trust_domain: String,
    pub tolerance: Tolerance,
    pub rules: Vec<RuleSource>,
    pub never: Vec<RuleSource>,
    pub tests: Vec<TestSource>,
}

/// One `tests:` entry: `{ as: ana@support, from: edge, try: GET /orders/42, expect: allow, by: name }`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestSource {
    pub place: Place,
    pub as_: String,
    pub from: Option<String>,
    pub try_: String,
    pub expect: String,
    pub by: Option<String>,
}

/// A problem in a service's rules: which list and index, which field, what, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub list: &'static str,
    pub index: usize,
    pub field: &'static str,
    pub what: String,
    pub fix: String,
}

/// Who calls, by connection. `Edge` also at the edge itself: there the caller of the service will be this edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer<'a> {
    Edge,
    Workload(&'a SpiffeId),
}

/// Everything a decision may depend on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    pub principal: Option<&'a Principal>,
    pub peer: Peer<'a>,
    pub method: &'a str,
    pub path: &'a NormalPath,
    pub query: Option<&'a str>,
    pub host: &'a str,
    pub client_ip: Option<std::net::IpAddr>,
    pub now: i64,
}

/// The compiled rules of one service.
pub struct ServicePolicy {
    _private: (),
}

/// May go on. Not `Clone`; forwarding takes it by value.
#[derive(Debug)]
pub struct Permit {
    _private: (),
}

/// May not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    pub reason: Reason,
    pub rule: Option<Arc<RuleId>>,
}

/// May after a stronger sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepUp {
    pub rule: Arc<RuleId>,
    pub max_age_s: Option<u64>,
    pub acr_values: &'static str,
}

/// Name and place of a rule, as records carry it: `orders/support reads orders`, `services/orders.yaml:7`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RuleId {
    pub name: String,
    pub place: Place,
}

/// A verdict, with what shadow rules would have said.
#[derive(Debug)]
pub struct Decision {
    pub verdict: Verdict,
    pub shadow: Vec<Arc<RuleId>>,
}

#[derive(Debug)]
pub enum Verdict {
    Permit(Permit),
    StepUp(StepUp),
    Denial(Denial),
}

impl ServicePolicy {
    pub fn compile(_source: &ServiceSource) -> Result<ServicePolicy, Vec<Problem>> {
        todo!()
    }
    pub fn decide(&self, _input: &Input<'_>) -> Decision {
        todo!()
    }
    /// Off the hot path: every clause of the nearest rules, for the record of a refusal and for `why`.
    pub fn explain(&self, _input: &Input<'_>) -> Explanation {
        todo!()
    }
    /// The groups any loaded rule mentions; only these go into a Txn-Token.
    pub fn groups_mentioned(&self) -> &[Arc<str>] {
        todo!()
    }
    /// Runs `tests:`.
    pub fn run_tests(&self) -> Vec<TestOutcome> {
        todo!()
    }
    /// The whole set as Cedar text (built from Cedar's public syntax tree).
    pub fn to_cedar(&self) -> String {
        todo!()
    }
}

impl Permit {
    pub fn service(&self) -> &Arc<str> {
        todo!()
    }
    pub fn rule(&self) -> &Arc<RuleId> {
        todo!()
    }
    /// Purpose for the Txn-Token: `orders.read` (GET, HEAD, OPTIONS), `orders.write` (other methods).
    pub fn scope(&self) -> &Arc<str> {
        todo!()
    }
    /// Route template of the matched `can`, e.g. `orders:GET /orders/**`.
    pub fn route(&self) -> &Arc<str> {
        todo!()
    }
    /// A rule with `fresh`, `countersign` or `txn: per-request`: the Txn-Token is minted for this request alone.
    pub fn per_request(&self) -> bool {
        todo!()
    }
}

/// The nearest rules and what each clause said.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Explanation {
    pub rules: Vec<RuleTrace>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RuleTrace {
    pub rule: RuleId,
    pub never: bool,
    pub shadow: bool,
    pub clauses: Vec<ClauseTrace>,
}

/// One clause: what it asks, whether it held, and what would have to change.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ClauseTrace {
    pub clause: String,
    pub asks: String,
    pub held: Held,
    pub change: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    Yes,
    No,
    Unknown,
    Error,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestOutcome {
    pub place: Place,
    pub title: String,
    pub passed: bool,
    pub expected: String,
    pub got: String,
}
