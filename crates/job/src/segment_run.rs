//! The work of a batch segment job between its start and its commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use item_affinity_datafusion::{
    CandidateCounts, ItemEntry, SEGMENT_SCHEMA, SegmentsRequest, segments_dataframe, session,
};
use item_affinity_solution::{SolutionVersion, Stage};
use item_affinity_storage::{CommitBody, Run, SolutionPin};

use crate::error::{Error, Result};
use crate::explained_rows::ExplainedRows;
use crate::item_errors::{self, ItemErrorRecord};
use crate::job_users::JobUsers;
use crate::segment_job::BatchSegmentJob;
use crate::segment_output::Output;
use crate::segment_report::SegmentReport;

/// What has been written.
#[derive(Default)]
struct Written {
    /// Rows of segments by item.
    by_item: BTreeMap<String, u64>,
    /// Rows of segments, and rows of reasons.
    rows: u64,
    reasons: u64,
}

impl BatchSegmentJob {
    /// Ranks and writes everything that the commit will name.
    pub(crate) async fn write(
        &self,
        version: &Arc<SolutionVersion>,
        users: Option<&JobUsers>,
        run: &Run,
    ) -> Result<(CommitBody, SegmentReport)> {
        let ctx = match &self.session {
            Some(session) => session.clone(),
            None => session(&self.stores, self.settings)?,
        };
        let wanted = self.items.entries.iter().filter_map(|e| e.item.as_ref().ok()).collect::<BTreeSet<_>>();
        let known = wanted.iter().filter(|id| version.items.ids.index_of(id).is_some()).count();
        let mut warnings = self.warnings(version, wanted.len());
        let mut candidates = None;
        let written = if wanted.is_empty() {
            // Every line was unreadable: the records say why, and there is nothing to rank.
            self.write_rows(None, version, run).await?
        } else {
            let request = SegmentsRequest {
                items: wanted.iter().map(|id| (*id).clone()).collect(),
                num_results: self.num_results,
                seen: self.seen,
                min_score: self.min_score,
                reasons: self.reasons,
                users: match users {
                    Some(users) => Some(users.query(&ctx, &self.stores).await?),
                    None => None,
                },
            };
            let planned = segments_dataframe(&ctx, &self.stores, version, &request)?;
            let expected = known as u64 * (self.num_results as u64).min(version.model.users);
            self.observer.stage(Stage::new("rank users", "rows", Some(expected)));
            let context = Arc::new(planned.segments.task_ctx());
            let plan = planned.segments.create_physical_plan().await?;
            let written = self.write_rows(Some(execute_stream(Arc::clone(&plan), context)?), version, run).await?;
            candidates = CandidateCounts::of(&plan);
            written
        };
        warnings.extend(candidates.filter(|users| users.unknown > 0).map(|users| {
            format!(
                "USERS_UNKNOWN: {} of {} users are not in the solution version and in no segment; train or refresh with \
                 their interactions",
                users.unknown, users.asked
            )
        }));
        if let Some(users) = users {
            users.unchanged(&self.stores).await?;
        }
        let item_errors = self.item_errors(version);
        if !item_errors.is_empty() {
            let records = item_errors::to_parquet(&item_errors)?;
            run.put_internal("errors.parquet", records, Some(item_errors.len() as u64)).await?;
        }
        let mut report = SegmentReport::of(version);
        report.asked = self.items.entries.len() as u64;
        report.error = item_errors.len() as u64;
        for entry in &self.items.entries {
            let Ok(id) = &entry.item else { continue };
            match written.by_item.get(id.as_str()) {
                Some(_) => report.ok += 1,
                None if version.items.ids.index_of(id).is_some() => report.empty += 1,
                None => {}
            }
        }
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
        counts.extend(self.reasons.map(|_| ("reasons", report.reasons)));
        counts.extend(report.users_asked.map(|users| ("users_asked", users)));
        counts.extend(report.users_unknown.map(|users| ("users_unknown", users)));
        let mut details = serde_json::json!({ "num_results": self.num_results, "as_of": version.model.as_of });
        if let Some(reasons) = self.reasons {
            details["reasons"] = reasons.into();
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

    fn warnings(&self, version: &SolutionVersion, distinct: usize) -> Vec<String> {
        let mut warnings = Vec::new();
        let readable = self.items.entries.iter().filter(|e| e.item.is_ok()).count();
        if readable > distinct {
            warnings.push(format!("ITEM_DUPLICATE: {} items are asked for more than once", readable - distinct));
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
        mut rows: Option<SendableRecordBatchStream>,
        version: &SolutionVersion,
        run: &Run,
    ) -> Result<Written> {
        let mut output = Output::create(self, version, run).await?;
        let mut explained = match self.reasons {
            Some(_) => Some(ExplainedRows::create(run, version).await?),
            None => None,
        };
        let mut written = Written::default();
        loop {
            let next = async {
                match rows.as_mut() {
                    Some(rows) => rows.next().await,
                    None => None,
                }
            };
            let batch = tokio::select! {
                biased;
                () = self.cancellation.cancelled() => return Err(Error::Cancelled),
                batch = next => batch,
            };
            let Some(batch) = batch.transpose()? else { break };
            match explained.as_mut() {
                None => self.write_segments(&batch, &mut output, &mut written).await?,
                Some(explained) => {
                    explained.push(&batch).await?;
                    while let Some(segments) = explained.next_segments() {
                        self.write_segments(&segments, &mut output, &mut written).await?;
                    }
                }
            }
        }
        if let Some(mut explained) = explained {
            if let Some(segments) = explained.last_segments()? {
                self.write_segments(&segments, &mut output, &mut written).await?;
            }
            written.reasons = explained.finish().await?;
        }
        output.finish(&self.without_segment(version).collect::<Vec<_>>()).await?;
        Ok(written)
    }

    async fn write_segments(&self, batch: &RecordBatch, output: &mut Output<'_>, written: &mut Written) -> Result<()> {
        for (item, rows) in item_runs(batch) {
            *written.by_item.entry(item.to_owned()).or_default() += rows;
        }
        output.write(batch).await?;
        written.rows += batch.num_rows() as u64;
        self.observer.advance(written.rows, None);
        Ok(())
    }

    fn item_errors(&self, version: &SolutionVersion) -> Vec<ItemErrorRecord> {
        self.without_segment(version).map(|(_, record)| record).collect()
    }

    /// The entries that can have no segment, with the reason.
    fn without_segment(&self, version: &SolutionVersion) -> impl Iterator<Item = (&ItemEntry, ItemErrorRecord)> {
        self.items.entries.iter().filter_map(|entry| {
            let record = match &entry.item {
                Ok(id) if version.items.ids.index_of(id).is_some() => return None,
                Ok(id) => ItemErrorRecord::not_in_model(id),
                Err(error) => {
                    ItemErrorRecord { item_id: None, code: error.code.to_owned(), message: error.message.clone() }
                }
            };
            Some((entry, record))
        })
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
