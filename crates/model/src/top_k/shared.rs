//! What rankings of the same items, each of a part of the users, tell each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Rank;

/// What each part says of an item until it has enough users.
const NOTHING: u64 = u64::MAX;

/// How good users are that the parts of a ranking hold, so that no part keeps who is beaten elsewhere.
///
/// Of `n` parts each says the rank of its `⌈k / n⌉`-th best user of an item. The worst of these ranks has `k` users on or
/// above it, whoever they are, so nobody below it is among the best `k`: with users spread evenly a part keeps `k / n` of an
/// item, not `k`. What is said only improves, so that a part that reads late keeps a few more and loses nobody. Parts that
/// never say anything cost nothing but that.
#[derive(Debug)]
pub struct SharedThresholds {
    items: usize,
    parts: usize,
    /// parts × items, so that two parts do not write to one cache line.
    said: Vec<AtomicU64>,
}

impl SharedThresholds {
    /// Nothing is said yet.
    #[must_use]
    pub fn new(items: usize, parts: usize) -> Self {
        Self { items, parts, said: (0..items * parts).map(|_| AtomicU64::new(NOTHING)).collect() }
    }

    /// How many items are ranked.
    #[must_use]
    pub fn items(&self) -> usize {
        self.items
    }
}

/// One part's side of it.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) k: usize,
    /// Users of an item whose worst this part tells.
    pub(super) own: usize,
    shared: Arc<SharedThresholds>,
    part: usize,
}

impl Share {
    pub(super) fn new(k: usize, shared: Arc<SharedThresholds>, part: usize) -> Self {
        assert!(part < shared.parts, "part {part} of {}", shared.parts);
        Self { k, own: k.div_ceil(shared.parts), shared, part }
    }

    /// Tells that this part has `own` users of an item who rank so or better.
    pub(super) fn say(&self, item: usize, rank: Rank) {
        // Each number is true by itself, whatever else has been written, and only this part writes here.
        let said = &self.shared.said[self.part * self.shared.items + item];
        said.store(rank.0.min(said.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    /// Nobody who ranks after it is among the best k of the item; none while a part has said nothing.
    pub(super) fn bound(&self, item: usize) -> Option<Rank> {
        let said = self.shared.said.iter().skip(item).step_by(self.shared.items);
        let worst = said.map(|said| said.load(Ordering::Relaxed)).max()?;
        (worst != NOTHING).then_some(Rank(worst))
    }
}
