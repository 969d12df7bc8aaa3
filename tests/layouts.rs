//! P20, P21: the same data give the same bytes, however they lie in files and however many threads there are.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{BrotliLevel, Compression, Encoding, GzipLevel, ZstdLevel};
use datafusion::parquet::file::properties::{WriterProperties, WriterVersion};
use item_affinity_job::{BatchSegmentJob, ItemList, TrainingJob};
use item_affinity_model::ItemAffinity;
use item_affinity_storage::{Artifact, Location, Stores, Versions};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::common::{data, fingerprint, succeed};

type Fingerprint = Vec<(String, String)>;
type Row = (String, String, i64, &'static str, f64);

/// Layouts that are tried beside those that change one thing.
const AT_RANDOM: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Layout {
    files: usize,
    row_group: usize,
    codec: usize,
    dictionary: bool,
    encoding: usize,
    version_2: bool,
    texts: usize,
    time: usize,
    shuffled_rows: bool,
    shuffled_columns: bool,
    seed: u64,
}

const PLAIN: Layout = Layout {
    files: 1,
    row_group: 1_000_000,
    codec: 0,
    dictionary: true,
    encoding: 0,
    version_2: false,
    texts: 0,
    time: 0,
    shuffled_rows: false,
    shuffled_columns: false,
    seed: 0,
};

fn codecs() -> [Compression; 6] {
    [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::ZSTD(ZstdLevel::default()),
        Compression::LZ4_RAW,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
    ]
}

/// Encodings of texts without a dictionary.
const ENCODINGS: [Encoding; 3] = [Encoding::PLAIN, Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY];

fn texts() -> [DataType; 4] {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View, dictionary]
}

fn rows() -> Vec<Row> {
    let one = |n: i64| {
        let item = (n * 7 + n / 60 * 11) % 15 * 2 + n % 2;
        let kind = if n % 5 == 0 { "purchase" } else { "view" };
        (format!("user-{:02}", n % 60), format!("item-{item:02}"), 1_767_225_600 + n * 3_600, kind, (n % 3) as f64)
    };
    (0..1_500).map(one).collect()
}

fn write(folder: &Path, layout: Layout) {
    let mut random = StdRng::seed_from_u64(layout.seed);
    let mut rows = rows();
    if layout.shuffled_rows {
        rows.shuffle(&mut random);
    }
    for (number, part) in rows.chunks(rows.len().div_ceil(layout.files)).enumerate() {
        let text = |of: &dyn Fn(&Row) -> String| -> ArrayRef {
            let plain: ArrayRef = Arc::new(StringArray::from_iter_values(part.iter().map(of)));
            cast(&plain, &texts()[layout.texts]).unwrap()
        };
        let seconds: ArrayRef = Arc::new(Int64Array::from_iter_values(part.iter().map(|row| row.2)));
        let time = match layout.time {
            0 => seconds,
            1 => Arc::new(Int64Array::from_iter_values(part.iter().map(|row| row.2 * 1_000))),
            unit => {
                let seconds = cast(&seconds, &DataType::Timestamp(TimeUnit::Second, None)).unwrap();
                let unit = if unit == 2 { TimeUnit::Millisecond } else { TimeUnit::Microsecond };
                cast(&seconds, &DataType::Timestamp(unit, Some("UTC".into()))).unwrap()
            }
        };
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("USER_ID", text(&|row| row.0.clone())),
            ("ITEM_ID", text(&|row| row.1.clone())),
            ("TIMESTAMP", time),
            ("EVENT_TYPE", text(&|row| row.3.to_owned())),
            ("EVENT_VALUE", Arc::new(Float64Array::from_iter_values(part.iter().map(|row| row.4)))),
        ];
        if layout.shuffled_columns {
            columns.push(("session_note", text(&|row| format!("note on {}", row.0))));
            columns.shuffle(&mut random);
        }
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut properties = WriterProperties::builder()
            .set_compression(codecs()[layout.codec])
            .set_dictionary_enabled(layout.dictionary)
            .set_max_row_group_row_count(Some(layout.row_group))
            .set_writer_version(if layout.version_2 { WriterVersion::PARQUET_2_0 } else { WriterVersion::PARQUET_1_0 });
        if !layout.dictionary {
            for column in ["USER_ID", "ITEM_ID", "EVENT_TYPE"] {
                properties = properties.set_column_encoding(column.into(), ENCODINGS[layout.encoding]);
            }
        }
        let file = std::fs::File::create(folder.join(format!("part-{number}.parquet"))).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties.build())).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }
}

