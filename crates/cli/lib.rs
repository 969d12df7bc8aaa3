//! The command line of item-affinity: a shell over the `job` and `datafusion` rooms.
//!
//! Data goes to stdout and nothing else does; progress, notes and errors go to stderr. Exit codes tell a scheduler what
//! to do next; `item-affinity --help` lists them.

mod args;
mod card_text;
mod check;
#[cfg(feature = "ballista")]
mod cluster;
mod commit_args;
mod csv_cells;
mod demo;
mod evaluate;
mod evaluation_text;
mod exit;
mod forget;
mod gc;
mod job_file;
mod job_file_mistake;
mod placeholders;
mod print;
mod progress;
mod prompt;
mod prompt_words;
mod query;
mod refresh;
mod run;
mod segment;
mod segment_args;
mod shorthand;
mod show;
mod sql;
mod sql_args;
mod sql_policy;
mod terminal_table;
mod train;
mod verify;
mod where_to_run;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use item_affinity_storage::{FileMode, Stores, isolate_inputs, serve_decoding};

use crate::args::{Arguments, Command, Global};
use crate::exit::Failure;

/// The parser and the planner of SQL go down into an expression term by term: a thousand ANDs are a thousand frames. It is
/// address space alone until it is used.
const STACK: usize = 512 << 20;
/// Threads that evaluate such expressions.
const WORKER_STACK: usize = 16 << 20;

/// How long threads may take to end. Most are idle and end at once; they are joined, since letting go of a thread that is
/// just ending reads freed memory in glibc (its bug 19951): the program then died of a signal after its work was done.
const SHUTDOWN: Duration = Duration::from_millis(300);

/// The program: reads the arguments of the process, does what they say, and gives its exit code.
#[must_use]
pub fn main() -> ExitCode {
    mask(FileMode::default());
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return exit::usage(&error),
    };
    let started = std::thread::Builder::new().name("main".to_owned()).stack_size(STACK).spawn(|| start(arguments));
    match started.map(std::thread::JoinHandle::join) {
        Ok(Ok(code)) => code,
        // The panic has told its place.
        Ok(Err(_)) => ExitCode::from(item_affinity_storage::ErrorKind::Bug.exit_code()),
        Err(error) => exit::report(&Failure::from(anyhow::Error::new(error))),
    }
}

/// The commands that a job file stands for on a day, each as the words of a command line; for tests of hostile files.
///
/// # Errors   what is wrong with the file, on one line, or with the day
pub fn job_file_commands(
    text: &str,
    day: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Vec<String>>, String> {
    let date = day.parse().map_err(|_| format!("{} is no day", day.escape_debug()))?;
    let steps = job_file::parse(text, &placeholders::Placeholders { date, environment });
    let steps = steps.map_err(|mistake| mistake.in_file(&"job.toml"))?;
    Ok(steps.into_iter().map(|step| step.words).collect())
}

/// What is made here is of people: it is for the eyes of its owner alone, unless it was said otherwise. This is for the files
/// that others than `storage` make.
fn mask(mode: FileMode) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o777 & !mode.of_folders()));
}

/// What holds for the whole process, by the command line or by the first step of a job file.
pub(crate) fn set_up(global: &Global) -> Result<(), Failure> {
    if let Some(mode) = global.mode {
        mask(mode.choose());
    }
    if let Some(timeout) = global.retry_timeout {
        Stores::retry_for(timeout);
    }
    if global.isolate_inputs {
        isolate_inputs(std::env::current_exe().map_err(anyhow::Error::new)?);
    }
    Ok(())
}

/// Decodes what another process asks for on stdin. Its last line on stderr, if any, is the error.
async fn decode() -> ExitCode {
    match serve_decoding(std::io::stdin(), std::io::stdout()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn start(arguments: Arguments) -> ExitCode {
    // A job file may say how to log.
    if !matches!(arguments.command, Command::Run(_)) {
        progress::start_logging(&arguments.global);
    }
    if let Err(failure) = set_up(&arguments.global) {
        return exit::report(&failure);
    }
    let threads = arguments.global.threads;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads.get());
    }
    let runtime = builder.thread_stack_size(WORKER_STACK).enable_all().build();
    let runtime = match runtime.and_then(|runtime| exit::listen_to_signals().map(|()| runtime)) {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&Failure::from(anyhow::Error::new(error))),
    };
    let stop = arguments.command.leaves_order().then(|| arguments.global.stop.clone());
    let ends_by_itself = arguments.command.ends_by_itself_after_a_signal();
    let command = run(arguments);
    let outcome = match ends_by_itself {
        true => runtime.block_on(command),
        false => runtime.block_on(exit::until_signal(command, stop)),
    };
    // Blocking work that nobody waits for any more must not hold the process.
    runtime.shutdown_timeout(SHUTDOWN);
    match outcome {
        Ok(code) => code,
        Err(failure) => exit::report(&failure),
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { global, command } = arguments;
    match command {
        Command::Demo(args) => demo::run(&global, args).await,
        Command::Check(args) => check::run(&global, args).await,
        Command::Train(args) => train::run(&global, args).await,
        Command::Refresh(args) => refresh::run(&global, args).await,
        Command::Segment(args) => segment::run(&global, args).await,
        Command::Evaluate(args) => evaluate::run(&global, args).await,
        Command::Sql(args) => sql::run(&global, args).await,
        Command::Show(args) => show::run(&global, args).await,
        Command::Run(args) => run::run(&global, args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Gc(args) => gc::run(args).await,
        Command::Forget(args) => forget::run(&global, args).await,
        #[cfg(feature = "ballista")]
        Command::Cluster { command } => cluster::run(&global, command).await,
        Command::Decode => Ok(decode().await),
        Command::Completions { shell } => {
            use clap::CommandFactory;
            clap_complete::generate(shell, &mut Arguments::command(), "item-affinity", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}
