//! Interactions from Parquet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use item_affinity_model::Interactions;
use item_affinity_storage::{InputFile, Stores};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};

use crate::error::{Error, Result, printable};
use crate::event_types::{EventTypeCounts, EventTypes};
use crate::inputs::{Inputs, Opened};
use crate::merge::{Merged, Rows, decide_unit, to_seconds};
use crate::part::{COLUMNS, Magnitudes, Part, TIME};
use crate::profile::Completeness;
use crate::schema::Dataset;
use crate::source::InteractionsSource;
use crate::tally::{RowCounts, Sighting, Tally, Warning};

/// How far a read is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReadProgress {
    /// Rows read so far.
    pub rows: u64,
    /// Rows in all files.
    pub total_rows: u64,
}

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

/// Rows in a batch: a few hundred kilobytes of each column, which stay in the cache from decoder to interner.
const BATCH_ROWS: usize = 8_192;
/// Row groups are handed out in runs of at least this many rows, so that small ones do not cost a request each.
const UNIT_ROWS: u64 = 250_000;
/// More readers than that wait for memory, and each has a vocabulary of its own.
const MOST_READERS: usize = 16;

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
/// 20 bytes a kept row, twice while they are sorted, and the ids once per reader.
pub async fn read_interactions(
    stores: &Stores,
    source: &InteractionsSource,
    observer: &(dyn Fn(ReadProgress) + Sync),
) -> Result<Ingested> {
    source.validate()?;
    let inputs =
        Inputs::open(stores, Dataset::Interactions, &source.locations, &source.columns, &source.needed()).await?;
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
        event_types.push(sum.add(part));
    }
    let event_types = EventTypes::merge(event_types);
    let kept = rows.iter().map(|part| part.time.len() as u64).sum();
    let counts = sum.tally.counts(kept, &labels);
    counts.check(source.limits())?;
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
    warn_about_types(source, &event_types, &mut warnings);
    warn_about_times(&sum, &rows, &time_column, &mut warnings);

    let by_value = source.value_as_weight;
    let merged = spawn_blocking(move || Merged::of(rows)).await.map_err(Error::Task)??;
    let merged = check_weights(merged, by_value, &mut warnings)?;
    let interactions = spawn_blocking(move || merged.into_interactions()).await.map_err(Error::Task)??;
    let columns = Completeness::with_nulls(completeness, &sum.nulls, counts.rows);
    Ok(Ingested { interactions, inputs: files, counts, event_types, columns, warnings })
}

/// The counts of all readers.
#[derive(Default)]
struct Sum {
    tally: Tally,
    magnitudes: Magnitudes,
    times_at_zero: Sighting,
    times_negative: Sighting,
    nulls: [u64; COLUMNS],
}

impl Sum {
    fn add(&mut self, part: Part) -> EventTypes {
        self.tally.merge(part.tally);
        self.magnitudes.merge(part.magnitudes);
        self.times_at_zero.merge(part.times_at_zero);
        self.times_negative.merge(part.times_negative);
        for (sum, nulls) in self.nulls.iter_mut().zip(part.nulls) {
            *sum += nulls;
        }
        part.event_types
    }
}

/// A run of row groups of one file.
#[derive(Debug)]
struct Unit {
    file: usize,
    row_groups: Vec<usize>,
    first_row: u64,
}

fn units(files: &[Opened]) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for (file, opened) in files.iter().enumerate() {
        let (mut row, mut run) = (0, Unit { file, row_groups: Vec::new(), first_row: 0 });
        for row_group in 0..opened.input.row_groups() {
            run.row_groups.push(row_group);
            row += opened.input.row_group_rows(row_group);
            if row - run.first_row >= UNIT_ROWS {
                units.push(std::mem::replace(&mut run, Unit { file, row_groups: Vec::new(), first_row: row }));
            }
        }
        if row > run.first_row {
            units.push(run);
        }
    }
    units
}

/// What the readers share.
struct Work {
    files: Vec<Opened>,
    units: Vec<Unit>,
    next: AtomicUsize,
    stopped: AtomicBool,
}

/// Stops the readers when the read is dropped: blocking tasks cannot be aborted from outside.
struct StopOnDrop(Arc<Work>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }
}

async fn read_parts(
    files: Vec<Opened>,
    source: &InteractionsSource,
    total_rows: u64,
    observer: &(dyn Fn(ReadProgress) + Sync),
) -> Result<Vec<Part>> {
    let units = units(&files);
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let readers = source.threads.unwrap_or_else(processors).min(units.len()).clamp(1, MOST_READERS);
    let work = Arc::new(Work { files, units, next: AtomicUsize::new(0), stopped: AtomicBool::new(false) });
    let _stop = StopOnDrop(Arc::clone(&work));
    let rules = Arc::new(source.rules());
    let (sender, mut progress) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for _ in 0..readers {
        let (work, rules, sender) = (Arc::clone(&work), Arc::clone(&rules), sender.clone());
        let runtime = tokio::runtime::Handle::current();
        // Decoding is work, not waiting: it would hold up whatever else the runtime's threads have to do.
        tasks.spawn_blocking(move || {
            let result = runtime.block_on(read_units(&work, rules, &sender));
            if result.is_err() {
                work.stopped.store(true, Ordering::Relaxed);
            }
            result
        });
    }
    drop(sender);
    let mut rows = 0;
    while let Some(read) = progress.recv().await {
        rows += read;
        observer(ReadProgress { rows, total_rows });
    }
    let mut parts = Vec::new();
    let mut failures = Vec::new();
    while let Some(result) = tasks.join_next().await {
        match result.map_err(Error::Task)? {
            Ok(part) => parts.push(part),
            Err(failure) => failures.push(failure),
        }
    }
    // Of several failures the one that comes first in the input is told, whichever was met first.
    match failures.into_iter().min_by_key(|(unit, _)| *unit) {
        Some((_, error)) => Err(error),
        None => Ok(parts),
    }
}

