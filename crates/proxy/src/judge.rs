//! One request judged, whoever asks: who is calling, may they, and the Txn-Token that says so. The edge asks for the
//! requests it forwards.
//!
//! It moves no byte: it never forwards, and never answers a caller.

pub(crate) mod exchange;
mod groups;
mod identify;
mod introspect;
mod possession;
pub(crate) mod recording;
mod stamp;
pub(crate) mod standing;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use feed::{Groups, Introspect, KeyDemand};
use http::{HeaderMap, HeaderValue, Method, Uri};
use net::{Connection, Refusal};
use trust::issuer::SenderConstrained;
use trust::path::NormalPath;
use trust::policy::{Input, Peer, Permit, StepUp, Verdict};
use trust::principal::{Asking, Principal};
use trust::reason::Reason;
use trust::token::Scheme;

pub use possession::Proofs;

use crate::access_log::Collect;
use crate::answer::{Challenge, ClaimsChallenge, Offer};
use crate::audit::record::RequestFacts;
use crate::audit::{Audit, Health};
use crate::clock::UnixMs;
use crate::ids::Ids;
use crate::metrics::Metrics;
use crate::minter::Minter;
use crate::token_cache::{Entry, TokenCache};
use crate::traces;
use crate::view::{Routed, Served, View, Views};
use identify::Presented;
use recording::Recording;

/// What the workers of one data plane share.
pub struct Shared {
    pub views: Views,
    pub metrics: Metrics,
    pub audit: Audit,
    /// What the access log needs of a request; `None` where there is none.
    pub access_log: Option<Collect>,
    /// `None`: requests have no spans, and what they say of traces goes through untouched.
    pub traces: Option<traces::Settings>,
    /// Refuse what cannot be recorded also at services that are not `strict`.
    pub refuse_unrecorded: AtomicBool,
    pub minter: Arc<Minter>,
    pub key_demand: Arc<dyn KeyDemand>,
    pub introspect: Arc<dyn Introspect>,
    pub groups: Arc<dyn Groups>,
    /// What is remembered of DPoP proofs.
    pub proofs: Proofs,
}

impl Shared {
    /// Below every door: what never became a request.
    pub(crate) fn refused(&self, refusal: Refusal, connection: &Connection) {
        self.metrics.refused(refusal);
        tracing::debug!(?refusal, remote = %connection.remote, "refused before it was judged");
    }

    pub(crate) fn panicked(&self, connection: &Connection) {
        self.metrics.panics.inc();
        tracing::error!(remote = %connection.remote, "a panic was caught while answering; its connection was closed");
    }
}

/// One worker's share of judging: its caches of verified tokens and of what it minted.
pub(crate) struct Judge {
    pub(crate) shared: Arc<Shared>,
    tokens: TokenCache,
    pub(crate) ids: Ids,
}

/// The caller's side of the connection, as the socket tells it, or one that may speak for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    /// In its shortest true form (an IPv4 address that came through an IPv6 socket is IPv4).
    pub(crate) ip: IpAddr,
    /// The caller spoke TLS.
    pub(crate) https: bool,
    /// SHA-256 of the certificate the caller proved to hold in the handshake of this very connection. It says whose
    /// connection this is to tokens that are bound to it (RFC 8705), and never who the caller is.
    pub(crate) certificate: Option<[u8; 32]>,
}

impl Client {
    pub(crate) fn of(connection: &Connection) -> Client {
        let certificate = connection.tls.as_ref().and_then(|tls| tls.client_certificate);
        Client { ip: connection.remote.ip().to_canonical(), https: connection.tls.is_some(), certificate }
    }

    pub(crate) fn scheme(self) -> &'static str {
        if self.https { "https" } else { "http" }
    }
}

/// The request to be judged. `target` is path and query as they came; `headers` hold the caller's credentials.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    /// What [`wire::identity::request_host`] returned.
    pub(crate) host: &'a str,
    pub(crate) target: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) client: Client,
}

/// Where a request leads, by one view.
pub(crate) struct Place {
    pub(crate) view: Arc<View>,
    pub(crate) served: Arc<Served>,
    pub(crate) path: NormalPath,
}

