//! Small makers for Cedar's public syntax tree. They know Cedar's forms and nothing of rules.

use cedar_policy::pst::{BinaryOp, Expr, Literal, NonEmpty, UnaryOp, Var};
use std::sync::Arc;

pub(super) type Tree = Arc<Expr>;

/// `context.facts.<name>`
pub(super) fn fact(name: &str) -> Tree {
    attr(attr(Arc::new(Expr::Var(Var::Context)), "facts"), name)
}

pub(super) fn attr(of: Tree, name: &str) -> Tree {
    Arc::new(Expr::GetAttr { expr: of, attr: name.into() })
}

pub(super) fn has(of: Tree, name: &str) -> Tree {
    Arc::new(Expr::HasAttr { expr: of, attrs: NonEmpty::new(name.into()) })
}

pub(super) fn string(text: &str) -> Tree {
    Arc::new(Expr::Literal(Literal::String(text.into())))
}

pub(super) fn long(value: i64) -> Tree {
    Arc::new(Expr::Literal(Literal::Long(value)))
}

pub(super) fn truth(value: bool) -> Tree {
    Arc::new(Expr::Literal(Literal::Bool(value)))
}

pub(super) fn set<'a>(texts: impl Iterator<Item = &'a str>) -> Tree {
    Arc::new(Expr::Set(texts.map(string).collect()))
}

pub(super) fn not(tree: Tree) -> Tree {
    Arc::new(Expr::UnaryOp { op: UnaryOp::Not, expr: tree })
}

pub(super) fn binary(op: BinaryOp, left: Tree, right: Tree) -> Tree {
    Arc::new(Expr::BinaryOp { op, left, right })
}

pub(super) fn equals(tree: Tree, text: &str) -> Tree {
    binary(BinaryOp::Eq, tree, string(text))
}

pub(super) fn any(trees: impl IntoIterator<Item = Tree>) -> Tree {
    joined(BinaryOp::Or, trees.into_iter().collect()).unwrap_or_else(|| truth(false))
}

pub(super) fn all_of(trees: impl IntoIterator<Item = Tree>) -> Tree {
    joined(BinaryOp::And, trees.into_iter().collect()).unwrap_or_else(|| truth(true))
}

/// Pair by pair, so that a list of a thousand is ten deep: Cedar recurses over what we build.
fn joined(op: BinaryOp, mut trees: Vec<Tree>) -> Option<Tree> {
    while trees.len() > 1 {
        let mut pairs = trees.into_iter();
        let mut next = Vec::with_capacity(pairs.len().div_ceil(2));
        while let Some(left) = pairs.next() {
            next.push(match pairs.next() {
                Some(right) => binary(op, left, right),
                None => left,
            });
        }
        trees = next;
    }
    trees.pop()
}
