//! What the segments of a run do to a Delta table that has some.

/// What the rows of a run replace. Each run is one commit to the log of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeltaMode {
    /// Nothing: they are added.
    #[default]
    Append,
    /// All rows of the same solution version.
    ReplaceVersion,
    /// The rows of the same items, whatever version they are of.
    ReplaceItems,
}

/// In the details of a commit: the least and the greatest item with a segment.
pub(crate) const FIRST_ITEM: &str = "first_item";
pub(crate) const LAST_ITEM: &str = "last_item";
