//! A service's rules as written in its file, and the problems found in them. Nothing here is checked yet: texts are
//! parsed by `compile`, which reports every problem at once.

use crate::path::Tolerance;

/// Where a rule stands, for messages and records: `services/orders.yaml:7`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Place {
    pub file: String,
    pub line: u32,
    pub column: u32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
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
    pub acr: Vec<String>,
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
    /// `service`, `rules`, `never` or `tests`.
    pub list: &'static str,
    pub index: usize,
    pub field: &'static str,
    pub what: String,
    pub fix: String,
}

/// What is wrong with one text of one clause, before it is known where that text stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) what: String,
    pub(super) fix: String,
}

impl Flaw {
    pub(super) fn new(what: impl Into<String>, fix: impl Into<String>) -> Flaw {
        Flaw { what: what.into(), fix: fix.into() }
    }
}

const SHOWN_CHARS_MAX: usize = 120;

/// A text of the file as a message may show it: bounded.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}
