//! Arguments: raw words in, checked settings out.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::builder::styling::Styles;
use clap::{Args, Parser, Subcommand, ValueEnum};
use item_affinity_ingest::{ColumnMapping, TimestampUnit};
use item_affinity_model::ItemAffinity;
use item_affinity_storage::FileMode;
use tokio_util::sync::CancellationToken;

use crate::commit_args::{CommitArgs, JobArgs, parse_duration};
use crate::demo::DemoArgs;
use crate::evaluate::EvaluateArgs;
use crate::forget::ForgetArgs;
use crate::gc::GcArgs;
use crate::run::RunArgs;
use crate::segment_args::SegmentArgs;
use crate::show::ShowArgs;
use crate::sql_args::SqlArgs;
use crate::verify::VerifyArgs;
use crate::where_to_run::WhereToRun;

const EXIT_CODES: &str = "Exit codes: 0 done or already done, 1 a bug, 2 usage, 3 bad input or a missing right, \
4 committed but some items have error records, 5 storage (a retry may pass), 6 another job won, 7 commit unknown, \
8 a resource limit, 130 and 143 stopped by a signal.\n\nLocations are paths or URLs (s3://, file://); credentials and \
endpoints come from the usual AWS_* variables.";

/// For each of these items, which users will most likely interact with it next?
#[derive(Parser)]
#[command(name = "item-affinity", version, about, after_help = EXIT_CODES, styles = Styles::plain(), max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Settings of every command.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// No progress and no notes on stderr, only errors.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// More log lines; twice for debugging. RUST_LOG gives finer control.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Threads to compute with; all cores unless said.
    #[arg(long, global = true)]
    pub(crate) threads: Option<NonZeroUsize>,
    /// How long a request to a store is retried before the command ends with 5; 3m unless said.
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) retry_timeout: Option<Duration>,
    /// Permissions of files that are made on local disk, in octal: 640 lets the group read, and enter folders; 600 unless said.
    #[arg(long, global = true, value_name = "OCTAL")]
    pub(crate) mode: Option<FileMode>,
    /// Decodes Parquet inputs of jobs, not tables of SQL, in processes of their own: for files that nobody vouches for.
    #[arg(long, global = true)]
    pub(crate) isolate_inputs: bool,
    /// Cancelled by SIGINT and SIGTERM.
    #[arg(skip)]
    pub(crate) stop: CancellationToken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Shows the whole thing on a built-in data set: train, segment, SQL. Takes seconds, leaves its files behind.
    Demo(DemoArgs),
    /// Reports what the data are like, before any training.
    Check(CheckArgs),
    /// Trains a solution version from interactions.
    Train(TrainArgs),
    /// Brings new users and new behaviour into a solution without training, from the whole history up to now.
    ///
    /// Commits a new version in which every user has a state from these interactions: all of them, as for train, not only
    /// what is new. Item factors, coefficients, recipe, horizon and the rules by which events count are those of the version.
    /// Items that it does not know are left out; train takes them in.
    Refresh(RefreshArgs),
    /// Ranks users for a list of items and commits the segments.
    Segment(SegmentArgs),
    /// Measures how well segments predict what users do next.
    Evaluate(EvaluateArgs),
    /// Runs the commands of a job file, as one scheduled job.
    Run(RunArgs),
    /// Runs SQL with the functions of this project.
    Sql(SqlArgs),
    /// Shows the versions of a solution or an output.
    Show(ShowArgs),
    /// Compares the files of a version with the sizes and SHA-256 of its commit, and the commits with each other.
    Verify(VerifyArgs),
    /// Lists what no version needs: files of runs that never committed, versions over the retention. --delete removes it.
    Gc(GcArgs),
    /// Takes users out of a solution and of outputs, in every kept version, and says how much went.
    Forget(ForgetArgs),
    /// Runs a scheduler or an executor of a cluster, for commands with --cluster.
    #[cfg(feature = "ballista")]
    Cluster {
        /// Which of the two.
        #[command(subcommand)]
        command: crate::cluster::ClusterCommand,
    },
    /// Decodes a part of a file for another process of this program.
    #[command(name = item_affinity_storage::DECODE_COMMAND, hide = true)]
    Decode,
    /// Prints a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Whether it has something to bring to its end, such as a commit or the removal of its files, when a signal stops it.
    pub(crate) fn leaves_order(&self) -> bool {
        use Command::{Evaluate, Forget, Refresh, Run, Segment, Train};
        matches!(self, Train(_) | Refresh(_) | Segment(_) | Evaluate(_) | Forget(_) | Run(_))
    }

    /// Whether it hears signals itself: an executor brings its tasks to their end, however long they take.
    pub(crate) fn ends_by_itself_after_a_signal(&self) -> bool {
        match self {
            #[cfg(feature = "ballista")]
            Self::Cluster { command } => matches!(command, crate::cluster::ClusterCommand::Executor(_)),
            _ => false,
        }
    }
}

