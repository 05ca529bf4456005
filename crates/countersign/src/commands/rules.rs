//! `countersign rules`: who may do what, read from the rules as written; or the same as Cedar policies.
use super::table::{Cell, Table, Tone};
use super::{counted, refuse};
use crate::cli::RulesArgs;
use crate::config::units::show_duration;
use crate::config::{self, FailingTests, Files, Loaded};
use crate::exit::Exit;
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;
use trust::policy::{RuleSource, ServiceSource};

pub fn run(args: &RulesArgs, files: &dyn Files, out: &mut dyn Write) -> std::io::Result<Exit> {
    let loaded = match config::load_with(&args.config.path, files, FailingTests::AreLeft) {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&problems, args.json, out),
    };
    if let Some(exit) = refuse_unknown(args.service.as_deref(), &loaded, out)? {
        return Ok(exit);
    }
    let wanted = |source: &ServiceSource| args.service.as_deref().is_none_or(|name| name == source.service);
    if args.json {
        let services: Vec<Value> = loaded.sources.iter().filter(|s| wanted(s)).map(service_json).collect();
        writeln!(out, "{:#}", json!({ "ok": true, "services": services }))?;
        return Ok(Exit::Good);
    }
    let pairs = loaded.desired.services.iter().zip(&loaded.sources).filter(|(_, source)| wanted(source));
    for (index, (service, source)) in pairs.enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        if args.cedar {
            writeln!(out, "{}", service.policy.to_cedar().trim_end())?;
        } else {
            write_matrix(source, out)?;
        }
    }
    Ok(Exit::Good)
}

/// A service that is not there must not look like one without rules or tests.
pub(crate) fn refuse_unknown(
    name: Option<&str>,
    loaded: &Loaded,
    out: &mut dyn Write,
) -> std::io::Result<Option<Exit>> {
    let known: Vec<&str> = loaded.sources.iter().map(|source| source.service.as_str()).collect();
    match name {
        Some(name) if !known.contains(&name) => {
            let known = config::decode::listed(&known);
            let name = config::problem::printable(name);
            writeln!(out, "there is no service `{name}`; the files define {known}")?;
            Ok(Some(Exit::Usage))
        }
        _ => Ok(None),
    }
}

fn write_matrix(source: &ServiceSource, out: &mut dyn Write) -> std::io::Result<()> {
    let (rules, never) = (counted(source.rules.len(), "rule"), source.never.len());
    writeln!(out, "\x1b[1m{}\x1b[0m: {rules}, {never} never; everything else is denied", source.service)?;
    let mut table = Table::with_head(&["", "WHO", "FROM", "CAN", "IF", "RULE", "PLACE"]);
    for (rules, mark, tone) in [(&source.never, "never", Tone::Bad), (&source.rules, "allow", Tone::Good)] {
        for rule in rules {
            let mark = if rule.shadow { Cell::new(format!("({mark})"), Tone::Dim) } else { Cell::new(mark, tone) };
            table.row(vec![
                mark,
                rule.who.join(", ").into(),
                if rule.from.is_empty() { "any".into() } else { rule.from.join(", ").into() },
                rule.can.join(", ").into(),
                conditions(rule).join(", ").into(),
                rule.name.as_str().into(),
                Cell::new(format!("{}:{}", rule.place.file, rule.place.line), Tone::Dim),
            ]);
        }
    }
    write!(out, "{}", table.render(2))
}

fn conditions(rule: &RuleSource) -> Vec<String> {
    let mut all = Vec::new();
    if !rule.agent.is_empty() {
        all.push(format!("through agent {}", rule.agent.join(" or ")));
    }
    if rule.hardware_key {
        all.push("hardware key".to_owned());
    } else if rule.passkey {
        all.push("passkey".to_owned());
    }
    if let Some(seconds) = rule.fresh_s {
        all.push(format!("touched within {}", show_duration(Duration::from_secs(seconds))));
    }
    if !rule.acr.is_empty() {
        all.push(format!("authentication context {}", rule.acr.join(" or ")));
    }
    if let Some(when) = &rule.when {
        all.push(when.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    if rule.shadow {
        all.push("shadow: recorded, not enforced".to_owned());
    }
    all
}

fn service_json(source: &ServiceSource) -> Value {
    let one = |rule: &RuleSource| {
        json!({
            "name": rule.name,
            "who": rule.who,
            "from": rule.from,
            "can": rule.can,
            "agent": rule.agent,
            "fresh_s": rule.fresh_s,
            "passkey": rule.passkey,
            "hardware_key": rule.hardware_key,
            "acr": rule.acr,
            "when": rule.when,
            "shadow": rule.shadow,
            "file": rule.place.file,
            "line": rule.place.line,
        })
    };
    json!({
        "service": source.service,
        "rules": source.rules.iter().map(one).collect::<Vec<_>>(),
        "never": source.never.iter().map(one).collect::<Vec<_>>(),
    })
}
