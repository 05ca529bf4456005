//! Latency at a fixed rate: each connection has its times to send, and an answer that comes late makes the next request late,
//! which counts (no coordinated omission). Only what the client itself overslept does not. It speaks plain HTTP/1.1 to loopback.
use anyhow::{Context as _, Result, bail, ensure};
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const CONNECTIONS: u32 = 16;
const REQUESTS_PER_S: u32 = 4000;
const WAIT: Duration = Duration::from_secs(5);
const HEAD_LINES_MAX: usize = 100;

/// `seconds` of load: the number of requests, and the 99th percentile of their latency in µs.
pub(super) fn run(port: u16, path: &str, body: &[u8], seconds: u32) -> Result<(f64, f64)> {
    let interval = Duration::from_secs(1) * CONNECTIONS / REQUESTS_PER_S;
    let count = seconds * REQUESTS_PER_S / CONNECTIONS;
    let begin = Instant::now() + Duration::from_millis(100);
    let each = |number: u32| {
        let first = begin + interval * number / CONNECTIONS;
        move || latencies(port, path, body, first, interval, count)
    };
    let mut all: Vec<Duration> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..CONNECTIONS).map(|number| scope.spawn(each(number))).collect();
        let ended =
            running.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?);
        Ok::<_, anyhow::Error>(ended.collect::<Result<Vec<_>>>()?.concat())
    })?;
    let p99 = percentile(&mut all, 99).context("no request was sent")?;
    Ok((f64::from(u32::try_from(all.len())?), p99.as_secs_f64() * 1e6))
}

/// One connection's part.
fn latencies(
    port: u16,
    path: &str,
    body: &[u8],
    first: Instant,
    interval: Duration,
    count: u32,
) -> Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(WAIT))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    let mut latencies = Vec::new();
    for number in 0..count {
        let due = first + interval * number;
        let early = due.saturating_duration_since(Instant::now());
        let from = if early.is_zero() {
            due
        } else {
            std::thread::sleep(early);
            Instant::now()
        };
        stream.write_all(request.as_bytes())?;
        read_answer(&mut answers, body)?;
        latencies.push(from.elapsed());
    }
    Ok(latencies)
}

/// Reads one answer, which must be 200 with this very body.
fn read_answer(answers: &mut impl BufRead, expected: &[u8]) -> Result<()> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    if line.split(' ').nth(1) != Some("200") {
        bail!("`{}` instead of 200", line.trim_end());
    }
    let mut length = None;
    for _ in 0..HEAD_LINES_MAX {
        line.clear();
        answers.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<usize>().ok();
        }
    }
    ensure!(length == Some(expected.len()), "a body of {length:?} bytes instead of {}", expected.len());
    let mut body = vec![0; expected.len()];
    answers.read_exact(&mut body)?;
    ensure!(body == expected, "another body than the origin's");
    Ok(())
}

/// The smallest value that `percent` of all do not exceed.
fn percentile(values: &mut [Duration], percent: usize) -> Option<Duration> {
    values.sort_unstable();
    values.get((values.len() * percent).div_ceil(100).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let check = |count: u64, expected: Option<u64>| {
            let mut values: Vec<Duration> = (1..=count).rev().map(Duration::from_micros).collect();
            assert_eq!(percentile(&mut values, 99), expected.map(Duration::from_micros), "{count}");
        };
        check(0, None);
        check(1, Some(1));
        check(100, Some(99));
        check(16_000, Some(15_840));
    }

    #[test]
    fn only_200_with_the_body_is_an_answer() {
        let check =
            |answer: &str, good: bool| assert_eq!(read_answer(&mut answer.as_bytes(), b"xx").is_ok(), good, "{answer}");
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nxx", true);
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nxy", false);
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nxxx", false);
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx", false);
        check("HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nxx", false);
        check("", false);
    }
}
