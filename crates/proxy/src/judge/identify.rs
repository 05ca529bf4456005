//! From the `Authorization` field to a principal: cache, verification, one demand for unknown keys.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use feed::{Issuer, KeyDemandOutcome};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use trust::reason::Reason;
use trust::token::{Peeked, Refused, Scheme, VerifiedToken};

use super::recording::Recording;
use super::{Judge, Stop};
use crate::clock::UnixMs;
use crate::token_cache::{Digest, Entry};
use crate::view::View;

/// What the `Authorization` field holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Presented<'a> {
    Nothing,
    Token(Scheme, &'a str),
}

impl Presented<'_> {
    pub(super) fn scheme(&self) -> Option<Scheme> {
        match self {
            Presented::Nothing => None,
            Presented::Token(scheme, _) => Some(*scheme),
        }
    }
}

/// A token that is good, and how it came: what it is bound to is still to be proved.
pub(super) struct Credential {
    pub(super) entry: Arc<Entry>,
    pub(super) scheme: Scheme,
    /// SHA-256 of the token's text.
    pub(super) digest: Digest,
}

impl Judge {
    /// `None`: nobody is signed in. A credential that is presented and not accepted is refused, also where none is needed.
    /// The returned view is the one the token was verified with: newer than `view` when a key had to be fetched.
    pub(super) async fn identify(
        &self,
        view: &Arc<View>,
        presented: &Presented<'_>,
        recording: &mut Recording,
        now: UnixMs,
    ) -> Result<(Arc<View>, Option<Credential>), Stop> {
        let (scheme, text) = match *presented {
            Presented::Nothing => return Ok((Arc::clone(view), None)),
            Presented::Token(scheme, text) => (scheme, text),
        };
        let digest = token_digest(text);
        let (view, entry) = self.known_or_verified(view, text, &digest, recording, now).await?;
        Ok((view, Some(Credential { entry, scheme, digest })))
    }

    async fn known_or_verified(
        &self,
        view: &Arc<View>,
        text: &str,
        key: &Digest,
        recording: &mut Recording,
        now: UnixMs,
    ) -> Result<(Arc<View>, Arc<Entry>), Stop> {
        if let Some(entry) = self.tokens.get(key) {
            match still_good(view, &entry, now) {
                Good::Yes(issuer) => {
                    recording.identified(&entry, view, issuer, true, now);
                    self.shared.metrics.token_cache_hits.inc();
                    return Ok((Arc::clone(view), entry));
                }
                // Who it was is known; nothing is allowed by it.
                Good::Expired(issuer) => {
                    recording.identified(&entry, view, issuer, true, now);
                    return Err(Stop::new(
                        Reason::Expired,
                        format!("the token ended {} s ago", now.seconds() - entry.principal.expires_at),
                    ));
                }
                Good::VerifyAgain => self.tokens.remove(key),
            }
        }
        self.shared.metrics.token_cache_misses.inc();
        let (view, entry) = match self.opaque(view, text, key, recording).await? {
            Some(entry) => (Arc::clone(view), entry),
            None => {
                let (view, entry) = self.verify(view, text, recording, now).await?;
                let entry = self.with_all_groups(&view, entry, recording, now).await;
                let entry = self.still_active(entry, text, key).await?;
                (view, entry)
            }
        };
        self.tokens.insert(*key, Arc::clone(&entry));
        Ok((view, entry))
    }

