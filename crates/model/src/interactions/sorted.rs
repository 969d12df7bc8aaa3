//! Events in any order to events by user and time.

use pulp::bytemuck::Pod;
use rayon::prelude::*;

use crate::large_pages::Numbers;
use crate::rows::{blocks, split_by};

/// Events of a block of users: as many as stay in the cache while they are sorted.
const BLOCK_EVENTS: usize = 1 << 16;
/// So many blocks at most, or there would be too many places to write to at a time.
const MOST_BLOCKS: usize = 1 << 11;
/// Events that one task hands out to the blocks, and how many tasks there are at most.
const TASK_EVENTS: usize = 1 << 19;
const MOST_TASKS: usize = 1 << 8;

/// Columns with one entry per event.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    pub(super) item_index: Vec<u32>,
    pub(super) time: Vec<i64>,
    /// At least 0.
    pub(super) weight: Vec<f32>,
}

/// An event on its way, in the order of the events of a user.
trait Event: Pod + Ord + Send + Sync {
    fn new(time: i64, item: u32, weight: f32, user: u32) -> Self;
    fn time(self) -> i64;
    fn item(self) -> u32;
    fn user(self) -> usize;
}

/// The times in their order, as numbers without sign.
const SIGN: u64 = 1 << 63;

/// Time, item and user, where all events weigh the same.
#[allow(clippy::cast_possible_truncation)] // they lie side by side
impl Event for u128 {
    fn new(time: i64, item: u32, _: f32, user: u32) -> Self {
        Self::from(time.cast_unsigned() ^ SIGN) << 64 | Self::from(item) << 32 | Self::from(user)
    }

    fn time(self) -> i64 {
        ((self >> 64) as u64 ^ SIGN).cast_signed()
    }

    fn item(self) -> u32 {
        (self >> 32) as u32
    }

    fn user(self) -> usize {
        self as u32 as usize
    }
}

/// Time, item with the bits of the weight, and user.
///
/// Weights are at least 0, where the order of the bits is the order of the numbers.
#[allow(clippy::cast_possible_truncation)] // they lie side by side
impl Event for [u64; 3] {
    fn new(time: i64, item: u32, weight: f32, user: u32) -> Self {
        // −0 is as much as 0.
        [time.cast_unsigned() ^ SIGN, u64::from(item) << 32 | u64::from((weight + 0.0).to_bits()), u64::from(user)]
    }

    fn time(self) -> i64 {
        (self[0] ^ SIGN).cast_signed()
    }

    fn item(self) -> u32 {
        (self[1] >> 32) as u32
    }

    fn user(self) -> usize {
        self[2] as usize
    }
}

/// The weight of an event that has one.
#[allow(clippy::cast_possible_truncation)] // the last half
fn weight_of(event: &[u64; 3]) -> f32 {
    f32::from_bits(event[1] as u32)
}

/// Sorts events by user, and those of a user by time, item and weight.
///
/// # Shapes
/// indptr: users + 1, where the events of each user are to start; user_index: one entry per event
/// # Cost
/// Two passes over the events and a sort of those of each user; 16 bytes an event beside the input, or 24 if not all weigh
/// the same.
pub(super) fn by_user(indptr: &[usize], user_index: Vec<u32>, mut columns: Columns) -> Columns {
    let first = columns.weight.first().copied().unwrap_or_default();
    if columns.weight.iter().all(|weight| *weight == first) {
        sort::<u128>(indptr, user_index, &mut columns);
        // −0 is as much as 0.
        if first == 0.0 {
            columns.weight.fill(0.0);
        }
    } else {
        let events = sort::<[u64; 3]>(indptr, user_index, &mut columns);
        columns.weight.par_iter_mut().zip(&*events).for_each(|(weight, event)| *weight = weight_of(event));
    }
    columns
}

/// Sorts items and times, in the memory where they are, and gives the events.
fn sort<E: Event>(indptr: &[usize], user_index: Vec<u32>, columns: &mut Columns) -> Numbers<E> {
    let Columns { item_index, time, weight } = columns;
    let events = sorted(indptr, &user_index, |at| E::new(time[at], item_index[at], weight[at], user_index[at]));
    drop(user_index);
    item_index.par_iter_mut().zip(time).zip(&*events).for_each(|((item, time), event)| {
        (*item, *time) = (event.item(), event.time());
    });
    events
}

