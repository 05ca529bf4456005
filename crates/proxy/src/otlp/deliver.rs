//! One export from its first try to its end: taken, refused or given up, as the OTLP specification says (which statuses are
//! tried again, `Retry-After`, waiting longer each time).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue};
use net::client::{Get, GetError, Got, Post, post_with};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Settings;

const PROTOBUF: &str = "application/x-protobuf";
/// A collector's answer is some words at most.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const PAUSE_MAX: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long it is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Between the first two tries; twice as long each time.
    pub first_pause: Duration,
    pub give_up_after: Duration,
}

/// What became of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivered {
    /// But for so many of what it held.
    Taken {
        rejected: u64,
    },
    Refused,
    GivenUp,
}

/// What became of one try.
enum Tried {
    Taken { rejected: u64, why: Option<String> },
    Refused(String),
    Later { after: Option<Duration>, why: String },
}

/// Sends to one place, and says when that fails and when it works again.
pub(super) struct Sender<'a> {
    pub settings: &'a Settings,
    pub patience: Patience,
    /// What is sent, for the log.
    pub what: &'static str,
    pub path: &'static str,
    pub failing: AtomicBool,
}

impl Sender<'_> {
    /// After `stop` nothing is tried again.
    pub(super) async fn deliver(&self, body: &Bytes, stop: &mut watch::Receiver<bool>) -> Delivered {
        let began = Instant::now();
        let mut pause = self.patience.first_pause;
        loop {
            let (after, why) = match self.send(body.clone()).await {
                Tried::Taken { rejected, why } => {
                    self.works(rejected, why);
                    return Delivered::Taken { rejected };
                }
                Tried::Refused(why) => {
                    self.fails(&why);
                    return Delivered::Refused;
                }
                Tried::Later { after, why } => (after, why),
            };
            self.fails(&why);
            let wait = after.unwrap_or_else(|| jittered(pause)).min(PAUSE_MAX);
            if *stop.borrow() || began.elapsed() + wait > self.patience.give_up_after {
                return Delivered::GivenUp;
            }
            tokio::select! {
                biased;
                // One try more, and the last.
                _ = stop.wait_for(|stop| *stop) => {}
                () = tokio::time::sleep(wait) => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn send(&self, body: Bytes) -> Tried {
        let Settings { endpoint, fields, roots_pem, timeout, .. } = self.settings;
        let url = [endpoint, self.path].concat();
        let to = Get {
            url: &url,
            etag: None,
            bytes_max: ANSWER_BYTES_MAX,
            connect_timeout: CONNECT_TIMEOUT.min(*timeout),
            total_timeout: *timeout,
            roots_pem: roots_pem.as_deref(),
            public_addresses_only: false,
        };
        let secret = |value: &str| HeaderValue::from_str(value).ok();
        let fields: HeaderMap =
            fields.iter().filter_map(|(name, value)| Some((name.clone(), secret(value)?))).collect();
        let request = Post { to, content_type: PROTOBUF, accept: PROTOBUF, authorization: None, body };
        match post_with(request, &fields).await {
            Ok(got) => judge(&got),
            Err(error @ (GetError::TooLarge(_) | GetError::Url(_))) => Tried::Refused(error.to_string()),
            Err(error) => Tried::Later { after: None, why: error.to_string() },
        }
    }

    fn works(&self, rejected: u64, why: Option<String>) {
        if self.failing.swap(rejected > 0, Ordering::Relaxed) && rejected == 0 {
            tracing::info!(what = self.what, "the collector takes them again");
        }
        if rejected > 0 || why.as_ref().is_some_and(|why| !why.is_empty()) {
            tracing::warn!(
                what = self.what,
                rejected,
                why = why.unwrap_or_default(),
                "the collector has something to say"
            );
        }
    }

    fn fails(&self, why: &str) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                what = self.what,
                why,
                endpoint = self.settings.endpoint,
                "the collector does not take them; what it cannot be given is dropped and counted"
            );
        }
    }
}

fn judge(got: &Got) -> Tried {
    match got.status {
        200..300 => {
            let (rejected, why) = wire::otlp::rejected(&got.body);
            Tried::Taken { rejected, why }
        }
        status @ (429 | 502 | 503 | 504) => {
            let after = got.headers.get(RETRY_AFTER).and_then(|value| retry_after(value, SystemTime::now()));
            Tried::Later { after, why: format!("it answered {status}") }
        }
        status => Tried::Refused(format!("it answered {status}")),
    }
}

/// Seconds, or a date (RFC 9110 §10.2.3); one that is past means now.
fn retry_after(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok().map(|date| date.duration_since(now).unwrap_or_default()),
    }
}

/// Between half of it and all of it, so that many edges do not come back at the same moment.
fn jittered(pause: Duration) -> Duration {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    pause / 2 + pause / 2 * (nanos % 1000) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_says_in_two_ways_when_to_come_again() {
        let check = |text: &'static str, expected: Option<u64>| {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
            let found = retry_after(&HeaderValue::from_static(text), now);
            assert_eq!(found, expected.map(Duration::from_secs), "{text}");
        };
        check("0", Some(0));
        check(" 7 ", Some(7));
        check("18446744073709551615", Some(u64::MAX));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(0));
        check("Sun, 06 Nov 1994 08:49:40 GMT", Some(3));
        check("Sun, 06 Nov 1994 08:49:00 GMT", Some(0));
        for nonsense in ["", "-1", "1.5", "soon", "99999999999999999999"] {
            check(nonsense, None);
        }
    }

    #[test]
    fn pauses_are_jittered_within_their_bounds() {
        let pause = Duration::from_secs(8);
        assert!((0..100).all(|_| (pause / 2..=pause).contains(&jittered(pause))));
    }
}