/// Takes unit after unit until none is left.
async fn read_units(
    work: &Work,
    rules: Arc<crate::part::Rules>,
    progress: &mpsc::UnboundedSender<u64>,
) -> std::result::Result<Part, (usize, Error)> {
    let mut part = Part::new(rules);
    loop {
        let number = work.next.fetch_add(1, Ordering::Relaxed);
        let Some(unit) = work.units.get(number) else { return Ok(part) };
        read_unit(work, unit, &mut part, progress).await.map_err(|error| (number, error))?;
    }
}

async fn read_unit(work: &Work, unit: &Unit, part: &mut Part, progress: &mpsc::UnboundedSender<u64>) -> Result<()> {
    let file = &work.files[unit.file];
    let columns = &file.bound.projection;
    let mut batches = file.input.stream_row_groups(&unit.row_groups, columns, BATCH_ROWS).await?;
    let mut row = unit.first_row;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        if work.stopped.load(Ordering::Relaxed) {
            return Ok(());
        }
        part.add(&file.bound, row, &batch)?;
        row += batch.num_rows() as u64;
        // Nobody listens any more when the read was dropped; the next batch then stops.
        let _ = progress.send(batch.num_rows() as u64);
    }
    Ok(())
}

fn nothing_left(
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

/// The event types that occur, the most frequent first, with their rows.
pub(crate) fn list_types(counts: &EventTypeCounts) -> String {
    const SHOWN: usize = 10;
    let mut listed: Vec<String> = counts
        .types
        .iter()
        .take(SHOWN)
        .map(|count| format!("{} {}", printable(&count.event_type), count.rows))
        .collect();
    if counts.types.len() > SHOWN {
        listed.push(format!("… {} more", counts.types.len() - SHOWN));
    }
    if counts.without > 0 {
        listed.push(format!("(null) {}", counts.without));
    }
    listed.join(", ")
}

fn warn_about_types(source: &InteractionsSource, found: &EventTypeCounts, warnings: &mut Vec<Warning>) {
    let occurs = |name: &String| found.types.iter().any(|count| count.event_type == *name);
    let named = source.event_types.iter().chain(source.event_weights.iter().map(|(name, _)| name));
    let mut unseen: Vec<String> = named.filter(|name| !occurs(name)).map(|name| printable(name)).collect();
    unseen.dedup();
    if !unseen.is_empty() {
        warnings.push(Warning::new(
            "EVENT_TYPE_UNSEEN",
            format!("no row has event type {}; event types found [{}]", unseen.join(", "), list_types(found)),
        ));
    }
    if source.event_weights.is_empty() {
        return;
    }
    let counts_here = |name: &String| source.event_types.is_empty() || source.event_types.contains(name);
    let weighed = |name: &String| source.event_weights.iter().any(|(other, _)| other == name);
    let unlisted: Vec<String> = found
        .types
        .iter()
        .filter(|count| counts_here(&count.event_type) && !weighed(&count.event_type))
        .take(10)
        .map(|count| printable(&count.event_type))
        .collect();
    if !unlisted.is_empty() {
        warnings.push(Warning::new(
            "EVENT_WEIGHT_DEFAULT",
            format!("no weight is given for {}; each such event weighs 1", unlisted.join(", ")),
        ));
    }
}

fn warn_about_times(sum: &Sum, rows: &[Rows], column: &str, warnings: &mut Vec<Warning>) {
    let column = printable(column);
    let mut warn = |code, what: &str, sighting: &Sighting, meaning: &str| {
        if let Some(first) = sighting.first {
            let message =
                format!("{what}; count={} first_row={} column={column}; {meaning}", sighting.count, first.row);
            warnings.push(Warning::new(code, message));
        }
    };
    warn("TIMESTAMP_ZERO", "time 0", &sum.times_at_zero, "it counts as 1970-01-01; often it stands for no time");
    warn("TIMESTAMP_NEGATIVE", "times before 1970", &sum.times_negative, "they count as given");
    const DAY: i64 = 86_400;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    let latest = now.saturating_add(DAY);
    let ahead: usize = rows.iter().map(|part| part.time.iter().filter(|time| **time > latest).count()).sum();
    if ahead > 0 {
        let message =
            format!("times more than a day ahead of this clock; count={ahead} column={column}; they count as given");
        warnings.push(Warning::new("TIMESTAMP_FUTURE", message));
    }
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