fn sorted<E: Event>(indptr: &[usize], user_index: &[u32], event: impl Fn(usize) -> E + Sync) -> Numbers<E> {
    let blocks = blocks(indptr, BLOCK_EVENTS.max(user_index.len() / MOST_BLOCKS));
    let mut events = in_blocks(&blocks, user_index, event);
    let sizes: Vec<usize> = blocks.iter().map(|users| indptr[users.end] - indptr[users.start]).collect();
    split_by(&mut events, &sizes).into_par_iter().zip(blocks).for_each_init(
        || (Vec::new(), Vec::new()),
        |(arrived, next), (events, users)| {
            arrived.clear();
            arrived.extend_from_slice(events);
            let start = |user: usize| indptr[user] - indptr[users.start];
            next.clear();
            next.extend(users.clone().map(start));
            for event in arrived.iter() {
                let slot = &mut next[event.user() - users.start];
                events[*slot] = *event;
                *slot += 1;
            }
            for user in users.clone() {
                // Of a log in order of time, what each reader read of a user is sorted already: a stable sort finds such
                // runs and merges them.
                events[start(user)..start(user + 1)].sort();
            }
        },
    );
    events
}

/// The events of one block of users after those of another, inside a block as they arrived.
///
/// Each task writes to its own share of every block, so that none waits for another.
fn in_blocks<E: Event>(
    blocks: &[std::ops::Range<usize>],
    user_index: &[u32],
    event: impl Fn(usize) -> E + Sync,
) -> Numbers<E> {
    let mut block_of: Vec<u32> = Vec::with_capacity(blocks.last().map_or(0, |users| users.end));
    for (block, users) in (0..).zip(blocks) {
        block_of.resize(users.end, block);
    }
    let of_task = TASK_EVENTS.max(user_index.len().div_ceil(MOST_TASKS));
    let count = |users: &[u32]| {
        let mut counts = vec![0; blocks.len()];
        users.iter().for_each(|user| counts[block_of[*user as usize] as usize] += 1);
        counts
    };
    let counts: Vec<Vec<usize>> = user_index.par_chunks(of_task).map(count).collect();
    let sizes: Vec<usize> = (0..blocks.len()).flat_map(|block| counts.iter().map(move |of| of[block])).collect();
    let mut events = Numbers::zeroed(user_index.len());
    let mut shares: Vec<Vec<_>> = counts.iter().map(|_| Vec::with_capacity(blocks.len())).collect();
    for (number, share) in split_by(&mut events, &sizes).into_iter().enumerate() {
        shares[number % counts.len()].push(share.iter_mut());
    }
    shares.into_par_iter().zip(user_index.par_chunks(of_task)).enumerate().for_each(|(task, (mut shares, users))| {
        for (at, user) in users.iter().enumerate() {
            if let Some(place) = shares[block_of[*user as usize] as usize].next() {
                *place = event(task * of_task + at);
            }
        }
    });
    events
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_precision_loss)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn events_lie_as_a_plain_sort_lays_them_however_many_blocks_and_tasks_there_are() {
        let mut random = StdRng::seed_from_u64(7);
        for (events, users, weights) in [(0, 0, 1), (1, 3, 1), (5_000, 7, 3), (1_200_000, 40_000, 1), (1_200_000, 1, 2)]
        {
            let mut expected: Vec<(u32, i64, u32, f32)> = (0..events)
                .map(|n: i64| {
                    let weight = random.random_range(0..weights) as f32;
                    let (user, item) = (random.random_range(0..users), random.random_range(0..50));
                    // About in order of time, with ties.
                    (user, n / 100 + random.random_range(0..9), item, weight)
                })
                .collect();
            let mut indptr = vec![0; users as usize + 1];
            expected.iter().for_each(|event| indptr[event.0 as usize + 1] += 1);
            (0..users as usize).for_each(|user| indptr[user + 1] += indptr[user]);
            let columns = Columns {
                item_index: expected.iter().map(|event| event.2).collect(),
                time: expected.iter().map(|event| event.1).collect(),
                // Both zeros are 0.
                weight: expected.iter().map(|event| if event.3 == 0.0 { -0.0 } else { event.3 }).collect(),
            };
            let actual = by_user(&indptr, expected.iter().map(|event| event.0).collect(), columns);
            expected.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)).then(a.3.total_cmp(&b.3)));
            assert!(actual.item_index.iter().eq(expected.iter().map(|event| &event.2)), "{events} {users}");
            assert!(actual.time.iter().eq(expected.iter().map(|event| &event.1)), "{events} {users}");
            let bits = |weight: &f32| weight.to_bits();
            assert!(actual.weight.iter().map(bits).eq(expected.iter().map(|event| bits(&event.3))), "{events} {users}");
        }
    }
}
