//! A whole small object, for lists and settings.

use bytes::Bytes;
use object_store::ObjectStoreExt;

use crate::store_error::store_error;
use crate::{Error, Location, Result, Stores};

/// Reads an object of at most `limit` bytes whole.
///
/// # Errors
/// When it is not there or cannot be read; [`Error::TooLarge`] over the limit.
pub async fn read_small(stores: &Stores, location: &Location, limit: u64) -> Result<Bytes> {
    let store = stores.store(location)?;
    let failed = |error| store_error("GET", &location.to_string(), error);
    let found = store.get(location.path()).await.map_err(failed)?;
    if found.meta.size > limit {
        return Err(Error::TooLarge { file: location.to_string(), size: found.meta.size, limit });
    }
    found.bytes().await.map_err(failed)
}
