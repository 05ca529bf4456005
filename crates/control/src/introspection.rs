//! Asks issuers about tokens (RFC 7662): one question for all who ask about the same token, a bounded number at once, two
//! seconds each. What cannot be believed is no answer, and nothing is answered from memory for longer than half a minute.
//!
//! Never logs a token, a secret or an answer, and never judges an answer: the data plane does.
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use feed::{ClientAuth, Introspection, IntrospectionOutcome};
use http::HeaderValue;
use net::Seldom;
use net::client::{Get, Got, Post, get, post};
use tokio::sync::Semaphore;
use trust::issuer::Profile;
use trust::json::Object;
use trust::jwk::KeySet;
use trust::token::{ANSWER_BYTES_MAX, ANSWER_LIFE_S, signed_answer};
use zeroize::Zeroizing;

use crate::Options;
use crate::board::lock;
use crate::client_auth::{assertion, basic, urlencoded};
use crate::flights::Flights;
use crate::keys::Clock;

/// Questions that may be open at one issuer; beyond it, requests are refused.
const OPEN_MAX: usize = 32;
/// From the question to the answer's last byte.
const PATIENCE: Duration = Duration::from_secs(2);
/// A token that is not active is not asked about again for this long.
const INACTIVE_LIFE: Duration = Duration::from_secs(10);
/// An issuer that failed is not asked about the same token again for this long.
const FAILED_LIFE: Duration = Duration::from_secs(1);
/// Tokens of one issuer that something is known of; beyond it, answers are used and not remembered.
const KNOWN_MAX: usize = 10_000;
const WARN_EVERY: Duration = Duration::from_secs(60);
const SIGNED: &str = "application/token-introspection+jwt";

/// Where one issuer is asked.
pub(crate) struct Desk {
    settings: Arc<Introspection>,
    profile: Arc<Profile>,
    options: Arc<Options>,
    clock: Clock,
    /// What discovery said.
    endpoint: Mutex<Option<String>>,
    open: Semaphore,
    flights: Arc<Flights<[u8; 32], IntrospectionOutcome>>,
    warned: Seldom,
}

impl Desk {
    pub(crate) fn all(desired: &feed::Desired, options: &Arc<Options>, clock: Clock) -> Vec<Arc<Desk>> {
        let desk = |settings: &Arc<Introspection>| {
            let profile = desired.issuers.iter().find(|profile| *profile.name() == settings.issuer)?;
            Some(Arc::new(Desk::new(settings, profile, options, clock)))
        };
        desired.introspection.iter().filter_map(desk).collect()
    }

