//! One request's audit record, filled as the request goes and written exactly once: when the answer's last byte went out,
//! or when the task was dropped before.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use feed::{Issuer, Resource};
use http::{HeaderMap, Method, Version};
use net::tunnel::TunnelEnd;
use net::upstream::Answered;
use net::{BodyEnd, Connection, End, Request, Response};
use trust::path::NormalPath;
use trust::policy::{Decision as PolicyDecision, Explanation, Verdict};
use trust::principal::{Kind, Principal};
use trust::reason::Reason;
use wire::trace_context::{TraceParent, hex};

use super::{Client, Shared};
use crate::access_log::Seen;
use crate::audit::record::{
    Decision, OCSF_HTTP_ACTIVITY, PrincipalFacts, Record, RequestFacts, TokenFacts, UpstreamFacts, bounded,
};
use crate::clock::UnixMs;
use crate::cors::Grant;
use crate::metrics::InFlight;
use crate::token_cache::{Entry, Minted};
use crate::traces::Span;
use crate::view::{Served, View};

/// Whom the rules see as the caller is not known yet.
const NOBODY: &str = "client";
/// Status recorded when the client went away before an answer began.
pub(crate) const CLIENT_GONE: u16 = 499;

pub(crate) struct Recording {
    shared: Arc<Shared>,
    /// Taken when it is written.
    record: Option<Box<Record>>,
    view: Option<Arc<View>>,
    served: Option<Arc<Served>>,
    reason: Option<Reason>,
    /// What the answer says to scripts of other origins.
    grant: Option<Box<Grant>>,
    started: Instant,
    /// Counted by the request's body, if there is one.
    bytes_in: Option<Arc<AtomicU64>>,
    _in_flight: InFlight,
}

impl Recording {
    pub(crate) fn start(
        shared: &Arc<Shared>,
        request: RequestFacts,
        headers: &HeaderMap,
        id: String,
        now: UnixMs,
    ) -> Recording {
        let record = Record {
            id,
            time_ms: now.0,
            class_uid: OCSF_HTTP_ACTIVITY,
            own: Arc::clone(shared.minter.spiffe_id()),
            trace_id: TraceParent::of(headers).map(|parent| hex(&parent.trace_id)),
            request,
            ..Record::default()
        };
        Recording {
            record: Some(Box::new(record)),
            view: None,
            served: None,
            reason: None,
            grant: None,
            started: Instant::now(),
            bytes_in: None,
            _in_flight: shared.metrics.enter(),
            shared: Arc::clone(shared),
        }
    }

    pub(crate) fn decision_id(&self) -> &str {
        self.record.as_ref().map_or("", |record| &record.id)
    }

    fn note(&mut self, change: impl FnOnce(&mut Record)) {
        if let Some(record) = &mut self.record {
            change(record);
        }
    }

    /// For the access log.
    pub(crate) fn saw(&mut self, seen: Box<Seen>) {
        self.note(|record| record.seen = Some(seen));
    }

    /// The request has a span from now on.
    pub(crate) fn traced(&mut self, span: Box<Span>) {
        self.note(|record| {
            record.trace_id = Some(hex(&span.itself.trace_id));
            record.span = Some(span);
        });
    }

    pub(crate) fn span(&self) -> Option<&Span> {
        self.record.as_ref()?.span.as_deref()
    }

    /// Whether the caller spoke TLS, if that is known better than by our socket.
    pub(crate) fn https(&mut self, https: bool) {
        if let Some(span) = self.record.as_mut().and_then(|record| record.span.as_mut()) {
            span.https = https;
        }
    }

    pub(crate) fn judged_by(&mut self, view: &Arc<View>) {
        self.view = Some(Arc::clone(view));
        self.note(|record| record.epoch = view.snapshot.epoch);
    }

    pub(crate) fn granted(&mut self, grant: Grant) {
        self.grant = Some(Box::new(grant));
    }

    pub(crate) fn preflight(&mut self) {
        self.note(|record| record.decision = Decision::Preflight);
    }

    pub(crate) fn take_grant(&mut self) -> Option<(Arc<Served>, Grant)> {
        let grant = self.grant.take()?;
        Some((self.served.clone()?, *grant))
    }

    /// Of the service it was routed to.
    pub(crate) fn resource(&self) -> Option<&Resource> {
        self.served.as_ref()?.service.resource.as_deref()
    }

    /// Somebody we trust told who is behind him.
    pub(crate) fn client(&mut self, client: Client) {
        self.https(client.https);
        self.note(|record| record.request.client_ip = Some(client.ip));
    }

    pub(crate) fn host(&mut self, host: &str) {
        self.note(|record| record.request.host = bounded(host));
    }

    pub(crate) fn routed(&mut self, served: &Arc<Served>, path: &NormalPath) {
        self.served = Some(Arc::clone(served));
        self.note(|record| {
            record.service = Some(Arc::clone(&served.service.name));
            if record.request.path != path.as_str() {
                record.request.path = bounded(path.as_str());
            }
            if let Some(span) = &mut record.span {
                span.route = route(served);
            }
        });
    }