    async fn verify(
        &self,
        view: &Arc<View>,
        text: &str,
        recording: &mut Recording,
        now: UnixMs,
    ) -> Result<(Arc<View>, Arc<Entry>), Stop> {
        let peeked = Peeked::parse(text).map_err(stop)?;
        recording.token_seen(peeked.kid());
        let refused = match verify_with(view, peeked, text, now) {
            Ok((verified, issuer)) => return Ok((Arc::clone(view), remember(verified, issuer, view, recording, now))),
            Err(refused) => refused,
        };
        let peeked = Peeked::parse(text).map_err(stop)?;
        let Some(issuer) = view.issuers(peeked.iss()).next() else {
            return Err(stop(refused));
        };
        recording.keys_seen(issuer, now);
        let outcome = self.demand_keys(&peeked, issuer, &refused, now).await?;
        let Some(outcome) = outcome else {
            return Err(stop(refused));
        };
        let renewed = self.shared.views.now().unwrap_or_else(|| Arc::clone(view));
        let keys_of = |view: &View| view.issuers(peeked.iss()).map(|issuer| issuer.keys.version).collect::<Vec<_>>();
        if keys_of(&renewed) == keys_of(view) {
            return Err(explain_demand(refused, outcome, issuer));
        }
        match verify_with(&renewed, Peeked::parse(text).map_err(stop)?, text, now) {
            Ok((verified, issuer)) => {
                let entry = remember(verified, issuer, &renewed, recording, now);
                Ok((Arc::clone(&renewed), entry))
            }
            Err(again) => Err(explain_demand(again, outcome, issuer)),
        }
    }

    /// Asks for keys when that can help; `None` when the refusal stands whatever keys come.
    async fn demand_keys(
        &self,
        peeked: &Peeked<'_>,
        issuer: &Issuer,
        refused: &Refused,
        now: UnixMs,
    ) -> Result<Option<KeyDemandOutcome>, Stop> {
        let name = issuer.profile.name();
        match refused.reason {
            Reason::KeyUnknown | Reason::KeysUnavailable => {
                peeked.plausible(&issuer.profile, now.seconds()).map_err(stop)?;
                Ok(Some(self.shared.key_demand.unknown_kid(name, peeked.kid()).await))
            }
            Reason::SignatureBad => {
                peeked.plausible(&issuer.profile, now.seconds()).map_err(stop)?;
                Ok(Some(self.shared.key_demand.signature_bad(name, peeked.kid()).await))
            }
            _ => Ok(None),
        }
    }
}

/// Exactly one credential, and a scheme we can check.
pub(super) fn presented(headers: &HeaderMap) -> Result<Presented<'_>, Stop> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(Presented::Nothing);
    };
    if values.next().is_some() {
        return Err(Stop::new(Reason::TokenMultiple, "`Authorization` stands more than once"));
    }
    let malformed = || Stop::new(Reason::TokenMalformed, "`Authorization` is not readable text");
    let text = value.to_str().map_err(|_| malformed())?;
    // Any white space parts scheme and token here, as it does for lenient upstreams: none may see a token we did not.
    let text = text.trim_matches([' ', '\t']);
    let (scheme, rest) = text.split_once([' ', '\t', ',']).unwrap_or((text, ""));
    let token = rest.trim_matches([' ', '\t']);
    let scheme = match scheme {
        bearer if bearer.eq_ignore_ascii_case("bearer") => Scheme::Bearer,
        dpop if dpop.eq_ignore_ascii_case("dpop") => Scheme::Dpop,
        // Another scheme (Basic, …) is the application's own affair: nobody is signed in with us.
        _ => return Ok(Presented::Nothing),
    };
    if token.is_empty() { Err(malformed()) } else { Ok(Presented::Token(scheme, token)) }
}

enum Good<'a> {
    Yes(&'a Issuer),
    Expired(&'a Issuer),
    VerifyAgain,
}

/// What can have changed since the token was verified: its issuer's settings, its keys, the time.
fn still_good<'a>(view: &'a View, entry: &Entry, now: UnixMs) -> Good<'a> {
    let issuer = view.snapshot.issuers.iter().find(|issuer| Arc::ptr_eq(&issuer.profile, &entry.profile));
    match issuer {
        Some(issuer) if issuer.keys.version == entry.keys_version => {
            if !is_word_current(entry.counts, now) {
                return Good::VerifyAgain;
            }
            let leeway = issuer.profile.settings().leeway_s;
            if now.seconds() >= entry.principal.expires_at + leeway { Good::Expired(issuer) } else { Good::Yes(issuer) }
        }
        _ => Good::VerifyAgain,
    }
}

