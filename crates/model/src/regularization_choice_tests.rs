#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// Groups of six items; users of a few groups each, who take some of their items before the window and the rest in it.
fn chosen(users: usize, groups: u32, each: usize) -> f32 {
    let mut random = StdRng::seed_from_u64(3);
    let (mut known, mut held_out) = (vec![Vec::new(); users], vec![Vec::new(); users]);
    for (known, held_out) in known.iter_mut().zip(&mut held_out) {
        for group in (0..each).map(|_| random.random_range(0..groups)).collect::<BTreeSet<_>>() {
            for item in group * 6..group * 6 + 6 {
                if random.random_bool(0.6) { known.push(item) } else { held_out.push(item) }
            }
        }
    }
    let matrix = |rows: &[Vec<u32>]| {
        let mut indptr = vec![0];
        indptr.extend(rows.iter().scan(0, |end, row| {
            *end += row.len();
            Some(*end)
        }));
        let indices = rows.concat();
        let values = vec![1.0; indices.len()];
        Csr::new(indptr, indices, values, groups as usize * 6).unwrap()
    };
    let recipe = ItemAffinity { hidden_dimension: 64, ..ItemAffinity::default() };
    choose_regularization(&recipe, &matrix(&known), &matrix(&held_out), &mut |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn the_regularization_is_the_one_that_the_window_asks_for() {
    let found = [chosen(800, 60, 4), chosen(2_000, 300, 6)];
    // With few groups the usual pull learns them; with many it takes the last of them for chance.
    assert_eq!(found, [REGULARIZATION, WEAKER_REGULARIZATION]);
}
