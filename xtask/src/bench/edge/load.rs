//! The load: wrk for HTTP/1.1, h2load for HTTP/2 and gRPC. Any answer but 200 is an error, and before a figure is measured its
//! one answer is looked at whole. It measures nothing itself.
use super::figures::{Figure, Load, TWO, Token};
use crate::run::{output, program};
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;

pub(super) const BODY: [u8; 1024] = [b'x'; 1024];
pub(super) const LOAD_CORE: &str = "0";
pub(super) const PROXY_CORE: &str = "1";
pub(super) const BOTH_CORES: &str = "0,1";
const CONNECTIONS: u32 = 48;
/// HTTP/2: as many requests at once as there are connections elsewhere.
const H2_CONNECTIONS: u32 = 12;
const H2_STREAMS: u32 = 4;
const CHECK_LIMIT_S: &str = "10";
const GRPC_FIELDS: [&str; 4] = ["-H", "content-type: application/grpc", "-H", "te: trailers"];

/// What the load needs from the bench's folder.
pub(super) struct Material<'a> {
    pub(super) folder: &'a Path,
    pub(super) token: &'a str,
}

impl Material<'_> {
    fn message(&self) -> String {
        self.folder.join("grpc/bench.Echo/Say.grpc").to_string_lossy().into_owned()
    }

    fn authorization(&self) -> [String; 2] {
        ["-H".to_owned(), format!("Authorization: Bearer {}", self.token)]
    }

    /// Runs wrk and gives the number of answered requests.
    pub(super) fn wrk(&self, figure: &Figure, seconds: u32) -> Result<f64> {
        let cores = if figure.case.key == TWO.key { BOTH_CORES } else { LOAD_CORE };
        let mut wrk = pinned(cores, "wrk", &["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{seconds}s")]);
        match figure.token() {
            Token::None => drop(wrk.arg(figure.url)),
            Token::One => drop(wrk.args(self.authorization()).arg(figure.url)),
            Token::EachNew => {
                wrk.arg("-s").arg(self.folder.join("cold.lua"));
                wrk.args([figure.url, "--"]).arg(self.folder.join("cold.tokens"));
            }
        }
        answered(&output(wrk)?)
    }

    /// Runs h2load and gives the number of answered requests, or of calls.
    pub(super) fn h2load(&self, figure: &Figure, seconds: u32) -> Result<f64> {
        let (connections, streams) = (format!("-c{H2_CONNECTIONS}"), format!("-m{H2_STREAMS}"));
        let mut h2load = pinned(LOAD_CORE, "h2load", &[&connections, &streams, "-D", &seconds.to_string()]);
        if figure.case.load == Load::Grpc {
            h2load.args(GRPC_FIELDS).args(["-d", &self.message()]);
        }
        h2load.arg(figure.url);
        let body_bytes = self.expected(figure)?.len();
        answered_over_h2(&output(h2load)?, u32::try_from(body_bytes)?)
    }

    /// The body every answer must have.
    fn expected(&self, figure: &Figure) -> Result<Vec<u8>> {
        let grpc = figure.case.load == Load::Grpc;
        if grpc { fs::read(self.message()).context("the gRPC message") } else { Ok(BODY.to_vec()) }
    }

    /// One request as the load will send it: 200 and the origin's body, for gRPC with status 0; and where a token is asked for,
    /// a refusal without one.
    pub(super) fn check(&self, figure: &Figure) -> Result<()> {
        let (head, body) = (self.folder.join("check.head"), self.folder.join("check.body"));
        let ask = |more: &[String]| -> Result<String> {
            let mut curl = program("curl", &["-sSk", "--max-time", CHECK_LIMIT_S, "-D"]);
            curl.arg(&head).arg("-o").arg(&body).args(more);
            match figure.case.load {
                Load::Grpc => {
                    curl.arg("--http2-prior-knowledge").args(GRPC_FIELDS);
                    curl.arg("--data-binary").arg(format!("@{}", self.message()));
                }
                Load::Http2 => drop(curl.arg("--http2")),
                _ => drop(curl.arg("--http1.1")),
            }
            curl.arg(figure.url);
            output(curl)?;
            fs::read_to_string(&head).context("no head")
        };
        let asks_for_a_token = figure.token() != Token::None;
        let first = ask(&[])?;
        ensure!(!asks_for_a_token || status(&first) == Some(401), "without a token `{}`", first_line(&first));
        let answer = if asks_for_a_token { ask(&self.authorization())? } else { first };
        ensure!(status(&answer) == Some(200), "`{}` instead of 200", first_line(&answer));
        ensure!(fs::read(&body)? == self.expected(figure)?, "another body than the origin's");
        let over_h2 = answer.starts_with("HTTP/2");
        ensure!(over_h2 == matches!(figure.case.load, Load::Http2 | Load::Grpc), "{}", first_line(&answer));
        let grpc_ok = answer.lines().any(|line| line.eq_ignore_ascii_case("grpc-status: 0"));
        ensure!(figure.case.load != Load::Grpc || grpc_ok, "no `grpc-status: 0` in\n{answer}");
        Ok(())
    }
}

