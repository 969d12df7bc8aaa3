//! The whole path on every kind of store: Parquet in, solution version, segments out; always the same rows.

use std::process::Command;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Float32Type, Int32Type};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use item_affinity_job::{BatchSegmentJob, ItemList, RefreshJob, TrainingJob};
use item_affinity_solution::{SolutionRef, SolutionVersion};
use item_affinity_storage::{Artifact, Location, Stores, Versions};

use crate::common::{Ended, S3Server, csv_rows, data, item_affinity, run};

const ITEMS: [&str; 3] = ["CAMPING-03", "COFFEE-01", "MUSIC-05"];

type Row = (String, i32, String, f32);

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let text = |column: usize, row: usize| batch.column(column).as_string::<i32>().value(row).to_owned();
    (0..batch.num_rows())
        .map(|row| {
            let rank = batch.column(1).as_primitive::<Int32Type>().value(row);
            let score = batch.column(3).as_primitive::<Float32Type>().value(row);
            (text(0, row), rank, text(2, row), score)
        })
        .collect()
}

/// Trains, refreshes and ranks through the Rust API below `lake`, and reads the committed rows back: those of the trained
/// version, then those of the refreshed one.
async fn train_and_segment(stores: &Stores, lake: &str) -> [Vec<Row>; 2] {
    let trained = TrainingJob::new(data("interactions.parquet"))
        .hidden_dimension(32)
        .solution(format!("{lake}/solution"))
        .stores(stores.clone())
        .run()
        .await
        .unwrap();
    let refreshed = RefreshJob::new(format!("{lake}/solution")).interactions(data("interactions.parquet"));
    let refreshed = refreshed.stores(stores.clone()).run().await.unwrap();
    assert_eq!((trained.version, refreshed.version), (1, 2));
    let trained = segment(stores, &trained.solution, &format!("{lake}/segments")).await;
    [trained, segment(stores, &refreshed.solution, &format!("{lake}/refreshed")).await]
}

/// Ranks and reads the committed rows back.
async fn segment(stores: &Stores, solution: &SolutionRef, output: &str) -> Vec<Row> {
    let version = Arc::new(SolutionVersion::open(stores, solution).await.unwrap());
    let report = BatchSegmentJob::of(version, ItemList::from_ids(ITEMS))
        .num_results(20)
        .output(output)
        .stores(stores.clone())
        .run()
        .await
        .unwrap();
    assert_eq!((report.asked, report.ok, report.rows), (3, 3, 60));
    let output = Location::parse(output).unwrap();
    let versions = Versions::new(stores, output, Artifact::Segments).unwrap();
    let commit = versions.latest().await.unwrap().unwrap();
    let mut rows = Vec::new();
    for file in &commit.files {
        let bytes = versions.read_file(file).await.unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
            rows.extend(rows_of(&batch.unwrap()));
        }
    }
    rows
}

#[tokio::test]
async fn memory_and_local_disk_give_the_same_segments() {
    let in_memory = train_and_segment(&Stores::in_memory(), "memory:///lake").await;
    let folder = tempfile::tempdir().unwrap();
    let on_disk = train_and_segment(&Stores::from_env(), &folder.path().display().to_string()).await;
    assert_eq!(in_memory, on_disk);
    for rows in in_memory {
        assert_eq!(rows.len(), 60);
        assert!(rows.is_sorted_by(|a, b| (&a.0, a.1) < (&b.0, b.1)));
    }
}

