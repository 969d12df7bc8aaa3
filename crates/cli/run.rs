//! `run`: the commands of a job file, one after the other.

use std::process::ExitCode;
use std::time::SystemTime;

use chrono::{DateTime, NaiveDate, Utc};
use clap::Args;
use item_affinity_solution::SolutionRef;
use item_affinity_storage::{Artifact, ErrorKind, Location, Stores, Versions, list_parquet, read_small};

use crate::args::{Command, Global, LogFormat};
use crate::exit::Failure;
use crate::gc::counted;
use crate::job_file::{Step, parse};
use crate::job_file_mistake::Mistake;
use crate::placeholders::Placeholders;
use crate::print::say;
use crate::progress::{grouped, start_logging};

/// Job files are written by people.
const MAX_JOB_FILE_BYTES: u64 = 1 << 20;

#[derive(Args)]
pub(crate) struct RunArgs {
    /// The job file: tables check, train, refresh, evaluate, segment, verify and gc with the long options of
    /// these commands as keys. Texts may hold ${NAME} of the environment, ${date} and ${date-1d:%Y/%m/%d}.
    #[arg(value_name = "JOB.TOML")]
    pub(crate) job_file: String,
    /// Says what would happen, reads what there is to read, and changes nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The day that ${date} stands for, as 2026-11-24; today in UTC unless said. A scheduler gives the day of the run, so
    /// that a rerun is the same job.
    #[arg(long, value_name = "DATE")]
    pub(crate) date: Option<NaiveDate>,
}

pub(crate) async fn run(global: &Global, args: RunArgs) -> Result<ExitCode, Failure> {
    let stores = Stores::from_env();
    let location = Location::parse(&args.job_file)?;
    let failed = |mistake: Mistake| Failure::new(ErrorKind::BadInput, mistake.in_file(&location));
    let bytes = read_small(&stores, &location, MAX_JOB_FILE_BYTES).await?;
    let text = String::from_utf8(bytes.to_vec()).map_err(|_| failed("it is not UTF-8".to_owned().into()))?;
    let date = args.date.unwrap_or_else(|| DateTime::<Utc>::from(SystemTime::now()).date_naive());
    let environment = |name: &str| std::env::var(name).ok();
    let steps = parse(&text, &Placeholders { date, environment: &environment }).map_err(failed)?;
    let count = steps.len();
    let mut code = ExitCode::SUCCESS;
    for (number, mut step) in steps.into_iter().enumerate() {
        let title = format!("step {} of {count}: {}", number + 1, step.name);
        if args.dry_run {
            say(&format!("{title}\n  {}", command_line(&step)))?;
            explain(&stores, &step).await?;
            continue;
        }
        if global.stop.is_cancelled() {
            return Err(Failure::new(ErrorKind::Storage, format!("the steps before {} are done", step.name)));
        }
        merge(global, &mut step.arguments.global);
        if number == 0 {
            start_logging(&step.arguments.global);
            crate::set_up(&step.arguments.global)?;
        }
        if !step.arguments.global.quiet {
            eprintln!("{title}");
        }
        let ended = Box::pin(crate::run(step.arguments)).await?;
        // Items without a segment do not stop the job, but its end says so.
        if ended != ExitCode::SUCCESS {
            code = ended;
        }
    }
    Ok(code)
}

/// What is said on the command line of `run` counts for all steps.
fn merge(given: &Global, of_step: &mut Global) {
    of_step.quiet |= given.quiet;
    of_step.verbose = of_step.verbose.max(given.verbose);
    of_step.threads = given.threads.or(of_step.threads);
    of_step.stop = given.stop.clone();
    if given.log_format != LogFormat::Text {
        of_step.log_format = given.log_format;
    }
}

/// The same on a command line.
fn command_line(step: &Step) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:@%+,".contains(c);
    let quoted = |word: &String| match word.chars().all(plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    };
    let words: Vec<String> = step.words.iter().map(quoted).collect();
    format!("item-affinity {}", words.join(" "))
}

/// What a step reads and writes, from what is there now.
async fn explain(stores: &Stores, step: &Step) -> Result<(), Failure> {
    let data = match &step.arguments.command {
        Command::Check(args) => Some(&args.data),
        Command::Train(args) => Some(&args.data),
        Command::Evaluate(args) => Some(&args.data),
        _ => None,
    };
    let mut inputs: Vec<&String> = Vec::new();
    if let Some(data) = data {
        inputs.extend(data.log.interactions.iter().chain(&data.items).chain(&data.users));
    }
    let mut target = None;
    match &step.arguments.command {
        Command::Train(args) => target = Some((&args.solution, Artifact::SolutionVersion)),
        Command::Refresh(args) => {
            inputs.extend(&args.log.interactions);
            target = Some((&args.solution, Artifact::SolutionVersion));
        }
        Command::Segment(args) => {
            inputs.extend(&args.users);
            newest(stores, &args.solution, Artifact::SolutionVersion, "ranks with").await?;
            target = Some((&args.output, Artifact::Segments));
        }
        _ => {}
    }
    for input in inputs {
        let location = Location::parse(input)?;
        let files = list_parquet(stores, &location).await?.files;
        let bytes = files.iter().map(|file| file.meta.size).sum();
        say(&format!("  reads {}, {} bytes: {location}", counted(files.len() as u64), grouped(bytes)))?;
    }
    if let Some((place, artifact)) = target {
        newest(stores, place, artifact, "commits after").await?;
    }
    Ok(())
}

/// The newest version at a place, as a line.
async fn newest(stores: &Stores, place: &str, artifact: Artifact, does: &str) -> Result<(), Failure> {
    let SolutionRef { location, version } = SolutionRef::parse(place)?;
    let numbers = Versions::new(stores, location.clone(), artifact)?.numbers().await?;
    let which = match version.or(numbers.last().copied()) {
        Some(version) => format!("version {version} of {location}"),
        None => format!("nothing: {location} has no version yet"),
    };
    say(&format!("  {does} {which}"))
}
