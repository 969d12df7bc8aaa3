//! Five kernels at a size for callgrind, one by name: `instructions.sh` counts what each executes.
//!
//! Each stands in a function of its own, which is what is counted; the rest only makes its input. The numbers are those
//! of a small generator, so that they are the same everywhere.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss, clippy::cast_possible_truncation)]

use std::hint::black_box;
use std::ops::ControlFlow;

use item_affinity_model::ndarray::Array2;
use item_affinity_model::{
    Csr, FoldIn, Interactions, ItemAffinity, ItemPanels, NewPairSlopes, Propensity, Regime, TileLogOdds, TopKUsers,
    Vocabulary, fit, score_tile,
};
use rayon::ThreadPoolBuilder;

const DIMENSION: usize = 149;
const USERS: usize = 300;
const ITEMS: usize = 200;
const TILE: usize = 1024;
const TILES: usize = 4;
const ASKED: usize = 64;

fn main() {
    let kernel = std::env::args().nth(1).unwrap_or_default();
    // The kernel runs on the only thread of the pool, and so does all that it starts.
    let pool = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| match kernel.as_str() {
        "solve_users" => {
            let factors = matrix(ITEMS, 1);
            let fold_in = FoldIn::new(&ItemAffinity::default(), factors.view()).unwrap();
            counted_solve_users(&fold_in, &pairs());
        }
        "fit_factors" => counted_fit_factors(&pairs()),
        "score_tile" => counted_score_tile(&matrix(ASKED, 2), &matrix(TILE, 3)),
        "rank_tiles" => {
            counted_rank_tiles(&ItemPanels::new(matrix(ASKED, 2).view()), &matrix(TILE, 3));
        }
        "repeat_pairs" => counted_repeat_pairs(&propensity(), &interactions(), &matrix(USERS, 7), &matrix(ITEMS, 8)),
        // Also what `cargo test` and `cargo bench` ask for, with arguments of their own.
        _ => println!("solve_users\nfit_factors\nscore_tile\nrank_tiles\nrepeat_pairs"),
    });
}

/// Users from their histories: residuals of rows of factors, and their sums, until only rounding is left.
#[inline(never)]
fn counted_solve_users(fold_in: &FoldIn, histories: &Csr) {
    black_box(fold_in.fold_in(histories, None).unwrap());
}

/// A whole small fit: half-steps of both sides, Gram matrices and their axes.
#[inline(never)]
fn counted_fit_factors(by_user: &Csr) {
    let recipe = ItemAffinity { hidden_dimension: 32, iterations: 2, ..ItemAffinity::default() };
    black_box(fit(&recipe, by_user, &by_user.transpose(), &mut |_| ControlFlow::Continue(())).unwrap());
}

/// The matrix product of one tile.
#[inline(never)]
fn counted_score_tile(items: &Array2<f32>, users: &Array2<f32>) {
    let mut scores = vec![0.0; ASKED * TILE];
    score_tile(items.view(), users.view(), &mut scores).unwrap();
    black_box(&scores);
}

/// The product of tiles with the filter behind it, and the candidates.
#[inline(never)]
fn counted_rank_tiles(items: &ItemPanels, users: &Array2<f32>) {
    let user_log_odds: Vec<f32> = numbers(4).take(TILE).map(|x| x - 6.0).collect();
    let item_log_odds: Vec<f32> = numbers(5).take(ASKED).collect();
    let slopes = NewPairSlopes { affinity: 0.3, log_affinity: 0.4 };
    let log_odds = TileLogOdds { slopes, users: &user_log_odds, items: &item_log_odds };
    let history = Csr::new(vec![0; ASKED + 1], vec![], vec![], TILE * TILES).unwrap();
    let mut best = TopKUsers::new(ASKED, 25);
    for tile in 0..TILES {
        let first = (tile * TILE) as u32;
        let index: Vec<u32> = (first..first + TILE as u32).collect();
        best.push_new_pairs(items, users.view(), &index, log_odds, &history).unwrap();
    }
    black_box(best.finish());
}

/// The log-odds of all pairs with history: their terms, affinities and products.
#[inline(never)]
fn counted_repeat_pairs(propensity: &Propensity, log: &Interactions, users: &Array2<f32>, items: &Array2<f32>) {
    black_box(propensity.log_odds(log, 1_000, users.view(), items.view()).unwrap());
}

fn propensity() -> Propensity {
    let fitted = |terms: Vec<String>| Regime::Fitted {
        intercept: -3.0,
        coefficients: numbers(9).take(terms.len()).map(f64::from).collect(),
        ridge: 1.0,
        positives: 1,
        pairs: 2,
    };
    let (new_pairs, repeat_pairs) = (fitted(Regime::new_pair_term_names()), fitted(Regime::repeat_pair_term_names()));
    Propensity { horizon_seconds: 100, window: None, user_half_life_events: None, new_pairs, repeat_pairs }
}

/// Two events of each pair.
fn interactions() -> Interactions {
    let pairs = pairs();
    let (mut users, mut items) = (Vec::new(), Vec::new());
    for user in 0..USERS {
        for item in pairs.row(user).0 {
            users.extend([user as u32; 2]);
            items.extend([*item; 2]);
        }
    }
    let ids = |count: usize| Vocabulary::from_sorted((0..count).map(|n| format!("{n:03}"))).unwrap();
    let times = (0i64..).take(users.len()).map(|n| n * 7_919 % 1_000).collect();
    let weights = vec![1.0; users.len()];
    Interactions::new(ids(USERS), ids(ITEMS), users, items, times, weights).unwrap()
}

fn pairs() -> Csr {
    let mut random = numbers(6);
    let (mut indptr, mut indices) = (vec![0], Vec::new());
    for _ in 0..USERS {
        indices.extend((0..ITEMS as u32).filter(|item| random.next().unwrap() + 0.5 < 20.0 / (20.0 + *item as f32)));
        indptr.push(indices.len());
    }
    let values = (0..indices.len()).map(|n| 1.0 + (n % 3) as f32).collect();
    Csr::new(indptr, indices, values, ITEMS).unwrap()
}

fn matrix(rows: usize, seed: u64) -> Array2<f32> {
    let mut random = numbers(seed);
    Array2::from_shape_simple_fn((rows, DIMENSION), || 0.2 * random.next().unwrap())
}

/// Numbers from −0.5 to 0.5 without end (a linear congruence by Knuth).
fn numbers(seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    })
}
