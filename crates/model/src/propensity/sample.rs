//! Which pairs the coefficients are learnt from: those that did interact in the window, and some that did not.
//!
//! A pair is drawn by a hash of its user and item, never by its place in the work, so the draw is the same for any
//! number of threads. What was drawn with probability p counts 1 / p.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;

use crate::csr::Csr;
use crate::hash::uniform;
use crate::interactions::Interactions;
use crate::logistic::Sample;
use crate::terms::user_blocks;

/// How many pairs of each label are drawn, about, at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caps {
    pub(super) new: f64,
    /// Pairs with history: fewer, because they have many more terms.
    pub(super) repeat: f64,
}

pub(super) const CAPS: Caps = Caps { new: 200_000.0, repeat: 50_000.0 };

/// Users that an item must have had. Most items of a long tail have fewer, and all pairs with them together would
/// outweigh the items that segments are asked for: on complete-journey they cost 5 % of the precision of new pairs.
const LEAST_BUYERS: u32 = 5;

/// A pair that was drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Drawn {
    pub(super) user: u32,
    pub(super) item: u32,
    pub(super) label: bool,
}

/// The pairs of one regime: some of them, and how many there are.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    pub(super) drawn: Vec<Drawn>,
    pub(super) positives: u64,
    pub(super) pairs: u64,
}

impl Pairs {
    /// About `rows` of the drawn pairs: every n-th, so that labels and users keep their shares.
    pub(super) fn thinned(&self, rows: usize) -> Self {
        let step = self.drawn.len().div_ceil(rows).max(1);
        let drawn = self.drawn.iter().step_by(step).copied().collect();
        Self { drawn, positives: self.positives, pairs: self.pairs }
    }

    /// About `rows` of the drawn pairs: all of some users; and who they are.
    pub(super) fn of_some_users(&self, rows: usize, users: usize) -> (Self, Vec<bool>) {
        let step = self.drawn.len().div_ceil(rows).max(1) as u64;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let chosen = |user: u32| ((uniform(0, user, 0) * (1u64 << 32) as f64) as u64).is_multiple_of(step);
        let drawn = self.drawn.iter().filter(|pair| chosen(pair.user)).copied().collect();
        let is_chosen = (0u32..).take(users).map(chosen).collect();
        (Self { drawn, positives: self.positives, pairs: self.pairs }, is_chosen)
    }

    /// Weighs drawn pairs so that they stand for all.
    pub(super) fn weigh(&self, sample: &mut Sample) {
        #[allow(clippy::cast_precision_loss)]
        let weight = |of: u64, drawn: usize| of as f64 / drawn.max(1) as f64;
        let positives = self.drawn.iter().filter(|pair| pair.label).count();
        sample.set_weight(true, weight(self.positives, positives));
        sample.set_weight(false, weight(self.pairs - self.positives, self.drawn.len() - positives));
    }
}

/// Draws pairs of users and items that were known before the window.
///
/// # Shapes
/// by_user: users × items, the pairs with history; labels: users × items, the pairs that interact in the window
/// # Cost
/// one pass over the history; about as many pairs of each label as the caps, at most
pub(super) fn draw(known: &Interactions, by_user: &Csr, labels: &Csr, caps: Caps, seed: u64) -> (Pairs, Pairs) {
    let users: Vec<u32> =
        (0u32..).take(by_user.rows()).filter(|user| !by_user.row(*user as usize).0.is_empty()).collect();
    let mut buyers = vec![0u32; by_user.columns()];
    by_user.indices().iter().for_each(|item| buyers[*item as usize] += 1);
    let known_item: Vec<bool> = buyers.iter().map(|buyers| *buyers >= LEAST_BUYERS).collect();
    let items: Vec<u32> = (0u32..).take(known_item.len()).filter(|item| known_item[*item as usize]).collect();

    // Counts first: they decide how many are drawn.
    let positives = |user: u32| {
        let (history, _) = by_user.row(user as usize);
        let of_known = labels.row(user as usize).0.iter().filter(|item| known_item[**item as usize]);
        of_known.map(move |item| (*item, history.binary_search(item).is_ok()))
    };
    let (mut new, mut repeat) = (Pairs::default(), Pairs::default());
    for user in &users {
        for (_, seen) in positives(*user) {
            if seen { repeat.positives += 1 } else { new.positives += 1 }
        }
    }
    repeat.pairs = by_user.indices().iter().filter(|item| known_item[**item as usize]).count() as u64;
    new.pairs = (users.len() as u64 * items.len() as u64).saturating_sub(repeat.pairs);

    #[allow(clippy::cast_precision_loss)]
    let share = |most: f64, of: u64| (most / of.max(1) as f64).min(1.0);
    let (new_share, repeat_share) = (share(caps.new, new.positives), share(caps.repeat, repeat.positives));
    let not_share = share(caps.repeat, repeat.pairs - repeat.positives);
    let drawn = |user: u32, item: u32, share: f64| share >= 1.0 || uniform(seed, user, item) < share;
    let blocks: Vec<(Vec<Drawn>, Vec<Drawn>)> = user_blocks(known)
        .into_par_iter()
        .map(|block| {
            let (mut new, mut repeat) = (Vec::new(), Vec::new());
            #[allow(clippy::cast_possible_truncation)] // users are numbered by u32
            for user in block.map(|user| user as u32).filter(|user| !by_user.row(*user as usize).0.is_empty()) {
                for (item, seen) in positives(user) {
                    let (out, share) = if seen { (&mut repeat, repeat_share) } else { (&mut new, new_share) };
                    if drawn(user, item, share) {
                        out.push(Drawn { user, item, label: true });
                    }
                }
                let labelled = labels.row(user as usize).0;
                for item in by_user.row(user as usize).0.iter().filter(|item| known_item[**item as usize]) {
                    if drawn(user, *item, not_share) && labelled.binary_search(item).is_err() {
                        repeat.push(Drawn { user, item: *item, label: false });
                    }
                }
            }
            (new, repeat)
        })
        .collect();
    for (of_new, of_repeat) in blocks {
        new.drawn.extend(of_new);
        repeat.drawn.extend(of_repeat);
    }

    // Most pairs are new and do not happen: a few are met by chance.
    let negatives = new.pairs - new.positives;
    let mut random = StdRng::seed_from_u64(seed);
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let wanted = (negatives as f64).min(caps.new) as usize;
    let tries = wanted.saturating_mul(20);
    let mut met = 0;
    for _ in 0..tries {
        if met == wanted || items.is_empty() {
            break;
        }
        let (user, item) = (users[random.random_range(0..users.len())], items[random.random_range(0..items.len())]);
        let has = |of: &Csr| of.row(user as usize).0.binary_search(&item).is_ok();
        if !has(by_user) && !has(labels) {
            new.drawn.push(Drawn { user, item, label: false });
            met += 1;
        }
    }
    (new, repeat)
}

#[cfg(test)]
#[path = "sample_tests.rs"]
mod tests;
