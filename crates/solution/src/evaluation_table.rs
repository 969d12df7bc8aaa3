//! An evaluation as a file: JSON as it is, or Parquet as one long table.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use item_affinity_model::{Bucket, Interval, PersonalizeEvaluation, PersonalizeMetrics, RANKERS, TimeEvaluation, View};
use item_affinity_storage::{Location, NewFile, Stores, check_new_file, write_new_file};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::evaluate::EvaluationReport;

/// Stands in every file, so that a result can be told from what somebody else wrote.
const FORMAT: &str = "item-affinity-evaluation";

/// How an evaluation is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EvaluationFormat {
    /// Everything that was found, with the recipe and the data report.
    Json,
    /// One row for each figure.
    Parquet,
}

/// The schema of an evaluation in Parquet: one row for each figure.
///
/// | column | holds |
/// | --- | --- |
/// | `protocol` | `time` or `personalize` |
/// | `view` | `all_pairs` or `new_pairs`; NULL for figures of the whole |
/// | `ranker` | who ranked; NULL for figures of the data |
/// | `k` | users per segment; NULL where there is no segment |
/// | `bucket_of`, `bucket` | `items`, `users` or `probabilities`, and which part of them; NULL for all |
/// | `members` | items, users or pairs in the bucket |
/// | `metric` | what was measured |
/// | `value` | shares and probabilities from 0 to 1, counts, or epoch seconds (`cut`) and seconds (`horizon_seconds`) |
/// | `low`, `high` | the 95 % interval, where there is one |
#[must_use]
pub fn evaluation_schema() -> SchemaRef {
    let text = |name, nullable| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("protocol", false),
        text("view", true),
        text("ranker", true),
        Field::new("k", DataType::Int64, true),
        text("bucket_of", true),
        text("bucket", true),
        Field::new("members", DataType::Int64, true),
        text("metric", false),
        Field::new("value", DataType::Float64, false),
        Field::new("low", DataType::Float64, true),
        Field::new("high", DataType::Float64, true),
    ]))
}

/// What every file of a report begins with.
#[derive(Serialize)]
struct Document<'a> {
    format: &'static str,
    #[serde(flatten)]
    report: &'a EvaluationReport,
}

impl EvaluationReport {
    /// Refuses a file that is not an earlier evaluation, before anything is measured.
    ///
    /// # Errors
    /// [`Error::Storage`] for a name that is taken by something else, or a store that cannot be reached.
    pub async fn check_output(stores: &Stores, location: &Location) -> Result<()> {
        Ok(check_new_file(stores, location, FORMAT).await?)
    }

    /// Writes the report to a new file. The same evaluation gives the same bytes, so that a repeated run finds its
    /// result there and does nothing; a file with other bytes is never overwritten.
    ///
    /// # Errors
    /// [`Error::Storage`] when the name is taken or the store refuses.
    pub async fn write(&self, stores: &Stores, location: &Location, format: EvaluationFormat) -> Result<NewFile> {
        let bytes = match format {
            EvaluationFormat::Json => Bytes::from(self.to_json()? + "\n"),
            EvaluationFormat::Parquet => self.to_parquet()?,
        };
        Ok(write_new_file(stores, location, bytes).await?)
    }

    /// The report as JSON.
    ///
    /// # Errors
    /// [`Error::Encode`] for what cannot be written as JSON.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(&Document { format: FORMAT, report: self }).map_err(Error::encode)
    }

    /// The figures as a Parquet file of [`evaluation_schema`].
    ///
    /// # Errors
    /// [`Error::Encode`]
    pub fn to_parquet(&self) -> Result<Bytes> {
        let mut rows = Rows::default();
        if let Some(time) = &self.time {
            rows.time(time);
        }
        if let Some(personalize) = &self.personalize {
            rows.personalize(personalize);
        }
        let facts = vec![KeyValue::new("item_affinity.format".to_owned(), FORMAT.to_owned())];
        let properties = WriterProperties::builder().set_key_value_metadata(Some(facts)).build();
        let mut file = Vec::new();
        let mut writer =
            ArrowWriter::try_new(&mut file, evaluation_schema(), Some(properties)).map_err(Error::encode)?;
        writer.write(&rows.batch()?).map_err(Error::encode)?;
        writer.close().map_err(Error::encode)?;
        Ok(file.into())
    }
}

/// One figure; what is not said is NULL.
#[derive(Clone, Default)]
struct Row {
    protocol: &'static str,
    view: Option<&'static str>,
    ranker: Option<String>,
    k: Option<usize>,
    bucket_of: Option<&'static str>,
    bucket: Option<String>,
    members: Option<usize>,
    metric: &'static str,
    value: f64,
    interval: Option<Interval>,
}

#[derive(Default)]
struct Rows(Vec<Row>);

