//! What the edge does for gRPC besides forwarding: the caller's deadline in the place of our timeouts, a bound for each
//! message in the place of one for the body, and gRPC-Web put into gRPC and back. It never reads a message.
//!
//! Silence means nothing on a stream, so it is not a stall: what ends a dead one is the PING of HTTP/2 on both sides.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue};
use net::upstream::Patience;
use net::{Body, BodyError, Recode, Request, Response};
use trust::reason::Reason;
use wire::grpc::{self, Kind, MessageMeter, TextDecoder};

use crate::judge::Stop;
use crate::view::Served;

/// A call without a deadline of its own gets its answer's head within this.
const CALL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// What is left to the upstream to say itself that the deadline passed.
const DEADLINE_GRACE: Duration = Duration::from_millis(250);

pub(super) fn prepare(request: &mut Request, kind: Kind, served: &Served) -> Result<(), Stop> {
    // A content type alone must not lift the limits of a service that takes no streams.
    if served.service.upstream.as_ref().is_some_and(|upstream| upstream.protocol != feed::Protocol::Grpc) {
        return Err(Stop::new(
            Reason::UpstreamProtocol,
            "this service was not said to take gRPC: set `upstream: { url: …, protocol: grpc }`",
        ));
    }
    let deadline =
        grpc::timeout(request.headers()).map_err(|error| Stop::new(Reason::RequestMalformed, error.to_string()))?;
    let patience = deadline.map_or(CALL_MAX, |deadline| deadline.min(CALL_MAX) + DEADLINE_GRACE);
    request.extensions_mut().insert(Patience(patience));
    let mut meter = MessageMeter::new(served.service.body_bytes_max);
    let decoder = (kind == Kind::WebText).then(|| Box::new(FromText(TextDecoder::default())));
    let body = std::mem::replace(request.body_mut(), Body::empty()).never_stall();
    let body = if let Some(decoder) = decoder { body.recode(decoder) } else { body };
    let body = body.meter(Box::new(move |bytes| meter.feed(bytes).map_err(|_| BodyError::TooLarge)));
    *request.body_mut() = body;
    if kind != Kind::Grpc {
        let headers = request.headers_mut();
        rename(headers, Kind::Grpc);
        headers.insert(TE, HeaderValue::from_static("trailers"));
        // Of the text, not of the messages in it.
        headers.remove(CONTENT_LENGTH);
    }
    Ok(())
}

/// An answer that is no gRPC (a proxy behind us, a page of the upstream's) goes on as it is.
pub(super) fn answered(mut response: Response, kind: Kind) -> Response {
    if kind == Kind::Grpc || grpc::kind(response.headers()) != Some(Kind::Grpc) {
        return response;
    }
    rename(response.headers_mut(), kind);
    response.headers_mut().remove(CONTENT_LENGTH);
    response.map(|body| body.recode(Box::new(ToWeb { text: kind == Kind::WebText })))
}

fn rename(headers: &mut HeaderMap, kind: Kind) {
    if let Some(renamed) = headers.get(CONTENT_TYPE).and_then(|value| grpc::content_type(value, kind)) {
        headers.insert(CONTENT_TYPE, renamed);
    }
}

/// The body of a gRPC-Web-Text request.
struct FromText(TextDecoder);

impl Recode for FromText {
    fn data(&mut self, bytes: Bytes) -> Result<Bytes, BodyError> {
        self.0.feed(&bytes).map(Bytes::from).map_err(|_| BodyError::Malformed)
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
        self.0.end().map_err(|_| BodyError::Malformed)?;
        Ok((Bytes::new(), trailers))
    }
}

/// The body of an answer to gRPC-Web: browsers cannot read trailers, so they become its last frame.
struct ToWeb {
    text: bool,
}

impl ToWeb {
    fn form(&self, bytes: Bytes) -> Bytes {
        if self.text { grpc::text_encoded(&bytes).into() } else { bytes }
    }
}

impl Recode for ToWeb {
    fn data(&mut self, bytes: Bytes) -> Result<Bytes, BodyError> {
        Ok(self.form(bytes))
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
        // None: all was said in the head.
        let last = trailers.map(|trailers| grpc::web_trailers(&trailers)).unwrap_or_default();
        Ok((self.form(last.into()), None))
    }
}
