//! Runs `examples/verify-txn-token` in Rust, Python and Node with stock JOSE libraries: the good Txn-Token is accepted, and
//! each with one fault is refused. First with tokens of `tests/peers/mint_txn.py`, then with the one that the real edge gave
//! its upstream, and one that a workload got in exchange, checked against the key set that the edge publishes. It knows no product code, only the product.
use crate::edge::{Door, Edge, File, free_address, make_svid};
use crate::origin::{Origin, field};
use crate::peers::python_of;
use crate::run::{cargo, must, output, program, root, target_folder};
use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

const PUBLISHED_AT: &str = "/.well-known/countersign/jwks.json";

#[derive(Deserialize)]
struct Minted {
    jwks: serde_json::Value,
    trust_domain: String,
    cases: Vec<Case>,
    issuer_jwks: serde_json::Value,
    access_token: String,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    token: String,
    accepted: bool,
}

const ISSUERS: &str =
    "issuers:\n  demo: { issuer: \"https://issuer.example\", audience: [acme], jwks_file: jwks.json }\n";
const LANGUAGES: [&str; 3] = ["Rust", "Python", "Node"];

pub(crate) fn check() -> Result<()> {
    must(cargo(&["build", "--quiet", "--locked", "--package", "verify-txn-token"]))?;
    link_modules()?;
    let minted: Minted = serde_json::from_str(&output(program(python_of("test"), &["tests/peers/mint_txn.py"]))?)?;
    made_up(&minted)?;
    from_the_edge(&minted)?;
    from_the_token_endpoint(&minted)
}

fn made_up(minted: &Minted) -> Result<()> {
    let published = Origin::start(PUBLISHED_AT, minted.jwks.to_string())?;
    let url = format!("http://{}{PUBLISHED_AT}", published.address);
    for language in LANGUAGES {
        for case in &minted.cases {
            let accepted = accepts(verifier(language), &url, &minted.trust_domain, &case.token)
                .with_context(|| format!("{language}, {}", case.name))?;
            if accepted != case.accepted {
                let did = if accepted { "accepted" } else { "refused" };
                bail!("the {language} example {did} the token `{}`: {}", case.name, case.token);
            }
        }
        println!("{language}: {} tokens judged as they should be", minted.cases.len());
    }
    Ok(())
}

/// The Txn-Token as an upstream gets it, and the key set as anybody gets it.
fn from_the_edge(minted: &Minted) -> Result<()> {
    let upstream = Origin::start("*", "{}".to_owned())?;
    let files = files(minted, &format!("http://{}", upstream.address));
    let edge = Edge::start("examples", Door::Plain, ISSUERS, &files)?;
    let status = get(edge.address, "/orders/42", &minted.access_token)?;
    ensure!(status.starts_with("HTTP/1.1 200 "), "the edge answered `{status}` instead of 200");
    let head = upstream.next()?;
    let token = field(&head, "txn-token").context("the upstream got no Txn-Token")?;
    passes_everywhere(&edge, &minted.trust_domain, token, "the edge's own Txn-Token")
}

/// The Txn-Token that a workload got in exchange; curl is the workload.
fn from_the_token_endpoint(minted: &Minted) -> Result<()> {
    let made = root().join("target/live/examples-workload");
    std::fs::create_dir_all(&made)?;
    make_svid(&made, &format!("spiffe://{}/gateway", minted.trust_domain))?;
    let address = free_address()?;
    let mut files = files(minted, "http://127.0.0.1:1");
    for name in ["workload.pem", "workload.key"] {
        files.push(File { name, text: std::fs::read_to_string(made.join(name))? });
    }
    let sections = format!(
        "{ISSUERS}token_endpoint:\n  listen: {address}\n  callers: /gateway\n  \
         tls: {{ certificate: workload.pem, key: workload.key, client_ca: workload.pem }}\n"
    );
    let edge = Edge::start("examples", Door::Plain, &sections, &files)?;
    let mut curl = program("curl", &["-sS", "--fail-with-body", "--cert", "workload.pem", "--key", "workload.key"]);
    curl.current_dir(&made)
        .args(["--cacert", "workload.pem", "--resolve"])
        .arg(format!("localhost:{0}:127.0.0.1", address.port()));
    let details = serde_json::json!({ "method": "GET", "path": "/orders/42", "host": "shop.acme.example" }).to_string();
    for (name, value) in [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:txn_token"),
        ("audience", &minted.trust_domain),
        ("scope", "orders.read"),
        ("subject_token", &minted.access_token),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("request_details", &details),
    ] {
        curl.arg("--data-urlencode").arg(format!("{name}={value}"));
    }
    curl.arg(format!("https://localhost:{}/token", address.port()));
    let answer: serde_json::Value = serde_json::from_str(&output(curl)?)?;
    let token = answer.get("access_token").and_then(serde_json::Value::as_str).context("the answer holds no token")?;
    passes_everywhere(&edge, &minted.trust_domain, token, "the Txn-Token got in exchange")
}

fn files(minted: &Minted, upstream: &str) -> Vec<File> {
    let service = format!(
        "service: orders\nupstream: {upstream}\nexpose: {{ host: \"*\", path: /orders/** }}\nrules:\n  \
         - {{ name: support reads orders, who: \"group:support\", can: GET /orders/** }}\n"
    );
    vec![File { name: "jwks.json", text: minted.issuer_jwks.to_string() }, File { name: "service.yaml", text: service }]
}

fn passes_everywhere(edge: &Edge, trust_domain: &str, token: &str, whose: &str) -> Result<()> {
    let url = format!("http://{}{PUBLISHED_AT}", edge.address);
    for language in LANGUAGES {
        ensure!(accepts(verifier(language), &url, trust_domain, token)?, "the {language} example refused {token}");
        ensure!(
            !accepts(verifier(language), &url, "other.example", token)?,
            "the {language} example accepted any audience"
        );
    }
    println!("{whose} passes in {}", LANGUAGES.join(", "));
    Ok(())
}

/// One request with a bearer token; gives the status line.
fn get(address: SocketAddr, path: &str, bearer: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {bearer}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
}

fn verifier(language: &str) -> Command {
    match language {
        "Python" => program(python_of("test"), &["examples/verify-txn-token/python/verify.py"]),
        "Node" => program("node", &["examples/verify-txn-token/node/verify.mjs"]),
        _ => program(target_folder().join("debug/verify-txn-token"), &[]),
    }
}

/// Node looks for modules beside the script; the pinned ones are with the peers.
fn link_modules() -> Result<()> {
    let link = root().join("examples/verify-txn-token/node/node_modules");
    if link.exists() {
        return Ok(());
    }
    std::os::unix::fs::symlink("../../../tests/peers/node_modules", &link).context("cannot link node_modules")
}

fn accepts(mut command: Command, url: &str, trust_domain: &str, token: &str) -> Result<bool> {
    command.args([url, trust_domain]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("no standard input")?.write_all(token.as_bytes())?;
    let out = child.wait_with_output()?;
    if !out.status.success() {
        return Ok(false);
    }
    let claims: serde_json::Value = serde_json::from_slice(&out.stdout).context("claims are not JSON")?;
    Ok(claims.get("sub").is_some())
}
