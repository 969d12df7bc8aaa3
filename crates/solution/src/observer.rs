//! What a job tells about itself while it runs.

/// A step of a job: what is being done, and in which unit it is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stage {
    /// What is being done, as a person reads it: `reading interactions`.
    pub name: &'static str,
    /// What is counted, in the plural: `rows`, `iterations`, `files`.
    pub unit: &'static str,
    /// How many of them there are, when known from the start.
    pub total: Option<u64>,
}

impl Stage {
    /// Describes a step; `total` may also come later with [`Observer::advance`].
    #[must_use]
    pub const fn new(name: &'static str, unit: &'static str, total: Option<u64>) -> Self {
        Self { name, unit, total }
    }
}

/// Watches a job: progress bars, log lines, or nothing.
///
/// The calls come from any thread, some of them from the middle of a computation: they must return at once. No call
/// ever carries a user id.
pub trait Observer: Send + Sync {
    /// A step begins, and the one before it has ended.
    fn stage(&self, stage: Stage) {
        let _ = stage;
    }

    /// `done` units of the current step are done, of `total` when that is known by now.
    fn advance(&self, done: u64, total: Option<u64>) {
        let _ = (done, total);
    }

    /// Something that a person wants to know, such as how long the next step takes.
    fn note(&self, text: &str) {
        let _ = text;
    }

    /// Something odd that does not stop the job.
    fn warning(&self, text: &str) {
        let _ = text;
    }
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
