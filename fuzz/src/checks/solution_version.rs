//! Solution versions from somebody who can write whole commits: every checksum is right, and one file is not.

use item_affinity_solution::SolutionVersion;
use item_affinity_storage::{Bytes, Stores};

use super::small_version::{self, FILES};

/// The first byte chooses a file of a small version, the rest stands in its place.
///
/// The version is refused, or all of it can be read and its numbers are finite.
pub fn check(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    let mut files = FILES.clone();
    let which = usize::from(*which) % files.len();
    files[which].bytes = Bytes::copy_from_slice(bytes);
    if let Err(error) = super::block_on(read(&files)) {
        super::told(error.kind(), &error);
    }
}

async fn read(files: &[small_version::File]) -> item_affinity_solution::Result<()> {
    let stores = Stores::in_memory();
    let reference = small_version::commit(&stores, files).await;
    let version = SolutionVersion::open(&stores, &reference).await?;
    let users = version.user_states(&stores).await?;
    let items: Vec<u32> = (0..).take(version.items.ids.len()).collect();
    let history = version.item_history(&stores, &items).await?;
    let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
    assert!(version.items.factors.iter().chain(&users.factors).all(|value| value.is_finite()));
    assert!(finite(&version.items.log_odds) && finite(&users.log_odds));
    assert_eq!((history.log_odds.rows(), history.log_odds.columns()), (items.len(), users.ids.len()));
    Ok(())
}

/// The version as it was trained is taken: what is found with one other file is found in that file.
pub fn check_that_the_version_is_whole() {
    super::block_on(read(&FILES)).expect("the version as it was trained");
}
