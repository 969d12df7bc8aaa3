//! Laws that hold for all inputs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation, clippy::cast_precision_loss)]

use std::ops::ControlFlow;
use std::sync::Arc;

use item_affinity_model::ndarray::Array2;
use item_affinity_model::{
    Csr, Decay, Factors, Interactions, ItemAffinity, ItemPanels, NewPairSlopes, Rank, Scored, SharedThresholds,
    TileLogOdds, TopKUsers, Vocabulary, fit, probability, score_tile,
};
use proptest::prelude::*;

type Event = (u32, u32, i64, f32);

fn ids(count: u32) -> Vocabulary {
    Vocabulary::from_sorted((0..count).map(|n| format!("{n:06}"))).unwrap()
}

fn log(users: u32, items: u32, events: &[Event]) -> Interactions {
    Interactions::new(
        ids(users),
        ids(items),
        events.iter().map(|e| e.0).collect(),
        events.iter().map(|e| e.1).collect(),
        events.iter().map(|e| e.2).collect(),
        events.iter().map(|e| e.3).collect(),
    )
    .unwrap()
}

fn events(users: u32, items: u32, most: usize) -> impl Strategy<Value = Vec<Event>> {
    let weight = prop_oneof![Just(1f32), Just(0.0), 0.1f32..9.0];
    prop::collection::vec((0..users, 0..items, -9i64..9, weight), 0..most)
}

fn small() -> ItemAffinity {
    ItemAffinity { hidden_dimension: 32, iterations: 4, ..ItemAffinity::default() }
}

fn fitted(recipe: &ItemAffinity, by_user: &Csr) -> Factors {
    fit(recipe, by_user, &by_user.transpose(), &mut |_| ControlFlow::Continue(())).unwrap()
}

fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

/// A ranking for each part of the users, which share what they know.
fn parts_of(items: usize, k: usize, parts: usize) -> Vec<TopKUsers> {
    let shared = Arc::new(SharedThresholds::new(items, parts));
    (0..parts).map(|part| TopKUsers::of_part(k, Arc::clone(&shared), part)).collect()
}

/// The segments of all parts together.
fn joined(tops: Vec<TopKUsers>, k: usize) -> Vec<Vec<Scored>> {
    let mut of_parts: Vec<_> = tops.into_iter().map(|top| top.finish().into_iter()).collect();
    let mut segments = Vec::new();
    loop {
        let of_item: Vec<Vec<Scored>> = of_parts.iter_mut().filter_map(Iterator::next).collect();
        if of_item.is_empty() {
            return segments;
        }
        assert!(of_item.iter().all(|part| part.len() <= k));
        let mut segment = of_item.concat();
        segment.sort_by_key(|scored| Rank::new(scored.score, scored.user_index));
        segment.truncate(k);
        segments.push(segment);
    }
}

