//! What the worker's clock sees of a running tunnel, and the one place where its end is marked. It holds no stream.
use super::{Ended, Permission, Withdrawn};
use crate::live::Clock;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

/// After one side ended its stream the other may go on for as long as it sends something at least so often.
const HALF_CLOSED_MS: u64 = 10_000;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the client to the upstream.
    Up,
    Down,
}

pub(crate) struct Slot {
    clock: Arc<Clock>,
    permission: Arc<dyn Permission>,
    idle_ms: u64,
    /// 0: it goes on.
    ended: AtomicU8,
    /// Who ended his stream first; 0: nobody.
    half_closed: AtomicU8,
    moved_at: AtomicU64,
    up: Passed,
    down: Passed,
    waker: Mutex<Option<Waker>>,
}

#[derive(Default)]
struct Passed {
    bytes: AtomicU64,
    /// Since when the sink takes nothing; 0: it does.
    blocked_since: AtomicU64,
}

impl Slot {
    pub(crate) fn new(clock: Arc<Clock>, permission: Arc<dyn Permission>, idle_timeout: Duration) -> Slot {
        Slot {
            moved_at: AtomicU64::new(clock.now()),
            clock,
            permission,
            idle_ms: u64::try_from(idle_timeout.as_millis()).unwrap_or(u64::MAX),
            ended: AtomicU8::new(0),
            half_closed: AtomicU8::new(0),
            up: Passed::default(),
            down: Passed::default(),
            waker: Mutex::new(None),
        }
    }

    fn passed(&self, way: Way) -> &Passed {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }

    /// Asked before each part that passes.
    pub(super) fn may_pass(&self) -> Result<(), Ended> {
        if let Some(ended) = self.ended() {
            return Err(ended);
        }
        match self.permission.withdrawn() {
            None => Ok(()),
            Some(why) => Err(self.end(why.into())),
        }
    }

    pub(super) fn moved(&self, way: Way, bytes: usize) {
        let passed = self.passed(way);
        passed.bytes.fetch_add(u64::try_from(bytes).unwrap_or(0), Relaxed);
        passed.blocked_since.store(0, Relaxed);
        self.moved_at.store(self.clock.now(), Relaxed);
    }
    pub(super) fn blocked(&self, way: Way) {
        // The first time counts.
        let _ = self.passed(way).blocked_since.compare_exchange(0, self.clock.now(), Relaxed, Relaxed);
    }
    /// From the client, to the client.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.up.bytes.load(Relaxed), self.down.bytes.load(Relaxed))
    }

    pub(super) fn half_close(&self, by: Ended) {
        self.moved_at.store(self.clock.now(), Relaxed);
        let _ = self.half_closed.compare_exchange(0, by as u8, Relaxed, Relaxed);
    }
    pub(super) fn half_closed_by(&self) -> Option<Ended> {
        named(self.half_closed.load(Relaxed))
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        named(self.ended.load(Relaxed))
    }
    /// Marks the end. The first reason stands, and is returned.
    pub(crate) fn end(&self, why: Ended) -> Ended {
        match self.ended.compare_exchange(0, why as u8, Relaxed, Relaxed) {
            Ok(_) => why,
            Err(first) => named(first).unwrap_or(why),
        }
    }

    /// One look of the worker's clock: ends what is over, and wakes its task.
    pub(crate) fn look(&self, stall: Duration) {
        if self.ended().is_some() {
            return;
        }
        let now = self.clock.now();
        let quiet = now.saturating_sub(self.moved_at.load(Relaxed));
        let stall_ms = u64::try_from(stall.as_millis()).unwrap_or(u64::MAX);
        let stalled = |passed: &Passed| {
            let since = passed.blocked_since.load(Relaxed);
            since != 0 && now.saturating_sub(since) > stall_ms
        };
        // A panic while asking is this tunnel's own: the clock goes on for all others of its worker.
        let Ok(withdrawn) = catch_unwind(AssertUnwindSafe(|| self.permission.withdrawn())) else {
            return self.end_and_wake(Ended::Panic);
        };
        let why = match (withdrawn, self.half_closed_by()) {
            (Some(why), _) => why.into(),
            _ if stalled(&self.up) || stalled(&self.down) => Ended::Stalled,
            (None, Some(first)) if quiet > HALF_CLOSED_MS => first,
            _ if quiet > self.idle_ms => Ended::Idle,
            _ => return,
        };
        self.end_and_wake(why);
    }

    fn end_and_wake(&self, why: Ended) {
        self.end(why);
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }

    /// A task's waker does not change, so it is kept once.
    pub(super) fn keep_waker(&self, cx: &Context<'_>) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
    }
}

impl From<Withdrawn> for Ended {
    fn from(why: Withdrawn) -> Ended {
        match why {
            Withdrawn::TokenExpired => Ended::TokenExpired,
            Withdrawn::RulesChanged => Ended::RulesChanged,
        }
    }
}

fn named(number: u8) -> Option<Ended> {
    Ended::ALL.into_iter().find(|ended| *ended as u8 == number)
}
