//! B28 to B58 without B53 and B54: columns and values.

use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Int32Array, Int64Array,
    ListArray, StructArray, TimestampMillisecondArray, UInt64Array,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int32Type, TimeUnit};

use super::catalogue::{Case, Row, row};
use super::{ROWS as COUNT, good, numbers, replaced, texts, write};
use crate::common::data;

/// The first second of the good interactions.
const T: i64 = 1_767_225_600;

pub(super) const ROWS: &[Row] = &[
    row(28, "no USER_ID, ITEM_ID or TIMESTAMP", |case| {
        for (name, other) in [("user_id", "customer"), ("item_id", "sku"), ("timestamp", "ts")] {
            let renamed = good().into_iter().map(|(n, c)| if n == name { (other, c) } else { (n, c) }).collect();
            refuses(
                case,
                renamed,
                &["ERR_SCHEMA: ", &name.to_uppercase(), "found [", &format!("--column {name}={other}")],
            );
        }
    }),
    row(29, "other case, spaces or a byte order mark in names", |case| {
        let named = |names: [&'static str; 3]| names.into_iter().zip(good()).map(|(name, (_, c))| (name, c)).collect();
        works(case, named(["User_Id", "ITEM_ID", "TimeStamp"]), &["4,000"]);
        works(case, named([" user_id ", "item_id", "timestamp\t"]), &["4,000"]);
        works(case, named(["\u{feff}user_id", "item_id", "timestamp"]), &["4,000"]);
    }),
    row(30, "two columns equal up to case", |case| {
        let mut twice = good();
        twice.push(("USER_ID", Arc::clone(&good()[0].1)));
        refuses(case, twice, &["ERR_COLUMN_AMBIGUOUS: ", "user_id, USER_ID"]);
        let mut same = good();
        same.push(("user_id", Arc::clone(&good()[0].1)));
        refuses(case, same, &["ERR_COLUMN_AMBIGUOUS: "]);
    }),
    row(31, "ids as integers and binary", |case| {
        let ids = Int64Array::from_iter_values((0..COUNT).map(|n| n % 200));
        for kind in [DataType::Int64, DataType::Int32, DataType::UInt64] {
            works(case, replaced("user_id", cast(&ids, &kind).unwrap()), &["200"]);
        }
        let bytes = |n: i64| format!("user-{:05}", n % 200).into_bytes();
        works(case, replaced("user_id", Arc::new(BinaryArray::from_iter_values((0..COUNT).map(bytes)))), &["200"]);
        let fixed = FixedSizeBinaryArray::try_from_iter((0..COUNT).map(bytes)).unwrap();
        works(case, replaced("user_id", Arc::new(fixed)), &["200"]);
        let broken =
            BinaryArray::from_iter_values((0..COUNT).map(|n| if n % 10 == 0 { vec![0xff, 0xfe] } else { bytes(n) }));
        refuses(case, replaced("user_id", Arc::new(broken)), &["ERR_TOO_MANY_BAD_ROWS: ", "400", "column=USER_ID"]);
    }),
    row(32, "ids as floats", |case| {
        let floats = replaced("user_id", numbers(|n| Some((n % 200) as f64)));
        refuses(case, floats, &["ERR_COLUMN_TYPE: ", "Float64", "column=user_id", "2^53"]);
        let floats = replaced("item_id", cast(&numbers(|n| Some(n as f64)), &DataType::Float32).unwrap());
        refuses(case, floats, &["ERR_COLUMN_TYPE: ", "Float32"]);
    }),
    row(33, "ids as dictionary, view, large text; list, struct, decimal", |case| {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        for kind in [dictionary, DataType::Utf8View, DataType::LargeUtf8] {
            works(case, replaced("user_id", cast(&good()[0].1, &kind).unwrap()), &["200"]);
        }
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>((0..COUNT).map(|n| Some(vec![Some(n as i32)])));
        let field = Arc::new(datafusion::arrow::datatypes::Field::new("a", DataType::Utf8, true));
        let record = StructArray::from(vec![(field, Arc::clone(&good()[0].1))]);
        let decimal = Decimal128Array::from_iter_values((0..COUNT).map(i128::from));
        for (kind, column) in
            [("List", Arc::new(list) as ArrayRef), ("Struct", Arc::new(record)), ("Decimal128", Arc::new(decimal))]
        {
            refuses(case, replaced("user_id", column), &["ERR_COLUMN_TYPE: ", kind, "column=user_id"]);
        }
    }),
    row(34, "times in all units and types", |case| {
        let seconds =
            |factor: i64| Arc::new(Int64Array::from_iter_values((0..COUNT).map(|n| (T + n * 60) * factor))) as ArrayRef;
        works(case, replaced("timestamp", seconds(1)), &["2026-01-01", "2026-01-03"]);
        works(case, replaced("timestamp", seconds(1_000)), &["2026-01-01", "2026-01-03", "milliseconds"]);
        for (factor, unit) in [(1_000_000, "us"), (1_000_000_000, "ns")] {
            refuses(case, replaced("timestamp", seconds(factor)), &["ERR_TIMESTAMP_UNIT: ", "--timestamp-unit", unit]);
        }
        for (factor, unit) in [
            (1, TimeUnit::Second),
            (1_000, TimeUnit::Millisecond),
            (1_000_000, TimeUnit::Microsecond),
            (1_000_000_000, TimeUnit::Nanosecond),
        ] {
            for zone in [None, Some("Europe/Berlin".into())] {
                let typed = cast(&seconds(factor), &DataType::Timestamp(unit, zone)).unwrap();
                works(case, replaced("timestamp", typed), &["2026-01-01", "2026-01-03"]);
            }
        }
        let days = Date32Array::from_iter_values((0..COUNT).map(|n| (T / 86_400) as i32 + (n % 90) as i32));
        works(case, replaced("timestamp", Arc::new(days)), &["2026-01-01"]);
        refuses(
            case,
            replaced("timestamp", texts(|n| Some(format!("2026-01-01T00:00:{}Z", n % 60)))),
            &["ERR_COLUMN_TYPE: ", "Utf8", "column=timestamp"],
        );
    }),
    row(35, "EVENT_VALUE as decimal and integer; text and boolean", |case| {
        let decimal = Decimal128Array::from_iter_values((0..COUNT).map(|n| i128::from(n % 500)))
            .with_precision_and_scale(10, 2)
            .unwrap();
        works(case, replaced("event_value", Arc::new(decimal)), &[]);
        works(
            case,
            replaced("event_value", Arc::new(Int32Array::from_iter_values((0..COUNT).map(|n| n as i32 % 5)))),
            &[],
        );
        refuses(
            case,
            replaced("event_value", texts(|_| Some("1.5".to_owned()))),
            &["ERR_COLUMN_TYPE: ", "Utf8", "event_value"],
        );
        let flags = BooleanArray::from_iter((0..COUNT).map(|n| Some(n % 2 == 0)));
        refuses(case, replaced("event_value", Arc::new(flags)), &["ERR_COLUMN_TYPE: ", "Boolean", "event_value"]);
    }),
    row(36, "more than 5 own columns, long categories", |case| {
        let mut many = good();
        many.extend(["c1", "c2", "c3", "c4", "c5", "c6"].map(|name| (name, Arc::clone(&good()[1].1))));
        works(case, many, &["OWN_COLUMNS", "count=6", "Amazon Personalize"]);
        let long = texts(|n| Some("x".repeat(if n % 10 == 0 { 1_001 } else { 3 })));
        let ids = texts(|n| Some(format!("item-{n}")));
        with_items(case, vec![("item_id", ids), ("genre", long)], &["LONG_VALUES", "count=400 column=genre"]);
    }),
    row(37, "reserved name with a wrong type", |case| {
        let codes = Int32Array::from_iter_values((0..COUNT).map(|n| n as i32 % 3));
        refuses(
            case,
            replaced("event_type", Arc::new(codes)),
            &["ERR_COLUMN_TYPE: ", "EVENT_TYPE", "Int32", "column=event_type"],
        );
    }),
    row(38, "Items or Users given as Interactions", |case| {
        for name in ["items.parquet", "users.parquet"] {
            let option = format!("--{}", name.trim_end_matches(".parquet"));
            case.refuses(
                3,
                &["check", "--quiet", "--interactions", &data(name)],
                &["ERR_SCHEMA: ", "TIMESTAMP", &option],
            );
        }
    }),
    row(39, "no interactions", |case| {
        refuses(case, cut(0), &["ERR_NO_INTERACTIONS: "]);
        let path = written(case, good());
        case.refuses(
            3,
            &["check", "--quiet", "--interactions", &path, "--event-type", "purchase"],
            &["ERR_NO_INTERACTIONS: ", "purchase", "view"],
        );
    }),
    row(40, "under 1,000 interactions, few users with 2 or more", |case| {
        refuses(case, cut(900), &["ERR_TOO_LITTLE_DATA: ", "1000", "--allow-small-data"]);
        let path = written(case, cut(900));
        case.works(&["check", "--interactions", &path, "--allow-small-data"], &["TOO_FEW_INTERACTIONS"]);
        let one_each =
            replaced("user_id", texts(|n| Some(if n < 20 { format!("user-{}", n / 2) } else { format!("user-{n}") })));
        refuses(case, one_each, &["ERR_TOO_LITTLE_DATA: ", "25"]);
        let share =
            replaced("user_id", texts(|n| Some(if n < 60 { format!("user-{}", n / 2) } else { format!("user-{n}") })));
        refuses(case, share, &["ERR_TOO_LITTLE_DATA: ", "1 %"]);
    }),
    row(41, "one user, one item, one interaction each, skew", |case| {
        for (name, column) in [
            ("user_id", texts(|_| Some("user-1".to_owned()))),
            ("item_id", texts(|_| Some("item-1".to_owned()))),
            ("user_id", texts(|n| Some(format!("user-{n}")))),
            ("user_id", texts(|n| Some(if n % 100 > 0 { "user-1".to_owned() } else { format!("user-{n}") }))),
        ] {
            let path = written(case, replaced(name, column));
            let solution = case.path(&format!("solution{}", case.tries));
            let arguments = training("--allow-small-data", &path, &solution);
            let ended = case.run(&arguments);
            if ended.code != 0 {
                case.was_refused(&ended, 3, &arguments, &["; "]);
            }
        }
    }),
    row(42, "null, empty or blank id", |case| {
        for (blank, reason) in [(None, "id_null"), (Some(""), "id_"), (Some(" \t"), "id_")] {
            let ids = texts(|n| if n % 10 == 0 { blank.map(str::to_owned) } else { Some(format!("user-{}", n % 200)) });
            refuses(case, replaced("user_id", ids), &["ERR_TOO_MANY_BAD_ROWS: ", reason, "400", "row=0"]);
            let path = written(
                case,
                replaced(
                    "user_id",
                    texts(|n| if n == 7 { blank.map(str::to_owned) } else { Some(format!("user-{}", n % 200)) }),
                ),
            );
            case.works(
                &["check", "--interactions", &path, "--max-bad-rows", "0.01"],
                &["ROWS_REJECTED: ", "count=1 first_row=7"],
            );
        }
    }),
    row(43, "id over 256 characters, of 1 MB", |case| {
        for length in [257, 1 << 20] {
            let ids = texts(|n| Some(if n == 9 { "x".repeat(length) } else { format!("user-{}", n % 200) }));
            works(
                case,
                replaced("user_id", ids),
                &["ROWS_REJECTED: id_too_long", "count=1 first_row=9 column=USER_ID"],
            );
        }
        works(case, replaced("user_id", texts(|n| Some(format!("{:0256}", n % 200)))), &["200"]);
    }),
    row(44, "ids with control characters, marks and twins of normal forms", |case| {
        let odd = ["a\0b", "a\nb", "a\tb", "\u{1b}[31m", "\u{202e}abc", "😀", "e\u{301}", "é", "\u{301}\u{301}"];
        works(
            case,
            replaced("user_id", texts(|n| Some(odd[n as usize % odd.len()].to_owned() + &(n / 9 % 20).to_string()))),
            &["180"],
        );
    }),
    row(45, "spaces at the ends, look-alikes", |case| {
        let odd = ["1", "01", "1.0", " 1", "1 "];
        let ids =
            texts(|n| Some(if n % 2 == 0 { odd[n as usize / 2 % 5].to_owned() } else { format!("u{}", n % 199) }));
        works(case, replaced("user_id", ids), &["4 user ids differ from another one only"]);
    }),
    row(46, "equal rows, one pair many times", |case| {
        let mut twice = good();
        twice
            .iter_mut()
            .for_each(|(_, column)| *column = datafusion::arrow::compute::concat(&[column, column]).unwrap());
        let path = written(case, twice);
        let ended = case.works(&["check", "--format", "json", "--interactions", &path], &[]);
        let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        if report["rows"]["rows"] != 8_000 || report["unique_interactions"].as_u64() > Some(4_000) {
            case.fail(&["equal rows"], &ended, "rows are not counted as they are");
        }
        let one = replaced(
            "user_id",
            texts(|n| Some(if n < 2_000 { "user-1".to_owned() } else { format!("user-{}", n % 200) })),
        );
        works(
            case,
            one.into_iter()
                .map(|(n, c)| {
                    if n == "item_id" {
                        (n, texts(|r| Some(if r < 2_000 { "item-1".to_owned() } else { format!("item-{}", r % 50) })))
                    } else {
                        (n, c)
                    }
                })
                .collect(),
            &[],
        );
    }),
    row(47, "EVENT_VALUE not finite, -0.0, tiny, huge", |case| {
        for (value, code) in
            [(f64::NAN, 3), (f64::INFINITY, 3), (f64::NEG_INFINITY, 3), (-0.0, 0), (5e-324, 0), (1e38, 3)]
        {
            let path = written(case, replaced("event_value", numbers(|n| Some(if n % 10 == 0 { value } else { 1.0 }))));
            let solution = case.path(&format!("solution{}", case.tries));
            let arguments = training("--value-as-weight", &path, &solution);
            if code == 3 {
                case.refuses(
                    3,
                    &arguments,
                    &[
                        "ERR_TOO_MANY_BAD_ROWS: ",
                        if value.is_finite() { "event_value_too_large 400" } else { "event_value_not_finite 400" },
                    ],
                );
            } else {
                case.works(&arguments, &[]);
            }
        }
    }),
    row(48, "EVENT_VALUE negative or zero", |case| {
        let threshold = ["--event-value-threshold", "0"];
        let path = written(case, replaced("event_value", numbers(|n| Some(if n % 10 == 0 { -1.0 } else { 1.0 }))));
        case.refuses(
            3,
            &[&["check", "--quiet", "--interactions", &path][..], &threshold].concat(),
            &["event_value_negative 400"],
        );
        let path = written(case, replaced("event_value", numbers(|n| Some(if n % 10 == 0 { 0.0 } else { 1.0 }))));
        case.works(&["check", "--interactions", &path, "--value-as-weight"], &[]);
    }),
    row(49, "all values equal, all zero", |case| {
        let path = written(case, good());
        case.works(&["check", "--interactions", &path, "--value-as-weight"], &[]);
        let path = written(case, replaced("event_value", numbers(|_| Some(0.0))));
        let arguments = ["check", "--interactions", &path, "--value-as-weight"];
        let ended = case.run(&arguments);
        let text = format!("{}{}", ended.stdout, ended.stderr);
        if ended.code != 0 || !text.to_lowercase().contains("every event counts 1") {
            case.fail(&arguments, &ended, "all zero is not said to count 1");
        }
    }),
    row(50, "times at 0, negative, at the edges, ahead", |case| {
        for time in [0, -1, -9_223_372_037, 9_223_372_036, T + 40 * 365 * 86_400] {
            let times = Int64Array::from_iter_values((0..COUNT).map(|n| if n == 5 { time } else { T + n * 60 }));
            let path = written(case, replaced("timestamp", Arc::new(times)));
            let ended = case.run(&["check", "--interactions", &path]);
            if ended.code != 3 && !format!("{}{}", ended.stdout, ended.stderr).contains("count=1") {
                case.fail(&["time", &time.to_string()], &ended, "an odd time is not counted");
            }
        }
        // Nothing is made of a time that no unit makes sense of.
        let times = Int64Array::from_iter_values((0..COUNT).map(|n| if n == 5 { i64::MAX } else { T + n * 60 }));
        works(case, replaced("timestamp", Arc::new(times)), &["1 rejected", "first_row=5 column=TIMESTAMP"]);
    }),
    row(51, "seconds and milliseconds in one column", |case| {
        let mixed = Int64Array::from_iter_values((0..COUNT).map(|n| (T + n * 60) * if n % 3 == 0 { 1_000 } else { 1 }));
        refuses(
            case,
            replaced("timestamp", Arc::new(mixed)),
            &["ERR_TIMESTAMP_UNIT: ", "two clusters of magnitude", "row="],
        );
    }),
    row(52, "rows out of order, many equal times, all equal", |case| {
        let backwards = good().into_iter().map(|(n, c)| {
            let order = UInt64Array::from_iter_values((0..COUNT as u64).rev());
            (n, datafusion::arrow::compute::take(&c, &order, None).unwrap())
        });
        let backwards = backwards.collect::<Vec<_>>();
        let report = [good(), backwards].map(|columns| {
            let path = written(case, columns);
            case.works(&["check", "--format", "json", "--interactions", &path], &[]).stdout
        });
        if report[0].replace(' ', "").len() != report[1].replace(' ', "").len() {
            case.failures.push("the order of rows shows in the report".to_owned());
        }
        works(case, replaced("timestamp", Arc::new(Int64Array::from_iter_values((0..COUNT).map(|n| T + n % 3)))), &[]);
        refuses(
            case,
            replaced("timestamp", Arc::new(Int64Array::from_iter_values((0..COUNT).map(|_| T)))),
            &["ERR_TIMESTAMPS_EQUAL: "],
        );
    }),
    row(55, "ids that Items and Users lack", |case| {
        let items = vec![
            ("item_id", texts(|n| Some(format!("item-{}", n % 30)))),
            ("genre", texts(|n| Some(format!("g{}", n % 3)))),
        ];
        let path = written(case, good());
        let (items_path, users_path) = (case.path("items.parquet"), case.path("users.parquet"));
        write(Path::new(&items_path), items);
        write(
            Path::new(&users_path),
            vec![("user_id", texts(|n| Some(format!("user-{}", n % 90)))), ("age", numbers(|n| Some(n as f64)))],
        );
        case.works(&["check", "--interactions", &path, "--items", &items_path, "--users", &users_path], &["20", "110"]);
    }),
    row(56, "ids twice in Items", |case| {
        let ids = texts(|n| Some(format!("item-{}", n % 50)));
        with_items(
            case,
            vec![("item_id", ids), ("genre", texts(|n| Some(format!("g{}", n % 3))))],
            &["DUPLICATE_IDS", "count=3950", "the last one counts"],
        );
    }),
    row(57, "decimals with a scale, dates before 1970, zones", |case| {
        let decimal = Decimal128Array::from_iter_values((0..COUNT).map(|n| 250 + i128::from(n % 2)))
            .with_precision_and_scale(10, 2)
            .unwrap();
        let path = written(case, replaced("event_value", Arc::new(decimal)));
        let kept = |ended: &str| serde_json::from_str::<serde_json::Value>(ended).unwrap()["interactions"].clone();
        let ended =
            case.works(&["check", "--format", "json", "--interactions", &path, "--event-value-threshold", "2.51"], &[]);
        if kept(&ended.stdout) != 2_000 {
            case.fail(&["decimal"], &ended, "2.50 and 2.51 are not told apart");
        }
        let old = Date32Array::from_iter_values((0..COUNT).map(|n| n as i32 % 400 - 800));
        works(case, replaced("timestamp", Arc::new(old)), &["1967-10-24"]);
        let zoned = TimestampMillisecondArray::from_iter_values((0..COUNT).map(|n| 1_743_294_600_000 + n * 60_000))
            .with_timezone("Europe/Berlin");
        works(case, replaced("timestamp", Arc::new(zoned)), &["2025-03-30"]);
    }),
    row(58, "item without interactions after the event filter", |case| {
        let kinds = texts(|n| Some(if (n * 7 + n / 50) % 50 == 3 { "view" } else { "purchase" }.to_owned()));
        let path = written(case, replaced("event_type", kinds));
        let (solution, output) = (case.path("solution"), case.path("out"));
        case.works(
            &[
                "train",
                "--quiet",
                "--hidden-dimension",
                "32",
                "--event-type",
                "purchase",
                "--interactions",
                &path,
                "--solution",
                &solution,
            ],
            &[],
        );
        case.ends(
            4,
            &["segment", "--solution", &solution, "--item", "item-3", "--item", "item-4", "--output", &output],
            &["ITEM_NOT_IN_MODEL: item 'item-3'", "ok=1 empty=0 error=1"],
        );
    }),
];

fn cut(rows: usize) -> Vec<(&'static str, ArrayRef)> {
    good().into_iter().map(|(n, c)| (n, c.slice(0, rows))).collect()
}

/// A small training with an option.
fn training<'a>(option: &'a str, interactions: &'a str, solution: &'a str) -> [&'a str; 9] {
    ["train", "--quiet", option, "--hidden-dimension", "32", "--interactions", interactions, "--solution", solution]
}

fn written(case: &Case, columns: Vec<(&'static str, ArrayRef)>) -> String {
    let path = case.path("interactions.parquet");
    write(Path::new(&path), columns);
    path
}

fn works(case: &mut Case, columns: Vec<(&'static str, ArrayRef)>, says: &[&str]) {
    let path = written(case, columns);
    case.works(&["check", "--interactions", &path], says);
}

fn refuses(case: &mut Case, columns: Vec<(&'static str, ArrayRef)>, says: &[&str]) {
    let path = written(case, columns);
    case.refuses(3, &["check", "--quiet", "--interactions", &path], says);
}

fn with_items(case: &mut Case, items: Vec<(&'static str, ArrayRef)>, says: &[&str]) {
    let path = written(case, good());
    let items_path = case.path("items.parquet");
    write(Path::new(&items_path), items);
    case.works(&["check", "--interactions", &path, "--items", &items_path], says);
}
