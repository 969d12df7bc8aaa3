//! The parts of all readers as one event log.
//!
//! Readers number ids as they meet them, so their numbers depend on which reader got which rows. Here the numbers
//! become positions in the sorted ids, and nothing of the order of reading is left.

use item_affinity_model::{Interactions, Vocabulary, VocabularyBuilder};
use item_affinity_storage::Tombstones;
use rayon::join;
use rayon::prelude::*;

use crate::error::Result;
use crate::ids::Ids;
use crate::part::Part;

/// The numbers of all parts, before they are sorted.
pub(crate) struct Merged {
    pub(crate) users: Vocabulary,
    pub(crate) items: Vocabulary,
    pub(crate) user: Vec<u32>,
    pub(crate) item: Vec<u32>,
    pub(crate) time: Vec<i64>,
    pub(crate) weight: Vec<f32>,
}

/// The ids and rows of one reader.
pub(crate) struct Rows {
    pub(crate) users: Ids,
    pub(crate) items: Ids,
    pub(crate) user: Vec<u32>,
    pub(crate) item: Vec<u32>,
    pub(crate) time: Vec<i64>,
    pub(crate) weight: Vec<f32>,
}

impl Rows {
    /// The rows of a part, with the rest of it.
    pub(crate) fn take(part: &mut Part) -> Self {
        Self {
            users: std::mem::replace(&mut part.users, Ids::new()),
            items: std::mem::replace(&mut part.items, Ids::new()),
            user: std::mem::take(&mut part.user),
            item: std::mem::take(&mut part.item),
            time: std::mem::take(&mut part.time),
            weight: std::mem::take(&mut part.weight),
        }
    }
}

impl Merged {
    /// Puts the rows of several readers together.
    ///
    /// # Cost
    /// The columns are copied side by side, so that the peak is the rows twice.
    pub(crate) fn of(parts: Vec<Rows>) -> Result<Self> {
        let (mut users, mut items, mut times, mut weights) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for Rows { users: of_users, items: of_items, user, item, time, weight } in parts {
            users.push((of_users, user));
            items.push((of_items, item));
            times.push(time);
            weights.push(weight);
        }
        let ids = || join(|| merge_ids(users), || merge_ids(items));
        let ((users, items), (time, mut weight)) = join(ids, || (concat(times), concat(weights)));
        let ((users, user), (items, item)) = (users?, items?);
        if weight.is_empty() {
            weight.resize(time.len(), 1.0);
        }
        Ok(Self { users, items, user, item, time, weight })
    }

    /// The rows of those who were not forgotten, and how many rows went. Nobody and nothing stays without a row.
    pub(crate) fn without(self, forgotten: &Tombstones) -> Result<(Self, u64)> {
        if forgotten.is_empty() {
            return Ok((self, 0));
        }
        let goes: Vec<bool> = self.users.iter().map(|id| forgotten.contains(id)).collect();
        let Self { users, items, user, item, time, weight } = self;
        let stays: Vec<bool> = user.iter().map(|user| !goes[*user as usize]).collect();
        let gone = stays.iter().filter(|stays| !**stays).count() as u64;
        if gone == 0 {
            return Ok((Self { users, items, user, item, time, weight }, 0));
        }
        let (users, user) = renumbered(&users, kept(user, &stays))?;
        let (items, item) = renumbered(&items, kept(item, &stays))?;
        Ok((Self { users, items, user, item, time: kept(time, &stays), weight: kept(weight, &stays) }, gone))
    }

    /// The event log, sorted: the order in which rows arrived does not show.
    pub(crate) fn into_interactions(self) -> Result<Interactions> {
        let Self { users, items, user, item, time, weight } = self;
        Ok(Interactions::new(users, items, user, item, time, weight)?)
    }
}

/// The rows of a column that stay; a column without rows has none to lose.
pub(crate) fn kept<T>(mut column: Vec<T>, stays: &[bool]) -> Vec<T> {
    let mut rows = stays.iter();
    column.retain(|_| rows.next().copied().unwrap_or_default());
    column
}

/// The ids that occur in a column, and the column in their numbers.
fn renumbered(ids: &Vocabulary, mut column: Vec<u32>) -> Result<(Vocabulary, Vec<u32>)> {
    let mut number = vec![None; ids.len()];
    column.iter().for_each(|id| number[*id as usize] = Some(0));
    for (next, number) in (0_u32..).zip(number.iter_mut().flatten()) {
        *number = next;
    }
    let used = ids.iter().zip(&number).filter(|(_, number)| number.is_some()).map(|(id, _)| id);
    let used = Vocabulary::from_sorted(used)?;
    for id in &mut column {
        *id = number[*id as usize].unwrap_or_default();
    }
    Ok((used, column))
}

