//! From a request's method and path to the few rules whose `can` covers it: a trie over path segments. Never decides
//! anything; what it yields are candidates.

use super::method::Methods;
use crate::path::{NormalPath, Pattern, Segment};

/// One `can` of one rule, by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) rule: usize,
    pub(super) can: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    methods: Methods,
    candidate: Candidate,
}

/// Patterns by segment, matched as `Pattern::matches` does: `*` is one segment, `**` any number of them, also none.
#[derive(Debug)]
pub(super) struct Routes {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// Sorted by segment.
    literals: Vec<(Box<str>, usize)>,
    star: Option<usize>,
    here: Vec<Entry>,
    deep: Vec<Entry>,
}

impl Routes {
    pub(super) fn new() -> Routes {
        Routes { nodes: vec![Node::default()] }
    }

    pub(super) fn insert(&mut self, pattern: &Pattern, methods: Methods, candidate: Candidate) {
        let mut at = 0;
        let entry = Entry { methods, candidate };
        for segment in pattern.segments() {
            match segment {
                Segment::Deep => return self.entries(at, |node| node.deep.push(entry)),
                Segment::Any => at = self.child(at, None),
                Segment::Literal(text) => at = self.child(at, Some(text)),
            }
        }
        self.entries(at, |node| node.here.push(entry));
    }

    fn entries(&mut self, at: usize, add: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.get_mut(at) {
            add(node);
        }
    }

    /// The child for a literal, or for `*`; made where it is missing.
    fn child(&mut self, parent: usize, literal: Option<&str>) -> usize {
        let next = self.nodes.len();
        let Some(node) = self.nodes.get_mut(parent) else { return parent };
        match literal {
            None => match node.star {
                Some(at) => return at,
                None => node.star = Some(next),
            },
            Some(literal) => match node.literals.binary_search_by(|(text, _)| (**text).cmp(literal)) {
                Ok(found) => return node.literals.get(found).map_or(parent, |(_, at)| *at),
                Err(place) => node.literals.insert(place, (literal.into(), next)),
            },
        }
        self.nodes.push(Node::default());
        next
    }

    /// Calls `each` for every `can` that covers this request; the same rule may come more than once.
    pub(super) fn visit(&self, path: &NormalPath, method: Methods, each: &mut impl FnMut(Candidate)) {
        self.walk(0, path.segments(), method, each);
    }

    /// Goes no deeper than the longest pattern.
    fn walk<'p>(
        &self,
        at: usize,
        mut rest: impl Iterator<Item = &'p str> + Clone,
        method: Methods,
        each: &mut impl FnMut(Candidate),
    ) {
        let Some(node) = self.nodes.get(at) else { return };
        yield_matching(&node.deep, method, each);
        if node.literals.is_empty() && node.star.is_none() && node.here.is_empty() {
            return;
        }
        let Some(segment) = rest.next() else {
            return yield_matching(&node.here, method, each);
        };
        if let Ok(found) = node.literals.binary_search_by(|(text, _)| (**text).cmp(segment))
            && let Some((_, child)) = node.literals.get(found)
        {
            self.walk(*child, rest.clone(), method, each);
        }
        if let Some(child) = node.star {
            self.walk(child, rest, method, each);
        }
    }
}

fn yield_matching(entries: &[Entry], method: Methods, each: &mut impl FnMut(Candidate)) {
    for entry in entries.iter().filter(|entry| entry.methods.overlaps(method)) {
        each(entry.candidate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Tolerance;

    fn check(patterns: &[&str], path: &str, expected: &[usize]) {
        let mut routes = Routes::new();
        for (rule, pattern) in patterns.iter().enumerate() {
            routes.insert(&Pattern::parse(pattern).unwrap(), Methods::ALL, Candidate { rule, can: 0 });
        }
        let mut got = Vec::new();
        let path = NormalPath::parse(path, Tolerance::default()).unwrap();
        routes.visit(&path, Methods::of_request("GET"), &mut |candidate| got.push(candidate.rule));
        got.sort_unstable();
        assert_eq!(got, expected, "{patterns:?} {path}");
        let one_by_one = |rule: &usize| Pattern::parse(patterns[*rule]).unwrap().matches(&path);
        assert_eq!(got, (0..patterns.len()).filter(one_by_one).collect::<Vec<_>>(), "{patterns:?} {path}");
    }

    #[test]
    fn wildcards_are_whole_segments() {
        let patterns = ["/orders/**", "/orders/*", "/orders/42", "/orders/*/refund", "/**", "/", "/orders"];
        check(&patterns, "/orders/42", &[0, 1, 2, 4]);
        check(&patterns, "/orders/43", &[0, 1, 4]);
        check(&patterns, "/orders/42/refund", &[0, 3, 4]);
        check(&patterns, "/orders", &[0, 4, 6]);
        check(&patterns, "/orders/", &[0, 4, 6]);
        check(&patterns, "/ordersx", &[4]);
        check(&patterns, "/", &[4, 5]);
        check(&["/a/*/c", "/a/b/*", "/*/b/c", "/a/b"], "/a/b/c", &[0, 1, 2]);
        check(&[], "/a", &[]);
    }

    #[test]
    fn a_method_that_is_not_named_is_no_candidate() {
        let mut routes = Routes::new();
        let path = NormalPath::parse("/a", Tolerance::default()).unwrap();
        routes.insert(&Pattern::parse("/a").unwrap(), Methods::of_rule("POST").unwrap(), Candidate { rule: 0, can: 0 });
        let mut seen = 0;
        routes.visit(&path, Methods::of_request("GET"), &mut |_| seen += 1);
        assert_eq!(seen, 0);
        routes.visit(&path, Methods::of_request("POST"), &mut |_| seen += 1);
        assert_eq!(seen, 1);
    }
}
