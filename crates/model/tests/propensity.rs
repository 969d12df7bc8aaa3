//! What a whole training learns about when and what people buy again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    missing_docs
)]

use std::ops::ControlFlow;

use item_affinity_model::{
    Clock, Interactions, ItemAffinity, Propensity, Regime, TimeProtocol, TrainedModel, evaluate_time, probability,
    train,
};
use planted::{DAY, Event, log, returns, shop, small};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

mod planted;

const USERS: u32 = 1_600;
const ITEMS: u32 = 200;

fn trained(recipe: &ItemAffinity, log: &Interactions) -> TrainedModel {
    let model = train(recipe, log, None, None, &mut |_| ControlFlow::Continue(())).unwrap();
    let numbers = model.log_odds.users.iter().chain(&model.log_odds.items).chain(model.log_odds.repeat.values());
    assert!(numbers.chain(model.factors.user_factors.iter()).all(|number| number.is_finite()));
    model
}

/// All probabilities, users × items.
fn probabilities(model: &TrainedModel) -> Vec<Vec<f32>> {
    let affinities = model.factors.user_factors.dot(&model.factors.item_factors.t());
    let odds = &model.log_odds;
    affinities
        .rows()
        .into_iter()
        .enumerate()
        .map(|(user, row)| {
            let new =
                |(item, affinity): (usize, &f32)| odds.slopes.log_odds(*affinity, odds.users[user], odds.items[item]);
            let mut of_user: Vec<f32> = row.iter().enumerate().map(|pair| probability(new(pair))).collect();
            let (items, values) = odds.repeat.row(user);
            items.iter().zip(values).for_each(|(item, z)| of_user[*item as usize] = probability(f64::from(*z)));
            of_user
        })
        .collect()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0.0), |(sum, n), value| (sum + value, n + 1.0));
    sum / n
}

#[test]
fn people_who_return_are_told_from_those_who_never_do() {
    let model = trained(&small(), &log(USERS, ITEMS, &shop(1, USERS, ITEMS, 400)));
    let Regime::Fitted { coefficients, intercept, positives, pairs, .. } = &model.propensity.repeat_pairs else {
        panic!("{:?}", model.propensity.repeat_pairs)
    };
    assert!(intercept.is_finite() && coefficients.len() == Regime::repeat_pair_term_names().len());
    assert!(positives < pairs);
    // Nothing tells the two kinds of users apart but that the own events of some come again.
    let repeat = &model.log_odds.repeat;
    let of = |kind: bool| {
        let users = (0..USERS).filter(move |user| returns(*user) == kind);
        mean(users.flat_map(|user| repeat.row(user as usize).1.iter().map(|z| f64::from(probability(f64::from(*z))))))
    };
    assert!(of(true) > 1.5 * of(false), "{} {}", of(true), of(false));
}

/// With a regularization of its own: what affinity leaves to the other terms depends on which one was chosen.
fn fixed() -> ItemAffinity {
    ItemAffinity { regularization: Some(0.005), ..small() }
}

#[test]
fn signs_of_coefficients_are_sensible() {
    let model = trained(&fixed(), &log(USERS, ITEMS, &shop(1, USERS, ITEMS, 400)));
    let slopes = model.log_odds.slopes;
    assert!(slopes.affinity >= 0.0 && slopes.log_affinity >= 0.0 && slopes.affinity + slopes.log_affinity > 0.0);
    let by_rate = |rate: u32| {
        mean((0..USERS).filter(|u| u / 10 % 8 == rate).map(|u| f64::from(model.log_odds.users[u as usize])))
    };
    assert!(by_rate(7) > by_rate(4) && by_rate(4) > by_rate(1), "{} {} {}", by_rate(7), by_rate(4), by_rate(1));
    // The first items of each group are the popular ones.
    let by_place =
        |places: std::ops::Range<u32>| mean(places.map(|item| f64::from(model.log_odds.items[item as usize])));
    assert!(by_place(0..20) > by_place(150..200));
    // Items of the own group are more probable than others.
    let probabilities = probabilities(&model);
    let share = |own: bool| {
        mean((0..USERS).flat_map(|user| {
            let of_user = &probabilities[user as usize];
            (0..ITEMS).filter(move |item| (item % 5 == user % 5) == own).map(|item| f64::from(of_user[item as usize]))
        }))
    };
    assert!(share(true) > 4.0 * share(false));
}

