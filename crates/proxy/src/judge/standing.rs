//! A verdict that has to hold for longer than one request: what a tunnel was permitted with, judged again by every snapshot
//! that comes after. It opens nothing and closes nothing; it says whether the permission still stands.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Uri};
use net::tunnel::{Permission, Withdrawn};
use trust::issuer::SenderConstrained;
use trust::policy::{Input, Peer, Verdict};
use trust::reason::Reason;
use wire::websocket::origin_is_own;

use super::identify::{Again, identify_again};
use super::{Client, Judged, Shared, Stop};
use crate::clock::UnixMs;
use crate::token_cache::Entry;
use crate::view::{Routed, Served, View};

/// What a request said that a later judgement needs: credentials, `Origin` and `Host`, what proxies said of the caller, and its
/// target. Kept in memory as long as the tunnel lives, and told to nobody.
pub(crate) struct Asked {
    pub(crate) fields: HeaderMap,
    pub(crate) target: Uri,
}

/// A permission that can be withdrawn.
pub(crate) struct Standing {
    shared: Arc<Shared>,
    asked: Asked,
    host: String,
    /// As the socket tells it: who may speak for him is judged again, too.
    socket: Client,
    service: Arc<str>,
    /// The snapshot by which it stands.
    epoch: AtomicU64,
    /// Unix seconds, leeway included; `i64::MAX` where nobody is signed in.
    expires_at: AtomicI64,
    entry: Mutex<Option<Arc<Entry>>>,
}

impl Standing {
    pub(crate) fn of(shared: &Arc<Shared>, judged: &Judged, asked: Asked, host: String, socket: Client) -> Standing {
        Standing {
            shared: Arc::clone(shared),
            asked,
            host,
            socket,
            service: Arc::clone(&judged.place.served.service.name),
            epoch: AtomicU64::new(judged.place.view.snapshot.epoch),
            expires_at: AtomicI64::new(expiry(judged.entry.as_deref())),
            entry: Mutex::new(judged.entry.clone()),
        }
    }

    /// The same caller, method and path, by the snapshot in force.
    fn still_stands(&self, view: &View, now: UnixMs) -> bool {
        let Routed::To(served, path) = view.route(&self.host, self.asked.target.path()) else { return false };
        let client = match &view.trusted_proxies {
            None => self.socket,
            Some(proxies) => match proxies.caller(self.socket, &self.asked.fields) {
                Ok(client) => client,
                Err(_) => return false,
            },
        };
        if served.service.name != self.service || admits(&served, &self.asked.fields, client).is_err() {
            return false;
        }
        let mut entry = self.entry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = entry.as_ref() {
            match identify_again(view, known, &self.asked.fields, now) {
                Again::Same => {}
                Again::Anew(renewed) => {
                    self.expires_at.store(expiry(Some(&renewed)), Relaxed);
                    *entry = Some(renewed);
                }
                Again::Refused => return false,
            }
            // What the token is bound to was proved when the tunnel opened, and cannot change.
            let is_bound = entry.as_ref().is_some_and(|entry| entry.binding.bound().is_some());
            if served.service.sender_constrained == SenderConstrained::Required && !is_bound {
                return false;
            }
        }
        let input = Input {
            principal: entry.as_ref().map(|entry| &entry.principal),
            peer: Peer::Edge,
            method: Method::GET.as_str(),
            path: &path,
            query: self.asked.target.query(),
            host: &self.host,
            client_ip: Some(client.ip),
            now: now.seconds(),
        };
        matches!(served.service.policy.decide(&input).verdict, Verdict::Permit(_))
    }
}

fn expiry(entry: Option<&Entry>) -> i64 {
    entry.map_or(i64::MAX, |entry| entry.principal.expires_at.saturating_add(entry.profile.settings().leeway_s))
}

impl Permission for Standing {
    fn withdrawn(&self) -> Option<Withdrawn> {
        let now = UnixMs::now();
        if now.seconds() >= self.expires_at.load(Relaxed) {
            return Some(Withdrawn::TokenExpired);
        }
        if self.shared.views.epoch() == Some(self.epoch.load(Relaxed)) {
            return None;
        }
        match self.shared.views.now() {
            Some(view) if self.still_stands(&view, now) => {
                self.epoch.store(view.snapshot.epoch, Relaxed);
                None
            }
            _ => Some(Withdrawn::RulesChanged),
        }
    }
}

/// Does the service take WebSockets, and from the page that asks?
pub(crate) fn admits(served: &Served, fields: &HeaderMap, client: Client) -> Result<(), Stop> {
    if served.service.websocket.is_none() {
        return Err(Stop::new(Reason::WebsocketRefused, "the service file says `websocket: deny`"));
    }
    let none = HeaderValue::from_static("");
    if origin_is_own(fields, fields.get(HOST).unwrap_or(&none), client.https, &served.websocket_origins) {
        return Ok(());
    }
    let origin =
        fields.get(ORIGIN).map_or_else(String::new, |origin| String::from_utf8_lossy(origin.as_bytes()).into());
    Err(Stop::new(
        Reason::OriginRefused,
        format!("`Origin: {origin}` is neither the request's own host nor listed in `websocket: {{ origins: […] }}`"),
    ))
}