#[allow(clippy::cast_precision_loss)] // counts and times are far below 2^53
impl Rows {
    fn push(&mut self, like: &Row, metric: &'static str, value: f64) {
        self.0.push(Row { metric, value, ..like.clone() });
    }

    fn time(&mut self, of: &TimeEvaluation) {
        let whole = Row { protocol: "time", ..Row::default() };
        for (metric, value) in [
            ("cut", of.cut as f64),
            ("horizon_seconds", of.horizon_seconds as f64),
            ("users", of.users as f64),
            ("items", of.items as f64),
            ("train_interactions", of.train_interactions as f64),
            ("test_interactions", of.test_interactions as f64),
            ("users_in_any_segment", of.users_in_any_segment),
            ("most_frequent_leader", of.most_frequent_leader),
            ("mean_predicted", of.calibration.mean_predicted),
            ("mean_observed", of.calibration.mean_observed),
            ("expected_calibration_error", of.calibration.expected_calibration_error),
        ] {
            self.push(&whole, metric, value);
        }
        for (name, view) in [("all_pairs", &of.all_pairs), ("new_pairs", &of.new_pairs)] {
            self.view(&Row { view: Some(name), ..whole.clone() }, view, of.k);
        }
        for (place, bin) in (1..).zip(&of.calibration.bins) {
            let of_bin = Row {
                bucket_of: Some("probabilities"),
                bucket: Some(format!("tenth {place}")),
                members: Some(bin.pairs),
                ..whole.clone()
            };
            self.push(&of_bin, "predicted", bin.predicted);
            self.push(&of_bin, "observed", bin.observed);
        }
    }

    fn view(&mut self, like: &Row, view: &View, k: usize) {
        self.push(like, "truth", view.truth as f64);
        self.push(like, "items_with_truth", view.items_with_truth as f64);
        for of in &view.rankers {
            let ranked = Row { ranker: Some(of.ranker.clone()), k: Some(of.k), ..like.clone() };
            self.push(&Row { interval: Some(of.precision_interval), ..ranked.clone() }, "precision", of.precision);
            self.push(&Row { interval: Some(of.recall_interval), ..ranked.clone() }, "recall", of.recall);
            self.push(&ranked, "ndcg", of.ndcg);
        }
        for (bucket_of, buckets) in [("items", &view.by_item_popularity), ("users", &view.by_user_activity)] {
            for Bucket { name, members, recall } in buckets {
                for (ranker, recall) in RANKERS.iter().zip(recall) {
                    let part = Row {
                        ranker: Some((*ranker).to_owned()),
                        k: Some(k),
                        bucket_of: Some(bucket_of),
                        bucket: Some(name.clone()),
                        members: Some(*members),
                        ..like.clone()
                    };
                    self.push(&part, "recall", *recall);
                }
            }
        }
    }

    fn personalize(&mut self, of: &PersonalizeEvaluation) {
        let whole = Row { protocol: "personalize", ..Row::default() };
        for (metric, value) in [
            ("users", of.users),
            ("items", of.items),
            ("test_items", of.test_items),
            ("train_interactions", of.train_interactions),
            ("test_interactions", of.test_interactions),
        ] {
            self.push(&whole, metric, value as f64);
        }
        let rankers = [("item_affinity", &of.model), ("most_active", &of.most_active), ("random", &of.random)];
        for (ranker, PersonalizeMetrics { coverage, hits_at_1_percent, recall_at_1_percent }) in rankers {
            let ranked = Row { ranker: Some(ranker.to_owned()), k: Some(of.k), ..whole.clone() };
            self.push(&ranked, "coverage", *coverage);
            self.push(&ranked, "hits_at_1_percent", *hits_at_1_percent);
            self.push(&ranked, "recall_at_1_percent", *recall_at_1_percent);
        }
    }

    fn batch(&self) -> Result<RecordBatch> {
        let rows = &self.0;
        let text = |of: fn(&Row) -> Option<&str>| Arc::new(rows.iter().map(of).collect::<StringArray>()) as ArrayRef;
        let number = |of: fn(&Row) -> Option<f64>| Arc::new(rows.iter().map(of).collect::<Float64Array>()) as ArrayRef;
        let count = |of: fn(&Row) -> Option<usize>| {
            let counts = rows.iter().map(|row| of(row).and_then(|count| i64::try_from(count).ok()));
            Arc::new(counts.collect::<Int64Array>()) as ArrayRef
        };
        let columns = vec![
            text(|row| Some(row.protocol)),
            text(|row| row.view),
            text(|row| row.ranker.as_deref()),
            count(|row| row.k),
            text(|row| row.bucket_of),
            text(|row| row.bucket.as_deref()),
            count(|row| row.members),
            text(|row| Some(row.metric)),
            number(|row| Some(row.value)),
            number(|row| row.interval.map(|of| of.low)),
            number(|row| row.interval.map(|of| of.high)),
        ];
        RecordBatch::try_new(evaluation_schema(), columns).map_err(Error::encode)
    }
}
