//! What the tasks of a refresh in parts do: read events, fold users in, write parts of the new version.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::SchemaRef;
use item_affinity_ingest::{LogRows, LogUnit};
use item_affinity_model::{Everyone, FoldIn, Interactions, PartNow, Vocabulary, fold_in_part};
use item_affinity_storage::{Artifact, Bytes, ErrorKind, RunMember, Stores, Tombstones, Versions};
use tokio::sync::OnceCell;

use super::task::{RefreshStage, RefreshTask};
use super::task_rows::{
    EVENTS, Events, FILES, FileKind, GatheredPairs, GatheredUsers, PAIRS, SUMS, Sums, WrittenFile, file_row, file_rows,
    pair_rows,
};
use crate::compute::{blocking, pool};
use crate::error::{Error, Result};
use crate::states::ids_sha256;
use crate::tables::Table;
use crate::tables::encode::StateTable;
use crate::tables::pairs::{self, PART_ROWS, Pair, encode_pairs};
use crate::version::SolutionVersion;

/// What tasks that write have to know of all users.
const EVERYONE: &str = "everyone.sums";
/// Rows of a batch of events: the ids of a unit may be over 2 GiB together, those of a batch are not.
const EVENT_ROWS: usize = 1 << 20;
/// Whose events tasks leave out.
const FORGOTTEN: &str = "forgotten.json";

/// One task of a refresh in parts, with the version that it refreshes.
pub struct RefreshWork {
    task: Arc<RefreshTask>,
    stores: Stores,
    version: Arc<SolutionVersion>,
    items: Arc<Vocabulary>,
    member: RunMember,
    /// Item factors, prepared by whoever folds in first.
    fold: OnceCell<Arc<FoldIn>>,
    /// Read by whoever writes first.
    sums: OnceCell<Arc<Sums>>,
    /// Read by whoever reads events first.
    forgotten: OnceCell<Arc<Tombstones>>,
}

impl RefreshTask {
    /// The rows of a task that reads interactions.
    #[must_use]
    pub fn events_schema() -> SchemaRef {
        Arc::clone(&EVENTS)
    }

    /// The rows of a task that folds users in: sums, or pairs and files.
    #[must_use]
    pub fn folded_schema(&self) -> SchemaRef {
        Arc::clone(if self.stage == RefreshStage::Measure { &SUMS } else { &PAIRS })
    }

    /// The rows of a task that writes pairs: files.
    #[must_use]
    pub fn files_schema() -> SchemaRef {
        Arc::clone(&FILES)
    }

    pub(super) fn member(&self, versions: Versions) -> Result<RunMember> {
        Ok(RunMember::new(versions.with_durability(self.durable), &self.run_id)?)
    }
}

impl RefreshWork {
    /// Begins a task; nothing more is read before it is needed.
    ///
    /// # Errors
    /// [`Error::Storage`] for an environment without a usable store.
    pub fn new(task: Arc<RefreshTask>, stores: &Stores, version: Arc<SolutionVersion>) -> Result<Self> {
        let location = version.reference().location.clone();
        let member = task.member(Versions::new(stores, location, Artifact::SolutionVersion)?)?;
        let items = Arc::new(version.items.ids.clone());
        let stores = stores.clone();
        let (fold, sums, forgotten) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Ok(Self { task, stores, version, items, member, fold, sums, forgotten })
    }

    /// Reads a unit of the interactions: its events with items of the version, each with the part of its user.
    ///
    /// # Errors
    /// [`Error::Ingest`] and [`Error::Storage`] for what cannot be read, or is not as it was surveyed.
    pub async fn read(&self, unit: &str) -> Result<Vec<RecordBatch>> {
        let unit: LogUnit = serde_json::from_str(unit).map_err(Error::encode)?;
        let rows = self.task.rules.read(&self.stores, unit, self.forgotten().await?).await?;
        let (task, items) = (Arc::clone(&self.task), Arc::clone(&self.items));
        blocking("sorting events into parts", move || events(&task, &items, &rows)).await?
    }

