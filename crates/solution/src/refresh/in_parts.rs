//! A refresh whose users are folded in part by part, by tasks: this process numbers the users, adds up and commits.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use item_affinity_ingest::{ReadProgress, Survey, survey_interactions};
use item_affinity_model::ndarray::Array2;
use item_affinity_model::{Clock, Interactions, LogOdds, Vocabulary};
use item_affinity_storage::{Run, Stores, Tombstones};

use super::Changes;
use super::fold::say;
use super::task::{RefreshStage, RefreshTask, RefreshTasks, TaskFailure, pair_groups, parts_of};
use super::task_rows::{FileKind, Sums, WrittenFile, files_of};
use super::task_work::{broken, put_forgotten, put_sums, remove_notes};
use crate::dataset::{Pinned, ReadLimits};
use crate::error::{Error, Result};
use crate::fit::told_warnings;
use crate::history::commit_body;
use crate::model_card::ModelCard;
use crate::moment::moment;
use crate::next_version::{Done, Job, KeyOf, Outcome, PhaseSeconds, Place, say_forgotten};
use crate::observer::{Observer, Stage};
use crate::reference::SolutionRef;
use crate::states::ids_sha256;
use crate::tables::encode::StateTable;
use crate::tables::{MODEL_CARD, Table};
use crate::version::SolutionVersion;

/// The version that is refreshed.
pub(super) struct Before<'a> {
    /// The commit goes right after this one.
    pub(super) newest: u64,
    pub(super) from: &'a SolutionRef,
    pub(super) card: &'a ModelCard,
    /// The version that was trained.
    pub(super) trained: u64,
}

impl Job {
    pub(super) async fn refresh_in_parts(
        &self,
        run: Run,
        place: &Place,
        pinned: Pinned,
        key: KeyOf<'_>,
        before: Before<'_>,
        tasks: &dyn RefreshTasks,
    ) -> Result<Outcome> {
        let newest = before.newest;
        match self.make_in_parts(&run, place, pinned, key, &before, tasks).await {
            Ok(done) => self.commit(run, place, Some(newest), done).await,
            Err(error) => {
                // What tasks wrote, as far as none is still at it.
                run.abandon_with_members().await;
                Err(error)
            }
        }
    }

    async fn make_in_parts(
        &self,
        run: &Run,
        place: &Place,
        pinned: Pinned,
        key: KeyOf<'_>,
        before: &Before<'_>,
        tasks: &dyn RefreshTasks,
    ) -> Result<Done> {
        let Before { from, card, .. } = *before;
        if !card.user_attributes.is_empty() {
            let columns = card.user_attributes.join(",");
            let cure = "a cluster has no Users; leave --cluster out".to_owned();
            return Err(Error::UserAttributes { columns, solution: from.to_string(), cure });
        }
        // Read after the run has begun, as where one process does it all.
        let forgotten = Arc::new(self.or_cancelled(async { Ok(place.versions.tombstones().await?) }).await?);
        let mut seconds = PhaseSeconds::default();
        let clock = Instant::now();
        let version = self.or_cancelled(SolutionVersion::open(&place.stores, from)).await?;
        let survey = self.or_cancelled(self.survey(&place.stores, &version, &forgotten)).await?;
        check(&survey, card, from)?;
        let changes = self.or_cancelled(changes(&place.stores, &version, &survey)).await?;
        say(&changes, card.users, self.observer.as_ref());
        seconds.read = clock.elapsed().as_secs_f64();
        run.note_seconds("read", seconds.read);

        let clock = Instant::now();
        let as_of = Clock::after(survey.times.1, survey.step, card.horizon_seconds);
        let mut task = RefreshTask {
            solution_version: version.reference().to_string(),
            commit_sha256: version.commit.sha256.clone(),
            stage: RefreshStage::Measure,
            rules: survey.rules.clone(),
            as_of: as_of.as_of,
            run_id: run.run_id.clone(),
            durable: self.durable,
            any_forgotten: !forgotten.is_empty(),
            parts: parts_of(&survey.users)?,
            pair_groups: Vec::new(),
        };
        let member = task.member(place.versions.clone())?;
        if task.any_forgotten {
            self.or_cancelled(put_forgotten(&member, &forgotten)).await?;
        }
        let units = survey.units.iter().map(serde_json::to_string).collect::<std::result::Result<Vec<_>, _>>();
        let units = units.map_err(Error::encode)?;
        self.observer.stage(Stage::new("measuring all users", "plans", Some(1)));
        let mut sums = Sums::of_nobody(version.items.ids.len());
        for batch in self.or_cancelled(run_tasks(tasks, task.clone(), units.clone())).await? {
            sums.add(&batch)?;
        }
        agree("users", survey.users.len() as u64, sums.everyone.users)?;
        agree("interactions", survey.known_interactions, total(&sums.interactions))?;

        self.observer.stage(Stage::new("folding in users", "plans", Some(1)));
        self.or_cancelled(put_sums(&member, &sums)).await?;
        task.stage = RefreshStage::Write;
        task.pair_groups = pair_groups(&sums.users);
        let parts = task.parts.len();
        let rows = self.or_cancelled(run_tasks(tasks, task.clone(), units)).await;
        remove_notes(&member, &task).await;
        let mut files = Vec::new();
        for batch in rows? {
            files.extend(files_of(&batch)?);
        }
        files.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
        self.every_file_is_there_once(&files, parts, &survey, &sums)?;
        seconds.fit = clock.elapsed().as_secs_f64();
        run.note_seconds("fit", seconds.fit);

        let clock = Instant::now();
        let observer = self.observer.as_ref();
        let made = Made { observer, before, survey: &survey, sums: &sums, clock: as_of, files: &files };
        let model = made.write(run, &version).await?;
        for file in files {
            run.adopt(file.entry)?;
        }
        seconds.write = clock.elapsed().as_secs_f64();
        run.note_seconds("write", seconds.write);
        // What was really read: files may have come between the listing and the reading.
        let pinned = Pinned { interactions: survey.inputs, ..pinned };
        let body = commit_body(key(&pinned)?, &pinned, &survey.counts, &model, Some(&changes))?;
        if self.cancellation.is_cancelled() {
            return Err(Error::Cancelled);
        }
        Ok(Done { body, data: None, model, changes: Some(changes), seconds })
    }