#[test]
fn probabilities_hold_on_what_comes_after_the_training() {
    let mut off = Vec::new();
    for seed in 0..3 {
        let log = log(USERS, ITEMS, &shop(seed, USERS, ITEMS, 400));
        let found =
            evaluate_time(&small(), &TimeProtocol::default(), &log, None, &mut |_| ControlFlow::Continue(())).unwrap();
        let calibration = &found.calibration;
        off.push(calibration.mean_predicted / calibration.mean_observed - 1.0);
        assert!(calibration.expected_calibration_error < 0.15 * calibration.mean_predicted, "{calibration:?}");
        let quality =
            |ranker: usize| (found.all_pairs.rankers[ranker].precision, found.new_pairs.rankers[ranker].precision);
        let model = quality(0);
        for baseline in 1..6 {
            let baseline = quality(baseline);
            assert!(model.0 > 1.05 * baseline.0 && model.1 > 1.02 * baseline.1, "{model:?} {baseline:?}");
        }
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
    }
    assert!(mean(off.iter().copied()).abs() < 0.04 && off.iter().all(|off| off.abs() < 0.08), "{off:?}");
}

#[test]
fn where_nothing_is_repeated_earlier_users_rank_last() {
    let events: Vec<Event> = shop(2, USERS, ITEMS, 400).into_iter().filter(|event| !returns(event.0)).collect();
    let model = trained(&small(), &log(USERS, ITEMS, &events));
    assert_eq!(model.propensity.repeat_pairs, Regime::Never);
    assert!(matches!(model.propensity.new_pairs, Regime::Fitted { .. }));
    let warnings = model.propensity.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("no pairs with history"), "{warnings:?}");
    let probabilities = probabilities(&model);
    let by_item = model.log_odds.repeat.transpose();
    for item in 0..ITEMS {
        let seen = by_item.row(item as usize).0;
        let of = |user: u32| probabilities[user as usize][item as usize];
        let most = seen.iter().map(|user| of(*user)).fold(0.0, f32::max);
        assert!((0..USERS).filter(|user| seen.binary_search(user).is_err()).all(|user| of(user) > most));
    }
}

#[test]
fn where_all_is_repeated_nobody_new_is_expected() {
    // Everyone has two items from the start, and takes now one, now the other.
    let mut random = StdRng::seed_from_u64(3);
    let mut events = Vec::new();
    for user in 0..200u32 {
        for (at, item) in [user % 20, (user + 7) % 20].into_iter().enumerate() {
            events.push((user, item, at as i64, 1.0));
            (0..10).for_each(|_| events.push((user, item, random.random_range(10..1_000) * DAY, 1.0)));
        }
    }
    let model = trained(&small(), &log(200, 20, &events));
    assert_eq!(model.propensity.new_pairs, Regime::Never);
    assert!(matches!(model.propensity.repeat_pairs, Regime::Fitted { .. }));
    let warnings = model.propensity.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("no pairs without history"), "{warnings:?}");
    for (user, of_user) in probabilities(&model).iter().enumerate() {
        let seen = model.log_odds.repeat.row(user).0;
        assert!(of_user.iter().enumerate().all(|(item, p)| (*p > 1e-6) == seen.contains(&(item as u32))));
    }
}

#[test]
fn a_window_of_strangers_teaches_nothing() {
    // After day 80 all events are those of new users with new items.
    let mut events: Vec<Event> = shop(4, 300, 50, 80).into_iter().collect();
    events
        .extend((0..events.len() as u32 / 5).map(|n| (300 + n % 100, 50 + n % 10, (81 + i64::from(n) % 9) * DAY, 1.0)));
    let model = trained(&ItemAffinity { horizon_days: Some(8.5), ..small() }, &log(400, 60, &events));
    assert_eq!((&model.propensity.new_pairs, &model.propensity.repeat_pairs), (&Regime::Never, &Regime::Never));
    assert_eq!(model.propensity.warnings().len(), 2);
}

