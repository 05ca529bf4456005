//! HTTP/2 conformance from outside: h2spec against the edge, by ALPN: a plaintext
//! port speaks HTTP/1.1 too, and so may answer a broken HTTP/2 preface in HTTP/1.1. Each case that fails is listed in
//! `tests/peers/h2spec/expected.txt` with its reason; a case that fails without being listed, or passes although listed, ends it.
use crate::edge::{Door, Edge, File};
use crate::origin::Origin;
use crate::peers::h2spec_program;
use crate::run::{program, root};
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::BTreeSet;
use std::fs;

const EXPECTED: &str = "tests/peers/h2spec/expected.txt";
const CASES_MIN: usize = 140;

pub(crate) fn check() -> Result<()> {
    let origin = Origin::start("*", "x".repeat(1024))?;
    let service = format!(
        "service: open\nupstream: http://{}\nexpose: {{ host: \"*\", path: /** }}\nrules:\n  - {{ name: all, who: anyone, can: \"* /**\" }}\n",
        origin.address
    );
    let edge = Edge::start("h2spec", Door::Tls, "", &[File { name: "service.yaml", text: service }])?;
    let report = root().join("target/live/h2spec.xml");
    let (host, port) = (edge.address.ip().to_string(), edge.address.port().to_string());
    let mut h2spec = program(h2spec_program(), &["-h", &host, "-p", &port, "-t", "-k", "-S", "-o", "3", "-j"]);
    // Its exit status says that some case failed; which ones is ours to judge.
    drop(h2spec.arg(&report).stdin(std::process::Stdio::null()).output().context("cannot start h2spec")?);
    let (passed, failed) = outcomes(&fs::read_to_string(&report).context("h2spec wrote no report")?);
    let expected = fs::read_to_string(root().join(EXPECTED))?;
    let expected: BTreeSet<String> = expected.lines().filter_map(case_of).collect();
    println!(
        "h2spec: {} passed, {} failed, {} of them expected",
        passed.len(),
        failed.len(),
        failed.intersection(&expected).count()
    );
    ensure!(passed.len() + failed.len() >= CASES_MIN, "only {} cases ran", passed.len() + failed.len());
    let worse: Vec<_> = failed.difference(&expected).map(String::as_str).collect();
    let better: Vec<_> = expected.difference(&failed).map(String::as_str).collect();
    if !worse.is_empty() || !better.is_empty() {
        bail!("now fail: [{}]; no longer fail, take them out of {EXPECTED}: [{}]", worse.join(", "), better.join(", "));
    }
    Ok(())
}

/// `http2/5.1/3: reason` in the list of expected failures.
fn case_of(line: &str) -> Option<String> {
    let case = line.split(':').next()?.trim();
    (!case.is_empty() && !case.starts_with('#')).then(|| case.to_owned())
}

/// Passed and failed cases of h2spec's JUnit report, as `package/number within it`.
fn outcomes(report: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut passed, mut failed) = (BTreeSet::new(), BTreeSet::new());
    let mut counted: (String, usize) = (String::new(), 0);
    for case in report.split("<testcase ").skip(1) {
        let package = attribute(case, "package").unwrap_or_default();
        let number = if counted.0 == package { counted.1 + 1 } else { 1 };
        counted = (package.to_owned(), number);
        let body = case.split("</testcase>").next().unwrap_or_default();
        if body.contains("<skipped") {
            continue;
        }
        let bad = body.contains("<failure") || body.contains("<error");
        if bad { &mut failed } else { &mut passed }.insert(format!("{package}/{number}"));
    }
    (passed, failed)
}

fn attribute<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    element.split_once(&format!("{name}=\""))?.1.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let report = r#"<testsuite><testcase package="http2/5.1" classname="a" time="0"></testcase>
            <testcase package="http2/5.1" classname="b" time="0"><failure>no</failure></testcase>
            <testcase package="hpack/2" classname="c"><skipped></skipped></testcase></testsuite>"#;
        let (passed, failed) = outcomes(report);
        assert_eq!(passed.into_iter().collect::<Vec<_>>(), ["http2/5.1/1"]);
        assert_eq!(failed.into_iter().collect::<Vec<_>>(), ["http2/5.1/2"]);
    }

    #[test]
    fn expected_cases_carry_a_reason() {
        assert_eq!(case_of("http2/5.1/2: the library answers later"), Some("http2/5.1/2".to_owned()));
        assert_eq!(case_of("# a comment"), None);
        assert_eq!(case_of(""), None);
    }
}
