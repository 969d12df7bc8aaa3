//! An event log cut into units of work that other processes read.

use std::sync::Arc;

use futures::TryStreamExt;
use item_affinity_model::Vocabulary;
use item_affinity_storage::{Stores, Tombstones, TravelledFile};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::columns::ColumnMapping;
use crate::dataset_schema::DatasetSchema;
use crate::error::{Error, Result};
use crate::inputs::Opened;
use crate::magnitudes::to_seconds;
use crate::merge::{Merged, Rows};
use crate::part::Part;
use crate::readers::{BATCH_ROWS, units};
use crate::schema::Dataset;
use crate::source::InteractionsSource;
use crate::table_input::TableInput;
use crate::timestamp::TimestampUnit;

/// A run of row groups of one file, read by one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogUnit {
    file: TravelledFile,
    row_groups: Vec<usize>,
    first_row: u64,
}

/// By which rules rows of an event log count, once all of it has been looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogRules {
    columns: Vec<(String, String)>,
    /// In the words of its file.
    schema: Option<String>,
    event_types: Vec<String>,
    event_value_threshold: Option<f64>,
    event_weights: Vec<(String, f32)>,
    value_as_weight: bool,
    timestamp_unit: Option<TimestampUnit>,
    /// The unit of times without one.
    bare_unit: TimestampUnit,
    /// Whether every event counts 1, because all weigh the same.
    alike: bool,
}

/// The rows of a unit that count; indexes are places among the ids, which ascend.
#[derive(Debug, PartialEq)]
pub struct LogRows {
    /// Users of the rows.
    pub users: Vocabulary,
    /// Items of the rows.
    pub items: Vocabulary,
    /// One per row.
    pub user_index: Vec<u32>,
    /// One per row.
    pub item_index: Vec<u32>,
    /// Epoch seconds.
    pub time: Vec<i64>,
    /// 1 for an ordinary event.
    pub weight: Vec<f32>,
}

impl LogRules {
    pub(crate) fn of(source: &InteractionsSource, bare_unit: TimestampUnit, alike: bool) -> Self {
        Self {
            columns: source.columns.iter().map(|(ours, theirs)| (ours.to_owned(), theirs.to_owned())).collect(),
            schema: source.schema.as_ref().map(|schema| schema.source().to_owned()),
            event_types: source.event_types.clone(),
            event_value_threshold: source.event_value_threshold,
            event_weights: source.event_weights.clone(),
            value_as_weight: source.value_as_weight,
            timestamp_unit: source.timestamp_unit,
            bare_unit,
            alike,
        }
    }

    fn source(&self) -> Result<InteractionsSource> {
        let mut source = InteractionsSource::new(Vec::new());
        let mut columns = ColumnMapping::new();
        for (ours, theirs) in &self.columns {
            columns.parse(&format!("{ours}={theirs}"))?;
        }
        source.columns = columns;
        let schema = |text: &String| DatasetSchema::parse(text, Dataset::Interactions, "the schema of a task");
        source.schema = self.schema.as_ref().map(schema).transpose()?.map(Arc::new);
        source.event_types.clone_from(&self.event_types);
        source.event_value_threshold = self.event_value_threshold;
        source.event_weights.clone_from(&self.event_weights);
        source.value_as_weight = self.value_as_weight;
        source.timestamp_unit = self.timestamp_unit;
        Ok(source)
    }

    /// Reads the rows of a unit, the same that [`read_interactions`](crate::read_interactions) keeps of them: none of users
    /// who were forgotten.
    ///
    /// # Errors
    /// Those of reading and of binding the file; [`Error::Storage`] when it is not as it was when the log was surveyed.
    ///
    /// # Cost
    /// The rows of the unit in memory, twice while they are sorted by id.
    pub async fn read(&self, stores: &Stores, unit: LogUnit, forgotten: Arc<Tombstones>) -> Result<LogRows> {
        let source = self.source()?;
        let LogUnit { file, row_groups, first_row } = unit;
        let file = file.arrive()?;
        let input = TableInput::open(stores, &file, source.schema.as_ref()).await?;
        let opened = Opened::of(Dataset::Interactions, 0, &file, input, &source.columns, &source.needed())?;
        let Opened { input, bound } = opened;
        let mut part = Part::new(Arc::new(source.rules()));
        let mut batches = input.stream_row_groups(&row_groups, &bound.projection, BATCH_ROWS).await?;
        let mut row = first_row;
        while let Some(batch) = batches.try_next().await? {
            let rows = batch.num_rows() as u64;
            part.add(&bound, row, &batch)?;
            row += rows;
        }
        let (unit, alike) = (self.bare_unit, self.alike);
        spawn_blocking(move || {
            for range in std::mem::take(&mut part.bare) {
                if let Some(times) = part.time.get_mut(range) {
                    to_seconds(times, unit);
                }
            }
            let (merged, _) = Merged::of(vec![Rows::take(&mut part)])?.without(&forgotten)?;
            let Merged { users, items, user, item, time, mut weight } = merged;
            if alike {
                weight.fill(1.0);
            }
            Ok(LogRows { users, items, user_index: user, item_index: item, time, weight })
        })
        .await
        .map_err(Error::Task)?
    }
}

/// The units of some open files.
pub(crate) fn units_of(files: &[item_affinity_storage::InputFile], opened: &[Opened]) -> Vec<LogUnit> {
    let travelled = |unit: crate::readers::Unit| {
        let file = files.get(unit.file)?;
        Some(LogUnit { file: file.into(), row_groups: unit.row_groups, first_row: unit.first_row })
    };
    units(opened).into_iter().filter_map(travelled).collect()
}