#[test]
fn a_handful_of_events_in_the_window_gives_one_probability_for_all() {
    // Every user and item is known; in the window a few pairs come for the first time and a few again.
    let mut events: Vec<Event> =
        (0..40u32).flat_map(|user| (0..6u32).map(move |n| (user, (user + n) % 12, i64::from(n) * DAY, 1.0))).collect();
    events.extend((0..9u32).map(|user| (user, (user + user % 2 * 8) % 12, 50 * DAY + i64::from(user), 1.0)));
    let recipe = ItemAffinity { horizon_days: Some(2.0), ..small() };
    let model = trained(&recipe, &log(40, 12, &events));
    let Regime::Prior { log_odds } = model.propensity.new_pairs else { panic!("{:?}", model.propensity.new_pairs) };
    // 4 of 40 · 12 − 240
    assert!((log_odds - (4.5f64 / 236.5).ln()).abs() < 1e-9, "{log_odds}");
    let Regime::Prior { log_odds } = model.propensity.repeat_pairs else { panic!() };
    assert!((log_odds - (5.5f64 / 235.5).ln()).abs() < 1e-9, "{log_odds}");
    assert_eq!(model.propensity.warnings().len(), 2);
}

#[test]
fn the_smallest_logs_are_trained_on() {
    let unlearnt = |users: u32, items: u32, events: &[Event]| {
        let model = trained(&small(), &log(users, items, events));
        assert_eq!(model.propensity.window, None);
        assert_eq!(model.propensity.warnings().len(), 1);
        assert_eq!(model.log_odds.repeat.nnz(), if events.is_empty() { 0 } else { 1 });
        assert!(probabilities(&model).iter().flatten().all(|p| (0.0..=1.0).contains(p)));
    };
    unlearnt(0, 0, &[]);
    unlearnt(3, 2, &[]);
    unlearnt(1, 1, &[(0, 0, 5, 1.0)]);
    unlearnt(1, 1, &[(0, 0, 5, 1.0), (0, 0, 5, 1.0)]);
    unlearnt(2, 2, &[(1, 0, i64::MAX, 1.0), (1, 0, i64::MAX, 2.0)]);
    unlearnt(2, 2, &[(1, 0, i64::MIN, 0.0)]);
    // All at one time: many pairs, but nothing can be held out.
    let events: Vec<Event> = (0..500).map(|n| (n % 50, n * 7 % 20, 9, 1.0)).collect();
    let model = trained(&small(), &log(50, 20, &events));
    assert_eq!(model.propensity.window, None);
    // One user, one item, and times that reach as far as they can.
    let events: Vec<Event> = (0..100).map(|n| (0, 0, n * 1_000, 1.0)).collect();
    let model = trained(&small(), &log(1, 1, &events));
    assert!(model.propensity.window.is_some());
    for (users, items) in [(1, 40), (40, 1)] {
        let events: Vec<Event> = (0..400).map(|n| (n % users, n * 7 % items, i64::from(n) * 1_000, 1.0)).collect();
        trained(&small(), &log(users, items, &events));
    }
    trained(&small(), &log(2, 2, &[(0, 0, i64::MIN, 1.0), (0, 1, 0, 1.0), (1, 1, i64::MAX, 1.0)]));
}

#[test]
fn a_horizon_longer_than_the_history_is_learnt_from_less_and_scaled_up() {
    let log = log(USERS, ITEMS, &shop(1, USERS, ITEMS, 400));
    let at = |days: f64| trained(&ItemAffinity { horizon_days: Some(days), ..small() }, &log);
    let (short, long) = (at(90.0), at(900.0));
    assert!(!short.propensity.window.unwrap().shortened);
    let window = long.propensity.window.unwrap();
    assert!(window.shortened && window.until - window.from < 150 * DAY && window.from > 200 * DAY);
    assert_eq!(long.propensity.horizon_seconds, 900 * DAY);
    assert!(long.propensity.warnings()[0].contains("scaled up"));
    let total = |model: &TrainedModel| mean(probabilities(model).into_iter().flatten().map(f64::from));
    let ratio = total(&long) / total(&short);
    assert!((4.0..11.0).contains(&ratio), "{ratio}");
}

