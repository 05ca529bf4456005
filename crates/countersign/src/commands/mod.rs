//! One module per subcommand. Each takes its arguments and a place to write, and says how it ended; none of them exits the
//! process or writes to the terminal by itself.
pub mod audit;
pub mod check;
pub mod dev;
pub mod inspect;
pub mod keys;
pub mod rules;
pub mod run;
pub mod schema;
pub mod table;
pub mod test;
pub mod token;
pub mod why;

use crate::config::Problems;
use crate::exit::Exit;
use std::io::Write;

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

/// `1 rule`, `2 rules`.
pub(crate) fn counted(n: usize, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}
