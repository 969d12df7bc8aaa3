//! What happened to each row of a read: kept, filtered, or rejected for a named reason.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::{Error, Place, Result};

/// Why a row is rejected.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Reason {
    IdNull,
    IdBlank,
    IdTooLong,
    IdNotUtf8,
    TimestampNull,
    TimestampOutOfRange,
    EventValueNotFinite,
    EventValueNegative,
    EventValueTooLarge,
}

impl Reason {
    const ALL: [Reason; 9] = [
        Reason::IdNull,
        Reason::IdBlank,
        Reason::IdTooLong,
        Reason::IdNotUtf8,
        Reason::TimestampNull,
        Reason::TimestampOutOfRange,
        Reason::EventValueNotFinite,
        Reason::EventValueNegative,
        Reason::EventValueTooLarge,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Reason::IdNull => "id_null",
            Reason::IdBlank => "id_blank",
            Reason::IdTooLong => "id_too_long",
            Reason::IdNotUtf8 => "id_not_utf8",
            Reason::TimestampNull => "timestamp_null",
            Reason::TimestampOutOfRange => "timestamp_out_of_range",
            Reason::EventValueNotFinite => "event_value_not_finite",
            Reason::EventValueNegative => "event_value_negative",
            Reason::EventValueTooLarge => "event_value_too_large",
        }
    }

    /// A required value that is absent is a fault of the file's structure; the others are single bad values.
    fn is_structural(self) -> bool {
        matches!(self, Reason::IdNull | Reason::IdBlank | Reason::TimestampNull)
    }

    /// The rule that the row breaks.
    fn rule(self) -> &'static str {
        match self {
            Reason::IdNull | Reason::IdBlank => "each row needs a user and an item",
            Reason::IdTooLong => "limit 256 characters",
            Reason::IdNotUtf8 => "binary ids must be UTF-8",
            Reason::TimestampNull => "each row needs a time",
            Reason::TimestampOutOfRange => "times lie in the years 1 to 9999",
            Reason::EventValueNotFinite => "NaN and infinity are no values",
            Reason::EventValueNegative => "every interaction counts as positive",
            Reason::EventValueTooLarge => "a weight is at most 1e30",
        }
    }

    /// What to do about such rows.
    fn cure(self) -> &'static str {
        match self {
            Reason::IdNull | Reason::IdBlank => "leave out rows without an id",
            Reason::IdTooLong => "shorten the ids, for example by a hash",
            Reason::IdNotUtf8 => "write the ids as strings, for example in hexadecimal",
            Reason::TimestampNull => "leave out rows without a time",
            Reason::TimestampOutOfRange => "check the unit of the times (--timestamp-unit)",
            Reason::EventValueNotFinite => "write NULL where there is no value",
            Reason::EventValueNegative => "leave out what was disliked, returned or refunded",
            Reason::EventValueTooLarge => "use smaller units",
        }
    }
}

/// A row of the input. The order is that of the files as listed, then of the rows: the first fault is the same
/// whichever thread met it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Position {
    pub(crate) file: usize,
    pub(crate) row: u64,
}

/// A count, and the first row that it counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sighting {
    pub(crate) count: u64,
    pub(crate) first: Option<Position>,
}

impl Sighting {
    pub(crate) fn add(&mut self, position: Position) {
        self.count += 1;
        self.note(position);
    }

    pub(crate) fn merge(&mut self, other: Sighting) {
        self.count += other.count;
        if let Some(position) = other.first {
            self.note(position);
        }
    }

    fn note(&mut self, position: Position) {
        if self.first.is_none_or(|first| position < first) {
            self.first = Some(position);
        }
    }
}

/// The counts of one reader.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) rows: u64,
    pub(crate) filtered_by_event_type: u64,
    pub(crate) filtered_by_event_value: u64,
    rejected: BTreeMap<Reason, (Sighting, &'static str)>,
}

impl Tally {
    pub(crate) fn reject(&mut self, reason: Reason, column: &'static str, position: Position) {
        let (sighting, first_column) = self.rejected.entry(reason).or_insert((Sighting::default(), column));
        if sighting.first.is_none_or(|first| position < first) {
            *first_column = column;
        }
        sighting.add(position);
    }

