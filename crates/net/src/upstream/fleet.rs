//! What one process knows of the endpoints behind its targets: which there are, and which answered their checks. Looking up
//! names and checking is done once per process, by tasks of one thread that all workers read from; a fleet's tasks end when
//! no snapshot names it any more, or when the process drains. It forwards nothing.
use super::probe::{self, Probed};
use super::{ADDRESSES_MAX, Addresses, ForwardError, Key, Target, TargetSettings, connect};
use arc_swap::ArcSwap;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// A name that was never resolved is asked for so often.
const UNRESOLVED_EVERY: Duration = Duration::from_secs(1);

pub(super) type Address = (String, u16);

/// All fleets of a process. Dropping it ends their tasks.
#[derive(Default)]
pub struct Fleets {
    known: Mutex<HashMap<Key, Weak<Fleet>>>,
    caretaker: Mutex<Caretaker>,
}

/// The thread that looks up and checks, once there is something to do.
#[derive(Default)]
enum Caretaker {
    #[default]
    Idle,
    At {
        handle: Handle,
        /// Its end is the thread's.
        _stop: watch::Sender<()>,
    },
    Stopped,
}

impl Fleets {
    pub fn new() -> Fleets {
        Fleets::default()
    }

    /// `Err` says what is wrong with the settings, in words for the config's author.
    pub fn target(&self, settings: TargetSettings) -> Result<Target, String> {
        settings.check()?;
        let alpn: &[u8] = if settings.http2 { b"h2" } else { b"http/1.1" };
        let tls = settings.tls.as_ref().map(|tls| connect::TlsClient::build(tls, alpn)).transpose()?.map(Arc::new);
        let key = settings.key();
        let fleet = if settings.is_fleet() { Some(self.fleet(key, &settings, tls.as_ref())?) } else { None };
        Ok(Target { settings, tls, key, fleet })
    }

    /// No name is looked up and no endpoint checked from now on; what is known stays.
    pub fn stop(&self) {
        *lock(&self.caretaker) = Caretaker::Stopped;
    }

    fn fleet(
        &self,
        key: Key,
        settings: &TargetSettings,
        tls: Option<&Arc<connect::TlsClient>>,
    ) -> Result<Arc<Fleet>, String> {
        let mut known = lock(&self.known);
        if let Some(fleet) = known.get(&key).and_then(Weak::upgrade) {
            return Ok(fleet);
        }
        let fleet = Arc::new(Fleet::new(&settings.addresses));
        if settings.health.is_some() || matches!(settings.addresses, Addresses::Dns { .. }) {
            let work = Work { settings: settings.clone(), tls: tls.cloned() };
            if let Some(handle) = self.caretaker()? {
                let task = handle.spawn(tend(Arc::downgrade(&fleet), Arc::new(work)));
                *lock(&fleet.task) = Some(task.abort_handle());
            }
        }
        known.retain(|_, fleet| fleet.strong_count() > 0);
        known.insert(key, Arc::downgrade(&fleet));
        Ok(fleet)
    }

    fn caretaker(&self) -> Result<Option<Handle>, String> {
        let mut caretaker = lock(&self.caretaker);
        match &*caretaker {
            Caretaker::At { handle, .. } => return Ok(Some(handle.clone())),
            Caretaker::Stopped => return Ok(None),
            Caretaker::Idle => {}
        }
        let cannot = |error| format!("the thread that watches upstreams cannot start: {error}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
        let handle = runtime.handle().clone();
        let (stop, mut stopped) = watch::channel(());
        std::thread::Builder::new()
            .name("upstreams".into())
            .spawn(move || {
                // Ends with an error: when the sender is gone.
                let _gone = runtime.block_on(stopped.changed());
                // A look-up that hangs is not waited for.
                runtime.shutdown_background();
            })
            .map_err(cannot)?;
        *caretaker = Caretaker::At { handle: handle.clone(), _stop: stop };
        Ok(Some(handle))
    }
}

/// The endpoints of one target.
pub(super) struct Fleet {
    /// For logs: the name, or the first address.
    pub(super) label: String,
    members: ArcSwap<Members>,
    version: AtomicU64,
    told: watch::Sender<Told>,
    /// The last look-up failed.
    is_failing: AtomicBool,
    pub(super) counts: Counts,
    /// What fails its checks, also over a change of members.
    ill: Mutex<BTreeSet<Address>>,
    started: Instant,
    task: Mutex<Option<AbortHandle>>,
}

/// Is it known which endpoints there are?
enum Told {
    NotYet,
    Failed(String),
    Known,
}

/// The endpoints at one time. A change of their number or places is a new version.
pub(super) struct Members {
    /// Zero: not known yet.
    pub(super) version: u64,
    pub(super) addresses: Vec<Address>,
    /// One bit per endpoint that passes its checks, or has none.
    well: AtomicU64,
    /// Milliseconds of the fleet's clock: until when some worker puts the endpoint aside.
    ejected_until_ms: Box<[AtomicU64]>,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) ejections: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) retries_refused: AtomicU64,
    checks_passed: AtomicU64,
    checks_failed: AtomicU64,
    look_ups_failed: AtomicU64,
}

