//! The Autobahn testsuite for WebSocket, through the edge and past it: what passes is not looked at, so no case may end worse
//! through the edge than it does at the same echo server without. It judges no server but by that.
use crate::edge::{Door, Edge, File};
use crate::peers::python2::wstest;
use crate::report::Report;
use crate::run::{must, root};
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Framing, pings, reserved bits, opcodes, fragments, UTF-8, closing; the ones that take seconds.
const QUICK: [&str; 8] = ["1", "2", "3", "4", "5", "6", "7", "10"];
/// Large messages and compression: a thousand messages of up to 128 KiB in each of 216 cases, which the suite compresses,
/// masks and cuts into as many as 512 frames, in Python, at both ends.
const SLOW: [&str; 3] = ["9", "12", "13"];
const START_LIMIT: Duration = Duration::from_secs(60);
const CASES_MIN: usize = 240;

struct Echo(Child);

impl Drop for Echo {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// `all`: the slow groups, too. `chosen`: these cases alone.
pub(crate) fn check(all: bool, chosen: &[String]) -> Result<()> {
    let groups = QUICK.into_iter().chain(SLOW.into_iter().filter(|_| all)).map(|group| format!("{group}.*"));
    let (cases, at_least) =
        if chosen.is_empty() { (groups.collect(), CASES_MIN) } else { (chosen.to_vec(), chosen.len()) };
    crate::peers::python2::install()?;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let echo = wstest(&["-m", "testeeserver", "-w", &format!("ws://127.0.0.1:{port}"), "-u", "0"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the echo server")?;
    let _echo = Echo(echo);
    let deadline = Instant::now() + START_LIMIT;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        ensure!(Instant::now() < deadline, "the echo server did not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    let service = format!(
        "service: open\nupstream: http://127.0.0.1:{port}\nexpose: {{ host: \"*\", path: /** }}\nrules:\n  - {{ name: all, who: anyone, can: \"GET /**\" }}\n"
    );
    let edge = Edge::start("autobahn", Door::Plain, "", &[File { name: "service.yaml", text: service }])?;
    let folder = root().join("target/autobahn");
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder)?;
    let spec = serde_json::json!({
        "outdir": folder.join("reports"),
        "servers": [
            { "agent": "direct", "url": format!("ws://127.0.0.1:{port}") },
            { "agent": "edge", "url": format!("ws://{}", edge.address) },
        ],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    let file = folder.join("spec.json");
    fs::write(&file, spec.to_string())?;
    let mut fuzz = wstest(&["-m", "fuzzingclient", "-s"]);
    fuzz.arg(&file).current_dir(&folder).stdin(Stdio::null()).stdout(fs::File::create(folder.join("log.txt"))?);
    must(fuzz)?;
    judge(at_least, &folder.join("reports/index.json"))
}

type Outcomes = BTreeMap<String, (u8, String)>;

fn judge(at_least: usize, index: &Path) -> Result<()> {
    let text = fs::read_to_string(index).context("the testsuite wrote no report")?;
    let (direct, edge) = (outcomes(&text, "direct")?, outcomes(&text, "edge")?);
    ensure!(direct.len() >= at_least && direct.len() == edge.len(), "only {} cases ran", edge.len());
    let mut report = Report::new("autobahn");
    for (subject, all) in [("direct", &direct), ("edge", &edge)] {
        for ((group, outcome), count) in counts(all) {
            report.add(&format!("group {group}, {outcome}"), subject, "cases", &[f64::from(count)]);
        }
    }
    let is_worse = |case: &str, rank: u8| direct.get(case).is_none_or(|(best, _)| rank > *best);
    let worse = edge.iter().filter(|(case, (rank, _))| is_worse(case, *rank));
    let worse: Vec<String> = worse.map(|(case, (_, words))| format!("{case} {words}")).collect();
    report.add("worse than direct", "edge", "cases", &[worse.len() as f64]);
    report.limit("worse than direct", "edge", 0.0);
    report.publish()?;
    ensure!(worse.is_empty(), "worse through the edge: {}; see {}", worse.join(", "), index.display());
    Ok(())
}

/// How many cases of each group ended how.
fn counts(all: &Outcomes) -> BTreeMap<(u32, &str), u32> {
    let mut counts = BTreeMap::new();
    for (case, (_, words)) in all {
        let group = case.split('.').next().and_then(|group| group.parse().ok()).unwrap_or_default();
        *counts.entry((group, words.as_str())).or_default() += 1;
    }
    counts
}

const FAILED: u8 = 4;

/// Case to how well it ended, best first, and in the suite's words.
fn outcomes(index: &str, agent: &str) -> Result<Outcomes> {
    let index: serde_json::Value = serde_json::from_str(index)?;
    let cases = index.get(agent).and_then(serde_json::Value::as_object).context("an agent is missing")?;
    let of = |case: &serde_json::Value, field: &str| {
        case.get(field).and_then(serde_json::Value::as_str).unwrap_or("?").to_owned()
    };
    let told = cases.iter().map(|(name, case)| {
        let (behavior, close) = (of(case, "behavior"), of(case, "behaviorClose"));
        (name.clone(), (rank(&behavior).max(rank(&close)), format!("{behavior}/{close}")))
    });
    Ok(told.collect())
}

fn rank(behavior: &str) -> u8 {
    match behavior {
        "OK" => 0,
        "INFORMATIONAL" => 1,
        "NON-STRICT" => 2,
        "UNIMPLEMENTED" => 3,
        _ => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_as_bad_as_its_worse_half() {
        let index = r#"{"edge":{"1.1.1":{"behavior":"OK","behaviorClose":"OK"},"7.1":{"behavior":"OK","behaviorClose":"FAILED"},
            "6.4":{"behavior":"NON-STRICT","behaviorClose":"OK"}}}"#;
        let ranks: Vec<u8> = outcomes(index, "edge").unwrap().into_values().map(|(rank, _)| rank).collect();
        assert_eq!(ranks, [0, 2, FAILED]);
        assert!(outcomes(index, "direct").is_err());
    }

    #[test]
    fn outcomes_are_counted_by_group() {
        let index = r#"{"edge":{"12.1.1":{"behavior":"OK","behaviorClose":"OK"},"12.1.10":{"behavior":"OK","behaviorClose":"OK"},
            "6.4":{"behavior":"OK","behaviorClose":"OK"},"12.2.1":{"behavior":"UNIMPLEMENTED","behaviorClose":"OK"}}}"#;
        let outcomes = outcomes(index, "edge").unwrap();
        let counted: Vec<_> = counts(&outcomes).into_iter().collect();
        assert_eq!(counted, [((6, "OK/OK"), 1), ((12, "OK/OK"), 2), ((12, "UNIMPLEMENTED/OK"), 1)]);
    }
}
