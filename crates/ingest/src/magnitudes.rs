//! What bare integer times say about their unit.

use crate::error::{Error, Place, Result};
use crate::tally::{Position, Sighting, Warning};
use crate::timestamp::TimestampUnit;

/// Bare integer times by the unit that they look like.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Magnitudes(pub(crate) [Sighting; 4]);

impl Magnitudes {
    pub(crate) fn add(&mut self, value: i64, position: Position) {
        if let Some(unit) = TimestampUnit::likely(value) {
            self.0[unit as usize].add(position);
        }
    }

    pub(crate) fn merge(&mut self, other: Magnitudes) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            mine.merge(theirs);
        }
    }
}

/// Decides the unit of bare integer times over the whole read: a single file or row group would be too little evidence
/// to tell two units in one data set.
///
/// # Errors
/// [`Error::TimestampUnit`] when two units occur, or when the unit is finer than milliseconds.
pub(crate) fn decide_unit(
    magnitudes: &Magnitudes,
    file_names: &[String],
    column: &str,
) -> Result<(TimestampUnit, Option<Warning>)> {
    let mut seen: Vec<(TimestampUnit, u64, Position)> = TimestampUnit::ALL
        .into_iter()
        .filter_map(|unit| {
            let sighting = magnitudes.0[unit as usize];
            sighting.first.map(|first| (unit, sighting.count, first))
        })
        .collect();
    seen.sort_by_key(|(unit, count, _)| (std::cmp::Reverse(*count), *unit));
    let file_of = |position: Position| file_names.get(position.file).cloned().unwrap_or_default();
    match seen[..] {
        [] | [(TimestampUnit::Seconds, ..)] => Ok((TimestampUnit::Seconds, None)),
        [(TimestampUnit::Milliseconds, count, first)] => {
            let warning = Warning::new(
                "TIMESTAMP_UNIT",
                format!(
                    "read as milliseconds; count={count} first_row={} column={column}; every bare integer has the \
                 magnitude of milliseconds since 1970; --timestamp-unit ms says so for good",
                    first.row
                ),
            );
            Ok((TimestampUnit::Milliseconds, Some(warning)))
        }
        [(unit, count, first)] => Err(Error::TimestampUnit {
            what: format!("{count} integers look like {unit}, and seconds or milliseconds are expected"),
            place: Box::new(Place { file: file_of(first), row: Some(first.row), column: Some(column.to_string()) }),
            units: vec![unit],
            cure: format!("say --timestamp-unit {} if they are {unit}", unit.symbol()),
        }),
        [(most, most_count, most_first), (odd, odd_count, odd_first), ..] => Err(Error::TimestampUnit {
            what: format!(
                "two clusters of magnitude: {most_count} rows look like {most} (first row {}{}), {odd_count} like {odd} \
                 (first row {})",
                most_first.row,
                if most_first.file == odd_first.file { String::new() } else { format!(" of {}", file_of(most_first)) },
                odd_first.row,
            ),
            place: Box::new(Place {
                file: file_of(odd_first),
                row: Some(odd_first.row),
                column: Some(column.to_string()),
            }),
            units: seen.iter().map(|(unit, ..)| *unit).collect(),
            cure: format!(
                "write all times in one unit, or say --timestamp-unit {} if they are all {most}",
                most.symbol()
            ),
        }),
    }
}

/// Bare times in their unit become seconds.
pub(crate) fn to_seconds(times: &mut [i64], unit: TimestampUnit) {
    if unit != TimestampUnit::Seconds {
        for time in times {
            *time = unit.to_seconds(*time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn magnitudes(counts: [(u64, usize, u64); 4]) -> Magnitudes {
        Magnitudes(
            counts.map(|(count, file, row)| Sighting { count, first: (count > 0).then_some(Position { file, row }) }),
        )
    }

    fn decide(counts: [(u64, usize, u64); 4]) -> Result<(TimestampUnit, Option<Warning>)> {
        decide_unit(&magnitudes(counts), &["a.parquet".into(), "b.parquet".into()], "ts")
    }

    const NONE: (u64, usize, u64) = (0, 0, 0);

    #[test]
    fn all_seconds_and_no_evidence_at_all_are_seconds() {
        assert_eq!(decide([(5, 0, 0), NONE, NONE, NONE]).unwrap(), (TimestampUnit::Seconds, None));
        assert_eq!(decide([NONE; 4]).unwrap(), (TimestampUnit::Seconds, None));
    }

    #[test]
    fn all_milliseconds_are_taken_with_a_warning() {
        let (unit, warning) = decide([NONE, (5, 0, 2), NONE, NONE]).unwrap();
        assert_eq!(unit, TimestampUnit::Milliseconds);
        assert!(warning.unwrap().message.starts_with("read as milliseconds; count=5 first_row=2 column=ts; "));
    }

    #[test]
    fn finer_units_have_to_be_named() {
        let text = decide([NONE, NONE, (7, 1, 0), NONE]).unwrap_err().to_string();
        assert_eq!(
            text,
            "ERR_TIMESTAMP_UNIT: 7 integers look like microseconds, and seconds or milliseconds are expected; \
             file=b.parquet row=0 column=ts; say --timestamp-unit us if they are microseconds"
        );
    }

    #[test]
    fn two_units_are_refused_with_a_row_of_each() {
        let text = decide([(90, 0, 3), (10, 1, 8), NONE, NONE]).unwrap_err().to_string();
        assert_eq!(
            text,
            "ERR_TIMESTAMP_UNIT: two clusters of magnitude: 90 rows look like seconds (first row 3 of a.parquet), 10 \
             like milliseconds (first row 8); file=b.parquet row=8 column=ts; write all times in one unit, or say \
             --timestamp-unit s if they are all seconds"
        );
    }

    #[test]
    fn conversion_rounds_down() {
        let mut times = [1_700_000_000_999, -1];
        to_seconds(&mut times, TimestampUnit::Milliseconds);
        assert_eq!(times, [1_700_000_000, -1]);
    }
}
