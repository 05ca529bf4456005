//! One issuer's key engine: when to fetch, what to believe, whom to answer. It never does any of it itself.
use super::IssuerKeys;
use super::budget::{FetchBudget, InVain, Want};
use super::freshness::Freshness;
use super::ring::{Change, Ring, Seen};
use super::words::{
    Answer, Effects, Event, Fetch, KID_BYTES_MAX, Limits, Notice, Now, Outcome, Report, RestoreError, Restored, State,
};
use crate::jwk::{KeySet, KeySetError, LeftOut};
use std::sync::Arc;

/// Wall clock and monotonic clock may part by this much before it counts as a jump.
const CLOCK_JUMP_S: i64 = 60;
const ERROR_BYTES_MAX: usize = 300;

#[derive(Debug)]
struct Good {
    at_ms: i64,
    at_unix_s: i64,
    stale_at_ms: i64,
    etag: Option<String>,
    left_out: Vec<LeftOut>,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    want: Want,
    asked_ms: i64,
}

/// The engine of one issuer. Feed it events; do as the effects say.
#[derive(Debug)]
pub struct Machine {
    limits: Limits,
    ring: Ring,
    published: IssuerKeys,
    good: Option<Good>,
    flight_began_ms: Option<i64>,
    /// `None` before the start.
    next_fetch_ms: Option<i64>,
    failures: u32,
    outage_began_ms: i64,
    last_error: Option<String>,
    budget: FetchBudget,
    in_vain: InVain,
    waiters: Vec<Waiter>,
    /// Wall clock minus monotonic clock, seconds.
    clock_offset_s: Option<i64>,
    fetches: u64,
    fetches_failed: u64,
    fetches_not_modified: u64,
}

impl Machine {
    pub fn new(limits: Limits) -> Machine {
        Machine {
            ring: Ring::default(),
            published: IssuerKeys { set: Arc::new(KeySet::default()), version: 0, fetched_at: None },
            good: None,
            flight_began_ms: None,
            next_fetch_ms: None,
            failures: 0,
            outage_began_ms: 0,
            last_error: None,
            budget: FetchBudget::new(limits.demand_interval_ms),
            in_vain: InVain::new(limits.in_vain_max, limits.in_vain_ms),
            waiters: Vec::new(),
            clock_offset_s: None,
            fetches: 0,
            fetches_failed: 0,
            fetches_not_modified: 0,
            limits,
        }
    }

    /// Takes up keys from before a restart, if they are younger than the hard limit and not from the future. To be called
    /// before the start, which fetches at once all the same.
    pub fn restore(&mut self, now: Now, restored: &Restored<'_>) -> Result<(), RestoreError> {
        let age_ms = now.unix_s.saturating_sub(restored.fetched_at).saturating_mul(1000);
        if age_ms < -CLOCK_JUMP_S * 1000 || age_ms >= self.limits.hard_ms {
            return Err(RestoreError::Age { age_s: age_ms / 1000 });
        }
        let (set, left_out) = KeySet::parse(restored.body)?;
        let at_ms = now.monotonic_ms.saturating_sub(age_ms.max(0));
        self.ring.take_in(&set, &self.seen(at_ms, restored.fetched_at));
        self.good = Some(Good {
            at_ms,
            at_unix_s: restored.fetched_at,
            stale_at_ms: now.monotonic_ms,
            etag: restored.etag.map(str::to_owned),
            left_out,
        });
        self.publish();
        Ok(())
    }

    /// The current keys. A new version whenever [`Effects::changed`] was set.
    pub fn keys(&self) -> IssuerKeys {
        self.published.clone()
    }

    /// Kids that an operator has killed.
    pub fn killed(&self) -> impl Iterator<Item = &str> {
        self.ring.killed()
    }

    /// Unix seconds and etag of the last good answer, for keeping.
    pub fn last_good(&self) -> Option<(i64, Option<&str>)> {
        self.good.as_ref().map(|good| (good.at_unix_s, good.etag.as_deref()))
    }

    /// Did the last fetch fail?
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Takes one event. Total: no order of events is wrong.
    pub fn handle(&mut self, now: Now, event: Event<'_>) -> Effects {
        let mut effects = Effects::default();
        self.watch_clock(now, &mut effects);
        match event {
            Event::Start => self.next_fetch_ms = Some(now.monotonic_ms),
            Event::Timer => {}
            Event::Refresh => self.next_fetch_ms = self.next_fetch_ms.map(|next| next.min(now.monotonic_ms)),
            Event::Answered(answer) => self.answered(now, answer, &mut effects),
            Event::UnknownKid { waiter, kid } => self.unknown_kid(now, waiter, kid, &mut effects),
            Event::SignatureBad { waiter, kid } => self.signature_bad(now, waiter, kid, &mut effects),
            Event::Kill { kid } => {
                self.ring.kill(kid);
                self.changed(&mut effects);
            }
        }
        self.settle(now, &mut effects);
        effects
    }

