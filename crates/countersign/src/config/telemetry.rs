//! What a process tells of its requests besides the audit record. As in `platform`, these structs are the documentation;
//! the settings are built from them here. Nothing is told that is not asked for.
use super::decode::{At, Decode, Decoder, Interval, Needed, section, words};
use super::numbers::{HOUR, MINUTE, SECOND, interval};
use super::problem::Span;
use super::settings::Context;
use super::yaml::Node;
use http::HeaderName;
use http::uri::Uri;
use proxy::{access_log, otlp, traces};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

const FIELDS_MAX: usize = 16;
const NAME_BYTES_MAX: usize = 255;
const DEFAULT_NAME: &str = "countersign";

section! {
    /// The access log: one line per answered request, for tools that know web servers' logs. Off unless this is there. It is no audit record: lines may be lost on a disk that fails, which is counted. See docs/telemetry.md. Changing it needs a restart.
    AccessLogSection as "`access_log`" hints [
        ("path", "did you mean `file`?"), ("dir", "did you mean `file`?"),
        ("rotate", "it is rotated from outside: rename the file, then SIGHUP (logrotate)"),
        ("user", "did you mean `subject`?"),
    ] {
        /// The file, relative to this one, or `/dev/stdout`. Made with mode 0640 and opened anew on SIGHUP.
        file: Needed<At<String>>,
        /// `json`: an object per line, with the decision id. `combined`: as nginx and Apache write it. Default `json`.
        format: Option<At<AccessLogFormatWord>>,
        /// Write the query of each request too. Queries often hold tokens and other secrets. Default `false`.
        query: Option<At<bool>>,
        /// Write the subject of whoever is signed in. Default `false`.
        subject: Option<At<bool>>,
    }
}

words! {
    /// How a line of the access log looks.
    AccessLogFormatWord {
        Json = "json",
        Combined = "combined",
    }
}

section! {
    /// Traces and metrics to an OpenTelemetry collector (OTLP over HTTP, protobuf). Off unless this is there. See docs/telemetry.md. Changing it needs a restart.
    TelemetrySection as "`telemetry`" hints [
        ("url", "did you mean `endpoint`?"), ("otlp", "did you mean `endpoint`?"), ("collector", "did you mean `endpoint`?"),
        ("headers", "they belong into a file, because they often hold secrets: `headers_file`"),
        ("protocol", "OTLP over HTTP with protobuf is what is spoken; remove it"),
        ("logs", "the log goes to standard error, and records to `audit` and `access_log`; remove it"),
    ] {
        /// The collector, e.g. `http://127.0.0.1:4318`. `/v1/traces` and `/v1/metrics` are appended.
        endpoint: Needed<At<String>>,
        /// File with header fields for the collector, one `Name: value` per line, relative to this file. Must not be readable by everybody.
        headers_file: Option<At<String>>,
        /// PEM file with the CAs of the collector's certificate, besides those of the system.
        ca_file: Option<At<String>>,
        /// Of one export. Default `10s`; `1s` to `1m`.
        timeout: Option<At<Interval>>,
        /// `service.name` of all that is exported. Default `countersign`.
        service_name: Option<At<String>>,
        /// One span per request. Absent: none, and what callers say of traces goes through untouched.
        traces: Option<TracesSection>,
        /// The series of `/metrics`. Absent: none are sent.
        metrics: Option<TelemetryMetricsSection>,
    }
}

section! {
    /// Spans of requests.
    TracesSection as "`traces`" hints [
        ("ratio", "did you mean `sample`?"), ("sampling", "did you mean `sample`?"), ("sampler", "did you mean `sample`?"),
        ("parent", "did you mean `trust_parent`?"), ("subject", "did you mean `caller`?"),
    ] {
        /// How many of the traces that begin here are recorded. Default `100%`.
        sample: Option<At<Share>>,
        /// Whether a caller's `traceparent` is believed. `never`: a new trace begins here, and links to his. `always`: his goes on, and is recorded if he says so; only where none but programs of yours reach the edge. Default `never`.
        trust_parent: Option<At<TrustParentWord>>,
        /// Tell the collector who called: address, user agent, subject, agent. Default `false`.
        caller: Option<At<bool>>,
    }
}

