//! Each claim on its own: what it says, and whether that can be right. With an issuer's settings it is compared to them.
//! The edge's verdict is `trust`'s; this says which claim to look at.
use super::clock::{date, length, relative};
use super::{Judge, Mark, Report, shown};
use serde_json::{Map, Value};

type Object = Map<String, Value>;

const SECTION: &str = "claims";
/// Claims with a line of their own; the others are only named.
const EXPLAINED: [&str; 21] = [
    "iss",
    "aud",
    "exp",
    "nbf",
    "iat",
    "sub",
    "azp",
    "client_id",
    "appid",
    "cid",
    "scp",
    "scope",
    "groups",
    "roles",
    "cnf",
    "hasgroups",
    "_claim_names",
    "_claim_sources",
    "act",
    "jti",
    "uti",
];

pub(super) fn explain(header: &Object, claims: &Object, judge: &Judge<'_>, report: &mut Report) {
    report.add(SECTION, "kind", Mark::Note, format!("looks like {}", kind(header, claims)));
    issuer(claims, judge, report);
    audience(claims, judge, report);
    times(claims, judge, report);
    text(claims, "sub", "the stable name of the caller at this issuer", report);
    for name in ["azp", "client_id", "appid", "cid"] {
        if claims.contains_key(name) {
            text(claims, name, "the client it was issued to", report);
        }
    }
    for name in ["scp", "scope", "groups", "roles"] {
        list(claims, name, report);
    }
    overage(claims, report);
    if claims.contains_key("cnf") {
        let what = "bound to a key: refused as a plain bearer token. Send it as `DPoP` with a proof (`jkt`), or over a \
                    connection made with its client certificate (`x5t#S256`)";
        report.add(SECTION, "cnf", Mark::Note, what);
    }
    if claims.contains_key("act") {
        report.add(SECTION, "act", Mark::Note, "an agent acts for the person: both must be allowed");
    }
    let others: Vec<String> =
        claims.keys().filter(|name| !EXPLAINED.contains(&name.as_str())).take(40).map(|name| shown(name)).collect();
    if !others.is_empty() {
        report.add(SECTION, "others", Mark::Note, others.join(", "));
    }
}

/// What it most likely is. A guess for people: whether it is *accepted* as an access token is the edge's verdict.
fn kind(header: &Object, claims: &Object) -> &'static str {
    let typ = header.get("typ").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    let has = |name: &str| claims.contains_key(name);
    let is = |name: &str, value: &str| claims.get(name).and_then(Value::as_str) == Some(value);
    match typ.strip_prefix("application/").unwrap_or(&typ) {
        "at+jwt" => return "an access token (`typ` says so)",
        "txntoken+jwt" => return "a Txn-Token: ours, for services behind the edge; never an access token",
        "logout+jwt" => return "a logout token, not an access token",
        "secevent+jwt" => return "a security event, not an access token",
        "dpop+jwt" => return "a DPoP proof, not an access token",
        _ => {}
    }
    if has("events") {
        "a logout token or security event, not an access token"
    } else if has("htm") || has("htu") {
        "a DPoP proof, not an access token"
    } else if has("tctx") || has("req_wl") {
        "a Txn-Token, not an access token"
    } else if has("at_hash") || has("c_hash") || is("token_use", "id") || is("typ", "ID") {
        "an ID token: it tells a client who signed in and opens nothing. Send the access token instead"
    } else if is("typ", "Refresh") || is("typ", "Offline") {
        "a refresh token: for the issuer only. Send the access token instead"
    } else if has("nonce") && !is("typ", "Bearer") {
        "an ID token (it has a `nonce`). Send the access token instead"
    } else if claims.get("sub").and_then(Value::as_str).is_some_and(|sub| sub.starts_with("spiffe://")) {
        "a JWT-SVID of a workload, not an access token"
    } else if has("sub") && claims.get("sub") == claims.get("iss") {
        "a client assertion, not an access token"
    } else if ["scp", "scope", "azp", "client_id", "cid", "appid"].iter().any(|name| has(name)) {
        "an access token"
    } else {
        "a token of no kind that says so itself"
    }
}

fn issuer(claims: &Object, judge: &Judge<'_>, report: &mut Report) {
    let Some(iss) = claims.get("iss").and_then(Value::as_str) else {
        return report.add(SECTION, "iss", Mark::Wrong, "missing, or no text: nobody says who made this token");
    };
    match judge.profile {
        None => report.add(SECTION, "iss", Mark::Note, shown(iss)),
        Some(profile) if profile.accepts_iss(iss) => {
            report.add(SECTION, "iss", Mark::Good, format!("{} is issuer `{}`", shown(iss), profile.name()));
        }
        Some(profile) => {
            let expected: Vec<String> = profile.issuers().iter().take(4).map(|i| shown(i)).collect();
            let why = profile.near_miss(iss).unwrap_or_else(|| format!("expected {}", expected.join(" or ")));
            report.add(
                SECTION,
                "iss",
                Mark::Wrong,
                format!("{} is not issuer `{}`: {why}", shown(iss), profile.name()),
            );
        }
    }
}