    /// When to send [`Event::Timer`], on the monotonic clock.
    pub fn wake_at_ms(&self) -> Option<i64> {
        let fetch = if self.flight_began_ms.is_some() { None } else { self.next_fetch_ms };
        let waiter = self.waiters.iter().map(|waiter| waiter.asked_ms.saturating_add(self.limits.wait_ms)).min();
        [fetch, waiter, self.ring.next_end_ms()].into_iter().flatten().min()
    }

    /// If every unknown kid would be refused without a fetch right now: with which outcome and until when. Lets a caller
    /// refuse a flood without waking the engine.
    pub fn refusing_until(&self, now: Now) -> Option<(Outcome, i64)> {
        let next = self.budget.next_for_unknown_kid(now.monotonic_ms);
        let refusing = self.flight_began_ms.is_none() && self.next_fetch_ms.is_some() && next > now.monotonic_ms;
        let until = self.next_fetch_ms.map_or(next, |fetch| fetch.min(next));
        refusing.then(|| (self.refusal(next, now), until))
    }

    pub fn report(&self, now: Now) -> Report {
        let since_s = |at: i64| now.monotonic_ms.saturating_sub(at) / 1000;
        Report {
            state: self.state(now),
            version: self.published.version,
            keys: self.ring.report(),
            left_out: self.good.iter().flat_map(|good| good.left_out.iter().map(|l| (l.kid.clone(), l.why))).collect(),
            age_s: self.good.as_ref().map(|good| since_s(good.at_ms)),
            next_refresh_s: self.next_fetch_ms.map(|next| next.saturating_sub(now.monotonic_ms).max(0) / 1000),
            failures_in_a_row: self.failures,
            last_error: self.last_error.clone(),
            fetches: self.fetches,
            fetches_failed: self.fetches_failed,
            fetches_not_modified: self.fetches_not_modified,
            in_vain: self.in_vain.len(),
            waiting: self.waiters.len(),
        }
    }

    fn state(&self, now: Now) -> State {
        match &self.good {
            None => State::Never,
            Some(_) if self.ring.is_empty() => State::Expired,
            Some(good) if good.stale_at_ms <= now.monotonic_ms => State::Stale,
            Some(_) => State::Fresh,
        }
    }

    /// A wall clock that jumped says that something happened to this machine (suspend, a late time server): worth one
    /// refresh, but no reason to forget keys that were good a moment ago.
    fn watch_clock(&mut self, now: Now, effects: &mut Effects) {
        let offset_s = now.unix_s.saturating_sub(now.monotonic_ms.div_euclid(1000));
        let jumped_s = self.clock_offset_s.map_or(0, |before| offset_s.saturating_sub(before));
        if self.clock_offset_s.is_some() && jumped_s.saturating_abs() <= CLOCK_JUMP_S {
            return;
        }
        if self.clock_offset_s.replace(offset_s).is_some() {
            effects.notices.push(Notice::ClockJumped { seconds: jumped_s });
            self.next_fetch_ms = self.next_fetch_ms.map(|next| next.min(now.monotonic_ms));
        }
    }

    fn answered(&mut self, now: Now, answer: Answer<'_>, effects: &mut Effects) {
        let Some(began_ms) = self.flight_began_ms.take() else {
            return;
        };
        match self.believe(now, &answer, effects) {
            Ok(freshness) => {
                self.good_answer(now, freshness, effects);
                self.answer_waiters(now, began_ms, effects);
            }
            Err(why) => {
                self.failed(now, why, effects);
                let waiters = std::mem::take(&mut self.waiters);
                effects.answers.extend(waiters.into_iter().map(|waiter| (waiter.id, Outcome::Unreachable)));
            }
        }
    }

    /// Takes the answer in if it is good; else why it is not.
    fn believe(&mut self, now: Now, answer: &Answer<'_>, effects: &mut Effects) -> Result<Freshness, String> {
        let (status, freshness, etag, body) = match answer {
            Answer::Failed(why) => return Err((*why).to_owned()),
            Answer::Http { status, freshness, etag, body } => (*status, *freshness, *etag, *body),
        };
        let seen = self.seen(now.monotonic_ms, now.unix_s);
        match (status, &mut self.good) {
            (304, Some(_)) => {
                self.fetches_not_modified += 1;
                self.ring.seen_again(&seen);
            }
            (304, None) => return Err("status 304, although nothing is known yet".to_owned()),
            (200, _) => {
                let (set, left_out) = KeySet::parse(body).map_err(|error: KeySetError| error.to_string())?;
                let change = self.ring.take_in(&set, &seen);
                self.tell(change, &left_out, effects);
                self.good = Some(Good {
                    at_ms: now.monotonic_ms,
                    at_unix_s: now.unix_s,
                    stale_at_ms: now.monotonic_ms,
                    etag: etag.map(str::to_owned),
                    left_out,
                });
            }
            (other, _) => return Err(format!("status {other}")),
        }
        Ok(freshness)
    }

