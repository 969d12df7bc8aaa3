//! Readers side by side: which reads what, and how far they are.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use futures::future::{Either, select};
use item_affinity_model::Vocabulary;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::census::Census;
use crate::error::{Error, Result};
use crate::inputs::Opened;
use crate::part::Part;
use crate::size_limit::ReadMemory;
use crate::source::InteractionsSource;

/// How far a read is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReadProgress {
    /// Rows read so far.
    pub rows: u64,
    /// Rows in all files; 0 when only reading them tells, as with CSV.
    pub total_rows: u64,
}

/// Rows in a batch: a few hundred kilobytes of each column, which stay in the cache from decoder to interner.
pub(crate) const BATCH_ROWS: usize = 8_192;
/// Row groups are handed out in runs of at least this many rows, so that small ones do not cost a request each.
const UNIT_ROWS: u64 = 250_000;
/// More readers than that wait for memory, and each has a vocabulary of its own.
const MOST_READERS: usize = 16;

/// A run of row groups of one file.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) file: usize,
    pub(crate) row_groups: Vec<usize>,
    pub(crate) first_row: u64,
}

pub(crate) fn units(files: &[Opened]) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for (file, opened) in files.iter().enumerate() {
        let (mut row, mut run) = (0, Unit { file, row_groups: Vec::new(), first_row: 0 });
        for row_group in 0..opened.input.row_groups() {
            run.row_groups.push(row_group);
            // How much it is, where only reading tells, is enough for a unit.
            row += opened.input.row_group_rows(row_group).unwrap_or(UNIT_ROWS);
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
    memory: ReadMemory,
    stopped: watch::Sender<bool>,
}

impl Work {
    fn stop(&self) {
        self.stopped.send_replace(true);
    }
}

/// Stops the readers when the read is dropped: blocking tasks cannot be aborted from outside.
struct StopOnDrop(Arc<Work>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Reads the rows of all files, each reader a part of them.
///
/// # Errors
/// Of several failures the one that comes first in the input.
pub(crate) async fn read_parts(
    files: Vec<Opened>,
    source: &InteractionsSource,
    total_rows: u64,
    observer: &(dyn Fn(ReadProgress) + Sync),
) -> Result<Vec<Part>> {
    read_all(files, source, total_rows, observer, None).await
}

/// The same without keeping rows: each reader counts who and what is in its share, and which items of these.
///
/// # Errors
/// As [`read_parts`].
pub(crate) async fn census_parts(
    files: Vec<Opened>,
    source: &InteractionsSource,
    total_rows: u64,
    observer: &(dyn Fn(ReadProgress) + Sync),
    items: Arc<Vocabulary>,
) -> Result<Vec<Part>> {
    read_all(files, source, total_rows, observer, Some(items)).await
}

async fn read_all(
    files: Vec<Opened>,
    source: &InteractionsSource,
    total_rows: u64,
    observer: &(dyn Fn(ReadProgress) + Sync),
    census: Option<Arc<Vocabulary>>,
) -> Result<Vec<Part>> {
    let units = units(&files);
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let readers = source.threads.unwrap_or_else(processors).min(units.len()).clamp(1, MOST_READERS);
    let rules = Arc::new(source.rules());
    let memory = ReadMemory::new(source.memory_limit, rules.weighs());
    // A census keeps no row.
    if census.is_none() && source.keeps_all() {
        memory.refuse(total_rows)?;
    }
    let (next, stopped) = (AtomicUsize::new(0), watch::Sender::new(false));
    let work = Arc::new(Work { files, units, next, memory, stopped });
    let _stop = StopOnDrop(Arc::clone(&work));
    let (sender, mut progress) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for _ in 0..readers {
        let (work, sender) = (Arc::clone(&work), sender.clone());
        let mut part = Part::new(Arc::clone(&rules));
        part.census = census.clone().map(|items| Box::new(Census::of(items, Arc::clone(&source.forgotten))));
        let runtime = tokio::runtime::Handle::current();
        // Decoding is work, not waiting: it would hold up whatever else the runtime's threads have to do.
        tasks.spawn_blocking(move || {
            let result = runtime.block_on(read_units(&work, part, &sender));
            if result.is_err() {
                work.stop();
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
    match failures.into_iter().min_by_key(|failure| failure.unit) {
        Some(failure) => Err(failure.error),
        None => Ok(parts),
    }
}

/// Why a reader gave up, and at which unit.
struct Failure {
    unit: usize,
    error: Error,
}

/// Takes unit after unit until none is left.
async fn read_units(
    work: &Work,
    mut part: Part,
    progress: &mpsc::UnboundedSender<u64>,
) -> std::result::Result<Part, Box<Failure>> {
    let mut held = 0;
    while !*work.stopped.borrow() {
        let number = work.next.fetch_add(1, Ordering::Relaxed);
        let Some(unit) = work.units.get(number) else { break };
        read_unit(work, unit, &mut part, &mut held, progress)
            .await
            .map_err(|error| Box::new(Failure { unit: number, error }))?;
    }
    Ok(part)
}

/// held: bytes of the part that are counted, before and after
async fn read_unit(
    work: &Work,
    unit: &Unit,
    part: &mut Part,
    held: &mut u64,
    progress: &mpsc::UnboundedSender<u64>,
) -> Result<()> {
    let file = &work.files[unit.file];
    let columns = &file.bound.projection;
    let mut batches = file.input.stream_row_groups(&unit.row_groups, columns, BATCH_ROWS).await?;
    let mut row = unit.first_row;
    let mut stopped = work.stopped.subscribe();
    let mut stop = pin!(async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    });
    // A store may take minutes to answer: the wait for it ends too when nobody wants the answer any more.
    while let Either::Left((Some(batch), _)) = select(batches.next(), &mut stop).await {
        let batch = batch?;
        // The other side of the selection is not looked at while batches are always ready.
        if *work.stopped.borrow() {
            break;
        }
        part.add(&file.bound, row, &batch)?;
        part.condense();
        *held = work.memory.grow(*held, part.time.len(), part.id_bytes())?;
        row += batch.num_rows() as u64;
        // Nobody listens any more when the read was dropped.
        let _ = progress.send(batch.num_rows() as u64);
    }
    Ok(())
}
