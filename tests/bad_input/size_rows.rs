//! B53 and B54: more rows, users and bytes than numbers of 32 bits count.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde_json::json;

use super::catalogue::{Row, row};
use super::hand_made::{Column, Page, file, interactions};
use super::solution_rows::{asks, copied, edit_commit};
use crate::common::data;

/// The first number of rows that is refused.
const TOO_MANY: i64 = 1 << 32;
/// Rows of a page, of which `PAGES` together have more than 2 GiB of ids.
const PAGE_ROWS: usize = 32_768;
const PAGES: usize = 260;
/// Characters of an id, the most that are allowed.
const LONGEST_ID: usize = 256;

pub(super) const ROWS: &[Row] = &[
    row(53, "more rows and users than indexes of 32 bits number", |case| {
        // Footers claim them. Who read on would find the lie out, and say that instead.
        let claims = |rows: i64| file(&interactions(60), rows, rows);
        let train = ["train", "--quiet", "--interactions", "lake/", "--solution", "solution"];
        let check = ["check", "--quiet", "--interactions", "lake/"];
        let half = TOO_MANY / 2;
        // Each file, both together, and sums that are no number of 64 bits.
        for files in [vec![TOO_MANY], vec![half, half], vec![i64::MAX, i64::MAX, i64::MAX]] {
            drop(std::fs::remove_dir_all(case.path("lake")));
            for (number, rows) in files.iter().enumerate() {
                case.file(&format!("lake/part-{number}.parquet"), claims(*rows));
            }
            for arguments in [&train[..], &check] {
                case.refuses(8, arguments, &["ERR_TOO_MANY_ROWS: ", "4294967295", "lake/"]);
            }
        }
        // Below that it is a question of memory: more rows than Amazon Personalize considers, in less than they take.
        drop(std::fs::remove_dir_all(case.path("lake")));
        case.file("lake/part-0.parquet", claims(600_000_000));
        let limited = [&train[..], &["--memory-limit", "4GB"]].concat();
        case.refuses(8, &limited, &["ERR_MEMORY_LIMIT: ", "reading interactions", "--memory-limit"]);

        let good = data("interactions.parquet");
        for (option, id) in [("--users", "USER_ID"), ("--items", "ITEM_ID")] {
            let mut ids = interactions(60).swap_remove(usize::from(option == "--items"));
            ids.name = id;
            let path = case.file("ids.parquet", file(&[ids], TOO_MANY, TOO_MANY));
            let check = ["check", "--quiet", "--interactions", &good, option, &path];
            case.refuses(8, &check, &["ERR_TOO_MANY_ROWS: ", "4294967295", "ids.parquet"]);
        }
        for rows in [1_u64 << 31, 1 << 32, u64::MAX] {
            let copy = copied(case);
            edit_commit(&copy, |commit| {
                let files = commit["files"].as_array_mut().unwrap();
                let users = files.iter_mut().find(|file| file["path"].as_str().unwrap().contains("/users/part-"));
                users.unwrap()["rows"] = json!(rows);
            });
            asks(case, &copy, &["ERR_SOLUTION_DAMAGED: "]);
        }
    }),
    row(54, "more than 2 GiB of id bytes in one column chunk", |case| {
        let (values, compressed) = page_of_ids();
        let rows = (PAGES * PAGE_ROWS) as i32;
        let page = Page { says_uncompressed: Some(values), ..Page::of(PAGE_ROWS as i32, compressed) };
        let mut users = Column::texts("USER_ID", vec![page; PAGES]);
        (users.codec, users.uncompressed) = (6, Some(i64::from(values) * PAGES as i64));
        assert!(users.uncompressed > Some(1 << 31));
        let items = Page::dictionary(&["item-1".to_owned(), "item-2".to_owned()]);
        let items = Column::texts("ITEM_ID", vec![items, Page::run_of(0, rows / 2), Page::run_of(1, rows / 2)]);
        let times = Page { is_dictionary: true, ..Page::longs(&[1_767_225_600, 1_767_312_000]) };
        let times = vec![times, Page::run_of(1, rows / 2), Page::run_of(0, rows / 2)];
        let times = Column { kind: 2, ..Column::texts("TIMESTAMP", times) };
        let bytes = file(&[users, items, times], i64::from(rows), i64::from(rows));
        case.file("long.parquet", bytes);
        let ended = case.works(&["check", "--format", "json", "--interactions", "long.parquet"], &[]);
        let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
        if report["rows"]["rows"].as_i64() != Some(i64::from(rows))
            || report["users"].as_u64() != Some(PAGE_ROWS as u64)
        {
            case.fail(&["2 GiB of ids"], &ended, "not every row was read, or not every user told apart");
        }
        // More than 2 GiB in one batch are ids that are too long, thousands of times over: B17.
    }),
];

/// A page of ids as a writer compresses it: how long it is decompressed, and its bytes. Ids have twenty random digits, so
/// that no page expands as a bomb does.
fn page_of_ids() -> (i32, Vec<u8>) {
    let width = LONGEST_ID - "user-".len();
    let id = |n: usize| format!("user-{:0width$}", (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let ids = StringArray::from_iter_values((0..PAGE_ROWS).map(id));
    let schema = Arc::new(Schema::new(vec![Field::new("USER_ID", DataType::Utf8, false)]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(ids)]).unwrap();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap()))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_data_page_size_limit(usize::MAX)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    let metadata = writer.close().unwrap();
    let chunk = metadata.row_group(0).column(0);
    let start = chunk.data_page_offset() as usize;
    let chunk = &bytes[start..start + chunk.compressed_size() as usize];
    // Between the header of the one page and the end of the chunk lies one frame, which begins with these bytes.
    let frame = chunk.windows(4).position(|four| four == [0x28, 0xb5, 0x2f, 0xfd]).unwrap();
    ((PAGE_ROWS * (LONGEST_ID + 4)) as i32, chunk[frame..].to_vec())
}
