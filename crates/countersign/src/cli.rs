//! The command line: every subcommand, its arguments, and help that teaches. Only declarations; the work is in `commands`.
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

const MAIN_HELP: &str = "\
Examples:
  countersign dev                               everything in one process, nothing to configure
  countersign check                             every problem of all files, at once
  countersign test && countersign run           run only what its tests allow
  countersign why last                          why the newest request was refused
  countersign token inspect < token.txt         what is wrong with this token
  countersign doctor entra                      is this issuer as it should be

Exit codes:
  0  all is as it should be
  1  what was checked is not as it should be: problems in a file, a failed test, a bad token
  2  the command line is wrong, or a configuration file that was needed for something else
  3  something needed could not be reached: a running countersign, a file, an issuer

Colours are used on a terminal only; NO_COLOR=1 turns them off. `--json` prints one JSON document
(dev: one per line).";

/// An identity-aware proxy: every request gets a verified identity, a verdict, a signed stamp and a record.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, after_help = MAIN_HELP, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Dev(DevArgs),
    Run(RunArgs),
    Check(CheckArgs),
    Test(TestArgs),
    Rules(RulesArgs),
    Top(TopArgs),
    Why(WhyArgs),
    Token(TokenArgs),
    Doctor(DoctorArgs),
    Keys(KeysArgs),
    Audit(AuditArgs),
    Schema(SchemaArgs),
    Completions(CompletionsArgs),
}

/// Run everything in one process with demo people and a demo service. Needs no configuration.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign dev
  curl -H \"Authorization: Bearer $(countersign token ana)\" localhost:8080/orders/42
  countersign dev --listen 127.0.0.1:0 --json --exit-after 60     for scripts, on a free port

The demo people are ana (group support) and bo (group finance); report-bot is an agent.
Ctrl-C leaves nothing behind.")]
pub struct DevArgs {
    /// Address of the edge; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Keep state here instead of a temporary folder
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Stop by itself after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub exit_after: Option<u64>,
    /// One JSON object per line instead of text
    #[arg(long)]
    pub json: bool,
}

/// Run from a configuration file.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign run                               reads ./countersign.yaml
  countersign run -c /etc/countersign/countersign.yaml

SIGHUP, or a change of any file, loads everything again; files with problems change nothing and
are reported in the log. SIGTERM stops accepting, finishes what is in flight
(edge.timeouts.drain), then ends.")]
pub struct RunArgs {
    #[command(flatten)]
    pub config: ConfigArg,
    /// Roles of this process; this version has one
    #[arg(long, value_enum, value_delimiter = ',', default_value = "edge")]
    pub role: Vec<Role>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// HTTP in front of services, with the control work in the same process
    Edge,
}

#[derive(Debug, Clone, Args)]
pub struct ConfigArg {
    /// Platform file
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = "countersign.yaml")]
    pub path: PathBuf,
}

