//! Which attributes of `context` an expression reads, and which type it needs each query parameter to have. Never
//! evaluates.

use super::facts::{Param, ROWS, Row};
use super::params::Kind;
use super::source::{Flaw, shown};
use cedar_policy::pst::{BinaryOp, Expr, Literal, UnaryOp, Var};
use std::collections::BTreeMap;

/// What an expression reads.
pub(super) struct Reads {
    pub(super) rows: Vec<&'static Row>,
    pub(super) params: Vec<Param>,
}

#[derive(Default)]
struct Walk {
    rows: Vec<&'static Row>,
    params: BTreeMap<String, Usage>,
}

#[derive(Default)]
struct Usage {
    kind: Option<Kind>,
    asked_for: bool,
}

const PARAMS_MAX: usize = 16;
const LIST_FIX: &str = "read `context.request.{method, path, host, params.<name>}`, `context.principal.{subject, id, issuer, \
                        kind, client, acr, amr, auth_time, groups, roles, scopes}`, `context.agent`, `context.peer`, \
                        `context.time` or `context.client_ip`";

impl Reads {
    pub(super) fn of(tree: &Expr) -> Result<Reads, Flaw> {
        let mut walk = Walk::default();
        walk.visit(tree)?;
        if walk.params.len() > PARAMS_MAX {
            return Err(Flaw::new(
                format!("`when` reads more than {PARAMS_MAX} query parameters"),
                "split it into several rules",
            ));
        }
        let params = walk.params.into_iter().map(|(name, usage)| Param {
            name: name.into(),
            kind: usage.kind.unwrap_or(Kind::Text),
            optional: usage.asked_for,
        });
        Ok(Reads { rows: walk.rows, params: params.collect() })
    }
}

impl Walk {
    fn visit(&mut self, expr: &Expr) -> Result<(), Flaw> {
        if let Some(path) = context_path(expr) {
            return self.read(&path);
        }
        match expr {
            Expr::Literal(_) => Ok(()),
            Expr::Var(_) | Expr::Slot(_) => {
                Err(Flaw::new("`when` reads `principal`, `action` or `resource`", format!("{LIST_FIX} instead")))
            }
            Expr::UnaryOp { op, expr } => {
                self.hint(expr, unary_kind(*op))?;
                self.visit(expr)
            }
            Expr::BinaryOp { op, left, right } => {
                self.hint(left, binary_kind(*op, right))?;
                self.hint(right, if *op == BinaryOp::Contains { element_kind(left) } else { binary_kind(*op, left) })?;
                self.visit(left)?;
                self.visit(right)
            }
            Expr::GetAttr { expr, .. } | Expr::Is { expr, in_expr: None, .. } => self.visit(expr),
            Expr::HasAttr { expr, attrs } => match context_path(expr) {
                Some(mut path) => {
                    attrs.iter().for_each(|attr| path.push(attr.as_str()));
                    self.ask(&path)
                }
                None => self.visit(expr),
            },
            Expr::Like { expr, .. } => {
                self.hint(expr, Some(Kind::Text))?;
                self.visit(expr)
            }
            Expr::IfThenElse { cond, then_expr, else_expr } => {
                self.hint(cond, Some(Kind::Flag))?;
                [cond, then_expr, else_expr].into_iter().try_for_each(|part| self.visit(part))
            }
            Expr::Set(items) => items.iter().try_for_each(|item| self.visit(item)),
            Expr::Record(items) => items.values().try_for_each(|item| self.visit(item)),
            _ => Err(Flaw::new("`when` uses a form of Cedar that is not supported here", LIST_FIX)),
        }
    }

    fn read(&mut self, path: &[&str]) -> Result<(), Flaw> {
        match path {
            ["request", "params", name, ..] => {
                self.params.entry((*name).to_owned()).or_default();
                Ok(())
            }
            [] | ["request"] | ["principal"] | ["request", "params"] => Err(Flaw::new(
                format!("`when` reads `{}` as a whole", shown(&dotted(path))),
                format!("read one attribute of it: {LIST_FIX}"),
            )),
            _ => self.row(path),
        }
    }

    /// `has`: sections are always there or told by `principal`; the rest is looked up like a read.
    fn ask(&mut self, path: &[&str]) -> Result<(), Flaw> {
        match path {
            ["request"] | ["principal"] | ["request", "params"] => Ok(()),
            ["request", "params", name] => {
                self.params.entry((*name).to_owned()).or_default().asked_for = true;
                Ok(())
            }
            _ => self.row(path),
        }
    }

