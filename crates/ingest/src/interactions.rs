//! Interactions from files.

use std::sync::Arc;

use item_affinity_model::Interactions;
use item_affinity_storage::{InputFile, Stores};
use tokio::task::spawn_blocking;

use crate::error::{Error, Result, printable};
use crate::event_types::{EventTypeCounts, EventTypes};
use crate::inputs::Inputs;
use crate::magnitudes::{Magnitudes, decide_unit, to_seconds};
use crate::merge::{Merged, Rows};
use crate::oddities::{latest_time, list_types, odd_times, odd_types};
use crate::part::{COLUMNS, Part, TIME};
use crate::profile::Completeness;
use crate::readers::{ReadProgress, read_parts};
use crate::schema::Dataset;
use crate::size_limit::refuse_rows;
use crate::source::InteractionsSource;
use crate::tally::{RowCounts, Sighting, Tally, Warning};

/// Interactions with everything that was noticed while they were read.
#[derive(Debug)]
pub struct Ingested {
    /// The event log, ready for the model.
    pub interactions: Interactions,
    /// The files, pinned as they were read.
    pub inputs: Vec<InputFile>,
    /// What happened to each row.
    pub counts: RowCounts,
    /// Event types over all rows, before any filter.
    pub event_types: EventTypeCounts,
    /// The contract's columns that the files have, and how complete they are over all rows.
    pub columns: Vec<Completeness>,
    /// What is odd but does not stop a job.
    pub warnings: Vec<Warning>,
}

/// Reads the event log of some files into the model's types.
///
/// The result depends on the rows alone: not on their order, nor on files, row groups, codecs or types of columns.
/// `observer` is called after each batch, from the task that awaits this future.
///
/// # Errors
/// Everything in [`Error`] that concerns Interactions, before anything is returned: all files are opened and their
/// columns checked first; too many bad rows, two units of time and filters that leave nothing are known at the end.
///
/// # Cost
/// 36 bytes a kept row while they are sorted, 44 if rows may weigh differently, and 20 afterwards; the ids once per reader.
pub async fn read_interactions(
    stores: &Stores,
    source: &InteractionsSource,
    observer: &(dyn Fn(ReadProgress) + Sync),
) -> Result<Ingested> {
    source.validate()?;
    let (columns, needed, schema) = (&source.columns, source.needed(), source.schema.as_ref());
    let inputs = Inputs::open(stores, Dataset::Interactions, &source.locations, columns, &needed, schema).await?;
    let total_rows = inputs.rows();
    let labels = inputs.labels();
    let completeness = Completeness::of_files(&inputs);
    let Inputs { files, opened, mut warnings } = inputs;
    let time_column =
        opened.first().and_then(|file| file.bound.sources[TIME].name()).unwrap_or("TIMESTAMP").to_string();

    let parts = read_parts(opened, source, total_rows, observer).await?;
    let (mut sum, mut rows) = (Sum::default(), Vec::with_capacity(parts.len()));
    let mut event_types = Vec::new();
    let mut bare = Vec::new();
    for mut part in parts {
        rows.push(Rows::take(&mut part));
        bare.push(std::mem::take(&mut part.bare));
        event_types.push(sum.take(&mut part));
    }
    let event_types = EventTypes::merge(event_types);
    let kept = rows.iter().map(|part| part.time.len() as u64).sum();
    let mut counts = sum.tally.counts(kept, &labels);
    counts.check(source.limits())?;
    // Files that do not tell their rows before they are read.
    refuse_rows(Dataset::Interactions, [Some(kept)].into_iter(), labels.first().map_or("", String::as_str))?;
    if kept == 0 {
        return Err(nothing_left(source, &counts, &event_types, &labels));
    }
    let (unit, warning) = decide_unit(&sum.magnitudes, &labels, &time_column)?;
    warnings.extend(warning);
    for (part, ranges) in rows.iter_mut().zip(bare) {
        for range in ranges {
            if let Some(times) = part.time.get_mut(range) {
                to_seconds(times, unit);
            }
        }
    }
    warnings.extend(counts.warnings());
    odd_types(source, &event_types, &mut warnings);
    let latest = latest_time();
    let ahead = rows.iter().map(|part| part.time.iter().filter(|time| **time > latest).count() as u64).sum();
    odd_times(&sum.times_at_zero, &sum.times_negative, ahead, &time_column, &mut warnings);

    let by_value = source.value_as_weight;
    let merged = spawn_blocking(move || Merged::of(rows)).await.map_err(Error::Task)??;
    let forgotten = Arc::clone(&source.forgotten);
    let (merged, gone) = spawn_blocking(move || merged.without(&forgotten)).await.map_err(Error::Task)??;
    (counts.kept, counts.forgotten) = (kept - gone, gone);
    if merged.time.is_empty() {
        return Err(all_forgotten(gone));
    }
    let merged = check_weights(merged, by_value, &mut warnings)?;
    let interactions = spawn_blocking(move || merged.into_interactions()).await.map_err(Error::Task)??;
    let columns = Completeness::with_nulls(completeness, &sum.nulls, counts.rows);
    Ok(Ingested { interactions, inputs: files, counts, event_types, columns, warnings })
}

