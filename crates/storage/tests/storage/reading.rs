//! Reading pinned Parquet objects.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::DataType;
use futures::{StreamExt, TryStreamExt};
use item_affinity_storage::{
    Error, ErrorKind, InputFile, Location, ParquetFault, ParquetInput, Result, Stores, check_footer, list_parquet,
    open_parquet,
};
use object_store::{ObjectStoreExt, PutPayload};
use parquet::arrow::async_writer::AsyncArrowWriter;

use crate::parquet_files::{Options, sample, write};

pub(crate) async fn store(stores: &Stores, text: &str, bytes: Vec<u8>) -> InputFile {
    let location = Location::parse(text).unwrap();
    let store = stores.store(&location).unwrap();
    store.put(location.path(), PutPayload::from(bytes)).await.unwrap();
    list_parquet(stores, &location).await.unwrap().files.remove(0)
}

async fn open(bytes: Vec<u8>) -> Result<ParquetInput> {
    let stores = Stores::in_memory();
    let file = store(&stores, "memory:///in/x.parquet", bytes).await;
    open_parquet(&stores, &file).await
}

async fn rows(input: ParquetInput, columns: &[usize]) -> Result<usize> {
    let batches: Vec<RecordBatch> = input.stream(columns, 1_024).await?.try_collect().await?;
    Ok(batches.iter().map(RecordBatch::num_rows).sum())
}

#[tokio::test]
async fn batches_are_what_was_written() {
    let batch = sample(2_500);
    let input = open(write(&batch, &Options::default())).await.unwrap();
    assert_eq!((input.rows(), input.row_groups()), (2_500, 3));
    assert_eq!((input.row_group_rows(0), input.row_group_rows(2), input.row_group_rows(3)), (1_000, 500, 0));
    assert_eq!(input.schema().fields().len(), 4);
    let all: Vec<_> = input.clone().stream(&[0, 1, 2, 3], 300).await.unwrap().try_collect().await.unwrap();
    assert!(all.iter().all(|b| b.num_rows() <= 300));
    assert_eq!(concat_batches(&batch.schema(), &all).unwrap(), batch);
    let some: Vec<_> = input.stream_row_groups(&[2], &[1, 3], 300).await.unwrap().try_collect().await.unwrap();
    let some = concat_batches(&some[0].schema(), &some).unwrap();
    assert_eq!(some, batch.project(&[1, 3]).unwrap().slice(2_000, 500));
}

#[tokio::test]
async fn footer_longer_than_the_first_read_is_read_whole() {
    let batch = sample(20_000);
    let bytes = write(&batch, &Options { row_group: 20, ..Options::default() });
    let stores = Stores::in_memory();
    let file = store(&stores, "memory:///in/x.parquet", bytes).await;
    let backend = stores.store(&file.location).unwrap();
    let footer = check_footer(&backend, &file).await.unwrap();
    assert_eq!((footer.rows, footer.row_groups), (20_000, 1_000));
    assert_eq!(rows(open_parquet(&stores, &file).await.unwrap(), &[1]).await.unwrap(), 20_000);
}

#[tokio::test]
async fn string_column_is_read_as_a_dictionary_where_it_is_one() {
    let batch = sample(2_500);
    let as_dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    for (dictionary, expected) in [(true, &as_dictionary), (false, batch.column(0).data_type())] {
        let bytes = write(&batch, &Options { dictionary, ..Options::default() });
        let input = open(bytes).await.unwrap().with_dictionary(0).unwrap().with_dictionary(1).unwrap();
        assert_eq!(input.schema().field(0).data_type(), expected);
        assert_eq!(input.schema().field(1).data_type(), &DataType::Int64);
        let mut from = 0;
        let mut stream = input.stream(&[0], 300).await.unwrap();
        while let Some(read) = stream.try_next().await.unwrap() {
            assert_eq!(read.column(0).data_type(), expected);
            let plain = cast(read.column(0), &DataType::Utf8).unwrap();
            assert_eq!(plain.as_ref(), batch.column(0).slice(from, read.num_rows()).as_ref());
            from += read.num_rows();
        }
        assert_eq!(from, 2_500);
    }
}

#[tokio::test]
async fn two_row_groups_can_be_read_at_once() {
    let input = open(write(&sample(2_000), &Options::default())).await.unwrap();
    let streams = futures::future::join_all([0, 1].map(|group| {
        let input = input.clone();
        async move { input.stream_row_groups(&[group], &[0, 1], 100).await.unwrap().try_collect::<Vec<_>>().await }
    }));
    let rows: usize = streams.await.into_iter().flat_map(Result::unwrap).map(|b| b.num_rows()).sum();
    assert_eq!(rows, 2_000);
    assert_eq!(input.stream_row_groups(&[2], &[0], 100).await.err().unwrap().kind(), ErrorKind::Bug);
}