/// A request that may go on.
pub(crate) struct Judged {
    /// The place by the view that judged it: a newer one than at first when a key had to be fetched.
    pub(crate) place: Place,
    pub(crate) permit: Permit,
    /// The Txn-Token; `None` when nobody is signed in and nobody has to be.
    pub(crate) stamp: Option<HeaderValue>,
    /// The nonce for the caller's next DPoP proofs, when the one he used will soon end.
    pub(crate) dpop_nonce: Option<Box<HeaderValue>>,
    /// Who it is; `None` when nobody is signed in.
    pub(crate) entry: Option<Arc<Entry>>,
}

/// Why the upstream's answer is not what the caller gets.
pub(crate) struct Stop {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
    pub(crate) step_up: Option<StepUp>,
    /// How the caller may authenticate instead.
    pub(crate) challenge: Challenge,
}

impl Stop {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Stop {
        Stop { reason, detail: detail.into(), step_up: None, challenge: Challenge::default() }
    }

    fn offering(mut self, offer: Offer) -> Stop {
        self.challenge.offer = offer;
        self
    }
}

impl Judge {
    pub(crate) fn new(shared: Arc<Shared>) -> Judge {
        Judge { shared, tokens: TokenCache::default(), ids: Ids::new() }
    }

    /// A record from the first moment on, and a span where there are traces.
    pub(crate) fn record(&self, facts: RequestFacts, headers: &HeaderMap, id: String, now: UnixMs) -> Recording {
        let https = facts.tls.is_some();
        let mut recording = Recording::start(&self.shared, facts, headers, id, now);
        if let Some(traces) = &self.shared.traces
            && let Some(span) = traces.begin(headers, https, &self.ids)
        {
            recording.traced(span);
        }
        recording
    }

    /// The snapshot to judge by, and whether the method is one that can be judged.
    pub(crate) fn begin(&self, method: &Method, recording: &mut Recording) -> Result<Arc<View>, Stop> {
        let view =
            self.shared.views.now().ok_or_else(|| Stop::new(Reason::PolicyMissing, "no snapshot is loaded yet"))?;
        recording.judged_by(&view);
        refuse_methods(method)?;
        Ok(view)
    }

    /// Call it with fields that [`wire::identity::clean_request`] has passed.
    pub(crate) async fn judge(
        &self,
        place: Place,
        asked: Asked<'_>,
        recording: &mut Recording,
        now: UnixMs,
    ) -> Result<Judged, Stop> {
        let presented = identify::presented(asked.headers)?;
        let judged = self.judge_presented(place, asked, &presented, recording, now).await;
        // Who speaks DPoP is answered in DPoP, whatever was wrong (RFC 9449 §7.1).
        judged.map_err(|stop| if presented.scheme() == Some(Scheme::Dpop) { stop.offering(Offer::Dpop) } else { stop })
    }

    async fn judge_presented(
        &self,
        place: Place,
        asked: Asked<'_>,
        presented: &Presented<'_>,
        recording: &mut Recording,
        now: UnixMs,
    ) -> Result<Judged, Stop> {
        let (judged_by, credential) = self.identify(&place.view, presented, recording, now).await?;
        let place = if Arc::ptr_eq(&judged_by, &place.view) {
            place
        } else {
            // Keys were fetched and more may have changed meanwhile: one snapshot judges all of the request.
            recording.judged_by(&judged_by);
            route(judged_by, asked.host, asked.target, recording)?
        };
        self.refuse_unrecorded(&place.served)?;
        let Some(credential) = credential else {
            let permit = decide(&place, &input(&place, asked, None, now), recording)?;
            return Ok(Judged { place, permit, stamp: None, dpop_nonce: None, entry: None });
        };
        let dpop_nonce = self.prove_possession(&place, asked, &credential, now)?;
        let permit = decide(&place, &input(&place, asked, Some(&credential.entry.principal), now), recording)?;
        let stamp = self.stamp(&place, &permit, &credential.entry, asked.client.ip, now, recording)?;
        Ok(Judged { place, permit, stamp: Some(stamp), dpop_nonce, entry: Some(credential.entry) })
    }

    /// For the service that the request is finally routed to.
    fn refuse_unrecorded(&self, served: &Served) -> Result<(), Stop> {
        let must_record = served.service.strict || self.shared.refuse_unrecorded.load(Ordering::Relaxed);
        if must_record && self.shared.audit.health() == Health::Failing {
            return Err(Stop::new(
                Reason::AuditUnavailable,
                "the audit log cannot be written, and what cannot be recorded is refused here",
            ));
        }
        Ok(())
    }
}

