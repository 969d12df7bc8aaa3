//! B1 to B27: Parquet files and folders.

use std::fs::File;
use std::path::Path;

use datafusion::arrow::array::RecordBatch;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_writer::ArrowWriterOptions;
use datafusion::parquet::file::metadata::KeyValue;
use datafusion::parquet::file::properties::WriterProperties;

use super::catalogue::{Case, Row, row};
use super::hand_made::{
    Column, Page, crc32, encrypted_columns, encrypted_footer, file, groups, interactions, row_groups_of, schema_of,
};
use super::{good, replaced, texts, write};
use crate::common::solution;

pub(super) const ROWS: &[Row] = &[
    row(1, "0 bytes", |case| {
        refused(case, b"", &["ERR_EMPTY_OBJECT: ", "file="]);
        let lake = case.path("lake");
        std::fs::create_dir_all(&lake).unwrap();
        write(&Path::new(&lake).join("a.parquet"), good());
        case.file("lake/b.parquet", b"");
        case.refuses(3, &["check", "--quiet", "--interactions", &lake], &["ERR_EMPTY_OBJECT: ", "b.parquet"]);
        no_table(case, &format!("{lake}/"), &["ERR_EMPTY_OBJECT: ", "b.parquet"]);
    }),
    row(2, "4 bytes PAR1", |case| refused(case, b"PAR1", &["ERR_TOO_SHORT: "])),
    row(3, "8 bytes PAR1PAR1", |case| {
        refused(case, b"PAR1PAR1", &["ERR_TOO_SHORT: "]);
        no_table(case, "interactions.parquet", &["ERR_TOO_SHORT: ", "interactions.parquet"]);
    }),
    row(4, "footer length larger than the file, 0, over the cap", |case| {
        refused(case, b"PAR1PAR1\xff\xff\xff\xffPAR1", &["ERR_FOOTER_LENGTH: "]);
        no_table(case, "interactions.parquet", &["ERR_FOOTER_LENGTH: ", "interactions.parquet"]);
        refused(case, b"PAR1PAR1\0\0\0\0PAR1", &["ERR_FOOTER_LENGTH: "]);
        let path = case.path("large.parquet");
        let large = File::create(&path).unwrap();
        large.set_len(70 << 20).unwrap();
        use std::os::unix::fs::FileExt;
        large.write_all_at(b"PAR1", 0).unwrap();
        large.write_all_at(&[&(65u32 << 20).to_le_bytes()[..], b"PAR1"].concat(), (70 << 20) - 8).unwrap();
        case.refuses(3, &["check", "--quiet", "--interactions", &path], &["ERR_FOOTER_LENGTH: "]);
    }),
    row(5, "row-group list of 2^31-1 and of 10^8 in some bytes", |case| {
        refused(case, &row_groups_of((1 << 31) - 1), &["ERR_FOOTER_DAMAGED: "]);
        refused(case, &row_groups_of(100_000_000), &["ERR_FOOTER_DAMAGED: "]);
        no_table(case, "interactions.parquet", &["ERR_FOOTER_DAMAGED: ", "interactions.parquet"]);
    }),
    row(6, "children huge or negative, nesting of 10,000", |case| {
        refused(case, &schema_of(i32::MAX, 1), &["ERR_SCHEMA_LIMIT: "]);
        refused(case, &schema_of(-1, 1), &["ERR_SCHEMA_LIMIT: "]);
        refused(case, &schema_of(1, 10_000), &["ERR_SCHEMA_LIMIT: "]);
    }),
    row(7, "CSV, JSON, ORC or gzip named .parquet", |case| {
        refused(case, b"user_id,item_id,timestamp\n1,2,3\n", &["ERR_NOT_PARQUET: ", "CSV"]);
        refused(case, b"{\"user_id\": 1, \"item_id\": 2}\n", &["ERR_NOT_PARQUET: ", "JSON"]);
        refused(case, b"ORC\x08\x03\x10\x04 and more of it", &["ERR_NOT_PARQUET: ", "ORC"]);
        refused(case, b"\x1f\x8b\x08\0\0\0\0\0\0\x03 and more of it", &["ERR_NOT_PARQUET: ", "gzip"]);
    }),
    row(8, "cut at every 97th byte", |case| {
        let path = case.path("whole.parquet");
        write(Path::new(&path), good().into_iter().map(|(n, c)| (n, c.slice(0, 1_200))).collect());
        let whole = std::fs::read(path).unwrap();
        for length in (1..whole.len()).step_by(97) {
            refused(case, &whole[..length], &["ERR_"]);
        }
    }),
    row(9, "one flipped bit in a page with a CRC", |case| {
        // Files of our own are found by SHA-256: B82. Without a CRC nobody can find it, which the documents say.
        let mut columns = interactions(2_000);
        for column in &mut columns {
            column.pages[0].crc = Some(crc32(&column.pages[0].data));
        }
        works(case, &file(&columns, 2_000, 2_000), &[]);
        columns[0].pages[0].data[700] ^= 4;
        refused(case, &file(&columns, 2_000, 2_000), &["ERR_PAGE: "]);
    }),
    row(10, "wrong page CRC, data page and dictionary page", |case| {
        let mut columns = interactions(2_000);
        columns[1].pages[0].crc = Some(1);
        refused(case, &file(&columns, 2_000, 2_000), &["ERR_PAGE: "]);
        let dictionary = Page { crc: Some(1), ..Page::dictionary(&["user-1".to_owned()]) };
        let mut columns = interactions(2_000);
        columns[0] = Column::texts("USER_ID", vec![dictionary, Page::run(2_000)]);
        refused(case, &file(&columns, 2_000, 2_000), &["ERR_PAGE: "]);
    }),
    row(11, "the 8 files of bad_data/", |case| {
        corpus(case, "bad_data", |name| match name {
            "ARROW-GH-43605.parquet" => Some(0),
            _ => Some(3),
        });
    }),
    row(12, "the files of fuzz/", |case| corpus(case, "fuzz", |_| None)),
    row(13, "an encrypted footer without a key", |case| {
        refused(case, b"PARE0123456789abcdef\x10\0\0\0PARE", &["ERR_ENCRYPTED: "]);
    }),
    row(14, "encrypted, wrong key or AAD", |case| {
        // No option takes a key, so that every file is one without the right key. What stands in the clear about keys and
        // additional data is not shown; the catalogue takes any "canary" for a secret.
        for bytes in [encrypted_footer(), encrypted_columns()] {
            refused(case, &bytes, &["ERR_ENCRYPTED: ", "interactions.parquet"]);
        }
        let path = case.file("encrypted.parquet", encrypted_footer());
        for list in ["--items", "--users"] {
            let interactions = crate::common::data("interactions.parquet");
            let check = ["check", "--quiet", "--interactions", &interactions, list, &path];
            case.refuses(3, &check, &["ERR_ENCRYPTED: ", "encrypted.parquet"]);
        }
        let segment = ["segment", "--quiet", "--solution", solution(), "--items", &path, "--output", "out"];
        case.refuses(3, &segment, &["ERR_ENCRYPTED: ", "encrypted.parquet"]);
        let table = format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{path}'; SELECT * FROM t");
        case.refuses(3, &["sql", "-c", &table], &["ERR_ENCRYPTED: ", "encrypted.parquet"]);
    }),
    row(15, "page header that claims 2 GiB for a few bytes", |case| {
        let mut columns = interactions(2_000);
        // Where nothing is compressed the claim is not used, and the rows are those of the file.
        columns[0].pages[0].says_uncompressed = Some(i32::MAX);
        works(case, &file(&columns, 2_000, 2_000), &["2,000"]);
        for codec in [1, 6] {
            columns[0].codec = codec;
            refused(case, &file(&columns, 2_000, 2_000), &["ERR_"]);
        }
    }),
    row(16, "dictionary bomb, RLE run of 2^31 rows", |case| {
        // One value of 4 MiB, two thousand million times, in a few bytes.
        let value = "x".repeat(4 << 20);
        let rows = i32::MAX - 7;
        let bomb = |name| Column::texts(name, vec![Page::dictionary(std::slice::from_ref(&value)), Page::run(rows)]);
        let times = Column {
            kind: 2,
            ..Column::texts(
                "TIMESTAMP",
                vec![Page { is_dictionary: true, ..Page::longs(&[1_767_225_600]) }, Page::run(rows)],
            )
        };
        let bytes = file(&[bomb("USER_ID"), bomb("ITEM_ID"), times], i64::from(rows), i64::from(rows));
        let path = case.file("bomb.parquet", bytes);
        case.refuses(8, &["check", "--quiet", "--interactions", &path], &["ERR_DECODED_BUDGET: "]);
    }),
    row(17, "small file with more than 2 GB of strings", |case| {
        let rows = 8_192;
        let value = "x".repeat(300 << 10);
        let many = |name| Column::texts(name, vec![Page::dictionary(std::slice::from_ref(&value)), Page::run(rows)]);
        let mut columns = interactions(i64::from(rows));
        columns[0] = many("USER_ID");
        let path = case.file("strings.parquet", file(&columns, i64::from(rows), i64::from(rows)));
        case.refuses(8, &["check", "--quiet", "--interactions", &path], &["ERR_DECODED_BUDGET: "]);
        let mut extra = interactions(i64::from(rows));
        extra.push(many("NOTES"));
        let path = case.file("strings.parquet", file(&extra, i64::from(rows), i64::from(rows)));
        case.works(&["check", "--interactions", &path], &["8,192"]);
        // Columns of Items are read whole.
        let mut items = vec![interactions(i64::from(rows)).swap_remove(1), many("NOTES")];
        items[0].name = "ITEM_ID";
        let items = case.file("items.parquet", file(&items, i64::from(rows), i64::from(rows)));
        case.refuses(
            8,
            &["check", "--quiet", "--interactions", &path, "--items", &items],
            &["ERR_DECODED_BUDGET: ", "items.parquet"],
        );
    }),
    row(18, "a codec that we do not have", |case| {
        let mut columns = interactions(2_000);
        columns[0].codec = 3;
        refused(case, &file(&columns, 2_000, 2_000), &["ERR_CODEC: ", "lzo", "column=USER_ID"]);
        columns[0].codec = 99;
        refused(case, &file(&columns, 2_000, 2_000), &["ERR_"]);
    }),
    row(19, "more than 32,767 row groups, none, one of 0 rows", |case| {
        let path = case.file("groups.parquet", groups(&interactions(60), 60, 33_000));
        case.refuses(
            3,
            &["check", "--quiet", "--interactions", &path],
            &["ERR_FOOTER_DAMAGED: ", "Row group ordinal 32768"],
        );
        let path = case.file("groups.parquet", groups(&interactions(60), 60, 32_000));
        case.works(&["check", "--allow-small-data", "--interactions", &path], &["1,920,000"]);
        write(Path::new(&path), good().into_iter().map(|(n, c)| (n, c.slice(0, 0))).collect());
        case.refuses(3, &["check", "--quiet", "--interactions", &path], &["ERR_NO_INTERACTIONS: "]);
        refused(case, &file(&interactions(0), 0, 0), &["ERR_NO_INTERACTIONS: "]);
    }),
    row(20, "rows of the footer are not those read, columns of different length", |case| {
        refused(case, &file(&interactions(2_000), 2_001, 2_000), &["ERR_ROW_COUNT: "]);
        refused(case, &file(&interactions(2_000), 2_001, 2_001), &["ERR_"]);
        let mut columns = interactions(2_000);
        columns[1] = interactions(1_500).swap_remove(1);
        refused(case, &file(&columns, 2_000, 2_000), &["ERR_"]);
    }),
    row(21, "required column that holds nulls", |case| {
        let path = case.path("nulls.parquet");
        for name in ["user_id", "item_id"] {
            write(Path::new(&path), replaced(name, texts(|n| (n % 10 > 0).then(|| format!("user-{n}")))));
            case.refuses(
                3,
                &["check", "--quiet", "--interactions", &path],
                &["ERR_TOO_MANY_BAD_ROWS: ", "id_null 400"],
            );
        }
    }),
    row(22, "damaged ARROW:schema metadata", |case| {
        let batch = RecordBatch::try_from_iter_with_nullable(good().into_iter().map(|(n, c)| (n, c, true))).unwrap();
        for damaged in ["garbage", "", "/////wAAAAA="] {
            let metadata = KeyValue::new("ARROW:schema".to_owned(), damaged.to_owned());
            let properties = WriterProperties::builder().set_key_value_metadata(Some(vec![metadata])).build();
            let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
            let mut bytes = Vec::new();
            let mut writer = ArrowWriter::try_new_with_options(&mut bytes, batch.schema(), options).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            works(case, &bytes, &[]);
        }
    }),
    row(23, "file replaced while it is read", super::store_rows::replaced_while_read),
    row(24, "two parts with different schemas", |case| {
        let lake = case.path("lake");
        std::fs::create_dir_all(&lake).unwrap();
        let part = |name: &str| Path::new(&lake).join(name);
        write(&part("a.parquet"), good());
        write(&part("b.parquet"), super::without("item_id"));
        let check = ["check", "--interactions", &lake];
        case.refuses(3, &["check", "--quiet", "--interactions", &lake], &["ERR_SCHEMA: ", "ITEM_ID", "b.parquet"]);
        write(&part("b.parquet"), replaced("timestamp", texts(|n| Some(format!("2026-{n}")))));
        case.refuses(3, &["check", "--quiet", "--interactions", &lake], &["ERR_COLUMN_TYPE: ", "b.parquet"]);
        let mut extra = good();
        extra.push(("device", texts(|_| Some("phone".to_owned()))));
        write(&part("b.parquet"), extra);
        case.works(&check, &["SCHEMA_DIFFERS", "count=1"]);
    }),
    row(25, "folder with files that are no data", |case| {
        let lake = case.path("lake");
        std::fs::create_dir_all(&lake).unwrap();
        write(&Path::new(&lake).join("a.parquet"), good());
        for name in ["_SUCCESS", ".a.parquet.crc", "_temporary/0/b.parquet", "c.parquet#1", ".hidden"] {
            case.file(&format!("lake/{name}"), b"no data");
        }
        case.works(&["check", "--interactions", &lake], &["FILES_IGNORED", "count=5", "4,000"]);
        let table =
            format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{lake}/'; SELECT count(*) AS n FROM t");
        case.works(&["sql", "--format", "csv", "-c", &table], &["n\n4000\n"]);
    }),
    row(26, "loop of links, dangling link, pipe, device", |case| {
        let make = |name: &str, to: &str| std::os::unix::fs::symlink(to, case.root().join(name)).unwrap();
        make("dangling.parquet", "nowhere");
        make("loop.parquet", "loop.parquet");
        std::fs::create_dir_all(case.root().join("ring")).unwrap();
        make("ring/again", ".");
        make("device.parquet", "/dev/zero");
        let pipe = case.path("pipe.parquet");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for name in ["dangling.parquet", "loop.parquet", "ring", "device.parquet", "pipe.parquet"] {
            let path = case.path(name);
            case.refuses(3, &["check", "--quiet", "--interactions", &path], &["ERR_INPUT_FILE: ", "file="]);
        }
    }),
    row(27, "folder k=__HIVE_DEFAULT_PARTITION__", |case| {
        for kind in ["view", "__HIVE_DEFAULT_PARTITION__"] {
            let folder = case.root().join(format!("lake/event_type={kind}"));
            std::fs::create_dir_all(&folder).unwrap();
            write(&folder.join("a.parquet"), super::without("event_type"));
        }
        let lake = case.path("lake");
        case.works(&["check", "--interactions", &lake], &["PARTITION_NULL", "count=1 column=EVENT_TYPE", "8,000"]);
    }),
];

