//! Groups that a token leaves out because there are too many (Entra's overage): asked for through control, unknown when that
//! fails. Never a reason to refuse by itself: rules see "unknown", which never allows and always forbids.

use std::sync::Arc;

use feed::{GROUPS_FAILED_S, GROUPS_LIFE_S, GroupsOutcome, Issuer};
use trust::issuer::OverageLookup;
use trust::principal::{Membership, Principal};

use super::Judge;
use super::recording::Recording;
use crate::clock::UnixMs;
use crate::token_cache::Entry;
use crate::view::View;

impl Judge {
    pub(super) async fn with_all_groups(
        &self,
        view: &Arc<View>,
        entry: Arc<Entry>,
        recording: &mut Recording,
        now: UnixMs,
    ) -> Arc<Entry> {
        let whose = match &entry.overage {
            Some(whose) if entry.profile.settings().overage == OverageLookup::Graph => whose,
            _ => return entry,
        };
        let outcome = self.shared.groups.groups(entry.profile.name(), whose).await;
        let complete = Arc::new(completed(&entry, outcome, now));
        let is_its = |issuer: &&Issuer| Arc::ptr_eq(&issuer.profile, &complete.profile);
        if let Some(issuer) = view.snapshot.issuers.iter().find(is_its) {
            recording.identified(&complete, view, issuer, false, now);
        }
        complete
    }
}

/// The entry with what came of the question, for as long as that counts.
fn completed(entry: &Entry, outcome: GroupsOutcome, now: UnixMs) -> Entry {
    let mut principal = entry.principal.clone();
    let (counts, unknown_because) = match outcome {
        GroupsOutcome::Known { groups, asked_at } => {
            add(&mut principal, &groups);
            ((asked_at, asked_at + GROUPS_LIFE_S), None)
        }
        GroupsOutcome::Unknown(why) => ((now.seconds(), now.seconds() + GROUPS_FAILED_S), Some(why)),
    };
    let facts = trust::token::Facts::clone(&entry.facts);
    let mut complete = Entry::new(principal, entry.binding, facts, Arc::clone(&entry.profile), entry.keys_version);
    complete.counts = Some(counts);
    complete.overage.clone_from(&entry.overage);
    complete.groups_unknown = unknown_because;
    complete
}

fn add(principal: &mut Principal, groups: &[Arc<str>]) {
    let listed: Vec<Arc<str>> = principal.groups.names().chain(groups).cloned().collect();
    principal.groups = Membership::complete(listed);
}
