//! Locations, listing, Parquet footer preflight and versioned commits on any object store.
//!
//! Everything of this workspace that touches files goes through here; nothing here knows models or SQL.
//!
//! | To | Use |
//! | --- | --- |
//! | name a file, a folder or a bucket | [`Location`], [`Stores`] |
//! | say which of them may be reached | [`Roots`] |
//! | find input | [`list_parquet`]: files pinned with size and ETag, sorted by path |
//! | read input | [`open_parquet`]: footer checked before any reader sees it, decoder guarded, rows counted |
//! | read input that nobody vouches for | [`isolate_inputs`]: another process decodes it, which it may end |
//! | publish a version | [`Versions::begin`] or [`Versions::begin_alone`], [`Run::put`] or [`Run::writer`], [`Run::commit`] |
//! | read a version | [`Versions::resolve`], [`Versions::read_file`] |
//! | compare a version with its commit | [`Versions::verify`] |
//! | remove what nobody reads any more | [`Versions::collect`] |
//!
//! # Invariants
//!
//! - A version is visible when, and only when, its numbered commit object exists; that object is created once, names
//!   all files with size and SHA-256, and is never changed. Numbers have no gaps and are never used twice.
//! - The answer of a store to that creation is not trusted: the object is read back and its token compared.
//! - Files of a run lie under its random id and are never overwritten. Nothing in their names or bytes depends on the
//!   run, the time or the machine, so the same job writes the same files.
//! - On local disk everything that a commit names is on disk before the commit, and is private to its owner.
//! - An input that changes while it is read is an error, never a blend.
//! - No input makes this crate panic or reserve memory that the size of the input does not justify.
//! - Messages hold a code, the file and a cure; no secrets and no data.
//!
//! # Layout of a location
//!
//! ```text
//! _item_affinity/commits/00000000000000000007.json   makes version 7 visible
//! _item_affinity/runs/<run_id>/intent.json           written first, the lease of the run
//! _item_affinity/runs/<run_id>/metrics.json          how long it took and what it used
//! _item_affinity/latest.json                         a hint that nobody trusts
//! _item_affinity/forgotten/00000000000000000001.json who was forgotten, as salted hashes
//! versions/<run_id>/…  or  data/run=<run_id>/…       files of a version, complete before its commit
//! ```
//!
//! # Example
//!
//! ```
//! use item_affinity_storage::{Artifact, CommitBody, Location, Stores, Versions};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> item_affinity_storage::Result<()> {
//! let stores = Stores::in_memory();
//! let versions = Versions::new(&stores, Location::parse("memory:///affinity")?, Artifact::SolutionVersion)?;
//! assert_eq!(versions.latest().await?, None);
//!
//! let run = versions.begin().await?;
//! run.put("model.json", "{}".into(), None).await?;
//! let committed = run.commit(CommitBody { job_key: "key of the job".into(), ..CommitBody::default() }).await?;
//! assert_eq!(committed.version, 1);
//!
//! let latest = versions.resolve(None).await?;
//! assert_eq!(latest, committed);
//! assert_eq!(versions.read_file(&latest.files[0]).await?, "{}");
//! # Ok(())
//! # }
//! ```

mod commit;
mod copy_out;
mod delta_listing;
#[cfg(feature = "delta")]
mod delta_table;
mod durable;
mod error;
mod file_mode;
mod file_writer;
mod folder;
mod footer;
mod footer_shapes;
mod garbage;
mod http_client;
mod isolated;
mod job_name;
mod lease;
mod listing;
mod local_walk;
mod location;
mod manifest;
mod metrics;
mod new_file;
mod object_chunks;
mod pages;
mod parquet_fault;
mod parquet_input;
mod pattern;
mod pinned;
mod pinned_reader;
mod preflight;
mod publish;
mod read_small;
mod registry;
mod remote_file;
mod roots;
mod run;
mod run_member;
mod s3;
mod s3_uploads;
mod schema_tree;
mod store_error;
mod thrift;
mod tombstones;
mod travelled_file;
mod uploads;
mod verify;
mod who;
mod whole_answers;

pub use bytes::Bytes;
pub use commit::{Artifact, Versions};
pub use delta_listing::LoggedTable;
#[cfg(feature = "delta")]
pub use delta_table::{DeltaChange, DeltaFile, DeltaTable, NewDeltaTable};
pub use error::{Error, ErrorKind, Result};
pub use file_mode::FileMode;
pub use file_writer::FileWriter;
pub use footer::Footer;
pub use garbage::{Collected, Collection, Reason, Retention};
pub use isolated::{DECODE_COMMAND, isolate_inputs, serve_decoding};
pub use job_name::{InvalidJobName, JobName};
pub use listing::{FileKind, InputFile, Listing, list_files, list_parquet};
pub use location::Location;
pub use manifest::{Commit, CommitBody, FileEntry, InputPin, SolutionPin, sha256 as sha256_hex};
pub use new_file::{NewFile, check_new_file, write_new_file};
pub use object_chunks::object_chunks;
pub use parquet_fault::ParquetFault;
pub use parquet_input::{Batches, ParquetInput, open_parquet};
pub use pinned::check_unchanged;
pub use preflight::{check_footer, preflight};
pub use read_small::read_small;
pub use registry::Stores;
pub use roots::Roots;
pub use run::Run;
pub use run_member::RunMember;
pub use store_error::from_object_store;
pub use tombstones::Tombstones;
pub use travelled_file::TravelledFile;
pub use uploads::{OpenUpload, UploadCollection};
pub use verify::Verified;
pub use who::Security;