/// What somebody was asked for counts for a while; without that, nothing was asked for.
fn is_word_current(counts: Option<(i64, i64)>, now: UnixMs) -> bool {
    counts.is_none_or(|(from, until)| (from..until).contains(&now.seconds()))
}

/// What a token that was good is worth by a later snapshot.
pub(super) enum Again {
    Same,
    /// Settings or keys of its issuer changed, and it is good by the new ones.
    Anew(Arc<Entry>),
    Refused,
}

/// Asks nobody, for keys or about the token: a key that is gone was taken away.
pub(super) fn identify_again(view: &View, entry: &Entry, headers: &HeaderMap, now: UnixMs) -> Again {
    match still_good(view, entry, now) {
        Good::Yes(_) => return Again::Same,
        Good::Expired(_) => return Again::Refused,
        Good::VerifyAgain => {}
    }
    let Ok(Presented::Token(_, text)) = presented(headers) else { return Again::Refused };
    let is_opaque = entry.counts.is_some() && Peeked::parse(text).is_err();
    if is_opaque {
        // No key vouches for it. Its issuer has to be configured as it was, and is not asked again.
        let settings = entry.profile.settings();
        let stays = view.snapshot.issuers.iter().any(|issuer| issuer.profile.settings() == settings);
        return if stays { Again::Same } else { Again::Refused };
    }
    let verified = Peeked::parse(text).and_then(|peeked| verify_with(view, peeked, text, now));
    let Ok((verified, issuer)) = verified else { return Again::Refused };
    let (facts, binding) = (verified.facts().clone(), *verified.binding());
    let mut principal = verified.into_principal();
    if entry.overage.is_some() && principal.subject == entry.principal.subject {
        // The token leaves them out, and they were asked for when it was opened.
        principal.groups.clone_from(&entry.principal.groups);
    }
    let profile = Arc::clone(&issuer.profile);
    Again::Anew(Arc::new(Entry::new(principal, binding, facts, profile, issuer.keys.version)))
}

/// Tries every issuer that answers to the token's `iss`; the refusal told is the one that came furthest. `peeked` is
/// `text`, parsed: nearly always one issuer answers, and the token is parsed once.
fn verify_with<'a>(
    view: &'a View,
    peeked: Peeked<'_>,
    text: &str,
    now: UnixMs,
) -> Result<(VerifiedToken, &'a Issuer), Refused> {
    let candidates = peeked.candidates(view.snapshot.issuers.iter().map(|issuer| issuer.profile.as_ref()))?;
    let is_candidate =
        |issuer: &&Issuer| candidates.iter().any(|profile| std::ptr::eq(*profile, issuer.profile.as_ref()));
    let issuers: Vec<&Issuer> = view.snapshot.issuers.iter().filter(is_candidate).collect();
    let mut refused = Refused { reason: Reason::IssuerUnknown, detail: String::new() };
    let mut unused = Some(peeked);
    for issuer in issuers {
        let peeked = match unused.take() {
            Some(peeked) => peeked,
            None => Peeked::parse(text)?,
        };
        let error = if issuer.keys.set.is_empty() {
            let detail = format!("no keys of issuer `{}` are known yet", issuer.profile.name());
            Refused { reason: Reason::KeysUnavailable, detail }
        } else {
            match peeked.verify(&issuer.profile, &issuer.keys.set, now.seconds()) {
                Ok(verified) => return Ok((verified, issuer)),
                Err(error) => error,
            }
        };
        if refused.detail.is_empty() || progress(refused.reason) < progress(error.reason) {
            refused = error;
        }
    }
    Err(refused)
}

fn progress(reason: Reason) -> u8 {
    match reason {
        Reason::KeysUnavailable => 0,
        Reason::KeyUnknown | Reason::KeyUnknownThrottled => 1,
        Reason::SignatureBad => 2,
        _ => 3,
    }
}

