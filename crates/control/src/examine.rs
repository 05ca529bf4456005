//! A look at an issuer for an operator's eyes, before it matters: the same requests, under the same limits, that fetching
//! keys makes, with what came back kept for judging. It keeps nothing and changes nothing.
use std::sync::Arc;

use bytes::Bytes;
use feed::Introspection;
use http::HeaderMap;
use net::client::{Get, get};
use trust::issuer::Profile;
use trust::json::Object;
use trust::jwk::KeySet;
use uuid::Uuid;

use crate::Options;
use crate::introspection::Desk;
use crate::keys::Clock;
use crate::source::{Fetched, Locator, Source, foreign};

/// What one request got.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// One request of the way to the keys.
#[derive(Debug, Clone)]
pub struct Step {
    pub url: String,
    /// `Err` says why there is no answer.
    pub answer: Result<Answer, String>,
}

/// Everything that was asked.
#[derive(Debug, Clone)]
pub struct Examined {
    /// `None` where keys come from `jwks_uri:` or a file.
    pub discovery: Option<Step>,
    /// Asked twice: servers behind one name do not always agree. Empty when no place for keys is known.
    pub keys: Vec<Step>,
    /// What control itself makes of this issuer: `Err` says why it would have no keys.
    pub fetched: Result<(), String>,
    /// `None`: nothing is configured.
    pub introspection: Option<Questioned>,
}

/// A question about a token that nobody ever issued, asked as control asks.
#[derive(Debug, Clone)]
pub struct Questioned {
    /// `Err` says why there is no place to ask at.
    pub asked: Result<Step, String>,
    /// What control makes of the answer; `Err` says why it would not believe it. `None`: there is none with status 200.
    pub read: Option<Result<Object, String>>,
}

/// Asks as control would. An issuer whose keys come from a file is asked nothing but, if that is configured, about a token.
pub async fn examine(profile: &Arc<Profile>, introspection: Option<&Arc<Introspection>>, options: Options) -> Examined {
    let source = Source::of(profile);
    let locator = Locator::new(Arc::clone(profile), source.clone(), Arc::new(options.clone()));
    let (fetched, document) = match locator.fetch(None).await {
        Fetched::Http { status: 200, body, .. } => (Ok(()), body),
        Fetched::Http { status, .. } => (Err(format!("status {status}")), Bytes::new()),
        Fetched::Failed(why) => (Err(why), Bytes::new()),
    };
    let discovery = match source.discovery() {
        Some(url) => Some(ask(url, false, &options).await),
        None => None,
    };
    let place =
        source.uri().map(str::to_owned).or_else(|| locator.jwks_uri()).or_else(|| announced(discovery.as_ref()));
    let mut keys = Vec::new();
    if let Some(place) = place.filter(|place| place.starts_with("http")) {
        let guarded = source.discovery().is_some_and(|discovery| foreign(discovery, &place));
        for _ in 0..2 {
            keys.push(ask(&place, guarded, &options).await);
        }
    }
    let introspection = match introspection {
        Some(settings) => {
            let known = KeySet::parse(&document).map(|(keys, _)| keys).unwrap_or_default();
            Some(questioned(profile, settings, &known, &options).await)
        }
        None => None,
    };
    Examined { discovery, keys, fetched, introspection }
}

async fn questioned(
    profile: &Arc<Profile>,
    settings: &Arc<Introspection>,
    keys: &KeySet,
    options: &Options,
) -> Questioned {
    let clock = Clock::start();
    let desk = Desk::new(settings, profile, &Arc::new(options.clone()), clock);
    let url = match desk.endpoint().await {
        Ok(url) => url,
        Err(why) => return Questioned { asked: Err(why), read: None },
    };
    let now = clock.now().unix_s;
    let invented = format!("countersign-doctor-{}", Uuid::now_v7());
    let got = desk.question(&url, &invented, now).await;
    let read = got.as_ref().ok().filter(|got| got.status == 200).map(|got| desk.read(got, keys, now));
    let answer = got.map(|got| Answer { status: got.status, headers: got.headers, body: got.body });
    Questioned { asked: Ok(Step { url, answer }), read }
}

/// What a document says that control did not believe.
fn announced(discovery: Option<&Step>) -> Option<String> {
    let answer = discovery?.answer.as_ref().ok()?;
    let document: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    document.get("jwks_uri")?.as_str().map(str::to_owned)
}

async fn ask(url: &str, guarded: bool, options: &Options) -> Step {
    let request = Get { public_addresses_only: guarded, ..options.get(url) };
    let got = get(request).await.map_err(|error| error.to_string());
    let answer = got.map(|got| Answer { status: got.status, headers: got.headers, body: got.body });
    Step { url: url.to_owned(), answer }
}