/// These bytes as interactions.
fn refused(case: &mut Case, bytes: &[u8], says: &[&str]) {
    let path = case.file("interactions.parquet", bytes);
    case.refuses(3, &["check", "--quiet", "--interactions", &path], says);
}

/// A location that no table of SQL can be made of.
fn no_table(case: &mut Case, location: &str, says: &[&str]) {
    let table = format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{location}'; SELECT * FROM t");
    case.refuses(3, &["sql", "-c", &table], says);
}

fn works(case: &mut Case, bytes: &[u8], says: &[&str]) {
    let path = case.file("interactions.parquet", bytes);
    case.works(&["check", "--interactions", &path], says);
}

/// Reads each file of the corpus as a list of items and as interactions; a code that is expected has to come.
fn corpus(case: &mut Case, part: &str, expected: fn(&str) -> Option<i32>) {
    const FOLDER: &str = "ITEM_AFFINITY_PARQUET_TESTING";
    let Some(folder) = std::env::var_os(FOLDER) else {
        let files = if part == "fuzz" { 141 } else { 8 };
        case.skipped = Some(format!("skipped {files} corpus files: {FOLDER} is not set"));
        return;
    };
    let mut found = crate::common::files_below(&Path::new(&folder).join(part));
    found.retain(|path| path.extension().is_none_or(|e| e != "txt" && e != "md" && e != "data"));
    let (mut rows, mut errors) = (0, 0);
    for file in &found {
        let path = Path::new(&folder).join(part).join(file).display().to_string();
        let output = case.path("out");
        let query = format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{path}'; SELECT * FROM t");
        let root = folder.to_string_lossy();
        for arguments in [
            vec!["sql", "--root", &root, "--format", "ndjson", "--output", &output, "-c", &query],
            vec!["check", "--quiet", "--interactions", &path],
            vec!["segment", "--quiet", "--solution", solution(), "--items", &path, "--output", &output],
        ] {
            let ended = case.run(&arguments);
            let name = file.file_name().unwrap().to_string_lossy();
            if arguments[0] == "sql" {
                if ended.code == 0 {
                    rows += 1
                } else {
                    errors += 1
                }
                if expected(&name).is_some_and(|code| code != ended.code) {
                    case.fail(&arguments, &ended, "another exit code than expected");
                }
            }
            if ended.code != 0 && !ended.stderr.lines().any(|line| line.starts_with("error: ")) {
                case.fail(&arguments, &ended, "not one line `error: …`");
            }
        }
    }
    println!("bad input: corpus {part}: {} files, {rows} gave rows and {errors} an error in SQL", found.len());
}