    pub(crate) fn new(
        settings: &Arc<Introspection>,
        profile: &Arc<Profile>,
        options: &Arc<Options>,
        clock: Clock,
    ) -> Desk {
        Desk {
            settings: Arc::clone(settings),
            profile: Arc::clone(profile),
            options: Arc::clone(options),
            clock,
            endpoint: Mutex::new(settings.endpoint.clone()),
            open: Semaphore::new(OPEN_MAX),
            flights: Flights::new(KNOWN_MAX),
            warned: Seldom::every(WARN_EVERY),
        }
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    /// The question is asked on control's own runtime: it goes on when the request that first asked is gone.
    pub(crate) async fn ask(
        self: &Arc<Desk>,
        runtime: &tokio::runtime::Handle,
        token: &str,
        token_sha256: [u8; 32],
        keys: Arc<KeySet>,
    ) -> IntrospectionOutcome {
        let question = || {
            let (desk, token) = (Arc::clone(self), Zeroizing::new(token.to_owned()));
            async move {
                let outcome = desk.answer(&token, &keys).await;
                let life = life(&outcome);
                (outcome, life)
            }
        };
        let answered = self.flights.ask(runtime, token_sha256, question).await;
        answered.unwrap_or_else(|| unavailable("control has stopped"))
    }

    async fn answer(&self, token: &str, keys: &KeySet) -> IntrospectionOutcome {
        let Ok(_open) = self.open.try_acquire() else {
            return unavailable(format!("{OPEN_MAX} questions are open at this issuer already"));
        };
        let asked_at = self.clock.now().unix_s;
        let answered = tokio::time::timeout(PATIENCE, self.fetch(token, keys, asked_at)).await;
        match answered.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}"))) {
            Ok(answer) => IntrospectionOutcome::Answered { answer: Arc::new(answer), asked_at },
            Err(why) => {
                self.warn(&why);
                unavailable(why)
            }
        }
    }

    /// Each refused request has the reason in its record; the log says it once a minute.
    fn warn(&self, why: &str) {
        if self.warned.is_due(Instant::now()) {
            tracing::warn!(issuer = &*self.settings.issuer, why, "the issuer cannot be asked about a token");
        }
    }

    async fn fetch(&self, token: &str, keys: &KeySet, now: i64) -> Result<Object, String> {
        let endpoint = self.endpoint().await?;
        let got = self.question(&endpoint, token, now).await?;
        match got.status {
            200 => self.read(&got, keys, now),
            401 | 403 => Err(format!("it answered {}: are `client_id` and its secret or key right?", got.status)),
            status => Err(format!("it answered {status}")),
        }
    }

    /// Whatever it answers.
    pub(crate) async fn question(&self, endpoint: &str, token: &str, now: i64) -> Result<Got, String> {
        let (authorization, proof) = self.prove(now)?;
        let token = Zeroizing::new(urlencoded(token));
        let body = Zeroizing::new(format!("token={}&token_type_hint=access_token{}", *token, *proof));
        let asked = Post {
            to: self.request(endpoint),
            content_type: "application/x-www-form-urlencoded",
            accept: if self.settings.signed { SIGNED } else { "application/json" },
            authorization,
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        post(asked).await.map_err(|error| error.to_string())
    }

    pub(crate) fn read(&self, got: &Got, keys: &KeySet, now: i64) -> Result<Object, String> {
        let content_type = got.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media.as_str() {
            SIGNED => {
                let text = std::str::from_utf8(&got.body).map_err(|_| "the signed answer is no text".to_owned())?;
                signed_answer(text.trim(), &self.profile, keys, &self.settings.client_id, now)
                    .map_err(|refused| format!("the signed answer is not accepted: {}", refused.detail))
            }
            "application/json" if self.settings.signed => {
                Err("the answer is not signed, and `signed: required` is configured".to_owned())
            }
            "application/json" => {
                trust::json::object(&got.body, ANSWER_BYTES_MAX).map_err(|error| format!("the answer is {error}"))
            }
            _ => Err("the answer is no JSON by its `Content-Type`".to_owned()),
        }
    }

    /// As configured, else as discovery says: on the issuer's own host alone, for tokens and a secret are sent there.
    pub(crate) async fn endpoint(&self) -> Result<String, String> {
        if let Some(known) = lock(&self.endpoint).clone() {
            return Ok(known);
        }
        let url = self.profile.discovery_url();
        let got = get(self.request(&url)).await.map_err(|error| format!("discovery: {error}"))?;
        let document: Discovery = serde_json::from_slice(&got.body).map_err(|_| {
            "discovery names no `introspection_endpoint`: write `introspection: { endpoint: … }`".to_owned()
        })?;
        if got.status != 200 || !self.profile.accepts_discovered_issuer(&document.issuer) {
            return Err("discovery: the document is not this issuer's".to_owned());
        }
        if origin(&url).is_none() || origin(&url) != origin(&document.introspection_endpoint) {
            return Err(format!(
                "discovery names an endpoint on another host, `{}`: if that is right, write it under `introspection:`",
                document.introspection_endpoint
            ));
        }
        *lock(&self.endpoint) = Some(document.introspection_endpoint.clone());
        Ok(document.introspection_endpoint)
    }

    fn request<'a>(&'a self, url: &'a str) -> Get<'a> {
        self.options.get_within(PATIENCE, ANSWER_BYTES_MAX, url)
    }

    /// A field of the head, or what goes into the form: as this client proves who it is.
    fn prove(&self, now: i64) -> Result<(Option<HeaderValue>, Zeroizing<String>), String> {
        let client_id = &self.settings.client_id;
        match &self.settings.auth {
            ClientAuth::Secret(secret) => Ok((Some(basic(client_id, secret)?), Zeroizing::default())),
            ClientAuth::Key { key, audience } => {
                let issuer = || self.profile.issuers().first().map(String::as_str);
                let audience = audience.as_deref().or_else(issuer).unwrap_or_default();
                Ok((None, assertion(client_id, key, audience, now)?))
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct Discovery {
    issuer: String,
    introspection_endpoint: String,
}

/// How long an answer is remembered here; data planes count from the question.
fn life(outcome: &IntrospectionOutcome) -> Duration {
    match outcome {
        IntrospectionOutcome::Unavailable(_) => FAILED_LIFE,
        IntrospectionOutcome::Answered { answer, .. } if answer.get("active") == Some(&true.into()) => {
            Duration::from_secs(ANSWER_LIFE_S.unsigned_abs()).saturating_sub(PATIENCE)
        }
        IntrospectionOutcome::Answered { .. } => INACTIVE_LIFE,
    }
}

fn unavailable(why: impl Into<Arc<str>>) -> IntrospectionOutcome {
    IntrospectionOutcome::Unavailable(why.into())
}

/// Scheme, host and port.
fn origin(url: &str) -> Option<(String, String)> {
    let uri: http::Uri = url.parse().ok()?;
    Some((uri.scheme_str()?.to_owned(), uri.authority()?.as_str().to_ascii_lowercase()))
}
