//! Which column of a file is which column of the contract.

use std::collections::BTreeMap;
use std::str::FromStr;

use arrow::datatypes::{DataType, Schema};

use crate::error::{Error, Place, Result, printable};
use crate::nearest::nearest;
use crate::schema::{ColumnContract, Dataset, EVENT_TYPE, EVENT_VALUE, ITEM_ID, TIMESTAMP, USER_ID};

/// Names of the contract that go by another name in the files: `user_id` → `household_id`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ColumnMapping {
    names: BTreeMap<&'static str, String>,
}

impl ColumnMapping {
    /// A mapping that renames nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one name as the command line takes it: `user_id=household_id`.
    ///
    /// # Errors
    /// [`Error::Option`] when there is no `=`, when the left side is no name of the contract, when the right side is
    /// empty, or when the name is mapped already.
    pub fn parse(&mut self, text: &str) -> Result<()> {
        const CURE: &str =
            "give it as user_id=<your column>; names are user_id, item_id, timestamp, event_type, event_value";
        let wrong = |what: String| Error::Option { option: "--column", what, cure: CURE.to_string() };
        let (ours, theirs) = text.split_once('=').ok_or_else(|| wrong(format!("{:?} has no '='", printable(text))))?;
        let ours = [USER_ID, ITEM_ID, TIMESTAMP, EVENT_TYPE, EVENT_VALUE]
            .into_iter()
            .find(|name| name.eq_ignore_ascii_case(ours.trim()))
            .ok_or_else(|| wrong(format!("{:?} is not a column that can be mapped", printable(ours.trim()))))?;
        let theirs = theirs.trim();
        if theirs.is_empty() {
            return Err(wrong(format!("no column is named for {}", ours.to_lowercase())));
        }
        if self.names.insert(ours, theirs.to_string()).is_some() {
            return Err(wrong(format!("{} is mapped twice", ours.to_lowercase())));
        }
        Ok(())
    }

    /// The file's name for a name of the contract, when it is mapped.
    pub fn name_of(&self, ours: &str) -> Option<&str> {
        self.names.get(ours).map(String::as_str)
    }

    /// Every mapped name, as `(ours, theirs)`.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.names.iter().map(|(ours, theirs)| (*ours, theirs.as_str()))
    }
}

impl FromStr for ColumnMapping {
    type Err = Error;

    /// Reads `user_id=household_id,item_id=sku`; an empty text maps nothing.
    fn from_str(text: &str) -> Result<Self> {
        let mut mapping = Self::new();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            mapping.parse(part)?;
        }
        Ok(mapping)
    }
}

/// Where the values of one column of the contract come from, in one file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Source {
    /// A root column of the file.
    Column { index: usize, name: String, data_type: DataType },
    /// A folder name such as `event_type=view`: one value for the whole file, `None` for null.
    Partition { name: String, value: Option<String> },
    /// Nowhere: the column is optional and the file has none.
    Absent,
}

impl Source {
    /// The file's own name of the column.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Source::Column { name, .. } | Source::Partition { name, .. } => Some(name),
            Source::Absent => None,
        }
    }

    /// The root column of the file.
    pub(crate) fn index(&self) -> Option<usize> {
        match self {
            Source::Column { index, .. } => Some(*index),
            Source::Partition { .. } | Source::Absent => None,
        }
    }
}

/// What one file offers to a dataset contract.
pub(crate) struct Offer<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) partitions: &'a [(String, Option<String>)],
    pub(crate) file: &'a str,
}

/// Finds each column of the contract in a file; the result is in the order of [`Dataset::columns`].
///
/// `needed` names optional columns that this read cannot do without. A column of the file comes before a folder name.
///
/// # Errors
/// [`Error::MissingColumns`], [`Error::ColumnAmbiguous`], [`Error::ColumnType`].
pub(crate) fn bind(dataset: Dataset, mapping: &ColumnMapping, needed: &[&str], offer: &Offer) -> Result<Vec<Source>> {
    let mut missing = Vec::new();
    let mut bound = Vec::new();
    for contract in dataset.columns() {
        let source = find(dataset, contract, mapping, offer)?;
        let required = contract.required || needed.contains(&contract.name) || mapped(dataset, contract, mapping);
        if source == Source::Absent && required {
            missing.push(contract);
        }
        bound.push(source);
    }
    if !missing.is_empty() {
        return Err(missing_columns(dataset, &missing, mapping, offer));
    }
    // Types come after names: a file of another kind is better told by what it lacks.
    for (contract, source) in dataset.columns().iter().zip(&bound) {
        if let Source::Column { name, data_type, .. } = source
            && !contract.accepts.admits(data_type)
        {
            return Err(Error::ColumnType {
                wanted: contract.name,
                found: printable(&data_type.to_string()),
                accepted: contract.accepts.in_words(),
                why: contract.accepts.why_not(data_type),
                place: Box::new(Place { file: offer.file.to_string(), row: None, column: Some(name.clone()) }),
                cure: contract.accepts.cure(),
            });
        }
    }
    Ok(bound)
}

