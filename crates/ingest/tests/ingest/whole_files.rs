//! Files that are not what they should be, and stores of other kinds.

use std::sync::Mutex;

use item_affinity_ingest::{InteractionsSource, ReadProgress, read_interactions};
use item_affinity_storage::{ErrorKind, Location, Stores};
use object_store::ObjectStoreExt;
use parquet::file::properties::WriterProperties;

use crate::files::{Folder, batch, codes, events, few, parquet_bytes, wait};

#[test]
fn a_file_without_rows_is_an_error_alone_and_harmless_beside_others() {
    let empty = batch(&few()).slice(0, 0);
    let folder = Folder::of(&empty);
    assert_eq!(
        folder.refusal(),
        "ERR_NO_INTERACTIONS: 1 file without a row; file=<folder>part.parquet; training needs at least 1000 interactions \
         of 25 users"
    );
    folder.write("second.parquet", &batch(&few()));
    assert_eq!(folder.read().unwrap().interactions.len(), 4);
}

#[test]
fn a_zero_byte_file_and_a_file_that_is_no_parquet_are_refused() {
    let folder = Folder::of(&batch(&few()));
    folder.write_bytes("broken.parquet", b"");
    assert!(folder.refusal().starts_with("ERR_EMPTY_OBJECT: "), "{}", folder.refusal());
    folder.write_bytes("broken.parquet", b"user_id,item_id,timestamp\nu1,i1,1700000000\n");
    assert!(folder.refusal().starts_with("ERR_NOT_PARQUET: "), "{}", folder.refusal());
    assert_eq!(folder.read().unwrap_err().kind(), ErrorKind::BadInput);
}

#[test]
fn a_file_cut_off_anywhere_is_an_error() {
    let folder = Folder::new();
    let bytes = parquet_bytes(&batch(&few()), WriterProperties::default());
    for cut in (1..bytes.len()).step_by(97) {
        folder.write_bytes("cut.parquet", &bytes[..cut]);
        assert!(folder.refusal().contains("file=<folder>cut.parquet"), "{cut}: {}", folder.refusal());
    }
}

#[test]
fn hidden_and_foreign_files_are_left_out_and_said() {
    let folder = Folder::of(&batch(&few()));
    folder.write_bytes("_SUCCESS", b"");
    folder.write_bytes("notes.txt", b"hello");
    let ingested = folder.read().unwrap();
    assert_eq!(codes(&ingested), ["FILES_IGNORED"]);
    assert_eq!(ingested.inputs.len(), 1);
}

#[test]
fn nothing_at_a_location_is_an_error_that_names_it() {
    let folder = Folder::new();
    let message = folder.refusal();
    assert!(message.starts_with("ERR_NO_INPUT: "), "{message}");
    assert!(message.contains("<folder>"), "{message}");
}

#[test]
fn an_object_store_reads_like_a_folder_on_one_thread_too() {
    let stores = Stores::in_memory();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for part in 0..3 {
            let location = Location::parse(&format!("memory:///lake/day={part}/part.parquet")).unwrap();
            let bytes = bytes::Bytes::from(parquet_bytes(&batch(&few()), WriterProperties::default()));
            stores.store(&location).unwrap().put(location.path(), bytes.into()).await.unwrap();
        }
        let source = InteractionsSource::new(vec![Location::parse("memory:///lake/").unwrap()]);
        let ingested = read_interactions(&stores, &source, &|_| {}).await.unwrap();
        assert_eq!(events(&ingested).len(), 12);
    });
}

#[test]
fn progress_reaches_the_number_of_rows() {
    let folder = Folder::of(&batch(&few()));
    folder.write("second.parquet", &batch(&few()));
    let seen = Mutex::new(Vec::new());
    let observer = |progress: ReadProgress| seen.lock().unwrap().push(progress);
    wait(read_interactions(&Stores::in_memory(), &folder.source(), &observer)).unwrap();
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.last(), Some(&ReadProgress { rows: 8, total_rows: 8 }));
    assert!(seen.is_sorted_by_key(|progress| progress.rows));
}

#[test]
fn a_read_can_be_moved_between_threads_and_dropped() {
    fn movable<T: Send>(value: T) -> T {
        value
    }
    let folder = Folder::of(&batch(&few()));
    let (stores, source) = (Stores::in_memory(), folder.source());
    wait(async {
        let read = movable(read_interactions(&stores, &source, &|_| {}));
        drop(read);
        assert_eq!(movable(read_interactions(&stores, &source, &|_| {})).await.unwrap().interactions.len(), 4);
    });
}
