//! Active health checks: one request to one endpoint every so often, over the protocol and with the verification that its
//! traffic has. A check carries no identity, no Txn-Token and nothing of any client, and its answer's body is not read. Off
//! unless a service asks for it.
use super::connect;
use super::endpoint::Http2Limits;
use super::exchange::Outgoing;
use super::fleet::{Address, Fleet, Work};
use super::http1::{Http1, Sending};
use super::name::Name;
use super::stream::Channel;
use crate::Body;
use http::{Request, StatusCode};
use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::timeout;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Path and query.
    pub path: String,
    /// From the end of one check to the next, or up to a tenth less.
    pub interval: Duration,
    /// Connecting, sending and the head of the answer together.
    pub timeout: Duration,
    /// Passed checks in a row after which an ill endpoint is well.
    pub healthy_after: u32,
    /// Failed checks in a row after which an endpoint is ill.
    pub unhealthy_after: u32,
    pub expect: RangeInclusive<u16>,
}

/// How one check ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Probed {
    pub(super) failure: Option<String>,
    /// Well (`true`) or ill from now on; `None` where nothing changed.
    pub(super) turned: Option<bool>,
}

/// Counts checks in a row, so that one bad answer, or one good one, changes nothing.
#[derive(Debug)]
struct Verdict {
    is_well: bool,
    against: u32,
}

impl Verdict {
    /// What was never checked is taken to be well.
    fn new() -> Verdict {
        Verdict { is_well: true, against: 0 }
    }

    fn judge(&mut self, passed: bool, check: &HealthCheck) -> Option<bool> {
        if passed == self.is_well {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let needed = if passed { check.healthy_after } else { check.unhealthy_after };
        if self.against < needed {
            return None;
        }
        *self = Verdict { is_well: passed, against: 0 };
        Some(passed)
    }
}

/// The task that checks one endpoint. Dropping it ends the task.
pub(super) struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Running {
    pub(super) fn start(fleet: Weak<Fleet>, address: Address, check: &HealthCheck, work: &Arc<Work>) -> Running {
        let (check, work) = (check.clone(), Arc::clone(work));
        let task = tokio::spawn(async move {
            let name = Name::new(address.0.clone(), address.1);
            let mut verdict = Verdict::new();
            loop {
                let failure = match timeout(check.timeout, ask(&name, &check, &work)).await {
                    Ok(Ok(status)) if check.expect.contains(&status.as_u16()) => None,
                    Ok(Ok(status)) => Some(format!("it answered {}", status.as_u16())),
                    Ok(Err(why)) => Some(why),
                    Err(_) => Some(format!("no answer within {:?}", check.timeout)),
                };
                let turned = verdict.judge(failure.is_none(), &check);
                let Some(fleet) = fleet.upgrade() else { return };
                fleet.probed(&address, &Probed { failure, turned });
                drop(fleet);
                tokio::time::sleep(check.interval.mul_f64(1.0 - super::jitter() / 10.0)).await;
            }
        });
        Running(task.abort_handle())
    }
}

/// The status of one answer, on a connection of its own.
async fn ask(name: &Name, check: &HealthCheck, work: &Work) -> Result<StatusCode, String> {
    let settings = &work.settings;
    let preface = settings.own_preface.as_deref().unwrap_or_default();
    let opened = connect::open(name, work.tls.as_deref(), preface, check.timeout).await;
    let stream = opened.map_err(|error| error.why())?;
    let authority = match &settings.tls {
        Some(tls) => tls.server_name.clone(),
        None => name.shown(),
    };
    let request = Request::get(&check.path).header("user-agent", "countersign-health-check");
    let wrong = |error: http::Error| error.to_string();
    let broke = |why: &dyn std::fmt::Display| format!("it broke off or answered no valid HTTP: {why}");
    if settings.http2 {
        let scheme = if settings.tls.is_some() { "https" } else { "http" };
        let uri = format!("{scheme}://{authority}{}", check.path);
        let request = request.uri(uri).version(http::Version::HTTP_2).body(Body::empty()).map_err(wrong)?;
        let (mut sender, connection) =
            Http2Limits::builder().handshake(Channel::new(stream)).await.map_err(|error| broke(&error))?;
        // It ends when the sender is dropped, at the end of this function.
        tokio::spawn(connection);
        return sender.send_request(request).await.map(|answer| answer.status()).map_err(|error| broke(&error));
    }
    let request = request.header("host", authority).header("connection", "close");
    let mut sending = Sending::of(&request.body(()).map_err(wrong)?, Outgoing::nothing());
    let mut connection = Http1::new(stream, check.timeout, None);
    connection.exchange(&mut sending).await.map(|head| head.status).map_err(|lost| broke(&lost))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+` a passed check, `-` a failed one; the result holds `W` or `I` where the endpoint turned, and `.` elsewhere.
    fn check(checks: &str, expected: &str) {
        let settings = HealthCheck {
            path: "/".into(),
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
            healthy_after: 2,
            unhealthy_after: 3,
            expect: 200..=299,
        };
        let mut verdict = Verdict::new();
        let turned = checks.chars().map(|c| match verdict.judge(c == '+', &settings) {
            Some(true) => 'W',
            Some(false) => 'I',
            None => '.',
        });
        assert_eq!(turned.collect::<String>(), expected, "{checks}");
    }

    #[test]
    fn it_takes_some_checks_in_a_row_to_turn() {
        check("+++", "...");
        check("---", "..I");
        check("----++", "..I..W");
        check("---+-+-++", "..I.....W");
    }

    #[test]
    fn flapping_changes_nothing() {
        check("--+--+--+-+-", "............");
        check("---+-+-+-+-", "..I........");
    }
}
