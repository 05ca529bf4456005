//! Rules: from a service file's clauses to a native decision structure, and the decision. Default deny; `never` wins; an
//! error while deciding denies. Only this module makes a [`Permit`].
//!
//! `source` is the file as written, `clause` its texts parsed, `compile` makes the structure, `route` finds the few
//! candidate rules of a request, `decide` judges them. `docs/rules.md` tells users what every clause means.

mod cases;
mod cedar;
mod clause;
mod compile;
mod decide;
mod explain;
mod facts;
mod method;
mod params;
mod reads;
mod route;
mod rule;
mod source;
mod syntax;
mod verdict;
mod when;

#[cfg(test)]
mod tests_cases;
#[cfg(test)]
mod tests_cedar;
#[cfg(test)]
mod tests_clause;
#[cfg(test)]
mod tests_decide;
#[cfg(test)]
mod tests_explain;
#[cfg(test)]
mod tests_when;
#[cfg(test)]
mod tests_world;

pub use cases::TestOutcome;
pub use clause::Vouched;
pub use decide::{Input, Peer};
pub use explain::{ClauseTrace, Explanation, Held, RuleTrace};
pub use source::{Place, Problem, RuleSource, ServiceSource, TestSource};
pub use verdict::{Decision, Denial, Permit, RuleId, StepUp, Verdict};

use cases::Case;
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
    cases: Vec<Case>,
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
    pub fn explain(&self, input: &Input<'_>) -> Explanation {
        explain::explain(self, input)
    }

    /// The groups any loaded rule mentions; only these go into a Txn-Token.
    pub fn groups_mentioned(&self) -> &[Arc<str>] {
        &self.groups
    }

    /// Runs `tests:`.
    pub fn run_tests(&self) -> Vec<TestOutcome> {
        cases::run(self)
    }

    /// Every enforced rule as Cedar text (built from Cedar's public syntax tree), `never` rules first.
    pub fn to_cedar(&self) -> String {
        cedar::text(self)
    }
}
