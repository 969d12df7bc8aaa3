//! How many rows a batch may have, so that no string array passes 2 GiB.

use datafusion::prelude::SessionConfig;

/// The most rows of a batch with ids.
pub(crate) const MOST_ROWS: usize = 1 << 20;

/// Rows of a batch: what the session says, within what strings allow. A session of [`session`](crate::session()) refuses
/// more, see `checked_settings.rs`; a session of others, with the plugin registered in it, may say any number. No id of a
/// solution version is longer than [`MOST_ID_BYTES`](item_affinity_solution::MOST_ID_BYTES).
pub(crate) fn batch_rows(config: &SessionConfig) -> usize {
    config.batch_size().clamp(1, MOST_ROWS)
}

#[cfg(test)]
mod tests {
    use item_affinity_solution::MOST_ID_BYTES;

    use super::*;

    #[test]
    fn p24_the_ids_of_a_batch_stay_below_2_gib_whatever_a_session_of_others_says() {
        for (said, rows) in
            [(1, 1), (8_192, 8_192), (1 << 20, 1 << 20), ((1 << 20) + 1, 1 << 20), (usize::MAX, 1 << 20)]
        {
            let found = batch_rows(&SessionConfig::new().with_batch_size(said));
            assert_eq!(found, rows);
            let bytes = found.checked_mul(MOST_ID_BYTES).and_then(|bytes| i32::try_from(bytes).ok());
            assert!(bytes.is_some_and(|bytes| bytes <= i32::MAX / 2 + 1), "{bytes:?}");
        }
    }
}
