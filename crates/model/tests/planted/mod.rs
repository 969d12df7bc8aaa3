//! Logs from a process that is known: who comes how often, who likes what, who buys the same again.

use item_affinity_model::{Interactions, ItemAffinity, Vocabulary};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub(crate) const DAY: i64 = 86_400;
pub(crate) const GROUPS: u32 = 5;

/// The users with an odd number buy again what they had, half of the time; the others never do.
pub(crate) fn returns(user: u32) -> bool {
    user % 2 == 1
}

/// Events per day; users of a group, and those who return, are spread evenly over the rates.
pub(crate) fn rate(user: u32) -> f64 {
    0.005 * 1.6f64.powi((user / 10 % 8) as i32)
}

pub(crate) type Event = (u32, u32, i64, f32);

/// Users of five groups, who like the items of their group nine times in ten.
pub(crate) fn shop(seed: u64, users: u32, items: u32, days: i64) -> Vec<Event> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut events = Vec::new();
    for user in 0..users {
        let mut had: Vec<u32> = Vec::new();
        let mut day = 0.0;
        loop {
            day += -(1.0 - random.random::<f64>()).ln() / rate(user);
            if day >= days as f64 {
                break;
            }
            let again = returns(user) && !had.is_empty() && random.random::<f64>() < 0.5;
            let mut fresh = || {
                let group = if random.random::<f64>() < 0.9 { user % GROUPS } else { random.random_range(0..GROUPS) };
                // The first items of a group are the popular ones.
                let place = (random.random::<f64>() * random.random::<f64>() * f64::from(items / GROUPS)) as u32;
                place * GROUPS + group
            };
            let item = match again {
                true => had[random.random_range(0..had.len())],
                // Whoever never returns looks until there is something new, and goes if there is not.
                false => match (0..200).map(|_| fresh()).find(|item| returns(user) || !had.contains(item)) {
                    Some(item) => item,
                    None => continue,
                },
            };
            if !had.contains(&item) {
                had.push(item);
            }
            events.push((user, item, (day * DAY as f64) as i64, 1.0));
        }
    }
    events
}

pub(crate) fn ids(count: u32) -> Vocabulary {
    Vocabulary::from_sorted((0..count).map(|n| format!("{n:06}"))).unwrap()
}

pub(crate) fn log(users: u32, items: u32, events: &[Event]) -> Interactions {
    let column = |of: fn(&Event) -> u32| events.iter().map(of).collect();
    let (times, weights) = (events.iter().map(|e| e.2).collect(), events.iter().map(|e| e.3).collect());
    Interactions::new(ids(users), ids(items), column(|e| e.0), column(|e| e.1), times, weights).unwrap()
}

pub(crate) fn small() -> ItemAffinity {
    ItemAffinity { hidden_dimension: 32, iterations: 4, ..ItemAffinity::default() }
}
