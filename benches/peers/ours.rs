//! Our side of the comparison with peers: one job a process, its figures as lines of JSON.
//!
//! `run.py` calls it; by hand:
//!
//! ```sh
//! cargo bench --package item-affinity-ingest --bench peers -- ingest FILE.parquet
//! cargo bench --package item-affinity-ingest --bench peers -- fit TRAIN.parquet DIMENSION ITERATIONS FOLDER [NAME=VALUE ...]
//! cargo bench --package item-affinity-ingest --bench peers -- score USERS.npy ITEMS.npy K
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

#[path = "../cpu_seconds.rs"]
mod cpu_seconds;

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use item_affinity_ingest::{InteractionsSource, read_interactions};
use item_affinity_model::ndarray::{Array2, s};
use item_affinity_model::{
    Clock, Csr, Interactions, ItemAffinity, ItemPanels, NewPairSlopes, Scored, SharedThresholds, TileLogOdds,
    TopKUsers, Vocabulary, dot, fit, score_tile,
};
use item_affinity_storage::{Location, Stores};
use serde_json::json;

use cpu_seconds::cpu_seconds;

const TILE: usize = 1024;
const RUNS: usize = 5;

fn main() {
    // What `cargo bench` adds is not ours.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["ingest", file] => ingest(file),
        ["fit", file, dimension, iterations, folder, ref rest @ ..] => {
            let mut recipe = ItemAffinity {
                hidden_dimension: dimension.parse().unwrap(),
                iterations: iterations.parse().unwrap(),
                ..ItemAffinity::default()
            };
            rest.iter().for_each(|setting| set(&mut recipe, setting));
            fit_and_keep(file, &recipe, Path::new(folder));
        }
        ["score", users, items, k] => score(Path::new(users), Path::new(items), k.parse().unwrap()),
        _ => println!("jobs: ingest, fit, score"),
    }
}

/// Gives a setting of the recipe another value, as in `half_life_days=none`.
fn set(recipe: &mut ItemAffinity, setting: &str) {
    match setting.split_once('=').expect("name=value") {
        ("regularization", value) => recipe.regularization = Some(value.parse().unwrap()),
        ("unobserved_weight", value) => recipe.unobserved_weight = value.parse().unwrap(),
        ("half_life_days", "none") => recipe.half_life_days = None,
        ("half_life_days", value) => recipe.half_life_days = Some(value.parse().unwrap()),
        (name, _) => panic!("no setting {name} here"),
    }
}

/// Runs work, and gives its wall and processor seconds.
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64, f64) {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let made = work();
    let wall = start.elapsed().as_secs_f64();
    (made, wall, cpu_seconds().zip(cpu).map_or(wall, |(end, start)| end - start))
}

fn read(file: &str) -> Interactions {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let source = InteractionsSource::new(vec![Location::parse(file).unwrap()]);
    runtime.block_on(read_interactions(&Stores::from_env(), &source, &|_| {})).unwrap().interactions
}

/// Distinct pairs in both directions, with the recipe's ageing.
fn pairs(interactions: &Interactions, recipe: &ItemAffinity) -> (Csr, Csr) {
    let clock = Clock::of(interactions, None).expect("events");
    let by_user = interactions.pairs(recipe.decay(clock.as_of)).unwrap();
    let by_item = by_user.transpose();
    (by_user, by_item)
}

/// From a Parquet file to the pairs of users and of items.
fn ingest(file: &str) {
    let (interactions, read_wall, read_cpu) = timed(|| read(file));
    let ((by_user, _), wall, cpu) = timed(|| pairs(&interactions, &ItemAffinity::default()));
    let figures = json!({
        "rows": interactions.len(), "pairs": by_user.nnz(), "read_wall": read_wall, "read_cpu": read_cpu,
        "wall": read_wall + wall, "cpu": read_cpu + cpu,
    });
    println!("{figures}");
}

/// Fits of 1, 2, … iterations, each whole and from the start, with their factors in a folder.
///
/// The last half-step of a fit differs from those before it, so what a longer fit has on its way is not what a shorter
/// one gives.
fn fit_and_keep(file: &str, recipe: &ItemAffinity, folder: &Path) {
    let interactions = read(file);
    let (by_user, by_item) = pairs(&interactions, recipe);
    std::fs::create_dir_all(folder).unwrap();
    write_ids(&folder.join("users.txt"), interactions.users());
    write_ids(&folder.join("items.txt"), interactions.items());
    drop(interactions);
    for iterations in 1..=recipe.iterations {
        let recipe = ItemAffinity { iterations, ..recipe.clone() };
        let (factors, wall, cpu) =
            timed(|| fit(&recipe, &by_user, &by_item, &mut |_| ControlFlow::Continue(())).unwrap());
        write_npy(&folder.join(format!("{iterations}_users.npy")), &factors.user_factors);
        write_npy(&folder.join(format!("{iterations}_items.npy")), &factors.item_factors);
        println!("{}", json!({ "iterations": iterations, "wall": wall, "cpu": cpu, "loss": factors.loss.last() }));
    }
}