fn audience(claims: &Object, judge: &Judge<'_>, report: &mut Report) {
    let seen = texts(claims.get("aud"));
    let list = seen.iter().take(8).map(|aud| shown(aud)).collect::<Vec<_>>().join(", ");
    let wanted = judge.profile.map(|profile| &profile.settings().audience).filter(|wanted| !wanted.is_empty());
    match wanted {
        _ if seen.is_empty() && claims.contains_key("aud") => {
            report.add(SECTION, "aud", Mark::Wrong, "is neither a text nor a list of texts");
        }
        None if seen.is_empty() => report.add(SECTION, "aud", Mark::Note, "missing: only Cognito does without it"),
        None => report.add(SECTION, "aud", Mark::Note, list),
        Some(wanted) if seen.iter().any(|aud| wanted.iter().any(|w| w == aud)) => {
            report.add(SECTION, "aud", Mark::Good, format!("{list} is ours"));
        }
        Some(wanted) => {
            let wanted = wanted.iter().map(|aud| shown(aud)).collect::<Vec<_>>().join(" or ");
            let seen = if list.is_empty() { "missing".to_owned() } else { list };
            let fix = "the client must ask its issuer for a token for this API, or `audience` must name what it sends";
            report.add(SECTION, "aud", Mark::Wrong, format!("{seen}; needed is {wanted}: {fix}"));
        }
    }
}

fn times(claims: &Object, judge: &Judge<'_>, report: &mut Report) {
    let leeway = judge.profile.map_or(trust::issuer::LEEWAY_DEFAULT_S, |profile| profile.settings().leeway_s);
    let now = judge.now;
    let iat = instant(claims, "iat", report);
    let exp = instant(claims, "exp", report);
    let when = |t: i64| format!("{} ({})", relative(t, now), date(t));
    match iat {
        Some(t) if t.saturating_sub(now) > leeway => {
            let what = format!("issued {}: this clock or the issuer's is wrong", when(t));
            report.add(SECTION, "iat", Mark::Wrong, what);
        }
        Some(t) => report.add(SECTION, "iat", Mark::Good, format!("issued {}", when(t))),
        None => {}
    }
    if let Some(t) = instant(claims, "nbf", report) {
        let (mark, word) =
            if t.saturating_sub(now) > leeway { (Mark::Wrong, "valid only") } else { (Mark::Good, "valid since") };
        report.add(SECTION, "nbf", mark, format!("{word} {}", when(t)));
    }
    match exp {
        Some(t) if now.saturating_sub(t) >= leeway => {
            let life = iat.map(|iat| t.saturating_sub(iat)).filter(|life| *life > 0);
            let life = life.map_or(String::new(), |life| format!("; it lived {}", length(life.unsigned_abs())));
            report.add(SECTION, "exp", Mark::Wrong, format!("expired {}{life}. Get a new one", when(t)));
        }
        Some(t) => report.add(SECTION, "exp", Mark::Good, format!("expires {}", when(t))),
        None if !claims.contains_key("exp") => {
            report.add(SECTION, "exp", Mark::Wrong, "missing: a token that never ends is not accepted");
        }
        None => {}
    }
}

/// A NumericDate; anything else under that name is reported.
fn instant(claims: &Object, name: &str, report: &mut Report) -> Option<i64> {
    let value = claims.get(name)?;
    let whole = value.as_i64().or_else(|| value.as_f64().filter(|f| f.abs() < 1e15).map(|f| f as i64));
    let seconds = whole.filter(|s| (0..=253_402_300_799).contains(s));
    if seconds.is_none() {
        let what = match value {
            Value::String(_) => "is a text; it must be a number of seconds since 1970",
            Value::Number(_) => "is no time between 1970 and 9999; milliseconds instead of seconds?",
            _ => "is no number of seconds since 1970",
        };
        report.add(SECTION, name, Mark::Wrong, what);
    }
    seconds
}

fn text(claims: &Object, name: &str, meaning: &str, report: &mut Report) {
    match claims.get(name) {
        Some(Value::String(value)) => report.add(SECTION, name, Mark::Note, format!("{}, {meaning}", shown(value))),
        Some(_) => report.add(SECTION, name, Mark::Wrong, format!("is no text; it should be {meaning}")),
        None => report.add(SECTION, name, Mark::Wrong, format!("missing: {meaning}")),
    }
}

fn list(claims: &Object, name: &str, report: &mut Report) {
    let Some(value) = claims.get(name) else { return };
    let names: Vec<String> = match value {
        Value::String(words) => words.split_whitespace().map(str::to_owned).collect(),
        other => texts(Some(other)),
    };
    let shown_names: Vec<String> = names.iter().take(12).map(|name| shown(name)).collect();
    let more = names.len().saturating_sub(12);
    let tail = if more == 0 { String::new() } else { format!(" and {more} more") };
    let text = if names.is_empty() { "none".to_owned() } else { format!("{}{tail}", shown_names.join(", ")) };
    report.add(SECTION, name, Mark::Note, text);
}

fn overage(claims: &Object, report: &mut Report) {
    let elsewhere = claims.get("_claim_names").and_then(|names| names.get("groups")).is_some();
    let too_many = claims.get("hasgroups").is_some_and(|has| has != &Value::Bool(false));
    if elsewhere || too_many {
        let what = "not in the token: more groups than it can hold (overage). They count as unknown: rules for a group do \
                    not match, rules against one do. Use app roles, or let the issuer send only assigned groups";
        report.add(SECTION, "groups", Mark::Note, what);
    }
}

fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}
