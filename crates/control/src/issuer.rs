//! One issuer: a task that feeds its key engine and does what the engine says. It never touches another issuer's state.
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use trust::issuer::Profile;
use trust::keys::{Answer, Effects, Event, IssuerKeys, Machine, Notice, Now, Outcome, Report};

use crate::Options;
use crate::board::{Board, lock};
use crate::kept::Kept;
use crate::keys::Clock;
use crate::source::{Fetched, Locator, Source};

/// Questions that wait for the task; beyond it they are refused.
const COMMANDS_MAX: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    UnknownKid,
    SignatureBad,
}

pub(crate) enum Command {
    Ask { question: Question, kid: Option<String>, answer: oneshot::Sender<Outcome> },
    Kill(String),
    Refresh,
}

/// How often an unknown kid or a bad signature was asked about, and with which outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Misses {
    pub refreshed: u64,
    pub throttled: u64,
    pub unreachable: u64,
}

/// How one issuer's keys stand.
#[derive(Debug, Clone, serde::Serialize)]
pub struct IssuerReport {
    pub name: Arc<str>,
    /// Where the keys come from: a discovery URL, a JWKS URL or a file.
    pub source: String,
    /// What discovery said.
    pub jwks_uri: Option<String>,
    /// Something an operator has to look at; nothing was changed because of it.
    pub alarm: Option<String>,
    pub kid_misses: Misses,
    #[serde(flatten)]
    pub keys: Report,
}

/// One issuer's place on the board, shared by its task and everybody who asks.
pub(crate) struct Line {
    pub(crate) name: Arc<str>,
    pub(crate) source: Source,
    pub(crate) machine: Mutex<Machine>,
    /// The machine's keys as last published.
    pub(crate) keys: Mutex<IssuerKeys>,
    locator: Arc<Locator>,
    commands: mpsc::Sender<Command>,
    task: OnceLock<AbortHandle>,
    refreshed: AtomicU64,
    throttled: AtomicU64,
    unreachable: AtomicU64,
}

impl Line {
    pub(crate) fn new(
        profile: Arc<Profile>,
        source: Source,
        options: &Arc<Options>,
        clock: Clock,
    ) -> (Arc<Line>, Task) {
        let name = Arc::clone(profile.name());
        let mut machine = Machine::new(source.limits(&options.limits));
        let kept = options.state_dir.as_deref().map(|dir| Kept::new(dir, &name, &source));
        let body = kept.as_ref().and_then(|kept| kept.restore(&mut machine, clock.now()));
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let locator = Arc::new(Locator::new(profile, source.clone(), Arc::clone(options)));
        let line = Arc::new(Line {
            name,
            source,
            keys: Mutex::new(machine.keys()),
            machine: Mutex::new(machine),
            locator,
            commands,
            task: OnceLock::new(),
            refreshed: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            unreachable: AtomicU64::new(0),
        });
        let task = Task {
            line: Arc::clone(&line),
            clock,
            commands: receiver,
            waiters: HashMap::new(),
            waiters_seen: 0,
            flight: None,
            rediscovery: None,
            kept,
            body,
        };
        (line, task)
    }

    pub(crate) fn started(&self, task: AbortHandle) {
        // Set once: a line has one task.
        let _ = self.task.set(task);
    }

    pub(crate) fn stop(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    pub(crate) fn send(&self, command: Command) -> bool {
        self.commands.try_send(command).is_ok()
    }

    /// The engine bounds the wait; a task that is gone is an answer too.
    pub(crate) async fn ask(&self, kid: Option<&str>, question: Question) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let command = Command::Ask { question, kid: kid.map(str::to_owned), answer };
        match self.commands.try_send(command) {
            Ok(()) => answered.await.unwrap_or(Outcome::Unreachable),
            Err(mpsc::error::TrySendError::Full(_)) => Outcome::Throttled { next_allowed_ms: 1_000 },
            Err(mpsc::error::TrySendError::Closed(_)) => Outcome::Unreachable,
        }
    }

