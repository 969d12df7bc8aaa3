//! Segments as Amazon Personalize writes them: one JSON line for each asked item, `<input>.out`, then `_CHECK`.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use datafusion::arrow::array::{AsArray, RecordBatch};
use item_affinity_datafusion::ItemEntry;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};
use serde_json::{Value, json};

use crate::error::Result;
use crate::segment_requests::{Asked, Requests};

/// The shape of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsersKey {
    /// `{"input": …, "output": {"usersList": […]}, "error": null}`, as Amazon Personalize really writes it.
    #[default]
    UsersList,
    /// `{"input":…,"output":{"recommendedUsers":[…]}}`, as its documents say; `error` follows in lines that have one.
    RecommendedUsers,
}

/// Turns ordered segments into lines, an item at a time.
///
/// Personalize gives no scores here, best user first; the order of lines is not promised there. Ours is by item id within
/// a filter, those without users after them, then the lines with errors.
pub(crate) struct JsonLines<'a> {
    users_key: UsersKey,
    /// By group and item.
    asked: BTreeMap<(usize, String), Vec<&'a Asked<'a>>>,
    errors: Vec<(&'a Asked<'a>, &'a str)>,
    /// The error of lines without users, where that means that there are too few.
    too_few: Option<String>,
    group: usize,
    item: Option<String>,
    users: Vec<String>,
    /// By input file.
    texts: Vec<Vec<u8>>,
}

impl<'a> JsonLines<'a> {
    pub(crate) fn new(requests: &'a Requests<'a>, files: usize, users_key: UsersKey, too_few: Option<String>) -> Self {
        let mut asked = BTreeMap::<(usize, String), Vec<&Asked<'_>>>::new();
        for one in &requests.asked {
            if let Ok((group, item)) = &one.request {
                asked.entry((*group, (*item).to_owned())).or_default().push(one);
            }
        }
        let errors = requests.errors().map(|(asked, record)| (asked, record.message.as_str())).collect();
        Self {
            users_key,
            asked,
            errors,
            too_few,
            group: 0,
            item: None,
            users: Vec::new(),
            texts: vec![Vec::new(); files],
        }
    }

    /// Rows that follow are of this group.
    pub(crate) fn begin(&mut self, group: usize) -> Result<()> {
        self.end_item()?;
        self.group = group;
        Ok(())
    }

    /// Takes rows in the order `(item_id, rank)`.
    pub(crate) fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let item_ids = batch.column(0).as_string::<i32>();
        let user_ids = batch.column(2).as_string::<i32>();
        for (item, user) in item_ids.iter().flatten().zip(user_ids.iter().flatten()) {
            if self.item.as_deref() != Some(item) {
                self.end_item()?;
                self.item = Some(item.to_owned());
            }
            self.users.push(user.to_owned());
        }
        Ok(())
    }

    fn end_item(&mut self) -> Result<()> {
        let Some(item) = self.item.take() else { return Ok(()) };
        let users = std::mem::take(&mut self.users);
        for asked in self.asked.remove(&(self.group, item)).into_iter().flatten() {
            self.line(asked, &users, None)?;
        }
        Ok(())
    }

    /// The bytes of the lines that are complete so far, by input file.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Bytes> + '_ {
        self.texts.iter_mut().map(|text| std::mem::take(text).into())
    }

    /// Ends the last item and adds a line for each entry without users and each one without a segment.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.end_item()?;
        for asked in std::mem::take(&mut self.asked).into_values().flatten() {
            let too_few = self.too_few.clone();
            self.line(asked, &[], too_few.as_deref())?;
        }
        for (asked, error) in std::mem::take(&mut self.errors) {
            self.line(asked, &[], Some(error))?;
        }
        Ok(())
    }

    fn line(&mut self, asked: &Asked<'_>, users: &[String], error: Option<&str>) -> Result<()> {
        let Some(text) = self.texts.get_mut(asked.file) else { return Ok(()) };
        write_line(text, self.users_key, input_of(asked.entry), users, error)
    }
}

/// Adds one line with its end.
pub(crate) fn write_line(
    text: &mut Vec<u8>,
    users_key: UsersKey,
    input: Value,
    users: &[String],
    error: Option<&str>,
) -> Result<()> {
    match users_key {
        UsersKey::UsersList => {
            let line = Produced { input, output: UsersList { users }, error };
            line.serialize(&mut Serializer::with_formatter(&mut *text, Spaced)).map_err(io::Error::from)?;
        }
        UsersKey::RecommendedUsers => {
            let line = Documented { input, output: RecommendedUsers { users }, error };
            line.serialize(&mut Serializer::with_formatter(&mut *text, CompactFormatter)).map_err(io::Error::from)?;
        }
    }
    text.push(b'\n');
    Ok(())
}

#[derive(Serialize)]
struct Produced<'a> {
    input: Value,
    output: UsersList<'a>,
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct UsersList<'a> {
    #[serde(rename = "usersList")]
    users: &'a [String],
}

#[derive(Serialize)]
struct Documented<'a> {
    input: Value,
    output: RecommendedUsers<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct RecommendedUsers<'a> {
    #[serde(rename = "recommendedUsers")]
    users: &'a [String],
}

/// A space after colons and between the members of an object, none between the users of a list.
struct Spaced;

impl Formatter for Spaced {
    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// What the line repeats of the request: its own JSON where there is one.
fn input_of(entry: &ItemEntry) -> Value {
    match (&entry.input, &entry.item) {
        (Some(input), _) => input.clone(),
        (None, Ok(id)) => json!({ "itemId": id }),
        (None, Err(_)) => Value::Null,
    }
}