/// One mapping serves all data sets of a command, so only Interactions must have every mapped column.
fn mapped(dataset: Dataset, contract: &ColumnContract, mapping: &ColumnMapping) -> bool {
    dataset == Dataset::Interactions && mapping.name_of(contract.name).is_some()
}

fn find(dataset: Dataset, contract: &ColumnContract, mapping: &ColumnMapping, offer: &Offer) -> Result<Source> {
    match mapping.name_of(contract.name) {
        Some(theirs) => match find_name(theirs, true, contract, offer)? {
            Source::Absent if dataset != Dataset::Interactions => find_name(contract.name, false, contract, offer),
            source => Ok(source),
        },
        None => find_name(contract.name, false, contract, offer),
    }
}

fn find_name(wanted: &str, exact_first: bool, contract: &ColumnContract, offer: &Offer) -> Result<Source> {
    let same = |name: &str| clean(name).to_lowercase() == clean(wanted).to_lowercase();
    let fields: Vec<(usize, &str)> = offer
        .schema
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, field)| same(field.name()))
        .map(|(index, field)| (index, field.name().as_str()))
        .collect();
    // A mapping in the exact spelling is the way out of two columns that differ only in case.
    let exact: Vec<_> = fields.iter().copied().filter(|(_, name)| exact_first && *name == wanted).collect();
    let fields = if exact.len() == 1 { exact } else { fields };
    match fields[..] {
        [] => {}
        [(index, name)] => {
            let data_type = offer.schema.field(index).data_type().clone();
            return Ok(Source::Column { index, name: name.to_string(), data_type });
        }
        [..] => {
            let distinct = fields.iter().any(|(_, name)| *name != fields[0].1);
            return Err(Error::ColumnAmbiguous {
                wanted: printable(wanted),
                candidates: fields.iter().map(|(_, name)| name.to_string()).collect(),
                file: offer.file.to_string(),
                cure: if distinct {
                    format!("say which with --column {}={}", contract.name.to_lowercase(), printable(fields[0].1))
                } else {
                    "write the file again with unique column names".to_string()
                },
            });
        }
    }
    let mut folders = offer.partitions.iter().filter(|(name, _)| same(name));
    match (folders.next(), folders.next()) {
        (None, _) => Ok(Source::Absent),
        (Some((name, value)), None) => Ok(Source::Partition { name: name.clone(), value: value.clone() }),
        (Some(_), Some(_)) => Err(Error::ColumnAmbiguous {
            wanted: printable(wanted),
            candidates: offer.partitions.iter().map(|(name, _)| name.clone()).filter(|name| same(name)).collect(),
            file: offer.file.to_string(),
            cure: "name each folder level once".to_string(),
        }),
    }
}

/// A name as a person sees it: without the byte order mark and spaces that exports leave around names.
pub(crate) fn clean(name: &str) -> &str {
    name.trim_matches(|character: char| character == '\u{feff}' || character.is_whitespace())
}

