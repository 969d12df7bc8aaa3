//! The prompt of `sql`: statements over several lines, completion, a history on request, and shorthands.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use datafusion::execution::context::SessionContext;
use futures::FutureExt;
use rustyline::config::CompletionType;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::{self, Failure};
use crate::print::Printer;
use crate::prompt_words::{SqlHelper, Words};
use crate::query;
use crate::shorthand::Shorthand;
use crate::sql_policy::SqlPolicy;

const WELCOME: &str =
    "item-affinity SQL: statements end with ';', Tab completes names, \\? lists shorthands, Ctrl-D leaves.
Try: SET item_affinity.solution_version = '<location>';  SELECT * FROM item_affinity_segments(['<item>'], 10);";

const PROMPT: &str = "item-affinity> ";

/// Parts of a statement that tell of a secret: what holds one of them is in no history.
const SECRET_LIKE: [&str; 12] = [
    "secret",
    "token",
    "password",
    "passwd",
    "passphrase",
    "access_key",
    "accesskey",
    "private_key",
    "customer_key",
    "credential",
    "signature",
    "authorization",
];

/// How the prompt behaves.
pub(crate) struct PromptSettings {
    pub(crate) quiet: bool,
    /// Where statements are remembered; none: in memory, until the prompt ends.
    pub(crate) history: Option<PathBuf>,
}

/// Reads and runs statements until the end of input or `\q`; a statement that fails is reported, and the next is read.
pub(crate) async fn run(
    ctx: &SessionContext,
    policy: &SqlPolicy,
    values: &[(String, String)],
    printer: &mut Printer,
    settings: &PromptSettings,
) -> Result<ExitCode, Failure> {
    if !settings.quiet {
        eprintln!("{WELCOME}");
    }
    let config = Config::builder().completion_type(CompletionType::List).build();
    let mut editor: Editor<SqlHelper, FileHistory> = Editor::with_config(config).context("cannot open the prompt")?;
    if let Some(path) = &settings.history {
        load_history(&mut editor, path)?;
    }
    // While it is open, Ctrl-C stops a query and not the program.
    let _open = exit::OpenPrompt::new();
    // Listening from here on, so that no Ctrl-C is lost between a line and its query.
    let mut interrupts = signal(SignalKind::interrupt()).context("cannot listen to Ctrl-C")?;
    loop {
        editor.set_helper(Some(SqlHelper::new(Words::of(ctx).await)));
        // Reading a statement blocks; nothing else runs in the meantime.
        let text = match tokio::task::block_in_place(|| editor.readline(PROMPT)) {
            Ok(text) => text,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(anyhow::Error::new(error).into()),
        };
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        remember(&mut editor, text, settings.history.as_deref());
        let statement = match Shorthand::read(text) {
            Ok(Some(Shorthand::Leave)) => return Ok(ExitCode::SUCCESS),
            Ok(Some(Shorthand::Say(words))) => {
                eprintln!("{words}");
                continue;
            }
            Ok(Some(Shorthand::Run(sql))) => sql,
            Ok(None) => text.to_owned(),
            Err(failure) => {
                exit::report(&failure);
                continue;
            }
        };
        // What was pressed for the last query does not stop this one.
        while interrupts.recv().now_or_never().is_some() {}
        let started = Instant::now();
        let outcome = tokio::select! {
            outcome = async { query::run(ctx, policy, &query::substitute(&statement, values)?, printer).await } => outcome,
            _ = interrupts.recv() => { eprintln!("stopped"); continue; }
        };
        match outcome {
            Ok(rows) if printer.to_terminal() && !settings.quiet => {
                let noun = if rows == 1 { "row" } else { "rows" };
                eprintln!("{rows} {noun}, {:.3} s", started.elapsed().as_secs_f64());
            }
            Ok(_) => {}
            Err(failure) => {
                exit::report(&failure);
            }
        }
    }
}

fn load_history(editor: &mut Editor<SqlHelper, FileHistory>, path: &Path) -> Result<(), Failure> {
    match editor.load_history(path) {
        Ok(()) => Ok(()),
        // The first statement makes it.
        Err(ReadlineError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(anyhow::Error::new(error).context(format!("cannot read {}", path.display())).into()),
    }
}

/// Adds a statement to the history, unless it may hold a secret. The file is readable by its owner alone.
fn remember(editor: &mut Editor<SqlHelper, FileHistory>, text: &str, path: Option<&Path>) {
    if holds_secret(text) || !editor.add_history_entry(text).unwrap_or_default() {
        return;
    }
    let Some(path) = path else { return };
    if let Err(error) = editor.append_history(path) {
        // What cannot be remembered is still run.
        eprintln!("warning: {} is not written ({error})", path.display());
    }
}

/// Whether a statement may hold a secret: a key that is named like one, or a location with a user's name and password.
fn holds_secret(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let user_in_location = lower.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '\'', '"', ' ']).next().unwrap_or_default();
        authority.contains('@')
    });
    user_in_location || SECRET_LIKE.iter().any(|word| lower.contains(word))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn statements_with_secrets_are_told_from_others() {
        for text in [
            "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 's3://b/x' OPTIONS ('aws.secret_access_key' 'abc');",
            "SET aws.SESSION_TOKEN = 'x';",
            "SELECT * FROM t WHERE Password = 'x';",
            "SELECT * FROM 'https://user:word@host/x.parquet';",
            "SELECT 'https://b.s3.amazonaws.com/x?X-Amz-Signature=00';",
        ] {
            assert!(holds_secret(text), "{text}");
        }
        for text in [
            "SELECT * FROM item_affinity_segments(['a@b'], 10);",
            "SET item_affinity.solution_version = 's3://lake/solutions/affinity@7';",
        ] {
            assert!(!holds_secret(text), "{text}");
        }
    }

    #[test]
    fn history_file_is_private_and_holds_no_secret() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        let mut editor: Editor<SqlHelper, FileHistory> = Editor::new().unwrap();
        load_history(&mut editor, &path).unwrap();
        for text in ["SELECT 1;", "SET aws.secret_access_key = 'hidden';", "SELECT\n  2;"] {
            remember(&mut editor, text, Some(&path));
        }
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(written.contains("SELECT 1;") && !written.contains("hidden"), "{written}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let mut again: Editor<SqlHelper, FileHistory> = Editor::new().unwrap();
        load_history(&mut again, &path).unwrap();
        assert_eq!(again.history().iter().collect::<Vec<_>>(), ["SELECT 1;", "SELECT\n  2;"]);
    }
}
