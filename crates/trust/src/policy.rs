//! Rules: from a service file's clauses to a native decision structure, and the decision. Default deny; `never` wins; an
//! error while deciding denies. Only this module makes a [`Permit`].
//!
//! `source` is the file as written, `clause` its texts parsed, `compile` makes the structure, `route` finds the few
//! candidate rules of a request, `decide` judges them. `docs/rules.md` tells users what every clause means.

mod clause;
mod compile;
mod decide;
mod facts;
mod method;
mod params;
mod reads;
mod route;
mod rule;
mod source;
mod verdict;
mod when;

#[cfg(test)]
mod tests_clause;
#[cfg(test)]
mod tests_decide;
#[cfg(test)]
mod tests_when;
#[cfg(test)]
mod tests_world;

pub use decide::{Input, Peer};
pub use source::{Place, Problem, RuleSource, ServiceSource, TestSource};
pub use verdict::{Decision, Denial, Permit, RuleId, StepUp, Verdict};

use route::Routes;
use rule::Rule;
use std::sync::Arc;

/// The compiled rules of one service.
pub struct ServicePolicy {
    trust_domain: Arc<str>,
    rules: Vec<Rule>,
    never: Vec<Rule>,
    allow_routes: Routes,
    never_routes: Routes,
    groups: Vec<Arc<str>>,
}

impl ServicePolicy {
    /// Every problem at once; with one problem there is no policy.
    pub fn compile(source: &ServiceSource) -> Result<ServicePolicy, Vec<Problem>> {
        compile::compile(source)
    }

    pub fn decide(&self, input: &Input<'_>) -> Decision {
        decide::decide(self, input)
    }

    /// Off the hot path: every clause of the nearest rules, for the record of a refusal and for `why`.
    pub fn explain(&self, _input: &Input<'_>) -> Explanation {
        todo!()
    }

    /// The groups any loaded rule mentions; only these go into a Txn-Token.
    pub fn groups_mentioned(&self) -> &[Arc<str>] {
        &self.groups
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