    fn tell(&mut self, change: Change, left_out: &[LeftOut], effects: &mut Effects) {
        let told = self.good.as_ref().is_some_and(|good| good.left_out == left_out);
        if !told && !left_out.is_empty() {
            effects.notices.push(Notice::LeftOut(left_out.to_vec()));
        }
        if change.is_none() {
            return;
        }
        self.changed(effects);
        let told = [Notice::Added(change.added), Notice::Replaced(change.replaced), Notice::Retired(change.retired)];
        let told = told.into_iter().filter(|notice| {
            !matches!(notice, Notice::Added(kids) | Notice::Replaced(kids) | Notice::Retired(kids) if kids.is_empty())
        });
        effects.notices.extend(told);
    }

    fn good_answer(&mut self, now: Now, freshness: Freshness, effects: &mut Effects) {
        let soft_ms = spread(self.soft_ms(freshness), now.random);
        if let Some(good) = &mut self.good {
            good.at_ms = now.monotonic_ms;
            good.at_unix_s = now.unix_s;
            good.stale_at_ms = now.monotonic_ms.saturating_add(soft_ms);
        }
        self.published.fetched_at = Some(now.unix_s);
        // In the background, before the soft time to live ends.
        self.next_fetch_ms = Some(now.monotonic_ms.saturating_add(soft_ms / 10 * 9));
        if self.failures > 0 {
            let lasted_ms = now.monotonic_ms.saturating_sub(self.outage_began_ms);
            effects.notices.push(Notice::OutageEnded { lasted_ms });
        }
        self.failures = 0;
        self.last_error = None;
        effects.confirmed = true;
    }

    fn failed(&mut self, now: Now, why: String, effects: &mut Effects) {
        let why = crop(why);
        if self.failures == 0 {
            self.outage_began_ms = now.monotonic_ms;
            effects.notices.push(Notice::OutageBegan { why: why.clone() });
        }
        let doubled = self.limits.backoff_min_ms.saturating_mul(1 << self.failures.min(16));
        let pause_ms = doubled.min(self.limits.backoff_max_ms);
        self.failures = self.failures.saturating_add(1);
        self.fetches_failed += 1;
        self.last_error = Some(why);
        self.next_fetch_ms = Some(now.monotonic_ms.saturating_add(half_to_whole(pause_ms, now.random)));
    }

