//! `countersign keys`: how the key set of every issuer stands in a running process.

use std::io::Write;

use serde_json::Value;

use crate::cli::{KeysArgs, KeysCommand};
use crate::exit::Exit;
use crate::operator::{self, Question};
use crate::text::clean;

pub fn run(args: &KeysArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let folder = operator::find(args.state.as_deref());
    match &args.command {
        Some(KeysCommand::Kill { issuer, kid }) => {
            operator::ask(&folder, &Question::KillKey { issuer: issuer.clone(), kid: kid.clone() })?;
            writeln!(out, "key `{}` of `{}` is refused from now on, also after a restart", clean(kid), clean(issuer))?;
            return Ok(Exit::Good);
        }
        Some(KeysCommand::Refresh { issuer }) => {
            operator::ask(&folder, &Question::RefreshKeys { issuer: issuer.clone() })?;
            writeln!(out, "the keys of `{}` are being fetched: `countersign keys` shows the outcome", clean(issuer))?;
            return Ok(Exit::Good);
        }
        None => {}
    }
    let report = operator::ask(&folder, &Question::Keys)?;
    if args.json {
        writeln!(out, "{report:#}")?;
    } else {
        tell(&report, out)?;
    }
    let has_keys = |issuer: &Value| issuer.get("keys").and_then(Value::as_array).is_some_and(|keys| !keys.is_empty());
    let all = report.get("issuers").and_then(Value::as_array).is_none_or(|issuers| issuers.iter().all(has_keys));
    Ok(if all { Exit::Good } else { Exit::Bad })
}

fn tell(report: &Value, out: &mut dyn Write) -> std::io::Result<()> {
    let text = |value: &Value, name: &str| match value.get(name) {
        Some(Value::String(text)) => clean(text),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    };
    let item = |value: &Value, at: usize| value.get(at).and_then(Value::as_str).map_or_else(|| "-".to_owned(), clean);
    writeln!(out, "epoch {}", text(report, "epoch"))?;
    for issuer in report.get("issuers").and_then(Value::as_array).into_iter().flatten() {
        writeln!(out, "\n\x1b[1m{}\x1b[0m  from {}", text(issuer, "name"), text(issuer, "source"))?;
        for (label, name) in [
            ("key set", "version"),
            ("age (s)", "age_s"),
            ("next refresh in (s)", "next_refresh_s"),
            ("fetches", "fetches"),
            ("last error", "last_error"),
            ("alarm", "alarm"),
        ] {
            if issuer.get(name).is_some_and(|value| !value.is_null()) {
                writeln!(out, "  {label:<20} {}", text(issuer, name))?;
            }
        }
        for key in issuer.get("keys").and_then(Value::as_array).into_iter().flatten() {
            let retired = if key.get("retired").is_some_and(|r| r.as_bool() == Some(true)) {
                "   retired: gone at the issuer"
            } else {
                ""
            };
            writeln!(out, "  {:<20} kid {}  {}{retired}", "key", text(key, "kid"), text(key, "algorithms"))?;
        }
        for left in issuer.get("left_out").and_then(Value::as_array).into_iter().flatten() {
            writeln!(out, "  {:<20} kid {}  {}", "left out", item(left, 0), item(left, 1))?;
        }
    }
    Ok(())
}
