//! The work of a batch segment job between its start and its commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use item_affinity_datafusion::{CandidateCounts, SEGMENT_SCHEMA, SegmentsRequest, segments_dataframe, session};
use item_affinity_solution::{SolutionVersion, Stage};
use item_affinity_storage::{CommitBody, Run, SolutionPin, Versions};

use crate::delta_mode::{FIRST_ITEM, LAST_ITEM};
use crate::error::{Error, Result};
use crate::explained_rows::ExplainedRows;
use crate::filter_expression::{FilterExpression, MOST_FIELDS};
use crate::item_errors::{self, ItemErrorRecord};
use crate::job_users::{JobUsers, UsersCondition};
use crate::row_groups::RowGroupBudget;
use crate::segment_floor::SegmentFloor;
use crate::segment_job::{BatchSegmentJob, OutputFormat};
use crate::segment_output::Output;
use crate::segment_report::SegmentReport;
use crate::segment_requests::Requests;

/// What has been written.
#[derive(Default)]
struct Written {
    /// Rows of segments by group and item.
    by_item: BTreeMap<(usize, String), u64>,
    /// Rows of segments, and rows of reasons.
    rows: u64,
    reasons: u64,
}

/// The files that a job writes.
struct Outputs<'a> {
    segments: Output<'a>,
    explained: Option<ExplainedRows>,
}