/// The best users of items, from factors in memory, beside the bare product of the same shape.
fn score(users: &Path, items: &Path, k: usize) {
    let (users, items) = (read_npy(users), read_npy(items));
    let mut products = Vec::new();
    let mut rankings = Vec::new();
    for _ in 0..RUNS {
        let (_, wall, cpu) = timed(|| rank(&users, &items, None));
        products.push((wall, cpu));
        let (best, wall, cpu) = timed(|| rank(&users, &items, Some(k)));
        rankings.push((wall, cpu));
        let of_item = |(item, best): (usize, &Vec<Scored>)| -> f64 {
            let affinity = |user: &Scored| f64::from(dot(items.row(item), users.row(user.user_index as usize)));
            best[..k.min(25)].iter().map(affinity).sum()
        };
        let check: f64 = best.iter().enumerate().map(of_item).sum();
        println!("{}", json!({ "wall": wall, "cpu": cpu, "check": check }));
    }
    let (product, ranking) = (median(products), median(rankings));
    let figures = json!({
        "wall": ranking.0, "cpu": ranking.1, "product_wall": product.0, "product_cpu": product.1, "runs": RUNS,
    });
    println!("{figures}");
}

/// Ranks as the partitions of a plan do: by probability, here one that rises with affinity alone, so that peers rank the same.
/// Without k only the product is taken.
fn rank(users: &Array2<f32>, items: &Array2<f32>, k: Option<usize>) -> Vec<Vec<Scored>> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let share = |core: usize| core * users.nrows() / cores..(core + 1) * users.nrows() / cores;
    let slopes = NewPairSlopes { affinity: 1.0, log_affinity: 0.0 };
    let history = Csr::new(vec![0; items.nrows() + 1], vec![], vec![], users.nrows()).unwrap();
    let panels = ItemPanels::new(items.view());
    let (of_items, of_users) = (vec![0.0; items.nrows()], vec![0.0; TILE]);
    let shared = Arc::new(SharedThresholds::new(items.nrows(), cores));
    let parts: Vec<Vec<Vec<Scored>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores)
            .map(|core| {
                let shared = Arc::clone(&shared);
                let (panels, history, of_items, of_users) = (&panels, &history, &of_items, &of_users);
                scope.spawn(move || {
                    let mut best = TopKUsers::of_part(k.unwrap_or(0), shared, core);
                    let mut scores = vec![0.0; if k.is_none() { items.nrows() * TILE } else { 0 }];
                    for from in share(core).step_by(TILE) {
                        let to = share(core).end.min(from + TILE);
                        let factors = users.slice(s![from..to, ..]);
                        if k.is_some() {
                            let index: Vec<u32> = (from..to).map(|user| user as u32).collect();
                            let log_odds = TileLogOdds { slopes, users: &of_users[..to - from], items: of_items };
                            best.push_new_pairs(panels, factors, &index, log_odds, history).unwrap();
                        } else {
                            let scores = &mut scores[..items.nrows() * (to - from)];
                            score_tile(items.view(), factors, scores).unwrap();
                            std::hint::black_box(&scores);
                        }
                    }
                    best.finish()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let Some(k) = k else { return Vec::new() };
    let mut parts = parts.into_iter();
    let mut all = parts.next().unwrap_or_default();
    for part in parts {
        for (all, part) in all.iter_mut().zip(part) {
            all.extend(part);
        }
    }
    // Runs that are sorted already are merged.
    std::thread::scope(|scope| {
        for items in all.chunks_mut(items.nrows().div_ceil(cores)) {
            scope.spawn(move || {
                for best in items {
                    best.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.user_index.cmp(&b.user_index)));
                    best.truncate(k);
                }
            });
        }
    });
    all
}

/// The median by the second figure.
fn median(mut figures: Vec<(f64, f64)>) -> (f64, f64) {
    figures.sort_unstable_by(|a, b| a.1.total_cmp(&b.1));
    figures[figures.len() / 2]
}

fn write_ids(path: &Path, ids: &Vocabulary) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    for id in ids.iter() {
        writeln!(file, "{id}").unwrap();
    }
    file.flush().unwrap();
}

/// NumPy's file format, version 1: a magic number, the length of a header in Python's syntax, the header, the numbers.
fn write_npy(path: &Path, matrix: &Array2<f32>) {
    let (rows, columns) = matrix.dim();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    file.write_all(b"\x93NUMPY\x01\x00").unwrap();
    file.write_all(&u16::try_from(header.len()).unwrap().to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    for value in matrix {
        file.write_all(&value.to_le_bytes()).unwrap();
    }
    file.flush().unwrap();
}

fn read_npy(path: &Path) -> Array2<f32> {
    let bytes = std::fs::read(path).unwrap();
    let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..end]);
    assert!(header.contains("'<f4'") && header.contains("False"), "{header}");
    let shape: Vec<usize> = header
        .split_once("'shape': (")
        .and_then(|(_, rest)| rest.split_once(')'))
        .map(|(shape, _)| shape.split(',').filter_map(|n| n.trim().parse().ok()).collect())
        .expect("a shape");
    let (numbers, _) = bytes[end..].as_chunks::<4>();
    Array2::from_shape_vec((shape[0], shape[1]), numbers.iter().map(|n| f32::from_le_bytes(*n)).collect()).unwrap()
}
