//! The data report as a compact table for a terminal.

use std::fmt;

use arrow::temporal_conversions::timestamp_s_to_datetime;

use crate::error::printable;
use crate::profile::ColumnProfile;
use crate::report::{DataReport, Level, MetadataReport};
use crate::tally::{percent, share};

impl DataReport {
    /// The report line by line, without trailing spaces and without user ids.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        self.numbers(&mut lines);
        self.event_type_lines(&mut lines);
        let columns = self.columns.iter().map(|column| {
            [column.name.to_string(), column.types.join(", "), percent(column.complete()), String::new()]
        });
        table(&mut lines, ["Interactions", "type", "complete", ""], columns);
        for (title, metadata) in [("Items", &self.item_metadata), ("Users", &self.user_metadata)] {
            if let Some(metadata) = metadata {
                metadata.lines(title, &mut lines);
            }
        }
        self.finding_lines(&mut lines);
        lines
    }

    fn numbers(&self, lines: &mut Vec<String>) {
        let rows = &self.rows;
        let mut row = |name: &str, number: u64, rest: String| {
            lines.push(format!("{name:<14}{:>15}  {rest}", thousands(number)).trim_end().to_string());
        };
        let mut left_out = Vec::new();
        for (count, why) in [
            (rows.filtered_by_event_type, "by event type"),
            (rows.filtered_by_event_value, "by event value"),
            (rows.rejected_rows(), "rejected"),
            (rows.forgotten, "of forgotten users"),
        ] {
            if count > 0 {
                left_out.push(format!("{} {why}", thousands(count)));
            }
        }
        let left_out = if left_out.is_empty() { String::new() } else { format!("left out: {}", left_out.join(", ")) };
        row("rows", rows.rows, left_out);
        row("interactions", self.interactions, format!("{} unique", thousands(self.unique_interactions)));
        let with_two = percent(share(self.users_with_two_or_more, self.users));
        row("users", self.users, format!("{} with two or more ({with_two})", thousands(self.users_with_two_or_more)));
        row("items", self.items, String::new());
        if let (Some(first), Some(last)) = (self.first_time, self.last_time) {
            lines.push(format!("{:<14}{} to {}", "time", time(first), time(last)));
        }
    }

    fn event_type_lines(&self, lines: &mut Vec<String>) {
        const SHOWN: usize = 12;
        let types = &self.event_types;
        if types.types.is_empty() && types.unlisted == 0 {
            return;
        }
        let all = self.rows.rows;
        let line = |name: String, rows: u64| [name, thousands(rows), percent(share(rows, all)), String::new()];
        let mut rows: Vec<_> =
            types.types.iter().take(SHOWN).map(|count| line(printable(&count.event_type), count.rows)).collect();
        let more: u64 = types.types.iter().skip(SHOWN).map(|count| count.rows).sum();
        if more + types.unlisted > 0 {
            rows.push(line("(others)".to_string(), more + types.unlisted));
        }
        if types.without > 0 {
            rows.push(line("(none)".to_string(), types.without));
        }
        table(lines, ["Event types", "rows", "share", ""], rows.into_iter());
    }

    fn finding_lines(&self, lines: &mut Vec<String>) {
        lines.push(String::new());
        if self.findings.is_empty() {
            lines.push("No findings.".to_string());
        }
        for finding in &self.findings {
            let level = match finding.level {
                Level::Error => "error",
                Level::Warning => "warning",
                Level::Info => "info",
            };
            lines.push(format!("{level}: {}: {}", finding.code, finding.message));
        }
    }
}

impl fmt::Display for DataReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

impl MetadataReport {
    fn lines(&self, title: &str, lines: &mut Vec<String>) {
        let with = thousands(self.ids.saturating_sub(self.without_interactions));
        let title = format!("{title} ({} ids, {with} with interactions)", thousands(self.ids));
        let rows = self.columns.iter().map(|column| {
            [printable(&column.name), column.types.join(", "), percent(column.complete()), holds(column)]
        });
        table(lines, [&title, "type", "complete", "holds"], rows);
    }
}

/// What a column holds, in a few words.
fn holds(column: &ColumnProfile) -> String {
    match (column.categories, column.minimum, column.maximum) {
        (Some(count), ..) if column.more_categories => format!("over {} categories", thousands(count)),
        (Some(count), ..) => format!("{} categories", thousands(count)),
        (None, Some(least), Some(most)) => format!("{least} to {most}"),
        _ => String::new(),
    }
}

/// A titled table whose columns are as wide as they need to be, after an empty line.
fn table(lines: &mut Vec<String>, head: [&str; 4], rows: impl Iterator<Item = [String; 4]>) {
    let mut all = vec![head.map(ToString::to_string)];
    all.extend(rows);
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2), width(3)];
    lines.push(String::new());
    for row in &all {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        lines.push(cells.join("  ").trim_end().to_string());
    }
}

/// A time of the years 1 to 9999 as a person reads it, in UTC.
fn time(seconds: i64) -> String {
    timestamp_s_to_datetime(seconds).map_or_else(|| format!("{seconds} s"), |time| format!("{time}Z"))
}

/// A number in groups of three digits.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three_digits() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn times_are_told_in_utc() {
        assert_eq!(time(0), "1970-01-01 00:00:00Z");
        assert_eq!(time(-1), "1969-12-31 23:59:59Z");
    }
}
