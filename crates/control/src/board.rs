//! Where the newest state of everything comes together and becomes a snapshot. It never waits: whoever has news publishes.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::issuer::Line;

/// A confirmation that changes no key is published at most this often, so that `fetched_at` stays near the truth without
/// a new epoch for every answer of every issuer.
const CONFIRM_EVERY_MS: i64 = 60_000;

/// Locks, also after a panic elsewhere: every state behind these locks is whole between two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct Board {
    current: feed::Current,
    state: Mutex<State>,
}

struct State {
    desired: feed::Desired,
    lines: Vec<Arc<Line>>,
    epoch: u64,
    published_ms: i64,
}

impl Board {
    pub(crate) fn new(current: feed::Current) -> Board {
        let epoch = current.load().map_or(0, |snapshot| snapshot.epoch);
        let desired = feed::Desired {
            trust_domain: "".into(),
            issuers: Vec::new(),
            services: Vec::new(),
            introspection: Vec::new(),
            graph: Vec::new(),
        };
        Board { current, state: Mutex::new(State { desired, lines: Vec::new(), epoch, published_ms: 0 }) }
    }

    pub(crate) fn current(&self) -> &feed::Current {
        &self.current
    }

    pub(crate) fn lines(&self) -> Vec<Arc<Line>> {
        lock(&self.state).lines.clone()
    }

    pub(crate) fn line(&self, issuer: &str) -> Option<Arc<Line>> {
        lock(&self.state).lines.iter().find(|line| &*line.name == issuer).cloned()
    }

    /// Takes over new wishes with the lines that serve them, and publishes. Returns the epoch.
    pub(crate) fn replace(&self, desired: feed::Desired, lines: Vec<Arc<Line>>, now_ms: i64) -> u64 {
        let mut state = lock(&self.state);
        state.desired = desired;
        state.lines = lines;
        self.publish(&mut state, now_ms)
    }

    /// An issuer's keys changed.
    pub(crate) fn changed(&self, now_ms: i64) {
        self.publish(&mut lock(&self.state), now_ms);
    }

    /// An issuer's keys were confirmed and are the same.
    pub(crate) fn confirmed(&self, now_ms: i64) {
        let mut state = lock(&self.state);
        if now_ms.saturating_sub(state.published_ms) >= CONFIRM_EVERY_MS {
            self.publish(&mut state, now_ms);
        }
    }

    fn publish(&self, state: &mut State, now_ms: i64) -> u64 {
        state.epoch = state.epoch.saturating_add(1);
        state.published_ms = now_ms;
        let issuer = |profile: &Arc<trust::issuer::Profile>| {
            let line = state.lines.iter().find(|line| line.name == *profile.name())?;
            Some(feed::Issuer { profile: Arc::clone(profile), keys: lock(&line.keys).clone() })
        };
        let snapshot = feed::Snapshot {
            epoch: state.epoch,
            trust_domain: Arc::clone(&state.desired.trust_domain),
            issuers: state.desired.issuers.iter().filter_map(issuer).collect(),
            services: state.desired.services.clone(),
        };
        if !self.current.publish(Arc::new(snapshot)) {
            tracing::error!(epoch = state.epoch, "a snapshot with a higher epoch was published by somebody else");
        }
        state.epoch
    }
}
