//! The protocol "time" against a slow reference that ranks by sorting everybody.
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

use item_affinity_model::{
    Clock, Decay, ItemAffinity, RANKERS, TimeEvaluation, TimeProtocol, TrainedModel, View, dot, evaluate_time,
    probability, train,
};
use planted::{DAY, Event, log, shop, small};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

#[allow(dead_code)]
mod planted;

fn evaluated(
    recipe: &ItemAffinity,
    protocol: &TimeProtocol,
    users: u32,
    items: u32,
    events: &[Event],
) -> TimeEvaluation {
    evaluate_time(recipe, protocol, &log(users, items, events), None, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// All that the reference knows, by plain loops over the events.
struct Reference {
    cut: i64,
    horizon: i64,
    users: Vec<u32>,
    items: Vec<u32>,
    k: usize,
    train: Vec<Event>,
    test: Vec<Event>,
    had: BTreeSet<(u32, u32)>,
    later: BTreeSet<(u32, u32)>,
    model: TrainedModel,
    /// By pair: events, and events that count by their age.
    count: BTreeMap<(u32, u32), f32>,
    recent: BTreeMap<(u32, u32), f32>,
}

impl Reference {
    fn new(recipe: &ItemAffinity, least: usize, users: u32, items: u32, events: &[Event]) -> Self {
        let mut times: Vec<i64> = events.iter().map(|event| event.2).collect();
        times.sort_unstable();
        let cut = times[((times.len() - 1) as f64 * 0.9) as usize];
        let horizon = times[times.len() - 1] - cut + 1;
        let (train_events, test): (Vec<Event>, Vec<Event>) = events.iter().partition(|event| event.2 < cut);
        let known = log(users, items, &train_events);
        let clock = Clock { as_of: cut, horizon };
        let model = train(recipe, &known, None, Some(clock), &mut |_| ControlFlow::Continue(())).unwrap();
        let sums = |decay: Option<Decay>| {
            let pairs = known.pairs(decay).unwrap();
            let row = |user: u32| {
                let (items, values) = pairs.row(user as usize);
                items.iter().zip(values).map(|(item, value)| ((user, *item), *value)).collect::<Vec<_>>()
            };
            (0..users).flat_map(row).collect()
        };
        let pairs = |events: &[Event]| events.iter().map(|event| (event.0, event.1)).collect::<BTreeSet<_>>();
        let candidates: BTreeSet<u32> = train_events.iter().map(|event| event.0).collect();
        let asked = (0..items).filter(|item| train_events.iter().filter(|event| event.1 == *item).count() >= least);
        Self {
            cut,
            horizon,
            k: candidates.len().div_ceil(100),
            users: candidates.into_iter().collect(),
            items: asked.collect(),
            had: pairs(&train_events),
            later: pairs(&test),
            train: train_events,
            test,
            count: sums(None),
            recent: sums(Some(Decay { half_life_seconds: horizon as f64, as_of: cut })),
            model,
        }
    }

    fn probability(&self, user: u32, item: u32) -> f32 {
        let odds = &self.model.log_odds;
        let (items, values) = odds.repeat.row(user as usize);
        if let Ok(at) = items.binary_search(&item) {
            return probability(f64::from(values[at]));
        }
        let affinity = self.affinity(user, item);
        let floored = f64::from(affinity).max(1e-4f32.into());
        let z = f64::from(odds.slopes.affinity) * f64::from(affinity)
            + f64::from(odds.slopes.log_affinity) * floored.ln()
            + f64::from(odds.users[user as usize])
            + f64::from(odds.items[item as usize]);
        (1.0 / (1.0 + (-z).exp())) as f32
    }

    fn affinity(&self, user: u32, item: u32) -> f32 {
        let factors = &self.model.factors;
        dot(factors.item_factors.row(item as usize), factors.user_factors.row(user as usize))
    }

    fn total(of: &BTreeMap<(u32, u32), f32>, user: u32) -> f64 {
        f64::from(of.range((user, 0)..=(user, u32::MAX)).map(|pair| f64::from(*pair.1)).sum::<f64>() as f32)
    }

    /// What the ranker sorts by, larger first; none for the one that draws lots.
    fn key(&self, ranker: &str, user: u32, item: u32) -> (f64, f64) {
        let of_pair = |of: &BTreeMap<(u32, u32), f32>| f64::from(of.get(&(user, item)).copied().unwrap_or(0.0));
        match ranker {
            "item_affinity" => (f64::from(self.probability(user, item)), 0.0),
            "plain_als" => (f64::from(self.affinity(user, item)), 0.0),
            "earlier_buyers" => (of_pair(&self.count), of_pair(&self.recent)),
            "most_active_recently" => (Self::total(&self.recent, user), 0.0),
            "most_active" => (Self::total(&self.count, user), 0.0),
            other => panic!("{other}"),
        }
    }

    /// Every user of a view, best first.
    fn ranked(&self, ranker: &str, item: u32, new_only: bool) -> Vec<u32> {
        let users = self.users.iter().filter(|user| !(new_only && self.had.contains(&(**user, item))));
        let mut keyed: Vec<((f64, f64), u32)> = users.map(|user| (self.key(ranker, *user, item), *user)).collect();
        keyed.sort_by(|a, b| b.0.0.total_cmp(&a.0.0).then(b.0.1.total_cmp(&a.0.1)).then(a.1.cmp(&b.1)));
        keyed.into_iter().map(|(_, user)| user).collect()
    }

    fn truth(&self, item: u32, new_only: bool) -> Vec<u32> {
        let happened =
            |user: &u32| self.later.contains(&(*user, item)) && !(new_only && self.had.contains(&(*user, item)));
        self.users.iter().copied().filter(happened).collect()
    }

    /// The quarter that a user is in by events: as many bounds as it reaches.
    fn quarter(&self, user: u32) -> usize {
        let mut counts: Vec<f64> = self.users.iter().map(|user| Self::total(&self.count, *user)).collect();
        counts.sort_by(f64::total_cmp);
        (1..4).filter(|quarter| Self::total(&self.count, user) >= counts[counts.len() * quarter / 4]).count()
    }

    fn check(&self, found: &TimeEvaluation, ks: &[usize]) {
        assert_eq!((found.cut, found.horizon_seconds, found.k), (self.cut, self.horizon, self.k));
        assert_eq!((found.users, found.items), (self.users.len(), self.items.len()));
        assert_eq!((found.train_interactions, found.test_interactions), (self.train.len(), self.test.len()));
        let ks: Vec<usize> = [self.k].into_iter().chain(ks.iter().copied()).collect();
        self.check_view(&found.all_pairs, &ks, false);
        self.check_view(&found.new_pairs, &ks, true);
        self.check_concentration(found);
        self.check_calibration(found);
    }

    fn check_view(&self, view: &View, ks: &[usize], new_only: bool) {
        let truths: Vec<Vec<u32>> = self.items.iter().map(|item| self.truth(*item, new_only)).collect();
        let with_truth = truths.iter().filter(|truth| !truth.is_empty()).count();
        assert_eq!(view.truth, truths.iter().map(Vec::len).sum::<usize>());
        assert_eq!(view.items_with_truth, with_truth);
        assert_eq!(view.rankers.len(), RANKERS.len() * ks.len());
        for (at, ranker) in RANKERS.iter().enumerate().filter(|(_, ranker)| **ranker != "random") {
            let segments: Vec<Vec<u32>> = self.items.iter().map(|item| self.ranked(ranker, *item, new_only)).collect();
            for (place, k) in ks.iter().enumerate() {
                let quality = &view.rankers[at * ks.len() + place];
                assert_eq!((quality.ranker.as_str(), quality.k), (*ranker, *k));
                let (mut hits, mut recall, mut ndcg) = (0.0, 0.0, 0.0);
                for (segment, truth) in segments.iter().zip(&truths) {
                    let hit: Vec<usize> =
                        (0..segment.len().min(*k)).filter(|rank| truth.contains(&segment[*rank])).collect();
                    hits += hit.len() as f64;
                    if !truth.is_empty() {
                        let gain = |rank: usize| 1.0 / (rank as f64 + 2.0).log2();
                        recall += hit.len() as f64 / truth.len() as f64;
                        ndcg +=
                            hit.into_iter().map(gain).sum::<f64>() / (0..truth.len().min(*k)).map(gain).sum::<f64>();
                    }
                }
                let share = |sum: f64, of: usize| if of == 0 { 0.0 } else { sum / of as f64 };
                close(quality.precision, share(hits, k * self.items.len()), ranker);
                close(quality.recall, share(recall, with_truth), ranker);
                close(quality.ndcg, share(ndcg, with_truth), ranker);
                let inside = |interval: item_affinity_model::Interval, value: f64| {
                    interval.low <= value && value <= interval.high
                };
                assert!(
                    inside(quality.precision_interval, quality.precision)
                        && inside(quality.recall_interval, quality.recall)
                );
            }
            self.check_buckets(view, at, &segments, &truths);
        }
    }

    fn check_buckets(&self, view: &View, ranker: usize, segments: &[Vec<u32>], truths: &[Vec<u32>]) {
        let names = ["under 5 users", "5 to 19 users", "20 to 59 users", "60 to 299 users", "300 users or more"];
        let buyers = |item: u32| self.users.iter().filter(|user| self.had.contains(&(**user, item))).count();
        let bucket = |item: u32| [5, 20, 60, 300].iter().filter(|bound| buyers(item) >= **bound).count();
        let hits = |at: usize, user: &u32| segments[at].iter().take(self.k).any(|of| of == user);
        let mut seen = 0;
        for (of, name) in names.iter().enumerate() {
            let members: Vec<usize> = (0..self.items.len()).filter(|at| bucket(self.items[*at]) == of).collect();
            let found = view.by_item_popularity.iter().find(|bucket| bucket.name == *name);
            assert_eq!(found.map_or(0, |bucket| bucket.members), members.len());
            seen += members.len();
            let recalls: Vec<f64> = members
                .iter()
                .filter(|at| !truths[**at].is_empty())
                .map(|at| truths[*at].iter().filter(|user| hits(*at, user)).count() as f64 / truths[*at].len() as f64)
                .collect();
            if let Some(found) = found {
                close(found.recall[ranker], recalls.iter().sum::<f64>() / recalls.len().max(1) as f64, name);
            }
        }
        assert_eq!(seen, self.items.len());
        let quarters: BTreeMap<u32, usize> = self.users.iter().map(|user| (*user, self.quarter(*user))).collect();
        let names = ["least active quarter", "second quarter", "third quarter", "most active quarter"];
        for (of, name) in names.iter().enumerate() {
            let members = quarters.values().filter(|quarter| **quarter == of).count();
            let Some(found) = view.by_user_activity.iter().find(|bucket| bucket.name == *name) else {
                assert_eq!(members, 0);
                continue;
            };
            assert_eq!(found.members, members);
            let pairs = || {
                (0..truths.len())
                    .flat_map(|at| truths[at].iter().map(move |user| (at, *user)))
                    .filter(|pair| quarters[&pair.1] == of)
            };
            let hit = pairs().filter(|(at, user)| hits(*at, user)).count();
            close(found.recall[ranker], hit as f64 / pairs().count().max(1) as f64, name);
        }
    }

    fn check_concentration(&self, found: &TimeEvaluation) {
        let segments: Vec<Vec<u32>> =
            self.items.iter().map(|item| self.ranked("item_affinity", *item, false)).collect();
        let present: BTreeSet<u32> = segments.iter().flat_map(|segment| segment.iter().take(self.k).copied()).collect();
        close(found.users_in_any_segment, present.len() as f64 / self.users.len() as f64, "users in any segment");
        let most =
            self.users.iter().map(|user| segments.iter().filter(|segment| segment.first() == Some(user)).count()).max();
        close(found.most_frequent_leader, most.unwrap() as f64 / self.items.len() as f64, "leader");
    }

    fn check_calibration(&self, found: &TimeEvaluation) {
        let pairs = self.items.iter().flat_map(|item| self.users.iter().map(move |user| (*user, *item)));
        let mut pairs: Vec<(f32, bool)> =
            pairs.map(|(user, item)| (self.probability(user, item), self.later.contains(&(user, item)))).collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let n = pairs.len();
        let (mut error, mut predicted, mut observed) = (0.0, 0.0, 0.0);
        for bin in 0..10 {
            let part = &pairs[n * bin / 10..n * (bin + 1) / 10];
            let sum = part.iter().map(|pair| f64::from(pair.0)).sum::<f64>();
            let happened = part.iter().filter(|pair| pair.1).count() as f64;
            let found = found.calibration.bins[bin];
            assert_eq!(found.pairs, part.len());
            close(found.predicted, sum / part.len() as f64, "predicted");
            close(found.observed, happened / part.len() as f64, "observed");
            error += (sum - happened).abs() / n as f64;
            predicted += sum / n as f64;
            observed += happened / n as f64;
        }
        close(found.calibration.expected_calibration_error, error, "calibration error");
        close(found.calibration.mean_predicted, predicted, "mean predicted");
        close(found.calibration.mean_observed, observed, "mean observed");
    }
}

fn close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 1e-9 * (1.0 + expected.abs()), "{what}: {found} {expected}");
}