section! {
    /// Metrics to a collector.
    TelemetryMetricsSection as "`metrics`" hints [("period", "did you mean `interval`?"), ("every", "did you mean `interval`?")] {
        /// How often they are sent. Default `1m`; `5s` to `1h`.
        interval: Option<At<Interval>>,
    }
}

words! {
    /// Is a caller's trace believed?
    TrustParentWord {
        Never = "never",
        Always = "always",
    }
}

/// `10%`, `0.01%`: parts of a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(pub u32);

impl Share {
    fn read(text: &str) -> Option<Share> {
        let number = text.strip_suffix('%')?;
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(part) || whole.len() > 3 || part.len() > 4 {
            return None;
        }
        let parts: u32 = format!("{whole}{part:0<4}").parse().ok()?;
        (parts <= traces::MILLION).then_some(Share(parts))
    }
}

impl Decode for Share {
    fn decode(node: &Node, to: &mut Decoder<'_>) -> Option<Self> {
        let text = String::decode(node, to)?;
        let share = Share::read(&text);
        if share.is_none() {
            let fix = "write a number and `%`, `0%` to `100%`, with up to four decimals: `0.1%`";
            to.report(node.at, format!("`{text}` is no percentage"), fix);
        }
        share
    }
}

impl JsonSchema for Share {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }
    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]{1,3}(\\.[0-9]{1,4})?%$", "examples": ["10%"] })
    }
}

/// `None` if it is not asked for, or had a problem that was reported. `audit` is the other log.
pub fn access_log(
    section: Option<&AccessLogSection>,
    audit: &Path,
    context: &mut Context<'_, '_>,
) -> Option<access_log::Settings> {
    let section = section?;
    let named = section.file.0.as_ref()?;
    let file = context.path(&named.value);
    if file == audit {
        let fix = "name another file: lines between its records would break the chain";
        context.to.report(named.at, format!("`{}` is the audit log", named.value), fix);
        return None;
    }
    Some(access_log::Settings {
        file,
        format: match section.format.as_ref().map(|at| at.value) {
            Some(AccessLogFormatWord::Combined) => access_log::Format::Combined,
            Some(AccessLogFormatWord::Json) | None => access_log::Format::Json,
        },
        query: section.query.as_ref().is_some_and(|at| at.value),
        subject: section.subject.as_ref().is_some_and(|at| at.value),
    })
}

/// `None` if it is not asked for, or had a problem that was reported.
pub fn telemetry(section: Option<&At<TelemetrySection>>, context: &mut Context<'_, '_>) -> Option<Arc<otlp::Settings>> {
    let At { value: section, at } = section?;
    let problems_before = context.to.problems.len();
    if section.traces.is_none() && section.metrics.is_none() {
        let fix = "add `traces: {}`, `metrics: {}` or both";
        context.to.report(*at, "neither `traces` nor `metrics`: nothing would be sent", fix);
    }
    let endpoint = section.endpoint.0.as_ref().and_then(|named| endpoint(named, &mut context.to));
    let fields = section.headers_file.as_ref().map(|named| fields(named, context)).unwrap_or_default();
    if let (Some(named), Some(file), Some(endpoint)) = (&section.endpoint.0, &section.headers_file, &endpoint) {
        warn_of_clear_text(named.at, file, endpoint, &mut context.to);
    }
    let roots_pem = section.ca_file.as_ref().and_then(|named| super::settings::certificates(named, context));
    let timeout = interval(section.timeout.as_ref(), 10 * SECOND, SECOND..=MINUTE, &mut context.to);
    let service_name = service_name(section.service_name.as_ref(), &mut context.to);
    let metrics = section.metrics.as_ref().map(|metrics| every(metrics, &mut context.to));
    let traces = section.traces.as_ref().map(|section| traces::Settings {
        sample: section.sample.as_ref().map_or(traces::MILLION, |at| at.value.0),
        trust_parent: match section.trust_parent.as_ref().map(|at| at.value) {
            Some(TrustParentWord::Always) => traces::TrustParent::Always,
            Some(TrustParentWord::Never) | None => traces::TrustParent::Never,
        },
        caller: section.caller.as_ref().is_some_and(|at| at.value),
    });
    if context.to.problems.iter().skip(problems_before).any(super::Problem::is_error) {
        return None;
    }
    let endpoint = endpoint?;
    Some(Arc::new(otlp::Settings { endpoint, fields, roots_pem, timeout, service_name, traces, metrics }))
}

