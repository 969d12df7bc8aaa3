//! The kernels in memory: half-steps of the fit, fold-in, the whole training beside its factors alone, and the ranking
//! operator beside the bare matrix product.
//!
//! `cargo bench --bench kernels` prints the wall times of criterion and, at the end, one table of processor seconds with
//! ratios, which hold on a machine that does other work too. `PERFORMANCE.md` says what bounds each kernel.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

#[path = "cpu_seconds.rs"]
mod cpu_seconds;

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime};
use item_affinity_model::ndarray::{Array2, s};
use item_affinity_model::{
    Csr, FoldIn, Interactions, ItemAffinity, ItemPanels, NewPairSlopes, Scored, SharedThresholds, TileLogOdds,
    TopKUsers, Vocabulary, fit, refit, score_tile, train,
};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use cpu_seconds::cpu_seconds;

const DIMENSION: usize = 149;
/// The matrix of the half-steps.
const USERS: usize = 40_000;
const ITEMS: usize = 8_000;
const DRAWS: usize = 3_000_000;
/// The time that the log of the trainings spans.
const DAYS: i64 = 180;
/// The request of the ranking.
const RANKED_USERS: usize = 1_000_000;
const ASKED_ITEMS: usize = 500;
const TILE: usize = 1024;
/// Users whose pairs with history are taken at once, as in the plan.
const BATCH: usize = 8 * TILE;
const SEEN: usize = 6_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let ledger = Ledger::default();
    half_steps(&mut criterion, &ledger);
    trainings(&mut criterion, &ledger);
    ranking(&mut criterion, &ledger);
    criterion.final_summary();
    ledger.print();
}

/// Processor seconds of every run, by bench, in the order of the benches.
#[derive(Default)]
struct Ledger(RefCell<Vec<Entry>>);

struct Entry {
    name: String,
    /// The bench of the same group that ratios refer to.
    base: String,
    seconds: Vec<f64>,
}

impl Ledger {
    /// Runs a bench whose routine returns its own wall time and processor seconds.
    fn bench(
        &self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        name: &str,
        base: &str,
        mut run: impl FnMut() -> (Duration, f64),
    ) {
        group.bench_function(name, |b| {
            b.iter_custom(|times| {
                let mut wall = Duration::ZERO;
                for _ in 0..times {
                    let (one, cpu) = run();
                    wall += one;
                    self.add(name, base, cpu);
                }
                wall
            });
        });
    }

    fn add(&self, name: &str, base: &str, seconds: f64) {
        let mut entries = self.0.borrow_mut();
        match entries.iter_mut().find(|entry| entry.name == name) {
            Some(entry) => entry.seconds.push(seconds),
            None => entries.push(Entry { name: name.to_owned(), base: base.to_owned(), seconds: vec![seconds] }),
        }
    }

    fn print(&self) {
        let mut entries = self.0.borrow_mut();
        entries.iter_mut().for_each(|entry| entry.seconds.sort_unstable_by(f64::total_cmp));
        println!(
            "\nprocessor seconds on all threads\n{:<44} {:>8} {:>8} {:>5} {:>7}",
            "", "median", "least", "runs", "ratio"
        );
        let median = |entry: &Entry| entry.seconds[entry.seconds.len() / 2];
        for entry in entries.iter() {
            let base = entries.iter().find(|other| other.name == entry.base).map(median);
            let ratio = base.map_or(String::new(), |base| format!("{:.2}", median(entry) / base));
            let (least, runs) = (entry.seconds[0], entry.seconds.len());
            println!("{:<44} {:>8.2} {least:>8.2} {runs:>5} {ratio:>7}", entry.name, median(entry));
        }
    }
}

/// Wall time and processor seconds of a piece of work.
fn timed<T>(work: impl FnOnce() -> T) -> (Duration, f64) {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    std::hint::black_box(work());
    let wall = start.elapsed();
    (wall, cpu_seconds().zip(cpu).map_or(wall.as_secs_f64(), |(end, start)| end - start))
}

/// A group of few long benches, whose throughput is in these elements.
fn group(criterion: &mut Criterion, name: String, elements: u64) -> BenchmarkGroup<'_, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5))
        .throughput(Throughput::Elements(elements));
    group
}