fn remember(
    verified: VerifiedToken,
    issuer: &Issuer,
    view: &Arc<View>,
    recording: &mut Recording,
    now: UnixMs,
) -> Arc<Entry> {
    let facts = verified.facts().clone();
    let (binding, overage) = (*verified.binding(), verified.overage().cloned());
    let mut entry =
        Entry::new(verified.into_principal(), binding, facts, Arc::clone(&issuer.profile), issuer.keys.version);
    entry.overage = overage;
    recording.identified(&entry, view, issuer, false, now);
    Arc::new(entry)
}

/// The refusal after keys were asked for, with what became of that.
fn explain_demand(refused: Refused, outcome: KeyDemandOutcome, issuer: &Issuer) -> Stop {
    let name = issuer.profile.name();
    let never_fetched = issuer.keys.set.is_empty();
    match (refused.reason, outcome) {
        (Reason::KeyUnknown, KeyDemandOutcome::Throttled { next_allowed_s }) => Stop::new(
            Reason::KeyUnknownThrottled,
            format!(
                "{}; keys of `{name}` were fetched lately and are fetched again in {next_allowed_s} s at the earliest",
                refused.detail
            ),
        ),
        (Reason::KeyUnknown, KeyDemandOutcome::Unreachable) if never_fetched => {
            Stop::new(Reason::KeysUnavailable, refused.detail)
        }
        (_, KeyDemandOutcome::Unreachable) => {
            Stop::new(refused.reason, format!("{}; issuer `{name}` cannot be reached", refused.detail))
        }
        _ => stop(refused),
    }
}

pub(super) fn stop(refused: Refused) -> Stop {
    Stop::new(refused.reason, refused.detail)
}

fn token_digest(text: &str) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn check(values: &[&'static str], expected: Result<Presented<'static>, Reason>) {
        let mut headers = HeaderMap::new();
        values.iter().for_each(|value| _ = headers.append(AUTHORIZATION, HeaderValue::from_static(value)));
        match (presented(&headers), expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{values:?}"),
            (Err(got), Err(expected)) => assert_eq!(got.reason, expected, "{values:?}"),
            (got, _) => panic!("{values:?}: {:?}", got.map_err(|stop| stop.reason)),
        }
    }

    #[test]
    fn exactly_one_token_is_read() {
        check(&[], Ok(Presented::Nothing));
        check(&["Bearer abc"], Ok(Presented::Token(Scheme::Bearer, "abc")));
        check(&["bearer  abc "], Ok(Presented::Token(Scheme::Bearer, "abc")));
        check(&["Bearer"], Err(Reason::TokenMalformed));
        check(&["Bearer "], Err(Reason::TokenMalformed));
        check(&["Bearer\tabc"], Ok(Presented::Token(Scheme::Bearer, "abc")));
        check(&["Bearer,abc"], Ok(Presented::Token(Scheme::Bearer, "abc")));
        check(&["Basic YTpi"], Ok(Presented::Nothing));
        check(&["Bearer a", "Bearer b"], Err(Reason::TokenMultiple));
        check(&["Basic YTpi", "Bearer b"], Err(Reason::TokenMultiple));
    }

    #[test]
    fn api_89_the_word_of_an_issuer_counts_for_thirty_seconds() {
        let at = |s: u64| is_word_current(Some((1_000, 1_000 + trust::token::ANSWER_LIFE_S)), UnixMs(s * 1000));
        assert!(at(1_000) && at(1_029));
        assert!(!at(1_030) && !at(5_000));
        assert!(!at(999), "the clock went back");
        assert!(is_word_current(None, UnixMs(0)), "nobody was asked about a JWT");
    }

    #[test]
    fn api_66_a_proof_of_possession_scheme_is_never_a_bearer() {
        check(&["DPoP abc"], Ok(Presented::Token(Scheme::Dpop, "abc")));
        check(&["dpop,abc"], Ok(Presented::Token(Scheme::Dpop, "abc")));
        check(&["DPoP"], Err(Reason::TokenMalformed));
        check(&["DPoP a", "Bearer a"], Err(Reason::TokenMultiple));
    }
}
