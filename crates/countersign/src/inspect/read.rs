//! The lenient half: tidies what people paste, and decodes header and payload as far as that goes. Believes nothing.
use super::{Mark, Report, shown};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

/// Accepts any padding and stray trailing bits; the strict reader in `trust` judges them.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);

/// The token within what was pasted, with a note for everything that was taken off.
pub(super) fn clean(input: &str, report: &mut Report) -> String {
    let mut text = input.trim();
    let mut notes: Vec<&str> = Vec::new();
    if let Some(rest) = strip_prefix_any_case(text, "authorization:") {
        text = rest.trim_start();
        notes.push("the field name `Authorization:`");
    }
    for scheme in ["Bearer ", "DPoP "] {
        if let Some(rest) = strip_prefix_any_case(text, scheme) {
            text = rest.trim_start();
            notes.push("the scheme before the token");
        }
    }
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote)) {
            text = inner.trim();
            notes.push("quotes");
        }
    }
    let joined: String = text.split_whitespace().collect();
    if joined.len() != text.len() {
        notes.push("white space inside");
    }
    if !notes.is_empty() {
        report.add("shape", "around it", Mark::Note, format!("taken off: {}", notes.join(", ")));
    }
    joined
}

fn strip_prefix_any_case<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn decode(part: &str) -> Option<Vec<u8>> {
    let url_safe = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
    let standard = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    url_safe.decode(part).or_else(|_| standard.decode(part)).ok()
}

/// Shows the header, and returns it when it is a JSON object.
pub(super) fn header(part: &str, report: &mut Report) -> Option<Map<String, Value>> {
    let object = match decode(part).map(|bytes| serde_json::from_slice(&bytes)) {
        Some(Ok(Value::Object(object))) => object,
        Some(_) => {
            report.add("header", "header", Mark::Wrong, "is no JSON object, so this is no token of a kind we know");
            return None;
        }
        None => {
            report.add("header", "header", Mark::Wrong, "is not base64url, so this is no token of a kind we know");
            return None;
        }
    };
    for (name, value) in &object {
        let known = matches!(name.as_str(), "alg" | "kid" | "typ" | "enc" | "cty" | "x5t" | "x5t#S256");
        match value.as_str() {
            Some(text) if known => report.add("header", name, Mark::Note, shown(text)),
            _ => report.add("header", shown(name), Mark::Note, "is there"),
        }
    }
    Some(object)
}

/// The claims, when the payload is a JSON object; else what it is.
pub(super) fn payload(part: &str, report: &mut Report) -> Option<Map<String, Value>> {
    let what = match decode(part) {
        None => "is not base64url".to_owned(),
        Some(bytes) => match serde_json::from_slice(&bytes) {
            Ok(Value::Object(claims)) => return Some(claims),
            Ok(_) => format!("is JSON but no object ({} bytes): no claims to judge", bytes.len()),
            Err(_) if std::str::from_utf8(&bytes).is_ok() => format!("is a text of {} bytes and no JSON", bytes.len()),
            Err(_) => format!("is binary, {} bytes: no JSON; compressed perhaps (`zip`)", bytes.len()),
        },
    };
    let fix = "; such a signed message is valid in itself, but it is no access token";
    report.add("claims", "payload", Mark::Wrong, format!("{what}{fix}"));
    None
}