/// One sorted vocabulary of the ids that occur in some row, and the rows in its numbers.
fn merge_ids(parts: Vec<(Ids, Vec<u32>)>) -> Result<(Vocabulary, Vec<u32>)> {
    struct Sorted {
        ids: Vocabulary,
        used: Vec<bool>,
        number: Vec<u32>,
        next: u32,
    }
    let mut columns = Vec::new();
    let mut sorted = Vec::new();
    let mut renumbers = Vec::new();
    for (ids, column) in parts {
        let (ids, renumber) = VocabularyBuilder::finish(ids.into_vocabulary());
        // An id that only filtered or rejected rows have is no user and no item of the model.
        let mut used = vec![false; ids.len()];
        for arrival in column.iter() {
            used[renumber[*arrival as usize] as usize] = true;
        }
        let number = vec![0; ids.len()];
        sorted.push(Sorted { ids, used, number, next: 0 });
        renumbers.push(renumber);
        columns.push(column);
    }
    let mut count = 0_u32;
    let mut overflow = false;
    let merged = Vocabulary::from_sorted(std::iter::from_fn(|| {
        for part in &mut sorted {
            while part.used.get(part.next as usize) == Some(&false) {
                part.next += 1;
            }
        }
        let smallest = sorted.iter().filter_map(|part| part.ids.id(part.next)).min()?.to_string();
        for part in &mut sorted {
            if part.ids.id(part.next) == Some(smallest.as_str()) {
                part.number[part.next as usize] = count;
                part.next += 1;
            }
        }
        match count.checked_add(1) {
            Some(next) => count = next,
            None => overflow = true,
        }
        (!overflow).then_some(smallest)
    }))?;
    for ((column, renumber), part) in columns.iter_mut().zip(renumbers).zip(sorted) {
        let number: Vec<u32> = renumber.iter().map(|at| part.number[*at as usize]).collect();
        let renumber = |codes: &mut [u32]| codes.iter_mut().for_each(|code| *code = number[*code as usize]);
        column.par_chunks_mut(CHUNK_ROWS).for_each(renumber);
    }
    Ok((merged, concat(columns)))
}

/// Rows that one task numbers anew.
const CHUNK_ROWS: usize = 1 << 18;

fn concat<T>(columns: Vec<Vec<T>>) -> Vec<T> {
    let rows = columns.iter().map(Vec::len).sum::<usize>();
    let mut columns = columns.into_iter().filter(|column| !column.is_empty());
    let mut all = columns.next().unwrap_or_default();
    all.reserve_exact(rows - all.len());
    columns.for_each(|mut column| all.append(&mut column));
    all
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    fn rows(pairs: &[(&str, &str)], times: &[i64], weights: &[f32]) -> Rows {
        let mut ids = (Ids::new(), Ids::new());
        let (mut user, mut item) = (Vec::new(), Vec::new());
        let users: ArrayRef = Arc::new(pairs.iter().map(|pair| Some(pair.0)).collect::<StringArray>());
        let items: ArrayRef = Arc::new(pairs.iter().map(|pair| Some(pair.1)).collect::<StringArray>());
        ids.0.read(&users, None, &mut user).unwrap();
        ids.1.read(&items, None, &mut item).unwrap();
        Rows { users: ids.0, items: ids.1, user, item, time: times.to_vec(), weight: weights.to_vec() }
    }

    #[test]
    fn readers_that_met_ids_in_another_order_agree() {
        let one = rows(&[("u2", "b"), ("u1", "a")], &[1, 2], &[]);
        let two = rows(&[("u3", "a"), ("u2", "c")], &[3, 4], &[]);
        let merged = Merged::of(vec![one, two]).unwrap();
        assert_eq!(merged.users.iter().collect::<Vec<_>>(), ["u1", "u2", "u3"]);
        assert_eq!(merged.items.iter().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(merged.user, [1, 0, 2, 1]);
        assert_eq!(merged.item, [1, 0, 0, 2]);
        assert_eq!(merged.time, [1, 2, 3, 4]);
        assert_eq!(merged.weight, [1.0; 4]);
    }

    #[test]
    fn ids_without_a_kept_row_are_left_out() {
        let mut one = rows(&[("gone", "x"), ("kept", "y")], &[1], &[]);
        one.user.remove(0);
        one.item.remove(0);
        let merged = Merged::of(vec![one, rows(&[], &[], &[])]).unwrap();
        assert_eq!(merged.users.iter().collect::<Vec<_>>(), ["kept"]);
        assert_eq!(merged.items.iter().collect::<Vec<_>>(), ["y"]);
        assert_eq!((merged.user, merged.item), (vec![0], vec![0]));
    }
}
