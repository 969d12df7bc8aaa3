//! `${NAME}` and `${date}` in the texts of a job file.

use std::fmt::Write;

use chrono::{Days, NaiveDate};

/// Where the values of placeholders come from.
pub(crate) struct Placeholders<'a> {
    /// The day that the job is for.
    pub(crate) date: NaiveDate,
    pub(crate) environment: &'a dyn Fn(&str) -> Option<String>,
}

impl Placeholders<'_> {
    /// A text with its placeholders replaced; `$${` is `${`.
    ///
    /// # Errors   what is wrong with a placeholder, and how to write it
    pub(crate) fn fill(&self, text: &str) -> Result<String, String> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(before) = before.strip_suffix('$') {
                filled.push_str(before);
                filled.push_str("${");
                rest = after;
                continue;
            }
            let (name, after) = after.split_once('}').ok_or("${ without }; write $${ for the characters themselves")?;
            filled.push_str(before);
            filled.push_str(&self.value(name)?);
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn value(&self, name: &str) -> Result<String, String> {
        let is_date =
            name.strip_prefix("date").is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '+', ':']));
        if is_date {
            return self.day(name);
        }
        let is_name = !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_name {
            let name = name.escape_debug();
            return Err(format!("${{{name}}} is no placeholder; write ${{NAME}}, ${{date}} or ${{date-1d:%Y/%m/%d}}"));
        }
        let unset =
            || format!("${{{name}}}: the environment variable {name} is not set; set it, or write $${{ for ${{");
        (self.environment)(name).ok_or_else(unset)
    }

    /// `date`, `date-1d`, `date:%Y%m%d`, `date+7d:%d.%m.`.
    fn day(&self, name: &str) -> Result<String, String> {
        let shown = name.escape_debug();
        let refused = || format!("${{{shown}}} is no date; write ${{date}}, ${{date-1d}} or ${{date-1d:%Y/%m/%d}}");
        let (shift, format) = name.split_once(':').unwrap_or((name, "%Y-%m-%d"));
        let shift = shift.strip_prefix("date").unwrap_or_default();
        let days = |text: &str| text.strip_suffix('d').and_then(|days| days.parse().ok()).map(Days::new);
        let day = match (shift.strip_prefix('-'), shift.strip_prefix('+')) {
            (Some(back), _) => days(back).and_then(|days| self.date.checked_sub_days(days)),
            (_, Some(on)) => days(on).and_then(|days| self.date.checked_add_days(days)),
            (None, None) => Some(self.date),
        };
        let mut text = String::new();
        // A format with hours, or a letter that stands for nothing, fails here.
        write!(text, "{}", day.ok_or_else(refused)?.format(format)).map_err(|_| refused())?;
        Ok(text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fill(text: &str) -> Result<String, String> {
        let environment = |name: &str| (name == "LAKE").then(|| "s3://lake".to_owned());
        Placeholders { date: NaiveDate::from_ymd_opt(2026, 3, 1).unwrap(), environment: &environment }.fill(text)
    }

    #[test]
    fn names_and_dates_are_put_in() {
        for (text, filled) in [
            ("plain $ } text", "plain $ } text"),
            ("${LAKE}/x", "s3://lake/x"),
            ("${LAKE}/${date}/${date-1d}", "s3://lake/2026-03-01/2026-02-28"),
            ("${date+31d:%Y%m%d}", "20260401"),
            ("day=${date:%d}/month=${date:%m}", "day=01/month=03"),
            ("$${LAKE} ${LAKE}", "${LAKE} s3://lake"),
        ] {
            assert_eq!(fill(text).unwrap(), filled, "{text}");
        }
    }

    #[test]
    fn what_is_no_placeholder_is_an_error_that_says_how_to_write_it() {
        for text in
            ["${", "${}", "${NOT_SET}", "${1A}", "${a b}", "${date-1}", "${date-1w}", "${date:%H}", "${date:%!}"]
        {
            let error = fill(text).unwrap_err();
            assert!(error.contains("write "), "{text}: {error}");
        }
        assert!(fill("${NOT_SET}").unwrap_err().contains("NOT_SET is not set"));
    }
}