/// The counts of all readers.
#[derive(Default)]
pub(crate) struct Sum {
    pub(crate) tally: Tally,
    pub(crate) magnitudes: Magnitudes,
    pub(crate) times_at_zero: Sighting,
    pub(crate) times_negative: Sighting,
    nulls: [u64; COLUMNS],
}

impl Sum {
    /// Takes what a reader counted, and gives its event types.
    pub(crate) fn take(&mut self, part: &mut Part) -> EventTypes {
        self.tally.merge(std::mem::take(&mut part.tally));
        self.magnitudes.merge(part.magnitudes);
        self.times_at_zero.merge(part.times_at_zero);
        self.times_negative.merge(part.times_negative);
        for (sum, nulls) in self.nulls.iter_mut().zip(part.nulls) {
            *sum += nulls;
        }
        std::mem::replace(&mut part.event_types, EventTypes::new(&[], &[]))
    }
}

pub(crate) fn all_forgotten(interactions: u64) -> Error {
    Error::NoInteractions {
        what: format!("all {interactions} interactions are of users who were forgotten"),
        cure: "train elsewhere, or on interactions of other users".into(),
    }
}

pub(crate) fn nothing_left(
    source: &InteractionsSource,
    counts: &RowCounts,
    event_types: &EventTypeCounts,
    labels: &[String],
) -> Error {
    if counts.rows == 0 {
        let first = labels.first().map(String::as_str).unwrap_or_default();
        let files = if labels.len() == 1 { "1 file".to_string() } else { format!("{} files", labels.len()) };
        let what = format!("{files} without a row; file={first}");
        return Error::NoInteractions { what, cure: "training needs at least 1000 interactions of 25 users".into() };
    }
    let mut lost = Vec::new();
    let mut cures = Vec::new();
    if counts.filtered_by_event_type > 0 {
        let asked: Vec<String> = source.event_types.iter().map(|name| printable(name)).collect();
        lost.push(format!("--event-type {} removed {}", asked.join(","), counts.filtered_by_event_type));
        cures.push("name an event type that occurs");
    }
    if counts.filtered_by_event_value > 0 {
        let threshold = source.event_value_threshold.unwrap_or_default();
        lost.push(format!("--event-value-threshold {threshold} removed {}", counts.filtered_by_event_value));
        cures.push("lower the threshold");
    }
    if counts.rejected_rows() > 0 {
        lost.push(format!("{} were rejected", counts.rejected_rows()));
        cures.push("mend the rejected rows");
    }
    let mut what = format!("none of {} rows is left: {}", counts.rows, lost.join(", "));
    if counts.filtered_by_event_type > 0 {
        what.push_str(&format!("; event types found [{}]", list_types(event_types)));
    }
    Error::NoInteractions { what, cure: cures.join(" or ") }
}

/// Weights that say nothing are replaced by 1, and weights that leave nothing are refused.
fn check_weights(mut merged: Merged, by_value: bool, warnings: &mut Vec<Warning>) -> Result<Merged> {
    let first = merged.weight.first().copied().unwrap_or(1.0);
    if by_value && first != 1.0 && merged.weight.iter().all(|weight| *weight == first) {
        warnings.push(Warning::new(
            "EVENT_VALUES_EQUAL",
            format!("all weights are {first}; count={} column=EVENT_VALUE; every event counts 1", merged.weight.len()),
        ));
        merged.weight.fill(1.0);
    }
    if merged.weight.iter().all(|weight| *weight == 0.0) {
        return Err(Error::NoInteractions {
            what: format!("each of {} interactions weighs 0", merged.weight.len()),
            cure: "give a weight above 0 to an event type that occurs (--event-weights)".into(),
        });
    }
    Ok(merged)
}
