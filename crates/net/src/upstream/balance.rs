//! Which endpoint of a fleet gets the next request: the cheaper of two drawn at random, among those that are well. It also
//! holds what was learnt of each endpoint: how slow it is, how often it failed in a row, until when it is put aside, and
//! how warm it is again. One per worker and target. Pure: time, and who is in flight or ill, are arguments.
use super::latency::PeakEwma;
use std::time::Duration;

/// An address that could not be connected to is passed over for so long, if there are others, whatever the ceiling says.
const UNREACHABLE_US: u64 = 2_000_000;
/// The least share of its requests that a returning endpoint gets, so that it is seen to work at all.
const WARM_SHARE_MIN: f64 = 0.1;
/// An ejection is longer than due by up to a fifth, so that workers and processes do not come back together.
const JITTER: f64 = 0.2;

/// When an endpoint is put aside, and how it comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outliers {
    /// Failures in a row (resets, timeouts, answers 502, 503 and 504) after which an endpoint is put aside. One failed
    /// connect is enough, and so is one failure of an endpoint that has just come back.
    pub failures: u32,
    /// How long the first time; each time again twice as long.
    pub base: Duration,
    pub longest: Duration,
    /// At most this part of a fleet is put aside at once; but at least one of two or more.
    pub ceiling_percent: u32,
    /// How long a new or returning endpoint takes to get its full share.
    pub slow_start: Duration,
}

impl Default for Outliers {
    fn default() -> Outliers {
        Outliers {
            failures: 5,
            base: Duration::from_secs(5),
            longest: Duration::from_secs(300),
            ceiling_percent: 50,
            slow_start: Duration::from_secs(15),
        }
    }
}

/// How an endpoint failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// There is no connection.
    Connect,
    /// It broke off, took too long, or answered that it cannot.
    Answer,
}

/// An endpoint was put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ejected {
    pub(super) for_us: u64,
    /// In how many ejections in a row.
    pub(super) times: u32,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Member {
    /// Absent until its first answer.
    latency: Option<PeakEwma>,
    failures: u32,
    ejections: u32,
    ejected_until_us: u64,
    ejected_for_us: u64,
    unreachable_until_us: u64,
    /// Set for an endpoint that joined or came back: since when.
    warm_since_us: Option<u64>,
}

pub(super) struct Balance {
    settings: Outliers,
    members: Vec<Member>,
    /// The endpoints that were well at the last look, a bit each.
    well: u64,
    random: u64,
}

impl Balance {
    pub(super) fn new(settings: Outliers, count: usize, seed: u64) -> Balance {
        Balance { settings, members: vec![Member::default(); count], well: u64::MAX, random: seed | 1 }
    }

    /// What is known of the endpoints is carried over, by `was`: each endpoint's place before, `None` for a new one.
    pub(super) fn resumed(&self, was: &[Option<usize>], now_us: u64) -> Balance {
        let new = Member { warm_since_us: Some(now_us), ..Member::default() };
        let of = |at: &Option<usize>| at.and_then(|at| self.members.get(at)).unwrap_or(&new).clone();
        let members = was.iter().map(of).collect();
        Balance { settings: self.settings.clone(), members, well: u64::MAX, random: self.random }
    }

    /// The cheaper of two endpoints drawn at random. `tried` and `well` are sets of bits, one per endpoint. Where none that
    /// is well is left, all that were not tried are drawn from: a fleet that looks ill as a whole is asked all the same.
    pub(super) fn pick(
        &mut self,
        now_us: u64,
        tried: u64,
        well: u64,
        in_flight: impl Fn(usize) -> u32,
    ) -> Option<usize> {
        self.welcome_back(now_us, well);
        let (mut untried, mut open, mut cold) = (0u64, 0u64, 0u64);
        for at in 0..self.members.len() {
            let bit = 1u64 << at;
            if tried & bit != 0 {
                continue;
            }
            untried |= bit;
            if well & bit == 0 || self.is_aside(at, now_us) {
                continue;
            }
            match self.share(at, now_us) {
                Some(share) if self.fraction() >= share => cold |= bit,
                _ => open |= bit,
            }
        }
        let candidates = [open, cold, untried].into_iter().find(|set| *set != 0)?;
        let first = self.draw(candidates)?;
        let second = self.draw(candidates & !(1 << first)).unwrap_or(first);
        let load = |at: usize| {
            let known = self.members.get(at).and_then(|member| member.latency);
            let cost = known.map_or_else(|| self.expected(now_us), |latency| latency.cost(now_us));
            cost * (f64::from(in_flight(at)) + 1.0)
        };
        Some(if load(second) < load(first) { second } else { first })
    }

