//! What is odd about event types and times, but does not stop a read.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::printable;
use crate::event_types::EventTypeCounts;
use crate::source::InteractionsSource;
use crate::tally::{Sighting, Warning};

/// Event types that the options name and the data lacks, and the other way round.
pub(crate) fn odd_types(source: &InteractionsSource, found: &EventTypeCounts, warnings: &mut Vec<Warning>) {
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

/// Times that may stand for something else.
pub(crate) fn odd_times(
    at_zero: &Sighting,
    negative: &Sighting,
    ahead: u64,
    column: &str,
    warnings: &mut Vec<Warning>,
) {
    let column = printable(column);
    let mut warn = |code, what: &str, sighting: &Sighting, meaning: &str| {
        if let Some(first) = sighting.first {
            let message =
                format!("{what}; count={} first_row={} column={column}; {meaning}", sighting.count, first.row);
            warnings.push(Warning::new(code, message));
        }
    };
    warn("TIMESTAMP_ZERO", "time 0", at_zero, "it counts as 1970-01-01; often it stands for no time");
    warn("TIMESTAMP_NEGATIVE", "times before 1970", negative, "they count as given");
    if ahead > 0 {
        let message =
            format!("times more than a day ahead of this clock; count={ahead} column={column}; they count as given");
        warnings.push(Warning::new("TIMESTAMP_FUTURE", message));
    }
}

/// Times after this one lie more than a day ahead of this clock; epoch seconds.
pub(crate) fn latest_time() -> i64 {
    const DAY: i64 = 86_400;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX).saturating_add(DAY)
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
