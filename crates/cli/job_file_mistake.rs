//! What is wrong with a job file, where it stands there, and what to write instead.

use std::fmt;

use toml::de::{DeTable, DeValue};

/// A mistake of who wrote a job file.
#[derive(Debug)]
pub(crate) struct Mistake {
    what: String,
    place: Option<Place>,
    cure: Option<String>,
}

/// A line and a column, from 1, as editors count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
}

impl From<String> for Mistake {
    fn from(what: String) -> Self {
        Self { what, place: None, cure: None }
    }
}

impl Mistake {
    /// With the name that was most likely meant.
    pub(crate) fn with_nearest(self, nearest: Option<&str>) -> Self {
        Self { cure: nearest.map(|name| format!("did you mean '{name}'?")).or(self.cure), ..self }
    }

    /// At a byte of the text.
    pub(crate) fn at_byte(self, text: &str, byte: usize) -> Self {
        Self { place: Some(Place::of(text, byte)), ..self }
    }

    /// At a key: its table, which of the tables of this name, and the key in that table.
    pub(crate) fn at_key(self, text: &str, key: &str, number: usize, option: Option<&str>) -> Self {
        match byte_of(text, key, number, option) {
            Some(byte) => self.at_byte(text, byte),
            None => self,
        }
    }

    /// The one line for a person.
    pub(crate) fn in_file(&self, file: &dyn fmt::Display) -> String {
        let place = self.place.map(|at| format!(" line={} column={}", at.line, at.column)).unwrap_or_default();
        let cure = self.cure.as_deref().unwrap_or("`run --dry-run` checks the file");
        format!("ERR_JOB_FILE: {}; file={file}{place}; {cure}", self.what)
    }
}

impl Place {
    fn of(text: &str, byte: usize) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Self { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
    }
}

/// Where a key stands. The text is parsed again: who reads its values has no need of their places.
fn byte_of(text: &str, key: &str, number: usize, option: Option<&str>) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let (name, value) = document.get_ref().iter().find(|(name, _)| name.get_ref() == key)?;
    let table = match value.get_ref() {
        DeValue::Array(tables) => tables.get(number)?.get_ref(),
        value => value,
    };
    let within = option.and_then(|option| {
        let DeValue::Table(table) = table else { return None };
        table.keys().find(|name| name.get_ref() == option).map(|name| name.span().start)
    });
    Some(within.unwrap_or_else(|| name.span().start))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_told_with_the_line_and_column_of_its_key() {
        let text =
            "quiet = true\n[train]\n  solution = 's'\n\n[[segment]]\nitem = 'A'\n[[segment]]\n'ü' = 1\n itme = 'B'\n";
        let place = |key, number, option| byte_of(text, key, number, option).map(|byte| Place::of(text, byte));
        assert_eq!(place("quiet", 0, None), Some(Place { line: 1, column: 1 }));
        assert_eq!(place("train", 0, None), Some(Place { line: 2, column: 2 }));
        assert_eq!(place("train", 0, Some("solution")), Some(Place { line: 3, column: 3 }));
        assert_eq!(place("segment", 1, Some("itme")), Some(Place { line: 9, column: 2 }));
        assert_eq!(place("none", 0, None), None);
        let mistake = Mistake::from("unknown key 'itme'".to_owned()).with_nearest(Some("item"));
        assert_eq!(
            mistake.at_key(text, "segment", 1, Some("itme")).in_file(&"job.toml"),
            "ERR_JOB_FILE: unknown key 'itme'; file=job.toml line=9 column=2; did you mean 'item'?"
        );
    }
}
