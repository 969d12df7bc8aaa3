//! `show`: the versions of a solution or of an output.

use std::process::ExitCode;

use clap::Args;
use item_affinity_solution::{SolutionRef, SolutionVersion, moment, versions};
use item_affinity_storage::{Artifact, Stores, Versions};

use crate::args::Global;
use crate::card_text::card_text;
use crate::exit::Failure;
use crate::print::{say, text_table};
use crate::progress::grouped;

#[derive(Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Whether this run was committed, and as which version; asked when the answer to a commit was lost.
    #[arg(long, value_name = "ID")]
    pub(crate) run: Option<String>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Place {
    /// A solution: its versions and the model card of one.
    #[arg(long, value_name = "LOCATION[@N]")]
    pub(crate) solution: Option<String>,
    /// An output of segment: its versions and counts.
    #[arg(long, value_name = "LOCATION[@N]")]
    pub(crate) output: Option<String>,
}

impl Place {
    fn reference(&self) -> Result<(SolutionRef, Artifact), Failure> {
        let (text, artifact) = match (&self.solution, &self.output) {
            (Some(text), _) => (text, Artifact::SolutionVersion),
            (None, Some(text)) => (text, Artifact::Segments),
            (None, None) => return Err(Failure::usage("name --solution or --output")),
        };
        Ok((SolutionRef::parse(text)?, artifact))
    }

    /// The versions there, and the one that is named.
    pub(crate) fn versions(&self, stores: &Stores) -> Result<(Versions, Option<u64>), Failure> {
        let (reference, artifact) = self.reference()?;
        Ok((Versions::new(stores, reference.location, artifact)?, reference.version))
    }
}

pub(crate) async fn run(_global: &Global, args: ShowArgs) -> Result<ExitCode, Failure> {
    let stores = Stores::from_env();
    let (reference, artifact) = args.place.reference()?;
    match (&args.run, artifact) {
        (Some(id), _) => run_of(&Versions::new(&stores, reference.location, artifact)?, id).await?,
        (None, Artifact::SolutionVersion) => solution(&stores, &reference).await?,
        (None, Artifact::Segments) => output(&stores, &reference).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_of(versions: &Versions, id: &str) -> Result<(), Failure> {
    let version = versions.find_run(id).await?.version;
    say(&format!("run {id} committed version {version} of {}", versions.location()))
}

async fn solution(stores: &Stores, reference: &SolutionRef) -> Result<(), Failure> {
    let version = SolutionVersion::open(stores, reference).await?;
    let header =
        ["version", "committed", "as_of", "hidden_dimension", "users", "items", "interactions", "refreshed from"];
    let rows = versions(stores, &reference.location).await?;
    let rows = rows.iter().map(|v| {
        let row = vec![
            v.version.to_string(),
            moment(v.committed_at),
            moment(v.as_of),
            v.hidden_dimension.to_string(),
            grouped(v.users),
            grouped(v.items),
            grouped(v.interactions),
            v.refreshed_from.map(|version| format!("version {version}")).unwrap_or_default(),
        ];
        (row, v.job_name.clone())
    });
    say(&with_names(&header, rows.collect())?)?;
    say(&format!("model card of {}:", version.reference()))?;
    say(&card_text(&version.model)?)
}

async fn output(stores: &Stores, reference: &SolutionRef) -> Result<(), Failure> {
    let versions = Versions::new(stores, reference.location.clone(), Artifact::Segments)?;
    let resolved = versions.resolve(reference.version).await?;
    let header = ["version", "committed", "solution version", "asked", "ok", "empty", "error", "rows"];
    let mut rows = Vec::new();
    for number in versions.numbers().await? {
        let commit = versions.read(number).await?;
        let count = |name: &str| grouped(commit.body.counts.get(name).copied().unwrap_or_default());
        let solution = commit.body.solution_version.as_ref().map(|s| format!("{}@{}", s.location, s.version));
        let row = vec![
            number.to_string(),
            moment(commit.committed_at),
            solution.unwrap_or_default(),
            count("asked"),
            count("ok"),
            count("empty"),
            count("error"),
            count("rows"),
        ];
        rows.push((row, commit.job_name));
    }
    say(&with_names(&header, rows)?)?;
    say(&format!("files of version {}:", resolved.version))?;
    for file in &resolved.files {
        say(&format!("  {}  {} bytes", file.path, grouped(file.bytes)))?;
    }
    Ok(())
}

/// A table of versions; the names of jobs are a column of it where any has a name.
fn with_names(header: &[&str], rows: Vec<(Vec<String>, Option<String>)>) -> Result<String, Failure> {
    let mut header = header.to_vec();
    let named = rows.iter().any(|(_, name)| name.is_some());
    if named {
        header.push("job name");
    }
    let row = |(mut row, name): (Vec<String>, Option<String>)| {
        row.extend(named.then(|| name.unwrap_or_default()));
        row
    };
    text_table(&header, &rows.into_iter().map(row).collect::<Vec<_>>())
}