/// What somebody else will send is decided on as it stands: only a path in normal form.
pub(crate) fn refuse_other_bytes(place: &Place, target: &Uri) -> Result<(), Stop> {
    if place.path.as_str() == target.path() {
        return Ok(());
    }
    Err(Stop::new(Reason::PathRefused, format!("not in normal form, which is `{}`", place.path)))
}

/// Finds the service, and normalises the path, which is done nowhere else.
pub(crate) fn route(view: Arc<View>, host: &str, target: &Uri, recording: &mut Recording) -> Result<Place, Stop> {
    match view.route(host, target.path()) {
        Routed::To(served, path) => {
            recording.routed(&served, &path);
            Ok(Place { view, served, path })
        }
        Routed::Nowhere => Err(Stop::new(Reason::NoRoute, "no service is exposed at this host and path")),
        Routed::PathRefused(error) => Err(Stop::new(Reason::PathRefused, error.to_string())),
    }
}

/// CONNECT is no request for a service; TRACE would echo the fields we add (RFC 9110 §9.3.8). Methods are case-sensitive,
/// but some upstreams take `delete` for `DELETE`: what a rule and an upstream could read differently is refused.
fn refuse_methods(method: &Method) -> Result<(), Stop> {
    match *method {
        _ if method.as_str().bytes().any(|b| b.is_ascii_lowercase()) => {
            Err(Stop::new(Reason::RequestMalformed, "methods are written in upper case"))
        }
        Method::CONNECT | Method::TRACE => {
            Err(Stop::new(Reason::RequestMalformed, format!("`{method}` is not accepted")))
        }
        _ => Ok(()),
    }
}

/// The request as a door sees it that forwards it itself, or whose proxy does: the service's caller will be this edge.
fn input<'a>(place: &'a Place, asked: Asked<'a>, principal: Option<&'a Principal>, now: UnixMs) -> Input<'a> {
    Input {
        principal,
        peer: Peer::Edge,
        method: asked.method.as_str(),
        path: &place.path,
        query: asked.target.query(),
        host: asked.host,
        client_ip: Some(asked.client.ip),
        now: now.seconds(),
    }
}

fn decide(place: &Place, input: &Input<'_>, recording: &mut Recording) -> Result<Permit, Stop> {
    let policy = &place.served.service.policy;
    let decision = policy.decide(input);
    recording.decided(&decision);
    let denial = match decision.verdict {
        Verdict::Permit(permit) => return Ok(permit),
        Verdict::StepUp(step_up) => {
            recording.explained(policy.explain(input));
            return Err(asked_for_more(step_up, input.principal));
        }
        Verdict::Denial(denial) => denial,
    };
    recording.explained(policy.explain(input));
    let detail = denial.rule.map_or_else(String::new, |rule| format!("rule `{}`", rule.name));
    // Nobody is signed in: the caller is asked to, and learns nothing about rules.
    match input.principal {
        None if place.served.service.sender_constrained == SenderConstrained::Required => {
            Err(Stop::new(Reason::TokenMissing, detail).offering(Offer::Either))
        }
        None => Err(Stop::new(Reason::TokenMissing, detail)),
        Some(_) => Err(Stop::new(denial.reason, detail)),
    }
}

/// In words that his client understands, as far as its issuer says which those are.
fn asked_for_more(step_up: StepUp, principal: Option<&Principal>) -> Stop {
    let detail = format!("rule `{}` asks for more", step_up.rule.name);
    // `<tenant>.<object>`, both GUIDs.
    let tenant = principal.and_then(|principal| principal.id.split_once('.')).map(|(tenant, _)| tenant.to_owned());
    match (step_up.asking, step_up.acr_values.first(), tenant) {
        (Asking::Claims, Some(context), Some(tenant)) => {
            let claims = ClaimsChallenge { tenant, context: Arc::clone(context) };
            let challenge = Challenge { claims: Some(Box::new(claims)), ..Challenge::default() };
            Stop { reason: Reason::ClaimsChallenge, detail, step_up: Some(step_up), challenge }
        }
        (Asking::Never, ..) => {
            let detail = format!("{detail}, and the client's token has no `xms_cc` with `cp1`");
            Stop::new(Reason::ClaimsUnsupported, detail)
        }
        _ => Stop { reason: Reason::StepUp, detail, step_up: Some(step_up), challenge: Challenge::default() },
    }
}
