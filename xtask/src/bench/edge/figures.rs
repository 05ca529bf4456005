//! What `bench edge` measures: the cases, who is asked in each, the processes behind them, and what the project promises.
//! It is a table; nothing here runs.
use crate::report::Report;

pub(super) const OURS: &str = "countersign";
pub(super) const ORIGIN_PORT: u16 = 19080;
pub(super) const MTLS_ORIGIN_PORT: u16 = 19081;
pub(super) const GRPC_ORIGIN_PORT: u16 = 19082;
pub(super) const ECHO_ORIGIN_PORT: u16 = 19083;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    None,
    One,
    /// A fresh one for every request, to a proxy that was just started.
    EachNew,
}

/// What the load does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// HTTP/1.1 requests as fast as they are answered.
    Requests(Token),
    /// The same over HTTP/2, several at once on a connection.
    Http2,
    /// Unary gRPC calls over HTTP/2 without TLS.
    Grpc,
    /// WebSocket messages, the next one when the last came back.
    Messages,
    /// HTTP/1.1 requests at a fixed rate: their latency is the figure, not CPU time.
    FixedRate,
}

pub(super) struct Case {
    /// What `--cases` calls it.
    pub(super) key: &'static str,
    pub(super) title: &'static str,
    pub(super) load: Load,
}

const fn case(key: &'static str, title: &'static str, load: Load) -> Case {
    Case { key, title, load }
}

pub(super) const PLAIN: Case = case("plain", "plain HTTP/1.1", Load::Requests(Token::None));
const LOGGED: Case = case("logged", "plain, every request logged", Load::Requests(Token::None));
pub(super) const TWO: Case = case("two", "plain, two threads", Load::Requests(Token::None));
const LATENCY: Case = case("latency", "p99 latency at 4,000 requests/s", Load::FixedRate);
pub(super) const TLS: Case = case("tls", "TLS 1.3", Load::Requests(Token::None));
const HTTP2: Case = case("http2", "HTTP/2 over TLS 1.3", Load::Http2);
const MTLS: Case = case("mtls", "mTLS to the upstream", Load::Requests(Token::None));
pub(super) const GRPC: Case = case("grpc", "gRPC, unary", Load::Grpc);
const WEBSOCKET: Case = case("websocket", "WebSocket echo", Load::Messages);
const ONE: Case = case("token", "ES256, one token", Load::Requests(Token::One));
const COLD: Case = case("tokens", "ES256, every token new", Load::Requests(Token::EachNew));
const FULL: Case = case("rules", "identity-aware, 30 rules", Load::Requests(Token::One));
const ASKED: Case = case("asked", "nginx asks an authorizer", Load::Requests(Token::One));
const ASKS: Case = case("envoy-asks", "Envoy asks an authorizer", Load::Requests(Token::One));

/// Memory has rows of its own, which are no figures of a round.
pub(super) const MEMORY: &str = "memory";

/// What `--cases` takes.
pub(super) const CASES: [&str; 15] = [
    PLAIN.key,
    LOGGED.key,
    TWO.key,
    LATENCY.key,
    TLS.key,
    HTTP2.key,
    MTLS.key,
    GRPC.key,
    WEBSOCKET.key,
    ONE.key,
    COLD.key,
    FULL.key,
    ASKED.key,
    ASKS.key,
    MEMORY,
];

/// What `--only` takes.
pub(super) const SUBJECTS: [&str; 4] = ["nginx", "haproxy", "envoy", OURS];

/// One figure: a case, whom it is about, the processes whose CPU time counts, and what is asked of them.
pub(super) struct Figure {
    pub(super) case: Case,
    pub(super) subject: &'static str,
    pub(super) processes: &'static [&'static str],
    pub(super) url: &'static str,
}

impl Figure {
    pub(super) fn token(&self) -> Token {
        if let Load::Requests(token) = self.case.load { token } else { Token::None }
    }

    pub(super) fn unit(&self) -> &'static str {
        match self.case.load {
            Load::Requests(_) | Load::Http2 => "µs CPU/request",
            Load::Grpc => "µs CPU/call",
            Load::Messages => "µs CPU/message",
            Load::FixedRate => "µs",
        }
    }

    /// The address's port, and the path.
    pub(super) fn port_and_path(&self) -> Option<(u16, &'static str)> {
        let (_, rest) = self.url.split_once("127.0.0.1:")?;
        let (port, path) = rest.split_at_checked(rest.find('/')?)?;
        Some((port.parse().ok()?, path))
    }
}

