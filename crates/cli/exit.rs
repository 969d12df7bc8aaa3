//! How the process ends: one line on stderr and an exit code that a scheduler can act on.

use std::fmt;
use std::future::Future;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use item_affinity_datafusion::{error_kind, error_message};
use item_affinity_storage::ErrorKind;
use tokio_util::sync::CancellationToken;

static PROMPT_IS_OPEN: AtomicBool = AtomicBool::new(false);

/// While it lives, SIGINT belongs to the prompt: it stops a query, not the program.
pub(crate) struct OpenPrompt(());

impl OpenPrompt {
    pub(crate) fn new() -> Self {
        PROMPT_IS_OPEN.store(true, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for OpenPrompt {
    fn drop(&mut self) {
        PROMPT_IS_OPEN.store(false, Ordering::Relaxed);
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
    /// Whether the command ended because it was asked to.
    cancelled: bool,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Self { code: kind.exit_code(), message: message.to_string(), cancelled: false }
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Usage, message)
    }
}

impl From<item_affinity_job::Error> for Failure {
    fn from(error: item_affinity_job::Error) -> Self {
        let cancelled = error.is_cancelled();
        Self { cancelled, ..Self::new(error.kind(), error) }
    }
}

impl From<item_affinity_solution::Error> for Failure {
    fn from(error: item_affinity_solution::Error) -> Self {
        let cancelled = error.is_cancelled();
        Self { cancelled, ..Self::new(error.kind(), error) }
    }
}

impl From<item_affinity_storage::Error> for Failure {
    fn from(error: item_affinity_storage::Error) -> Self {
        Self::new(error.kind(), error)
    }
}

impl From<item_affinity_ingest::Error> for Failure {
    fn from(error: item_affinity_ingest::Error) -> Self {
        Self::new(error.kind(), error)
    }
}

impl From<datafusion::error::DataFusionError> for Failure {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        Self::new(error_kind(&error), error_message(&error))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let broken_pipe = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
            .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe);
        // A reader that has seen enough, as in `| head`, is no failure.
        let code = if broken_pipe { 0 } else { ErrorKind::BadInput.exit_code() };
        Self { code, message: format!("{error:#}"), cancelled: false }
    }
}

/// Prints the failure and gives its exit code.
pub(crate) fn report(failure: &Failure) -> ExitCode {
    if failure.code != 0 {
        eprintln!("error: {}", one_line(&failure.message));
    }
    ExitCode::from(failure.code)
}

/// Control characters would let data write to the terminal; line breaks would break the one line.
fn one_line(message: &str) -> String {
    message
        .trim()
        .split(['\n', '\r'])
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
        .replace(|c: char| c.is_control(), "\u{fffd}")
}

/// Help and version go to stdout with 0, wrong arguments to stderr with 2.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // Nothing more can be done when the terminal is gone.
    drop(error.print());
    if error.use_stderr() { ExitCode::from(ErrorKind::Usage.exit_code()) } else { ExitCode::SUCCESS }
}

/// How long a job may take to leave everything in order after a signal; schedulers kill ten seconds after theirs.
const GRACE: Duration = Duration::from_secs(8);

/// Runs a command until it ends, or until SIGINT (130) or SIGTERM (143) ends it.
///
/// No commit begins after a signal. With `stop` the command is given the time to remove its files and to bring a commit
/// to its end that has begun: when that landed the work is done, and so it ends as if there had been no signal. A second
/// signal ends it at once, and so does the first when there is nothing to leave in order.
pub(crate) async fn until_signal(
    command: impl Future<Output = Result<ExitCode, Failure>>,
    stop: Option<CancellationToken>,
) -> Result<ExitCode, Failure> {
    let mut command = std::pin::pin!(command);
    let (code, signal) = tokio::select! {
        outcome = &mut command => return outcome,
        signal = signalled() => signal,
    };
    let stopped = |what: &str| Err(Failure { code, message: format!("stopped by {signal}; {what}"), cancelled: true });
    let Some(stop) = stop else { return stopped("nothing was committed") };
    stop.cancel();
    let ended = tokio::select! {
        outcome = &mut command => Some(outcome),
        _ = signalled() => None,
        () = tokio::time::sleep(GRACE) => None,
    };
    match ended {
        Some(Ok(code)) => Ok(code),
        Some(Err(failure)) if failure.code == ErrorKind::CommitUnknown.exit_code() => Err(failure),
        Some(Err(failure)) if failure.cancelled => stopped("nothing was committed"),
        Some(Err(failure)) => stopped(&failure.message),
        None => stopped("its files may be left to gc; whether a commit that had begun has landed, show tells"),
    }
}

/// From here on a signal is seen at once, however busy the workers are.
///
/// A busy worker looks for input and signals after every 61 steps of its tasks (tokio's `event_interval`), and a step of a
/// query may take tens of milliseconds. Whichever runtime reads a signal first wakes everybody who waits for it, so one that
/// does nothing else is enough.
pub(crate) fn listen_to_signals() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    // It takes no signal itself: one that nobody waits for ends the process as before.
    let wait = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait).map(drop)
}

/// The next SIGINT or SIGTERM, with its exit code.
async fn signalled() -> (u8, &'static str) {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    let interrupted = async {
        loop {
            // A signal that cannot be waited for ends the command as well.
            if tokio::signal::ctrl_c().await.is_err() || !PROMPT_IS_OPEN.load(Ordering::Relaxed) {
                return;
            }
        }
    };
    tokio::select! {
        () = interrupted => (130, "SIGINT"),
        () = terminated => (143, "SIGTERM"),
    }
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn message_is_one_line_without_control_characters() {
        assert_eq!(one_line("a\n  b\u{1b}[31mc\n"), "a b\u{fffd}[31mc");
    }
}
