//! What goes into a key engine and what comes out: its clock, limits, events, effects and reports. Data only.
use super::freshness::Freshness;
use super::ring::KeyReport;
use crate::jwk::{KeySetError, LeftOut};

/// Largest JWKS document that is read, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// A longer kid in a token is nobody's; it is refused without a fetch.
pub const KID_BYTES_MAX: usize = 256;

/// Time and randomness of one event.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Milliseconds of a clock that does not jump; its zero means nothing. Every limit is counted on it.
    pub monotonic_ms: i64,
    /// Unix seconds; written down, and watched for jumps, but no key lives or dies by it.
    pub unix_s: i64,
    /// Spreads refreshes and retries.
    pub random: u64,
}

/// Limits of the engine, in milliseconds and counts. The defaults are the documented ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bounds of the soft time to live; what `Cache-Control` says is clamped to them.
    pub soft_min_ms: i64,
    pub soft_max_ms: i64,
    /// Soft time to live after `no-cache` or `no-store`.
    pub no_cache_ms: i64,
    /// How long a key may be used after the last good answer that held it.
    pub hard_ms: i64,
    /// How long a key is used after a good answer no longer held it.
    pub retire_grace_ms: i64,
    /// One fetch on demand per interval, burst two.
    pub demand_interval_ms: i64,
    pub in_vain_ms: i64,
    pub in_vain_max: usize,
    pub waiters_max: usize,
    pub wait_ms: i64,
    pub backoff_min_ms: i64,
    pub backoff_max_ms: i64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            soft_min_ms: 5 * 60_000,
            soft_max_ms: 60 * 60_000,
            no_cache_ms: 60_000,
            hard_ms: 24 * 3_600_000,
            retire_grace_ms: 5 * 60_000,
            demand_interval_ms: 30_000,
            in_vain_ms: 60_000,
            in_vain_max: 1024,
            waiters_max: 1024,
            wait_ms: 2_000,
            backoff_min_ms: 1_000,
            backoff_max_ms: 60_000,
        }
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    Start,
    /// The time asked for by [`super::Machine::wake_at_ms`] has come; harmless at any other time.
    Timer,
    /// The fetch in flight has ended.
    Answered(Answer<'a>),
    /// A token names a key that the set does not have. `waiter` comes back in [`Effects::answers`], exactly once.
    UnknownKid {
        waiter: u64,
        kid: Option<&'a str>,
    },
    /// A known key did not fit a token's signature.
    SignatureBad {
        waiter: u64,
        kid: Option<&'a str>,
    },
    /// An operator withdraws a key.
    Kill {
        kid: &'a str,
    },
    /// An operator asks for a refresh (reload).
    Refresh,
}

/// How a fetch ended.
#[derive(Debug)]
pub enum Answer<'a> {
    Http {
        status: u16,
        freshness: Freshness,
        etag: Option<&'a str>,
        body: &'a [u8],
    },
    /// No whole answer: why, for operators.
    Failed(&'a str),
}

/// Start one fetch, and report its end as [`Event::Answered`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// For `If-None-Match`.
    pub etag: Option<String>,
}

/// What a waiting request is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Look again in the current set.
    Refreshed,
    /// No fetch for this before so many milliseconds have passed.
    Throttled { next_allowed_ms: i64 },
    /// The issuer cannot be reached.
    Unreachable,
}

/// What is to be done now. Publish a changed set before giving the answers: they say "look again".
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    pub fetch: Option<Fetch>,
    pub answers: Vec<(u64, Outcome)>,
    /// [`super::Machine::keys`] has a new version.
    pub changed: bool,
    /// A good answer came, be it with the same keys.
    pub confirmed: bool,
    pub notices: Vec<Notice>,
}

/// What an operator would want to read in the log, once per change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Added(Vec<String>),
    /// No longer published; accepted for the grace.
    Retired(Vec<String>),
    /// The same kid holds other material now.
    Replaced(Vec<String>),
    /// No longer accepted.
    Dropped(Vec<String>),
    /// Keys of the answer that cannot be used.
    LeftOut(Vec<LeftOut>),
    OutageBegan {
        why: String,
    },
    OutageEnded {
        lasted_ms: i64,
    },
    /// No key is left: the last good answer is older than the hard limit.
    Expired,
    ClockJumped {
        seconds: i64,
    },
}

/// The engine's own word on how it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No good answer yet.
    Never,
    Fresh,
    /// Past the soft time to live; keys are still used.
    Stale,
    /// Past the hard limit: no key is left.
    Expired,
}

/// How one issuer's keys stand; for `keys` and metrics.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Report {
    pub state: State,
    pub version: u64,
    pub keys: Vec<KeyReport>,
    /// Keys of the last good answer that cannot be used: kid and why.
    pub left_out: Vec<(Option<String>, &'static str)>,
    /// Since the last good answer, seconds.
    pub age_s: Option<i64>,
    /// Until the next refresh, seconds.
    pub next_refresh_s: Option<i64>,
    pub failures_in_a_row: u32,
    pub last_error: Option<String>,
    pub fetches: u64,
    pub fetches_failed: u64,
    pub fetches_not_modified: u64,
    pub in_vain: usize,
    pub waiting: usize,
}

/// A good answer from before a restart.
#[derive(Debug)]
pub struct Restored<'a> {
    pub body: &'a [u8],
    pub etag: Option<&'a str>,
    /// Unix seconds of that answer.
    pub fetched_at: i64,
}

/// Why keys from before a restart were not taken up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    #[error("kept keys are {age_s} seconds old by this machine's clock")]
    Age { age_s: i64 },
    #[error(transparent)]
    Document(#[from] KeySetError),
}
