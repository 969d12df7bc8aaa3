//! How long training takes and how much memory it needs, said before it begins.

use std::fmt;

use item_affinity_model::{Interactions, ItemAffinity, SideInformation};

/// Seconds of one thread for each event and hidden variable, in each iteration.
///
/// These rates were measured on two cores with AVX-512, on logs of 0.4 to 20 million events; the test
/// `trainings_are_timed_by_hand` measures them again.
const PER_EVENT_VARIABLE: f64 = 7.6e-10;
/// The same for each user and item and square of hidden variables: turning factors to the axes of the other side.
const PER_ROW_SQUARE: f64 = 8e-11;
/// The same for each event, once: what the propensity is made of.
const PER_EVENT: f64 = 5e-7;
/// The same for the regressions of the propensity.
const REGRESSIONS: f64 = 1.0;
/// Half-steps and refits that come on top of the iterations of a recipe, in iterations.
const MORE_ITERATIONS: f64 = 1.0;
/// Iterations of a recipe that are made of a sample, the pairs of the sample, and what they cost with the choice of a
/// regularization and without, in iterations.
const BEGUN_ITERATIONS: f64 = 2.0;
const PAIRS_OF_THE_SAMPLE: f64 = 1e6;
const BEGINNING_WITH_CHOICE: f64 = 6.0;
const BEGINNING: f64 = 3.0;
/// Trainings that the choice of attributes is worth.
const CHOICE_OF_ATTRIBUTES: f64 = 3.0;

/// Bytes that buffers of reading and writing take beside a training, and the allocator keeps: trainings of 0.8 and 1.5
/// million events peaked 66 to 95 MB above the sum of what they hold and what one of a small log takes.
const BESIDE: u64 = 96 << 20;

/// What a training takes, within a factor of about two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    interactions: usize,
    users: usize,
    items: usize,
    hidden_dimension: usize,
    /// Seconds of one thread.
    work: f64,
    threads: f64,
    /// Peak memory.
    bytes: f64,
}

impl Estimate {
    /// Estimates a training on the threads of the current rayon pool.
    ///
    /// # Units
    /// Memory in bytes: the interactions, which held-out windows share; 24 per pair (both directions, with weights), taking
    /// each interaction for a pair; the factors, and two more copies of those of the larger side.
    pub(crate) fn new(
        recipe: &ItemAffinity,
        interactions: &Interactions,
        side: Option<&SideInformation>,
        evaluate: bool,
    ) -> Self {
        let d = recipe.hidden_dimension as f64;
        let (users, items) = (interactions.users().len(), interactions.items().len());
        let (events, rows) = (interactions.len() as f64, (users + items) as f64);
        let sample = (PAIRS_OF_THE_SAMPLE / events.max(1.0)).min(1.0);
        let begin = if recipe.regularization.is_none() { BEGINNING_WITH_CHOICE } else { BEGINNING };
        let rest = (recipe.iterations as f64 - BEGUN_ITERATIONS).max(1.0);
        let iterations = begin * sample + rest + MORE_ITERATIONS;
        let once = REGRESSIONS
            + events * PER_EVENT
            + iterations * (events * d * PER_EVENT_VARIABLE + rows * d * d * PER_ROW_SQUARE);
        let trainings = 1.0 + f64::from(evaluate) + if side.is_some() { CHOICE_OF_ATTRIBUTES } else { 0.0 };
        // Attributes in both directions, and the weights of features.
        let attributes: f64 = side
            .into_iter()
            .flat_map(|side| [&side.items, &side.users])
            .flatten()
            .map(|of| 16.0 * of.matrix().nnz() as f64 + 4.0 * d * of.matrix().columns() as f64)
            .sum();
        let held = interactions.allocated_bytes()
            + interactions.users().allocated_bytes()
            + interactions.items().allocated_bytes();
        Self {
            interactions: interactions.len(),
            users,
            items,
            hidden_dimension: recipe.hidden_dimension,
            work: once * trainings,
            threads: rayon::current_num_threads() as f64,
            bytes: held as f64 + attributes + 24.0 * events + 4.0 * d * (rows + 2.0 * users.max(items) as f64),
        }
    }

    /// Peak memory in bytes, with what a process holds beside a training.
    // Sums of lengths of memory are far below 2^53.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.ceil() as u64 + BESIDE
    }

    fn seconds(&self) -> f64 {
        self.work / self.threads
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interactions, users, items, hidden_dimension, .. } = self;
        write!(
            f,
            "{interactions} interactions of {users} users and {items} items, {hidden_dimension} hidden variables: \
             training takes about {} and {} of memory",
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

    use item_affinity_model::{Vocabulary, train};

    use super::*;

    /// Users who each had the same number of items, spread evenly over items and a year.
    fn data(users: u32, items: u32, each: u32) -> Interactions {
        let ids = |count: u32| Vocabulary::from_sorted((0..count).map(|n| format!("{n:08}"))).unwrap();
        let (mut user_index, mut item_index, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for user in 0..users {
            user_index.extend((0..each).map(|_| user));
            item_index.extend((0..each).map(|n| (user.wrapping_mul(7_919) + n * (items / each)) % items));
            times.extend((0..each).map(|n| i64::from(n) * 31_536_000 / i64::from(each)));
        }
        let events = user_index.len();
        Interactions::new(ids(users), ids(items), user_index, item_index, times, vec![1.0; events]).unwrap()
    }

    #[test]
    fn twice_the_work_takes_twice_the_time() {
        let recipe = ItemAffinity::default();
        let (once, twice) = (data(1_000, 200, 100), data(2_000, 200, 100));
        let of = |log: &Interactions, evaluate| Estimate::new(&recipe, log, None, evaluate);
        let growth = (of(&twice, false).work - REGRESSIONS) / (of(&once, false).work - REGRESSIONS);
        assert!((1.7..2.1).contains(&growth), "{growth}");
        assert_eq!(of(&once, true).work, 2.0 * of(&once, false).work);
        assert!((1.7..2.1).contains(&(of(&twice, false).bytes / of(&once, false).bytes)));
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

    /// Prints what trainings take beside their estimates: `cargo test --release -p item-affinity-solution -- --ignored
    /// --nocapture trainings_are_timed`.
    #[test]
    #[ignore = "measures this machine; run by hand in a release build"]
    fn trainings_are_timed_by_hand() {
        for (users, items, each) in [(20_000, 2_000, 20), (5_000, 2_000, 300), (100_000, 50_000, 10)] {
            let (log, recipe) = (data(users, items, each), ItemAffinity::default());
            let clock = std::time::Instant::now();
            train(&recipe, &log, None, None, &mut |_| ControlFlow::Continue(())).unwrap();
            println!("{}", Estimate::new(&recipe, &log, None, false));
            println!("  took {:.1} s", clock.elapsed().as_secs_f64());
        }
    }
}