    /// Looks at all interactions once, without keeping any.
    async fn survey(&self, stores: &Stores, version: &SolutionVersion, forgotten: &Arc<Tombstones>) -> Result<Survey> {
        self.observer.stage(Stage::new("surveying interactions", "rows", None));
        let progress = |progress: ReadProgress| {
            self.observer.advance(progress.rows, Some(progress.total_rows).filter(|total| *total > 0));
        };
        let items = Arc::new(version.items.ids.clone());
        let limits = ReadLimits { threads: self.threads, memory: self.memory_limit };
        let mut source = self.dataset.source(limits)?;
        source.forgotten = Arc::clone(forgotten);
        let survey = survey_interactions(stores, &source, items, &progress).await?;
        say_forgotten(&survey.counts, self.observer.as_ref());
        survey.refusal(self.allow_small_data)?;
        for warning in &survey.warnings {
            self.observer.warning(&format!("{}: {}", warning.code, warning.message));
        }
        Ok(survey)
    }

    /// Compares what tasks wrote with what the survey and the sums say.
    fn every_file_is_there_once(
        &self,
        files: &[WrittenFile],
        parts: usize,
        survey: &Survey,
        sums: &Sums,
    ) -> Result<()> {
        let rows = |kind: FileKind| {
            let of_kind = files.iter().filter(move |file| file.kind == kind);
            of_kind.map(|file| file.entry.rows.unwrap_or_default()).sum::<u64>()
        };
        let users = files.iter().filter(|file| file.kind == FileKind::Users);
        if !users.map(|file| file.number as usize).eq(0..parts) {
            return Err(broken(format!("the files of users are not {parts} parts")));
        }
        agree("users", survey.users.len() as u64, rows(FileKind::Users))?;
        agree("pairs", total(&sums.users), rows(FileKind::Pairs))
    }
}

/// What a version is made of when all of its tasks are done.
struct Made<'a> {
    observer: &'a dyn Observer,
    before: &'a Before<'a>,
    survey: &'a Survey,
    sums: &'a Sums,
    clock: Clock,
    files: &'a [WrittenFile],
}

