//! Amazon Personalize's schema files: flat Avro JSON that says what the columns of a CSV data set are.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use item_affinity_storage::{Location, Stores, read_small};
use serde_json::Value;

use crate::error::{Error, Result, printable};
use crate::schema::{Dataset, EVENT_TYPE, EVENT_VALUE, ITEM_ID, RESERVED_UNREAD, TIMESTAMP, USER_ID};
use crate::tally::Warning;

/// Characters of a schema at most.
const LONGEST: usize = 20_000;
const NAMESPACE: &str = "com.amazonaws.personalize.schema";

/// The columns of a CSV data set, as a schema of Amazon Personalize declares them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetSchema {
    pub(crate) dataset: Dataset,
    pub(crate) fields: Vec<SchemaField>,
    /// As it was read.
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SchemaField {
    pub(crate) name: String,
    pub(crate) kind: FieldKind,
    /// Whether an empty cell is allowed.
    pub(crate) nullable: bool,
    categorical: bool,
    textual: bool,
}

/// The Avro types that a column may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldKind {
    String,
    Boolean,
    Int,
    Long,
    Float,
    Double,
}

const KINDS: [(&str, FieldKind); 6] = [
    ("string", FieldKind::String),
    ("boolean", FieldKind::Boolean),
    ("int", FieldKind::Int),
    ("long", FieldKind::Long),
    ("float", FieldKind::Float),
    ("double", FieldKind::Double),
];

impl FieldKind {
    pub(crate) fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("string", |(name, _)| name)
    }

    fn arrow(self) -> DataType {
        match self {
            Self::String => DataType::Utf8,
            Self::Boolean => DataType::Boolean,
            Self::Int => DataType::Int32,
            Self::Long => DataType::Int64,
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
        }
    }
}

/// What a reserved name has to be: its type, and whether it may be null.
fn reserved(dataset: Dataset, name: &str) -> Option<(FieldKind, bool)> {
    match (dataset, name) {
        (Dataset::Interactions | Dataset::Users, USER_ID) | (Dataset::Interactions | Dataset::Items, ITEM_ID) => {
            Some((FieldKind::String, false))
        }
        (Dataset::Interactions, TIMESTAMP) => Some((FieldKind::Long, false)),
        (Dataset::Interactions, EVENT_TYPE) => Some((FieldKind::String, true)),
        (Dataset::Interactions, EVENT_VALUE) => Some((FieldKind::Float, true)),
        (Dataset::Interactions, name) if RESERVED_UNREAD.contains(&name) => Some((FieldKind::String, true)),
        (Dataset::Items, "CREATION_TIMESTAMP") => Some((FieldKind::Long, true)),
        _ => None,
    }
}

/// Own columns that Amazon Personalize allows.
fn most_own_columns(dataset: Dataset) -> usize {
    match dataset {
        Dataset::Interactions => 5,
        Dataset::Items => 100,
        Dataset::Users => 25,
    }
}