    fn row(&mut self, path: &[&str]) -> Result<(), Flaw> {
        let found = ROWS.iter().find(|row| match path {
            [name] => row.section.is_empty() && row.name == *name,
            [section, name, ..] => {
                (row.section == *section && row.name == *name) || (row.section.is_empty() && row.name == *section)
            }
            [] => false,
        });
        let Some(row) = found else {
            return Err(Flaw::new(format!("there is no `{}`", shown(&dotted(path))), LIST_FIX));
        };
        if !self.rows.iter().any(|seen| seen.fact == row.fact) {
            self.rows.push(row);
        }
        Ok(())
    }

    /// If `expr` is a query parameter, it has this type.
    fn hint(&mut self, expr: &Expr, kind: Option<Kind>) -> Result<(), Flaw> {
        let Some(path) = context_path(expr) else { return Ok(()) };
        let (["request", "params", name], Some(kind)) = (path.as_slice(), kind) else { return Ok(()) };
        let usage = self.params.entry((*name).to_owned()).or_default();
        match usage.kind.replace(kind) {
            Some(before) if before != kind => Err(Flaw::new(
                format!("parameter `{}` is used as {} and as {}", shown(name), before.described(), kind.described()),
                "compare it with values of one type",
            )),
            _ => Ok(()),
        }
    }
}

/// `context.a.b` as `[a, b]`; bare `context` as `[]`.
fn context_path(expr: &Expr) -> Option<Vec<&str>> {
    match expr {
        Expr::Var(Var::Context) => Some(Vec::new()),
        Expr::GetAttr { expr, attr } => {
            let mut path = context_path(expr)?;
            path.push(attr.as_str());
            Some(path)
        }
        _ => None,
    }
}

fn dotted(path: &[&str]) -> String {
    std::iter::once("context").chain(path.iter().copied()).collect::<Vec<_>>().join(".")
}

fn unary_kind(op: UnaryOp) -> Option<Kind> {
    match op {
        UnaryOp::Not => Some(Kind::Flag),
        UnaryOp::Neg => Some(Kind::Number),
        UnaryOp::IsIPv4 | UnaryOp::IsIPV6 | UnaryOp::IsLoopback | UnaryOp::IsMulticast => Some(Kind::Address),
        _ => None,
    }
}

fn binary_kind(op: BinaryOp, other: &Expr) -> Option<Kind> {
    match op {
        BinaryOp::Less | BinaryOp::LessEq | BinaryOp::Greater | BinaryOp::GreaterEq => Some(Kind::Number),
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul => Some(Kind::Number),
        BinaryOp::And | BinaryOp::Or => Some(Kind::Flag),
        BinaryOp::Eq | BinaryOp::NotEq => value_kind(other),
        BinaryOp::IsInRange => Some(Kind::Address),
        BinaryOp::DecimalLessThan | BinaryOp::DecimalLessEq | BinaryOp::DecimalGreater | BinaryOp::DecimalGreaterEq => {
            Some(Kind::Decimal)
        }
        _ => None,
    }
}

fn element_kind(set: &Expr) -> Option<Kind> {
    match set {
        Expr::Set(items) => items.iter().find_map(|item| value_kind(item)),
        _ => None,
    }
}

fn value_kind(expr: &Expr) -> Option<Kind> {
    match expr {
        Expr::Literal(Literal::Bool(_)) => Some(Kind::Flag),
        Expr::Literal(Literal::Long(_)) => Some(Kind::Number),
        Expr::Literal(Literal::String(_)) => Some(Kind::Text),
        Expr::UnaryOp { op: UnaryOp::Decimal, .. } => Some(Kind::Decimal),
        Expr::UnaryOp { op: UnaryOp::Ip, .. } => Some(Kind::Address),
        Expr::UnaryOp { op, .. } => unary_kind(*op),
        Expr::BinaryOp { op: BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul, .. } => Some(Kind::Number),
        _ => match context_path(expr)?.as_slice() {
            ["time"] | ["principal", "auth_time"] => Some(Kind::Number),
            ["client_ip"] => Some(Kind::Address),
            _ => None,
        },
    }
}