const fn figure(case: Case, subject: &'static str, processes: &'static [&'static str], url: &'static str) -> Figure {
    Figure { case, subject, processes, url }
}

/// In each case nginx first and us last, as far as they are in it.
pub(super) const FIGURES: [Figure; 46] = [
    figure(PLAIN, "nginx", &["nginx"], "http://127.0.0.1:19101/open/42"),
    figure(PLAIN, "haproxy", &["haproxy"], "http://127.0.0.1:19201/open/42"),
    figure(PLAIN, "envoy", &["envoy"], "http://127.0.0.1:19301/open/42"),
    figure(PLAIN, OURS, &[OURS], "http://127.0.0.1:19401/open/42"),
    figure(LOGGED, "nginx", &["nginx"], "http://127.0.0.1:19103/open/42"),
    figure(LOGGED, OURS, &[OURS], "http://127.0.0.1:19401/open/42"),
    figure(TWO, "nginx", &["nginx-two"], "http://127.0.0.1:19111/open/42"),
    figure(TWO, "haproxy", &["haproxy-two"], "http://127.0.0.1:19211/open/42"),
    figure(TWO, "envoy", &["envoy-two"], "http://127.0.0.1:19311/open/42"),
    figure(TWO, OURS, &["countersign-two"], "http://127.0.0.1:19411/open/42"),
    figure(LATENCY, "nginx", &["nginx"], "http://127.0.0.1:19101/open/42"),
    figure(LATENCY, "haproxy", &["haproxy"], "http://127.0.0.1:19201/open/42"),
    figure(LATENCY, "envoy", &["envoy"], "http://127.0.0.1:19301/open/42"),
    figure(LATENCY, OURS, &[OURS], "http://127.0.0.1:19401/open/42"),
    figure(TLS, "nginx", &["nginx"], "https://127.0.0.1:19102/open/42"),
    figure(TLS, "haproxy", &["haproxy"], "https://127.0.0.1:19202/open/42"),
    figure(TLS, "envoy", &["envoy"], "https://127.0.0.1:19302/open/42"),
    figure(TLS, OURS, &["countersign-tls"], "https://127.0.0.1:19402/open/42"),
    figure(HTTP2, "nginx", &["nginx"], "https://127.0.0.1:19102/open/42"),
    figure(HTTP2, "haproxy", &["haproxy"], "https://127.0.0.1:19202/open/42"),
    figure(HTTP2, "envoy", &["envoy"], "https://127.0.0.1:19302/open/42"),
    figure(HTTP2, OURS, &["countersign-tls"], "https://127.0.0.1:19402/open/42"),
    figure(MTLS, "nginx", &["nginx"], "http://127.0.0.1:19106/mtls/42"),
    figure(MTLS, "haproxy", &["haproxy"], "http://127.0.0.1:19206/mtls/42"),
    figure(MTLS, "envoy", &["envoy"], "http://127.0.0.1:19307/mtls/42"),
    figure(MTLS, OURS, &[OURS], "http://127.0.0.1:19401/mtls/42"),
    figure(GRPC, "nginx", &["nginx"], "http://127.0.0.1:19104/bench.Echo/Say.grpc"),
    figure(GRPC, "haproxy", &["haproxy"], "http://127.0.0.1:19204/bench.Echo/Say.grpc"),
    figure(GRPC, "envoy", &["envoy"], "http://127.0.0.1:19305/bench.Echo/Say.grpc"),
    figure(GRPC, OURS, &[OURS], "http://127.0.0.1:19401/bench.Echo/Say.grpc"),
    figure(WEBSOCKET, "nginx", &["nginx"], "http://127.0.0.1:19105/echo/42"),
    figure(WEBSOCKET, "haproxy", &["haproxy"], "http://127.0.0.1:19205/echo/42"),
    figure(WEBSOCKET, "envoy", &["envoy"], "http://127.0.0.1:19306/echo/42"),
    figure(WEBSOCKET, OURS, &[OURS], "http://127.0.0.1:19401/echo/42"),
    figure(ONE, "haproxy", &["haproxy"], "http://127.0.0.1:19203/signed-in/42"),
    figure(ONE, "envoy", &["envoy"], "http://127.0.0.1:19303/signed-in/42"),
    figure(ONE, OURS, &[OURS], "http://127.0.0.1:19401/signed-in/42"),
    figure(COLD, "haproxy", &["haproxy"], "http://127.0.0.1:19203/signed-in/42"),
    figure(COLD, "envoy", &["envoy"], "http://127.0.0.1:19303/signed-in/42"),
    figure(COLD, OURS, &[OURS], "http://127.0.0.1:19401/signed-in/42"),
    figure(FULL, "envoy", &["envoy"], "http://127.0.0.1:19304/area-15/42"),
    figure(FULL, OURS, &[OURS], "http://127.0.0.1:19401/area-15/42"),
    figure(ASKED, "haproxy", &["nginx", "haproxy"], "http://127.0.0.1:19109/area-15/42"),
    figure(ASKED, "envoy", &["nginx", "envoy"], "http://127.0.0.1:19108/area-15/42"),
    figure(ASKED, OURS, &["nginx", "countersign-asked-by-nginx"], "http://127.0.0.1:19107/area-15/42"),
    figure(ASKS, OURS, &["envoy", "countersign-asked-by-envoy"], "http://127.0.0.1:19309/area-15/42"),
];

/// A program under measurement: its name here (its configuration's name, too), its ports, and on how many cores.
pub(super) struct Process {
    pub(super) name: &'static str,
    pub(super) ports: &'static [u16],
    pub(super) workers: u8,
}

const fn process(name: &'static str, ports: &'static [u16], workers: u8) -> Process {
    Process { name, ports, workers }
}

pub(super) const PROCESSES: [Process; 11] = [
    process("nginx", &[19101, 19102, 19103, 19104, 19105, 19106, 19107, 19108, 19109], 1),
    process("nginx-two", &[19111], 2),
    process("haproxy", &[19201, 19202, 19203, 19204, 19205, 19206, 19208], 1),
    process("haproxy-two", &[19211], 2),
    process("envoy", &[19301, 19302, 19303, 19304, 19305, 19306, 19307, 19308, 19309], 1),
    process("envoy-two", &[19311], 2),
    process(OURS, &[19401], 1),
    process("countersign-tls", &[19402], 1),
    process("countersign-two", &[19411], 2),
    process("countersign-asked-by-nginx", &[19421], 1),
    process("countersign-asked-by-envoy", &[19422], 1),
];

/// What the project promises (`docs/performance.md`).
pub(super) fn targets(report: &mut Report) {
    let mut ratio = |ours: &Case, other: &str, theirs: &Case, target: Option<f64>| {
        report.compare((ours.title, OURS), (theirs.title, other), target);
    };
    ratio(&PLAIN, "nginx", &PLAIN, Some(1.15));
    ratio(&LOGGED, "nginx", &LOGGED, None);
    ratio(&TWO, "nginx", &TWO, Some(1.15));
    ratio(&LATENCY, "nginx", &LATENCY, Some(1.1));
    ratio(&TLS, "nginx", &TLS, Some(1.1));
    ratio(&HTTP2, "nginx", &HTTP2, Some(1.1));
    ratio(&HTTP2, "haproxy", &HTTP2, None);
    ratio(&MTLS, "nginx", &MTLS, Some(1.0));
    for case in [&GRPC, &WEBSOCKET] {
        ratio(case, "nginx", case, None);
        ratio(case, "envoy", case, None);
    }
    ratio(&FULL, "nginx", &PLAIN, Some(1.6));
    ratio(&FULL, "envoy", &FULL, Some(0.4));
    ratio(&COLD, "envoy", &COLD, Some(0.75));
    ratio(&ASKED, "haproxy", &ASKED, None);
    ratio(&ASKED, "envoy", &ASKED, None);
    ratio(&ASKS, "envoy", &FULL, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_its_processes_and_its_port() {
        for figure in &FIGURES {
            let (port, path) = figure.port_and_path().unwrap();
            let first = PROCESSES.iter().find(|process| figure.processes.first() == Some(&process.name));
            assert!(first.unwrap().ports.contains(&port), "{}", figure.url);
            let known = |name: &&str| PROCESSES.iter().any(|process| process.name == *name);
            assert!(path.starts_with('/') && figure.processes.iter().all(known), "{}", figure.url);
        }
    }

    #[test]
    fn every_figure_can_be_chosen() {
        for figure in &FIGURES {
            assert!(CASES.contains(&figure.case.key) && SUBJECTS.contains(&figure.subject), "{}", figure.url);
        }
    }
}