    /// A token was presented; its `kid` is noted before anything is believed.
    pub(crate) fn token_seen(&mut self, kid: Option<&str>) {
        self.note(|record| record.token.get_or_insert_default().kid = kid.map(bounded));
    }

    pub(crate) fn keys_seen(&mut self, issuer: &Issuer, now: UnixMs) {
        self.note(|record| note_keys(record.token.get_or_insert_default(), issuer, now));
    }

    pub(crate) fn identified(&mut self, entry: &Entry, view: &Arc<View>, issuer: &Issuer, cached: bool, now: UnixMs) {
        self.note(|record| {
            let token = record.token.get_or_insert_default();
            token.kid.clone_from(&entry.facts.kid);
            token.facts = Some(Arc::clone(&entry.facts));
            token.cached = cached;
            token.groups_unknown.clone_from(&entry.groups_unknown);
            note_keys(token, issuer, now);
            record.principal = Some(entry.recorded(view, |principal| principal_facts(principal, &view.groups)));
        });
    }

    /// Which endpoint of a fleet answered, and at which try.
    pub(crate) fn upstream(&mut self, Answered { address, tries }: Answered) {
        self.note(|record| record.upstream = Some(Box::new(UpstreamFacts { address, tries })));
    }

    pub(crate) fn decided(&mut self, decision: &PolicyDecision) {
        let verdict_us = elapsed_us(self.started);
        self.note(|record| {
            record.verdict_us = verdict_us;
            record.shadow.clone_from(&decision.shadow);
            (record.decision, record.rule) = match &decision.verdict {
                Verdict::Permit(permit) => (Decision::Permit, Some(Arc::clone(permit.rule()))),
                Verdict::StepUp(step_up) => (Decision::StepUp, Some(Arc::clone(&step_up.rule))),
                Verdict::Denial(denial) => (Decision::Deny, denial.rule.clone()),
            };
            match record.request.proxy {
                None => record.request.peer = "edge".into(),
                Some(_) if record.request.peer == NOBODY => record.request.peer = "authz".into(),
                // A workload that asks for itself was known before.
                Some(_) => {}
            }
        });
    }

    pub(crate) fn explained(&mut self, explanation: Explanation) {
        self.note(|record| record.explanation = Some(explanation));
    }

    pub(crate) fn stamped(&mut self, minted: &Minted) {
        self.minted(&minted.txn, &minted.tth);
    }

    pub(crate) fn minted(&mut self, txn: &Arc<str>, tth: &Arc<str>) {
        self.note(|record| {
            record.txn = Some(Arc::clone(txn));
            record.tth = Some(Arc::clone(tth));
        });
    }

    /// The request is a question about this one, which somebody else will send.
    pub(crate) fn names(&mut self, method: &Method, host: &str, path: &str, client_ip: Option<IpAddr>) {
        self.note(|record| {
            record.request.method = self::method(method);
            record.request.host = bounded(host);
            record.request.path = bounded(path);
            record.request.client_ip = client_ip;
        });
    }

    /// For the request body: counts what came in, also when the upstream answered early.
    pub(crate) fn request_end(&mut self) -> impl FnOnce(BodyEnd) + Send + 'static {
        let bytes_in = Arc::clone(self.bytes_in.get_or_insert_default());
        move |end| bytes_in.store(end.bytes, Ordering::Relaxed)
    }

    /// The upstream answered: the record is written when the body ends.
    pub(crate) fn answered(mut self, response: Response) -> Response {
        let first_byte_us = elapsed_us(self.started);
        let status = response.status().as_u16();
        self.note(|record| {
            record.status = status;
            record.first_byte_us = Some(first_byte_us);
        });
        response.map(|body| body.on_end(move |end| self.end(end)))
    }

    /// A tunnel was agreed upon: that is recorded now, for it may live for days. Nothing is left to record here.
    pub(crate) fn opened(&mut self, status: u16) -> OpenTunnel {
        let first_byte_us = elapsed_us(self.started);
        self.note(|record| {
            record.status = status;
            record.first_byte_us = Some(first_byte_us);
            record.tunnel = Some("websocket".into());
            record.ended = Some("open".into());
        });
        let end = self.record.clone();
        self.write();
        OpenTunnel { shared: Arc::clone(&self.shared), end, started: self.started, _open: self.shared.metrics.tunnel() }
    }

    /// We answer ourselves, with a reason.
    pub(crate) fn refused(self, reason: Reason, detail: String, response: Response) -> Response {
        let status = response.status().as_u16();
        self.refused_as(status, reason, detail, response)
    }

    /// The client gets another status than the one who asks us for him.
    pub(crate) fn refused_as(mut self, status: u16, reason: Reason, detail: String, response: Response) -> Response {
        self.reason = Some(reason);
        let us = elapsed_us(self.started);
        self.note(|record| {
            record.status = status;
            record.reason = Some(reason.code().into());
            record.detail = (!detail.is_empty()).then(|| bounded(&detail));
            if record.decision == Decision::Permit {
                record.decision = Decision::Error;
            }
            if record.verdict_us == 0 {
                record.verdict_us = us;
            }
        });
        response.map(|body| body.on_end(move |end| self.end(end)))
    }

    fn end(mut self, end: BodyEnd) {
        let ended = match end.end {
            End::Complete => "complete",
            End::Aborted => "client_gone",
            End::Failed(_) => "upstream_failed",
        };
        self.note(|record| {
            record.bytes_out = end.bytes;
            record.ended = Some(ended.into());
        });
        self.write();
    }

    fn write(&mut self) {
        let Some(mut record) = self.record.take() else {
            return;
        };
        let elapsed = self.started.elapsed();
        record.total_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        record.bytes_in = self.bytes_in.as_ref().map_or(0, |bytes| bytes.load(Ordering::Relaxed));
        let stats = self.served.as_ref().map(|served| &served.stats);
        if let Some(stats) = stats.or_else(|| self.view.as_ref().map(|view| &view.no_service)) {
            stats.ended(self.reason, elapsed.as_secs_f64());
        }
        self.shared.audit.push(record);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if self.record.is_none() {
            return;
        }
        let (reason, status, ended) = match std::thread::panicking() {
            true => (Reason::Internal, 500, "panic"),
            false => (Reason::ClientGone, CLIENT_GONE, "client_gone"),
        };
        self.reason = Some(reason);
        self.note(|record| {
            record.status = status;
            record.reason = Some(reason.code().into());
            record.ended = Some(ended.into());
            if reason == Reason::Internal {
                record.decision = Decision::Error;
            }
        });
        self.write();
    }
}

