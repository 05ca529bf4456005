//! Messages taken apart again, and answers of collectors that lie. A foreign reader reads them in the binary's tests.
use super::*;
use crate::openmetrics::families;
use proptest::prelude::*;

fn fields_of(message: &[u8]) -> Vec<(u32, Value<'_>)> {
    let mut fields = Fields::of(message);
    let mut found = Vec::new();
    while let Some(field) = fields.next().unwrap() {
        found.push(field);
    }
    found
}

fn bytes_of<'a>(message: &'a [u8], wanted: u32) -> Vec<&'a [u8]> {
    let of = |(number, value): (u32, Value<'a>)| match value {
        Value::Bytes(bytes) if number == wanted => Some(bytes),
        _ => None,
    };
    fields_of(message).into_iter().filter_map(of).collect()
}

fn parent(byte: u8) -> TraceParent {
    TraceParent { trace_id: [byte; 16], span_id: [byte; 8], sampled: true }
}

#[test]
fn a_request_holds_resource_scope_and_spans() {
    let attributes = [("http.request.method", Attribute::Text("GET")), ("n", Attribute::Number(-1))];
    let (start, end) = (1_000, 2_000);
    let span = Span {
        itself: parent(1),
        parent: Some([2; 8]),
        link: Some(parent(3)),
        name: "GET /orders/**",
        start,
        end,
        attributes: &attributes,
        is_error: true,
    };
    let span = span.encode();
    let source = Source { resource: &[("service.name", "edge")], version: "1" };
    let request = export_request(source, &[span.clone(), span.clone()]);
    let [of_resource] = bytes_of(&request, 1)[..] else { panic!("{request:?}") };
    let [of_scope] = bytes_of(of_resource, 2)[..] else { panic!("{request:?}") };
    assert_eq!(bytes_of(of_scope, 2), [&span[..], &span[..]]);
    assert_eq!(bytes_of(&span, 5), [b"GET /orders/**"]);
    assert_eq!(bytes_of(&span, 4), [[2; 8]]);
    assert_eq!(bytes_of(&span, 9).len(), 2);
    assert!(
        fields_of(&span).contains(&(7, Value::Number(1_000))) && fields_of(&span).contains(&(16, Value::Number(0x301)))
    );
}

#[test]
fn histograms_are_bucket_by_bucket_and_silence_is_left_out() {
    let text = "# TYPE h_seconds histogram\nh_seconds_sum{s=\"a\"} 1.5\nh_seconds_count{s=\"a\"} 6\n\
                h_seconds_bucket{le=\"0.5\",s=\"a\"} 1\nh_seconds_bucket{le=\"2.0\",s=\"a\"} 5\nh_seconds_bucket{le=\"+Inf\",s=\"a\"} 6\n\
                h_seconds_sum{s=\"b\"} 0\nh_seconds_count{s=\"b\"} 0\nh_seconds_bucket{le=\"+Inf\",s=\"b\"} 0\n\
                # TYPE c counter\nc_total{r=\"x\"} 0\nc_total{r=\"y\"} 2\n# TYPE g gauge\ng 0\n# EOF\n";
    let found = metric_messages(&families(text), Window { start: 1, now: 2 }, 100);
    assert_eq!(found.iter().map(|metric| bytes_of(metric, 1)[0]).collect::<Vec<_>>(), [&b"h_seconds"[..], b"c", b"g"]);
    let [histogram] = bytes_of(&found[0], 9)[..] else { panic!("no histogram") };
    let [point] = bytes_of(histogram, 1)[..] else { panic!("one point") };
    let counts = [1u64, 4, 1].map(u64::to_le_bytes).concat();
    assert_eq!(bytes_of(point, 6), [&counts[..]]);
    assert_eq!(bytes_of(point, 7), [&[0.5f64, 2.0].map(f64::to_le_bytes).concat()[..]]);
    assert_eq!(bytes_of(&found[0], 3), [b"s"]);
    let [sum] = bytes_of(&found[1], 7)[..] else { panic!("no sum") };
    assert_eq!(bytes_of(sum, 1).len(), 1, "what never counted is left out");
    let many = (0..250).map(|at| format!("g{{n=\"{at}\"}} 1\n")).collect::<String>();
    let found = metric_messages(&families(&format!("# TYPE g gauge\n{many}")), Window { start: 1, now: 2 }, 100);
    assert_eq!(found.len(), 3);
}

#[test]
fn what_a_collector_rejects_is_read() {
    let answer = |count: &[u8], text: &[u8]| {
        let partial = [&[0x08][..], count, &[0x12, text.len() as u8], text].concat();
        [&[0x0a, partial.len() as u8][..], &partial].concat()
    };
    assert_eq!(rejected(b""), (0, None));
    assert_eq!(rejected(&answer(&[7], b"too old")), (7, Some("too old".into())));
    let minus_one = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert_eq!(rejected(&answer(&minus_one, b"")), (0, Some(String::new())));
    assert_eq!(rejected(b"<html>nginx</html>"), (0, None));
}

proptest! {
    #[test]
    fn no_answer_makes_the_reader_panic(bytes: Vec<u8>) {
        let _ = rejected(&bytes);
    }
}
