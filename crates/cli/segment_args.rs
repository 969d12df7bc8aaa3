//! The arguments of `segment`.

use std::num::{NonZeroU64, NonZeroUsize};

use clap::{Args, ValueEnum};

use crate::args::parse_bytes;
use crate::commit_args::{CommitArgs, NameArgs};
use crate::where_to_run::WhereToRun;

#[derive(Args)]
pub(crate) struct SegmentArgs {
    /// The solution version: a location, newest version, or location@7.
    #[arg(long, value_name = "LOCATION[@N]")]
    pub(crate) solution: String,
    /// The item list: JSON Lines {"itemId": "…"}, Parquet or CSV with item_id; or a folder or prefix of JSON Lines.
    #[arg(long, value_name = "LOCATION", required_unless_present = "item")]
    pub(crate) items: Option<String>,
    /// One item; may repeat.
    #[arg(long, value_name = "ID", conflicts_with = "items")]
    pub(crate) item: Vec<String>,
    /// Where segments go: empty, or written by segment before.
    #[arg(long, value_name = "LOCATION")]
    pub(crate) output: String,
    /// Users per item, 1 to 5,000,000.
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..=5_000_000))]
    pub(crate) num_results: u64,
    /// Items allowed in one input file.
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN.saturating_add(499))]
    pub(crate) max_items: NonZeroUsize,
    /// Whether users who already interacted with an item are in its segment.
    #[arg(long, value_enum, default_value_t = SeenName::Include)]
    pub(crate) seen: SeenName,
    /// Leaves out users whose probability is lower, 0 to 1.
    #[arg(long, value_name = "PROBABILITY", default_value_t = 0.0)]
    pub(crate) min_score: f32,
    /// Withholds segments of fewer users; their items get the error record SUPPRESSED_MIN_K. 100 is advised for exports.
    #[arg(long, value_name = "N")]
    pub(crate) min_segment_users: Option<NonZeroU64>,
    /// Only the users of this data set with user_id, Parquet unless there is a schema, may be in a segment; taken before the best are.
    #[arg(long, value_name = "LOCATION")]
    pub(crate) users: Option<String>,
    /// Those users are CSV of this schema of Amazon Personalize.
    #[arg(long, value_name = "LOCATION", requires = "users")]
    pub(crate) users_schema: Option<String>,
    /// Only those of --users for whom this SQL condition over their columns holds: "country = 'DE'".
    #[arg(long, value_name = "CONDITION", requires = "users")]
    pub(crate) users_filter: Option<String>,
    /// Only those of --users whom this filter of Amazon Personalize keeps: EXCLUDE UserID WHERE Users.COUNTRY IN ("DE");
    /// $NAMES are filled from the filterValues of each line.
    #[arg(long, value_name = "EXPRESSION", requires = "users", conflicts_with = "users_filter")]
    pub(crate) filter: Option<String>,
    /// Writes reasons as well, 1 to 1,000 past items for each user, with their share of the affinity; Parquet only.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(crate) reasons: Option<u64>,
    /// How segments are written.
    #[arg(long, value_enum, default_value_t = SegmentFormat::Parquet)]
    pub(crate) format: SegmentFormat,
    /// What segments replace in the Delta table at --output: nothing, those of the same solution version, or of the same items.
    #[arg(long, value_enum, default_value_t = DeltaModeName::Append)]
    pub(crate) delta_mode: DeltaModeName,
    /// Shape of JSON Lines: usersList as Amazon Personalize really writes it, recommendedUsers as its documents say.
    #[arg(long, value_enum, default_value_t = UsersKeyName::UsersList)]
    pub(crate) users_key: UsersKeyName,
    /// Writes a new version even when the same job was committed before.
    #[arg(long)]
    pub(crate) force: bool,
    /// Ranks with another solution that now lies where the one was that the segments at --output were made from.
    #[arg(long)]
    pub(crate) allow_foreign_solution: bool,
    #[command(flatten)]
    pub(crate) commit: CommitArgs,
    #[command(flatten)]
    pub(crate) name: NameArgs,
    /// Exit code 4 when items have error records.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub(crate) fail_on_item_error: bool,
    /// Bytes that scoring may hold, as 512MB or 4GB; no limit unless said.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub(crate) memory_limit: Option<usize>,
    /// Bytes of temporary files that queries may hold, on the disk of TMPDIR; 100GB unless said.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub(crate) temp_limit: Option<usize>,
    #[command(flatten)]
    pub(crate) place: WhereToRun,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SegmentFormat {
    Parquet,
    JsonLines,
    /// A Delta table, one commit to its log for each run; needs a build with the feature delta.
    Delta,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeltaModeName {
    Append,
    ReplaceVersion,
    ReplaceItems,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SeenName {
    Include,
    Exclude,
    Only,
}

impl From<SeenName> for item_affinity_job::Seen {
    fn from(name: SeenName) -> Self {
        match name {
            SeenName::Include => Self::Include,
            SeenName::Exclude => Self::Exclude,
            SeenName::Only => Self::Only,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UsersKeyName {
    #[value(name = "usersList")]
    UsersList,
    #[value(name = "recommendedUsers")]
    RecommendedUsers,
}
