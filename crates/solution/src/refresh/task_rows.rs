//! The rows that travel between the tasks of a refresh in parts.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Float32Array, Float64Array, Int64Array, PrimitiveArray, RecordBatch,
    StringArray, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int64Type, Schema, SchemaRef, UInt32Type};
use item_affinity_model::{Everyone, Interactions, Sum, Vocabulary, VocabularyBuilder};
use item_affinity_storage::FileEntry;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::tables::pairs::Pair;

fn schema(fields: &[(&str, DataType, bool)]) -> SchemaRef {
    let field = |(name, kind, nullable): &(&str, DataType, bool)| Field::new(*name, kind.clone(), *nullable);
    Arc::new(Schema::new(fields.iter().map(field).collect::<Vec<_>>()))
}

/// Events of users, with the part of the version that the user is in.
pub(super) static EVENTS: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(&[
        ("part", DataType::UInt32, false),
        ("user_id", DataType::Utf8, false),
        ("item_index", DataType::UInt32, false),
        ("time", DataType::Int64, false),
        ("weight", DataType::Float32, false),
    ])
});

/// What a task adds to the sums over all users: a row for each item with events, and one without an item for users.
pub(super) static SUMS: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(&[
        ("item_index", DataType::UInt32, true),
        ("interactions", DataType::Int64, false),
        ("users", DataType::Int64, false),
        ("last_interaction", DataType::Int64, false),
        ("first", DataType::Float64, false),
        ("first_rest", DataType::Float64, false),
        ("second", DataType::Float64, false),
        ("second_rest", DataType::Float64, false),
    ])
});

/// Pairs with history by groups of items, and files that were written: one or the other.
pub(super) static PAIRS: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(&[
        ("group", DataType::UInt32, false),
        ("item_index", DataType::UInt32, true),
        ("user_index", DataType::UInt32, true),
        ("log_odds", DataType::Float32, true),
        ("weight", DataType::Float32, true),
        ("file", DataType::Utf8, true),
    ])
});

/// Files that were written.
pub(super) static FILES: LazyLock<SchemaRef> = LazyLock::new(|| schema(&[("file", DataType::Utf8, false)]));

/// A file that a task wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct WrittenFile {
    pub(super) kind: FileKind,
    /// The part of the users, or the group of the pairs.
    pub(super) number: u32,
    /// The item of the first pair.
    pub(super) first_item: u32,
    pub(super) entry: FileEntry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FileKind {
    Users,
    Pairs,
}

/// A column of a batch whose schema is one of those here.
fn column<T: ArrowPrimitiveType>(batch: &RecordBatch, at: usize) -> Result<&PrimitiveArray<T>> {
    batch.columns().get(at).and_then(|column| column.as_primitive_opt::<T>()).ok_or_else(|| strange(at))
}

fn text(batch: &RecordBatch, at: usize) -> Result<&StringArray> {
    batch.columns().get(at).and_then(|column| column.as_string_opt::<i32>()).ok_or_else(|| strange(at))
}

fn strange(at: usize) -> Error {
    Error::encode(arrow::error::ArrowError::SchemaError(format!("column {at} of a task's rows is of another type")))
}

/// The events of the users of some parts, while they arrive in any order.
#[derive(Debug, Default)]
pub struct GatheredUsers {
    parts: BTreeMap<u32, Events>,
}

/// The events of one part.
#[derive(Debug, Default)]
pub(super) struct Events {
    ids: VocabularyBuilder,
    user: Vec<u32>,
    item: Vec<u32>,
    time: Vec<i64>,
    weight: Vec<f32>,
}

