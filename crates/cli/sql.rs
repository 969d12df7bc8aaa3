//! `sql`: texts, files, standard input, or a prompt.

use std::io::{IsTerminal, Read};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use datafusion::execution::context::SessionContext;
use item_affinity_datafusion::{SessionSettings, session};
use item_affinity_storage::Stores;
use rustyline::error::ReadlineError;

use crate::args::{Global, SqlArgs};
use crate::exit::{self, Failure};
use crate::print::Printer;
use crate::query;

const WELCOME: &str = "item-affinity SQL: statements end with ';', Ctrl-D or \\q leaves.
Try: SET item_affinity.solution_version = '<location>';  SELECT * FROM item_affinity_segments(['<item>'], 10);";

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
    let stores = Stores::from_env();
    let settings = SessionSettings {
        memory_limit: args.memory_limit,
        target_partitions: global.threads.map(std::num::NonZeroUsize::get),
    };
    let ctx = session(&stores, settings)?;
    if let Some(location) = &args.solution_version {
        set_solution_version(&ctx, location).await?;
    }
    let mut printer = Printer::new(args.format, args.max_rows, args.output.as_deref())?;
    if texts.is_empty() {
        if std::io::stdin().is_terminal() {
            return prompt(&ctx, &values, &mut printer, global.quiet).await;
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        texts.push(text);
    }
    for text in &texts {
        query::run(&ctx, &query::substitute(text, &values)?, &mut printer).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Sets the solution version as data, so that quotes in a location mean nothing.
pub(crate) async fn set_solution_version(ctx: &SessionContext, location: &str) -> Result<(), Failure> {
    let text = format!("SET item_affinity.solution_version = '{}'", location.replace('\'', "''"));
    ctx.sql(&text).await?;
    Ok(())
}

async fn prompt(
    ctx: &SessionContext,
    values: &[(String, String)],
    printer: &mut Printer,
    quiet: bool,
) -> Result<ExitCode, Failure> {
    if !quiet {
        eprintln!("{WELCOME}");
    }
    // The history stays in memory: statements can hold secrets.
    let mut editor = rustyline::DefaultEditor::new().context("cannot open the prompt")?;
    let mut text = String::new();
    loop {
        let mark = if text.is_empty() { "item-affinity> " } else { "            -> " };
        // Reading a line blocks; nothing else runs in the meantime.
        let line = match tokio::task::block_in_place(|| editor.readline(mark)) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                text.clear();
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(anyhow::Error::new(error).into()),
        };
        if text.is_empty() && matches!(line.trim(), "\\q" | "exit" | "quit") {
            return Ok(ExitCode::SUCCESS);
        }
        text.push_str(&line);
        text.push('\n');
        if !line.trim_end().ends_with(';') {
            if text.trim().is_empty() {
                text.clear();
            }
            continue;
        }
        let statement = std::mem::take(&mut text);
        // What cannot be remembered is still run.
        drop(editor.add_history_entry(statement.trim()));
        let started = Instant::now();
        let outcome = tokio::select! {
            outcome = async { query::run(ctx, &query::substitute(&statement, values)?, printer).await } => outcome,
            _ = tokio::signal::ctrl_c() => { eprintln!("stopped"); continue; }
        };
        match outcome {
            Ok(rows) if printer.to_terminal() && !quiet => {
                eprintln!("{rows} rows, {:.3} s", started.elapsed().as_secs_f64());
            }
            Ok(_) => {}
            Err(failure) => drop(exit::report(&failure)),
        }
    }
}