    pub(crate) fn merge(&mut self, other: Tally) {
        self.rows += other.rows;
        self.filtered_by_event_type += other.filtered_by_event_type;
        self.filtered_by_event_value += other.filtered_by_event_value;
        for (reason, (sighting, column)) in other.rejected {
            let (mine, first_column) = self.rejected.entry(reason).or_insert((Sighting::default(), column));
            if sighting.first < mine.first || mine.first.is_none() {
                *first_column = column;
            }
            mine.merge(sighting);
        }
    }

    /// The counts as they are reported. `file_names` are the files in the order of their positions.
    pub(crate) fn counts(&self, kept: u64, file_names: &[String]) -> RowCounts {
        let rejected = self.rejected.iter().map(|(reason, (sighting, column))| {
            let first = sighting.first.unwrap_or(Position { file: 0, row: 0 });
            let first_file = file_names.get(first.file).cloned().unwrap_or_default();
            (reason.name(), Rejected { count: sighting.count, first_file, first_row: first.row, column })
        });
        RowCounts {
            rows: self.rows,
            kept,
            filtered_by_event_type: self.filtered_by_event_type,
            filtered_by_event_value: self.filtered_by_event_value,
            forgotten: 0,
            rejected: rejected.collect(),
        }
    }
}

/// Rows that were left out because they break a rule.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Rejected {
    /// How many.
    pub count: u64,
    /// The first file, in the order of the listing, that has one.
    pub first_file: String,
    /// The first such row in that file, from 0.
    pub first_row: u64,
    /// The contract's name of the column at fault in that row.
    pub column: &'static str,
}

/// What happened to the rows of a read. `rows` is the sum of all the others.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct RowCounts {
    /// Rows in the files.
    pub rows: u64,
    /// Rows that became interactions.
    pub kept: u64,
    /// Rows of event types that were not asked for; nothing else about them is judged.
    pub filtered_by_event_type: u64,
    /// Sound rows whose event value is below the threshold or null.
    pub filtered_by_event_value: u64,
    /// Sound rows of users who were forgotten.
    #[serde(skip_serializing_if = "is_zero")]
    pub forgotten: u64,
    /// Rows that break a rule, by reason; a row with several faults counts once, ids first, then time, then value.
    pub rejected: BTreeMap<&'static str, Rejected>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl RowCounts {
    /// Rows rejected for any reason.
    pub fn rejected_rows(&self) -> u64 {
        self.rejected.values().map(|rejected| rejected.count).sum()
    }

    fn sum(&self, structural: bool) -> u64 {
        let reasons = Reason::ALL.into_iter().filter(|reason| reason.is_structural() == structural);
        reasons.filter_map(|reason| self.rejected.get(reason.name())).map(|rejected| rejected.count).sum()
    }

    /// Refuses a read in which too many rows were rejected.
    ///
    /// # Errors
    /// [`Error::TooManyBadRows`] with every reason of the kind that passed its limit.
    pub(crate) fn check(&self, limits: BadRowLimits) -> Result<()> {
        for (structural, limit) in [(true, limits.structure), (false, limits.values)] {
            let rejected = self.sum(structural);
            if rejected == 0 || share(rejected, self.rows) <= limit {
                continue;
            }
            let mut reasons: Vec<(Reason, &Rejected)> = Reason::ALL
                .into_iter()
                .filter(|reason| reason.is_structural() == structural)
                .filter_map(|reason| Some((reason, self.rejected.get(reason.name())?)))
                .collect();
            reasons.sort_by_key(|(_, rejected)| std::cmp::Reverse(rejected.count));
            let Some((worst, first)) = reasons.first() else { continue };
            let listed: Vec<String> =
                reasons.iter().map(|(reason, rejected)| format!("{} {}", reason.name(), rejected.count)).collect();
            return Err(Error::TooManyBadRows {
                rejected,
                rows: self.rows,
                reasons: listed.join(", "),
                place: Box::new(Place {
                    file: first.first_file.clone(),
                    row: Some(first.first_row),
                    column: Some(first.column.to_string()),
                }),
                cure: format!(
                    "{} allowed; {}, or raise --max-bad-rows to at least {}",
                    percent(limit),
                    worst.cure(),
                    round_up(share(rejected, self.rows)),
                ),
            });
        }
        Ok(())
    }

    /// One warning for each reason.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = Warning> {
        Reason::ALL.into_iter().filter_map(|reason| {
            let rejected = self.rejected.get(reason.name())?;
            let Rejected { count, first_file, first_row, column } = rejected;
            Some(Warning::new(
                "ROWS_REJECTED",
                format!(
                    "{}; count={count} first_row={first_row} column={column} file={first_file}; {}",
                    reason.name(),
                    reason.rule()
                ),
            ))
        })
    }
}