/// Where interactions are, and how they are read.
#[derive(Args, Clone, Debug)]
pub(crate) struct InteractionArgs {
    /// Interactions as Parquet: a file, a folder (Hive partitions allowed) or a glob; may repeat.
    #[arg(long, required = true, value_name = "LOCATION")]
    pub(crate) interactions: Vec<String>,
    /// Interactions are CSV of this schema of Amazon Personalize (Avro JSON).
    #[arg(long, value_name = "LOCATION")]
    pub(crate) interactions_schema: Option<String>,
    /// Names a column: user_id=household_id; may repeat. Case does not matter.
    #[arg(long, value_name = "OURS=THEIRS")]
    pub(crate) column: Vec<String>,
    /// Share of rows with unusable values at which the command stops; 0.01 unless said.
    #[arg(long, value_name = "SHARE")]
    pub(crate) max_bad_rows: Option<f64>,
    /// Unit of integer timestamps; seconds and milliseconds are told apart without it.
    #[arg(long, value_enum)]
    pub(crate) timestamp_unit: Option<UnitName>,
    /// Turns the refusals of small data into warnings.
    #[arg(long)]
    pub(crate) allow_small_data: bool,
}

/// Which interactions count, and what is known of items and users.
#[derive(Args, Clone, Debug)]
pub(crate) struct DatasetArgs {
    #[command(flatten)]
    pub(crate) log: InteractionArgs,
    /// Items as Parquet, with item_id and any attributes.
    #[arg(long, value_name = "LOCATION")]
    pub(crate) items: Vec<String>,
    /// Users as Parquet, with user_id and any attributes.
    #[arg(long, value_name = "LOCATION")]
    pub(crate) users: Vec<String>,
    /// Items are CSV of this schema of Amazon Personalize.
    #[arg(long, value_name = "LOCATION", requires = "items")]
    pub(crate) items_schema: Option<String>,
    /// Users are CSV of this schema of Amazon Personalize.
    #[arg(long, value_name = "LOCATION", requires = "users")]
    pub(crate) users_schema: Option<String>,
    /// Only events of this type count; may repeat.
    #[arg(long, value_name = "TYPE")]
    pub(crate) event_type: Vec<String>,
    /// Only events with EVENT_VALUE of at least this count.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) event_value_threshold: Option<f64>,
    /// Weights by event type: view=1,purchase=4; other types weigh 1.
    #[arg(long, value_name = "TYPE=WEIGHT", value_delimiter = ',')]
    pub(crate) event_weights: Vec<String>,
    /// EVENT_VALUE is the weight of an event, besides its threshold.
    #[arg(long)]
    pub(crate) value_as_weight: bool,
    /// The only columns of Items and Users that are attributes: brand,department; all unless said.
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    pub(crate) include_columns: Vec<String>,
    /// Columns of Items and Users that are no attributes.
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    pub(crate) exclude_columns: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UnitName {
    S,
    Ms,
    Us,
    Ns,
}

impl From<UnitName> for TimestampUnit {
    fn from(unit: UnitName) -> Self {
        match unit {
            UnitName::S => Self::Seconds,
            UnitName::Ms => Self::Milliseconds,
            UnitName::Us => Self::Microseconds,
            UnitName::Ns => Self::Nanoseconds,
        }
    }
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) data: DatasetArgs,
    /// How the report looks.
    #[arg(long, value_enum, default_value_t = ReportFormat::Table)]
    pub(crate) format: ReportFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    Table,
    Json,
}

/// The recipe: one hyperparameter, the rest has good defaults.
#[derive(Args, Clone, Debug)]
pub(crate) struct RecipeArgs {
    /// Number of hidden variables, 32 to 256.
    #[arg(long, value_name = "N", default_value_t = ItemAffinity::default().hidden_dimension)]
    pub(crate) hidden_dimension: usize,
    /// Passes over the data.
    #[arg(long, value_name = "N", default_value_t = ItemAffinity::default().iterations, help_heading = "Advanced")]
    pub(crate) iterations: usize,
    /// How strongly factors are pulled to zero.
    #[arg(long, value_name = "X", help_heading = "Advanced")]
    pub(crate) regularization: Option<f32>,
    /// Weight of a pair without interactions.
    #[arg(long, value_name = "X", default_value_t = ItemAffinity::default().unobserved_weight, help_heading = "Advanced")]
    pub(crate) unobserved_weight: f32,
    /// Events lose half their weight in this time: 36h, 28d, or none.
    #[arg(long, value_name = "DURATION", help_heading = "Advanced", default_value_t = HalfLife::default())]
    pub(crate) half_life: HalfLife,
    /// How far ahead scores look: 36h, 28d; without it as long as the newest tenth of the events took.
    #[arg(long, value_name = "DURATION", value_parser = parse_days)]
    pub(crate) horizon: Option<f64>,
    /// Start of the random numbers; the same seed gives the same bits.
    #[arg(long, value_name = "N", default_value_t = ItemAffinity::default().seed, help_heading = "Advanced")]
    pub(crate) seed: u64,
}