    /// Adds what the users of the next part are to all others, for the stage that measures; false when there is no part any
    /// more.
    ///
    /// # Errors
    /// [`Error::Tasks`] when the users of a part are not those of the survey; [`Error::Model`]. The sums are lost then.
    ///
    /// # Cost
    /// A half-step of the fit over these users, on one thread.
    pub async fn measure_next_part(self: &Arc<Self>, users: &mut GatheredUsers, sums: &mut Sums) -> Result<bool> {
        let Some((part, events)) = users.next_part() else { return Ok(false) };
        let fold = self.fold().await?;
        let (work, mut so_far) = (Arc::clone(self), std::mem::take(sums));
        let measured = move || {
            let (interactions, now) = work.fold_in(part, events, &fold)?;
            work.measure_part(&interactions, &now, &mut so_far)?;
            Ok(so_far)
        };
        *sums = alone("folding in users", measured).await?;
        Ok(true)
    }

    /// Sums over nobody yet.
    #[must_use]
    pub fn sums_of_nobody(&self) -> Sums {
        Sums::of_nobody(self.items.len())
    }

    /// Folds in the users of the next part and writes their states, for the stage that writes: rows of their pairs and of
    /// the file; none when there is no part any more.
    ///
    /// # Errors
    /// As [`RefreshWork::measure_next_part`]; what the store answered.
    pub async fn write_next_part(self: &Arc<Self>, users: &mut GatheredUsers) -> Result<Option<Vec<RecordBatch>>> {
        let Some((part, events)) = users.next_part() else { return Ok(None) };
        let (fold, sums) = (self.fold().await?, self.sums().await?);
        let work = Arc::clone(self);
        let written = alone("folding in users", move || {
            let (interactions, now) = work.fold_in(part, events, &fold)?;
            work.states(part, &interactions, &now, &sums.everyone)
        });
        let (bytes, rows, pairs) = written.await?;
        let entry = self.member.put_parquet(&part_name(Table::Users.folder(), part), bytes, rows).await?;
        let file = WrittenFile { kind: FileKind::Users, number: part, first_item: 0, entry };
        Ok(Some(vec![pairs, file_row(&file)?]))
    }

    /// Writes the pairs of some groups of items: rows of these files and of those that came along.
    ///
    /// # Errors
    /// [`Error::Tasks`] for pairs that come twice; what the store answered.
    pub async fn write_pairs(self: &Arc<Self>, mut pairs: GatheredPairs) -> Result<RecordBatch> {
        let mut files = pairs.take_files();
        while let Some((group, sorted)) = pairs.next_group() {
            if !sorted.is_sorted_by(|a, b| (a.item, a.user) < (b.item, b.user)) {
                return Err(broken(format!("a pair of group {group} came twice")));
            }
            for (number, part) in sorted.chunks(PART_ROWS).enumerate() {
                let (first_item, rows) = (part.first().map_or(0, |pair| pair.item), part.len() as u64);
                let part = part.to_vec();
                let bytes = blocking("encoding pairs", move || encode_pairs(&part)).await??;
                let name = format!("{}-{number:05}", part_name(pairs::FOLDER, group));
                let entry = self.member.put_parquet(&name, bytes, rows).await?;
                let file = WrittenFile { kind: FileKind::Pairs, number: group, first_item, entry };
                files.push(serde_json::to_string(&file).map_err(Error::encode)?);
            }
        }
        file_rows(files)
    }

    async fn fold(&self) -> Result<Arc<FoldIn>> {
        let prepare = || async {
            let version = Arc::clone(&self.version);
            let prepared = move || Ok(FoldIn::new(&version.model.recipe, version.items.factors.view())?);
            alone("preparing item factors", prepared).await.map(Arc::new)
        };
        self.fold.get_or_try_init(prepare).await.cloned()
    }

    async fn forgotten(&self) -> Result<Arc<Tombstones>> {
        if !self.task.any_forgotten {
            return Ok(Arc::default());
        }
        let read = || async {
            let bytes = self.member.note_of(FORGOTTEN).await?;
            let known = Tombstones::from_json(&bytes);
            known.map(Arc::new).map_err(|reason| broken(format!("{FORGOTTEN} of the run: {reason}")))
        };
        self.forgotten.get_or_try_init(read).await.cloned()
    }

