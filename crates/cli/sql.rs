//! `sql`: texts, files, standard input, or a prompt.

use std::io::{IsTerminal, Read};
use std::process::ExitCode;

use anyhow::Context;
use datafusion::execution::context::SessionContext;
use item_affinity_datafusion::{SessionSettings, session};
use item_affinity_storage::Stores;

use crate::args::Global;
use crate::exit::Failure;
use crate::print::Printer;
use crate::prompt::{self, PromptSettings};
use crate::query;
use crate::sql_args::SqlArgs;
use crate::sql_policy::SqlPolicy;

pub(crate) async fn run(global: &Global, args: SqlArgs) -> Result<ExitCode, Failure> {
    let values = args
        .set
        .iter()
        .map(|text| match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Failure::usage(format!("--set {text}: write NAME=VALUE"))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut texts = args.command.clone();
    for path in &args.file {
        texts.push(std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    let named = values.iter().map(|(_, value)| value.as_str()).chain(args.solution_version.as_deref());
    let policy = SqlPolicy::new(&args.policy, named)?;
    let stores = Stores::from_env().within(policy.roots().clone());
    let settings = SessionSettings {
        memory_limit: args.memory_limit,
        temp_limit: args.temp_limit.map(|bytes| bytes as u64),
        target_partitions: global.threads.map(std::num::NonZeroUsize::get),
    };
    let ctx = match args.place.remote(&stores, settings)? {
        Some(session) => session,
        None => session(&stores, settings)?,
    };
    if let Some(location) = &args.solution_version {
        set_solution_version(&ctx, location).await?;
    }
    let mut printer = Printer::new(args.format, args.max_rows, args.output.as_deref())?;
    if texts.is_empty() {
        if std::io::stdin().is_terminal() {
            let settings = PromptSettings { quiet: global.quiet, history: args.history };
            return prompt::run(&ctx, &policy, &values, &mut printer, &settings).await;
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        texts.push(text);
    }
    for text in &texts {
        query::run(&ctx, &policy, &query::substitute(text, &values)?, &mut printer).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Sets the solution version as data, so that quotes in a location mean nothing.
pub(crate) async fn set_solution_version(ctx: &SessionContext, location: &str) -> Result<(), Failure> {
    let text = format!("SET item_affinity.solution_version = '{}'", location.replace('\'', "''"));
    ctx.sql(&text).await?;
    Ok(())
}