/// Days, or none: events never age.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HalfLife(Option<f64>);

impl Default for HalfLife {
    fn default() -> Self {
        Self(ItemAffinity::default().half_life_days)
    }
}

impl std::fmt::Display for HalfLife {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(days) => write!(f, "{days}d"),
            None => f.write_str("none"),
        }
    }
}

impl std::str::FromStr for HalfLife {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" { Ok(Self(None)) } else { parse_days(text).map(|days| Self(Some(days))) }
    }
}

impl RecipeArgs {
    pub(crate) fn recipe(&self) -> ItemAffinity {
        ItemAffinity {
            hidden_dimension: self.hidden_dimension,
            iterations: self.iterations,
            regularization: self.regularization,
            unobserved_weight: self.unobserved_weight,
            half_life_days: self.half_life.0,
            horizon_days: self.horizon,
            seed: self.seed,
        }
    }
}

#[derive(Args)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) data: DatasetArgs,
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// Where solution versions go: empty, or written by train before.
    #[arg(long, value_name = "LOCATION")]
    pub(crate) solution: String,
    /// Measures the recipe by the protocol time first, at the cost of another training; show prints the figures.
    #[arg(long)]
    pub(crate) evaluate: bool,
    /// Trains a new version even when the newest one has the same inputs and settings.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) commit: CommitArgs,
    #[command(flatten)]
    pub(crate) job: JobArgs,
}

/// Settings of the training stay; only what the training does not keep is asked for.
#[derive(Args)]
pub(crate) struct RefreshArgs {
    /// The solution; its newest version is refreshed, or the one that @N names. Gets the new version.
    #[arg(long, value_name = "LOCATION[@N]")]
    pub(crate) solution: String,
    #[command(flatten)]
    pub(crate) log: InteractionArgs,
    /// Users as Parquet; needed for a version that uses attributes of users.
    #[arg(long, value_name = "LOCATION")]
    pub(crate) users: Vec<String>,
    /// Users are CSV of this schema of Amazon Personalize.
    #[arg(long, value_name = "LOCATION", requires = "users")]
    pub(crate) users_schema: Option<String>,
    /// Makes a new version even when the newest one has the same inputs.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) place: WhereToRun,
    #[command(flatten)]
    pub(crate) commit: CommitArgs,
    #[command(flatten)]
    pub(crate) job: JobArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ResultFormat {
    Table,
    Csv,
    Json,
    Ndjson,
    Parquet,
}

impl InteractionArgs {
    pub(crate) fn columns(&self) -> Result<ColumnMapping, item_affinity_ingest::Error> {
        let mut columns = ColumnMapping::default();
        self.column.iter().try_for_each(|pair| columns.parse(pair))?;
        Ok(columns)
    }
}

impl DatasetArgs {
    pub(crate) fn weights(&self) -> Result<Vec<(String, f32)>, String> {
        self.event_weights.iter().map(|text| parse_weight(text)).collect()
    }
}

fn parse_weight(text: &str) -> Result<(String, f32), String> {
    let refused = || format!("--event-weights: '{text}' is not TYPE=WEIGHT; write view=1,purchase=4");
    let (name, weight) = text.rsplit_once('=').ok_or_else(refused)?;
    let weight = weight.trim().parse::<f32>().ok().filter(|w| w.is_finite() && *w >= 0.0).ok_or_else(refused)?;
    if name.is_empty() { Err(refused()) } else { Ok((name.to_owned(), weight)) }
}

/// `36h`, `90m`, `1533s`, `28d` in days.
pub(crate) fn parse_days(text: &str) -> Result<f64, String> {
    let refused = || format!("'{text}' is not a duration; write 1533s, 90m, 36h or 28d");
    let unit = text.chars().last().ok_or_else(refused)?;
    let days = match unit {
        's' => 1.0 / 86_400.0,
        'm' => 1.0 / 1_440.0,
        'h' => 1.0 / 24.0,
        'd' => 1.0,
        _ => return Err(refused()),
    };
    let number = text[..text.len() - unit.len_utf8()].parse::<f64>().map_err(|_| refused())?;
    if number.is_finite() && number > 0.0 { Ok(number * days) } else { Err(refused()) }
}

/// `512MB`, `4GB`, `1048576` in bytes.
pub(crate) fn parse_bytes(text: &str) -> Result<usize, String> {
    let refused = || format!("'{text}' is not a size; write 512MB, 4GB or a number of bytes");
    let upper = text.trim().to_ascii_uppercase();
    let units = [("KB", 1usize << 10), ("MB", 1 << 20), ("GB", 1 << 30), ("B", 1), ("", 1)];
    let (number, unit) =
        units.iter().find_map(|(end, unit)| upper.strip_suffix(end).map(|n| (n, *unit))).ok_or_else(refused)?;
    let number = number.trim().parse::<usize>().map_err(|_| refused())?;
    number.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(refused)
}
