//! Segments as Amazon Personalize writes them: one JSON line for each asked item, `<input>.out`, then `_CHECK`.

use std::collections::BTreeMap;

use bytes::Bytes;
use datafusion::arrow::array::{AsArray, RecordBatch};
use item_affinity_datafusion::{ItemEntry, ItemList};
use serde_json::{Value, json};

/// The name of the list of users in a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsersKey {
    /// `usersList`, as Amazon Personalize really writes it.
    #[default]
    UsersList,
    /// `recommendedUsers`, as its documents say.
    RecommendedUsers,
}

impl UsersKey {
    fn name(self) -> &'static str {
        match self {
            Self::UsersList => "usersList",
            Self::RecommendedUsers => "recommendedUsers",
        }
    }
}

/// Turns ordered segments into lines, an item at a time.
///
/// Personalize gives no scores here, best user first; the order of lines is not promised there, ours is by item id,
/// then the lines with errors.
pub(crate) struct JsonLines<'a> {
    users_key: UsersKey,
    asked: BTreeMap<&'a str, Vec<&'a ItemEntry>>,
    item: Option<String>,
    users: Vec<String>,
    text: Vec<u8>,
}

impl<'a> JsonLines<'a> {
    pub(crate) fn new(list: &'a ItemList, users_key: UsersKey) -> Self {
        let mut asked = BTreeMap::<&str, Vec<&ItemEntry>>::new();
        for entry in &list.entries {
            if let Ok(id) = &entry.item {
                asked.entry(id).or_default().push(entry);
            }
        }
        Self { users_key, asked, item: None, users: Vec::new(), text: Vec::new() }
    }

    /// Takes rows in the order `(item_id, rank)`.
    pub(crate) fn push(&mut self, batch: &RecordBatch) {
        let item_ids = batch.column(0).as_string::<i32>();
        let user_ids = batch.column(2).as_string::<i32>();
        for (item, user) in item_ids.iter().flatten().zip(user_ids.iter().flatten()) {
            if self.item.as_deref() != Some(item) {
                self.end_item();
                self.item = Some(item.to_owned());
            }
            self.users.push(user.to_owned());
        }
    }

    fn end_item(&mut self) {
        let Some(item) = self.item.take() else { return };
        let users = std::mem::take(&mut self.users);
        for entry in self.asked.get(item.as_str()).into_iter().flatten() {
            line(&mut self.text, &input_of(entry), self.users_key, &users, None);
        }
    }

    /// The bytes of all lines that are complete so far.
    pub(crate) fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.text).into()
    }

    /// Ends the last item and adds a line for each entry without a segment.
    pub(crate) fn finish<'e>(mut self, errors: impl Iterator<Item = (&'e ItemEntry, &'e str)>) -> Bytes {
        self.end_item();
        for (entry, error) in errors {
            line(&mut self.text, &input_of(entry), self.users_key, &[], Some(error));
        }
        self.text.into()
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

fn line(text: &mut Vec<u8>, input: &Value, users_key: UsersKey, users: &[String], error: Option<&str>) {
    let record = json!({ "input": input, "output": { users_key.name(): users }, "error": error });
    text.extend_from_slice(record.to_string().as_bytes());
    text.push(b'\n');
}