/// Days, so that times are equal or far apart.
fn by_day(events: Vec<Event>) -> Vec<Event> {
    events.into_iter().map(|event| (event.0, event.1, event.2 / DAY * DAY, event.3)).collect()
}

#[test]
fn planted_logs_give_the_figures_of_the_reference() {
    let events = by_day(shop(1, 350, 60, 300));
    let protocol = TimeProtocol { least_item_interactions: 10, ks: vec![1, 30, 1_000] };
    let found = evaluated(&small(), &protocol, 350, 60, &events);
    Reference::new(&small(), 10, 350, 60, &events).check(&found, &protocol.ks);
}

#[test]
fn random_logs_give_the_figures_of_the_reference() {
    for seed in 0..4 {
        let mut random = StdRng::seed_from_u64(seed);
        // Some users and items have no event, and many times are equal.
        let event = |random: &mut StdRng| {
            let most = random.random_range(1..120u32);
            let user = random.random_range(0..most);
            (user, random.random_range(0..25) * 2, i64::from(random.random_range(0..60u32)) * DAY, 1.0)
        };
        let events: Vec<Event> = (0..1_500).map(|_| event(&mut random)).collect();
        let least = [1, 5, 40, 60][seed as usize];
        let protocol = TimeProtocol { least_item_interactions: least, ks: vec![7] };
        let found = evaluated(&small(), &protocol, 130, 60, &events);
        Reference::new(&small(), least, 130, 60, &events).check(&found, &protocol.ks);
    }
}