fn missing_columns(dataset: Dataset, missing: &[&ColumnContract], mapping: &ColumnMapping, offer: &Offer) -> Error {
    let mut found: Vec<String> = offer.schema.fields().iter().map(|field| field.name().clone()).collect();
    found.extend(offer.partitions.iter().map(|(name, _)| name.clone()));
    let names: Vec<&'static str> = missing.iter().map(|contract| contract.name).collect();
    let has = |name: &str| found.iter().any(|column| clean(column).eq_ignore_ascii_case(name));
    // Other names for all that is missing are a likelier cause than another kind of file.
    let other_kind =
        dataset == Dataset::Interactions && missing.iter().any(|contract| nearest(contract, &found).is_none());
    let cure = if other_kind && names == [USER_ID, TIMESTAMP] && has(ITEM_ID) {
        "this looks like Items, one row per item: give it with --items".to_string()
    } else if other_kind && names == [ITEM_ID, TIMESTAMP] && has(USER_ID) {
        "this looks like Users, one row per user: give it with --users".to_string()
    } else {
        let mut arguments = Vec::new();
        for contract in missing {
            let ours = contract.name.to_lowercase();
            arguments.push(match (mapping.name_of(contract.name), nearest(contract, &found)) {
                (_, Some(near)) => format!("--column {ours}={}", printable(near)),
                (Some(theirs), None) => {
                    format!("--column {ours}=<your column> ({:?} is not in the file)", printable(theirs))
                }
                (None, None) => format!("--column {ours}=<your column>"),
            });
        }
        let it = if arguments.len() == 1 { "it" } else { "them" };
        format!("name {it} with {}", arguments.join(" "))
    };
    Error::MissingColumns { missing: names, found, file: offer.file.to_string(), cure }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;

    use super::*;

    fn schema(columns: &[(&str, DataType)]) -> Schema {
        Schema::new(columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect::<Vec<_>>())
    }

    fn usual(names: [&str; 3]) -> Schema {
        schema(&[(names[0], DataType::Utf8), (names[1], DataType::Utf8), (names[2], DataType::Int64)])
    }

    fn bind_to(dataset: Dataset, mapping: &str, needed: &[&str], schema: &Schema) -> Result<Vec<Option<String>>> {
        bind_with(dataset, mapping, needed, schema, &[])
    }

    fn bind_with(
        dataset: Dataset,
        mapping: &str,
        needed: &[&str],
        schema: &Schema,
        partitions: &[(String, Option<String>)],
    ) -> Result<Vec<Option<String>>> {
        let offer = Offer { schema, partitions, file: "events.parquet" };
        let bound = bind(dataset, &mapping.parse()?, needed, &offer)?;
        Ok(bound.iter().map(|source| source.name().map(ToString::to_string)).collect())
    }

    fn message(result: Result<Vec<Option<String>>>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn names_match_without_regard_to_case_spaces_and_byte_order_mark() {
        let found = bind_to(Dataset::Interactions, "", &[], &usual(["\u{feff}User_Id", " item_id ", "TimeStamp"]));
        let expected = ["\u{feff}User_Id", " item_id ", "TimeStamp"].map(|name| Some(name.to_string()));
        assert_eq!(found.unwrap()[..3], expected);
    }

    #[test]
    fn a_mapped_name_is_used_even_when_the_usual_one_is_there() {
        let mut columns = vec![("household", DataType::Utf8)];
        columns.extend([("user_id", DataType::Utf8), ("item_id", DataType::Utf8), ("timestamp", DataType::Int64)]);
        let found = bind_to(Dataset::Interactions, "USER_ID = Household", &[], &schema(&columns)).unwrap();
        assert_eq!(found[0].as_deref(), Some("household"));
    }

    #[test]
    fn missing_columns_are_named_with_what_was_found_and_the_nearest_name() {
        let text = message(bind_to(Dataset::Interactions, "", &[], &usual(["user_id", "item", "ts"])));
        assert_eq!(
            text,
            "ERR_SCHEMA: missing columns [ITEM_ID, TIMESTAMP], found [user_id, item, ts]; file=events.parquet; \
             name them with --column item_id=item --column timestamp=ts"
        );
    }

    #[test]
    fn a_mapped_column_that_is_not_there_is_named() {
        let text = message(bind_to(Dataset::Interactions, "user_id=hh", &[], &usual(["a", "item_id", "timestamp"])));
        assert!(text.contains("missing columns [USER_ID]"), "{text}");
        assert!(text.ends_with("name it with --column user_id=<your column> (\"hh\" is not in the file)"), "{text}");
    }

    #[test]
    fn an_optional_column_is_missing_only_when_this_read_needs_it() {
        let schema = usual(["user_id", "item_id", "timestamp"]);
        assert_eq!(bind_to(Dataset::Interactions, "", &[], &schema).unwrap()[3], None);
        let text = message(bind_to(Dataset::Interactions, "", &[EVENT_TYPE], &schema));
        assert!(text.contains("missing columns [EVENT_TYPE]"), "{text}");
    }

    #[test]
    fn columns_that_differ_only_in_case_are_ambiguous_until_one_is_named() {
        let mut columns = vec![("user_id", DataType::Utf8), ("USER_ID", DataType::Utf8)];
        columns.extend([("item_id", DataType::Utf8), ("timestamp", DataType::Int64)]);
        let text = message(bind_to(Dataset::Interactions, "", &[], &schema(&columns)));
        assert_eq!(
            text,
            "ERR_COLUMN_AMBIGUOUS: 2 columns match USER_ID: [user_id, USER_ID]; file=events.parquet; \
             say which with --column user_id=user_id"
        );
        let found = bind_to(Dataset::Interactions, "user_id=USER_ID", &[], &schema(&columns)).unwrap();
        assert_eq!(found[0].as_deref(), Some("USER_ID"));
    }

    #[test]
    fn a_name_that_occurs_twice_cannot_be_mapped() {
        let mut columns = vec![("user_id", DataType::Utf8), ("user_id", DataType::Utf8)];
        columns.extend([("item_id", DataType::Utf8), ("timestamp", DataType::Int64)]);
        let text = message(bind_to(Dataset::Interactions, "user_id=user_id", &[], &schema(&columns)));
        assert!(text.ends_with("write the file again with unique column names"), "{text}");
    }

    #[test]
    fn float_ids_are_refused_with_the_reason() {
        let columns = [("user_id", DataType::Float64), ("item_id", DataType::Utf8), ("timestamp", DataType::Int64)];
        assert_eq!(
            message(bind_to(Dataset::Interactions, "", &[], &schema(&columns))),
            "ERR_COLUMN_TYPE: USER_ID: found Float64, accepted: strings and integers (ids as floats would lose digits \
             over 2^53); file=events.parquet column=user_id; write the ids as strings or integers, or map another \
             column with --column"
        );
    }

    #[test]
    fn an_event_type_that_is_no_text_is_refused_though_nothing_filters_by_it() {
        let mut columns = vec![("event_type", DataType::Int32), ("user_id", DataType::Utf8)];
        columns.extend([("item_id", DataType::Utf8), ("timestamp", DataType::Int64)]);
        let text = message(bind_to(Dataset::Interactions, "", &[], &schema(&columns)));
        assert!(text.starts_with("ERR_COLUMN_TYPE: EVENT_TYPE: found Int32, accepted: strings; "), "{text}");
    }

    #[test]
    fn items_or_users_given_as_interactions_are_recognised() {
        let items = schema(&[("item_id", DataType::Utf8), ("title", DataType::Utf8)]);
        let text = message(bind_to(Dataset::Interactions, "", &[], &items));
        assert!(text.ends_with("this looks like Items, one row per item: give it with --items"), "{text}");
        let users = schema(&[("country", DataType::Utf8), ("User_Id", DataType::Utf8)]);
        let text = message(bind_to(Dataset::Interactions, "", &[], &users));
        assert!(text.ends_with("this looks like Users, one row per user: give it with --users"), "{text}");
    }

    #[test]
    fn a_folder_name_supplies_a_column_that_the_file_lacks_and_only_then() {
        let schema = usual(["user_id", "item_id", "timestamp"]);
        let folders =
            [("Event_Type".to_string(), Some("view".to_string())), ("user_id".to_string(), Some("7".to_string()))];
        let found = bind_with(Dataset::Interactions, "", &[EVENT_TYPE], &schema, &folders).unwrap();
        assert_eq!(found[3].as_deref(), Some("Event_Type"));
        let offer = Offer { schema: &schema, partitions: &folders, file: "f" };
        let bound = bind(Dataset::Interactions, &ColumnMapping::new(), &[], &offer).unwrap();
        assert!(matches!(bound[0], Source::Column { index: 0, .. }));
    }

    #[test]
    fn items_fall_back_to_the_usual_name_when_the_mapped_one_is_absent() {
        let items = schema(&[("item_id", DataType::Utf8), ("title", DataType::Utf8)]);
        assert_eq!(bind_to(Dataset::Items, "item_id=sku", &[], &items).unwrap()[0].as_deref(), Some("item_id"));
    }

    #[test]
    fn a_mapping_that_cannot_be_read_says_how_to_write_it() {
        for (text, what) in [
            ("user_id", "\"user_id\" has no '='"),
            ("userid=x", "\"userid\" is not a column that can be mapped"),
            ("user_id=", "no column is named for user_id"),
            ("user_id=a,User_ID=b", "user_id is mapped twice"),
        ] {
            let error = text.parse::<ColumnMapping>().unwrap_err();
            assert_eq!(error.kind(), item_affinity_storage::ErrorKind::Usage);
            assert!(error.to_string().starts_with(&format!("--column: {what}; ")), "{error}");
        }
    }
}
