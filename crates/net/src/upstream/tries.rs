//! The tries of one request: which endpoints it was put to, what became of each, and whether there may be another. Two
//! kinds of repetition are always safe and cost no budget: of what was never written, and once of an idempotent request
//! without a body whose reused connection turned out dead. All others are the service's choice ([`super::Retries`]).
use super::balance::Fault;
use super::endpoint::Endpoint;
use super::exchange::{Failure, Waits};
use super::group::Group;
use super::{Answered, ForwardError, Retries, Target};
use crate::Response;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Addresses that one request tries to connect to, unless its service asks for more.
const ADDRESSES_TRIED_MAX: u32 = 3;
/// Times one request may be put on a connection without budget: a reused one that turned out dead, and a new one.
const SENDS_MAX: u32 = 2;
/// Before the same endpoint is tried again; the next time twice as long.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) struct Tries<'t> {
    target: &'t Target,
    pub(super) waits: Waits,
    /// A bit for each endpoint that failed.
    pub(super) tried: u64,
    /// Times the request was put on a connection.
    sends: u32,
    /// The reused connections of this moment may all be dead.
    pub(super) wants_new: bool,
    /// When this try began.
    pub(super) began: Instant,
    /// When all of them have to end.
    pub(super) until: Instant,
    /// What the service opted into, if this request may be repeated at all.
    pub(super) retries: Option<&'t Retries>,
    retried: u32,
    unconnected: u32,
    last: Option<ForwardError>,
}