/// The shares of rows that may be rejected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BadRowLimits {
    /// For absent ids and times.
    pub(crate) structure: f64,
    /// For everything else.
    pub(crate) values: f64,
}

/// Something odd that does not stop a job.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Warning {
    /// A stable code.
    pub code: &'static str,
    /// What is odd and what it means, in one line.
    pub message: String,
}

impl Warning {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// A part of a whole, 0 when there is no whole. Counts beyond 2^53 lose digits, which a share does not show.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A share in percent, short.
pub(crate) fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "0" && share > 0.0 { "under 0.01 %".to_string() } else { format!("{text} %") }
}

/// A share that is not below the given one, with four digits.
fn round_up(share: f64) -> f64 {
    ((share * 10_000.0).ceil() / 10_000.0).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{EVENT_VALUE, ITEM_ID, USER_ID};

    fn tally(rejects: &[(Reason, &'static str, usize, u64)], rows: u64) -> Tally {
        let mut tally = Tally { rows, ..Tally::default() };
        for (reason, column, file, row) in rejects {
            tally.reject(*reason, column, Position { file: *file, row: *row });
        }
        tally
    }

    fn files() -> Vec<String> {
        vec!["a.parquet".into(), "b.parquet".into()]
    }

    const STRICT: BadRowLimits = BadRowLimits { structure: 0.0, values: 0.01 };

    #[test]
    fn the_first_row_does_not_depend_on_the_order_of_the_readers() {
        let early = [(Reason::IdNull, ITEM_ID, 0, 9)];
        let late = [(Reason::IdNull, USER_ID, 1, 2), (Reason::IdNull, USER_ID, 0, 10)];
        for (one, two) in [(&early[..], &late[..]), (&late[..], &early[..])] {
            let mut sum = tally(one, 50);
            sum.merge(tally(two, 50));
            let counts = sum.counts(97, &files());
            let expected = Rejected { count: 3, first_file: "a.parquet".into(), first_row: 9, column: ITEM_ID };
            assert_eq!(counts.rejected["id_null"], expected);
            assert_eq!(counts.rows, 100);
        }
    }

    #[test]
    fn one_null_id_is_too_many_by_default() {
        let counts = tally(&[(Reason::IdNull, USER_ID, 1, 3)], 1_000_000).counts(999_999, &files());
        assert_eq!(
            counts.check(STRICT).unwrap_err().to_string(),
            "ERR_TOO_MANY_BAD_ROWS: 1 of 1000000 rows rejected (id_null 1); file=b.parquet row=3 column=USER_ID; \
             0 % allowed; leave out rows without an id, or raise --max-bad-rows to at least 0.0001"
        );
        assert!(counts.check(BadRowLimits { structure: 0.0001, values: 0.0 }).is_ok());
    }

    #[test]
    fn bad_values_are_allowed_up_to_their_share_and_no_further() {
        let rejects: Vec<_> = (0..11)
            .map(|row| {
                (if row < 3 { Reason::EventValueNotFinite } else { Reason::EventValueNegative }, EVENT_VALUE, 0, row)
            })
            .collect();
        let at_limit = tally(&rejects[..10], 1000).counts(990, &files());
        assert!(at_limit.check(STRICT).is_ok());
        assert_eq!(at_limit.warnings().count(), 2);
        let over = tally(&rejects, 1000).counts(989, &files());
        let text = over.check(STRICT).unwrap_err().to_string();
        assert!(text.contains("11 of 1000 rows rejected (event_value_negative 8, event_value_not_finite 3)"), "{text}");
        assert!(text.contains("row=3 column=EVENT_VALUE; 1 % allowed; leave out what was disliked"), "{text}");
    }

    #[test]
    fn a_warning_names_reason_count_first_row_and_rule() {
        let counts = tally(&[(Reason::IdTooLong, USER_ID, 0, 40_551)], 5_000).counts(4_999, &files());
        assert_eq!(
            counts.warnings().next().unwrap().to_string(),
            "ROWS_REJECTED: id_too_long; count=1 first_row=40551 column=USER_ID file=a.parquet; limit 256 characters"
        );
    }

    #[test]
    fn shares_are_printed_short() {
        assert_eq!(percent(0.01), "1 %");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.987_654), "98.77 %");
        assert_eq!(percent(1e-9), "under 0.01 %");
        assert_eq!(round_up(1.0 / 3.0), 0.3334);
    }
}
