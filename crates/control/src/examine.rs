//! A look at an issuer for an operator's eyes, before it matters: the same requests, under the same limits, that fetching
//! keys makes, with what came back kept for judging. It keeps nothing and changes nothing.
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use net::client::{Get, get};
use trust::issuer::Profile;

use crate::Options;
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
}

/// Asks as control would. An issuer whose keys come from a file is not asked anything.
pub async fn examine(profile: &Arc<Profile>, options: Options) -> Examined {
    let source = Source::of(profile);
    let locator = Locator::new(Arc::clone(profile), source.clone(), Arc::new(options.clone()));
    let fetched = match locator.fetch(None).await {
        Fetched::Http { status: 200, .. } => Ok(()),
        Fetched::Http { status, .. } => Err(format!("status {status}")),
        Fetched::Failed(why) => Err(why),
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
    Examined { discovery, keys, fetched }
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