    pub(super) fn answered(&mut self, at: usize, now_us: u64, took_us: u64) {
        let Some(member) = self.members.get_mut(at) else { return };
        member.failures = 0;
        match &mut member.latency {
            Some(latency) => latency.observe(took_us, now_us),
            None => member.latency = Some(PeakEwma::first(took_us, now_us)),
        }
    }

    /// `Some` if the endpoint is put aside for it.
    pub(super) fn failed(&mut self, at: usize, now_us: u64, took_us: u64, fault: Fault) -> Option<Ejected> {
        let (expected, fraction) = (self.expected(now_us), self.fraction());
        let out = (0..self.members.len()).filter(|at| self.is_ejected(*at, now_us)).count();
        let is_warming = self.share(at, now_us).is_some();
        let room = out < self.ejected_max();
        let settings = &self.settings;
        let member = self.members.get_mut(at)?;
        member.failures = member.failures.saturating_add(1);
        member.latency.get_or_insert_with(|| PeakEwma::first(round(expected), now_us)).punish(took_us, now_us);
        if fault == Fault::Connect {
            member.unreachable_until_us = now_us + UNREACHABLE_US;
        }
        let enough = fault == Fault::Connect || is_warming || member.failures >= settings.failures;
        if !enough || !room || member.ejected_until_us > now_us {
            return None;
        }
        // Well for longer than it was away last time and took to warm up: the past is forgiven.
        let forgiven = member.ejected_until_us + 2 * member.ejected_for_us + us(settings.slow_start);
        let times = if member.ejections == 0 || now_us > forgiven { 1 } else { member.ejections.saturating_add(1) };
        let due = us(settings.base).saturating_mul(1 << (times - 1).min(20)).min(us(settings.longest));
        let for_us = due + round(JITTER * fraction * precise(due));
        member.failures = 0;
        member.ejections = times;
        member.ejected_for_us = due;
        member.ejected_until_us = now_us + for_us;
        member.warm_since_us = Some(member.ejected_until_us);
        Some(Ejected { for_us, times })
    }

    /// How many may be put aside at once.
    fn ejected_max(&self) -> usize {
        let count = self.members.len();
        let share = count * usize::try_from(self.settings.ceiling_percent).unwrap_or(0) / 100;
        if count < 2 { 0 } else { share.max(1) }
    }

    /// Who was ill and is well again starts slowly.
    fn welcome_back(&mut self, now_us: u64, well: u64) {
        let back = well & !self.well;
        self.well = well;
        if back == 0 {
            return;
        }
        for (at, member) in self.members.iter_mut().enumerate() {
            if back & (1 << at) != 0 {
                member.warm_since_us = Some(now_us);
            }
        }
    }

    fn is_ejected(&self, at: usize, now_us: u64) -> bool {
        self.members.get(at).is_some_and(|member| member.ejected_until_us > now_us)
    }

    fn is_aside(&self, at: usize, now_us: u64) -> bool {
        let Some(member) = self.members.get(at) else { return true };
        member.ejected_until_us > now_us || member.unreachable_until_us > now_us
    }

    /// The part of its full share that a warming endpoint gets; `None` for a warm one.
    fn share(&self, at: usize, now_us: u64) -> Option<f64> {
        let since = self.members.get(at)?.warm_since_us?;
        let (whole, so_far) = (us(self.settings.slow_start), now_us.saturating_sub(since));
        (so_far < whole).then(|| (precise(so_far) / precise(whole)).max(WARM_SHARE_MIN))
    }

    /// What an endpoint is taken to cost before its first answer: the mean of the others.
    fn expected(&self, now_us: u64) -> f64 {
        let known = self.members.iter().filter_map(|member| member.latency);
        let (sum, count) = known.fold((0.0, 0u32), |(sum, count), latency| (sum + latency.cost(now_us), count + 1));
        if count == 0 { 1.0 } else { sum / f64::from(count) }
    }

    /// One of the bits set, evenly.
    fn draw(&mut self, mut bits: u64) -> Option<usize> {
        let count = bits.count_ones();
        if count == 0 {
            return None;
        }
        for _ in 0..self.random() % u64::from(count) {
            bits &= bits - 1;
        }
        usize::try_from(bits.trailing_zeros()).ok()
    }

    /// At least 0, less than 1.
    fn fraction(&mut self) -> f64 {
        precise(self.random() >> 12) / precise(1 << 52)
    }

    /// xorshift64*: for spreading load, never for secrets.
    fn random(&mut self) -> u64 {
        let mut x = self.random;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random = x;
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "durations and fractions, far below 2^52")]
fn precise(number: u64) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a duration, never negative; `as` saturates"
)]
fn round(us: f64) -> u64 {
    us as u64
}

#[cfg(test)]
mod tests;
