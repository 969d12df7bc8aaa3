//! P22 and P23: no number that is none enters or leaves, and no count wraps.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

use std::cell::Cell;
use std::ops::ControlFlow;

use item_affinity_model::{Csr, Interactions, ItemAffinity, TrainedModel, Vocabulary, probability, train};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// user, item, epoch seconds, weight
type Event = (u32, u32, i64, f32);

const USERS: u32 = 30;
const ITEMS: u32 = 12;

fn ids(count: u32) -> Vocabulary {
    Vocabulary::from_sorted((0..count).map(|n| format!("{n:06}"))).unwrap()
}

fn log(events: &[Event]) -> item_affinity_model::Result<Interactions> {
    let (mut users, mut items, mut times, mut weights) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (user, item, time, weight) in events {
        users.push(*user);
        items.push(*item);
        times.push(*time);
        weights.push(*weight);
    }
    Interactions::new(ids(USERS), ids(ITEMS), users, items, times, weights)
}

/// Weights at the edges of `f32`, of which ingest lets those up to 1e30 pass.
fn weight() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => Just(1_f32),
        1 => Just(0.0),
        1 => Just(-0.0),
        1 => Just(f32::from_bits(1)),
        1 => Just(f32::MIN_POSITIVE),
        1 => Just(1e30),
        1 => Just(1e38),
        1 => Just(f32::MAX),
        1 => 0_f32..9.0,
    ]
}

/// Events whose weights are odd, all equal, all 1 or all nothing; of few items, so that rows of factors are no full rank.
fn events() -> impl Strategy<Value = Vec<Event>> {
    let time = prop_oneof![4 => -9_i64..9, 1 => Just(i64::MIN), 1 => Just(i64::MAX), 1 => Just(0)];
    let event = (0..USERS, 0..ITEMS, time, weight());
    let one_weight = prop_oneof![2 => Just(None), 1 => weight().prop_map(Some), 1 => Just(Some(1.0))];
    let one_item = prop_oneof![3 => Just(None), 1 => (0..ITEMS).prop_map(Some)];
    (prop::collection::vec(event, 1..160), one_weight, one_item).prop_map(|(mut events, weight, item)| {
        for event in &mut events {
            event.1 = item.unwrap_or(event.1);
            event.3 = weight.unwrap_or(event.3);
        }
        events
    })
}