impl DatasetSchema {
    /// Reads and checks a schema file.
    ///
    /// # Errors   storage errors; [`Error::SchemaFile`] with the rule of Amazon Personalize that it breaks
    pub async fn read(stores: &Stores, location: &Location, dataset: Dataset) -> Result<Self> {
        let bytes = read_small(stores, location, 4 * LONGEST as u64).await?;
        let file = location.to_string();
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::SchemaFile {
            what: "not UTF-8".to_owned(),
            file: file.clone(),
            cure: "save it as UTF-8".to_owned(),
        })?;
        Self::parse(text, dataset, &file)
    }

    /// The text that it was read from.
    pub(crate) fn source(&self) -> &str {
        &self.text
    }

    /// Checks the text of a schema for a data set; `file` is its name in messages.
    ///
    /// # Errors   [`Error::SchemaFile`]
    pub fn parse(text: &str, dataset: Dataset, file: &str) -> Result<Self> {
        let wrong = |what: String, cure: &str| Error::SchemaFile { what, file: file.to_owned(), cure: cure.to_owned() };
        if text.chars().count() > LONGEST {
            return Err(wrong(format!("more than {LONGEST} characters"), "leave columns out that are not needed"));
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let schema: Value = serde_json::from_str(text).map_err(|e| {
            wrong(format!("not JSON at line {} column {}", e.line(), e.column()), "write it as Avro JSON")
        })?;
        let dataset_name = dataset.to_string();
        for (key, expected) in
            [("type", "record"), ("name", &dataset_name), ("namespace", NAMESPACE), ("version", "1.0")]
        {
            let found = schema.get(key).and_then(Value::as_str);
            if found != Some(expected) {
                let what = format!(
                    "{key:?} is {}",
                    found.map_or_else(|| "missing".to_owned(), |f| format!("{:?}", printable(f)))
                );
                return Err(wrong(what, &format!("write \"{key}\": \"{expected}\"")));
            }
        }
        let Some(list) = schema.get("fields").and_then(Value::as_array) else {
            return Err(wrong("\"fields\" is no list".to_owned(), "list the columns as {\"name\": …, \"type\": …}"));
        };
        let fields = list.iter().map(|field| SchemaField::of(field, dataset, &wrong)).collect::<Result<Vec<_>>>()?;
        for (position, field) in fields.iter().enumerate() {
            if fields.iter().take(position).any(|other| other.name.eq_ignore_ascii_case(&field.name)) {
                return Err(wrong(format!("two fields are called {}", field.name), "rename one of them"));
            }
        }
        for column in dataset.columns().iter().filter(|column| column.required) {
            if !fields.iter().any(|field| field.name == column.name) {
                let (kind, _) = reserved(dataset, column.name).unwrap_or((FieldKind::String, false));
                let cure = format!("add {{\"name\": \"{}\", \"type\": \"{}\"}}", column.name, kind.name());
                return Err(wrong(format!("{} is missing", column.name), &cure));
            }
        }
        let schema = Self { dataset, fields, text: text.to_owned() };
        if dataset != Dataset::Interactions && schema.own().count() == 0 {
            return Err(wrong("no metadata column".to_owned(), "add one at least, or leave the data set out"));
        }
        if schema.fields.iter().filter(|field| field.textual).count() > 1 {
            return Err(wrong("more than one textual field".to_owned(), "Amazon Personalize takes one"));
        }
        Ok(schema)
    }

    /// The columns that have no meaning of their own.
    fn own(&self) -> impl Iterator<Item = &SchemaField> {
        self.fields.iter().filter(|field| reserved(self.dataset, &field.name).is_none())
    }

    /// The schema of the data as it is read.
    pub(crate) fn arrow(&self) -> SchemaRef {
        let fields = self.fields.iter().map(|field| Field::new(&field.name, field.kind.arrow(), true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// Whether a column may become an attribute: categorical text and numbers.
    ///
    /// Plain strings and booleans are not trained on at Amazon Personalize either; one textual column is there, not here.
    pub(crate) fn trains(&self, name: &str) -> bool {
        let declared = self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name.trim()));
        declared.is_none_or(|field| match field.kind {
            FieldKind::String => field.categorical,
            FieldKind::Boolean => false,
            FieldKind::Int | FieldKind::Long | FieldKind::Float | FieldKind::Double => true,
        })
    }

    /// Limits of Amazon Personalize that are none here, and columns that are not trained on.
    pub(crate) fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let (own, most) = (self.own().count(), most_own_columns(self.dataset));
        if own > most {
            warnings.push(Warning::new(
                "SCHEMA_COLUMNS",
                format!(
                    "own columns of {}; count={own}; Amazon Personalize allows {most}, here there is no limit",
                    self.dataset
                ),
            ));
        }
        let untrained = self.own().filter(|field| !self.trains(&field.name)).map(|field| field.name.as_str());
        let untrained = untrained.collect::<Vec<_>>();
        if self.dataset != Dataset::Interactions && !untrained.is_empty() {
            warnings.push(Warning::new(
                "SCHEMA_NOT_TRAINED",
                format!(
                    "columns of {} that are no attributes; count={} columns=[{}]; mark strings \"categorical\": true to \
                     train on them",
                    self.dataset,
                    untrained.len(),
                    untrained.join(", ")
                ),
            ));
        }
        warnings
    }
}