    fn unknown_kid(&mut self, now: Now, waiter: u64, kid: Option<&str>, effects: &mut Effects) {
        let answer = if kid.is_some_and(|kid| self.ring.has_kid(kid)) {
            Some(Outcome::Refreshed)
        } else if kid.is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
            Some(Outcome::Throttled { next_allowed_ms: self.limits.in_vain_ms })
        } else {
            let next = self.budget.next_for_unknown_kid(now.monotonic_ms);
            self.demand(now, waiter, Want::Key(kid.map(Box::from)), next, effects)
        };
        effects.answers.extend(answer.map(|outcome| (waiter, outcome)));
    }

    fn signature_bad(&mut self, now: Now, waiter: u64, kid: Option<&str>, effects: &mut Effects) {
        let answer = if kid.is_some_and(|kid| !self.ring.has_kid(kid)) {
            // Its key went away between the check and this question.
            Some(Outcome::Refreshed)
        } else {
            let next = self.budget.next_for_bad_signature(now.monotonic_ms);
            self.demand(now, waiter, Want::Material(kid.map(Box::from)), next, effects)
        };
        effects.answers.extend(answer.map(|outcome| (waiter, outcome)));
    }

    /// Joins the fetch in flight, starts one if the budget allows, or says why not.
    fn demand(&mut self, now: Now, id: u64, want: Want, next_allowed: i64, effects: &mut Effects) -> Option<Outcome> {
        if let Some(until) = self.in_vain.until(&want, now.monotonic_ms) {
            return Some(Outcome::Throttled { next_allowed_ms: until.saturating_sub(now.monotonic_ms) });
        }
        if self.waiters.len() >= self.limits.waiters_max {
            return Some(Outcome::Throttled { next_allowed_ms: self.limits.wait_ms });
        }
        if self.flight_began_ms.is_none() {
            if next_allowed > now.monotonic_ms {
                return Some(self.refusal(next_allowed, now));
            }
            self.budget.spend(now.monotonic_ms);
            self.begin_fetch(now, effects);
        }
        self.waiters.push(Waiter { id, want, asked_ms: now.monotonic_ms });
        None
    }

    fn refusal(&self, next_allowed: i64, now: Now) -> Outcome {
        if self.failures > 0 {
            return Outcome::Unreachable;
        }
        Outcome::Throttled { next_allowed_ms: next_allowed.saturating_sub(now.monotonic_ms) }
    }

    /// After a good answer: who has what he wants is told; who asked while the fetch was under way may be answered by a
    /// document older than his token, and gets one more fetch if the budget allows.
    fn answer_waiters(&mut self, now: Now, began_ms: i64, effects: &mut Effects) {
        let changed = effects.changed;
        let next = self.budget.next_for_unknown_kid(now.monotonic_ms);
        let mut wait_on = Vec::new();
        for waiter in std::mem::take(&mut self.waiters) {
            let satisfied = match &waiter.want {
                Want::Key(Some(kid)) => self.ring.has_kid(kid),
                Want::Key(None) | Want::Material(_) => changed,
            };
            if satisfied {
                effects.answers.push((waiter.id, Outcome::Refreshed));
            } else if waiter.asked_ms <= began_ms {
                self.in_vain.remember(waiter.want, now.monotonic_ms);
                effects.answers.push((waiter.id, Outcome::Refreshed));
            } else if next <= now.monotonic_ms && matches!(waiter.want, Want::Key(_)) {
                wait_on.push(waiter);
            } else {
                effects.answers.push((waiter.id, self.refusal(next, now)));
            }
        }
        if !wait_on.is_empty() {
            self.budget.spend(now.monotonic_ms);
            self.begin_fetch(now, effects);
        }
        self.waiters = wait_on;
    }

    fn begin_fetch(&mut self, now: Now, effects: &mut Effects) {
        self.flight_began_ms = Some(now.monotonic_ms);
        self.fetches += 1;
        effects.fetch = Some(Fetch { etag: self.good.as_ref().and_then(|good| good.etag.clone()) });
    }

    /// What time alone brings about: keys end, waits end, a refresh is due.
    fn settle(&mut self, now: Now, effects: &mut Effects) {
        let dropped = self.ring.drop_expired(now.monotonic_ms);
        if !dropped.is_empty() {
            effects.notices.push(Notice::Dropped(dropped));
            self.changed(effects);
            if self.ring.is_empty() {
                effects.notices.push(Notice::Expired);
            }
        }
        let wait_ms = self.limits.wait_ms;
        self.waiters.retain(|waiter| {
            let waits = waiter.asked_ms.saturating_add(wait_ms) > now.monotonic_ms;
            if !waits {
                effects.answers.push((waiter.id, Outcome::Unreachable));
            }
            waits
        });
        let due = self.next_fetch_ms.is_some_and(|next| next <= now.monotonic_ms);
        if due && self.flight_began_ms.is_none() {
            self.budget.started(now.monotonic_ms);
            self.begin_fetch(now, effects);
        }
        if effects.changed {
            self.publish();
        }
    }

    fn changed(&mut self, effects: &mut Effects) {
        effects.changed = true;
        self.in_vain.forget_all();
    }

    fn publish(&mut self) {
        self.published = IssuerKeys {
            set: Arc::new(self.ring.to_set()),
            version: self.published.version.saturating_add(1),
            fetched_at: self.good.as_ref().map(|good| good.at_unix_s),
        };
    }

    fn seen(&self, now_ms: i64, unix_s: i64) -> Seen {
        Seen {
            now_ms,
            unix_s,
            hard_until_ms: now_ms.saturating_add(self.limits.hard_ms),
            grace_ms: self.limits.retire_grace_ms,
        }
    }

    fn soft_ms(&self, freshness: Freshness) -> i64 {
        match freshness {
            Freshness::NoCache => self.limits.no_cache_ms,
            Freshness::Silent => self.limits.soft_min_ms,
            Freshness::Seconds(seconds) => {
                let stated_ms = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000);
                stated_ms.min(self.limits.soft_max_ms).max(self.limits.soft_min_ms)
            }
        }
    }
}

/// ± 10 %, so that many proxies, or many issuers of one, do not fetch in step.
fn spread(ms: i64, random: u64) -> i64 {
    let per_mille = i64::try_from(900 + random % 201).unwrap_or(1000);
    ms.saturating_mul(per_mille) / 1000
}

fn half_to_whole(ms: i64, random: u64) -> i64 {
    let half = ms / 2;
    let span = u64::try_from(ms - half).unwrap_or(0).saturating_add(1);
    half.saturating_add(i64::try_from(random % span).unwrap_or(0))
}

/// An error text may hold what the other side sent.
fn crop(mut text: String) -> String {
    let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= ERROR_BYTES_MAX).last().unwrap_or(0);
    if text.len() > ERROR_BYTES_MAX {
        text.truncate(end);
    }
    text
}
