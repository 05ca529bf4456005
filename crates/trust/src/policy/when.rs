//! `when`: a Cedar expression over `context`, checked strictly at load, evaluated only for a rule whose other clauses
//! hold. An expression that fails is an error the decision must treat as *no*; Cedar itself would skip it.

use super::decide::Judge;
use super::facts::{self, Param, Row, WhenError};
use super::reads::Reads;
use super::source::{Flaw, shown};
use cedar_policy::pst;
use cedar_policy::{
    Context, Entities, EntityId, EntityTypeName, EntityUid, EvalResult, Expression, Policy, PolicySet, Request,
    RestrictedExpression, Schema, ValidationError, ValidationMode, ValidationWarning, Validator, eval_expression,
};
use serde_json::json;
use std::str::FromStr;
use std::sync::Arc;

/// One compiled expression.
pub(super) struct When {
    pub(super) text: Arc<str>,
    pub(super) tree: pst::Expr,
    /// Names of what it reads, as `context.facts.unknown` of the Cedar export knows them.
    reads: Vec<String>,
    expression: Expression,
    rows: Vec<&'static Row>,
    pub(super) params: Vec<Param>,
    /// The parts of a request Cedar asks for besides the context; no expression can read them.
    scope: Scope,
}

struct Scope {
    principal: EntityUid,
    action: EntityUid,
    resource: EntityUid,
    entities: Entities,
}

const BYTES_MAX: usize = 2_048;
const NESTING_MAX: usize = 24;
const OPERATORS_MAX: usize = 128;
const FIX: &str = "write a Cedar expression over `context`, as in `context.request.params.amount <= 500`; docs/rules.md \
                   lists its attributes";

const ASK_FIRST_FIX: &str = "ask first for an attribute that may be missing, as in `context has agent && context.agent == \
                             \"x\"` or `if context.request.params has amount then context.request.params.amount <= \
                             500 else true`";

impl When {
    /// `anonymous`: the rule also names callers without a token, so `context.principal` is optional.
    pub(super) fn parse(text: &str, anonymous: bool) -> Result<When, Flaw> {
        let text = text.trim();
        check_size(text)?;
        let expression = Expression::from_str(text)
            .map_err(|error| Flaw::new(format!("`when` cannot be read: {}", shown(&error.to_string())), FIX))?;
        // The tree is made from the parsed expression, never by pasting its text into a policy.
        let tree = pst::Expr::try_from(expression.as_ref().clone())
            .map_err(|error| Flaw::new(format!("`when` cannot be read: {}", shown(&error.to_string())), FIX))?;
        let reads = Reads::of(&tree)?;
        validate(&tree, &reads.params, anonymous)?;
        let scope = Scope::new().ok_or_else(|| Flaw::new("`when` cannot be prepared", FIX))?;
        let names = names_of(&reads);
        Ok(When { text: text.into(), tree, reads: names, expression, rows: reads.rows, params: reads.params, scope })
    }

    pub(super) fn reads(&self) -> &[String] {
        &self.reads
    }

