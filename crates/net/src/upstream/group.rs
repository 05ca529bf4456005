//! All endpoints of one target, as one worker knows them: which is tried first, and the sweeping of what is no longer used.
//! It opens nothing. What is learnt of the endpoints is this worker's own; only illness found by checks is shared.
use super::balance::{Balance, Ejected, Fault};
use super::endpoint::Endpoint;
use super::fleet::{Fleet, Members};
use super::retry::Budget;
use super::{Addresses, Key, Target};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::time::Instant;

const SWEEP_EVERY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Groups {
    groups: Mutex<HashMap<Key, Arc<Group>>>,
    is_swept: AtomicBool,
}

pub(super) struct Group {
    endpoints: Box<[Arc<Endpoint>]>,
    idle_timeout: Duration,
    /// `None` for one fixed address: nothing is chosen there, and nothing measured.
    choice: Option<Choice>,
}

/// What choosing between endpoints needs.
struct Choice {
    members: Arc<Members>,
    balance: Mutex<Balance>,
    budget: Mutex<Budget>,
    /// Zero of this worker's microseconds.
    started: Instant,
}

impl Groups {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Group>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn of(self: &Arc<Groups>, target: &Target) -> Arc<Group> {
        let mut groups = self.lock();
        let known = groups.get(&target.key);
        if let Some(group) = known
            && group.is_current(target)
        {
            return Arc::clone(group);
        }
        let group = Arc::new(Group::new(target, known.map(Arc::as_ref)));
        groups.insert(target.key, Arc::clone(&group));
        drop(groups);
        if !self.is_swept.swap(true, Relaxed) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
        group
    }

    pub(super) fn idle_connections(&self) -> usize {
        let groups = self.lock();
        groups.values().flat_map(|group| &group.endpoints).map(|endpoint| endpoint.idle_connections()).sum()
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
            Arc::strong_count(group) > 1 || !group.endpoints.iter().all(|endpoint| endpoint.is_empty())
        });
    }
}

impl Group {
    /// Endpoints that stay keep their connections and what is known of them; those that go end with their last exchange.
    fn new(target: &Target, before: Option<&Group>) -> Group {
        let idle_timeout = target.settings.idle_timeout;
        let Some(fleet) = &target.fleet else {
            let Addresses::Listed(addresses) = &target.settings.addresses else {
                return Group { endpoints: Box::default(), idle_timeout, choice: None };
            };
            let endpoints = addresses.iter().map(|(host, port)| Arc::new(Endpoint::new(host, *port))).collect();
            return Group { endpoints, idle_timeout, choice: None };
        };
        let members = fleet.members();
        let place = |(host, port): &(String, u16)| {
            before.and_then(|group| group.endpoints.iter().position(|endpoint| endpoint.is_at(host, *port)))
        };
        let was: Vec<Option<usize>> = members.addresses.iter().map(place).collect();
        let kept = |at: Option<usize>| before.and_then(|group| group.endpoints.get(at?)).map(Arc::clone);
        let endpoints = members.addresses.iter().zip(&was);
        let endpoints =
            endpoints.map(|((host, port), at)| kept(*at).unwrap_or_else(|| Arc::new(Endpoint::new(host, *port))));
        let endpoints = endpoints.collect();
        let choice = match before.and_then(|group| group.choice.as_ref()) {
            Some(before) => before.resumed(members, &was),
            None => Choice::new(target, members),
        };
        Group { endpoints, idle_timeout, choice: Some(choice) }
    }

    fn is_current(&self, target: &Target) -> bool {
        match (&target.fleet, &self.choice) {
            (Some(fleet), Some(choice)) => fleet.version() == choice.members.version,
            _ => true,
        }
    }

    pub(super) fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// Is there nothing to choose, and so nothing to learn?
    pub(super) fn is_single(&self) -> bool {
        self.choice.is_none()
    }