#[test]
fn a_log_without_repeats_gives_the_figures_of_the_reference() {
    let mut seen = BTreeSet::new();
    let events: Vec<Event> =
        by_day(shop(2, 300, 50, 300)).into_iter().filter(|event| seen.insert((event.0, event.1))).collect();
    let found = evaluated(&small(), &TimeProtocol::default(), 300, 50, &events);
    Reference::new(&small(), 5, 300, 50, &events).check(&found, &[]);
    assert_eq!(found.all_pairs.truth, found.new_pairs.truth);
    assert!(found.warnings.iter().any(|warning| warning.contains("pairs with history")));
}

#[test]
fn chance_hits_as_often_as_it_must() {
    let events = by_day(shop(3, 1_500, 50, 300));
    let found = evaluated(&small(), &TimeProtocol { ks: vec![150], ..TimeProtocol::default() }, 1_500, 50, &events);
    let by_chance = found.all_pairs.rankers.iter().find(|of| of.ranker == "random" && of.k == 150).unwrap();
    let expected = found.all_pairs.truth as f64 / (found.users * found.items) as f64;
    assert!((by_chance.precision / expected - 1.0).abs() < 0.15, "{by_chance:?} {expected}");
    assert!((by_chance.recall - 150.0 / found.users as f64).abs() < 0.02);
}

#[test]
fn threads_never_show_in_the_figures() {
    let events = shop(4, 400, 80, 200);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| evaluated(&small(), &TimeProtocol::default(), 400, 80, &events))
    };
    let one = run(1);
    assert_eq!(run(3), one);
    let text = serde_json::to_string(&one).unwrap();
    assert_eq!(serde_json::from_str::<TimeEvaluation>(&text).unwrap(), one);
}

#[test]
fn nothing_to_judge_gives_zeros() {
    for events in [vec![], vec![(0, 0, 5, 1.0)], vec![(0, 0, 5, 1.0), (1, 1, 5, 1.0)]] {
        let found = evaluated(&small(), &TimeProtocol::default(), 3, 2, &events);
        assert_eq!((found.items, found.all_pairs.truth, found.new_pairs.truth), (0, 0, 0));
        assert!(found.all_pairs.rankers.iter().all(|of| of.precision == 0.0 && of.recall == 0.0 && of.ndcg == 0.0));
        assert_eq!((found.users_in_any_segment, found.most_frequent_leader), (0.0, 0.0));
    }
}