/// What a training and a segment job make of a layout.
async fn made(layout: Layout) -> [Fingerprint; 2] {
    let folder = tempfile::tempdir().unwrap();
    let interactions = folder.path().join("interactions");
    std::fs::create_dir(&interactions).unwrap();
    write(&interactions, layout);
    let stores = Stores::in_memory();
    let recipe = ItemAffinity { hidden_dimension: 32, iterations: 2, ..ItemAffinity::default() };
    let trained = TrainingJob::new(interactions.display().to_string())
        .recipe(recipe)
        .event_weights([("view", 1.0), ("purchase", 4.0)])
        .solution("memory:///solution")
        .stores(stores.clone())
        .run()
        .await
        .unwrap_or_else(|error| panic!("{layout:?}: {error}"));
    BatchSegmentJob::new(&trained.solution.to_string(), ItemList::from_ids(["item-03", "item-08"]))
        .num_results(40)
        .reasons(Some(2))
        .output("memory:///segments")
        .stores(stores.clone())
        .run()
        .await
        .unwrap();
    let read = async |place, artifact| {
        let versions = Versions::new(&stores, Location::parse(place).unwrap(), artifact).unwrap();
        fingerprint(&versions.latest().await.unwrap().unwrap())
    };
    [read("memory:///solution", Artifact::SolutionVersion).await, read("memory:///segments", Artifact::Segments).await]
}

#[tokio::test]
async fn p20_the_same_data_in_any_layout_give_the_same_solution_version_and_segments() {
    let reference = made(PLAIN).await;
    let mut layouts = vec![
        Layout { files: 7, ..PLAIN },
        Layout { row_group: 37, ..PLAIN },
        Layout { version_2: true, dictionary: false, ..PLAIN },
        Layout { shuffled_rows: true, ..PLAIN },
        Layout { shuffled_columns: true, ..PLAIN },
    ];
    layouts.extend((1..codecs().len()).map(|codec| Layout { codec, ..PLAIN }));
    layouts.extend((0..ENCODINGS.len()).map(|encoding| Layout { encoding, dictionary: false, ..PLAIN }));
    layouts.extend((1..texts().len()).map(|texts| Layout { texts, ..PLAIN }));
    layouts.extend((1..4).map(|time| Layout { time, ..PLAIN }));
    let seed: u64 = std::env::var("ITEM_AFFINITY_SEED").ok().map_or_else(rand::random, |text| text.parse().unwrap());
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..AT_RANDOM {
        layouts.push(Layout {
            files: random.random_range(1..9),
            row_group: random.random_range(10..2_000),
            codec: random.random_range(0..codecs().len()),
            dictionary: random.random(),
            encoding: random.random_range(0..ENCODINGS.len()),
            version_2: random.random(),
            texts: random.random_range(0..texts().len()),
            time: random.random_range(0..4),
            shuffled_rows: random.random(),
            shuffled_columns: random.random(),
            seed: random.random(),
        });
    }
    for layout in &layouts {
        assert!(made(*layout).await == reference, "seed {seed}: {layout:?} gives other bytes");
    }
    println!("layouts: {} of {} give the same bytes (seed {seed})", layouts.len(), layouts.len());
}

#[test]
fn p21_one_two_and_four_threads_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (mut distinct, mut runs) = (BTreeSet::new(), 0);
    for threads in ["1", "2", "4"] {
        for repeat in ["a", "b"] {
            let place = |of: &str| folder.path().join(format!("{of}-{threads}-{repeat}")).display().to_string();
            let (solution, output) = (place("solution"), place("segments"));
            let (interactions, items, users) =
                (data("interactions.parquet"), data("items.parquet"), data("users.parquet"));
            let data = ["train", "--quiet", "--interactions", &interactions, "--items", &items, "--users", &users];
            let settings = ["--hidden-dimension", "32", "--threads", threads, "--solution", &solution];
            succeed(data.into_iter().chain(settings));
            let segment = ["segment", "--quiet", "--threads", threads, "--solution", &solution, "--output", &output];
            let items = ["--item", "COFFEE-01", "--item", "MUSIC-05", "--num-results", "1500", "--reasons", "3"];
            succeed(segment.into_iter().chain(items));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let read = async |place: &str, artifact| {
                let versions = Versions::new(&Stores::in_memory(), Location::parse(place).unwrap(), artifact).unwrap();
                fingerprint(&versions.latest().await.unwrap().unwrap())
            };
            let made = runtime.block_on(async {
                (read(&solution, Artifact::SolutionVersion).await, read(&output, Artifact::Segments).await)
            });
            runs += 1;
            distinct.insert(made);
        }
    }
    println!("threads 1, 2, 4 × 2: {} distinct results of {runs} runs", distinct.len());
    assert_eq!(distinct.len(), 1);
}
