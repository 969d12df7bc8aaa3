//! Which columns of Items or Users become attributes.

use crate::columns::clean;
use crate::error::{Error, Names, Result, printable};
use crate::schema::Dataset;

/// Times of creation would let a fit mistake what is new for what is liked; only who names the column gets it.
const ONLY_WHEN_NAMED: &[&str] = &["CREATION_TIMESTAMP"];

/// Columns by name, without regard to case; by default every column but the id and `CREATION_TIMESTAMP`.
///
/// | Setting | Default | Range | Purpose |
/// | --- | --- | --- | --- |
/// | `include` | empty: all | names of columns | the only columns that are used |
/// | `exclude` | empty: none | names of columns | columns that are not used |
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AttributeSelection {
    /// The only columns that are used; empty for all.
    pub include: Vec<String>,
    /// Columns that are not used, even when they are included.
    pub exclude: Vec<String>,
}

impl AttributeSelection {
    /// Whether a column becomes attributes.
    pub(crate) fn admits(&self, name: &str) -> bool {
        let named = |names: &[String]| names.iter().any(|other| same(other, name));
        if named(&self.exclude) {
            return false;
        }
        if self.include.is_empty() {
            !ONLY_WHEN_NAMED.iter().any(|other| same(other, name))
        } else {
            named(&self.include)
        }
    }

    /// Refuses names that no file has.
    ///
    /// # Errors
    /// [`Error::Option`] with the columns that there are.
    pub(crate) fn check(&self, dataset: Dataset, columns: &[String]) -> Result<()> {
        for (option, names) in [("--include-columns", &self.include), ("--exclude-columns", &self.exclude)] {
            if let Some(unknown) = names.iter().find(|name| !columns.iter().any(|column| same(name, column))) {
                return Err(Error::Option {
                    option,
                    what: format!("{dataset} has no column {:?} beside its id", printable(unknown)),
                    cure: format!("columns are [{}]", Names(columns)),
                });
            }
        }
        Ok(())
    }
}

/// Whether two names are the same column.
pub(crate) fn same(one: &str, other: &str) -> bool {
    clean(one).to_lowercase() == clean(other).to_lowercase()
}
