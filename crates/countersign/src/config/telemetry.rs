//! What a process tells of its requests besides the audit record. As in `platform`, these structs are the documentation;
//! the settings are built from them here. Nothing is told that is not asked for.
use super::decode::{At, Needed, section, words};
use super::settings::Context;
use proxy::access_log;
use std::path::Path;

section! {
    /// The access log: one line per answered request, for tools that know web servers' logs. Off unless this is there. It is no audit record: lines may be lost on a disk that fails, which is counted. See docs/telemetry.md. Changing it needs a restart.
    AccessLogSection as "`access_log`" hints [
        ("path", "did you mean `file`?"), ("dir", "did you mean `file`?"),
        ("rotate", "it is rotated from outside: rename the file, then SIGHUP (logrotate)"),
        ("user", "did you mean `subject`?"),
    ] {
        /// The file, relative to this one, or `/dev/stdout`. Made with mode 0640 and opened anew on SIGHUP.
        file: Needed<At<String>>,
        /// `json`: an object per line, with the decision id. `combined`: as nginx and Apache write it. Default `json`.
        format: Option<At<AccessLogFormatWord>>,
        /// Write the query of each request too. Queries often hold tokens and other secrets. Default `false`.
        query: Option<At<bool>>,
        /// Write the subject of whoever is signed in. Default `false`.
        subject: Option<At<bool>>,
    }
}

words! {
    /// How a line of the access log looks.
    AccessLogFormatWord {
        Json = "json",
        Combined = "combined",
    }
}

/// `None` if it is not asked for, or had a problem that was reported. `audit` is the other log.
pub fn access_log(
    section: Option<&AccessLogSection>,
    audit: &Path,
    context: &mut Context<'_, '_>,
) -> Option<access_log::Settings> {
    let section = section?;
    let named = section.file.0.as_ref()?;
    let file = context.path(&named.value);
    if file == audit {
        let fix = "name another file: lines between its records would break the chain";
        context.to.report(named.at, format!("`{}` is the audit log", named.value), fix);
        return None;
    }
    Some(access_log::Settings {
        file,
        format: match section.format.as_ref().map(|at| at.value) {
            Some(AccessLogFormatWord::Combined) => access_log::Format::Combined,
            Some(AccessLogFormatWord::Json) | None => access_log::Format::Json,
        },
        query: section.query.as_ref().is_some_and(|at| at.value),
        subject: section.subject.as_ref().is_some_and(|at| at.value),
    })
}
