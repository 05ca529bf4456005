//! `trust` and `wire` have no runtime, socket, file, clock or random source: time and randomness are arguments.
//! This looks at the text of their production code; their manifests are checked with the crate edges.
use super::sources::Tree;

const PURE: [&str; 2] = ["crates/trust/src/", "crates/wire/src/"];
const FORBIDDEN: [(&str, &str); 18] = [
    ("tokio", "no runtime"),
    ("async fn", "nothing to wait for"),
    ("TcpStream", "no socket"),
    ("TcpListener", "no socket"),
    ("UdpSocket", "no socket"),
    ("UnixStream", "no socket"),
    ("UnixListener", "no socket"),
    ("ToSocketAddrs", "no name look-up"),
    ("std::fs", "no file"),
    ("std::env", "no environment"),
    ("std::process", "no process"),
    ("std::thread", "no thread"),
    ("SystemTime", "time is an argument"),
    ("Instant", "time is an argument"),
    ("rand::", "randomness is an argument"),
    ("now_v7", "time and randomness are arguments"),
    ("new_v4", "randomness is an argument"),
    ("println!", "no output"),
];

/// What is impure and allowed, each with its reason.
const ALLOWED: [(&str, &str, &str); 2] = [
    (
        "crates/trust/src/txn/mint.rs",
        "rand::",
        "an ES256 signature draws its nonce, which aws-lc-rs asks to be handed a source for",
    ),
    ("crates/trust/src/client_key.rs", "rand::", "ES256 and PS256 signatures draw randomness, as above"),
];

pub(super) fn purity(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, lines) in tree.production().filter(|(path, _)| PURE.iter().any(|folder| path.starts_with(folder))) {
        for (number, line) in lines.into_iter().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for (word, why) in FORBIDDEN.iter().filter(|(word, _)| has_word(line, word)) {
                if ALLOWED.iter().any(|(file, allowed, _)| *file == path && allowed == word) {
                    continue;
                }
                problems.push(format!("{path}:{number}: `{word}` in a pure crate ({why}); take it as an argument"));
            }
        }
    }
    problems
}

/// Whether `line` holds `word` at the start of an identifier.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|head| head.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|tail| tail.chars().next());
        let joined = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let whole = !word.ends_with(char::is_alphanumeric) || !joined(after);
        !joined(before) && whole
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impure_code_is_found_and_comments_are_not() {
        let check = |path: &str, line: &str, expected: usize| {
            assert_eq!(purity(&Tree::of(&[(path, line)])).len(), expected, "{line}");
        };
        check("crates/trust/src/a.rs", "let now = SystemTime::now();", 1);
        check("crates/trust/src/a.rs", "// SystemTime is not used here", 0);
        check("crates/trust/src/a.rs", "fn instantiate(InstantaneousThing: u8) {}", 0);
        check("crates/trust/src/a.rs", "use std::net::IpAddr;", 0);
        check("crates/wire/src/a.rs", "use std::net::TcpStream;", 1);
        check("crates/net/src/a.rs", "use std::net::TcpStream;", 0);
        check("crates/trust/src/a.rs", "let x = operand::of(1);", 0);
        check("crates/trust/src/a.rs", "#[cfg(test)]\nmod tests { use std::fs; }", 0);
    }
}
