//! Locations, listing, Parquet footer preflight and versioned commits on any object store.

mod commit;
mod error;
mod file_writer;
mod listing;
mod local_walk;
mod location;
mod manifest;
mod parquet_input;
mod pattern;
mod pinned;
mod preflight;
mod registry;
mod run;
mod s3;
mod store_error;
mod thrift;

pub use commit::{Artifact, Versions};
pub use error::{Error, ErrorKind, ParquetFault, Result};
pub use file_writer::FileWriter;
pub use listing::{InputFile, Listing, list_parquet};
pub use location::Location;
pub use manifest::{Commit, CommitBody, FileEntry, InputPin, SolutionPin};
pub use parquet_input::{Batches, ParquetInput, open_parquet};
pub use preflight::{Footer, check_footer, preflight};
pub use registry::Stores;
pub use run::Run;
