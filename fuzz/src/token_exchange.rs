//! Forms that ask for a Txn-Token, and the requests that they name.
use wire::token_exchange::{Exchange, Named, address};

const CALLER: &str = "spiffe://acme.example/gateway";

/// The form, and after a line's end method, path and host, one per line. A form that is accepted says each thing once, also
/// to a reader that is easy-going; and a request that is accepted is named in the very bytes that would be sent.
pub fn token_exchange(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let form = lines.next().unwrap_or_default();
    match Exchange::read(form, "acme.example", CALLER) {
        Ok(exchange) => {
            let said = |name: &str| -> Vec<String> {
                form.split(|byte| *byte == b'&')
                    .map(|pair| pair.split_at(pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len())))
                    .filter(|(found, _)| lenient(found) == name)
                    .map(|(_, value)| lenient(value.get(1..).unwrap_or_default()))
                    .collect()
            };
            assert_eq!(said("audience"), ["acme.example"]);
            assert_eq!(said("scope"), [exchange.scope.as_str()]);
            assert_eq!(said("subject_token"), [exchange.subject_token.as_str()]);
            assert_eq!(said("request_details"), [exchange.request_details.as_str()]);
            assert_eq!(said("request_context").concat(), exchange.request_context);
            assert!(said("actor_token").concat().is_empty(), "somebody who acts goes unread");
        }
        Err(fault) => assert!(fault.to_string().is_ascii(), "a fault repeats the caller"),
    }
    let mut text = || std::str::from_utf8(lines.next().unwrap_or_default()).unwrap_or_default();
    let (method, path, host) = (text(), text(), text());
    if let Ok(named) = Named::read(method, path, host) {
        assert_eq!((named.method.as_str(), named.target.to_string().as_str()), (method, path));
        assert!(named.target.authority().is_none() && path.starts_with('/'));
        assert_eq!(
            wire::identity::named_host(&named.host).ok().as_ref(),
            Some(&named.host),
            "the host reads otherwise"
        );
    }
    if let Ok(ip) = address(host) {
        assert_eq!(ip.to_canonical(), ip);
    }
}

fn lenient(text: &[u8]) -> String {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| after.get(..2)).flatten();
        let escaped = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        (out, rest) = match escaped {
            Some(byte) => ([out, vec![byte]].concat(), after.get(2..).unwrap_or_default()),
            None => ([out, vec![if *first == b'+' { b' ' } else { *first }]].concat(), after),
        };
    }
    String::from_utf8_lossy(&out).into_owned()
}