impl BatchSegmentJob {
    /// Ranks and writes everything that the commit will name.
    pub(crate) async fn write(
        &self,
        version: &Arc<SolutionVersion>,
        users: Option<&JobUsers>,
        versions: &Versions,
        run: &Run,
    ) -> Result<(CommitBody, SegmentReport)> {
        let ctx = match &self.session {
            Some(session) => session.clone(),
            None => session(&self.stores, self.settings)?,
        };
        // Read after the run has begun, as for a training.
        let forgotten = self.forgotten(&ctx, versions, version, users).await?;
        let left_out = forgotten.count();
        let requests = Requests::of(&self.items, self.filter.as_ref(), &version.items.ids);
        if requests.groups.len() > 1 && !matches!(self.format, OutputFormat::JsonLines { .. }) {
            return Err(Error::Missing(
                "filterValues that differ from line to line need --format json-lines: one item may then have several \
                 segments, which a table by item cannot hold",
            ));
        }
        let mut warnings = self.warnings(version, &requests);
        let known = requests.groups.iter().flat_map(|group| &group.items);
        let known = known.filter(|id| version.items.ids.index_of(id).is_some()).count();
        let expected = known as u64 * (self.num_results as u64).min(version.model.users);
        let budget = RowGroupBudget::of(&ctx);
        let mut outputs = Outputs {
            segments: Output::create(self, &requests, version, run, &budget).await?,
            explained: match self.reasons {
                Some(_) => Some(ExplainedRows::create(run, version, &budget).await?),
                None => None,
            },
        };
        let (mut written, mut candidates) = (Written::default(), None);
        // Where every line is unreadable there is no group: the records say why, and there is nothing to rank.
        for (number, group) in requests.groups.iter().enumerate() {
            let condition = match (&group.filter, &self.users_filter) {
                (Some(filter), _) => UsersCondition::Filter(filter),
                (None, Some(predicate)) => UsersCondition::Sql(predicate),
                (None, None) => UsersCondition::Everybody,
            };
            let candidates_of = match users {
                Some(users) => Some(users.query(&ctx, &self.stores, condition).await?),
                None => None,
            };
            let request = SegmentsRequest {
                items: group.items.clone(),
                num_results: self.num_results,
                seen: self.seen,
                min_score: self.min_score,
                reasons: self.reasons,
                users: forgotten.leave_out(&ctx, &self.stores, version, candidates_of).await?,
            };
            let planned = segments_dataframe(&ctx, &self.stores, version, &request)?;
            if number == 0 {
                self.observer.stage(Stage::new("rank users", "rows", Some(expected)));
            }
            let context = Arc::new(planned.segments.task_ctx());
            let plan = planned.segments.create_physical_plan().await?;
            outputs.segments.begin(number)?;
            self.write_rows(number, execute_stream(Arc::clone(&plan), context)?, &mut outputs, &mut written).await?;
            // Groups overlap in users, so their counts do not add up to anything.
            candidates = if requests.groups.len() == 1 && users.is_some() { CandidateCounts::of(&plan) } else { None };
        }
        let Outputs { segments, explained } = outputs;
        if let Some(explained) = explained {
            written.reasons = explained.finish().await?;
        }
        segments.finish().await?;
        warnings.extend(candidates.filter(|users| users.unknown > 0).map(|users| {
            format!(
                "USERS_UNKNOWN: {} of {} users are not in the solution version and in no segment; train or refresh with \
                 their interactions",
                users.unknown, users.asked
            )
        }));
        if left_out > 0 {
            self.observer.note(&format!("{left_out} forgotten users are left out"));
        }
        if let Some(users) = users {
            users.unchanged(&self.stores).await?;
        }
        let mut item_errors = requests.errors().map(|(_, record)| record.clone()).collect::<Vec<_>>();
        let unreadable = item_errors.len() as u64;
        let mut report = SegmentReport::of(version);
        for (group, item) in requests.asked.iter().filter_map(|asked| asked.request.as_ref().ok()) {
            match written.by_item.contains_key(&(*group, (*item).to_owned())) {
                true => report.ok += 1,
                // An empty segment has too few users as well, and saying so would be a number of users.
                false if self.least_users > 1 => {
                    report.suppressed += 1;
                    item_errors.push(ItemErrorRecord::suppressed(item, self.least_users));
                }
                false => report.empty += 1,
            }
        }
        if !item_errors.is_empty() {
            let records = item_errors::to_parquet(&item_errors)?;
            run.put_internal("errors.parquet", records, Some(item_errors.len() as u64)).await?;
        }
        report.asked = requests.asked.len() as u64;
        report.error = unreadable;
        report.rows = written.by_item.values().sum();
        report.reasons = written.reasons;
        report.users_asked = candidates.map(|users| users.asked);
        report.users_unknown = candidates.map(|users| users.unknown);
        report.item_errors = item_errors;
        for warning in &warnings {
            self.observer.warning(warning);
        }
        report.warnings.append(&mut warnings);
        let mut counts = vec![
            ("asked", report.asked),
            ("ok", report.ok),
            ("empty", report.empty),
            ("error", report.error),
            ("rows", report.rows),
            ("users", version.model.users),
        ];
        counts.extend((left_out > 0).then_some(("forgotten", left_out)));
        counts.extend(self.reasons.map(|_| ("reasons", report.reasons)));
        counts.extend(report.users_asked.map(|users| ("users_asked", users)));
        counts.extend(report.users_unknown.map(|users| ("users_unknown", users)));
        let mut details = serde_json::json!({
            "num_results": self.num_results, "as_of": version.model.as_of, "seen": self.seen.to_string(),
            "min_score": self.min_score,
        });
        if users.is_some() {
            // Not what it says: a condition may name users.
            details["users_condition"] = (self.users_filter.is_some() || self.filter.is_some()).into();
        }
        if let Some(reasons) = self.reasons {
            details["reasons"] = reasons.into();
        }
        if self.least_users > 1 {
            counts.push(("suppressed", report.suppressed));
            details["min_segment_users"] = self.least_users.into();
        }
        if matches!(self.format, OutputFormat::Delta { .. })
            && let (Some(first), Some(last)) = (written.by_item.keys().next(), written.by_item.keys().next_back())
        {
            details[FIRST_ITEM] = first.1.as_str().into();
            details[LAST_ITEM] = last.1.as_str().into();
        }
        let reference = version.reference();
        let body = CommitBody {
            solution_version: Some(SolutionPin {
                location: reference.location.to_string(),
                version: reference.version.unwrap_or_default(),
                sha256: version.commit.sha256.clone(),
            }),
            inputs: users.map(JobUsers::pins).unwrap_or_default(),
            schema: Some(columns(&SEGMENT_SCHEMA)),
            item_list_sha256: Some(self.item_list_sha256()),
            counts: counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
            details,
            ..CommitBody::default()
        };
        Ok((body, report))
    }