fn half_steps(criterion: &mut Criterion, ledger: &Ledger) {
    let by_user = random_pairs();
    let by_item = by_user.transpose();
    let name = format!("fit, {} pairs of {USERS} users and {ITEMS} items, d = {DIMENSION}", by_user.nnz());
    let mut group = group(criterion, name, by_user.nnz() as u64);
    let recipe = |iterations| ItemAffinity { iterations, ..ItemAffinity::default() };
    let start = fit(&recipe(2), &by_user, &by_item, &mut |_| ControlFlow::Continue(())).expect("a fit");
    // The observer is called between half-steps, so one refit times four of them: users from nothing, items, users; then a
    // new iteration, reported twice; items, users to the solution.
    let near = "users, from the last iteration";
    let half_steps =
        [("users, from nothing", 0), (near, 2), ("items, from the last iteration", 4), ("users, to the solution", 5)];
    ledger.bench(&mut group, "refit of 2 iterations", "", || {
        let mut calls = Vec::new();
        let whole = timed(|| {
            refit(&recipe(2), &by_user, &by_item, start.item_factors.view(), &mut |_| {
                calls.push((Instant::now(), cpu_seconds()));
                ControlFlow::Continue(())
            })
        });
        for (name, call) in half_steps {
            let (from, to) = (calls[call], calls[call + 1]);
            let wall = (to.0 - from.0).as_secs_f64();
            ledger.add(name, near, to.1.zip(from.1).map_or(wall, |(to, from)| to - from));
        }
        whole
    });
    let fold_in = FoldIn::new(&recipe(2), start.item_factors.view()).expect("prepared items");
    ledger.bench(&mut group, "fold-in", near, || timed(|| fold_in.fold_in(&by_user, None).expect("users")));
    group.finish();
}

/// The whole training beside its factors alone.
fn trainings(criterion: &mut Criterion, ledger: &Ledger) {
    let log = random_events();
    let name = format!("train, {} events of {USERS} users and {ITEMS} items, d = {DIMENSION}", log.len());
    let mut group = group(criterion, name, log.len() as u64);
    let set = ItemAffinity { regularization: Some(0.005), ..ItemAffinity::default() };
    let go_on = |_| ControlFlow::Continue(());
    let factors = "factors alone";
    ledger.bench(&mut group, factors, factors, || {
        timed(|| {
            let by_user = log.pairs(set.decay(DAYS * 86_400)).expect("pairs");
            fit(&set, &by_user, &by_user.transpose(), &mut { go_on }).expect("a fit")
        })
    });
    let training = |recipe: &ItemAffinity| timed(|| train(recipe, &log, None, None, &mut { go_on }).expect("a model"));
    ledger.bench(&mut group, "factors and propensity", factors, || training(&set));
    ledger.bench(&mut group, "the same, regularization chosen", factors, || training(&ItemAffinity::default()));
    group.finish();
}