fn fault_of(error: &Error) -> ParquetFault {
    match error {
        Error::Parquet { fault, .. } => *fault,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn file_replaced_while_it_is_read_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let on_disk = dir.path().join("x.parquet").to_str().unwrap().to_owned();
    for place in ["memory:///in/x.parquet".to_owned(), on_disk] {
        let stores = Stores::in_memory();
        let bytes = write(&sample(3_000), &Options::default());
        let file = store(&stores, &place, bytes.clone()).await;
        let input = open_parquet(&stores, &file).await.unwrap();
        let mut stream = input.stream(&[0, 1], 100).await.unwrap();
        stream.next().await.unwrap().unwrap();
        // The same bytes, but another object: even that may be half of an upload.
        store(&stores, &place, bytes).await;
        let error = loop {
            match stream.next().await.expect("an error before the end") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(fault_of(&error), ParquetFault::InputChanged, "{error}");
        assert!(error.to_string().contains(&format!("file={place}")), "{error}");
        assert!(stream.next().await.is_none());
        let error = open_parquet(&stores, &file).await.unwrap_err();
        assert_eq!(fault_of(&error), ParquetFault::InputChanged);
        stores.store(&file.location).unwrap().delete(file.location.path()).await.unwrap();
        let error = open_parquet(&stores, &file).await.unwrap_err();
        assert!(error.to_string().contains("the object is gone after it was listed"), "{error}");
    }
}

#[tokio::test]
async fn file_changed_in_place_after_the_last_read_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let stores = Stores::in_memory();
    let bytes = write(&sample(100), &Options::default());
    let file = store(&stores, path.to_str().unwrap(), bytes.clone()).await;
    let mut stream = open_parquet(&stores, &file).await.unwrap().stream(&[0], 10).await.unwrap();
    stream.next().await.unwrap().unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let results: Vec<_> = stream.collect().await;
    assert_eq!(fault_of(results.last().unwrap().as_ref().unwrap_err()), ParquetFault::InputChanged);
}

#[tokio::test]
async fn columns_over_the_decoded_budget_are_a_limit_error_and_others_are_not() {
    let input = open(write(&sample(3_000), &Options { dictionary: false, ..Options::default() })).await.unwrap();
    let (user, time) = (input.uncompressed_bytes(&[0]), input.uncompressed_bytes(&[1]));
    assert!(user > 3_000 * 4 && time > 0 && input.uncompressed_bytes(&[0, 1]) == user + time);
    let input = input.with_decoded_budget(user - 1);
    let error = input.clone().stream(&[0], 100).await.err().unwrap();
    assert_eq!((fault_of(&error), error.kind()), (ParquetFault::DecodedBudget, ErrorKind::Limit));
    assert_eq!(rows(input.with_decoded_budget(time), &[1]).await.unwrap(), 3_000);
}

#[tokio::test]
async fn foreign_codec_matters_only_for_the_columns_that_are_read() {
    // The codec of the first chunk becomes LZO: its field is the zigzag of 3 after the path of the column.
    let mut bytes = write(&sample(10), &Options::default());
    let at = bytes.windows(10).rposition(|w| w == b"\x18\x07USER_ID\x15").expect("the path in the footer");
    assert_eq!(bytes[at + 10], 0);
    bytes[at + 10] = 6;
    let Ok(input) = open(bytes).await else { panic!("the footer is still whole") };
    let error = input.clone().stream(&[0], 100).await.err().unwrap();
    assert_eq!(fault_of(&error), ParquetFault::Codec);
    assert!(error.to_string().contains("compressed with lzo; file=memory:///in/x.parquet column=USER_ID"), "{error}");
    assert_eq!(rows(input, &[1]).await.unwrap(), 10);
}

#[tokio::test]
async fn every_flipped_bit_gives_rows_or_an_error_but_no_panic() {
    let good = write(&sample(40), &Options::default());
    for at in (0..good.len()).step_by(3) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        if let Ok(input) = open(bytes).await
            && let Ok(rows) = rows(input, &[0, 1, 2, 3]).await
        {
            assert_eq!(rows, 40, "byte {at}");
        }
    }
}

#[tokio::test]
async fn arrow_writer_streams_into_a_run() {
    use item_affinity_storage::{Artifact, CommitBody, Versions};
    let stores = Stores::in_memory();
    let versions = Versions::new(&stores, Location::parse("memory:///out").unwrap(), Artifact::Segments).unwrap();
    let run = versions.begin().await.unwrap();
    let batch = sample(2_000);
    let mut file = run.writer("part-00000.parquet").await.unwrap();
    let mut writer = AsyncArrowWriter::try_new(&mut file, batch.schema(), None).unwrap();
    writer.write(&batch).await.unwrap();
    let metadata = writer.close().await.unwrap();
    file.set_row_groups(metadata.num_row_groups() as u64);
    file.finish(Some(2_000)).await.unwrap();
    let put = run.put("part-00001.parquet", write(&batch, &Options::default()).into(), Some(2_000)).await.unwrap();
    assert_eq!(put.row_groups, Some(2));
    let commit = run.commit(CommitBody::default()).await.unwrap();
    let entry = &commit.files[0];
    versions.read_file(entry).await.unwrap();
    let listing = list_parquet(&stores, &versions.file_location(entry).unwrap()).await.unwrap();
    assert_eq!(rows(open_parquet(&stores, &listing.files[0]).await.unwrap(), &[0]).await.unwrap(), 2_000);
    // Readers that list folders see the data and nothing else.
    let data = list_parquet(&stores, &Location::parse("memory:///out/data/").unwrap()).await.unwrap();
    assert_eq!((data.files.len(), data.ignored), (2, 1));
    assert_eq!(data.files[0].partitions, [("run".to_owned(), Some(commit.run_id.clone()))]);
    let _ = Arc::new(commit);
}