    async fn sums(&self) -> Result<Arc<Sums>> {
        let read = || async { read_sums(&self.member, self.items.len()).await.map(Arc::new) };
        self.sums.get_or_try_init(read).await.cloned()
    }

    /// The users of a part, checked to be those of the survey, with their factors.
    fn fold_in(&self, part: u32, events: Events, fold: &FoldIn) -> Result<(Interactions, PartNow)> {
        let Some(expected) = self.task.parts.get(part as usize) else {
            return Err(broken(format!("there is no part {part} of users")));
        };
        let interactions = events.interactions(Arc::clone(&self.items))?;
        let users = interactions.users();
        if users.len() != expected.users as usize || ids_sha256(users) != expected.ids_sha256 {
            return Err(broken(format!("part {part} has {} users, {} were surveyed", users.len(), expected.users)));
        }
        let card = &self.version.model;
        let now = fold_in_part(&card.recipe, &card.propensity, fold, &interactions, None, self.task.as_of)?;
        if !now.user_factors.iter().all(|value| value.is_finite()) {
            return Err(Error::NotFinite { what: "a user factor" });
        }
        Ok((interactions, now))
    }

    fn measure_part(&self, interactions: &Interactions, now: &PartNow, sums: &mut Sums) -> Result<()> {
        let (propensity, factors) = (&self.version.model.propensity, self.version.items.factors.view());
        let own = propensity.everyone(interactions, self.task.as_of, now.user_factors.view(), factors)?;
        sums.everyone.merge(&own);
        for user in 0..interactions.users().len() {
            let history = interactions.history(user);
            for (item, time) in history.items.iter().zip(history.times) {
                sums.interactions[*item as usize] += 1;
                sums.last_interaction[*item as usize] = sums.last_interaction[*item as usize].max(*time);
            }
        }
        now.histories.indices().iter().for_each(|item| sums.users[*item as usize] += 1);
        Ok(())
    }

    /// The file of a part, its rows, and the pairs of its users.
    fn states(
        &self,
        part: u32,
        interactions: &Interactions,
        now: &PartNow,
        everyone: &Everyone,
    ) -> Result<(Bytes, u64, RecordBatch)> {
        let (propensity, items) = (&self.version.model.propensity, self.version.items.factors.view());
        let (factors, as_of) = (now.user_factors.view(), self.task.as_of);
        let log_odds = propensity.log_odds_of_part(interactions, as_of, factors, items, everyone)?;
        if !log_odds.users.iter().chain(log_odds.repeat.values()).all(|value| value.is_finite()) {
            return Err(Error::NotFinite { what: "the log-odds" });
        }
        let users = interactions.users().len();
        let histories = || (0..users).map(|user| interactions.history(user));
        let counts: Vec<i64> = histories().map(|of| i64::try_from(of.items.len()).unwrap_or(i64::MAX)).collect();
        let last: Vec<i64> = histories().map(|of| of.times.last().copied().unwrap_or_default()).collect();
        let first_index = self.task.parts[part as usize].first_index;
        let table = StateTable {
            table: Table::Users,
            ids: interactions.users(),
            factors,
            log_odds: &log_odds.users,
            interactions: &counts,
            users: None,
            last_interaction: &last,
        };
        let bytes = table.encode_from(first_index)?;
        let mut rows = Vec::with_capacity(now.histories.nnz());
        for (user, row) in (first_index..).zip(0..users) {
            let (items, weights) = now.histories.row(row);
            let (_, odds) = log_odds.repeat.row(row);
            for ((item, weight), log_odds) in items.iter().zip(weights).zip(odds) {
                let pair = Pair { item: *item, user, log_odds: *log_odds, weight: *weight };
                rows.push((self.group_of(*item), pair));
            }
        }
        Ok((bytes, users as u64, pair_rows(&rows)?))
    }

