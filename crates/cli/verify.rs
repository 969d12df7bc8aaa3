//! `verify`: what is there against what was committed.

use std::process::ExitCode;

use clap::Args;
use item_affinity_storage::{Stores, Verified};

use crate::exit::Failure;
use crate::gc::counted;
use crate::print::say;
use crate::progress::grouped;
use crate::show::Place;

#[derive(Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Compares the files of every kept version, not only of the newest or the named one.
    #[arg(long)]
    pub(crate) all: bool,
}

pub(crate) async fn run(args: VerifyArgs) -> Result<ExitCode, Failure> {
    let (versions, pinned) = args.place.versions(&Stores::from_env())?;
    let mut found = versions.verify(pinned, args.all).await?;
    if found.faults.is_empty() {
        say(&summary(&found, &versions.location().to_string()))?;
        return Ok(ExitCode::SUCCESS);
    }
    for fault in &found.faults {
        say(&format!("damaged: {fault}"))?;
    }
    // The first one, with its cure, is what ends the command.
    let more = found.faults.len() - 1;
    let first = found.faults.swap_remove(0);
    let more = if more == 0 { String::new() } else { format!("; and {more} more, all on stdout") };
    Err(Failure::new(first.kind(), format!("{first}{more}")))
}

fn summary(found: &Verified, location: &str) -> String {
    let versions = match found.versions.as_slice() {
        [only] => format!("version {only}"),
        [first, .., last] => format!("versions {first} to {last}"),
        [] => String::new(),
    };
    format!(
        "{versions} of {location}: {}, {} bytes, all with the SHA-256 of the commit\ncommits: {}, each made after the \
         one before it",
        counted(found.files),
        grouped(found.bytes),
        found.chain.len()
    )
}
