//! What loads and lets in more, or fewer, callers than its author may think: warnings, each with what to write. Never stops
//! a load.
use super::decode::{At, Decoder};
use super::issuer::find;
use super::service::{RuleSection, ServiceFile};
use super::yaml::{Key, Node};
use std::sync::Arc;
use trust::issuer::{NameSet, Preset, Profile};
use trust::policy::Vouched;

/// So many issuers are listed in a warning; of more, their number is said.
const ISSUERS_SHOWN: usize = 4;

/// Issuers that give tokens to everybody in the world, without the key that says whose are taken.
pub fn warn_of_issuer(key: &Key, profile: &Profile, node: &Node, to: &mut Decoder<'_>) {
    if !profile.takes_everybody() {
        return;
    }
    let (whose, fix) = match profile.settings().preset {
        Preset::GithubActions => (
            "from a workflow of any repository in the world is accepted, and only the names in rules stand in its way",
            "set `tenants: [\"OWNER_ID\"]`, the number that `gh api users/OWNER --jq .id` prints",
        ),
        _ => (
            "of anybody with a Google account is accepted, and `signed-in` names them all",
            "set `tenants: [acme.example]`, your Workspace domain (service accounts have none and are then shut out), \
             or `clients` with the ids of your own",
        ),
    };
    let at = find(node, "preset").unwrap_or(key.at);
    let what = format!("issuer `{}` has no `tenants`: a token {whose}", key.text);
    to.problems.push(to.source.problem(at, what, fix).warning());
}

/// Rules that take the word of every issuer, and names of issuers that do not exist.
pub fn warn_of_rules(file: &ServiceFile, issuers: &[Arc<Profile>], to: &mut Decoder<'_>) {
    for who in file.rules.iter().flatten().flat_map(texts_of_who) {
        match Vouched::of(&who.value) {
            Some(Vouched::ByAny { set, name }) => warn_of_any(who, set, &name, issuers, to),
            Some(Vouched::By { issuer }) => warn_of_unknown(who, &issuer, issuers, to),
            None => {}
        }
    }
    // A `never` that takes every issuer's word refuses more, which is the safe side.
    for who in file.never.iter().flatten().flat_map(texts_of_who) {
        if let Some(Vouched::By { issuer }) = Vouched::of(&who.value) {
            warn_of_unknown(who, &issuer, issuers, to);
        }
    }
}

fn texts_of_who(rule: &At<RuleSection>) -> impl Iterator<Item = &At<String>> {
    rule.value.who.0.iter().flat_map(|many| &many.0)
}

fn warn_of_any(who: &At<String>, set: NameSet, name: &str, issuers: &[Arc<Profile>], to: &mut Decoder<'_>) {
    let able: Vec<&str> =
        issuers.iter().filter(|issuer| issuer.can_say(set, name)).map(|i| i.name().as_ref()).collect();
    let [first, _, ..] = able.as_slice() else { return };
    let (kind, act) = match set {
        NameSet::Groups => ("group", "put a caller into it"),
        NameSet::Roles => ("role", "give it to a caller"),
        NameSet::Scopes => ("scope", "give it to a caller"),
    };
    let what = format!("`{}` is taken from every issuer: each of {} can {act}", who.value.trim(), listed(&able));
    let fix = format!("name the issuer: `{kind}:{first}|{name}`; several as a list");
    to.problems.push(to.source.problem(who.at, what, fix).warning());
}

fn warn_of_unknown(who: &At<String>, issuer: &str, issuers: &[Arc<Profile>], to: &mut Decoder<'_>) {
    if issuers.iter().any(|known| known.name().as_ref() == issuer) {
        return;
    }
    let what = format!("`{}` matches nobody: there is no issuer `{issuer}`", who.value.trim());
    let names: Vec<&str> = issuers.iter().map(|issuer| issuer.name().as_ref()).collect();
    let fix = match names.as_slice() {
        [] => "add the issuer to `issuers:` of the platform file".to_owned(),
        names => format!("the platform file names {}", listed(names)),
    };
    to.problems.push(to.source.problem(who.at, what, fix).warning());
}

fn listed(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().take(ISSUERS_SHOWN).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(ISSUERS_SHOWN) {
        0 => quoted.join(", "),
        more => format!("{} and {more} more", quoted.join(", ")),
    }
}
