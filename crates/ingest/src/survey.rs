//! A first look at an event log, which keeps its ids and none of its rows: what a refresh in parts has to know.

use std::sync::Arc;

use item_affinity_model::Vocabulary;
use item_affinity_storage::{InputFile, Stores};
use tokio::task::spawn_blocking;

use crate::census::{Counted, Span, Weights};
use crate::error::{Error, Result};
use crate::event_types::EventTypes;
use crate::inputs::Inputs;
use crate::interactions::{Sum, all_forgotten, nothing_left};
use crate::log_units::{LogRules, LogUnit, units_of};
use crate::magnitudes::decide_unit;
use crate::oddities::{odd_times, odd_types};
use crate::part::TIME;
use crate::readers::{ReadProgress, census_parts};
use crate::report::too_little;
use crate::schema::Dataset;
use crate::source::InteractionsSource;
use crate::tally::{RowCounts, Warning};

/// Who and what is in an event log.
#[derive(Debug)]
pub struct Survey {
    /// Users with a known item.
    pub users: Vocabulary,
    /// Rows that count, with whatever item.
    pub interactions: u64,
    /// Those with a known item.
    pub known_interactions: u64,
    /// Users, with whatever items.
    pub all_users: u64,
    /// Those with two or more interactions.
    pub users_with_two_or_more: u64,
    /// Items that are not known.
    pub unknown_items: u64,
    /// Epoch seconds of the oldest and of the newest row that counts.
    pub times: (i64, i64),
    /// The largest step that all distances between times are multiples of; 0 when there is one time alone.
    pub step: i64,
    /// The files, pinned as they were read.
    pub inputs: Vec<InputFile>,
    /// What happened to each row.
    pub counts: RowCounts,
    /// What is odd but does not stop a job.
    pub warnings: Vec<Warning>,
    /// How the rows are read again.
    pub rules: LogRules,
    /// What is read again.
    pub units: Vec<LogUnit>,
}

impl Survey {
    /// Refuses data that is too little for a training, as [`DataReport::refusal`](crate::DataReport::refusal) does, by
    /// what is known without comparing rows: repeated interactions count.
    ///
    /// # Errors
    /// [`Error::TooLittleData`], [`Error::TimestampsEqual`].
    pub fn refusal(&self, allow_small: bool) -> Result<()> {
        too_little(self.interactions, self.all_users, self.users_with_two_or_more, self.times, allow_small)
    }
}

/// Looks at all rows of some files, by the rules of a read; `items` are known.
///
/// # Errors
/// Those of [`read_interactions`](crate::read_interactions).
///
/// # Cost
/// The ids of users and items once per reader; no row stays.
pub async fn survey_interactions(
    stores: &Stores,
    source: &InteractionsSource,
    items: Arc<Vocabulary>,
    observer: &(dyn Fn(ReadProgress) + Sync),
) -> Result<Survey> {
    source.validate()?;
    let (columns, needed, schema) = (&source.columns, source.needed(), source.schema.as_ref());
    let inputs = Inputs::open(stores, Dataset::Interactions, &source.locations, columns, &needed, schema).await?;
    let (total_rows, labels) = (inputs.rows(), inputs.labels());
    let Inputs { files, opened, mut warnings } = inputs;
    let time_column =
        opened.first().and_then(|file| file.bound.sources[TIME].name()).unwrap_or("TIMESTAMP").to_string();
    let units = units_of(&files, &opened);

    let mut parts = census_parts(opened, source, total_rows, observer, items).await?;
    let (mut sum, mut event_types) = (Sum::default(), Vec::new());
    let (mut kept, mut gone, mut known, mut weights) = (0, 0, 0, Weights::default());
    for part in &mut parts {
        event_types.push(sum.take(part));
        if let Some(census) = &part.census {
            kept += census.kept;
            gone += census.forgotten;
            known += census.known;
            weights.merge(census.weights);
        }
    }
    let event_types = EventTypes::merge(event_types);
    let mut counts = sum.tally.counts(kept, &labels);
    counts.check(source.limits())?;
    if kept + gone == 0 {
        return Err(nothing_left(source, &counts, &event_types, &labels));
    }
    counts.forgotten = gone;
    if kept == 0 {
        return Err(all_forgotten(gone));
    }
    let (unit, warning) = decide_unit(&sum.magnitudes, &labels, &time_column)?;
    warnings.extend(warning);
    warnings.extend(counts.warnings());
    odd_types(source, &event_types, &mut warnings);
    let ahead = parts.iter().filter_map(|part| part.census.as_ref()).map(|census| census.ahead(unit)).sum();
    odd_times(&sum.times_at_zero, &sum.times_negative, ahead, &time_column, &mut warnings);
    let mut span: Option<Span> = None;
    for census in parts.iter().filter_map(|part| part.census.as_ref()) {
        let of_part = census.span(unit);
        span.get_or_insert(of_part).merge(of_part);
    }
    let alike = weights.all_the_same().filter(|weight| source.value_as_weight && *weight != 1.0);
    if let Some(first) = alike {
        warnings.push(Warning::new(
            "EVENT_VALUES_EQUAL",
            format!("all weights are {first}; count={kept} column=EVENT_VALUE; every event counts 1"),
        ));
    } else if weights.are_all_zero() {
        return Err(Error::NoInteractions {
            what: format!("each of {kept} interactions weighs 0"),
            cure: "give a weight above 0 to an event type that occurs (--event-weights)".into(),
        });
    }
    let merge = move || Ok::<_, Error>((Counted::users(&mut parts)?, Counted::items(&mut parts)?));
    let (users, items) = spawn_blocking(merge).await.map_err(Error::Task)??;
    let times = span.map_or((0, 0), |span| (span.oldest, span.newest));
    Ok(Survey {
        interactions: kept,
        known_interactions: known,
        all_users: users.ids,
        users_with_two_or_more: users.with_two_or_more,
        users: users.known,
        unknown_items: items.ids.saturating_sub(items.known.len() as u64),
        times,
        step: span.map_or(0, |span| span.step),
        inputs: files,
        counts,
        warnings,
        rules: LogRules::of(source, unit, alike.is_some()),
        units,
    })
}
