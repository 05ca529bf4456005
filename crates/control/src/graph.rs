//! Asks Microsoft Graph for the groups of people and programs whose Entra tokens leave them out (overage). Written from
//! Microsoft's documentation (`directoryObject: getMemberObjects`, client credentials), and tested against a fake of ours.
//!
//! Never asks where a token points to (`_claim_sources`): the place is configured, the object is the token's `oid`. What
//! cannot be had in full is unknown, never none.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use feed::{ClientAuth, Graph, GroupsOutcome};
use http::HeaderValue;
use net::Seldom;
use net::client::{Get, Got, Post, post};
use tokio::sync::Semaphore;
use trust::token::Overage;
use zeroize::Zeroizing;

use crate::Options;
use crate::client_auth::{assertion, urlencoded};
use crate::flights::Flights;
use crate::keys::Clock;

/// Questions that may be open; beyond it, groups are unknown.
const OPEN_MAX: usize = 16;
/// From the question to the answer's last byte, the token for Graph included.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long an answer counts; data planes count from when it was asked.
const KNOWN_LIFE: Duration = Duration::from_secs(240);
/// After a failure the same question is not asked again for this long.
const FAILED_LIFE: Duration = Duration::from_secs(10);
const KNOWN_MAX: usize = 2_000;
/// Graph gives up beyond 11,000 groups; an id takes 39 bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Tenants whose tokens for Graph are kept.
const TENANTS_MAX: usize = 64;
/// A token for Graph is renewed this long before its end.
const TOKEN_MARGIN: Duration = Duration::from_secs(300);

const WARN_EVERY: Duration = Duration::from_secs(60);

/// Where the groups of one issuer's people are asked for.
pub(crate) struct Desk {
    settings: Arc<Graph>,
    options: Arc<Options>,
    clock: Clock,
    open: Semaphore,
    flights: Arc<Flights<Overage, GroupsOutcome>>,
    /// By tenant.
    tokens: Mutex<HashMap<String, (Zeroizing<String>, Instant)>>,
    warned: Seldom,
}

