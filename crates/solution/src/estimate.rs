//! How long training takes and how much memory it needs, said before it begins.

use std::fmt;

use item_affinity_model::{Csr, Interactions, ItemAffinity};

/// Multiply-adds that one thread of the fit does in a second of processor time.
///
/// Measured on two cores with AVX2, 149 hidden variables, rows of 10 to 300 pairs: 7.1e9 with one thread, 6.4e9 each
/// with two. The test `work_of_the_fit_is_timed_by_hand` measures it again.
const PER_SECOND_AND_THREAD: f64 = 6.5e9;

/// What a training takes, within a factor of about two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    interactions: usize,
    pairs: usize,
    users: usize,
    items: usize,
    hidden_dimension: usize,
    /// Multiply-adds of the whole fit.
    work: f64,
    threads: f64,
    /// Peak memory of the fit.
    bytes: f64,
}

impl Estimate {
    /// Estimates the fit of these interactions on the threads of the current rayon pool.
    ///
    /// # Units
    /// Work in multiply-adds. A row of n pairs takes `min(n·d²/2 + d³/6, n²·d/2 + n³/6)`, a half-step also `1.5·d²` per
    /// row of the other side; an iteration has a half-step of each side, and one of the users comes before the first.
    /// For rows longer than d this is O(nnz·d² + (users + items)·d³/3).
    ///
    /// Memory in bytes: the interactions as they are, 24 per pair (both directions, with weights), the factors, and two
    /// more copies of those of the larger side.
    pub(crate) fn new(recipe: &ItemAffinity, interactions: &Interactions, by_user: &Csr, by_item: &Csr) -> Self {
        let d = recipe.hidden_dimension as f64;
        let (users, items) = (half_step(by_user, by_item.rows(), d), half_step(by_item, by_user.rows(), d));
        let (user_rows, item_rows) = (by_user.rows() as f64, by_item.rows() as f64);
        let events = interactions.allocated_bytes()
            + interactions.users().allocated_bytes()
            + interactions.items().allocated_bytes();
        let factors = 4.0 * d * (user_rows + item_rows + 2.0 * user_rows.max(item_rows));
        Self {
            interactions: interactions.len(),
            pairs: by_user.nnz(),
            users: by_user.rows(),
            items: by_item.rows(),
            hidden_dimension: recipe.hidden_dimension,
            work: users + recipe.iterations as f64 * (users + items),
            threads: rayon::current_num_threads() as f64,
            bytes: events as f64 + 24.0 * by_user.nnz() as f64 + factors,
        }
    }

    fn seconds(&self) -> f64 {
        self.work / (PER_SECOND_AND_THREAD * self.threads)
    }
}

/// Multiply-adds of a half-step that solves these rows against so many fixed ones.
fn half_step(rows: &Csr, fixed: usize, d: f64) -> f64 {
    let row = |n: f64| (n * d * d / 2.0 + d.powi(3) / 6.0).min(n * n * d / 2.0 + n.powi(3) / 6.0);
    let lengths = rows.indptr().windows(2).map(|bounds| (bounds[1] - bounds[0]) as f64);
    lengths.map(row).sum::<f64>() + 1.5 * fixed as f64 * d * d
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interactions, pairs, users, items, hidden_dimension, .. } = self;
        write!(
            f,
            "{interactions} interactions, {pairs} pairs of {users} users and {items} items, {hidden_dimension} hidden \
             variables: the fit takes about {} and {} of memory",
            Time(self.seconds()),
            Memory(self.bytes)
        )
    }
}

/// Seconds in words; nobody plans with more than two digits.
struct Time(f64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds if seconds < 1.0 => write!(f, "a second"),
            seconds if seconds < 90.0 => write!(f, "{seconds:.0} seconds"),
            seconds if seconds < 5_400.0 => write!(f, "{:.0} minutes", seconds / 60.0),
            seconds => write!(f, "{:.1} hours", seconds / 3_600.0),
        }
    }
}

