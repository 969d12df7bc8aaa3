//! The three dataset contracts as data: which columns there are, of which types, and which must be there.

use std::fmt;

use arrow::datatypes::DataType;
use serde::Serialize;

/// A data set that a person gives.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dataset {
    /// The event log: who did what, and when.
    Interactions,
    /// The catalog: one row per item.
    Items,
    /// The people: one row per user.
    Users,
}

impl Dataset {
    /// The columns that have a meaning in this data set, in the order in which they are documented.
    pub fn columns(self) -> &'static [ColumnContract] {
        match self {
            Dataset::Interactions => INTERACTIONS,
            Dataset::Items => ITEMS,
            Dataset::Users => USERS,
        }
    }
}

impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dataset::Interactions => "Interactions",
            Dataset::Items => "Items",
            Dataset::Users => "Users",
        })
    }
}

/// One column of a data set: its name, what it may hold, and whether a file can do without it.
#[derive(Debug)]
pub struct ColumnContract {
    /// The name, matched without regard to case.
    pub name: &'static str,
    /// The Arrow types that can carry it.
    pub accepts: Accepts,
    /// A file without it is refused.
    pub required: bool,
    /// Names that other systems give it: suggested in messages, never matched by themselves.
    pub also_called: &'static [&'static str],
}

/// The user who acted.
pub const USER_ID: &str = "USER_ID";
/// The item acted on.
pub const ITEM_ID: &str = "ITEM_ID";
/// When it happened.
pub const TIMESTAMP: &str = "TIMESTAMP";
/// What was done: view, purchase.
pub const EVENT_TYPE: &str = "EVENT_TYPE";
/// A number that belongs to the event: price, minutes watched.
pub const EVENT_VALUE: &str = "EVENT_VALUE";

const USER: ColumnContract = ColumnContract {
    name: USER_ID,
    accepts: Accepts::Id,
    required: true,
    also_called: &["user", "uid", "customer_id", "customer", "household_id", "visitor_id", "member_id", "account_id"],
};
const ITEM: ColumnContract = ColumnContract {
    name: ITEM_ID,
    accepts: Accepts::Id,
    required: true,
    also_called: &["item", "iid", "product_id", "product", "sku", "asin", "stock_code", "movie_id", "article_id"],
};

static INTERACTIONS: &[ColumnContract] = &[
    USER,
    ITEM,
    ColumnContract {
        name: TIMESTAMP,
        accepts: Accepts::Timestamp,
        required: true,
        also_called: &["ts", "time", "date", "datetime", "event_time", "event_date", "event_timestamp", "created_at"],
    },
    ColumnContract {
        name: EVENT_TYPE,
        accepts: Accepts::Text,
        required: false,
        also_called: &["event", "type", "action", "event_name"],
    },
    ColumnContract {
        name: EVENT_VALUE,
        accepts: Accepts::Number,
        required: false,
        also_called: &["value", "rating", "amount", "price"],
    },
];
static ITEMS: &[ColumnContract] = &[
    ITEM,
    // Amazon Personalize prefers newer items by it; here it is profiled like any other column.
    ColumnContract { name: "CREATION_TIMESTAMP", accepts: Accepts::Timestamp, required: false, also_called: &[] },
];
static USERS: &[ColumnContract] = &[USER];

/// Columns of Interactions that Amazon Personalize reserves and that training never reads.
pub(crate) const RESERVED_UNREAD: &[&str] = &["IMPRESSION", "RECOMMENDATION_ID", "EVENT_ATTRIBUTION_SOURCE"];

/// What a column may hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Accepts {
    /// Strings, integers as decimal text, and binary values that are UTF-8.
    Id,
    /// Integers, Arrow timestamps and dates.
    Timestamp,
    /// Strings.
    Text,
    /// Integers, floats and decimals.
    Number,
}