    pub(super) fn holds(&self, judge: &Judge<'_>) -> Result<bool, WhenError> {
        let failed = |error: &dyn std::fmt::Display| WhenError::Evaluation(shown(&error.to_string()));
        let context = self.context(judge)?;
        let scope = &self.scope;
        let (principal, action, resource) = (scope.principal.clone(), scope.action.clone(), scope.resource.clone());
        let request = Request::new(principal, action, resource, context, None).map_err(|error| failed(&error))?;
        match eval_expression(&request, &scope.entities, &self.expression) {
            Ok(EvalResult::Bool(holds)) => Ok(holds),
            Ok(_) => Err(WhenError::Evaluation("the expression is neither true nor false".to_owned())),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Only what the expression reads: building a context costs more than evaluating over it.
    fn context(&self, judge: &Judge<'_>) -> Result<Context, WhenError> {
        let (mut top, mut request, mut principal) = (Vec::new(), Vec::new(), Vec::new());
        for row in &self.rows {
            let Some(value) = row.fact.value(judge)? else { continue };
            let section = match row.section {
                "request" => &mut request,
                "principal" => &mut principal,
                _ => &mut top,
            };
            section.push((row.name.to_owned(), value));
        }
        let mut params = Vec::new();
        for param in &self.params {
            if let Some(value) = param.value(judge)? {
                params.push((param.name.to_string(), value));
            }
        }
        request.push(("params".to_owned(), record(params)?));
        top.push(("request".to_owned(), record(request)?));
        if judge.input.principal.is_some() {
            top.push(("principal".to_owned(), record(principal)?));
        }
        Context::from_pairs(top).map_err(|error| WhenError::Evaluation(shown(&error.to_string())))
    }
}

/// `principal.groups`, `params.amount`; a parameter that must be there also as `params.amount missing`.
fn names_of(reads: &Reads) -> Vec<String> {
    let rows = reads.rows.iter().map(|row| match row.section {
        "" => row.name.to_owned(),
        section => format!("{section}.{}", row.name),
    });
    let params = reads.params.iter().flat_map(|param| {
        let missing = (!param.optional).then(|| format!("params.{} missing", param.name));
        std::iter::once(format!("params.{}", param.name)).chain(missing)
    });
    rows.chain(params).collect()
}

impl std::fmt::Debug for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Scope {
    fn new() -> Option<Scope> {
        Some(Scope {
            principal: entity("Caller", "")?,
            action: entity("Action", "request")?,
            resource: entity("Service", "")?,
            entities: Entities::empty(),
        })
    }
}

fn entity(kind: &str, id: &str) -> Option<EntityUid> {
    Some(EntityUid::from_type_name_and_id(EntityTypeName::from_str(kind).ok()?, EntityId::new(id)))
}

fn record(pairs: Vec<(String, RestrictedExpression)>) -> Result<RestrictedExpression, WhenError> {
    RestrictedExpression::new_record(pairs).map_err(|error| WhenError::Evaluation(shown(&error.to_string())))
}

/// Cedar's parser recurses; a text this short and this flat cannot exhaust any stack we run on.
fn check_size(text: &str) -> Result<(), Flaw> {
    if text.len() > BYTES_MAX {
        return Err(Flaw::new(
            format!("`when` is {} bytes long", text.len()),
            format!("use at most {BYTES_MAX} bytes, or split the rule"),
        ));
    }
    let (mut nesting, mut deepest, mut operators) = (0usize, 0usize, 0usize);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => nesting += 1,
            b')' | b']' | b'}' => nesting = nesting.saturating_sub(1),
            b'&' | b'|' | b'+' | b'-' | b'*' | b'!' | b'.' | b'<' | b'>' => operators += 1,
            _ => {}
        }
        deepest = deepest.max(nesting);
    }
    operators += text.matches("if").count();
    if deepest > NESTING_MAX || operators > OPERATORS_MAX {
        return Err(Flaw::new("`when` is too deep or has too many operators", "split it into several rules"));
    }
    Ok(())
}

fn validate(tree: &pst::Expr, params: &[Param], anonymous: bool) -> Result<(), Flaw> {
    let wrong = |error: String| Flaw::new(format!("`when` does not type-check: {}", shown(&error)), FIX);
    let set = policy_of(tree).map_err(&wrong)?;
    let schema = Schema::from_json_value(json!({ "": {
        "entityTypes": { "Caller": {}, "Service": {} },
        "actions": { "request": { "appliesTo": {
            "principalTypes": ["Caller"],
            "resourceTypes": ["Service"],
            "context": facts::context_type(params, anonymous),
        } } },
    } }));
    let schema = schema.map_err(|error| wrong(error.to_string()))?;
    let result = Validator::new(schema).validate(&set, ValidationMode::Strict);
    if let Some(error) = result.validation_errors().next() {
        let text = error.to_string();
        let bare = text.strip_prefix("for policy `when`, ").unwrap_or(&text);
        if matches!(error, ValidationError::UnsafeOptionalAttributeAccess(_)) {
            return Err(Flaw::new(format!("`when` does not type-check: {}", shown(bare)), ASK_FIRST_FIX));
        }
        return Err(wrong(bare.to_owned()));
    }
    let impossible = |warning: &ValidationWarning| matches!(warning, ValidationWarning::ImpossiblePolicy(_));
    if result.validation_warnings().any(impossible) {
        return Err(Flaw::new("`when` can never be true", "mend it, or remove the rule"));
    }
    Ok(())
}

fn policy_of(tree: &pst::Expr) -> Result<PolicySet, String> {
    let template = pst::Template::new(
        "when",
        pst::Effect::Permit,
        pst::PrincipalConstraint::Any,
        pst::ActionConstraint::Any,
        pst::ResourceConstraint::Any,
    );
    let template =
        template.try_with_clauses([pst::Clause::When(Arc::new(tree.clone()))]).map_err(|error| error.to_string())?;
    let policy = pst::StaticPolicy::try_from(template).map_err(|error| error.to_string())?;
    let policy = Policy::from_pst(pst::Policy::Static(policy)).map_err(|error| error.to_string())?;
    PolicySet::from_policies([policy]).map_err(|error| error.to_string())
}