impl Made<'_> {
    /// Writes what tasks do not: the states of items, and the model card.
    async fn write(&self, run: &Run, version: &SolutionVersion) -> Result<ModelCard> {
        let Self { observer, before, survey, sums, clock, files } = self;
        let (items, propensity) = (&version.items, &before.card.propensity);
        let nobody = Interactions::new(
            Vocabulary::default(),
            items.ids.clone(),
            Vec::new(),
            Vec::new(),
            Vec::new(),
            Vec::new(),
        )?;
        let none = Array2::zeros((0, items.factors.ncols()));
        let log_odds =
            propensity.log_odds_of_part(&nobody, clock.as_of, none.view(), items.factors.view(), &sums.everyone)?;
        let LogOdds { slopes, items: item_log_odds, .. } = log_odds;
        if !item_log_odds.iter().all(|value| value.is_finite()) {
            return Err(Error::NotFinite { what: "the log-odds" });
        }
        let last = |(item, count): (usize, &i64)| match count {
            // An item without an event keeps the time that it had before.
            0 => items.last_interaction[item],
            _ => sums.last_interaction[item],
        };
        let last_interaction: Vec<i64> = sums.interactions.iter().enumerate().map(last).collect();
        let table = StateTable {
            table: Table::Items,
            ids: &items.ids,
            factors: items.factors.view(),
            log_odds: &item_log_odds,
            interactions: &sums.interactions,
            users: Some(&sums.users),
            last_interaction: &last_interaction,
        };
        for (part, rows) in table.parts().into_iter().enumerate() {
            let count = rows.len() as u64;
            run.put(&Table::Items.part_name(part), table.encode(rows)?, Some(count)).await?;
        }
        let (format, format_version) = ModelCard::current_format();
        let warnings = told_warnings(propensity, before.card.marks(), *observer);
        let card = ModelCard {
            format,
            format_version,
            tool: ModelCard::this_tool(),
            as_of: clock.as_of,
            horizon_seconds: clock.horizon,
            first_interaction: survey.times.0,
            last_interaction: survey.times.1,
            users: survey.users.len() as u64,
            interactions: survey.known_interactions,
            pairs: total(&sums.users),
            loss: Vec::new(),
            slopes,
            pair_parts: files.iter().filter(|file| file.kind == FileKind::Pairs).map(|file| file.first_item).collect(),
            warnings,
            evaluation: None,
            metrics: std::collections::BTreeMap::new(),
            refreshed_from: Some(before.trained),
            user_ids_sha256: ids_sha256(&survey.users),
            ..before.card.clone()
        };
        run.put(MODEL_CARD, Bytes::from(card.to_json().map_err(Error::encode)?), None).await?;
        Ok(card)
    }
}

async fn run_tasks(
    tasks: &dyn RefreshTasks,
    task: RefreshTask,
    units: Vec<String>,
) -> Result<Vec<arrow::record_batch::RecordBatch>> {
    let failed = |TaskFailure { kind, message }: TaskFailure| Error::Tasks { kind, message };
    tasks.run(task, units).await.map_err(failed)
}

/// Refuses data that do not fit to the version.
fn check(survey: &Survey, card: &ModelCard, from: &SolutionRef) -> Result<()> {
    let solution = from.to_string();
    if survey.times.1 < card.last_interaction {
        let (newest, known) = (moment(survey.times.1), moment(card.last_interaction));
        return Err(Error::Older { newest, known, solution });
    }
    if survey.known_interactions == 0 {
        let interactions = usize::try_from(survey.interactions).unwrap_or(usize::MAX);
        return Err(Error::NoKnownItem { interactions, solution });
    }
    Ok(())
}

/// What is different from the users of the version, whose parts are read one by one.
async fn changes(stores: &Stores, version: &SolutionVersion, survey: &Survey) -> Result<Changes> {
    let mut stayed = 0;
    for part in &version.user_parts {
        let ids = version.user_ids_of(stores, part).await?;
        stayed += ids.iter().filter(|id| survey.users.index_of(id).is_some()).count() as u64;
    }
    let users = survey.users.len() as u64;
    Ok(Changes {
        from: version.commit.version,
        new_users: users - stayed,
        gone_users: version.model.users.saturating_sub(stayed),
        left_out_interactions: survey.interactions - survey.known_interactions,
        left_out_items: survey.unknown_items,
        left_out_users: survey.all_users.saturating_sub(users),
    })
}

fn total(counts: &[i64]) -> u64 {
    counts.iter().map(|count| count.unsigned_abs()).sum()
}

fn agree(what: &str, expected: u64, found: u64) -> Result<()> {
    if expected == found { Ok(()) } else { Err(broken(format!("{found} {what} came back, {expected} are there"))) }
}
