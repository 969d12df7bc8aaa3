//! An evaluation by the protocol time, as a person reads it.

use std::fmt::Write as _;

use item_affinity_model::{Bucket, Calibration, Interval, RANKERS, TimeEvaluation, View};
use item_affinity_solution::moment;

use crate::exit::Failure;
use crate::print::text_table;
use crate::progress::grouped;

const SECONDS_PER_DAY: f64 = 86_400.0;

/// Tables of everything that was measured, in percent.
pub(crate) fn time_table(result: &TimeEvaluation) -> Result<String, Failure> {
    let mut text = format!(
        "protocol time: trained on {} interactions before {}, foresaw {} in the {} after it\n\
         {} items asked, segments of {} of {} users; figures in percent, with 95 % intervals\n",
        grouped(result.train_interactions as u64),
        moment(result.cut),
        grouped(result.test_interactions as u64),
        days(result.horizon_seconds),
        grouped(result.items as u64),
        grouped(result.k as u64),
        grouped(result.users as u64),
    );
    for (name, view) in [("all pairs", &result.all_pairs), ("new pairs only", &result.new_pairs)] {
        let (truth, items) = (grouped(view.truth as u64), grouped(view.items_with_truth as u64));
        let _ = writeln!(text, "\n{name}: {truth} interacted, with {items} items\n{}", quality(view)?);
    }
    for (what, pick) in [("items", by_item as fn(&View) -> &[Bucket]), ("users", by_user)] {
        let _ = writeln!(text, "\nrecall at 1 % by {what}\n{}", buckets(result, pick)?);
    }
    let _ = writeln!(text, "\n{}", calibration(&result.calibration)?);
    let _ = write!(
        text,
        "{} of the users are in any segment; the most frequent leader of a segment leads {} of them",
        share(result.users_in_any_segment),
        share(result.most_frequent_leader),
    );
    result.warnings.iter().for_each(|warning| {
        let _ = write!(text, "\nwarning: {warning}");
    });
    Ok(text)
}

fn by_item(view: &View) -> &[Bucket] {
    &view.by_item_popularity
}

fn by_user(view: &View) -> &[Bucket] {
    &view.by_user_activity
}

/// The ranker as a person calls it.
pub(crate) fn ranker_name(ranker: &str) -> &str {
    match ranker {
        "item_affinity" => "item affinity",
        "plain_als" => "plain ALS",
        "earlier_buyers" => "earlier buyers",
        "most_active_recently" => "most active recently",
        "most_active" => "most active",
        other => other,
    }
}

fn quality(view: &View) -> Result<String, Failure> {
    let interval = |of: Interval| format!("{:.2} to {:.2}", of.low * 100.0, of.high * 100.0);
    let rows = view.rankers.iter().map(|of| {
        vec![
            ranker_name(&of.ranker).to_owned(),
            grouped(of.k as u64),
            percent(of.precision),
            interval(of.precision_interval),
            percent(of.recall),
            interval(of.recall_interval),
            percent(of.ndcg),
        ]
    });
    let header = ["ranking", "users", "precision", "95 %", "recall", "95 %", "NDCG"];
    text_table(&header, &rows.collect::<Vec<_>>())
}

/// The recall of each ranker, all pairs before new pairs.
fn buckets(result: &TimeEvaluation, pick: fn(&View) -> &[Bucket]) -> Result<String, Failure> {
    let mut header = vec!["pairs", "where", "count"];
    header.extend(RANKERS.iter().map(|ranker| ranker_name(ranker)));
    let mut rows = Vec::new();
    for (name, view) in [("all", &result.all_pairs), ("new", &result.new_pairs)] {
        for bucket in pick(view) {
            let mut row = vec![name.to_owned(), bucket.name.clone(), grouped(bucket.members as u64)];
            row.extend(bucket.recall.iter().map(|recall| percent(*recall)));
            rows.push(row);
        }
    }
    text_table(&header, &rows)
}

fn calibration(of: &Calibration) -> Result<String, Failure> {
    let fine = |value: f64| format!("{:.4}", value * 100.0);
    let rows =
        of.bins.iter().enumerate().map(|(bin, of)| {
            vec![(bin + 1).to_string(), grouped(of.pairs as u64), fine(of.predicted), fine(of.observed)]
        });
    let table = text_table(&["tenth", "pairs", "predicted", "observed"], &rows.collect::<Vec<_>>())?;
    Ok(format!("probabilities against what happened\n{table}\n{}", calibration_line(of)))
}

/// How far probabilities are off, in one line.
pub(crate) fn calibration_line(of: &Calibration) -> String {
    let ratio = if of.mean_predicted > 0.0 { of.expected_calibration_error / of.mean_predicted } else { 0.0 };
    format!(
        "mean probability {:.4} %, observed {:.4} %; expected calibration error {:.4} %, {} of the mean",
        of.mean_predicted * 100.0,
        of.mean_observed * 100.0,
        of.expected_calibration_error * 100.0,
        share(ratio),
    )
}

pub(crate) fn percent(of: f64) -> String {
    format!("{:.2}", of * 100.0)
}

fn share(of: f64) -> String {
    format!("{:.1} %", of * 100.0)
}

/// Seconds in days, or in smaller units when it is less than one.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn days(seconds: i64) -> String {
    match seconds {
        0..120 => format!("{seconds} seconds"),
        120..7_200 => format!("{:.0} minutes", seconds as f64 / 60.0),
        7_200..172_800 => format!("{:.1} hours", seconds as f64 / 3_600.0),
        _ => format!("{:.1} days", seconds as f64 / SECONDS_PER_DAY),
    }
}
