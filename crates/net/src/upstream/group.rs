//! All addresses of one target: which is tried first, and the sweeping of what is no longer used. It opens nothing.
use super::endpoint::Endpoint;
use super::{Key, Target};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::time::Instant;

const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// An address that could not be connected to is passed over for so long, if there are others.
const DOWN_MS: u64 = 2_000;

#[derive(Default)]
pub(super) struct Groups {
    groups: Mutex<HashMap<Key, Arc<Group>>>,
    is_swept: AtomicBool,
}

pub(super) struct Group {
    endpoints: Box<[Endpoint]>,
    idle_timeout: Duration,
    started: Instant,
    random: AtomicU64,
}

impl Groups {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Group>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn of(self: &Arc<Groups>, target: &Target) -> Arc<Group> {
        let mut groups = self.lock();
        if let Some(group) = groups.get(&target.key) {
            return Arc::clone(group);
        }
        let group = Arc::new(Group::new(target));
        groups.insert(target.key, Arc::clone(&group));
        drop(groups);
        if !self.is_swept.swap(true, Relaxed) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
        group
    }

    pub(super) fn idle_connections(&self) -> usize {
        let groups = self.lock();
        groups.values().flat_map(|group| &group.endpoints).map(Endpoint::idle_connections).sum()
    }
}

/// Ends with the pool it belongs to.
async fn sweep(groups: Weak<Groups>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(groups) = groups.upgrade() else { return };
        groups.lock().retain(|_, group| {
            for endpoint in &group.endpoints {
                endpoint.sweep(group.idle_timeout);
            }
            // A target that no snapshot names any more leaves nothing behind.
            Arc::strong_count(group) > 1 || !group.endpoints.iter().all(Endpoint::is_empty)
        });
    }
}

impl Group {
    fn new(target: &Target) -> Group {
        let endpoints =
            target.settings.addresses.iter().map(|(host, port)| Endpoint::new(host.clone(), *port)).collect();
        Group {
            endpoints,
            idle_timeout: target.settings.idle_timeout,
            started: Instant::now(),
            random: AtomicU64::new(u64::from_be_bytes(target.key.first_chunk().copied().unwrap_or_default()) | 1),
        }
    }

    pub(super) fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }
    pub(super) fn is_single(&self) -> bool {
        self.endpoints.len() == 1
    }

    /// The better of two addresses drawn at random, by requests in flight; `tried` is a bit set of those that failed.
    /// Addresses that failed lately come last.
    pub(super) fn pick(&self, tried: u64) -> Option<(usize, &Endpoint)> {
        if self.is_single() {
            return if tried == 0 { self.endpoints.first().map(|endpoint| (0, endpoint)) } else { None };
        }
        let now_ms = self.now_ms();
        let (mut untried, mut up) = (0u64, 0u64);
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            let bit = 1u64 << at;
            if tried & bit == 0 {
                untried |= bit;
                up |= if endpoint.is_down(now_ms) { 0 } else { bit };
            }
        }
        let candidates = if up == 0 { untried } else { up };
        let first = self.draw(candidates)?;
        let second = self.draw(candidates & !(1 << first)).unwrap_or(first);
        let load = |at: usize| self.endpoints.get(at).map_or(u32::MAX, |endpoint| endpoint.in_flight.load(Relaxed));
        let at = if load(second) < load(first) { second } else { first };
        self.endpoints.get(at).map(|endpoint| (at, endpoint))
    }

    pub(super) fn failed(&self, endpoint: &Endpoint) {
        endpoint.set_down_until(self.now_ms() + DOWN_MS);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// One of the bits set, evenly.
    fn draw(&self, mut bits: u64) -> Option<usize> {
        let count = bits.count_ones();
        if count == 0 {
            return None;
        }
        for _ in 0..self.random() % u64::from(count) {
            bits &= bits - 1;
        }
        usize::try_from(bits.trailing_zeros()).ok()
    }

    /// xorshift64: for spreading load, never for secrets.
    fn random(&self) -> u64 {
        let mut x = self.random.load(Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.store(x, Relaxed);
        x
    }
}