    /// Is there more than one endpoint?
    pub(super) fn is_fleet(&self) -> bool {
        self.endpoints.len() > 1
    }

    pub(super) fn label(&self, at: usize) -> Option<Arc<str>> {
        self.endpoints.get(at).map(|endpoint| Arc::clone(endpoint.label()))
    }

    /// The endpoint to try; `tried` is a bit set of those that failed this request.
    pub(super) fn pick(&self, tried: u64, now: Instant) -> Option<(usize, &Arc<Endpoint>)> {
        let Some(choice) = &self.choice else {
            return if tried == 0 { self.endpoints.first().map(|endpoint| (0, endpoint)) } else { None };
        };
        let in_flight = |at: usize| self.endpoints.get(at).map_or(0, |endpoint| endpoint.in_flight.load(Relaxed));
        let at = lock(&choice.balance).pick(choice.us(now), tried, choice.members.well(), in_flight)?;
        self.endpoints.get(at).map(|endpoint| (at, endpoint))
    }

    /// How many endpoints this request was not put to.
    pub(super) fn others(&self, tried: u64) -> usize {
        self.endpoints.len().saturating_sub(usize::try_from(tried.count_ones()).unwrap_or(0))
    }

    /// The head of an answer came, after so long.
    pub(super) fn answered(&self, at: usize, now: Instant, took: Duration) {
        if let Some(choice) = &self.choice {
            lock(&choice.balance).answered(at, choice.us(now), micros(took));
        }
    }

    /// A try failed, begun at `began`.
    pub(super) fn failed(&self, target: &Target, at: usize, began: Instant, fault: Fault, why: &dyn std::fmt::Display) {
        let (Some(choice), Some(fleet)) = (&self.choice, &target.fleet) else { return };
        let now = Instant::now();
        let took = micros(now.duration_since(began));
        let ejected = lock(&choice.balance).failed(at, choice.us(now), took, fault);
        if let (Some(Ejected { for_us, times }), Some(endpoint)) = (ejected, self.endpoints.get(at)) {
            let rest = Duration::from_micros(for_us);
            choice.members.eject(at, fleet.now_ms().saturating_add(for_us / 1_000));
            Fleet::count(&fleet.counts.ejections);
            let for_s = rest.as_secs_f32();
            tracing::warn!(upstream = fleet.label, endpoint = %endpoint.label(), for_s, times, why = %why, "an upstream endpoint is put aside");
        }
    }

    /// A request that may be tried again adds to what retries may cost.
    pub(super) fn earn(&self) {
        if let Some(choice) = &self.choice {
            lock(&choice.budget).earn();
        }
    }

    /// May one more be tried again?
    pub(super) fn spend(&self, fleet: &Fleet) -> bool {
        let Some(choice) = &self.choice else { return false };
        let allowed = lock(&choice.budget).spend(choice.us(Instant::now()));
        Fleet::count(if allowed { &fleet.counts.retries } else { &fleet.counts.retries_refused });
        allowed
    }
}

impl Choice {
    fn new(target: &Target, members: Arc<Members>) -> Choice {
        // Workers that draw alike would all choose the same endpoint.
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), target.key);
        let balance = Balance::new(target.settings.outliers.clone(), members.addresses.len(), seed);
        let percent = target.settings.retries.as_ref().map_or(0, |retries| retries.budget_percent);
        let budget = Mutex::new(Budget::new(percent));
        Choice { members, balance: Mutex::new(balance), budget, started: Instant::now() }
    }

    fn resumed(&self, members: Arc<Members>, was: &[Option<usize>]) -> Choice {
        let balance = Mutex::new(lock(&self.balance).resumed(was, self.us(Instant::now())));
        let budget = Mutex::new(lock(&self.budget).clone());
        Choice { members, balance, budget, started: self.started }
    }

    fn us(&self, now: Instant) -> u64 {
        micros(now.duration_since(self.started))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