/// How an endpoint is, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Well,
    /// It fails its health checks.
    Ill,
    /// At least one worker puts it aside, for its failures.
    Ejected,
}

/// What metrics say of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// `host:port`, at most [`ADDRESSES_MAX`] of them.
    pub endpoints: Vec<(String, State)>,
    pub ejections: u64,
    pub retries: u64,
    /// Retries that the budget did not allow.
    pub retries_refused: u64,
    pub checks_passed: u64,
    pub checks_failed: u64,
    pub look_ups_failed: u64,
}

impl Members {
    fn new(version: u64, addresses: Vec<Address>, ill: &BTreeSet<Address>) -> Members {
        let mut well = 0u64;
        for (at, address) in addresses.iter().enumerate().take(ADDRESSES_MAX) {
            well |= u64::from(!ill.contains(address)) << at;
        }
        let ejected_until_ms = addresses.iter().map(|_| AtomicU64::new(0)).collect();
        Members { version, addresses, well: AtomicU64::new(well), ejected_until_ms }
    }

    pub(super) fn well(&self) -> u64 {
        self.well.load(Relaxed)
    }

    pub(super) fn eject(&self, at: usize, until_ms: u64) {
        if let Some(known) = self.ejected_until_ms.get(at) {
            known.fetch_max(until_ms, Relaxed);
        }
    }
}

impl Fleet {
    fn new(addresses: &Addresses) -> Fleet {
        let none = BTreeSet::new();
        let (label, members) = match addresses {
            Addresses::Listed(addresses) => (addresses.first().map(shown), Members::new(1, addresses.clone(), &none)),
            Addresses::Dns { host, port, .. } => {
                (Some(format!("dns:{host}:{port}")), Members::new(0, Vec::new(), &none))
            }
        };
        let (version, told) = (members.version, if members.version == 0 { Told::NotYet } else { Told::Known });
        Fleet {
            label: label.unwrap_or_default(),
            members: ArcSwap::from_pointee(members),
            version: AtomicU64::new(version),
            told: watch::channel(told).0,
            is_failing: AtomicBool::new(false),
            counts: Counts::default(),
            ill: Mutex::default(),
            started: Instant::now(),
            task: Mutex::default(),
        }
    }

