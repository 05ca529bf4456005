//! Tokens that only their issuer can judge, and JWTs whose issuer is asked besides: the word of the issuer, through control.
//!
//! Closed on failure: no answer, no entry, and nothing that was known longer ago than half a minute.

use std::sync::Arc;

use feed::{IntrospectionOutcome, Issuer};
use trust::issuer::Introspect;
use trust::json::Object;
use trust::reason::Reason;
use trust::token::{ANSWER_LIFE_S, introspected, is_opaque};

use super::identify::stop;
use super::recording::Recording;
use super::{Judge, Stop};
use crate::clock::UnixMs;
use crate::token_cache::{Digest, Entry};
use crate::view::View;

impl Judge {
    /// The entry of an opaque token; `None` when it is none, or no issuer takes such tokens.
    pub(super) async fn opaque(
        &self,
        view: &Arc<View>,
        text: &str,
        digest: &Digest,
        recording: &mut Recording,
    ) -> Result<Option<Arc<Entry>>, Stop> {
        let takes = |issuer: &&Issuer| issuer.profile.settings().introspect != Introspect::None;
        let Some(issuer) = view.snapshot.issuers.iter().find(takes) else { return Ok(None) };
        if !is_opaque(text) {
            return Ok(None);
        }
        let (answer, asked_at) = self.ask_issuer(issuer.profile.name(), text, digest).await?;
        let verified = introspected(&answer, &issuer.profile, asked_at).map_err(stop)?;
        let (binding, facts) = (*verified.binding(), verified.facts().clone());
        let profile = Arc::clone(&issuer.profile);
        let mut entry = Entry::new(verified.into_principal(), binding, facts, profile, issuer.keys.version);
        entry.counts = Some((asked_at, asked_at + ANSWER_LIFE_S));
        recording.identified(&entry, view, issuer, false, UnixMs::now());
        Ok(Some(Arc::new(entry)))
    }

    /// With `introspection: { tokens: all }` a verified JWT counts only while its issuer says that it is active.
    pub(super) async fn still_active(
        &self,
        entry: Arc<Entry>,
        text: &str,
        digest: &Digest,
    ) -> Result<Arc<Entry>, Stop> {
        if entry.profile.settings().introspect != Introspect::All {
            return Ok(entry);
        }
        let (answer, asked_at) = self.ask_issuer(entry.profile.name(), text, digest).await?;
        // Judged in full: an answer about somebody else's token, or bound otherwise, is no word on this one.
        let verified = introspected(&answer, &entry.profile, asked_at).map_err(stop)?;
        if verified.principal().subject != entry.principal.subject || *verified.binding() != entry.binding {
            let detail = "the issuer's answer names another subject or another binding than the token";
            return Err(Stop::new(Reason::TokenInactive, detail));
        }
        let mut fresh =
            Arc::into_inner(entry).ok_or_else(|| Stop::new(Reason::Internal, "the entry is in use already"))?;
        let (from, until) = fresh.counts.unwrap_or((asked_at, i64::MAX));
        fresh.counts = Some((from.max(asked_at), until.min(asked_at + ANSWER_LIFE_S)));
        Ok(Arc::new(fresh))
    }

    async fn ask_issuer(&self, issuer: &str, text: &str, digest: &Digest) -> Result<(Arc<Object>, i64), Stop> {
        match self.shared.introspect.introspect(issuer, text, *digest).await {
            IntrospectionOutcome::Answered { answer, asked_at } => Ok((answer, asked_at)),
            IntrospectionOutcome::Unavailable(why) => {
                let detail = format!("issuer `{issuer}` cannot be asked about this token: {why}");
                Err(Stop::new(Reason::IntrospectionUnavailable, detail))
            }
        }
    }
}