#[test]
fn threads_and_the_order_of_the_input_never_show() {
    let mut events = shop(5, 700, 60, 300);
    let train_on = |threads: usize, events: &[Event]| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| trained(&small(), &log(700, 60, events)))
    };
    let one = train_on(1, &events);
    assert!(matches!(one.propensity.repeat_pairs, Regime::Fitted { .. }));
    assert!(matches!(one.propensity.new_pairs, Regime::Fitted { .. }));
    events.shuffle(&mut StdRng::seed_from_u64(1));
    for threads in [2, 4] {
        // Equal as numbers, and as the text that a version stores.
        let other = train_on(threads, &events);
        assert_eq!(other, one);
        assert_eq!(json(&other.propensity), json(&one.propensity));
    }
}

fn json(propensity: &Propensity) -> String {
    serde_json::to_string(propensity).unwrap()
}

#[test]
fn another_seed_or_unit_of_weights_changes_little() {
    let events = shop(6, USERS, ITEMS, 400);
    let reference = probabilities(&trained(&fixed(), &log(USERS, ITEMS, &events)));
    let of = |recipe: &ItemAffinity, weight: f32| {
        let events: Vec<Event> = events.iter().map(|event| (event.0, event.1, event.2, weight)).collect();
        let found = probabilities(&trained(recipe, &log(USERS, ITEMS, &events)));
        let pairs = || found.iter().flatten().zip(reference.iter().flatten());
        let [xy, xx, yy] = [
            pairs().map(|(a, b)| f64::from(a * b)).sum::<f64>(),
            found.iter().flatten().map(|a| f64::from(a * a)).sum(),
            reference.iter().flatten().map(|a| f64::from(a * a)).sum(),
        ];
        (xy / (xx * yy).sqrt(), mean(pairs().map(|(a, _)| f64::from(*a))) / mean(pairs().map(|(_, b)| f64::from(*b))))
    };
    for (recipe, weight) in [(ItemAffinity { seed: 9, ..fixed() }, 1.0), (fixed(), 3.0), (fixed(), 0.5)] {
        let (cosine, ratio) = of(&recipe, weight);
        assert!(
            cosine > 0.9 && (0.95..1.05).contains(&ratio),
            "seed {} weight {weight}: {cosine} {ratio}",
            recipe.seed
        );
    }
    for weight in [1e-6, 1e9] {
        let (_, ratio) = of(&ItemAffinity { iterations: 8, ..fixed() }, weight);
        assert!((0.8..1.25).contains(&ratio), "{weight}: {ratio}");
    }
}

#[test]
fn a_propensity_comes_back_from_json_bit_by_bit() {
    let learnt = trained(&small(), &log(USERS, ITEMS, &shop(7, USERS, ITEMS, 400))).propensity;
    assert!(matches!(learnt.repeat_pairs, Regime::Fitted { .. }));
    let unlearnt = trained(&small(), &log(1, 1, &[])).propensity;
    let rare = Propensity {
        new_pairs: Regime::Never,
        repeat_pairs: Regime::Prior { log_odds: -0.1 - 0.2 },
        ..unlearnt.clone()
    };
    for propensity in [learnt, unlearnt, rare] {
        let back: Propensity = serde_json::from_str(&json(&propensity)).unwrap();
        assert_eq!(back, propensity);
        assert_eq!(json(&back), json(&propensity));
    }
}

#[test]
fn the_clock_that_is_given_is_kept() {
    let log = log(300, 50, &shop(8, 300, 50, 200));
    let clock = Clock { as_of: 220 * DAY, horizon: 10 * DAY };
    let model = train(&small(), &log, None, Some(clock), &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((model.clock, model.propensity.horizon_seconds), (clock, 10 * DAY));
    // The window would lie after all events: nothing to learn from.
    assert_eq!(model.propensity.window, None);
}
