//! A refresh beside the version that it refreshes, and beside a full training on the same events.
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

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use item_affinity_model::ndarray::Array2;
use item_affinity_model::{
    Clock, Everyone, FoldIn, Interactions, LogOdds, TrainedModel, Vocabulary, dot, fold_in_part, fold_in_users,
    probability, train,
};
use planted::{DAY, Event, GROUPS, small};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

#[allow(dead_code)]
mod planted;

const USERS: u32 = 1_000;
const ITEMS: u32 = 150;
/// The first training ends at `TRAINED_AT`, the refresh and the full training at `NOW`, the window with the last day.
const TRAINED_AT: i64 = 360 * DAY;
const NOW: i64 = 400 * DAY;
const DAYS: i64 = 440;

fn id(number: u32) -> String {
    format!("{number:06}")
}

/// A log of users and items that have an event before a moment, as reading files gives it.
fn before(events: &[Event], moment: i64) -> Interactions {
    let events: Vec<&Event> = events.iter().filter(|event| event.2 < moment).collect();
    let ids = |of: fn(&Event) -> u32| {
        let numbers: BTreeSet<u32> = events.iter().map(|event| of(event)).collect();
        let vocabulary = Vocabulary::from_sorted(numbers.iter().map(|number| id(*number))).unwrap();
        let index = events.iter().map(|event| vocabulary.index_of(&id(of(event))).unwrap()).collect::<Vec<_>>();
        (vocabulary, index)
    };
    let ((users, user_index), (items, item_index)) = (ids(|event| event.0), ids(|event| event.1));
    let (times, weights) = (events.iter().map(|e| e.2).collect(), events.iter().map(|e| e.3).collect());
    Interactions::new(users, items, user_index, item_index, times, weights).unwrap()
}

/// What ranks: states of users and items, by their ids.
struct Version<'a> {
    log: &'a Interactions,
    user_factors: &'a Array2<f32>,
    item_factors: &'a Array2<f32>,
    log_odds: &'a LogOdds,
}

impl Version<'_> {
    fn score(&self, user: u32, item: u32) -> Option<f32> {
        let user = self.log.users().index_of(&id(user))?;
        let (items, repeat) = self.log_odds.repeat.row(user as usize);
        let z = match items.binary_search(&item) {
            Ok(at) => f64::from(repeat[at]),
            Err(_) => {
                let (x, y) = (self.user_factors.row(user as usize), self.item_factors.row(item as usize));
                let affinity = dot(x, y);
                self.log_odds.slopes.log_odds(
                    affinity,
                    self.log_odds.users[user as usize],
                    self.log_odds.items[item as usize],
                )
            }
        };
        Some(probability(z))
    }

    /// The users by score, those whom the version does not know left out.
    fn ranked(&self, users: &BTreeSet<u32>, item: u32) -> Vec<u32> {
        let item = self.log.items().index_of(&id(item)).unwrap();
        let mut scores: Vec<(f32, u32)> =
            users.iter().filter_map(|user| Some((self.score(*user, item)?, *user))).collect();
        scores.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        scores.into_iter().map(|(_, user)| user).collect()
    }
}

/// Precision of segments of 1 % of the users on what happened from `NOW` on: over all pairs, and over pairs that had
/// no event before.
fn precision(version: &Version<'_>, events: &[Event], items: &BTreeSet<u32>) -> [f64; 2] {
    let pairs = |later: bool| -> BTreeSet<(u32, u32)> {
        events.iter().filter(|event| (event.2 >= NOW) == later).map(|event| (event.0, event.1)).collect()
    };
    let (had, truth) = (pairs(false), pairs(true));
    let users: BTreeSet<u32> = had.iter().map(|pair| pair.0).collect();
    let k = users.len().div_ceil(100);
    let mut hits = [0usize; 2];
    for item in items {
        let ranked = version.ranked(&users, *item);
        let hit = |user: &&u32| truth.contains(&(**user, *item));
        hits[0] += ranked.iter().take(k).filter(hit).count();
        hits[1] += ranked.iter().filter(|user| !had.contains(&(**user, *item))).take(k).filter(hit).count();
    }
    hits.map(|hits| hits as f64 / (k * items.len()) as f64)
}

