//! The keys of one issuer, each with its own history: when it was first and last seen, and until when it may be used.
//! It never drops a key because an answer was bad: only good answers reach it.
use crate::jwk::{KeySet, VerifyingKey};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Withdrawn keys kept for their grace; beyond it the oldest go first, whatever grace is configured.
const RETIRED_MAX: usize = 100;
/// Kids an operator has killed; far more than anybody needs.
const KILLED_MAX: usize = 256;

/// One key, for `keys` and for operators.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct KeyReport {
    pub kid: Option<String>,
    /// RFC 7638 SHA-256 thumbprint.
    pub thumbprint: String,
    /// JOSE names.
    pub algorithms: Vec<&'static str>,
    /// Unix seconds.
    pub first_seen: i64,
    /// Unix seconds of the last good answer that held this key.
    pub last_seen: i64,
    /// Unix seconds of the first good answer that no longer held it; it is still accepted for the grace.
    pub retired_at: Option<i64>,
}

#[derive(Debug, Clone)]
struct Entry {
    key: Arc<VerifyingKey>,
    first_seen_s: i64,
    last_seen_s: i64,
    retired_s: Option<i64>,
    /// Hard limit, or the end of the grace, whichever comes first.
    usable_until_ms: i64,
}

/// What one good answer changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub added: Vec<String>,
    pub retired: Vec<String>,
    /// Kids whose material is another one now.
    pub replaced: Vec<String>,
    /// A retired key is published again.
    pub came_back: bool,
}

impl Change {
    pub(super) fn is_none(&self) -> bool {
        *self == Change::default()
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Ring {
    entries: Vec<Entry>,
    killed: BTreeSet<String>,
}

/// The clock of one good answer and the limits that count from it.
pub(super) struct Seen {
    pub now_ms: i64,
    pub unix_s: i64,
    pub hard_until_ms: i64,
    pub grace_ms: i64,
}

impl Ring {
    /// Takes in a good answer: its keys live on, keys it no longer holds retire. A kid with other material replaces the
    /// old one at once, for that is what the issuer says it is.
    pub(super) fn take_in(&mut self, fresh: &KeySet, seen: &Seen) -> Change {
        let mut change = Change::default();
        let old = std::mem::take(&mut self.entries);
        for key in fresh.keys() {
            if key.kid().is_some_and(|kid| self.killed.contains(kid)) {
                continue;
            }
            let known = old.iter().find(|entry| same_key(&entry.key, key));
            if known.is_none() {
                let same_kid = key.kid().is_some() && old.iter().any(|entry| entry.key.kid() == key.kid());
                if same_kid { &mut change.replaced } else { &mut change.added }.push(label(key));
            }
            change.came_back |= known.is_some_and(|entry| entry.retired_s.is_some());
            self.entries.push(Entry {
                key: known.map_or_else(|| Arc::clone(key), |entry| Arc::clone(&entry.key)),
                first_seen_s: known.map_or(seen.unix_s, |entry| entry.first_seen_s),
                last_seen_s: seen.unix_s,
                retired_s: None,
                usable_until_ms: seen.hard_until_ms,
            });
        }
        let current = self.entries.len();
        for mut entry in old {
            let still = self.entries.iter().take(current).any(|now| {
                same_key(&now.key, &entry.key) || (entry.key.kid().is_some() && now.key.kid() == entry.key.kid())
            });
            if still {
                continue;
            }
            if entry.retired_s.is_none() {
                change.retired.push(label(&entry.key));
                entry.retired_s = Some(seen.unix_s);
                entry.usable_until_ms = entry.usable_until_ms.min(seen.now_ms.saturating_add(seen.grace_ms));
            }
            self.entries.push(entry);
        }
        self.entries.truncate(current.saturating_add(RETIRED_MAX));
        change
    }

    /// The issuer says that nothing changed (304).
    pub(super) fn seen_again(&mut self, seen: &Seen) {
        for entry in self.entries.iter_mut().filter(|entry| entry.retired_s.is_none()) {
            entry.last_seen_s = seen.unix_s;
            entry.usable_until_ms = seen.hard_until_ms;
        }
    }

    /// Drops keys whose time is over; their names.
    pub(super) fn drop_expired(&mut self, now_ms: i64) -> Vec<String> {
        let mut dropped = Vec::new();
        self.entries.retain(|entry| {
            let over = entry.usable_until_ms <= now_ms;
            if over {
                dropped.push(label(&entry.key));
            }
            !over
        });
        dropped
    }

    /// An operator's word: this kid is not to be used, now and in every later answer.
    pub(super) fn kill(&mut self, kid: &str) -> bool {
        let room = self.killed.len() < KILLED_MAX;
        if room {
            self.killed.insert(kid.to_owned());
        }
        self.entries.retain(|entry| entry.key.kid() != Some(kid));
        room
    }

    pub(super) fn killed(&self) -> impl Iterator<Item = &str> {
        self.killed.iter().map(String::as_str)
    }

    pub(super) fn next_end_ms(&self) -> Option<i64> {
        self.entries.iter().map(|entry| entry.usable_until_ms).min()
    }

    pub(super) fn has_kid(&self, kid: &str) -> bool {
        self.entries.iter().any(|entry| entry.key.kid() == Some(kid))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn to_set(&self) -> KeySet {
        KeySet::from_keys(self.entries.iter().map(|entry| Arc::clone(&entry.key)).collect())
    }

    pub(super) fn report(&self) -> Vec<KeyReport> {
        let line = |entry: &Entry| KeyReport {
            kid: entry.key.kid().map(str::to_owned),
            thumbprint: entry.key.thumbprint().to_owned(),
            algorithms: entry.key.algorithms().iter().map(|algorithm| algorithm.name()).collect(),
            first_seen: entry.first_seen_s,
            last_seen: entry.last_seen_s,
            retired_at: entry.retired_s,
        };
        self.entries.iter().map(line).collect()
    }
}

/// Material alone would take a key that is published under two kids for one; the kid alone would miss new material.
fn same_key(one: &VerifyingKey, other: &VerifyingKey) -> bool {
    one.kid() == other.kid() && one.thumbprint() == other.thumbprint() && one.algorithms() == other.algorithms()
}

/// The kid, or the thumbprint of a key without one.
fn label(key: &VerifyingKey) -> String {
    key.kid().unwrap_or_else(|| key.thumbprint()).to_owned()
}