    pub(super) fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }
    pub(super) fn version(&self) -> u64 {
        self.version.load(Acquire)
    }
    pub(super) fn is_known(&self) -> bool {
        self.version() > 0
    }
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// Waits for the first answer of the name server, whatever it says.
    pub(super) async fn known(&self, limit: Duration) -> Result<(), ForwardError> {
        let mut told = self.told.subscribe();
        let why = match timeout(limit, told.wait_for(|told| !matches!(told, Told::NotYet))).await {
            Ok(Ok(told)) => match &*told {
                Told::Known => return Ok(()),
                Told::Failed(why) => why.clone(),
                Told::NotYet => String::new(),
            },
            Ok(Err(_)) | Err(_) => format!("the name server said nothing within {limit:?}"),
        };
        Err(ForwardError::Connect { address: self.label.clone(), why })
    }

    pub(super) fn status(&self) -> Status {
        let (members, now_ms) = (self.members(), self.now_ms());
        let state = |at: usize| {
            if members.well() & (1 << at) == 0 {
                State::Ill
            } else if members.ejected_until_ms.get(at).is_some_and(|until| until.load(Relaxed) > now_ms) {
                State::Ejected
            } else {
                State::Well
            }
        };
        let endpoints = members.addresses.iter().enumerate().map(|(at, address)| (shown(address), state(at)));
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        Status {
            endpoints: endpoints.collect(),
            ejections: read(&self.counts.ejections),
            retries: read(&self.counts.retries),
            retries_refused: read(&self.counts.retries_refused),
            checks_passed: read(&self.counts.checks_passed),
            checks_failed: read(&self.counts.checks_failed),
            look_ups_failed: read(&self.counts.look_ups_failed),
        }
    }

    /// The name server's answer. A failure, or an answer without an address, leaves all as it was.
    pub(super) fn resolved(&self, answer: Result<Vec<Address>, String>) {
        let mut found = match answer {
            Ok(found) if !found.is_empty() => found,
            Ok(_) => return self.unresolved("the name has no address"),
            Err(why) => return self.unresolved(&why),
        };
        if self.is_failing.swap(false, Relaxed) {
            tracing::info!(upstream = self.label, "an upstream's name is resolved again");
        }
        // In one order, so that the same answer in another order is no change.
        found.sort();
        found.dedup();
        let left_out = found.len().saturating_sub(ADDRESSES_MAX);
        found.truncate(ADDRESSES_MAX);
        let (before, mut ill) = (self.members(), lock(&self.ill));
        if before.version > 0 && before.addresses == found {
            return;
        }
        let added: Vec<String> = found.iter().filter(|a| !before.addresses.contains(a)).map(shown).collect();
        let removed: Vec<String> = before.addresses.iter().filter(|a| !found.contains(a)).map(shown).collect();
        tracing::info!(
            upstream = self.label,
            endpoints = found.len(),
            added = added.join(" "),
            removed = removed.join(" "),
            "an upstream's endpoints changed"
        );
        if left_out > 0 {
            tracing::warn!(
                upstream = self.label,
                left_out,
                "the name has more than {ADDRESSES_MAX} addresses: the others are not used"
            );
        }
        // Who comes back later is checked anew, and is well until then.
        ill.retain(|address| found.contains(address));
        let version = before.version + 1;
        self.members.store(Arc::new(Members::new(version, found, &ill)));
        // After them: who sees the new version finds its members.
        self.version.store(version, Release);
        drop(ill);
        self.told.send_replace(Told::Known);
    }

    fn unresolved(&self, why: &str) {
        Fleet::count(&self.counts.look_ups_failed);
        if !self.is_known() {
            self.told.send_replace(Told::Failed(why.to_owned()));
        }
        // Said once, and not at each of the look-ups that follow: the counter tells that it lasts.
        if self.is_failing.swap(true, Relaxed) {
            tracing::debug!(upstream = self.label, why, "an upstream's name is still not resolved");
        } else {
            let addresses = self.members().addresses.len();
            tracing::warn!(
                upstream = self.label,
                why,
                addresses,
                "an upstream's name was not resolved; the addresses it had stay"
            );
        }
    }

    /// One check of one endpoint ended. `Some` in it: the endpoint's state changed.
    pub(super) fn probed(&self, address: &Address, probed: &Probed) {
        Fleet::count(if probed.failure.is_none() { &self.counts.checks_passed } else { &self.counts.checks_failed });
        let Some(is_well) = probed.turned else { return };
        let mut ill = lock(&self.ill);
        let members = self.members();
        // The last check of one that has just gone counts for nothing.
        let Some(at) = members.addresses.iter().position(|known| known == address) else { return };
        if is_well {
            ill.remove(address);
        } else {
            ill.insert(address.clone());
        }
        let (bit, endpoint) = (1u64 << at, shown(address));
        if is_well {
            members.well.fetch_or(bit, Relaxed);
            tracing::info!(upstream = self.label, endpoint, "an upstream endpoint passes its health checks again");
        } else {
            members.well.fetch_and(!bit, Relaxed);
            let why = probed.failure.as_deref().unwrap_or_default();
            tracing::warn!(upstream = self.label, endpoint, why, "an upstream endpoint fails its health checks");
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

/// What a fleet's task needs.
pub(super) struct Work {
    pub(super) settings: TargetSettings,
    pub(super) tls: Option<Arc<connect::TlsClient>>,
}

/// Looks up the name, if it is one, and keeps one probe per endpoint. Ends with the fleet; its probes end with it.
async fn tend(fleet: Weak<Fleet>, work: Arc<Work>) {
    let mut probes: HashMap<Address, probe::Running> = HashMap::new();
    loop {
        if let Addresses::Dns { host, port, .. } = &work.settings.addresses {
            let answer = connect::resolve_all(host, *port).await;
            let addresses = answer.map(|found| found.iter().map(|a| (a.ip().to_string(), a.port())).collect());
            let Some(fleet) = fleet.upgrade() else { return };
            fleet.resolved(addresses.map_err(|error| error.why()));
        }
        let Some(now) = fleet.upgrade() else { return };
        let addresses = now.members().addresses.clone();
        probes.retain(|address, _| addresses.contains(address));
        if let Some(check) = &work.settings.health {
            for address in addresses {
                let start = || probe::Running::start(Weak::clone(&fleet), address.clone(), check, &work);
                probes.entry(address.clone()).or_insert_with(start);
            }
        }
        let is_known = now.is_known();
        drop(now);
        match &work.settings.addresses {
            Addresses::Dns { refresh, .. } if is_known => tokio::time::sleep(*refresh).await,
            Addresses::Dns { .. } => tokio::time::sleep(UNRESOLVED_EVERY).await,
            Addresses::Listed(_) => std::future::pending().await,
        }
    }
}

fn shown((host, port): &Address) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