fn pinned(cores: &str, name: &str, arguments: &[&str]) -> Command {
    let mut command = program("taskset", &["-c", cores, name]);
    command.args(arguments);
    command
}

fn first_line(head: &str) -> &str {
    head.lines().next().unwrap_or_default()
}

fn status(head: &str) -> Option<u16> {
    head.split(' ').nth(1)?.trim().parse().ok()
}

/// The count in wrk's report: `  181273 requests in 4.00s, 210.33MB read`.
fn answered(report: &str) -> Result<f64> {
    for bad in ["Non-2xx", "Socket errors"] {
        if let Some(line) = report.lines().find(|line| line.contains(bad)) {
            bail!("{}", line.trim());
        }
    }
    let line = report.lines().find_map(|line| line.trim().split_once(" requests in "));
    line.context("wrk reported no requests")?.0.parse().context("wrk's count")
}

/// The count in h2load's report. Each answer must be 2xx and the bodies together as long as so many should be.
fn answered_over_h2(report: &str, body_bytes: u32) -> Result<f64> {
    let line = |start: &str| report.lines().find(|line| line.starts_with(start)).context("h2load reported no requests");
    let number = |text: &str, what: &str| -> Result<u32> {
        let before = text.split_once(what).with_context(|| format!("no `{what}` in `{text}`"))?.0;
        let digits = before.trim_end_matches([' ', '(', ')']);
        let start = digits.rfind([' ', '(']).map_or(0, |at| at + 1);
        digits.get(start..).unwrap_or_default().parse().with_context(|| format!("`{what}` in `{text}`"))
    };
    let (requests, statuses, traffic) = (line("requests: ")?, line("status codes: ")?, line("traffic: ")?);
    for bad in [" 3xx", " 4xx", " 5xx"] {
        ensure!(number(statuses, bad)? == 0, "{statuses}");
    }
    let good = number(requests, " succeeded")?;
    ensure!(number(requests, " done")? == good && number(requests, " timeout")? == 0 && good > 0, "{requests}");
    // What was under way when time was up is cut, with or without its status and body.
    let most = u64::from(good) + u64::from(H2_CONNECTIONS * H2_STREAMS);
    let counted = (u64::from(good)..=most).contains(&number(statuses, " 2xx")?.into());
    let whole = u64::from(good) * u64::from(body_bytes)..=most * u64::from(body_bytes);
    ensure!(counted && whole.contains(&number(traffic, " data")?.into()), "{requests}; {statuses}; {traffic}");
    Ok(good.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_reports() {
        let check = |report: &str, expected: Option<f64>| assert_eq!(answered(report).ok(), expected, "{report}");
        check("Running 4s test\n  181273 requests in 4.00s, 210.33MB read\nRequests/sec: 1\n", Some(181_273.0));
        check("  10 requests in 4.00s, 2MB read\n  Non-2xx or 3xx responses: 10\n", None);
        check("  10 requests in 4.00s\n  Socket errors: connect 0, read 1, write 0, timeout 0\n", None);
        check("", None);
    }

    #[test]
    fn h2load_reports() {
        let check = |succeeded: u32, codes: &str, data: u32, expected: Option<f64>| {
            let report = format!(
                "finished in 2.03s, 5 req/s\nrequests: 10 total, 12 started, 10 done, {succeeded} succeeded, 0 failed, 0 errored, 0 timeout\n\
                 status codes: {codes}\ntraffic: 6.24MB (6543460) total, 800.09KB (819296) headers (space savings 96.19%), 2.34MB ({data}) data\n"
            );
            assert_eq!(answered_over_h2(&report, 21).ok(), expected, "{report}");
        };
        check(10, "10 2xx, 0 3xx, 0 4xx, 0 5xx", 210, Some(10.0));
        check(10, "10 2xx, 0 3xx, 0 4xx, 0 5xx", 231, Some(10.0));
        check(10, "10 2xx, 0 3xx, 0 4xx, 0 5xx", 189, None);
        check(10, "11 2xx, 0 3xx, 0 4xx, 0 5xx", 210, Some(10.0));
        check(10, "9 2xx, 0 3xx, 0 4xx, 1 5xx", 210, None);
        check(9, "10 2xx, 0 3xx, 0 4xx, 0 5xx", 210, None);
        check(0, "0 2xx, 0 3xx, 0 4xx, 0 5xx", 0, None);
        assert!(answered_over_h2("", 21).is_err());
    }
}
