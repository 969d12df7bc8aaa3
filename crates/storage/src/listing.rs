//! Which objects are the input.
use crate::{Location, Result, Stores};
use object_store::ObjectMeta;
/// One object to read, pinned as it was listed.
#[derive(Clone, Debug)]
pub struct InputFile {
    /// Where it is.
    pub location: Location,
    /// Size, ETag and time as listed.
    pub meta: ObjectMeta,
    /// Hive partitions of its path, outermost first; `None` is the null partition.
    pub partitions: Vec<(String, Option<String>)>,
}
/// The objects found at a location.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The objects, sorted by path.
    pub files: Vec<InputFile>,
    /// How many hidden and foreign objects were left out.
    pub ignored: usize,
}
/// Lists the Parquet objects at a file, a folder or a glob.
pub async fn list_parquet(_stores: &Stores, _location: &Location) -> Result<Listing> {
    todo!()
}
