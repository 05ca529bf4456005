//! Which trace a request belongs to, and whether it is recorded: settled once, before anything is forwarded. Off unless
//! configured. It exports nothing.
//!
//! A caller's `traceparent` is a claim like any other. Believed from anybody, it would let a stranger have everything he sends
//! recorded in every service, or write himself into other people's traces.

use std::sync::Arc;

use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue};
use wire::trace_context::{TRACEPARENT, TRACESTATE, TraceParent};

use crate::ids::Ids;

/// Longest user agent that is taken.
const USER_AGENT_BYTES_MAX: usize = 256;
/// Parts of a [`Settings::sample`].
pub const MILLION: u32 = 1_000_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Of a million traces that begin here, how many are recorded.
    pub sample: u32,
    pub trust_parent: TrustParent,
    /// Tell who called: address, user agent, subject.
    pub caller: bool,
}

/// Whether a caller may say which trace his request belongs to, and that it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustParent {
    /// A new trace begins here, and names the caller's as a link.
    Never,
    /// His trace goes on, recorded if he records it.
    Always,
}

/// The span of one request, as far as it is known at its start.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub itself: TraceParent,
    pub parent: Option<[u8; 8]>,
    /// The caller's own trace, which is not believed.
    pub link: Option<TraceParent>,
    pub https: bool,
    /// The pattern of paths under which the service is exposed.
    pub route: Option<Arc<str>>,
    pub user_agent: Option<Box<str>>,
}

impl Span {
    /// The service behind gets this span as its parent; of a trace that begins here nobody upstream has state.
    pub(crate) fn pass_on(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(self.itself.text())) {
            headers.insert(TRACEPARENT, value);
        }
        if self.parent.is_none() {
            headers.remove(TRACESTATE);
        }
    }

    pub(crate) fn memory(&self) -> usize {
        size_of::<Span>() + self.user_agent.as_ref().map_or(0, |text| text.len())
    }
}

impl Settings {
    /// `None` only if the system gives no randomness: then nothing is decided either.
    #[cold]
    pub(crate) fn begin(&self, headers: &HeaderMap, https: bool, ids: &Ids) -> Option<Box<Span>> {
        let told = TraceParent::of(headers);
        let span_id = ids.span().ok()?;
        let believed = told.filter(|_| self.trust_parent == TrustParent::Always);
        let itself = match believed {
            Some(parent) => TraceParent { span_id, ..parent },
            None => {
                let trace_id = ids.trace().ok()?;
                TraceParent { trace_id, span_id, sampled: self.samples(trace_id) }
            }
        };
        Some(Box::new(Span {
            itself,
            parent: believed.map(|parent| parent.span_id),
            link: told.filter(|_| believed.is_none()),
            https,
            route: None,
            user_agent: if self.caller { user_agent(headers) } else { None },
        }))
    }

    /// By the last 56 bits of the id, so that all who sample at the same rate take the same traces (OpenTelemetry's
    /// consistent probability sampling).
    fn samples(&self, trace_id: [u8; 16]) -> bool {
        let random = u128::from_be_bytes(trace_id) & ((1 << 56) - 1);
        let share = u128::from(self.sample.min(MILLION));
        random * u128::from(MILLION) >= (u128::from(MILLION) - share) << 56
    }
}

fn user_agent(headers: &HeaderMap) -> Option<Box<str>> {
    let text = String::from_utf8_lossy(headers.get(USER_AGENT)?.as_bytes()).into_owned();
    let cut = (0..=USER_AGENT_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.get(..cut.unwrap_or(0)).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIMED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn settings(sample: u32, trust_parent: TrustParent) -> Settings {
        Settings { sample, trust_parent, caller: false }
    }

    fn begin(settings: &Settings, parent: Option<&'static str>) -> (Box<Span>, HeaderMap) {
        let mut headers = HeaderMap::new();
        headers.insert(TRACESTATE, HeaderValue::from_static("vendor=1"));
        headers.insert(USER_AGENT, HeaderValue::from_static("curl/8"));
        headers.extend(parent.map(|text| (TRACEPARENT, HeaderValue::from_static(text))));
        let span = settings.begin(&headers, true, &Ids::new()).unwrap();
        span.pass_on(&mut headers);
        (span, headers)
    }

    #[test]
    fn a_strangers_trace_is_named_and_neither_joined_nor_obeyed() {
        for sample in [0, MILLION] {
            let (span, headers) = begin(&settings(sample, TrustParent::Never), Some(CLAIMED));
            let claimed = TraceParent::parse(CLAIMED.as_bytes()).unwrap();
            assert_eq!((span.link, span.parent), (Some(claimed), None));
            assert_ne!(span.itself.trace_id, claimed.trace_id);
            assert_eq!(span.itself.sampled, sample == MILLION, "his flag counts for nothing");
            assert_eq!(headers.get(TRACEPARENT).unwrap().to_str().unwrap(), span.itself.text());
            assert!(!headers.contains_key(TRACESTATE) && span.user_agent.is_none());
        }
    }

    #[test]
    fn a_trusted_callers_trace_goes_on_as_he_records_it() {
        let check = |text: &'static str, sampled| {
            let (span, headers) = begin(&settings(0, TrustParent::Always), Some(text));
            let parent = TraceParent::parse(text.as_bytes()).unwrap();
            assert_eq!((span.itself.trace_id, span.parent), (parent.trace_id, Some(parent.span_id)));
            assert!(span.itself.span_id != parent.span_id && span.link.is_none());
            assert_eq!(span.itself.sampled, sampled);
            assert!(headers.contains_key(TRACESTATE));
        };
        check(CLAIMED, true);
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", false);
        let (span, headers) = begin(&settings(MILLION, TrustParent::Always), Some("00-nonsense"));
        assert!(span.parent.is_none() && span.itself.sampled, "what is malformed is nobody's trace");
        assert!(!headers.contains_key(TRACESTATE));
    }

    #[test]
    fn the_share_that_is_asked_for_is_recorded() {
        let taken = |sample: u32| {
            let settings = settings(sample, TrustParent::Never);
            (0..100_000u64)
                .filter(|at| {
                    let spread =
                        at.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23).wrapping_mul(0xff51_afd7_ed55_8ccd);
                    let id = u128::from(*at) << 64 | u128::from(spread);
                    settings.samples(id.to_be_bytes())
                })
                .count()
        };
        assert_eq!((taken(0), taken(MILLION)), (0, 100_000));
        assert!((9_000..11_000).contains(&taken(MILLION / 10)), "{}", taken(MILLION / 10));
        assert!((50..150).contains(&taken(MILLION / 1000)), "{}", taken(MILLION / 1000));
    }

    #[test]
    fn a_user_agent_is_told_only_if_asked_for_and_is_bounded() {
        let settings = Settings { caller: true, ..settings(MILLION, TrustParent::Never) };
        let of = |bytes: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, HeaderValue::from_bytes(bytes).unwrap());
            settings.begin(&headers, false, &Ids::new()).unwrap().user_agent.unwrap()
        };
        assert_eq!(&*of(b"curl/8"), "curl/8");
        assert_eq!(&*of(b"caf\xe9"), "caf\u{fffd}");
        assert!(of("é".repeat(500).as_bytes()).len() <= USER_AGENT_BYTES_MAX);
    }
}