impl Desk {
    pub(crate) fn all(desired: &feed::Desired, options: &Arc<Options>, clock: Clock) -> Vec<Arc<Desk>> {
        let desk = |settings: &Arc<Graph>| {
            Arc::new(Desk {
                settings: Arc::clone(settings),
                options: Arc::clone(options),
                clock,
                open: Semaphore::new(OPEN_MAX),
                flights: Flights::new(KNOWN_MAX),
                tokens: Mutex::default(),
                warned: Seldom::every(WARN_EVERY),
            })
        };
        desired.graph.iter().map(desk).collect()
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    pub(crate) async fn ask(self: &Arc<Desk>, runtime: &tokio::runtime::Handle, whose: &Overage) -> GroupsOutcome {
        let question = || {
            let (desk, whose) = (Arc::clone(self), whose.clone());
            async move { desk.answer(&whose).await }
        };
        let answered = self.flights.ask(runtime, whose.clone(), question).await;
        answered.unwrap_or_else(|| GroupsOutcome::Unknown("control has stopped".into()))
    }

    async fn answer(&self, whose: &Overage) -> (GroupsOutcome, Duration) {
        let Ok(_open) = self.open.try_acquire() else {
            let why = format!("{OPEN_MAX} questions are open at Graph already");
            return (GroupsOutcome::Unknown(why.into()), Duration::ZERO);
        };
        let asked_at = self.clock.now().unix_s;
        let asked = tokio::time::timeout(PATIENCE, self.groups(whose)).await;
        match asked.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}"))) {
            Ok(groups) => (GroupsOutcome::Known { groups: groups.into(), asked_at }, KNOWN_LIFE),
            Err(why) => {
                self.warn(&why);
                (GroupsOutcome::Unknown(why.into()), FAILED_LIFE)
            }
        }
    }

    /// Each record has the reason; the log says it once a minute.
    fn warn(&self, why: &str) {
        if self.warned.is_due(Instant::now()) {
            tracing::warn!(issuer = &*self.settings.issuer, why, "groups cannot be asked for at Microsoft Graph");
        }
    }

    async fn groups(&self, whose: &Overage) -> Result<Vec<Arc<str>>, String> {
        let token = self.token(&whose.tenant).await?;
        let kind = if whose.program { "servicePrincipals" } else { "users" };
        let url = format!("{}/v1.0/{kind}/{}/getMemberObjects", self.settings.endpoint, whose.object);
        let bearer = Zeroizing::new(format!("Bearer {}", *token));
        // Only security groups stand in tokens; for programs Graph knows the question about all groups alone.
        let body = if whose.program { r#"{"securityEnabledOnly":false}"# } else { r#"{"securityEnabledOnly":true}"# };
        let asked = Post {
            to: self.request(&url),
            content_type: "application/json",
            accept: "application/json",
            authorization: Some(HeaderValue::from_str(&bearer).map_err(|_| "Graph's token cannot be sent".to_owned())?),
            body: Bytes::from_static(body.as_bytes()),
        };
        let got = post(asked).await.map_err(|error| format!("Graph: {error}"))?;
        if got.status == 401 {
            crate::board::lock(&self.tokens).remove(&whose.tenant);
        }
        read(&got)
    }

    /// Client credentials at the tenant's own token endpoint, for the configured Graph.
    async fn token(&self, tenant: &str) -> Result<Zeroizing<String>, String> {
        if let Some((token, until)) = crate::board::lock(&self.tokens).get(tenant)
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let url = format!("{}/{tenant}/oauth2/v2.0/token", self.settings.login);
        let proof = self.prove(&url)?;
        let form = Zeroizing::new(format!(
            "grant_type=client_credentials{}&scope={}",
            *proof,
            urlencoded(&format!("{}/.default", self.settings.endpoint))
        ));
        let asked = Post {
            to: self.request(&url),
            content_type: "application/x-www-form-urlencoded",
            accept: "application/json",
            authorization: None,
            body: Bytes::copy_from_slice(form.as_bytes()),
        };
        let got = post(asked).await.map_err(|error| format!("token for Graph: {error}"))?;
        if got.status != 200 {
            let why = format!(
                "token for Graph: {} of the token endpoint; are `client_id` and its secret or key right?",
                got.status
            );
            return Err(why);
        }
        let answer: TokenAnswer =
            serde_json::from_slice(&got.body).map_err(|_| "token for Graph: no JSON with `access_token`".to_owned())?;
        let token = Zeroizing::new(answer.access_token);
        let until = Instant::now() + Duration::from_secs(answer.expires_in.min(86_400)).saturating_sub(TOKEN_MARGIN);
        let mut tokens = crate::board::lock(&self.tokens);
        if tokens.len() >= TENANTS_MAX {
            tokens.clear();
        }
        tokens.insert(tenant.to_owned(), (token.clone(), until));
        Ok(token)
    }

    /// What goes into the form; an assertion is for the token endpoint itself, as Microsoft has it.
    fn prove(&self, token_endpoint: &str) -> Result<Zeroizing<String>, String> {
        let client_id = &self.settings.client_id;
        match &self.settings.auth {
            ClientAuth::Secret(secret) => {
                let secret = Zeroizing::new(urlencoded(secret.danger_reveal()));
                Ok(Zeroizing::new(format!("&client_id={}&client_secret={}", urlencoded(client_id), *secret)))
            }
            ClientAuth::Key { key, audience } => {
                let audience = audience.as_deref().unwrap_or(token_endpoint);
                assertion(client_id, key, audience, self.clock.now().unix_s)
            }
        }
    }

    fn request<'a>(&'a self, url: &'a str) -> Get<'a> {
        self.options.get_within(PATIENCE, ANSWER_BYTES_MAX, url)
    }
}

#[derive(serde::Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: u64,
}

/// A collection of ids. One that goes on elsewhere is not whole.
#[derive(serde::Deserialize)]
struct Collection {
    value: Vec<String>,
    #[serde(rename = "@odata.nextLink")]
    next: Option<serde_json::Value>,
}

fn read(got: &Got) -> Result<Vec<Arc<str>>, String> {
    match got.status {
        200 => {}
        403 => {
            return Err(
                "Graph: 403; the app needs User.Read.All (programs: Application.Read.All), with consent".to_owned()
            );
        }
        404 => return Err("Graph: 404; the directory has no such person or program".to_owned()),
        status => return Err(format!("Graph: it answered {status}")),
    }
    let collection: Collection =
        serde_json::from_slice(&got.body).map_err(|_| "Graph: the answer is no collection of ids".to_owned())?;
    if collection.next.is_some() {
        return Err("Graph: the answer has more pages, so it is not the whole list".to_owned());
    }
    if let Some(odd) = collection.value.iter().find(|id| !trust::token::is_guid(id)) {
        return Err(format!("Graph: an id of {} bytes in the answer is none", odd.len()));
    }
    Ok(collection.value.iter().map(|id| Arc::from(id.to_ascii_lowercase())).collect())
}
