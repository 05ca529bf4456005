//! The handle on the keys of all issuers: what data planes ask, what operators read. It never fetches: the issuer's task does.
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use feed::{GroupsOutcome, IntrospectionOutcome, KeyDemandOutcome};
use trust::keys::{KID_BYTES_MAX, Now, Outcome};

use crate::Options;
use crate::board::{Board, lock};
use crate::graph;
use crate::introspection::Desk;
use crate::issuer::{Command, IssuerReport, Line, Question};
use crate::source::Source;

/// The clocks and the dice of the control plane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    pub(crate) fn now(self) -> Now {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now {
            monotonic_ms: i64::try_from(self.0.elapsed().as_millis()).unwrap_or(i64::MAX),
            unix_s: i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX),
            random: random(),
        }
    }

    pub(crate) fn at(self, monotonic_ms: i64) -> Option<Instant> {
        self.0.checked_add(Duration::from_millis(u64::try_from(monotonic_ms).unwrap_or(0)))
    }
}

/// Only ever spreads refreshes in time; nothing secret depends on it.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// How the keys of every issuer stand.
#[derive(Debug, Clone, serde::Serialize)]
pub struct KeyReport {
    /// Of the current snapshot.
    pub epoch: u64,
    pub issuers: Vec<IssuerReport>,
}

/// The keys of all issuers. Cheap to share; outlives the control plane harmlessly.
pub struct Keys {
    board: Arc<Board>,
    options: Arc<Options>,
    runtime: tokio::runtime::Handle,
    clock: Clock,
    desks: Mutex<Vec<Arc<Desk>>>,
    graphs: Mutex<Vec<Arc<graph::Desk>>>,
}

impl Keys {
    pub(crate) fn new(current: feed::Current, options: Options, runtime: tokio::runtime::Handle) -> Keys {
        Keys {
            board: Arc::new(Board::new(current)),
            options: Arc::new(options),
            runtime,
            clock: Clock::start(),
            desks: Mutex::default(),
            graphs: Mutex::default(),
        }
    }

    /// Lines whose source is the same go on; others end or begin.
    pub(crate) fn update(&self, desired: feed::Desired) -> u64 {
        let before = self.board.lines();
        let mut begun = Vec::new();
        let mut lines = Vec::with_capacity(desired.issuers.len());
        for profile in &desired.issuers {
            let source = Source::of(profile);
            let kept = before.iter().find(|line| line.name == *profile.name() && line.source == source);
            lines.push(kept.cloned().unwrap_or_else(|| {
                let (line, task) = Line::new(Arc::clone(profile), source, &self.options, self.clock);
                begun.push((Arc::clone(&line), task));
                line
            }));
        }
        let gone = before.iter().filter(|line| !lines.iter().any(|now| Arc::ptr_eq(now, line)));
        let gone: Vec<_> = gone.cloned().collect();
        for line in lines.iter().filter(|line| line.wants_refresh()) {
            line.send(Command::Refresh);
        }
        // A reload may have changed a secret: nothing is known of any token any more.
        *lock(&self.desks) = Desk::all(&desired, &self.options, self.clock);
        *lock(&self.graphs) = graph::Desk::all(&desired, &self.options, self.clock);
        let epoch = self.board.replace(desired, lines, self.clock.now().monotonic_ms);
        for line in gone {
            line.stop();
        }
        for (line, task) in begun {
            line.started(self.runtime.spawn(task.run(Arc::clone(&self.board))).abort_handle());
        }
        epoch
    }

    /// How every issuer's keys stand.
    pub fn key_report(&self) -> KeyReport {
        let now = self.clock.now();
        KeyReport {
            epoch: self.board.current().peek().as_ref().map_or(0, |snapshot| snapshot.epoch),
            issuers: self.board.lines().iter().map(|line| line.report(now)).collect(),
        }
    }

    /// An operator withdraws a key: it is out of the next snapshot, which is published at once, and stays out whatever the
    /// issuer publishes. `false` if no such issuer is configured or the control plane has stopped.
    pub fn kill_key(&self, issuer: &str, kid: &str) -> bool {
        self.board.line(issuer).is_some_and(|line| line.send(Command::Kill(kid.to_owned())))
    }