    pub(crate) fn count(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Refreshed => &self.refreshed,
            Outcome::Throttled { .. } => &self.throttled,
            Outcome::Unreachable => &self.unreachable,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn publishes(&self, kid: &str) -> bool {
        lock(&self.keys).set.keys().iter().any(|key| key.kid() == Some(kid))
    }

    /// On a reload: a file may have been changed, and an issuer that fails may have been mended.
    pub(crate) fn wants_refresh(&self) -> bool {
        self.source.is_file() || lock(&self.machine).is_failing()
    }

    pub(crate) fn report(&self, now: Now) -> IssuerReport {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        IssuerReport {
            name: Arc::clone(&self.name),
            source: self.source.to_string(),
            jwks_uri: self.locator.jwks_uri(),
            alarm: self.locator.alarm(),
            kid_misses: Misses {
                refreshed: count(&self.refreshed),
                throttled: count(&self.throttled),
                unreachable: count(&self.unreachable),
            },
            keys: lock(&self.machine).report(now),
        }
    }
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The issuer's only writer.
pub(crate) struct Task {
    line: Arc<Line>,
    clock: Clock,
    commands: mpsc::Receiver<Command>,
    waiters: HashMap<u64, oneshot::Sender<Outcome>>,
    waiters_seen: u64,
    flight: Option<Boxed<Fetched>>,
    rediscovery: Option<Boxed<()>>,
    kept: Option<Kept>,
    /// The last good document, for keeping.
    body: Option<Bytes>,
}

/// Far enough away to mean "not by itself".
const LONG: Duration = Duration::from_secs(3600);

/// The end of the future, which is then gone; without one, never.
async fn ended<T>(slot: &mut Option<Boxed<T>>) -> T {
    let Some(future) = slot else {
        return std::future::pending().await;
    };
    let value = future.await;
    *slot = None;
    value
}

impl Task {
    pub(crate) async fn run(mut self, board: Arc<Board>) {
        self.step(&board, Event::Start);
        loop {
            let wake_ms = lock(&self.line.machine).wake_at_ms();
            let wake = wake_ms.and_then(|at| self.clock.at(at)).unwrap_or_else(|| Instant::now() + LONG);
            tokio::select! {
                biased;
                fetched = ended(&mut self.flight) => self.fetched(&board, fetched),
                () = ended(&mut self.rediscovery) => {}
                command = self.commands.recv() => match command {
                    Some(command) => self.command(&board, command),
                    None => return,
                },
                () = tokio::time::sleep_until(wake.into()) => self.step(&board, Event::Timer),
            }
        }
    }

    fn command(&mut self, board: &Board, command: Command) {
        match command {
            Command::Kill(kid) => {
                tracing::warn!(issuer = &*self.line.name, kid, "key withdrawn by an operator");
                self.step(board, Event::Kill { kid: &kid });
                self.keep();
            }
            Command::Refresh => self.step(board, Event::Refresh),
            Command::Ask { question, kid, answer } => {
                self.waiters_seen = self.waiters_seen.wrapping_add(1);
                let waiter = self.waiters_seen;
                self.waiters.insert(waiter, answer);
                let kid = kid.as_deref();
                self.step(
                    board,
                    match question {
                        Question::UnknownKid => Event::UnknownKid { waiter, kid },
                        Question::SignatureBad => Event::SignatureBad { waiter, kid },
                    },
                );
            }
        }
    }

    fn fetched(&mut self, board: &Board, fetched: Fetched) {
        match fetched {
            Fetched::Failed(why) => self.step(board, Event::Answered(Answer::Failed(&why))),
            Fetched::Http { status, freshness, etag, body } => {
                let answer = Answer::Http { status, freshness, etag: etag.as_deref(), body: &body };
                if self.react(board, Event::Answered(answer)) {
                    if status == 200 {
                        self.body = Some(body);
                    }
                    self.keep();
                }
            }
        }
        if self.rediscovery.is_none() && self.line.locator.is_due() {
            let locator = Arc::clone(&self.line.locator);
            self.rediscovery = Some(Box::pin(async move { locator.rediscover().await }));
        }
    }

    fn step(&mut self, board: &Board, event: Event<'_>) {
        self.react(board, event);
    }

    /// One event, and all its effects: keys are published before anybody is told to look again. Was a good answer in it?
    fn react(&mut self, board: &Board, event: Event<'_>) -> bool {
        let now = self.clock.now();
        let effects = {
            let mut machine = lock(&self.line.machine);
            let effects = machine.handle(now, event);
            if effects.changed || effects.confirmed {
                *lock(&self.line.keys) = machine.keys();
            }
            if effects.changed {
                board.changed(now.monotonic_ms);
            } else if effects.confirmed {
                board.confirmed(now.monotonic_ms);
            }
            effects
        };
        let Effects { fetch, answers, confirmed, notices, .. } = effects;
        for (waiter, outcome) in answers {
            if let Some(answer) = self.waiters.remove(&waiter) {
                // A caller that went away needs no answer.
                let _ = answer.send(outcome);
            }
        }
        if let Some(fetch) = fetch {
            let locator = Arc::clone(&self.line.locator);
            self.flight = Some(Box::pin(async move { locator.fetch(fetch.etag).await }));
        }
        for notice in notices {
            log(&self.line.name, notice);
        }
        confirmed
    }

    fn keep(&mut self) {
        if let (Some(kept), Some(body)) = (&mut self.kept, &self.body) {
            kept.write(&lock(&self.line.machine), body);
        }
    }
}

fn log(issuer: &str, notice: Notice) {
    match notice {
        Notice::Added(kids) => tracing::info!(issuer, ?kids, "new keys of the issuer"),
        Notice::Retired(kids) => tracing::info!(issuer, ?kids, "keys no longer published; accepted for the grace"),
        Notice::Replaced(kids) => {
            tracing::warn!(issuer, ?kids, "the issuer published other material under a known kid")
        }
        Notice::Dropped(kids) => tracing::info!(issuer, ?kids, "keys no longer accepted"),
        Notice::LeftOut(keys) => tracing::info!(issuer, ?keys, "keys of the issuer that cannot be used here"),
        Notice::OutageBegan { why } => {
            tracing::warn!(issuer, why, "keys of the issuer cannot be fetched; known keys stay in use, we keep trying");
        }
        Notice::OutageEnded { lasted_ms } => {
            tracing::info!(issuer, lasted_s = lasted_ms / 1000, "keys of the issuer can be fetched again");
        }
        Notice::Expired => {
            tracing::error!(
                issuer,
                "no key of the issuer is left: the last good answer is too old; its tokens are refused"
            );
        }
        Notice::ClockJumped { seconds } => {
            tracing::warn!(issuer, seconds, "the wall clock jumped; keys stay, a refresh follows");
        }
    }
}
