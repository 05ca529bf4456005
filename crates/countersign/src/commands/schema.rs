//! `countersign schema` and `countersign completions`: what editors and shells want to know.
use crate::cli::{Cli, CompletionsArgs, SchemaArgs, SchemaName};
use crate::config::schema;
use crate::exit::Exit;
use clap::CommandFactory as _;
use std::io::Write;

pub fn run(args: &SchemaArgs, out: &mut dyn Write) -> std::io::Result<Exit> {
    let schema = match args.which {
        SchemaName::Platform => schema::platform(),
        SchemaName::Service => schema::service(),
    };
    write!(out, "{}", schema::text(&schema))?;
    Ok(Exit::Good)
}

pub fn completions(args: &CompletionsArgs, out: &mut dyn Write) -> std::io::Result<Exit> {
    // The generator panics when it cannot write; a closed pipe must not end in a panic.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "countersign", &mut text);
    out.write_all(&text)?;
    Ok(Exit::Good)
}
