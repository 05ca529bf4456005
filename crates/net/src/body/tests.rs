//! Ends, limits and trailers of bodies.
use super::*;
use std::sync::{Arc, Mutex};

fn block_on<T>(future: impl std::future::Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Counts how often and with what the hook ran.
fn watched(body: Body) -> (Body, Arc<Mutex<Vec<BodyEnd>>>) {
    let ends = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&ends);
    (body.on_end(move |end| seen.lock().unwrap().push(end)), ends)
}

fn parts(parts: Vec<Part>) -> Body {
    let (sender, body) = Body::stream(parts.len());
    for part in parts {
        sender.0.try_send(part).ok().unwrap();
    }
    body
}

#[track_caller]
fn check(body: Body, bytes_max: usize, expected: Result<&[u8], BodyError>, end: BodyEnd) {
    let (body, ends) = watched(body);
    let read = block_on(body.read_all(bytes_max));
    assert_eq!(read.as_deref().map_err(|error| *error), expected);
    assert_eq!(*ends.lock().unwrap(), [end]);
}

fn complete(bytes: u64) -> BodyEnd {
    BodyEnd { bytes, end: End::Complete }
}

#[test]
fn bodies_are_read_whole_within_their_limit() {
    check(Body::empty(), 0, Ok(b""), complete(0));
    check(Body::full("hello"), 5, Ok(b"hello"), complete(5));
    let two = || parts(vec![Part::Data("hel".into()), Part::Data("lo".into())]);
    check(two(), 5, Ok(b"hello"), complete(5));
    let failed = |bytes, error| BodyEnd { bytes, end: End::Failed(error) };
    check(two(), 4, Err(BodyError::TooLarge), failed(5, BodyError::TooLarge));
    check(Body::full("hello"), 4, Err(BodyError::TooLarge), failed(0, BodyError::TooLarge));
    check(
        parts(vec![Part::Data("x".into()), Part::Failed(BodyError::Gone)]),
        9,
        Err(BodyError::Gone),
        failed(1, BodyError::Gone),
    );
}

#[test]
fn a1_a_forbidden_trailer_fails_the_body() {
    let mut trailers = HeaderMap::new();
    trailers.insert("txn-token", http::HeaderValue::from_static("x"));
    let body = || parts(vec![Part::Data("x".into()), Part::Trailers(trailers.clone())]);
    check(body(), 9, Ok(b"x"), complete(1));
    check(
        body().guard_trailers(|name| name == "txn-token"),
        9,
        Err(BodyError::ForbiddenTrailer),
        BodyEnd { bytes: 1, end: End::Failed(BodyError::ForbiddenTrailer) },
    );
}

#[test]
fn dropping_a_body_tells_its_end_once() {
    let (body, ends) = watched(Body::full("hello"));
    drop(body);
    assert_eq!(*ends.lock().unwrap(), [BodyEnd { bytes: 0, end: End::Aborted }]);
    let (mut body, ends) = watched(Body::full("hello"));
    body.mark_unsent();
    drop(body);
    assert_eq!(*ends.lock().unwrap(), [complete(0)]);
    let (body, ends) = watched(Body::empty());
    drop(body);
    assert_eq!(*ends.lock().unwrap(), [complete(0)]);
}

#[test]
fn two_hooks_run_in_order() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let (first, second) = (Arc::clone(&order), Arc::clone(&order));
    drop(Body::empty().on_end(move |_| first.lock().unwrap().push(1)).on_end(move |_| second.lock().unwrap().push(2)));
    assert_eq!(*order.lock().unwrap(), [1, 2]);
}

#[test]
fn a_silent_source_stalls() {
    let (_sender, body) = Body::stream(1);
    let read = block_on(body.stall_after(Duration::from_millis(20)).read_all(9));
    assert_eq!(read, Err(BodyError::Stalled));
}

#[test]
fn a_reader_that_left_is_told_to_the_sender() {
    let (mut sender, body) = Body::stream(1);
    drop(body);
    assert_eq!(block_on(sender.send("x")), Err(BodyError::Gone));
}

/// Doubles every byte, drops empty pieces, and moves the trailers into the body.
struct Doubled;

impl Recode for Doubled {
    fn data(&mut self, bytes: Bytes) -> Result<Bytes, BodyError> {
        if bytes.starts_with(b"!") { Err(BodyError::Malformed) } else { Ok([&bytes[..], &bytes[..]].concat().into()) }
    }
    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
        Ok((trailers.map_or_else(Bytes::new, |trailers| format!("{}", trailers.len()).into()), None))
    }
}

#[test]
fn a_body_in_another_form_ends_as_its_first_form_does() {
    let recoded = |of: Vec<Part>| parts(of).recode(Box::new(Doubled));
    let data = |text: &'static str| Part::Data(text.into());
    check(recoded(vec![data("ab"), data(""), data("c")]), 99, Ok(b"ababcc"), complete(6));
    let mut trailers = HeaderMap::new();
    trailers.insert("x-a", http::HeaderValue::from_static("b"));
    check(recoded(vec![data("a"), Part::Trailers(trailers)]), 99, Ok(b"aa1"), complete(3));
    check(recoded(vec![]), 99, Ok(b""), complete(0));
    let failed = |bytes, error| BodyEnd { bytes, end: End::Failed(error) };
    check(recoded(vec![data("a"), data("!")]), 99, Err(BodyError::Malformed), failed(2, BodyError::Malformed));
    let gone = recoded(vec![data("a"), Part::Failed(BodyError::Gone)]);
    check(gone, 99, Err(BodyError::Gone), failed(2, BodyError::Gone));
}

#[test]
fn a_meter_sees_every_byte_and_can_end_the_body() {
    let mut left = 4;
    let meter = Box::new(move |bytes: &[u8]| {
        left -= i32::try_from(bytes.len()).unwrap();
        if left < 0 { Err(BodyError::TooLarge) } else { Ok(()) }
    });
    let body = parts(vec![Part::Data("abc".into()), Part::Data("d".into()), Part::Data("e".into())]).meter(meter);
    let end = BodyEnd { bytes: 5, end: End::Failed(BodyError::TooLarge) };
    check(body, 99, Err(BodyError::TooLarge), end);
}

#[test]
fn a_whole_body_with_trailers_ends_after_them() {
    use http_body::Body as _;
    let trailers =
        HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"))]);
    let (mut body, ends) = watched(Body::full_with_trailers("abc", trailers.clone()));
    assert!(body.len_hint().is_none() && !body.is_end_stream());
    let mut next = || block_on(std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)));
    assert_eq!(next().unwrap().unwrap().into_data().unwrap(), "abc");
    assert_eq!(next().unwrap().unwrap().into_trailers().unwrap(), trailers);
    assert!(next().is_none());
    assert_eq!(*ends.lock().unwrap(), [BodyEnd { bytes: 3, end: End::Complete }]);
}
