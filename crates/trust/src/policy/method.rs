//! HTTP methods as one bit each, so that a rule's methods are one word. Never a request's bytes: an unknown method is a
//! bit of its own, which only `*` carries.

/// The methods a rule may name: IANA's registry without CONNECT and PRI, and PURGE, which caches use.
const NAMES: [&str; 39] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "QUERY",
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "ORDERPATCH",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "REBIND",
    "REPORT",
    "SEARCH",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

/// A set of methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Methods(u64);

const OTHER: u64 = 1 << 63;
const GET: u64 = 1;
const HEAD: u64 = 1 << 1;

impl Methods {
    pub(super) const NONE: Methods = Methods(0);
    pub(super) const ALL: Methods = Methods(u64::MAX);

    /// The one method of a request; methods are case-sensitive (RFC 9110 §9.1).
    pub(super) fn of_request(method: &str) -> Methods {
        Methods(bit(method).unwrap_or(OTHER))
    }

    /// A method that a rule names. GET brings HEAD: both ask for the same thing (RFC 9110 §9.3.2).
    pub(super) fn of_rule(method: &str) -> Option<Methods> {
        bit(method).map(|bit| Methods(if bit == GET { GET | HEAD } else { bit }))
    }

    pub(super) fn with(self, more: Methods) -> Methods {
        Methods(self.0 | more.0)
    }

    pub(super) fn overlaps(self, other: Methods) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn covers(self, other: Methods) -> bool {
        self.0 & other.0 == other.0
    }

    pub(super) fn is_all(self) -> bool {
        self.0 == u64::MAX
    }

    /// The names in this set, for the Cedar export.
    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().enumerate().filter(move |(at, _)| self.0 & (1 << at) != 0).map(|(_, name)| name)
    }
}

fn bit(method: &str) -> Option<u64> {
    NAMES.iter().position(|name| *name == method).map(|at| 1 << at)
}

/// Reading, as a Txn-Token's scope tells it: GET, HEAD and OPTIONS. Every other method writes.
pub(super) fn is_read(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn get_brings_head_and_nothing_else_brings_anything() {
        let allows = |rule: &str, request: &str| Methods::of_rule(rule).unwrap().overlaps(Methods::of_request(request));
        assert!(allows("GET", "GET") && allows("GET", "HEAD"));
        assert!(!allows("HEAD", "GET") && !allows("GET", "OPTIONS") && !allows("GET", "POST"));
        assert!(!allows("GET", "get"), "methods are case-sensitive");
        assert!(Methods::ALL.overlaps(Methods::of_request("BREW")));
        assert!(!Methods(!OTHER).overlaps(Methods::of_request("BREW")), "an unknown method is matched by `*` alone");
        assert!(Methods::of_rule("CONNECT").is_none() && Methods::of_rule("get").is_none());
    }
}