/// A log whose users each return to some of their items, over half a year.
fn random_events() -> Interactions {
    let pairs = random_pairs();
    let mut rng = ChaCha8Rng::seed_from_u64(21);
    let (mut users, mut items, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for user in 0..USERS as u32 {
        for item in pairs.row(user as usize).0 {
            for _ in 0..1 + rng.random_range(0..4u32) / 2 {
                users.push(user);
                items.push(*item);
                times.push(rng.random_range(0..DAYS * 86_400));
            }
        }
    }
    let ids = |count: usize| Vocabulary::from_sorted((0..count).map(|n| format!("{n:06}"))).expect("sorted ids");
    let weights = vec![1.0; users.len()];
    Interactions::new(ids(USERS), ids(ITEMS), users, items, times, weights).expect("a log")
}

/// Pairs whose items are popular as in shops: few are in very many pairs.
fn random_pairs() -> Csr {
    let mut rng = ChaCha8Rng::seed_from_u64(20);
    let (mut indptr, mut indices) = (vec![0], Vec::with_capacity(DRAWS));
    for _ in 0..USERS {
        let draws = (2.0 * DRAWS as f64 / USERS as f64 * rng.random::<f64>()) as usize + 1;
        let mut items: Vec<u32> =
            (0..draws).map(|_| ((ITEMS as f64).powf(rng.random::<f64>().sqrt()) - 1.0) as u32).collect();
        items.sort_unstable();
        items.dedup();
        indices.extend(items);
        indptr.push(indices.len());
    }
    let values = (0..indices.len()).map(|n| 1.0 + (n % 3) as f32).collect();
    Csr::new(indptr, indices, values, ITEMS).expect("a matrix")
}

/// What is done with a tile of affinities.
#[derive(Clone, Copy)]
enum Rank {
    /// Nothing but to read the factors of the users.
    Pass,
    /// Nothing, once they are there: what no ranking of many items can be faster than.
    Product,
    Affinities,
    Probabilities,
}

struct Request {
    users: Array2<f32>,
    items: Array2<f32>,
    user_log_odds: Vec<f32>,
    item_log_odds: Vec<f32>,
    history: Csr,
}

impl Request {
    fn new(asked: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(149);
        // Four uniform numbers add up to nearly a normal one.
        let mut normal = |size: f32| size * (0..4).map(|_| rng.random::<f32>() - 0.5).sum::<f32>();
        let users = Array2::from_shape_simple_fn((RANKED_USERS, DIMENSION), || normal(0.12));
        let items = Array2::from_shape_simple_fn((asked, DIMENSION), || normal(0.12) + 0.02);
        let user_log_odds = (0..RANKED_USERS).map(|_| normal(1.5) - 6.0).collect();
        let item_log_odds = (0..asked).map(|_| normal(1.0)).collect();
        let (mut indptr, mut indices) = (vec![0], Vec::new());
        for _ in 0..asked {
            let mut seen: Vec<u32> = (0..SEEN).map(|_| rng.random_range(0..RANKED_USERS as u32)).collect();
            seen.sort_unstable();
            seen.dedup();
            indices.extend(seen);
            indptr.push(indices.len());
        }
        let log_odds = (0..indices.len()).map(|n| -3.0 - 0.3 * (n % 7) as f32).collect();
        let history = Csr::new(indptr, indices, log_odds, RANKED_USERS).expect("a matrix");
        Self { users, items, user_log_odds, item_log_odds, history }
    }

    /// Ranks on all cores, each with its share of the users, as the plan does.
    fn run(&self, rank: Rank, k: usize) -> Vec<Vec<Vec<Scored>>> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let shared = Arc::new(SharedThresholds::new(self.items.nrows(), cores));
        std::thread::scope(|scope| {
            let share = |core: usize| core * RANKED_USERS / cores..(core + 1) * RANKED_USERS / cores;
            let threads: Vec<_> = (0..cores)
                .map(|core| {
                    let best = TopKUsers::of_part(k, Arc::clone(&shared), core);
                    scope.spawn(move || self.run_share(rank, best, share(core)))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a ranking")).collect()
        })
    }

    fn run_share(&self, rank: Rank, mut best: TopKUsers, users: std::ops::Range<usize>) -> Vec<Vec<Scored>> {
        let slopes = NewPairSlopes { affinity: 0.3, log_affinity: 0.4 };
        let (mut tile, panels) = (vec![0.0; self.items.nrows() * TILE], ItemPanels::new(self.items.view()));
        let index: Vec<u32> = users.clone().map(|user| user as u32).collect();
        for first in users.clone().step_by(BATCH) {
            let batch = first..users.end.min(first + BATCH);
            if matches!(rank, Rank::Probabilities) {
                let index = &index[first - users.start..batch.end - users.start];
                best.push_repeat_pairs(index, &self.history).expect("pairs");
            }
            for from in batch.clone().step_by(TILE) {
                let to = batch.end.min(from + TILE);
                let of_users = self.users.slice(s![from..to, ..]);
                let scores = &mut tile[..self.items.nrows() * (to - from)];
                let mut product = || score_tile(self.items.view(), of_users, scores).expect("shapes agree");
                let index = &index[from - users.start..to - users.start];
                match rank {
                    Rank::Pass => {
                        let factors = of_users.as_slice().expect("rows");
                        std::hint::black_box(factors.iter().fold(0, |seen, factor| seen ^ factor.to_bits()));
                    }
                    Rank::Product => {
                        product();
                        std::hint::black_box(&scores);
                    }
                    Rank::Affinities => {
                        product();
                        best.push(scores, index).expect("scores");
                    }
                    Rank::Probabilities => {
                        let log_odds =
                            TileLogOdds { slopes, users: &self.user_log_odds[from..to], items: &self.item_log_odds };
                        best.push_new_pairs(&panels, of_users, index, log_odds, &self.history).expect("pairs");
                    }
                }
            }
        }
        best.finish()
    }
}

fn ranking(criterion: &mut Criterion, ledger: &Ledger) {
    // One item is the query of a person who waits; what it must do is to read the factors once.
    let name = format!("rank, 1 item x {RANKED_USERS} users x {DIMENSION}");
    let (request, pass) = (Request::new(1), "one pass over the factors");
    let mut one = self::group(criterion, name, RANKED_USERS as u64);
    ledger.bench(&mut one, pass, pass, || timed(|| request.run(Rank::Pass, 0)));
    ledger.bench(&mut one, "one item, k = 1000", pass, || timed(|| request.run(Rank::Probabilities, 1_000)));
    one.finish();
    drop(request);

    let request = Request::new(ASKED_ITEMS);
    let name = format!("rank, {ASKED_ITEMS} items x {RANKED_USERS} users x {DIMENSION}");
    let mut group = group(criterion, name, (ASKED_ITEMS * RANKED_USERS) as u64);
    let product = "bare matrix product";
    ledger.bench(&mut group, product, product, || timed(|| request.run(Rank::Product, 0)));
    for k in [25, 1_000, 100_000] {
        for (rank, name) in [(Rank::Affinities, "affinities"), (Rank::Probabilities, "probabilities")] {
            ledger.bench(&mut group, &format!("{name}, k = {k}"), product, || timed(|| request.run(rank, k)));
        }
    }
    group.finish();
}