/// One line that is equal for schemas of the same meaning.
impl fmt::Display for DatasetSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.dataset)?;
        for field in &self.fields {
            let null = if field.nullable { "?" } else { "" };
            let used = if field.categorical {
                " categorical"
            } else if field.textual {
                " textual"
            } else {
                ""
            };
            write!(f, " {} {}{null}{used};", field.name, field.kind.name())?;
        }
        Ok(())
    }
}

impl SchemaField {
    fn of(field: &Value, dataset: Dataset, wrong: &dyn Fn(String, &str) -> Error) -> Result<Self> {
        let name = field.get("name").and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(wrong(
                format!("a field is called {:?}", printable(name)),
                "use letters, digits and underscores",
            ));
        }
        let Some((kind, nullable)) = field.get("type").and_then(kind_of) else {
            let cure = "write \"string\", \"boolean\", \"int\", \"long\", \"float\" or \"double\", or [\"null\", …] with one of them";
            return Err(wrong(format!("the type of {name} is none of Amazon Personalize's"), cure));
        };
        let flag = |key: &str| match field.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(wrong(format!("{key:?} of {name} is no boolean"), "write true or false")),
        };
        let field = Self {
            name: name.to_owned(),
            kind,
            nullable,
            categorical: flag("categorical")?,
            textual: flag("textual")?,
        };
        if let Some((expected, may_be_null)) = reserved(dataset, name) {
            if kind != expected || (nullable && !may_be_null) {
                let cure = format!("write \"type\": \"{}\"", expected.name());
                let null = if nullable { " or null" } else { "" };
                return Err(wrong(format!("{name} is reserved, and is declared as {}{null}", kind.name()), &cure));
            }
            if field.categorical || field.textual {
                return Err(wrong(
                    format!("{name} is reserved, and is marked categorical or textual"),
                    "leave the mark out",
                ));
            }
        }
        if (field.categorical || field.textual) && kind != FieldKind::String {
            return Err(wrong(
                format!("{name} is marked categorical or textual and is no string"),
                "leave the mark out",
            ));
        }
        if field.textual && (field.categorical || dataset != Dataset::Items) {
            return Err(wrong(
                format!("{name} is marked textual"),
                "only a column of Items may be, and not categorical too",
            ));
        }
        Ok(field)
    }
}