    fn group_of(&self, item: u32) -> u32 {
        let groups = self.task.pair_groups.partition_point(|first| *first <= item);
        u32::try_from(groups.saturating_sub(1)).unwrap_or(u32::MAX)
    }
}

/// The rows of a unit as they travel; those with other items are left out.
fn events(task: &RefreshTask, items: &Vocabulary, rows: &LogRows) -> Result<Vec<RecordBatch>> {
    let numbers: Vec<Option<u32>> = rows.items.iter().map(|id| items.index_of(id)).collect();
    let part_of = |id: &str| {
        let parts = task.parts.partition_point(|part| part.first_id.as_str() <= id);
        u32::try_from(parts.saturating_sub(1)).unwrap_or(u32::MAX)
    };
    let parts: Vec<u32> = rows.users.iter().map(part_of).collect();
    let kept = (0..rows.time.len()).filter(|row| numbers[rows.item_index[*row] as usize].is_some());
    let kept: Vec<usize> = kept.collect();
    let user = |row: &usize| rows.user_index[*row];
    let batch = |kept: &[usize]| {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from_iter_values(kept.iter().map(|row| parts[user(row) as usize]))),
            Arc::new(StringArray::from_iter_values(
                kept.iter().map(|row| rows.users.id(user(row)).unwrap_or_default()),
            )),
            Arc::new(UInt32Array::from_iter_values(
                kept.iter().map(|row| numbers[rows.item_index[*row] as usize].unwrap_or_default()),
            )),
            Arc::new(Int64Array::from_iter_values(kept.iter().map(|row| rows.time[*row]))),
            Arc::new(Float32Array::from_iter_values(kept.iter().map(|row| rows.weight[*row]))),
        ];
        RecordBatch::try_new(Arc::clone(&EVENTS), columns).map_err(Error::encode)
    };
    kept.chunks(EVENT_ROWS).map(batch).collect()
}

/// Leaves the sums over all users where tasks that write find them.
pub(super) async fn put_sums(member: &RunMember, sums: &Sums) -> Result<()> {
    let batch = sums.rows()?;
    let mut bytes = Vec::new();
    let mut writer = arrow::ipc::writer::FileWriter::try_new(&mut bytes, batch.schema_ref()).map_err(Error::encode)?;
    writer.write(&batch).and_then(|()| writer.finish()).map_err(Error::encode)?;
    drop(writer);
    Ok(member.put_note(EVERYONE, bytes.into()).await?)
}

async fn read_sums(member: &RunMember, items: usize) -> Result<Sums> {
    let bytes = member.note_of(EVERYONE).await?;
    let mut sums = Sums::of_nobody(items);
    let reader = arrow::ipc::reader::FileReader::try_new(std::io::Cursor::new(bytes), None).map_err(Error::encode)?;
    for batch in reader {
        sums.add(&batch.map_err(Error::encode)?)?;
    }
    Ok(sums)
}

/// Leaves the list of the forgotten, as it is for this run, where tasks find it.
pub(super) async fn put_forgotten(member: &RunMember, forgotten: &Tombstones) -> Result<()> {
    Ok(member.put_note(FORGOTTEN, forgotten.to_json().map_err(Error::encode)?.into()).await?)
}

/// Nobody needs the sums and the list any more.
pub(super) async fn remove_notes(member: &RunMember, task: &RefreshTask) {
    member.remove_note(EVERYONE).await;
    if task.any_forgotten {
        member.remove_note(FORGOTTEN).await;
    }
}

fn part_name(folder: &str, number: u32) -> String {
    format!("{folder}/part-{number:05}")
}

/// What only a mistake of ours, or a cluster that lost or doubled rows, can bring about.
pub(super) fn broken(what: String) -> Error {
    let message =
        format!("ERR_BUG: a refresh in parts does not add up: {what}; nothing was committed; please report this");
    Error::Tasks { kind: ErrorKind::Bug, message }
}

/// Runs a computation on one thread of its own: tasks run side by side already.
async fn alone<T: Send + 'static>(stage: &'static str, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let threads = pool(Some(1))?;
    blocking(stage, move || threads.install(work)).await?
}
