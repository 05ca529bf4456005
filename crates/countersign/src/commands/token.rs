//! `countersign token NAME`: an access token of the demo issuer of a running `countersign dev`.

use std::io::Write;

use anyhow::Context as _;

use crate::cli::TokenArgs;
use crate::exit::Exit;
use crate::operator::{self, Question};

pub fn print(args: &TokenArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let name = args.name.as_deref().context("name somebody: countersign token ana")?;
    let folder = operator::find(args.state.state.as_deref());
    let question = Question::Token { name: name.to_owned(), agent: args.agent.clone() };
    let token = operator::ask(&folder, &question)?;
    match token.as_str() {
        Some(token) if !args.json => writeln!(out, "{token}")?,
        _ => writeln!(out, "{}", serde_json::json!({ "access_token": token, "token_type": "Bearer" }))?,
    }
    Ok(Exit::Good)
}