/// A type, or a union of one type with null.
fn kind_of(value: &Value) -> Option<(FieldKind, bool)> {
    let named = |name: &str| KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
    match value {
        Value::String(name) => Some((named(name)?, false)),
        Value::Array(union) => {
            let types = union.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?;
            match types.as_slice() {
                ["null", name] | [name, "null"] => Some((named(name)?, true)),
                [name] => Some((named(name)?, false)),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(dataset: Dataset, fields: &str) -> Result<DatasetSchema> {
        let text = format!(
            "{{\"type\": \"record\", \"name\": \"{dataset}\", \"namespace\": \"{NAMESPACE}\", \"version\": \"1.0\", \
             \"fields\": [{fields}]}}"
        );
        DatasetSchema::parse(&text, dataset, "s.json")
    }

    const IDS: &str = r#"{"name": "USER_ID", "type": "string"}, {"name": "ITEM_ID", "type": "string"}, {"name": "TIMESTAMP", "type": "long"}"#;
    const ITEM: &str = r#"{"name": "ITEM_ID", "type": "string"}"#;

    #[test]
    fn a_schema_of_the_documents_is_read_with_types_nulls_and_marks() {
        let fields = format!(
            r#"{ITEM}, {{"name": "GENRES", "type": ["null", "string"], "categorical": true}}, {{"name": "TEXT", "type": "string", "textual": true}}, {{"name": "PRICE", "type": ["float", "null"]}}, {{"name": "NEW", "type": "boolean"}}, {{"name": "CREATION_TIMESTAMP", "type": "long"}}"#
        );
        let items = schema(Dataset::Items, &fields).unwrap();
        assert_eq!(
            items.to_string(),
            "Items: ITEM_ID string; GENRES string? categorical; TEXT string textual; PRICE float?; NEW boolean; \
             CREATION_TIMESTAMP long;"
        );
        let trained = items.fields.iter().filter(|f| items.trains(&f.name)).map(|f| f.name.as_str());
        assert_eq!(trained.collect::<Vec<_>>(), ["GENRES", "PRICE", "CREATION_TIMESTAMP"]);
        let warnings = items.warnings();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].message.contains("count=2 columns=[TEXT, NEW]"), "{}", warnings[0].message);
    }

    #[test]
    fn each_rule_has_its_message_with_the_cure() {
        for (dataset, fields, says) in [
            (Dataset::Interactions, ITEM.to_owned(), "USER_ID is missing; file=s.json; add {\"name\": \"USER_ID\""),
            (Dataset::Items, ITEM.to_owned(), "no metadata column"),
            (Dataset::Items, format!("{ITEM}, {ITEM}"), "two fields are called ITEM_ID"),
            (Dataset::Items, format!("{ITEM}, {{\"name\": \"A\", \"type\": \"bytes\"}}"), "the type of A is none"),
            (Dataset::Items, format!("{ITEM}, {{\"name\": \"A\", \"type\": {{\"type\": \"array\"}}}}"), "the type of A is none"),
            (Dataset::Items, format!("{ITEM}, {{\"name\": \"A B\", \"type\": \"int\"}}"), "a field is called \"A B\""),
            (Dataset::Items, format!("{ITEM}, {{\"name\": \"A\", \"type\": \"int\", \"categorical\": true}}"), "A is marked categorical"),
            (Dataset::Items, format!("{ITEM}, {{\"name\": \"A\", \"type\": \"string\", \"categorical\": \"yes\"}}"), "no boolean"),
            (Dataset::Users, "{\"name\": \"USER_ID\", \"type\": \"string\"}, {\"name\": \"A\", \"type\": \"string\", \"textual\": true}".to_owned(), "only a column of Items"),
            (Dataset::Interactions, IDS.replace("long", "int"), "TIMESTAMP is reserved, and is declared as int; file=s.json; write \"type\": \"long\""),
            (Dataset::Interactions, IDS.replacen("\"string\"", "[\"null\", \"string\"]", 1), "USER_ID is reserved, and is declared as string or null"),
            (Dataset::Interactions, format!("{IDS}, {{\"name\": \"EVENT_TYPE\", \"type\": \"string\", \"categorical\": true}}"), "EVENT_TYPE is reserved, and is marked"),
            (Dataset::Interactions, format!("{IDS}, {{\"name\": \"EVENT_TYPE\", \"type\": \"int\"}}"), "write \"type\": \"string\""),
            (Dataset::Interactions, format!("{IDS}, {{\"name\": \"EVENT_VALUE\", \"type\": \"string\"}}"), "write \"type\": \"float\""),
        ] {
            let error = schema(dataset, &fields).unwrap_err().to_string();
            assert!(error.starts_with("ERR_SCHEMA_FILE: ") && error.contains(says), "{says}: {error}");
        }
        for (text, says) in [
            ("{", "not JSON at line 1 column 1"),
            ("{\"type\": \"record\"}", "\"name\" is missing"),
            (
                "{\"type\": \"record\", \"name\": \"Items\"}",
                "\"name\" is \"Items\"; file=s.json; write \"name\": \"Interactions\"",
            ),
            ("{\"type\": \"record\", \"name\": \"Interactions\", \"namespace\": \"x\"}", "\"namespace\" is \"x\""),
        ] {
            let error = DatasetSchema::parse(text, Dataset::Interactions, "s.json").unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
        }
        let long = " ".repeat(20_001);
        assert!(DatasetSchema::parse(&long, Dataset::Items, "s").unwrap_err().to_string().contains("20000 characters"));
    }

    #[test]
    fn more_own_columns_than_amazon_personalize_allows_are_said() {
        let own = (0..26).map(|n| format!(", {{\"name\": \"C{n}\", \"type\": \"int\"}}")).collect::<String>();
        let users = schema(Dataset::Users, &format!("{{\"name\": \"USER_ID\", \"type\": \"string\"}}{own}")).unwrap();
        assert!(users.warnings()[0].message.contains("count=26; Amazon Personalize allows 25"));
    }
}
