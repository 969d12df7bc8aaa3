#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]

use ndarray::Array2;

use super::*;
use crate::attributes::{AttributeColumn, Attributes, Encoding};

fn sparse(rows: usize, columns: usize, value: impl Fn(usize, usize) -> f32) -> Csr {
    let (mut indptr, mut indices, mut values) = (vec![0], vec![], vec![]);
    for row in 0..rows {
        for column in (0..columns).filter(|column| value(row, *column) != 0.0) {
            indices.push(column as u32);
            values.push(value(row, column));
        }
        indptr.push(indices.len());
    }
    Csr::new(indptr, indices, values, columns).unwrap()
}

fn attributes(rows: usize, features: usize, value: impl Fn(usize, usize) -> f32) -> Attributes {
    let encoding = || Encoding::Number { mean: 0.0, deviation: 1.0 };
    let column = |n| AttributeColumn { name: format!("c{n}"), encoding: encoding() };
    Attributes::new(sparse(rows, features, value), (0..features).map(column).collect()).unwrap()
}

fn chance(seed: usize) -> f64 {
    let mut hash = (seed as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    hash = (hash ^ (hash >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

const USERS: usize = 600;
const ITEMS: usize = 300;
const KINDS: usize = 12;

/// Users like one kind of items; an item has few pairs, so that its kind is hard to see without the attribute.
fn liked(user: usize, item: usize, seed: usize) -> bool {
    let odds = if user % KINDS == item % KINDS { 0.12 } else { 0.002 };
    chance(seed + user * ITEMS + item) < odds
}

fn chosen(side: SideInformation) -> (SideInformation, SideChoice) {
    let known = sparse(USERS, ITEMS, |user, item| f32::from(u8::from(liked(user, item, 1))));
    let held_out = sparse(USERS, ITEMS, |user, item| f32::from(u8::from(liked(user, item, 1_000_000))));
    choose_side_information(&ItemAffinity::default(), &known, &held_out, side, &mut |_| ControlFlow::Continue(()))
        .unwrap()
}

fn kinds(rows: usize) -> Option<Attributes> {
    Some(attributes(rows, KINDS, |row, kind| f32::from(u8::from(row % KINDS == kind))))
}

fn noise(rows: usize) -> Option<Attributes> {
    Some(attributes(rows, KINDS, |row, kind| f32::from(u8::from((chance(row * 7 + 3) * 12.0) as usize == kind))))
}

#[test]
fn attributes_that_tell_the_kind_are_kept_and_noise_is_dropped() {
    let (kept, choice) = chosen(SideInformation { items: kinds(ITEMS), users: noise(USERS) });
    let (items, users) = (choice.items.unwrap(), choice.users.unwrap());
    assert!(items.used && items.certainty > 5.0, "{items:?}");
    assert!(!users.used, "{users:?}");
    assert!(kept.items.is_some() && kept.users.is_none());
    let (kept, choice) = chosen(SideInformation { items: noise(ITEMS), users: None });
    assert_eq!((kept.items, choice.items.unwrap().used, choice.users), (None, false, None));
}

#[test]
fn without_held_out_pairs_nothing_is_kept() {
    let known = sparse(30, 20, |user, item| f32::from(u8::from(user % 4 == item % 4)));
    let none = sparse(30, 20, |_, _| 0.0);
    let side = SideInformation { items: kinds(20), users: kinds(30) };
    let mut go_on = |_| ControlFlow::Continue(());
    // All held-out pairs are known, or there are none at all.
    for held_out in [&none, &known] {
        let recipe = ItemAffinity::default();
        let (kept, choice) = choose_side_information(&recipe, &known, held_out, side.clone(), &mut go_on).unwrap();
        assert_eq!(kept, SideInformation::default());
        let items = choice.items.unwrap();
        assert_eq!((items.used, items.pairs, items.with), (false, 0, 0.0));
    }
}

#[test]
fn nothing_to_choose_from_costs_no_fit() {
    let known = sparse(3, 2, |_, _| 1.0);
    let mut never = |_| ControlFlow::Break(());
    let recipe = ItemAffinity::default();
    let nothing = choose_side_information(&recipe, &known, &known, SideInformation::default(), &mut never).unwrap();
    assert_eq!(nothing, (SideInformation::default(), SideChoice::default()));
}

#[test]
fn the_measure_by_hand() {
    // Two items; user 0 is new to item 1 and ranked second of three, so k / (k + r) = 1 / (1 + 1).
    let known = sparse(4, 2, |user, item| f32::from(u8::from(item == 0 || user == 3)));
    let held_out = sparse(4, 2, |user, item| f32::from(u8::from(item == 1 && user == 0)));
    let by_item = known.transpose();
    let sample = Sample::new(&known, &by_item, &held_out, 1);
    assert_eq!(sample.items, [(1, vec![0])]);
    let factors = Factors {
        user_factors: Array2::from_shape_vec((4, 1), vec![0.5, 0.9, 0.1, 7.0]).unwrap(),
        item_factors: Array2::ones((2, 1)),
        loss: vec![],
        item_weights: None,
        user_weights: None,
    };
    assert_eq!(sample.measure(&factors, &by_item).unwrap(), [0.5]);
}
