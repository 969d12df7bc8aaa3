//! Interactions, Items and Users from Parquet or CSV into the model's types, and the data report.
//!
//! ```no_run
//! use item_affinity_ingest::{DataReport, InteractionsSource, read_interactions};
//! use item_affinity_storage::{Location, Stores};
//!
//! # async fn example() -> item_affinity_ingest::Result<()> {
//! let mut source = InteractionsSource::new(vec![Location::parse("s3://lake/interactions/")?]);
//! source.columns = "user_id=household_id".parse()?;
//! source.event_types = vec!["purchase".to_string()];
//! let ingested = read_interactions(&Stores::from_env(), &source, &|_| {}).await?;
//! let report = DataReport::new(&ingested, None, None);
//! println!("{report}");
//! report.refusal(false)?;
//! println!("{} users", ingested.interactions.users().len());
//! # Ok(())
//! # }
//! ```
//!
//! What is read does not depend on the order of rows, nor on files, row groups, codecs or column types: ids are sorted
//! and so are the rows of each user. A row that breaks a rule is rejected, counted by reason, and, past a limit, an
//! error of one line that says what to do. No message holds a user id.

mod attribute_encoding;
mod attribute_selection;
mod attribute_values;
mod attributes;
mod bound_file;
mod census;
mod columns;
mod csv_input;
mod dataset_schema;
mod error;
mod event_types;
mod event_value;
mod folder_column;
mod ids;
mod inputs;
mod interactions;
mod log_units;
mod look_alikes;
mod magnitudes;
mod merge;
mod metadata;
mod nearest;
mod oddities;
mod part;
mod profile;
mod readers;
mod recent_codes;
mod report;
mod report_text;
mod schema;
mod size_limit;
mod source;
mod survey;
mod table_input;
mod tally;
mod text;
mod text_codes;
mod timestamp;

pub use attribute_selection::AttributeSelection;
pub use attributes::AlignedAttributes;
pub use columns::ColumnMapping;
pub use csv_input::{CsvRows, read_csv};
pub use dataset_schema::DatasetSchema;
pub use error::{Error, Place, Result};
pub use event_types::{EventTypeCount, EventTypeCounts};
pub use ids::LONGEST_ID;
pub use interactions::{Ingested, read_interactions};
pub use log_units::{LogRows, LogRules, LogUnit};
pub use metadata::{Metadata, MetadataSource, read_metadata, read_metadata_from, read_metadata_with};
pub use nearest::nearest_name;
pub use profile::{ColumnProfile, Completeness, LONGEST_CATEGORY, MOST_CATEGORIES};
pub use readers::ReadProgress;
pub use report::{
    DataReport, Finding, LEAST_COMPLETE, LEAST_INTERACTIONS, LEAST_SHARE_WITH_TWO, LEAST_USERS_WITH_TWO, Level,
    MANY_CATEGORIES, MOST_EVENT_TYPES, MOST_INTERACTIONS_CONSIDERED, MetadataReport, RECOMMENDED_INTERACTIONS,
    RECOMMENDED_USERS,
};
pub use schema::{Accepts, ColumnContract, Dataset, EVENT_TYPE, EVENT_VALUE, ITEM_ID, TIMESTAMP, USER_ID};
pub use size_limit::MemoryNeed;
pub use source::{InteractionsSource, parse_event_weights};
pub use survey::{Survey, survey_interactions};
pub use tally::{Rejected, RowCounts, Warning};
pub use timestamp::TimestampUnit;
