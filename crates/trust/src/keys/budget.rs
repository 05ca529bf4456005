//! What tokens may cost an issuer: how often a demand may start a fetch, and which demands are already known to be in vain.
//! It never limits the refreshes that the machine does of its own accord; it counts them.
use std::collections::{HashMap, VecDeque};

/// At most one fetch on demand per interval with a burst of two, and never more than three fetches of any cause in any
/// minute: a flood of invented kids cannot make us a nuisance to the issuer.
#[derive(Debug, Clone)]
pub(super) struct FetchBudget {
    interval_ms: i64,
    /// GCRA: the time at which the bucket is full again.
    full_at_ms: i64,
    starts_ms: VecDeque<i64>,
}

const BURST: i64 = 2;
const WINDOW_MS: i64 = 60_000;
const STARTS_PER_WINDOW: usize = 3;

impl FetchBudget {
    pub(super) fn new(interval_ms: i64) -> FetchBudget {
        FetchBudget { interval_ms, full_at_ms: i64::MIN, starts_ms: VecDeque::new() }
    }

    /// Any fetch that starts, whatever its cause.
    pub(super) fn started(&mut self, now_ms: i64) {
        self.starts_ms.push_back(now_ms);
        if self.starts_ms.len() > STARTS_PER_WINDOW {
            self.starts_ms.pop_front();
        }
    }

    /// A fetch that starts because somebody asked.
    pub(super) fn spend(&mut self, now_ms: i64) {
        self.full_at_ms = self.full_at_ms.max(now_ms).saturating_add(self.interval_ms);
        self.started(now_ms);
    }

    /// When an unknown kid may next cause a fetch; not after `now_ms` means now.
    pub(super) fn next_for_unknown_kid(&self, now_ms: i64) -> i64 {
        let by_bucket = self.full_at_ms.saturating_sub(self.interval_ms * (BURST - 1));
        by_bucket.max(self.next_by_window()).max(now_ms)
    }

    /// When a bad signature may next cause a fetch. It never takes the last token: who holds a known kid and sends
    /// nonsense cannot keep a truly new kid waiting.
    pub(super) fn next_for_bad_signature(&self, now_ms: i64) -> i64 {
        self.full_at_ms.max(self.next_by_window()).max(now_ms)
    }

    fn next_by_window(&self) -> i64 {
        match self.starts_ms.front() {
            Some(first) if self.starts_ms.len() == STARTS_PER_WINDOW => first.saturating_add(WINDOW_MS),
            _ => i64::MIN,
        }
    }
}

/// What a waiting request hopes for from a fetch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Want {
    /// A key that the set does not have.
    Key(Option<Box<str>>),
    /// Other material under a kid that the set has.
    Material(Option<Box<str>>),
}

/// Wants that a good answer has just shown to be in vain. Bounded; what is full takes nothing more, so a flood can
/// neither grow it nor push anything out of it.
#[derive(Debug, Clone)]
pub(super) struct InVain {
    until_ms: HashMap<Want, i64>,
    entries_max: usize,
    ttl_ms: i64,
}

impl InVain {
    pub(super) fn new(entries_max: usize, ttl_ms: i64) -> InVain {
        InVain { until_ms: HashMap::new(), entries_max, ttl_ms }
    }

    /// Until when `want` is known to be in vain.
    pub(super) fn until(&self, want: &Want, now_ms: i64) -> Option<i64> {
        self.until_ms.get(want).copied().filter(|until| *until > now_ms)
    }

    pub(super) fn remember(&mut self, want: Want, now_ms: i64) {
        if self.until_ms.len() >= self.entries_max {
            self.until_ms.retain(|_, until| *until > now_ms);
        }
        if self.until_ms.len() < self.entries_max {
            self.until_ms.insert(want, now_ms.saturating_add(self.ttl_ms));
        }
    }

    /// The set changed: what was in vain may no longer be.
    pub(super) fn forget_all(&mut self) {
        self.until_ms.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.until_ms.len()
    }
}
