//! One module per subcommand. Each takes its arguments and a place to write, and says how it ended; none of them exits the
//! process or writes to the terminal by itself.
pub mod audit;
pub mod check;
pub mod dev;
pub mod doctor;
pub mod inspect;
pub mod keys;
pub mod rules;
pub mod run;
pub mod schema;
pub mod table;
pub mod test;
pub mod token;
pub mod top;
pub mod why;

use crate::config::{self, FailingTests, Files, Problems};
use crate::exit::Exit;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use trust::issuer::Profile;

/// Files that a command needed for something else have problems: all of them are shown, and the command ends.
pub(crate) fn refuse(problems: &Problems, json: bool, out: &mut dyn Write) -> std::io::Result<Exit> {
    if json {
        let document = serde_json::json!({ "ok": false, "problems": problems.iter().collect::<Vec<_>>() });
        writeln!(out, "{document:#}")?;
    } else {
        write!(out, "{}", problems.render())?;
        writeln!(out, "\n{}", check::headline(problems))?;
    }
    Ok(Exit::Usage)
}

/// One issuer of a platform file.
pub(crate) struct NamedIssuer {
    pub(crate) profile: Arc<Profile>,
    pub(crate) introspection: Option<Arc<feed::Introspection>>,
}

/// The issuer of this name in a platform file; else what is wrong is written, and the command ends.
pub(crate) fn issuer_named(
    path: &Path,
    name: &str,
    json: bool,
    files: &dyn Files,
    out: &mut dyn Write,
) -> std::io::Result<Result<NamedIssuer, Exit>> {
    let loaded = match config::load_with(path, files, FailingTests::AreLeft) {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&problems, json, out).map(Err),
    };
    let issuers = &loaded.desired.issuers;
    if let Some(found) = issuers.iter().find(|issuer| issuer.name().as_ref() == name) {
        let introspection = loaded.desired.introspection.iter().find(|asked| *asked.issuer == *name).map(Arc::clone);
        return Ok(Ok(NamedIssuer { profile: Arc::clone(found), introspection }));
    }
    let known: Vec<&str> = issuers.iter().map(|issuer| issuer.name().as_ref()).collect();
    let (name, known) = (config::problem::printable(name), config::decode::listed(&known));
    writeln!(out, "there is no issuer `{name}`; the platform file names {known}")?;
    Ok(Err(Exit::Usage))
}

/// `1 rule`, `2 rules`.
pub(crate) fn counted(n: usize, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}