fn every(section: &TelemetryMetricsSection, to: &mut Decoder<'_>) -> Duration {
    interval(section.interval.as_ref(), MINUTE, 5 * SECOND..=HOUR, to)
}

/// Without the slash at its end.
fn endpoint(named: &At<String>, to: &mut Decoder<'_>) -> Option<String> {
    let text = named.value.trim_end_matches('/');
    let problem = match text.parse::<Uri>() {
        Ok(uri) if !matches!(uri.scheme_str(), Some("http" | "https")) => "is no http or https URL",
        Ok(uri) if uri.authority().is_none_or(|place| place.as_str().contains('@') || place.host().is_empty()) => {
            "names a user, or no host"
        }
        Ok(uri) if uri.query().is_some() || text.contains('#') => "holds a query or a fragment",
        Ok(uri) if uri.path().ends_with("/v1/traces") || uri.path().ends_with("/v1/metrics") => {
            "names one kind of data; the path is appended to it"
        }
        Ok(_) => return Some(text.to_owned()),
        Err(_) => "is no URL",
    };
    to.report(named.at, format!("`{}` {problem}", named.value), "write it as `http://127.0.0.1:4318`");
    None
}

/// `Name: value` per line; empty lines are passed over.
fn fields(named: &At<String>, context: &mut Context<'_, '_>) -> Vec<otlp::SecretField> {
    let Some(bytes) = context.read(named, true).map(Zeroizing::new) else { return Vec::new() };
    let mut found = Vec::new();
    let text = std::str::from_utf8(&bytes).unwrap_or("not text");
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match field(line) {
            Some(field) if found.len() < FIELDS_MAX => found.push(field),
            // What stands there may be a secret, and is not repeated.
            _ => {
                let what = format!("line {} of `{}` is no header field for a collector", at + 1, named.value);
                let fix = format!(
                    "write `Name: value`, at most {FIELDS_MAX} of them, and none of the body's or the connection's"
                );
                context.to.report(named.at, what, fix);
                break;
            }
        }
    }
    found
}

fn field(line: &str) -> Option<otlp::SecretField> {
    let (name, value) = line.split_once(':')?;
    let name: HeaderName = name.trim().parse().ok()?;
    let ours = ["accept", "connection", "content-length", "content-type", "host", "transfer-encoding", "user-agent"];
    let value = Zeroizing::new(value.trim().to_owned());
    let is_good = http::HeaderValue::from_str(&value).is_ok() && !value.is_empty();
    (is_good && !ours.contains(&name.as_str())).then_some((name, value))
}

fn warn_of_clear_text(at: Span, file: &At<String>, endpoint: &str, to: &mut Decoder<'_>) {
    let host = endpoint.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    let is_here = host == "localhost" || host == "[::1]" || host.starts_with("127.");
    if endpoint.starts_with("http://") && !is_here {
        let what = format!("what `{}` holds would go to `{host}` in clear text", file.value);
        to.problems.push(to.source.problem(at, what, "use https").warning());
    }
}

fn service_name(named: Option<&At<String>>, to: &mut Decoder<'_>) -> String {
    let Some(At { value, at }) = named else { return DEFAULT_NAME.to_owned() };
    if value.is_empty() || value.len() > NAME_BYTES_MAX || value.chars().any(char::is_control) {
        to.report(*at, "this is no name", format!("write 1 to {NAME_BYTES_MAX} characters"));
    }
    value.clone()
}