fn assert_finite(model: &TrainedModel) {
    let TrainedModel { factors, log_odds, histories, .. } = model;
    let all = |name: &str, values: &mut dyn Iterator<Item = f32>| {
        values.enumerate().for_each(|(at, value)| assert!(value.is_finite(), "{name} {at}: {value}"));
    };
    all("user factor", &mut factors.user_factors.iter().copied());
    all("item factor", &mut factors.item_factors.iter().copied());
    all("user", &mut log_odds.users.iter().copied());
    all("item", &mut log_odds.items.iter().copied());
    all("pair", &mut log_odds.repeat.values().iter().copied());
    all("history", &mut histories.values().iter().copied());
    assert!(factors.loss.iter().all(|loss| loss.is_finite()), "{:?}", factors.loss);
    assert!(log_odds.slopes.are_sound(), "{:?}", log_odds.slopes);
    let affinities = factors.user_factors.dot(&factors.item_factors.t());
    for ((user, item), affinity) in affinities.indexed_iter() {
        let score = probability(log_odds.slopes.log_odds(*affinity, log_odds.users[user], log_odds.items[item]));
        assert!((0.0..=1.0).contains(&score), "score of {user} and {item}: {score}");
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn p22_whatever_the_weights_numbers_are_finite_or_the_training_is_refused() {
    let cases = (
        events(),
        prop_oneof![Just(0_f32), Just(f32::from_bits(1)), Just(0.005), Just(10.0)],
        prop_oneof![Just(0_f32), Just(f32::MIN_POSITIVE), Just(0.2), Just(1.0)],
        prop_oneof![Just(None::<f64>), Just(Some(0.01)), Just(Some(36_500.0))],
        prop_oneof![Just(None::<f64>), Just(Some(0.00001)), Just(Some(36_500.0))],
    );
    let trained = Cell::new(0);
    let outcome = TestRunner::new(config()).run(
        &cases,
        |(events, regularization, unobserved_weight, half_life_days, horizon_days)| {
            let recipe = ItemAffinity {
                hidden_dimension: 32,
                iterations: 2,
                regularization: Some(regularization),
                unobserved_weight,
                half_life_days,
                horizon_days,
                ..ItemAffinity::default()
            };
            recipe.validate().unwrap();
            // An error is an answer; a panic or a number that is none is not.
            if let Ok(model) = train(&recipe, &log(&events).unwrap(), None, None, &mut |_| ControlFlow::Continue(())) {
                assert_finite(&model);
                trained.set(trained.get() + 1);
            }
            Ok(())
        },
    );
    outcome.unwrap();
    // One log of four has weights of 1 alone: who refuses everything keeps every law.
    assert!(trained.get() > 0, "every training was refused");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn p22_what_is_no_number_or_negative_never_enters(
        mut events in events(),
        at in any::<prop::sample::Index>(),
        bad in prop_oneof![
            Just(f32::NAN), Just(-f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY), Just(-1.0), Just(-f32::from_bits(1))
        ],
    ) {
        let at = at.index(events.len());
        events[at].3 = bad;
        prop_assert!(log(&events).unwrap_err().to_string().contains("weight"));
        prop_assert!(Csr::new(vec![0, 1], vec![0], vec![f32::NAN], 1).is_err());
        prop_assert!(Csr::new(vec![0, 1], vec![0], vec![f32::INFINITY], 1).is_err());
    }
}

#[test]
fn p23_indexes_at_the_edges_of_their_width_are_refused_not_wrapped() {
    let of = |user: u32, item: u32| Interactions::new(ids(3), ids(2), vec![user], vec![item], vec![0], vec![1.0]);
    assert!(of(2, 1).is_ok());
    for (user, item) in [(3, 0), (u32::MAX, 0), (0, 2), (0, u32::MAX), (1 << 31, 0)] {
        assert!(of(user, item).is_err(), "{user} {item}");
    }
    // More columns than an index counts, ends of rows that wrap or go backwards, and indexes beyond the columns.
    let most = u32::MAX as usize;
    assert!(Csr::new(vec![0, 1], vec![0], vec![1.0], most).is_ok());
    for (indptr, index, columns) in [
        (vec![0, 1], 0, most + 1),
        (vec![0, 1], 0, usize::MAX),
        (vec![0, usize::MAX], 0, 1),
        (vec![0, 2], 0, 1),
        (vec![1, 0], 0, 1),
        (vec![0, 1], 1, 1),
        (vec![0, 1], u32::MAX, 1),
    ] {
        assert!(Csr::new(indptr.clone(), vec![index], vec![1.0], columns).is_err(), "{indptr:?} {index} {columns}");
    }
}

#[test]
fn p23_times_as_far_apart_as_can_be_are_trained_on_or_refused() {
    let mut trained = 0;
    for times in [[i64::MIN, i64::MAX], [0, i64::MAX], [i64::MIN, 0], [i64::MAX, i64::MAX]] {
        let events: Vec<Event> = (0..USERS).map(|n| (n, n % ITEMS, times[n as usize % 2], 1.0)).collect();
        let recipe = ItemAffinity { hidden_dimension: 32, iterations: 1, ..ItemAffinity::default() };
        if let Ok(model) = train(&recipe, &log(&events).unwrap(), None, None, &mut |_| ControlFlow::Continue(())) {
            assert_finite(&model);
            trained += 1;
        }
    }
    assert!(trained > 0, "every training was refused");
}