    fn warnings(&self, version: &SolutionVersion, requests: &Requests<'_>) -> Vec<String> {
        let mut warnings = Vec::new();
        if requests.duplicates() > 0 {
            warnings.push(format!("ITEM_DUPLICATE: {} items are asked for more than once", requests.duplicates()));
        }
        if requests.numbers() > 0 {
            warnings.push(format!("ITEM_ID_NUMBER: {} item ids are numbers, read as their digits", requests.numbers()));
        }
        if requests.unused_values > 0 {
            warnings.push(format!(
                "FILTER_VALUES_UNUSED: {} lines have filterValues, and the job has no filter; give it with --filter",
                requests.unused_values
            ));
        }
        let fields = self.filter.as_ref().map_or(0, FilterExpression::fields);
        if fields > MOST_FIELDS {
            warnings.push(format!(
                "FILTER_FIELDS: the filter asks for {fields} fields; Amazon Personalize allows {MOST_FIELDS}, here there is \
                 no limit"
            ));
        }
        if self.num_results as u64 > version.model.users {
            warnings.push(format!(
                "NUM_RESULTS: {} users per item asked for, the solution version has {}; segments hold all of them",
                self.num_results, version.model.users
            ));
        }
        warnings
    }

    /// Writes the rows of an ordered stream and counts them by item.
    async fn write_rows(
        &self,
        group: usize,
        mut rows: SendableRecordBatchStream,
        outputs: &mut Outputs<'_>,
        written: &mut Written,
    ) -> Result<()> {
        let Outputs { segments: output, explained } = outputs;
        let mut floor = SegmentFloor::new(self.least_users);
        while let Some(batch) = rows.next().await.transpose()? {
            // The caller ends it while it waits; a stream that never waits is ended here.
            if self.cancellation.is_cancelled() {
                return Err(Error::Cancelled);
            }
            for batch in floor.pass(batch) {
                match explained.as_mut() {
                    None => self.write_segments(group, &batch, output, written).await?,
                    Some(explained) => {
                        explained.push(&batch).await?;
                        while let Some(segments) = explained.next_segments() {
                            self.write_segments(group, &segments, output, written).await?;
                        }
                    }
                }
            }
        }
        // Reasons are written with one group alone, whose last segments these are.
        if let Some(explained) = explained
            && let Some(segments) = explained.last_segments()?
        {
            self.write_segments(group, &segments, output, written).await?;
        }
        Ok(())
    }

    async fn write_segments(
        &self,
        group: usize,
        batch: &RecordBatch,
        output: &mut Output<'_>,
        written: &mut Written,
    ) -> Result<()> {
        for (item, rows) in item_runs(batch) {
            *written.by_item.entry((group, item.to_owned())).or_default() += rows;
        }
        output.write(batch).await?;
        written.rows += batch.num_rows() as u64;
        self.observer.advance(written.rows, None);
        Ok(())
    }
}

/// The columns of the data files, for readers of the commit.
fn columns(schema: &Schema) -> serde_json::Value {
    let column = |field: &Arc<Field>| {
        serde_json::json!({
            "name": field.name(), "type": field.data_type().to_string(), "nullable": field.is_nullable(),
        })
    };
    schema.fields().iter().map(column).collect()
}

/// The items of a batch that is ordered by item, with the rows of each.
fn item_runs(batch: &RecordBatch) -> Vec<(&str, u64)> {
    let mut runs = Vec::<(&str, u64)>::new();
    for id in batch.column(0).as_string::<i32>().iter().flatten() {
        match runs.last_mut() {
            Some((last, rows)) if *last == id => *rows += 1,
            _ => runs.push((id, 1)),
        }
    }
    runs
}