/// The three versions that could answer at `NOW`.
struct Three {
    events: Vec<Event>,
    old_log: Interactions,
    old: TrainedModel,
    log: Interactions,
    refreshed: item_affinity_model::UsersNow,
    full_log: Interactions,
    full: TrainedModel,
}

fn trained(log: &Interactions, as_of: i64) -> TrainedModel {
    let clock = Some(Clock { as_of, horizon: DAYS * DAY - NOW });
    train(&small(), log, None, clock, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// A shop that stays as it is while its users come and go: each is there for some months, likes a group of items, and
/// buys every third time what was bought lately; every fifth one likes another group after half of the time.
fn coming_and_going(seed: u64) -> Vec<Event> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut events = Vec::new();
    for user in 0..USERS {
        let arrival = random.random_range(-200..DAYS) as f64;
        let stay = f64::from(random.random_range(60..260u32));
        let rate = 0.03 * 1.5f64.powi(random.random_range(0..6));
        let (mut group, mut lately) = (random.random_range(0..GROUPS), Vec::new());
        let (mut day, mut turned) = (arrival, user % 5 > 0);
        loop {
            day += -(1.0 - random.random::<f64>()).ln() / rate;
            if day >= (arrival + stay).min(DAYS as f64) {
                break;
            }
            if !turned && day > arrival + stay / 2.0 {
                (group, turned) = ((group + 1) % GROUPS, true);
            }
            let again = !lately.is_empty() && random.random_range(0..3) == 0;
            let item = if again {
                lately[random.random_range(0..lately.len())]
            } else {
                let place = (random.random::<f64>() * random.random::<f64>() * f64::from(ITEMS / GROUPS)) as u32;
                place * GROUPS + if random.random_range(0..10) > 0 { group } else { random.random_range(0..GROUPS) }
            };
            lately.push(item);
            if lately.len() > 5 {
                lately.remove(0);
            }
            if day >= 0.0 {
                events.push((user, item, (day * DAY as f64) as i64, 1.0));
            }
        }
    }
    events
}

fn three(seed: u64) -> Three {
    let events = coming_and_going(seed);
    let old_log = before(&events, TRAINED_AT);
    let old = trained(&old_log, TRAINED_AT);
    let (log, _) = before(&events, NOW).onto_items(old_log.items().clone()).unwrap();
    let factors = old.factors.item_factors.view();
    let refreshed = fold_in_users(&small(), &old.propensity, factors, &log, None, NOW).unwrap();
    let full_log = before(&events, NOW);
    let full = trained(&full_log, NOW);
    Three { events, old_log, old, log, refreshed, full_log, full }
}

#[test]
fn a_refresh_foresees_more_than_the_old_version_and_about_as_much_as_a_training() {
    let mut sums: BTreeMap<&str, [f64; 2]> = BTreeMap::new();
    for seed in [1, 2] {
        let three = three(seed);
        let versions = [
            ("old", of_model(&three.old_log, &three.old)),
            (
                "refreshed",
                Version {
                    log: &three.log,
                    user_factors: &three.refreshed.user_factors,
                    item_factors: &three.old.factors.item_factors,
                    log_odds: &three.refreshed.log_odds,
                },
            ),
            ("trained", of_model(&three.full_log, &three.full)),
        ];
        let items: BTreeSet<u32> = (0..ITEMS).filter(|n| three.old_log.items().index_of(&id(*n)).is_some()).collect();
        for (name, version) in versions {
            let [all, new] = precision(&version, &three.events, &items);
            println!("shop {seed}, {name}: precision at 1 % {:.2} % all pairs, {:.2} % new", 100.0 * all, 100.0 * new);
            let sum = sums.entry(name).or_default();
            *sum = [sum[0] + all, sum[1] + new];
        }
    }
    for view in 0..2 {
        let [old, refreshed, trained] = ["old", "refreshed", "trained"].map(|name| sums[name][view]);
        assert!(refreshed > 1.2 * old, "{sums:?}");
        assert!(refreshed > 0.9 * trained, "{sums:?}");
    }
}

fn of_model<'a>(log: &'a Interactions, model: &'a TrainedModel) -> Version<'a> {
    Version {
        log,
        user_factors: &model.factors.user_factors,
        item_factors: &model.factors.item_factors,
        log_odds: &model.log_odds,
    }
}

#[test]
fn the_events_of_the_training_give_the_states_of_the_training() {
    let events = coming_and_going(4);
    let log = before(&events, NOW);
    let model = trained(&log, NOW);
    let (same, left_out) = log.clone().onto_items(log.items().clone()).unwrap();
    assert_eq!(left_out.interactions, 0);
    let factors = model.factors.item_factors.view();
    let now = fold_in_users(&small(), &model.propensity, factors, &same, None, NOW).unwrap();
    let largest = |a: &Array2<f32>, b: &Array2<f32>| (a - b).iter().fold(0f32, |most, x| most.max(x.abs()));
    assert!(largest(&now.user_factors, &model.factors.user_factors) < 1e-5);
    assert_eq!(now.histories, model.histories);
    let apart = now.log_odds.users.iter().zip(&model.log_odds.users).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(apart < 1e-4, "{apart}");
}

/// The events of a range of users, with the items of the log.
fn part_of(log: &Interactions, users: std::ops::Range<usize>) -> Interactions {
    let ids = users.clone().filter_map(|user| log.users().id(user as u32));
    let ids = Vocabulary::from_sorted(ids).unwrap();
    let (mut user_index, mut items, mut times, mut weights) = (vec![], vec![], vec![], vec![]);
    for (number, user) in users.enumerate() {
        let history = log.history(user);
        user_index.resize(user_index.len() + history.items.len(), number as u32);
        items.extend_from_slice(history.items);
        times.extend_from_slice(history.times);
        weights.extend_from_slice(history.weights);
    }
    Interactions::new(ids, log.items().clone(), user_index, items, times, weights).unwrap()
}

#[test]
fn users_folded_in_part_by_part_are_those_of_one_refresh_however_they_are_cut() {
    let Three { log, old, refreshed: whole, .. } = three(5);
    let (recipe, propensity) = (&small(), &old.propensity);
    let factors = old.factors.item_factors.view();
    let items = FoldIn::new(recipe, factors).unwrap();
    let users = log.users().len();
    let mut earlier: Option<LogOdds> = None;
    for cuts in [vec![0, users], vec![0, 1, users / 3, users / 3, users - 7, users]] {
        let parts: Vec<_> = cuts.windows(2).map(|cut| part_of(&log, cut[0]..cut[1])).collect();
        let folded: Vec<_> =
            parts.iter().map(|part| fold_in_part(recipe, propensity, &items, part, None, NOW).unwrap()).collect();
        let mut everyone = Everyone::nobody(log.items().len());
        for (part, now) in parts.iter().zip(&folded).rev() {
            everyone.merge(&propensity.everyone(part, NOW, now.user_factors.view(), factors).unwrap());
        }
        assert_eq!(everyone.users, users as u64);
        let mut row = 0;
        let (mut of_users, mut of_pairs) = (Vec::new(), Vec::new());
        let mut last = None;
        for (part, now) in parts.iter().zip(&folded) {
            let log_odds = propensity.log_odds_of_part(part, NOW, now.user_factors.view(), factors, &everyone).unwrap();
            for user in 0..part.users().len() {
                assert_eq!(now.user_factors.row(user), whole.user_factors.row(row + user));
                assert_eq!(now.histories.row(user), whole.histories.row(row + user));
                assert_eq!(log_odds.repeat.row(user).0, whole.log_odds.repeat.row(row + user).0);
            }
            row += part.users().len();
            of_users.extend_from_slice(&log_odds.users);
            of_pairs.extend_from_slice(log_odds.repeat.values());
            last = Some(log_odds);
        }
        let last = last.unwrap();
        assert_eq!(of_users, whole.log_odds.users);
        assert_eq!(of_pairs, whole.log_odds.repeat.values());
        assert_eq!((&last.items, last.slopes), (&whole.log_odds.items, whole.log_odds.slopes));
        let repeat = item_affinity_model::Csr::new(
            whole.histories.indptr().to_vec(),
            whole.histories.indices().to_vec(),
            of_pairs,
            log.items().len(),
        );
        let now = LogOdds { users: of_users, repeat: repeat.unwrap(), ..last };
        if let Some(earlier) = &earlier {
            assert_eq!(*earlier, now, "the cut shows");
        }
        earlier = Some(now);
    }
}