/// Bytes in words.
struct Memory(f64);

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes < 1e9 => write!(f, "{:.0} MB", (bytes / 1e6).ceil()),
            bytes => write!(f, "{:.1} GB", bytes / 1e9),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]
mod tests {
    use std::ops::ControlFlow;

    use item_affinity_model::{Vocabulary, fit};

    use super::*;

    /// Users who each had the same number of items, spread evenly.
    fn data(users: u32, items: u32, each: u32) -> (Interactions, Csr, Csr) {
        let ids = |count: u32| Vocabulary::from_sorted((0..count).map(|n| format!("{n:08}"))).unwrap();
        let (mut user_index, mut item_index) = (Vec::new(), Vec::new());
        for user in 0..users {
            user_index.extend((0..each).map(|_| user));
            item_index.extend((0..each).map(|n| (user.wrapping_mul(7_919) + n * (items / each)) % items));
        }
        let events = user_index.len();
        let (times, weights) = (vec![1; events], vec![1.0; events]);
        let interactions = Interactions::new(ids(users), ids(items), user_index, item_index, times, weights).unwrap();
        let by_user = interactions.pairs(None).unwrap().by_user;
        let by_item = by_user.transpose();
        (interactions, by_user, by_item)
    }

    #[test]
    fn work_is_the_sum_over_rows_and_iterations() {
        let recipe = ItemAffinity { hidden_dimension: 32, iterations: 3, ..ItemAffinity::default() };
        let (interactions, by_user, by_item) = data(4, 2, 2);
        let estimate = Estimate::new(&recipe, &interactions, &by_user, &by_item);
        // Users have 2 pairs, items 4, all shorter than 32: n²·32/2 + n³/6 each; the Gram part is 1.5·32² a fixed row.
        let users = 4.0 * (64.0 + 8.0 / 6.0) + 1.5 * 2.0 * 1_024.0;
        let items = 2.0 * (256.0 + 64.0 / 6.0) + 1.5 * 4.0 * 1_024.0;
        assert!((estimate.work - (users + 3.0 * (users + items))).abs() < 1e-6, "{estimate:?}");
    }

    #[test]
    fn a_row_longer_than_the_dimension_costs_its_length_times_the_square() {
        let row = Csr::new(vec![0, 1_000], (0..1_000).collect(), vec![1.0; 1_000], 1_000).unwrap();
        let expected = 1_000.0 * 1_024.0 / 2.0 + 32_768.0 / 6.0;
        assert!((half_step(&row, 0, 32.0) - expected).abs() < 1e-6);
    }

    #[test]
    fn amounts_are_said_in_words_of_their_size() {
        let words = |seconds: f64| Time(seconds).to_string();
        assert_eq!(
            [words(0.2), words(12.4), words(150.0), words(9_000.0)],
            ["a second", "12 seconds", "2 minutes", "2.5 hours"]
        );
        assert_eq!([Memory(1.0).to_string(), Memory(2.5e9).to_string()], ["1 MB", "2.5 GB"]);
    }

    /// Prints the rate behind [`PER_SECOND_AND_THREAD`]: `cargo test --release -p item-affinity-solution -- --ignored
    /// --nocapture work_of_the_fit`.
    #[test]
    #[ignore = "measures this machine; run by hand in a release build"]
    fn work_of_the_fit_is_timed_by_hand() {
        for (users, items, each) in [(20_000, 2_000, 20), (5_000, 2_000, 300), (100_000, 5_000, 10)] {
            let (interactions, by_user, by_item) = data(users, items, each);
            let recipe = ItemAffinity { iterations: 3, ..ItemAffinity::default() };
            let estimate = Estimate::new(&recipe, &interactions, &by_user, &by_item);
            let clock = std::time::Instant::now();
            fit(&recipe, &by_user, &by_item, &mut |_| ControlFlow::Continue(())).unwrap();
            let seconds = clock.elapsed().as_secs_f64();
            println!("{estimate}");
            println!("  took {seconds:.1} s: {:.2e} a second and thread", estimate.work / seconds / estimate.threads);
        }
    }
}