/// Bits, so that a zero and a minus zero differ.
fn bits(values: &Array2<f32>) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn transposing_twice_changes_nothing(events in events(9, 7, 60)) {
        let by_user = log(9, 7, &events).pairs(None).unwrap();
        let by_item = by_user.transpose();
        prop_assert_eq!(by_item.rows(), 7);
        prop_assert_eq!(by_item.transpose(), by_user);
    }

    #[test]
    fn the_order_of_the_input_never_shows(
        (events, shuffled) in events(5, 6, 80).prop_flat_map(|e| (Just(e.clone()), Just(e).prop_shuffle())),
    ) {
        let decay = Some(Decay { half_life_seconds: 3.0, as_of: 5 });
        let (a, b) = (log(5, 6, &events), log(5, 6, &shuffled));
        for user in 0..5 {
            prop_assert_eq!(a.history(user), b.history(user));
        }
        prop_assert_eq!(a.pairs(decay).unwrap(), b.pairs(decay).unwrap());
    }

    #[test]
    fn pairs_hold_every_event_once(events in events(5, 6, 80)) {
        let pairs = log(5, 6, &events).pairs(None).unwrap();
        for user in 0..5u32 {
            for item in 0..6u32 {
                let of_pair: Vec<&Event> = events.iter().filter(|e| (e.0, e.1) == (user, item)).collect();
                let (items, values) = pairs.row(user as usize);
                match items.binary_search(&item) {
                    Err(_) => prop_assert!(of_pair.is_empty()),
                    Ok(at) => {
                        let sum: f32 = of_pair.iter().map(|e| e.3).sum();
                        prop_assert!((values[at] - sum).abs() < 1e-4);
                    }
                }
            }
        }
    }

    #[test]
    fn a_split_loses_and_doubles_nothing(events in events(5, 6, 80), share in 0f64..1.0, cut in -10i64..10) {
        let whole = log(5, 6, &events);
        for (older, newer) in [whole.split_last_share(share), whole.split_at(cut)] {
            for user in 0..5 {
                let joined = [older.history(user).times, newer.history(user).times].concat();
                prop_assert_eq!(&joined, whole.history(user).times);
            }
        }
    }

    #[test]
    fn the_objective_never_rises(events in events(40, 30, 400), regularization in 0.001f32..1.0, weight in 0.001f32..1.0) {
        let by_user = log(40, 30, &events).pairs(None).unwrap();
        let recipe = ItemAffinity { regularization: Some(regularization), unobserved_weight: weight, iterations: 8, ..small() };
        let loss = fitted(&recipe, &by_user).loss;
        let slack = 1e-6 * by_user.values().iter().map(|v| f64::from(v.ln_1p())).sum::<f64>();
        prop_assert!(loss.windows(2).all(|pair| pair[1] <= pair[0] + slack), "{loss:?}");
    }

    #[test]
    fn permuted_users_permute_the_results(
        (events, order) in events(30, 20, 300).prop_flat_map(|e| (Just(e), Just((0..30u32).collect::<Vec<_>>()).prop_shuffle())),
    ) {
        let moved: Vec<Event> = events.iter().map(|e| (order[e.0 as usize], e.1, e.2, e.3)).collect();
        let fit_log = |events: &[Event]| fitted(&small(), &log(30, 20, events).pairs(None).unwrap());
        let (a, b) = (fit_log(&events), fit_log(&moved));
        let (a, b) = (a.user_factors.dot(&a.item_factors.t()), b.user_factors.dot(&b.item_factors.t()));
        for (user, moved) in order.iter().enumerate() {
            for (x, y) in a.row(user).iter().zip(b.row(*moved as usize)) {
                prop_assert!((x - y).abs() < 1e-3, "{x} {y}");
            }
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits(events in events(300, 50, 4000)) {
        let run = |threads| on_threads(threads, || {
            let by_user = log(300, 50, &events).pairs(None).unwrap();
            let factors = fitted(&small(), &by_user);
            (bits(&factors.user_factors), bits(&factors.item_factors), factors.loss)
        });
        let one = run(1);
        prop_assert_eq!(&run(2), &one);
        prop_assert_eq!(&run(4), &one);
    }

    #[test]
    fn top_k_is_the_sorted_prefix_under_any_tiling(
        // Few distinct scores make many ties.
        scores in prop::collection::vec((-3i8..3).prop_map(f32::from), 3 * 200),
        k in 0usize..220,
        tile in 1usize..250,
        order in Just((0..200u32).collect::<Vec<_>>()).prop_shuffle(),
        // Parts of the users in any turns; one may have nobody.
        parts in 1usize..5,
        turns in prop::collection::vec(0usize..4, 200),
    ) {
        let mut tops = parts_of(3, k, parts);
        for (users, turn) in order.chunks(tile).zip(&turns) {
            let tile: Vec<f32> =
                (0..3).flat_map(|item| users.iter().map(move |u| (item, u))).map(|(i, u)| scores[i * 200 + *u as usize]).collect();
            tops[turn % parts].push(&tile, users).unwrap();
        }
        for (item, best) in joined(tops, k).into_iter().enumerate() {
            let mut all: Vec<Scored> =
                (0..200u32).map(|u| Scored { score: scores[item * 200 + u as usize], user_index: u }).collect();
            all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.user_index.cmp(&b.user_index)));
            all.truncate(k);
            prop_assert_eq!(best, all);
        }
    }

    #[test]
    fn segments_are_the_sorted_prefix_of_the_probabilities_of_all_pairs(
        // Affinities in coarse steps make ties, and some are below 0.
        affinities in prop::collection::vec((-4i8..20).prop_map(|n| f32::from(n) / 8.0), 3 * 200),
        noise in prop::collection::vec(-1f32..1.0, 3 * 200),
        noisy in any::<bool>(),
        slopes in (prop_oneof![Just(0f32), 0f32..30.0], prop_oneof![Just(0f32), 0f32..8.0]),
        users in prop::collection::vec(prop_oneof![(-3i8..3).prop_map(f32::from), -20f32..4.0], 200),
        items in prop::collection::vec(prop_oneof![Just(-30f32), -6f32..6.0, Just(40f32)], 3),
        // Half of the pairs have no history.
        history in prop::collection::vec(prop::option::of(prop_oneof![(-8i8..3).prop_map(f32::from), Just(-30f32)]), 3 * 200),
        seen in 0u32..4,
        numbers in prop::sample::subsequence((0..900u32).collect::<Vec<_>>(), 200),
        k in 1usize..450,
        tile in 1usize..250,
        repeats_first in any::<bool>(),
        parts in 1usize..4,
    ) {
        let slopes = NewPairSlopes { affinity: slopes.0, log_affinity: slopes.1 };
        let affinity = |item: usize, user: usize| affinities[item * 200 + user] + if noisy { noise[item * 200 + user] } else { 0.0 };
        let own = |item: usize, user: usize| history[item * 200 + user].filter(|_| (user as u32 * 7 + item as u32) % 4 < seen);
        let (mut indptr, mut indices, mut values) = (vec![0], vec![], vec![]);
        for item in 0..3 {
            for (user, number) in numbers.iter().enumerate() {
                if let Some(log_odds) = own(item, user) {
                    indices.push(*number);
                    values.push(log_odds);
                }
            }
            indptr.push(indices.len());
        }
        let repeat = Csr::new(indptr, indices, values, 900).unwrap();
        let panels = ItemPanels::new(Array2::eye(3).view());
        let mut tops = parts_of(3, k, parts);
        for (turn, start) in (0..200).step_by(tile).enumerate() {
            let top = &mut tops[turn % parts];
            let range = start..(start + tile).min(200);
            // Three hidden variables, of which each item has one: the affinities are any numbers.
            let of_tile = Array2::from_shape_fn((range.len(), 3), |(user, item)| affinity(item, range.start + user));
            let log_odds = TileLogOdds { slopes, users: &users[range.clone()], items: &items };
            if repeats_first {
                top.push_repeat_pairs(&numbers[range.clone()], &repeat).unwrap();
            }
            top.push_new_pairs(&panels, of_tile.view(), &numbers[range.clone()], log_odds, &repeat).unwrap();
            if !repeats_first {
                top.push_repeat_pairs(&numbers[range.clone()], &repeat).unwrap();
            }
        }
        for (item, best) in joined(tops, k).into_iter().enumerate() {
            let mut all: Vec<Scored> = (0..200)
                .map(|user| {
                    let new = || {
                        let s = f64::from(affinity(item, user));
                        f64::from(slopes.affinity) * s
                            + f64::from(slopes.log_affinity) * s.max(f64::from(1e-4f32)).ln()
                            + f64::from(users[user])
                            + f64::from(items[item])
                    };
                    let log_odds = own(item, user).map_or_else(new, f64::from);
                    Scored { score: (1.0 / (1.0 + (-log_odds).exp())) as f32, user_index: numbers[user] }
                })
                .collect();
            all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.user_index.cmp(&b.user_index)));
            all.truncate(k);
            prop_assert_eq!(best, all);
        }
        prop_assert_eq!(probability(0.0), 0.5);
    }

    #[test]
    fn a_score_has_the_same_bits_in_every_tile(
        seed in 0u32..1000, items in 1usize..20, users in 1usize..90, from in 0usize..90, len in 1usize..90,
    ) {
        let value = |n: usize| ((n as u32).wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 8) as f32 / 2f32.powi(24) - 0.5;
        let item_factors = Array2::from_shape_fn((items, 149), |(r, c)| value(r * 149 + c));
        let user_factors = Array2::from_shape_fn((users, 149), |(r, c)| value(77_777 + r * 149 + c));
        let mut whole = vec![0f32; items * users];
        score_tile(item_factors.view(), user_factors.view(), &mut whole).unwrap();
        let range = from.min(users - 1)..(from + len).clamp(from.min(users - 1) + 1, users);
        let item = items - 1;
        let mut part = vec![0f32; range.len()];
        let (i, u) = (item_factors.slice(item_affinity_model::ndarray::s![item.., ..]), range.clone());
        score_tile(i, user_factors.slice(item_affinity_model::ndarray::s![u, ..]), &mut part).unwrap();
        prop_assert_eq!(part, &whole[item * users + range.start..item * users + range.end]);
    }
}

#[test]
fn rows_cut_into_pieces_give_the_same_bits_on_any_number_of_threads() {
    // One item with more users than a piece holds, beside short rows.
    let users = 140_000u32;
    let mut indptr = vec![0usize];
    let mut indices = vec![];
    for user in 0..users {
        indices.push(0);
        indices.push(1 + user % 9);
        indptr.push(indices.len());
    }
    let values = vec![1f32; indices.len()];
    let by_user = Csr::new(indptr, indices, values, 10).unwrap();
    let recipe = ItemAffinity { iterations: 1, ..small() };
    let run = |threads| on_threads(threads, || fitted(&recipe, &by_user));
    let one = run(1);
    for threads in [2, 4] {
        let other = run(threads);
        assert_eq!(bits(&other.user_factors), bits(&one.user_factors));
        assert_eq!(bits(&other.item_factors), bits(&one.item_factors));
        assert_eq!(other.loss, one.loss);
    }
}