    /// Asks for a refresh of one issuer's keys now. `false` as for [`Keys::kill_key`].
    pub fn refresh(&self, issuer: &str) -> bool {
        self.board.line(issuer).is_some_and(|line| line.send(Command::Refresh))
    }

    fn desk(&self, issuer: &str) -> Option<Arc<Desk>> {
        lock(&self.desks).iter().find(|desk| desk.issuer() == issuer).cloned()
    }

    async fn demand(&self, issuer: &str, kid: Option<&str>, question: Question) -> KeyDemandOutcome {
        let Some(line) = self.board.line(issuer) else {
            return KeyDemandOutcome::Unreachable;
        };
        let outcome = match self.refused_at_once(&line, kid, question) {
            Some(outcome) => outcome,
            None => line.ask(kid, question).await,
        };
        line.count(outcome);
        match outcome {
            Outcome::Refreshed => KeyDemandOutcome::Refreshed,
            Outcome::Unreachable => KeyDemandOutcome::Unreachable,
            Outcome::Throttled { next_allowed_ms } => {
                let next_allowed_s = u64::try_from(next_allowed_ms).unwrap_or(0).div_ceil(1000);
                KeyDemandOutcome::Throttled { next_allowed_s }
            }
        }
    }

    /// While the budget is spent a flood of invented kids is turned away here, without waking the issuer's task.
    fn refused_at_once(&self, line: &Line, kid: Option<&str>, question: Question) -> Option<Outcome> {
        if kid.is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
            return Some(Outcome::Throttled { next_allowed_ms: self.options.limits.in_vain_ms });
        }
        if question == Question::SignatureBad {
            return None;
        }
        // First the engine, then the snapshot: what the engine had taken in by then is published before its lock is free.
        let refused = lock(&line.machine).refusing_until(self.clock.now())?;
        Some(if line.publishes(kid?) { Outcome::Refreshed } else { refused.0 })
    }
}

impl feed::KeyDemand for Keys {
    fn unknown_kid<'a>(
        &'a self,
        issuer: &'a str,
        kid: Option<&'a str>,
    ) -> Pin<Box<dyn Future<Output = KeyDemandOutcome> + Send + 'a>> {
        Box::pin(self.demand(issuer, kid, Question::UnknownKid))
    }

    fn signature_bad<'a>(
        &'a self,
        issuer: &'a str,
        kid: Option<&'a str>,
    ) -> Pin<Box<dyn Future<Output = KeyDemandOutcome> + Send + 'a>> {
        Box::pin(self.demand(issuer, kid, Question::SignatureBad))
    }
}

impl feed::Introspect for Keys {
    fn introspect<'a>(
        &'a self,
        issuer: &'a str,
        token: &'a str,
        token_sha256: [u8; 32],
    ) -> Pin<Box<dyn Future<Output = IntrospectionOutcome> + Send + 'a>> {
        let desk = self.desk(issuer);
        let keys = self.board.line(issuer).map(|line| Arc::clone(&lock(&line.keys).set));
        Box::pin(async move {
            match (desk, keys) {
                (Some(desk), Some(keys)) => desk.ask(&self.runtime, token, token_sha256, keys).await,
                _ => IntrospectionOutcome::Unavailable("no introspection is configured for this issuer".into()),
            }
        })
    }
}

impl feed::Groups for Keys {
    fn groups<'a>(
        &'a self,
        issuer: &'a str,
        whose: &'a trust::token::Overage,
    ) -> Pin<Box<dyn Future<Output = GroupsOutcome> + Send + 'a>> {
        let desk = lock(&self.graphs).iter().find(|desk| desk.issuer() == issuer).cloned();
        Box::pin(async move {
            match desk {
                Some(desk) => desk.ask(&self.runtime, whose).await,
                None => GroupsOutcome::Unknown("no `graph` is configured for this issuer".into()),
            }
        })
    }
}
