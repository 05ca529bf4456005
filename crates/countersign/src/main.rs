//! The `countersign` binary: parses the command line, runs one command, ends with its exit code. Nothing is decided here.
use clap::Parser as _;
use countersign::cli::{Cli, Command, TokenArgs, TokenCommand};
use countersign::commands::{audit, check, dev, doctor, inspect, keys, rules, run, schema, test, token, top, why};
use countersign::config::Disk;
use countersign::exit::Exit;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(&cli.command) {
        Ok(exit) => exit.into(),
        // A reader that closed the pipe (`| head`) has seen what it wanted.
        Err(error) if is_closed_pipe(&error) => Exit::Good.into(),
        Err(error) => {
            let _ = writeln!(anstream::stderr(), "\x1b[1;31merror\x1b[0m: {error:#}");
            Exit::Unreachable.into()
        }
    }
}

fn dispatch(command: &Command) -> anyhow::Result<Exit> {
    // These two write to the terminal while they run, from more than one place.
    match command {
        Command::Dev(args) => return dev::run(args),
        Command::Run(args) => return run::run(args),
        _ => {}
    }
    let out = &mut anstream::stdout().lock();
    Ok(match command {
        Command::Check(args) => check::run(args, &Disk, out)?,
        Command::Test(args) => test::run(args, &Disk, out)?,
        Command::Rules(args) => rules::run(args, &Disk, out)?,
        Command::Schema(args) => schema::run(args, out)?,
        Command::Completions(args) => schema::completions(args, out)?,
        Command::Token(TokenArgs { command: Some(TokenCommand::Inspect(args)), .. }) => {
            inspect::run(args, &Disk, &mut std::io::stdin().lock(), now(), out)?
        }
        Command::Token(args) => token::print(args, out)?,
        Command::Doctor(args) => doctor::run(args, &Disk, &mut std::io::stdin().lock(), now, out)?,
        Command::Keys(args) => keys::run(args, out)?,
        Command::Top(args) => top::run(args, std::io::stdout().is_terminal(), out)?,
        Command::Why(args) => why::run(args, out)?,
        Command::Audit(args) => audit::run(args, out)?,
        Command::Dev(_) | Command::Run(_) => Exit::Usage,
    })
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
