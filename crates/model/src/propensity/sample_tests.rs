#![allow(clippy::unwrap_used, clippy::cast_precision_loss, clippy::cast_possible_truncation)]

use std::collections::BTreeSet;

use super::*;
use crate::vocabulary::Vocabulary;

const USERS: u32 = 400;
const ITEMS: u32 = 60;

type UserItems = BTreeSet<(u32, u32)>;

fn ids(count: u32) -> Vocabulary {
    Vocabulary::from_sorted((0..count).map(|n| format!("{n:04}"))).unwrap()
}

fn log(pairs: &BTreeSet<(u32, u32)>) -> Interactions {
    let (users, items) = pairs.iter().copied().unzip();
    Interactions::new(ids(USERS), ids(ITEMS), users, items, vec![0; pairs.len()], vec![1.0; pairs.len()]).unwrap()
}

/// Known pairs and pairs of the window. The last 20 users and the last 4 items are new in the window, and the items
/// 50 to 55 have fewer users than an item must have had.
fn planted() -> (UserItems, UserItems) {
    let all = || (0..USERS).flat_map(|user| (0..ITEMS).map(move |item| (user, item)));
    let chance = |seed: u64, pair: &(u32, u32)| uniform(seed, pair.0, pair.1);
    let known = all().filter(|pair| pair.0 < 380 && pair.1 < 50 && chance(1, pair) < 0.2);
    let known: BTreeSet<_> = known.chain((50..56).flat_map(|item| (0..4).map(move |user| (user, item)))).collect();
    let later = all().filter(|pair| chance(2, pair) < if known.contains(pair) { 0.3 } else { 0.05 }).collect();
    (known, later)
}

fn drawn(caps: Caps) -> (Pairs, Pairs) {
    let (known, later) = planted();
    let (known, later) = (log(&known), log(&later));
    draw(&known, &known.pairs(None).unwrap(), &later.pairs(None).unwrap(), caps, 77)
}

/// Positive and negative pairs of known users and items, with or without history.
fn expected(with_history: bool) -> [BTreeSet<(u32, u32)>; 2] {
    let (known, later) = planted();
    let users: BTreeSet<u32> = known.iter().map(|pair| pair.0).collect();
    let item = |item: u32| known.iter().filter(|pair| pair.1 == item).count() >= 5;
    let items: Vec<u32> = (0..ITEMS).filter(|of| item(*of)).collect();
    let pairs = users.iter().flat_map(|user| items.iter().map(move |item| (*user, *item)));
    let (positive, negative) =
        pairs.filter(|pair| known.contains(pair) == with_history).partition(|pair| later.contains(pair));
    [positive, negative]
}

fn of_label(pairs: &Pairs, label: bool) -> Vec<(u32, u32)> {
    pairs.drawn.iter().filter(|pair| pair.label == label).map(|pair| (pair.user, pair.item)).collect()
}

fn weights(pairs: &Pairs) -> [f64; 2] {
    let mut sample = Sample::new(1, 0);
    pairs.drawn.iter().for_each(|pair| sample.push(&[0.0], pair.label, 1.0, pair.user));
    pairs.weigh(&mut sample);
    [true, false].map(|label| sample.total_weight(label))
}

#[test]
fn without_caps_all_pairs_are_drawn_that_can_be() {
    let (new, repeat) = drawn(Caps { new: 1e9, repeat: 1e9 });
    let [positive, negative] = expected(true);
    assert_eq!((repeat.positives, repeat.pairs), (positive.len() as u64, (positive.len() + negative.len()) as u64));
    assert_eq!(of_label(&repeat, true).into_iter().collect::<BTreeSet<_>>(), positive);
    assert_eq!(of_label(&repeat, false).into_iter().collect::<BTreeSet<_>>(), negative);
    assert_eq!(repeat.drawn.len(), positive.len() + negative.len());
    let [positive, negative] = expected(false);
    assert_eq!((new.positives, new.pairs), (positive.len() as u64, (positive.len() + negative.len()) as u64));
    assert_eq!(of_label(&new, true).into_iter().collect::<BTreeSet<_>>(), positive);
    // Negatives are met by chance, some of them more than once.
    assert_eq!(of_label(&new, false).len(), negative.len());
    assert!(of_label(&new, false).iter().all(|pair| negative.contains(pair)));
}

#[test]
fn caps_thin_the_pairs_and_weights_make_up_for_it() {
    for cap in [50.0, 200.0, 600.0] {
        let (new, repeat) = drawn(Caps { new: cap, repeat: cap });
        for (pairs, with_history) in [(&new, false), (&repeat, true)] {
            let [positive, negative] = expected(with_history).map(|pairs| pairs.len() as f64);
            for (label, of) in [(true, positive), (false, negative)] {
                let count = of_label(pairs, label).len() as f64;
                let wanted = of.min(cap);
                assert!((count - wanted).abs() <= 4.0 * wanted.sqrt(), "{label} {count} {wanted}");
            }
            let [of_positive, of_negative] = weights(pairs);
            assert!((of_positive - positive).abs() < 1e-6 && (of_negative - negative).abs() < 1e-6);
            for part in [pairs.thinned(60), pairs.of_some_users(60, USERS as usize).0] {
                assert!(part.drawn.len() < 120 && !part.drawn.is_empty());
                let [of_positive, of_negative] = weights(&part);
                assert!((of_positive - positive).abs() < 1e-6 && (of_negative - negative).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn a_draw_depends_on_the_seed_alone_and_some_users_come_whole() {
    let caps = Caps { new: 300.0, repeat: 300.0 };
    let (new, repeat) = drawn(caps);
    let (again, _) = drawn(caps);
    assert_eq!(new.drawn, again.drawn);
    let (part, chosen) = repeat.of_some_users(100, USERS as usize);
    let whole: Vec<Drawn> = repeat.drawn.iter().filter(|pair| chosen[pair.user as usize]).copied().collect();
    assert_eq!(part.drawn, whole);
}

#[test]
fn without_anything_nothing_is_drawn() {
    let none = log(&BTreeSet::new());
    let empty = none.pairs(None).unwrap();
    let (new, repeat) = draw(&none, &empty, &empty, CAPS, 1);
    assert!(new.drawn.is_empty() && repeat.drawn.is_empty());
    assert_eq!((new.pairs, new.positives, repeat.pairs, repeat.positives), (0, 0, 0, 0));
}
