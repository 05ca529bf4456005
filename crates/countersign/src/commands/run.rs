//! `countersign run`: load the files, serve until a signal.

use anyhow::Context as _;

use crate::cli::RunArgs;
use crate::config;
use crate::exit::Exit;
use crate::operator::{self, Answers, Facts, Operator, Question};
use crate::running::Running;
use crate::{commands, serve, telemetry};
use std::sync::Arc;
use std::time::Duration;

use proxy::audit::Audit;

const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

pub fn run(args: &RunArgs) -> anyhow::Result<Exit> {
    let loaded = match config::load(&args.config.path, &config::Disk) {
        Ok(loaded) => loaded,
        Err(problems) => {
            return Ok(commands::refuse(&problems, false, &mut anstream::stderr())?);
        }
    };
    operator::refuse_second(&loaded.state)?;
    telemetry::start_logs(&loaded.log);
    serve::log_problems(&loaded.warnings, "warning");
    let watched = loaded.watched.clone();
    let running = Running::start(loaded)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let answers = Arc::new(OfRunning::of(&running));
        let _operator = Operator::start(&running.state, &facts(&running), answers)?;
        tracing::info!(
            edge = ?running.edge_addresses(),
            authz = ?running.authz_doors(),
            token_endpoint = ?running.token_endpoint_addresses(),
            admin = ?running.admin_addresses(),
            "serving"
        );
        serve::until_stopped(running, &args.config.path, watched, None).await
    })?;
    Ok(Exit::Good)
}

pub fn facts(running: &Running) -> Facts {
    Facts {
        pid: std::process::id(),
        edge: running.edge_addresses().iter().map(ToString::to_string).collect(),
        authz: running.authz_doors(),
        token_endpoint: running.token_endpoint_addresses().iter().map(ToString::to_string).collect(),
        admin: running.admin_addresses().first().map(ToString::to_string).unwrap_or_default(),
        audit: running.audit_file.clone(),
    }
}

/// What every serving process can be asked.
pub struct OfRunning {
    pub keys: Arc<control::Keys>,
    pub audit: Audit,
}

impl OfRunning {
    pub fn of(running: &Running) -> OfRunning {
        OfRunning { keys: running.keys(), audit: running.audit() }
    }
}

impl Answers for OfRunning {
    fn answer(&self, question: Question) -> Result<serde_json::Value, String> {
        match question {
            Question::Keys => serde_json::to_value(self.keys.key_report()).map_err(|error| error.to_string()),
            Question::Flush => Ok(self.audit.flush(FLUSH_PATIENCE).into()),
            Question::KillKey { issuer, kid } => match self.keys.kill_key(&issuer, &kid) {
                true => Ok(true.into()),
                false => Err(no_issuer(&issuer)),
            },
            Question::RefreshKeys { issuer } => match self.keys.refresh(&issuer) {
                true => Ok(true.into()),
                false => Err(no_issuer(&issuer)),
            },
            Question::Token { .. } => {
                Err("tokens come from your issuer; only `countersign dev` has a demo issuer".into())
            }
        }
    }
}

fn no_issuer(name: &str) -> String {
    format!("no issuer is called `{name}`, or it is too busy: `countersign keys` lists them")
}