impl<'t> Tries<'t> {
    pub(super) fn new(group: &Group, target: &'t Target, waits: Waits, repeatable: bool) -> Tries<'t> {
        let began = Instant::now();
        let retries = if repeatable { target.settings.retries.as_deref() } else { None };
        if retries.is_some() {
            group.earn();
        }
        let until = began + waits.all;
        Tries {
            target,
            waits,
            tried: 0,
            sends: 0,
            wants_new: false,
            began,
            until,
            retries,
            retried: 0,
            unconnected: 0,
            last: None,
        }
    }

    /// When this try has to end. Ask at its beginning.
    pub(super) fn try_until(&self) -> Instant {
        let limit = self.retries.and_then(|retries| retries.per_try_timeout);
        limit.map_or(self.until, |limit| self.until.min(self.began + limit))
    }

    pub(super) fn try_overdue(&self) -> ForwardError {
        ForwardError::FirstByteTimeout(self.retries.and_then(|retries| retries.per_try_timeout).unwrap_or_default())
    }

    /// The request is put on a connection. How long opening it took is not the endpoint's speed.
    pub(super) fn sends(&mut self, group: &Group, is_reused: bool) {
        self.sends += 1;
        if !is_reused {
            self.begin_anew(group);
        }
    }

    /// No connection to this endpoint. `Ok`: choose another.
    pub(super) async fn not_connected(
        &mut self,
        group: &Group,
        target: &Target,
        at: usize,
        error: ForwardError,
    ) -> Result<(), ForwardError> {
        group.failed(target, at, self.began, Fault::Connect, &error);
        self.tried |= 1 << at;
        self.unconnected += 1;
        let error = match error {
            ForwardError::Identity(_) => error_at(group, at, error),
            error => error,
        };
        if self.tried.count_ones() >= ADDRESSES_TRIED_MAX {
            return self.connect_again(group, target, error).await;
        }
        self.last = Some(error);
        self.begin_anew(group);
        Ok(())
    }

    /// Every endpoint was tried. `Ok`: all may be tried once more.
    pub(super) async fn nobody_left(&mut self, group: &Group, target: &Target) -> Result<(), ForwardError> {
        match self.last.take() {
            Some(error) => self.connect_again(group, target, error).await,
            None => Err(ForwardError::Protocol("no address is left to try".into())),
        }
    }

    async fn connect_again(&mut self, group: &Group, target: &Target, error: ForwardError) -> Result<(), ForwardError> {
        if !self.may(group, target, |retries| retries.connect) {
            return Err(error);
        }
        self.tried = 0;
        self.pause().await
    }

    /// `Some`: this answer is not given to the caller, because its service wants another to be sought.
    pub(super) fn refused(
        &mut self,
        group: &Group,
        target: &Target,
        at: usize,
        status: http::StatusCode,
    ) -> Option<Failure> {
        if group.is_single() || !is_failure(status) {
            return None;
        }
        group.failed(target, at, self.began, Fault::Answer, &status);
        let again = self.may(group, target, |retries| retries.statuses.contains(&status.as_u16()));
        again.then_some(Failure::Refused(status))
    }

    /// What came was no answer: the error that the request ends with.
    pub(super) fn broken(&self, group: &Group, target: &Target, at: usize, why: &str) -> ForwardError {
        let error = ForwardError::Protocol(why.to_owned());
        group.failed(target, at, self.began, Fault::Answer, &error);
        error_at(group, at, error)
    }

    /// `Ok`: the request may be sent once more. Else the error that it ends with. The last argument: was the connection a
    /// reused one, and can the request be repeated after it was sent?
    pub(super) async fn again(
        &mut self,
        group: &Group,
        target: &Target,
        at: usize,
        failure: Failure,
        how: (bool, bool),
    ) -> Result<(), ForwardError> {
        self.sent_again(group, target, at, failure, how).await.map_err(|error| error_at(group, at, error))
    }

    async fn sent_again(
        &mut self,
        group: &Group,
        target: &Target,
        at: usize,
        failure: Failure,
        (was_reused, may_repeat): (bool, bool),
    ) -> Result<(), ForwardError> {
        let (error, is_free, is_paid) = match failure {
            Failure::Refused(status) => (ForwardError::Protocol(status.to_string()), false, true),
            Failure::Unsent(why) => {
                if self.sends < SENDS_MAX + self.retried {
                    self.wants_new = true;
                    self.begin_anew(group);
                    return Ok(());
                }
                return Err(ForwardError::Protocol(why));
            }
            Failure::Broken(why) => {
                let error = ForwardError::Protocol(why);
                group.failed(target, at, self.began, Fault::Answer, &error);
                return Err(error);
            }
            Failure::Unanswered(why) => {
                let is_free = was_reused && self.sends < SENDS_MAX + self.retried;
                let error = ForwardError::Protocol(why);
                if !is_free {
                    group.failed(target, at, self.began, Fault::Answer, &error);
                }
                let is_paid = !is_free && may_repeat && self.may(group, target, |retries| retries.reset);
                (error, is_free, is_paid)
            }
            Failure::Late | Failure::Overdue => {
                let is_over = matches!(failure, Failure::Overdue) && Instant::now() >= self.until;
                let error = match failure {
                    Failure::Late => ForwardError::FirstByteTimeout(self.waits.first_byte),
                    _ if is_over => ForwardError::RequestTimeout(self.waits.all),
                    _ => self.try_overdue(),
                };
                if !self.waits.is_callers {
                    group.failed(target, at, self.began, Fault::Answer, &error);
                }
                let is_paid = !is_over && self.may(group, target, |retries| retries.per_try_timeout.is_some());
                (error, false, is_paid)
            }
        };
        if !may_repeat || !(is_free || is_paid) {
            return Err(error);
        }
        self.wants_new = is_free;
        if is_paid {
            self.tried |= 1 << at;
            self.last = None;
            if group.others(self.tried) == 0 {
                self.tried = 0;
                self.pause().await?;
            }
        }
        self.begin_anew(group);
        Ok(())
    }

    /// What was learnt of the endpoint, and who it was.
    pub(super) fn answered(
        &self,
        group: &Group,
        endpoint: &Endpoint,
        at: usize,
        now: Instant,
        response: &mut Response,
    ) {
        if self.target.settings.http2 && says_unavailable(response.headers()) {
            group.failed(self.target, at, self.began, Fault::Answer, &"UNAVAILABLE of gRPC");
        } else if !is_failure(response.status()) {
            group.answered(at, now, now.duration_since(self.began));
        }
        let tries = self.sends + self.unconnected;
        response.extensions_mut().insert(Answered { address: Arc::clone(endpoint.label()), tries });
    }

    /// May this request be tried again, by the service's choice and within its budget?
    fn may(&mut self, group: &Group, target: &Target, wanted: impl Fn(&Retries) -> bool) -> bool {
        let Some(retries) = self.retries.filter(|retries| wanted(retries)) else { return false };
        let is_left = self.retried < retries.attempts && Instant::now() < self.until;
        let allowed = is_left && target.fleet.as_ref().is_some_and(|fleet| group.spend(fleet));
        self.retried += u32::from(allowed);
        allowed
    }

    async fn pause(&mut self) -> Result<(), ForwardError> {
        let pause = PAUSE * (1 << self.retried.saturating_sub(1).min(5));
        let end = Instant::now() + pause.mul_f64(0.5 + super::jitter() / 2.0);
        if end >= self.until {
            return Err(ForwardError::RequestTimeout(self.waits.all));
        }
        tokio::time::sleep_until(end).await;
        self.began = Instant::now();
        Ok(())
    }

    /// Where nothing is chosen nothing is measured, but a limit per try needs its beginning.
    fn begin_anew(&mut self, group: &Group) {
        if !group.is_single() {
            self.began = Instant::now();
        }
    }
}

/// Of several endpoints it is told which one failed.
fn error_at(group: &Group, at: usize, error: ForwardError) -> ForwardError {
    match group.label(at) {
        Some(endpoint) if group.is_fleet() => ForwardError::At { endpoint, error: Box::new(error) },
        _ => error,
    }
}

/// Answers by which an endpoint says that it cannot, rather than that it will not.
fn is_failure(status: http::StatusCode) -> bool {
    matches!(status.as_u16(), 502..=504)
}

/// gRPC's own 503, in an answer that is nothing but trailers (`grpc-status` in the head). Its other statuses are verdicts on
/// the call: DEADLINE_EXCEEDED, too, for callers choose their deadlines.
fn says_unavailable(headers: &http::HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|status| status.as_bytes() == b"14")
}