impl GatheredUsers {
    /// Takes some rows of a task that read interactions.
    ///
    /// # Errors
    /// [`Error::Encode`] for rows of another kind; [`Error::Model`] for too many ids.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let (parts, users, items) = (column::<UInt32Type>(batch, 0)?, text(batch, 1)?, column::<UInt32Type>(batch, 2)?);
        let (times, weights) = (column::<Int64Type>(batch, 3)?, column::<Float32Type>(batch, 4)?);
        for row in 0..batch.num_rows() {
            let events = self.parts.entry(parts.value(row)).or_default();
            events.user.push(events.ids.intern(users.value(row))?);
            events.item.push(items.value(row));
            events.time.push(times.value(row));
            events.weight.push(weights.value(row));
        }
        Ok(())
    }

    /// Bytes held on the heap.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        let of = |events: &Events| {
            let indexes = events.user.capacity() + events.item.capacity() + events.weight.capacity();
            events.ids.allocated_bytes() + 4 * indexes + 8 * events.time.capacity()
        };
        self.parts.values().map(of).sum()
    }

    /// The next part, its rows let go from here.
    pub(super) fn next_part(&mut self) -> Option<(u32, Events)> {
        self.parts.pop_first()
    }
}

impl Events {
    /// The event log of the part.
    pub(super) fn interactions(self, items: Arc<Vocabulary>) -> Result<Interactions> {
        let Self { ids, mut user, item, time, weight } = self;
        let (users, renumber) = ids.finish();
        user.iter_mut().for_each(|number| *number = renumber[*number as usize]);
        Ok(Interactions::new(users, items, user, item, time, weight)?)
    }
}

/// The pairs of some groups of items, while they arrive in any order, and the files that come along.
#[derive(Debug, Default)]
pub struct GatheredPairs {
    groups: BTreeMap<u32, Vec<Pair>>,
    files: Vec<String>,
}

impl GatheredPairs {
    /// Takes some rows of a task that folded users in.
    ///
    /// # Errors
    /// [`Error::Encode`] for rows of another kind.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let [groups, items, users] = [0, 1, 2].map(|at| column::<UInt32Type>(batch, at));
        let [log_odds, weights] = [3, 4].map(|at| column::<Float32Type>(batch, at));
        let (groups, items, users, log_odds, weights) = (groups?, items?, users?, log_odds?, weights?);
        let files = text(batch, 5)?;
        for row in 0..batch.num_rows() {
            if files.is_valid(row) {
                self.files.push(files.value(row).to_owned());
                continue;
            }
            let (item, user) = (items.value(row), users.value(row));
            let pair = Pair { item, user, log_odds: log_odds.value(row), weight: weights.value(row) };
            self.groups.entry(groups.value(row)).or_default().push(pair);
        }
        Ok(())
    }

    /// Bytes held on the heap.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        let pairs: usize = self.groups.values().map(Vec::capacity).sum();
        pairs * size_of::<Pair>() + self.files.iter().map(String::capacity).sum::<usize>()
    }

    /// The next group in the order of items and users, let go from here.
    pub(super) fn next_group(&mut self) -> Option<(u32, Vec<Pair>)> {
        let (group, mut pairs) = self.groups.pop_first()?;
        pairs.sort_unstable_by_key(|pair| (pair.item, pair.user));
        Some((group, pairs))
    }

    /// The files that came along.
    pub(super) fn take_files(&mut self) -> Vec<String> {
        std::mem::take(&mut self.files)
    }
}

/// Rows of pairs of one part of the users.
pub(super) fn pair_rows(pairs: &[(u32, Pair)]) -> Result<RecordBatch> {
    let index = |of: fn(&(u32, Pair)) -> u32| -> ArrayRef {
        Arc::new(UInt32Array::from(pairs.iter().map(of).collect::<Vec<_>>()))
    };
    let number = |of: fn(&(u32, Pair)) -> f32| -> ArrayRef {
        Arc::new(Float32Array::from(pairs.iter().map(of).collect::<Vec<_>>()))
    };
    let columns = vec![
        index(|(group, _)| *group),
        index(|(_, pair)| pair.item),
        index(|(_, pair)| pair.user),
        number(|(_, pair)| pair.log_odds),
        number(|(_, pair)| pair.weight),
        Arc::new(StringArray::new_null(pairs.len())),
    ];
    RecordBatch::try_new(Arc::clone(&PAIRS), columns).map_err(Error::encode)
}

/// A row of a file, on its way with the pairs.
pub(super) fn file_row(file: &WrittenFile) -> Result<RecordBatch> {
    let file = serde_json::to_string(file).map_err(Error::encode)?;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from(vec![0])),
        Arc::new(UInt32Array::new_null(1)),
        Arc::new(UInt32Array::new_null(1)),
        Arc::new(Float32Array::new_null(1)),
        Arc::new(Float32Array::new_null(1)),
        Arc::new(StringArray::from(vec![file])),
    ];
    RecordBatch::try_new(Arc::clone(&PAIRS), columns).map_err(Error::encode)
}