#[test]
fn s3_gives_the_same_segments_through_the_command_line() {
    let Some(server) = S3Server::start("s3_gives_the_same_segments_through_the_command_line") else { return };
    let with_server = |arguments: &[&str]| -> Ended {
        let mut command: Command = item_affinity();
        command.envs(server.environment()).args(arguments);
        if arguments[0] == "sql" {
            command.args(["--root", "s3://lake/", "--root", &data("")]);
        }
        run(&mut command)
    };
    let succeed = |arguments: &[&str]| -> Ended {
        let ended = with_server(arguments);
        assert_eq!(ended.code, 0, "{arguments:?}: {ended:?}");
        ended
    };
    // The interactions reach the bucket by our own SQL, as Hive partitions by event type.
    let copy = format!(
        "CREATE EXTERNAL TABLE interactions STORED AS PARQUET LOCATION '{}'; \
         COPY interactions TO 's3://lake/interactions/' STORED AS PARQUET PARTITIONED BY (event_type)",
        data("interactions.parquet")
    );
    succeed(&["sql", "--allow-copy", "-c", &copy]);
    succeed(&["check", "--interactions", "s3://lake/interactions/"]);
    let train = [
        "train",
        "--interactions",
        "s3://lake/interactions/",
        "--hidden-dimension",
        "32",
        "--solution",
        "s3://lake/solutions/affinity",
    ];
    let trained = succeed(&train);
    assert!(trained.stdout.contains("committed version 1 of s3://lake/solutions/affinity"), "{}", trained.stdout);
    assert!(succeed(&train).stdout.contains("already done as version 1"));

    let list = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    let lines = ITEMS.map(|id| format!("{{\"itemId\": \"{id}\"}}\n")).concat();
    std::fs::write(list.path(), lines).unwrap();
    let segment = succeed(&[
        "segment",
        "--solution",
        "s3://lake/solutions/affinity@1",
        "--items",
        &list.path().display().to_string(),
        "--num-results",
        "20",
        "--output",
        "s3://lake/segments",
    ]);
    assert!(segment.stdout.contains("items: asked=3 ok=3 empty=0 error=0"), "{}", segment.stdout);
    let file = segment.stdout.lines().last().unwrap().trim().to_owned();
    let read = format!(
        "CREATE EXTERNAL TABLE s STORED AS PARQUET LOCATION 's3://lake/segments/{file}'; \
         SELECT item_id, rank, user_id, score FROM s ORDER BY item_id, rank"
    );
    let on_s3 = csv_rows(&succeed(&["sql", "--format", "csv", "-c", &read]).stdout);
    let query =
        "SELECT * FROM item_affinity_segments(['CAMPING-03', 'COFFEE-01', 'MUSIC-05'], 20) ORDER BY item_id, rank";
    let by_sql = |version: &str| {
        csv_rows(&succeed(&["sql", "--solution-version", version, "--format", "csv", "-c", query]).stdout)
    };
    assert_eq!(on_s3, by_sql("s3://lake/solutions/affinity"));

    let refresh =
        ["refresh", "--solution", "s3://lake/solutions/affinity", "--interactions", "s3://lake/interactions/"];
    let refreshed = succeed(&refresh);
    assert!(refreshed.stdout.contains("committed version 2 of s3://lake/solutions/affinity"), "{}", refreshed.stdout);
    assert!(succeed(&refresh).stdout.contains("already done as version 2"));
    let refreshed = by_sql("s3://lake/solutions/affinity@2");

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let in_memory = runtime.block_on(train_and_segment(&Stores::in_memory(), "memory:///lake"));
    for (on_s3, in_memory) in [on_s3, refreshed].iter().zip(&in_memory) {
        assert_eq!(on_s3.len(), in_memory.len());
        for (remote, local) in on_s3.iter().zip(in_memory) {
            assert_eq!((&remote[0], &remote[1], &remote[2]), (&local.0, &local.1.to_string(), &local.2));
            assert!((remote[3].parse::<f32>().unwrap() - local.3).abs() < 1e-5);
        }
    }

    let missing = with_server(&["train", "--interactions", "s3://no-such-bucket/x/", "--solution", "s3://lake/other"]);
    assert_eq!(missing.code, 3, "{missing:?}");
    assert!(missing.stderr.contains("no-such-bucket") && missing.stderr.lines().count() == 1, "{}", missing.stderr);
}