#[derive(Debug, Clone, Default, Args)]
pub struct StateArg {
    /// State folder of the running countersign [default: the one of `countersign dev`, else /var/lib/countersign]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

/// Check the platform file and every service file, and show what would run.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign check
  countersign check -c /etc/countersign/countersign.yaml --json | jq .problems

Shows every problem of every file in one run, each with file:line:column and how to mend it.
Runs the `tests:` of all services too. Reads files only: no issuer is called, nothing is started.
Exit: 0 good (perhaps with warnings), 1 problems.")]
pub struct CheckArgs {
    #[command(flatten)]
    pub config: ConfigArg,
    /// One JSON document instead of text
    #[arg(long)]
    pub json: bool,
}

/// Run the `tests:` of all services.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign test
  countersign test orders                       only this service
  countersign test --json | jq '.tests[] | select(.passed | not)'

Exit: 0 all hold, 1 one does not, 2 the files have problems.")]
pub struct TestArgs {
    #[command(flatten)]
    pub config: ConfigArg,
    /// Only this service
    #[arg(value_name = "SERVICE")]
    pub service: Option<String>,
    /// One JSON document instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Show who may do what, as a table or as Cedar policies.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign rules                             the permission matrix of every service
  countersign rules orders --cedar > orders.cedar

Exit: 0 shown, 2 the files have problems or there is no such service.")]
pub struct RulesArgs {
    #[command(flatten)]
    pub config: ConfigArg,
    /// Only this service
    #[arg(value_name = "SERVICE")]
    pub service: Option<String>,
    /// Cedar policies instead of a table
    #[arg(long, conflicts_with = "json")]
    pub cedar: bool,
    /// One JSON document instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Show what a running process does right now: requests, verdicts and latencies per service, and the latest refusals.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign top
  countersign top --once                        one look, and done
  countersign top --json | jq -c '.services[] | {service, requests_per_s, p99_ms}'

Reads the metrics and the record of the process; Ctrl-C ends it.
Exit: 0, or 3 when no running countersign answers.")]
pub struct TopArgs {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = clap::value_parser!(u64).range(1..=60))]
    pub interval: u64,
    /// One look only
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    pub state: StateArg,
    /// One JSON object per look
    #[arg(long)]
    pub json: bool,
}

/// Explain a refused request: hop, rule, clause by clause, and what would have to change.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign why last
  countersign why 1QJ93C0J5TXYSHTC                          the decision id from the body, the header or the log

Works on the audit record alone, also after the fact.
Exit: 0 explained, 2 no such decision, 3 no record found.")]
pub struct WhyArgs {
    /// Decision id, or `last`
    #[arg(value_name = "ID", default_value = "last")]
    pub id: String,
    #[command(flatten)]
    pub state: StateArg,
    /// Read this audit file instead
    #[arg(long, value_name = "FILE", conflicts_with = "state")]
    pub file: Option<PathBuf>,
    /// One JSON document instead of text
    #[arg(long)]
    pub json: bool,
}

/// Check an issuer before it matters: discovery, clock, keys, rotation, settings, and what a token would yield.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign doctor entra -c /etc/countersign/countersign.yaml
  countersign doctor entra --token < token.txt      and whom this token would make
  countersign doctor entra --json | jq '.findings[] | select(.mark == \"wrong\")'
  countersign doctor entra --metrics /var/lib/node_exporter/textfile/countersign.prom

Asks the issuer as the running process would, and changes nothing. Each WRONG says what to mend.
On a schedule, with --metrics, it becomes an alarm.
Exit: 0 nothing wrong, 1 something is, 2 wrong usage or files, 3 the issuer does not answer.")]
pub struct DoctorArgs {
    /// Name of the issuer in the platform file
    #[arg(value_name = "ISSUER")]
    pub issuer: String,
    #[command(flatten)]
    pub config: ConfigArg,
    /// Judge a token from standard input, too
    #[arg(long)]
    pub token: bool,
    /// Write the outcome to this file as metrics (Prometheus text)
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<PathBuf>,
    /// One JSON document instead of text
    #[arg(long)]
    pub json: bool,
}

/// Print a demo person's token, or explain any token.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  countersign token ana                         an access token of the demo issuer of `countersign dev`
  countersign token inspect < token.txt         what a token says, and what is wrong with it"
)]
pub struct TokenArgs {
    #[command(subcommand)]
    pub command: Option<TokenCommand>,
    /// Demo person or agent: ana, bo, report-bot
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// The demo agent that acts for this person: report-bot
    #[arg(long, value_name = "AGENT")]
    pub agent: Option<String>,
    #[command(flatten)]
    pub state: StateArg,
    /// One JSON document instead of the bare token
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    Inspect(InspectArgs),
}

/// Explain a token from standard input: header, signature, then each claim on its own.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign token inspect < token.txt
  pbpaste | countersign token inspect --jwks keys.json
  countersign token inspect --issuer entra -c countersign.yaml < token.txt
  curl -s https://id.example/keys > keys.json       keys for --jwks

Without keys the signature is not checked. With --issuer, every check of the edge is made with
that issuer's settings. A token is never printed back. Do not put a token on the command line:
others on this machine could read it there.
Exit: 0 nothing wrong was found, 1 the token would be refused or is no token, 2 wrong usage or files.")]
pub struct InspectArgs {
    /// Key set (JWK Set) to check the signature with
    #[arg(long, value_name = "FILE")]
    pub jwks: Option<PathBuf>,
    /// Judge by this issuer of the platform file
    #[arg(long, value_name = "NAME")]
    pub issuer: Option<String>,
    #[command(flatten)]
    pub config: ConfigArg,
    /// One JSON document instead of text
    #[arg(long)]
    pub json: bool,
}

/// Show the keys of every issuer: how many, how old, what was left out and why.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign keys
  countersign keys --json | jq '.issuers[] | select(.age_s > 3600)'

