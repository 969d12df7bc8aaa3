//! The bytes of a pinned object from its first to its last, for formats that are read in one go.

use futures::stream::{BoxStream, StreamExt, try_unfold};

use crate::pinned::Pinned;
use crate::{Bytes, InputFile, Result, Stores};

/// Bytes of one request.
const CHUNK: u64 = 8 << 20;

/// Streams an object in its order; an object that changes meanwhile is an error, never a blend.
///
/// # Errors
/// When the location has no store. Items of the stream are errors for an object that changed, and what the store
/// answered.
pub fn object_chunks(stores: &Stores, file: &InputFile) -> Result<BoxStream<'static, Result<Bytes>>> {
    let object = Pinned::new(stores.store(&file.location)?, file);
    Ok(try_unfold((object, 0), |(object, at)| async move {
        if at >= object.size() {
            object.still_the_same().await?;
            return Ok(None);
        }
        let end = object.size().min(at + CHUNK);
        let bytes = object.read(at..end).await?;
        Ok(Some((bytes, (object, end))))
    })
    .boxed())
}