/// The record of a tunnel's end, kept until then.
pub(crate) struct OpenTunnel {
    shared: Arc<Shared>,
    end: Option<Box<Record>>,
    started: Instant,
    _open: InFlight,
}

impl OpenTunnel {
    pub(crate) fn ended(self, end: TunnelEnd) {
        self.shared.metrics.tunnel_ended(end.ended);
        let Some(mut record) = self.end else { return };
        record.is_end = true;
        record.bytes_in = end.bytes_in;
        record.bytes_out = end.bytes_out;
        record.ended = Some(end.ended.code().into());
        record.total_us = elapsed_us(self.started);
        self.shared.audit.push(record);
    }
}

/// The pattern of paths that leads to the service, where there is only one.
fn route(served: &Served) -> Option<Arc<str>> {
    match served.service.expose.as_slice() {
        [expose] => Some(expose.path.as_str().into()),
        _ => None,
    }
}

fn note_keys(token: &mut TokenFacts, issuer: &Issuer, now: UnixMs) {
    token.issuer = Some(Arc::clone(issuer.profile.name()));
    token.keys_version = Some(issuer.keys.version);
    token.keys_age_s = issuer.keys.fetched_at.map(|at| now.seconds() - at);
}

fn principal_facts(principal: &Principal, groups: &BTreeSet<Arc<str>>) -> PrincipalFacts {
    let kind = match principal.kind {
        Kind::Person => "person",
        Kind::Workload => "workload",
        Kind::Agent => "agent",
    };
    PrincipalFacts {
        kind: kind.into(),
        subject: Arc::clone(&principal.subject),
        issuer: Arc::clone(&principal.issuer),
        client: principal.client.clone(),
        groups: principal.groups.names().filter(|name| groups.contains(*name)).cloned().collect(),
        groups_state: if principal.groups.is_complete() { "complete" } else { "unknown" }.into(),
        roles: principal.roles.names().take(64).cloned().collect(),
        scopes: principal.scopes.names().take(64).cloned().collect(),
        agent: principal.agent.as_ref().map(|agent| Arc::clone(&agent.name)),
        acr: principal.assurance.acr.clone(),
        auth_time: principal.assurance.auth_time,
    }
}

/// What is known of a request of our own socket before its host is read.
pub(crate) fn facts(request: &Request, connection: &Connection) -> RequestFacts {
    RequestFacts {
        method: method(request.method()),
        host: String::new(),
        path: bounded(request.uri().path()),
        peer: NOBODY.into(),
        client_ip: Some(Client::of(connection).ip),
        proxy: None,
        protocol: protocol(request.version()).into(),
        tls: connection.tls.as_ref().map(|tls| tls.version.into()),
        connection: connection.id,
    }
}

/// The methods of RFC 9110 and PATCH cost no allocation.
pub(crate) fn method(method: &Method) -> Cow<'static, str> {
    match *method {
        Method::GET => "GET".into(),
        Method::POST => "POST".into(),
        Method::PUT => "PUT".into(),
        Method::PATCH => "PATCH".into(),
        Method::DELETE => "DELETE".into(),
        Method::HEAD => "HEAD".into(),
        Method::OPTIONS => "OPTIONS".into(),
        ref other => bounded(other.as_str()).into(),
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

fn elapsed_us(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