Exit: 0 every issuer has keys, 1 one has none, 3 no running countersign found.")]
pub struct KeysArgs {
    #[command(subcommand)]
    pub command: Option<KeysCommand>,
    /// State folder of the running countersign [default: the one of `countersign dev`, else /var/lib/countersign]
    #[arg(long, value_name = "DIR", global = true)]
    pub state: Option<PathBuf>,
    /// One JSON document instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Withdraw a key at once: its tokens are refused whatever the issuer publishes, also after a restart
    #[command(after_help = "Examples:\n  countersign keys kill entra 4fYk7Q")]
    Kill {
        /// Name of the issuer in the platform file
        #[arg(value_name = "ISSUER")]
        issuer: String,
        /// `kid` of the key, as `countersign keys` shows it
        #[arg(value_name = "KID")]
        kid: String,
    },
    /// Fetch the keys of an issuer now
    #[command(after_help = "Examples:\n  countersign keys refresh entra")]
    Refresh {
        /// Name of the issuer in the platform file
        #[arg(value_name = "ISSUER")]
        issuer: String,
    },
}

/// Verify, show or search the audit record.
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    pub command: AuditCommand,
}

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check the hash chain; names the first record that was changed, removed or cut
    #[command(after_help = "\
Examples:
  countersign audit verify
  countersign audit verify --file /var/log/countersign/audit.ndjson

Exit: 0 whole, 1 changed or cut short, 3 no record found.")]
    Verify(AuditFileArgs),
    /// Show one record in full
    #[command(after_help = "Examples:\n  countersign audit show last\n  countersign audit show ID --json")]
    Show {
        /// Decision id, or `last`
        #[arg(value_name = "ID", default_value = "last")]
        id: String,
        #[command(flatten)]
        files: AuditFileArgs,
    },
    /// Show the records in which a field has a value
    #[command(after_help = "\
Examples:
  countersign audit grep decision=deny
  countersign audit grep service=orders sub='demo|ana' --json

Exit: 0 found, 1 none, 3 no record found.")]
    Grep {
        /// FIELD=VALUE, all of them must match; a bare VALUE matches any field
        #[arg(value_name = "FIELD=VALUE", required = true)]
        terms: Vec<String>,
        #[command(flatten)]
        files: AuditFileArgs,
    },
}

#[derive(Debug, Clone, Args)]
pub struct AuditFileArgs {
    #[command(flatten)]
    pub state: StateArg,
    /// Read this audit file instead
    #[arg(long, value_name = "FILE", conflicts_with = "state")]
    pub file: Option<PathBuf>,
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// Print the JSON Schema of a configuration file, for editors and CI.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign schema platform > countersign.schema.json
  countersign schema service > service.schema.json
  # then, in the first line of a YAML file:  # yaml-language-server: $schema=service.schema.json")]
pub struct SchemaArgs {
    /// Which file
    #[arg(value_enum)]
    pub which: SchemaName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaName {
    /// countersign.yaml
    Platform,
    /// services/*.yaml
    Service,
}

/// Print completions for a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign completions bash > ~/.local/share/bash-completion/completions/countersign
  countersign completions zsh > \"${fpath[1]}/_countersign\"
  countersign completions fish > ~/.config/fish/completions/countersign.fish")]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Command, clap::error::ErrorKind> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command).map_err(|e| e.kind())
    }

    #[test]
    fn the_tree_is_consistent_and_every_command_teaches_by_example() {
        let command = Cli::command();
        command.clone().debug_assert();
        let mut open = vec![command];
        while let Some(command) = open.pop() {
            let name = command.get_name().to_owned();
            assert!(command.get_about().is_some(), "{name} says what it does");
            if name != "audit" {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Examples:\n  "), "{name} has examples");
            }
            open.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn token_takes_a_name_or_inspects() {
        assert!(
            matches!(parse("countersign token ana"), Ok(Command::Token(TokenArgs { name: Some(n), .. })) if n == "ana")
        );
        let inspect = parse("countersign token inspect --jwks k.json");
        assert!(matches!(inspect, Ok(Command::Token(TokenArgs { command: Some(TokenCommand::Inspect(_)), .. }))));
        assert!(parse("countersign token").is_err());
    }

    #[test]
    fn defaults_are_what_the_documentation_says() {
        let Ok(Command::Dev(dev)) = parse("countersign dev") else { panic!() };
        assert_eq!((dev.listen.to_string().as_str(), dev.json, dev.exit_after), ("127.0.0.1:8080", false, None));
        let Ok(Command::Run(run)) = parse("countersign run") else { panic!() };
        assert_eq!((run.config.path, run.role), (PathBuf::from("countersign.yaml"), vec![Role::Edge]));
        assert!(matches!(parse("countersign why"), Ok(Command::Why(why)) if why.id == "last"));
        assert!(parse("countersign run --role sidecar").is_err());
        assert!(parse("countersign dev --exit-after 0").is_err());
    }
}