impl Accepts {
    /// Whether a column of this type can be read.
    pub fn admits(self, found: &DataType) -> bool {
        if let DataType::Dictionary(_, values) = found {
            return self.admits(values);
        }
        match self {
            Accepts::Id => {
                is_string(found)
                    || found.is_integer()
                    || matches!(
                        found,
                        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
                    )
            }
            Accepts::Timestamp => {
                found.is_integer() || matches!(found, DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64)
            }
            Accepts::Text => is_string(found),
            Accepts::Number => found.is_numeric(),
        }
    }

    /// The accepted types in words.
    pub fn in_words(self) -> &'static str {
        match self {
            Accepts::Id => "strings and integers",
            Accepts::Timestamp => "integers (epoch seconds), timestamps and dates",
            Accepts::Text => "strings",
            Accepts::Number => "integers, floats and decimals",
        }
    }

    /// Why this type is refused, where the reason is not plain from the list of accepted ones.
    pub(crate) fn why_not(self, found: &DataType) -> &'static str {
        match (self, found) {
            (Accepts::Id, float) if float.is_floating() => " (ids as floats would lose digits over 2^53)",
            (Accepts::Timestamp, float) if float.is_floating() => " (a float column of times often hides nulls)",
            (Accepts::Timestamp, text) if is_string(text) => " (text has no time zone that can be relied on)",
            _ => "",
        }
    }

    /// What to do about a column of another type.
    pub(crate) fn cure(self) -> &'static str {
        match self {
            Accepts::Id => "write the ids as strings or integers, or map another column with --column",
            Accepts::Timestamp => {
                "write epoch seconds (BIGINT) or a timestamp, for example CAST(ts AS TIMESTAMP), \
                 or map another column with --column"
            }
            Accepts::Text => "write the event types as strings, or map another column with --column",
            Accepts::Number => "write the values as numbers, or map another column with --column",
        }
    }
}

fn is_string(found: &DataType) -> bool {
    matches!(found, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn ids_may_be_strings_integers_or_binary_but_not_floats_decimals_or_lists() {
        let dictionary = DataType::Dictionary(Box::new(DataType::UInt8), Box::new(DataType::LargeUtf8));
        for good in [
            DataType::Utf8,
            DataType::LargeUtf8,
            DataType::Utf8View,
            DataType::Int8,
            DataType::UInt64,
            DataType::BinaryView,
            DataType::FixedSizeBinary(16),
            dictionary,
        ] {
            assert!(Accepts::Id.admits(&good), "{good}");
        }
        let floats = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Float64));
        let list = DataType::new_list(DataType::Utf8, true);
        for bad in [DataType::Float64, DataType::Decimal128(10, 0), DataType::Boolean, floats, list] {
            assert!(!Accepts::Id.admits(&bad), "{bad}");
        }
    }

    #[test]
    fn timestamps_may_be_integers_timestamps_or_dates_but_not_text_or_floats() {
        let zoned = DataType::Timestamp(TimeUnit::Nanosecond, Some("Europe/Berlin".into()));
        for good in [DataType::Int32, DataType::UInt64, zoned, DataType::Date32, DataType::Date64] {
            assert!(Accepts::Timestamp.admits(&good), "{good}");
        }
        for bad in [DataType::Utf8, DataType::Float64, DataType::Time32(TimeUnit::Second), DataType::Boolean] {
            assert!(!Accepts::Timestamp.admits(&bad), "{bad}");
        }
    }

    #[test]
    fn values_may_be_any_number_and_event_types_only_text() {
        for good in [DataType::Int8, DataType::Float16, DataType::Float64, DataType::Decimal256(40, 2)] {
            assert!(Accepts::Number.admits(&good), "{good}");
        }
        assert!(!Accepts::Number.admits(&DataType::Boolean));
        assert!(!Accepts::Number.admits(&DataType::Utf8));
        assert!(Accepts::Text.admits(&DataType::Utf8View));
        assert!(!Accepts::Text.admits(&DataType::Int32));
    }

    #[test]
    fn names_of_a_contract_are_unique() {
        for dataset in [Dataset::Interactions, Dataset::Items, Dataset::Users] {
            let mut names: Vec<_> = dataset.columns().iter().map(|column| column.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), dataset.columns().len());
        }
    }
}