/// Rows of files.
pub(super) fn file_rows(files: Vec<String>) -> Result<RecordBatch> {
    let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(files))];
    RecordBatch::try_new(Arc::clone(&FILES), columns).map_err(Error::encode)
}

/// The files that such rows name.
pub(super) fn files_of(batch: &RecordBatch) -> Result<Vec<WrittenFile>> {
    text(batch, 0)?.iter().flatten().map(|file| serde_json::from_str(file).map_err(Error::encode)).collect()
}

/// Sums over users, of one task or of all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    pub(super) everyone: Everyone,
    /// By item.
    pub(super) interactions: Vec<i64>,
    /// By item.
    pub(super) users: Vec<i64>,
    /// By item; the least there is for an item without an event.
    pub(super) last_interaction: Vec<i64>,
}

impl Sums {
    pub(super) fn of_nobody(items: usize) -> Self {
        Self {
            everyone: Everyone::nobody(items),
            interactions: vec![0; items],
            users: vec![0; items],
            last_interaction: vec![i64::MIN; items],
        }
    }

    /// The sums as they travel.
    ///
    /// # Errors
    /// [`Error::Encode`]
    pub fn rows(&self) -> Result<RecordBatch> {
        let Self { everyone, interactions, users, last_interaction } = self;
        let items: Vec<usize> = (0..interactions.len()).filter(|item| interactions[*item] > 0).collect();
        let indexes = items.iter().map(|item| u32::try_from(*item).ok()).chain([None]);
        let whole = |of: &[i64], last: i64| -> ArrayRef {
            Arc::new(Int64Array::from(items.iter().map(|item| of[*item]).chain([last]).collect::<Vec<_>>()))
        };
        let sum = |of: &[Sum], last: Sum, part: fn(&Sum) -> f64| -> ArrayRef {
            let values = items.iter().map(|item| part(&of[*item])).chain([part(&last)]);
            Arc::new(Float64Array::from(values.collect::<Vec<_>>()))
        };
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let Everyone { users: present, active, activity, mass, recent, all } = everyone;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(indexes.collect::<UInt32Array>()),
            whole(interactions, count(*present)),
            whole(users, count(*active)),
            whole(last_interaction, 0),
            sum(recent, *activity, |sum| sum.rounded),
            sum(recent, *activity, |sum| sum.rest),
            sum(all, *mass, |sum| sum.rounded),
            sum(all, *mass, |sum| sum.rest),
        ];
        RecordBatch::try_new(Arc::clone(&SUMS), columns).map_err(Error::encode)
    }

    /// Adds the sums of a task.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let items = column::<UInt32Type>(batch, 0)?;
        let [interactions, users, last] = [1, 2, 3].map(|at| column::<Int64Type>(batch, at));
        let [first, first_rest, second, second_rest] = [4, 5, 6, 7].map(|at| column::<Float64Type>(batch, at));
        let (interactions, users, last) = (interactions?, users?, last?);
        let (first, first_rest, second, second_rest) = (first?, first_rest?, second?, second_rest?);
        for row in 0..batch.num_rows() {
            let (counted, users) = (interactions.value(row), users.value(row));
            let one = Sum { rounded: first.value(row), rest: first_rest.value(row) };
            let other = Sum { rounded: second.value(row), rest: second_rest.value(row) };
            if items.is_null(row) {
                self.everyone.users += counted.unsigned_abs();
                self.everyone.active += users.unsigned_abs();
                self.everyone.activity.merge(one);
                self.everyone.mass.merge(other);
                continue;
            }
            let item = items.value(row) as usize;
            if item >= self.interactions.len() {
                return Err(strange(0));
            }
            self.interactions[item] += counted;
            self.users[item] += users;
            self.last_interaction[item] = self.last_interaction[item].max(last.value(row));
            self.everyone.recent[item].merge(one);
            self.everyone.all[item].merge(other);
        }
        Ok(())
    }
}
