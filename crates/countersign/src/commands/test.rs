//! `countersign test`: runs the `tests:` of the service files and shows each verdict.
use super::table::{Cell, Table, Tone};
use super::{counted, refuse};
use crate::cli::TestArgs;
use crate::config::{self, FailingTests, Files, Loaded};
use crate::exit::Exit;
use serde_json::json;
use std::io::Write;
use trust::policy::TestOutcome;

pub fn run(args: &TestArgs, files: &dyn Files, out: &mut dyn Write) -> std::io::Result<Exit> {
    let loaded = match config::load_with(&args.config.path, files, FailingTests::AreLeft) {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&problems, args.json, out),
    };
    if let Some(exit) = super::rules::refuse_unknown(args.service.as_deref(), &loaded, out)? {
        return Ok(exit);
    }
    let outcomes = outcomes(&loaded, args.service.as_deref());
    let failed = outcomes.iter().filter(|(_, outcome)| !outcome.passed).count();
    if args.json {
        write_json(&outcomes, out)?;
    } else {
        write_table(&outcomes, failed, out)?;
    }
    Ok(if failed == 0 { Exit::Good } else { Exit::Bad })
}

fn outcomes<'l>(loaded: &'l Loaded, only: Option<&str>) -> Vec<(&'l str, TestOutcome)> {
    let services =
        loaded.desired.services.iter().filter(|service| only.is_none_or(|name| name == service.name.as_ref()));
    services.flat_map(|service| service.policy.run_tests().into_iter().map(|o| (service.name.as_ref(), o))).collect()
}

fn place(outcome: &TestOutcome) -> String {
    format!("{}:{}", outcome.place.file, outcome.place.line)
}

fn write_table(outcomes: &[(&str, TestOutcome)], failed: usize, out: &mut dyn Write) -> std::io::Result<()> {
    let mut table = Table::with_head(&["", "SERVICE", "TEST", "EXPECTED", "GOT", "PLACE"]);
    for (service, outcome) in outcomes {
        let (mark, tone) = if outcome.passed { ("ok", Tone::Good) } else { ("FAILED", Tone::Bad) };
        let got_tone = if outcome.passed { Tone::Plain } else { Tone::Bad };
        table.row(vec![
            Cell::new(mark, tone),
            service.into(),
            outcome.title.as_str().into(),
            outcome.expected.as_str().into(),
            Cell::new(&outcome.got, got_tone),
            Cell::new(place(outcome), Tone::Dim),
        ]);
    }
    if outcomes.is_empty() {
        return writeln!(
            out,
            "no tests; add `tests:` to a service file, e.g. `- {{ as: ana@support, try: GET /orders/42, expect: allow }}`"
        );
    }
    write!(out, "{}", table.render(0))?;
    match failed {
        0 => writeln!(out, "\n\x1b[1;32m{} hold\x1b[0m", counted(outcomes.len(), "test")),
        _ => writeln!(
            out,
            "\n\x1b[1;31m{failed} of {} failed\x1b[0m; mend the rule, or the test if it expects too much",
            counted(outcomes.len(), "test")
        ),
    }
}

fn write_json(outcomes: &[(&str, TestOutcome)], out: &mut dyn Write) -> std::io::Result<()> {
    let tests = outcomes.iter().map(|(service, o)| {
        json!({
            "service": service,
            "test": o.title,
            "passed": o.passed,
            "expected": o.expected,
            "got": o.got,
            "file": o.place.file,
            "line": o.place.line,
        })
    });
    let failed = outcomes.iter().filter(|(_, o)| !o.passed).count();
    let document = json!({ "ok": failed == 0, "failed": failed, "tests": tests.collect::<Vec<_>>() });
    writeln!(out, "{document:#}")
}
