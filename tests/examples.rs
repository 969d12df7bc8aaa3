//! The example programs do what they say.

use std::path::PathBuf;
use std::process::Command;

use crate::common::{Ended, data, run, solution};

/// Example programs are built beside the binary by `cargo test`.
fn example(name: &str) -> Command {
    let target = PathBuf::from(env!("CARGO_BIN_EXE_item-affinity"));
    Command::new(target.parent().unwrap().join("examples").join(name))
}

fn succeed(command: &mut Command) -> Ended {
    let ended = run(command);
    assert_eq!(ended.code, 0, "{ended:?}");
    ended
}

#[test]
fn make_dataset_gives_the_files_that_are_shipped() {
    let folder = tempfile::tempdir().unwrap();
    succeed(example("make_dataset").arg(folder.path()));
    for name in ["interactions.parquet", "items.parquet", "users.parquet"] {
        let made = std::fs::read(folder.path().join(name)).unwrap();
        let shipped = std::fs::read(data(name)).unwrap();
        assert!(made == shipped, "{name} differs; make it again: cargo run --example make_dataset -- examples/data");
        assert!(shipped.len() < 200_000, "{name} has {} bytes", shipped.len());
    }
}

#[test]
fn etl_trains_and_writes_only_confident_rows() {
    let folder = tempfile::tempdir().unwrap();
    let ended = succeed(example("etl").arg(data("interactions.parquet")).arg(folder.path()));
    assert!(ended.stdout.contains("trained version 1 from "), "{}", ended.stdout);
    let written = std::fs::read_dir(folder.path().join("confident")).unwrap().count();
    assert!(written > 0);
    let query = "SELECT count(*), min(score) > 0.05 FROM read_back";
    let confident = folder.path().join("confident");
    let text =
        format!("CREATE EXTERNAL TABLE read_back STORED AS PARQUET LOCATION '{}/'; {query}", confident.display());
    let rows = crate::common::csv_rows(&crate::common::succeed(["sql", "--format", "csv", "-c", &text]).stdout);
    assert_eq!(rows[0][1], "true");
    assert!(ended.stdout.contains(&format!("wrote {} rows", rows[0][0])), "{}", ended.stdout);
}

#[test]
fn register_plugin_answers_in_a_plain_datafusion_session() {
    let ended = succeed(example("register_plugin").args([solution(), "COFFEE-01"]));
    assert_eq!(ended.stdout.matches("COFFEE-01").count(), 5, "{}", ended.stdout);
    // The second table repeats each score, once from the segment and once from the score function.
    for line in ended.stdout.lines().filter(|l| l.starts_with("| 1 ") || l.starts_with("| 2 ") || l.starts_with("| 3 "))
    {
        let cells = line.split('|').map(str::trim).filter(|c| !c.is_empty()).collect::<Vec<_>>();
        let (score, again) = (cells[2].parse::<f32>().unwrap(), cells[3].parse::<f32>().unwrap());
        assert!((score - again).abs() < 1e-4, "{line}");
    }
}

#[test]
fn scheduled_batch_does_nothing_the_second_time() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("items.json");
    std::fs::write(&list, "{\"itemId\": \"COFFEE-01\"}\n{\"itemId\": \"NEVER-SOLD\"}\n").unwrap();
    let again =
        || succeed(example("scheduled_batch").arg(data("interactions.parquet")).arg(&list).arg(folder.path())).stdout;
    let first = again();
    assert!(first.contains("segments version 1: asked=2 ok=1 empty=0 error=1"), "{first}");
    assert!(first.contains("ITEM_NOT_IN_MODEL: NEVER-SOLD"), "{first}");
    let second = again();
    assert!(second.contains("solution version 1, nothing new"), "{second}");
    assert!(second.contains("segments version 1, nothing new: asked=2 ok=1 empty=0 error=1"), "{second}");
}

#[test]
fn complete_journey_goes_from_check_to_joined_segments() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    // The built-in data under the names and types of the package, so that nothing is downloaded.
    let tables = ["interactions", "items", "users"].map(|name| {
        format!("CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{}';", data(&format!("{name}.parquet")))
    });
    let numbered =
        "CREATE VIEW p AS SELECT row_number() OVER (ORDER BY item_id) AS product_id, item_id, category FROM items;";
    for (name, query) in [
        (
            "transactions",
            "SELECT CAST(substr(user_id, 2) AS BIGINT) AS household_id, product_id, \
             to_timestamp(timestamp) AS transaction_timestamp FROM interactions JOIN p USING (item_id)",
        ),
        ("products", "SELECT product_id, category AS department FROM p"),
        (
            "demographics",
            "SELECT CAST(substr(user_id, 2) AS BIGINT) AS household_id, country AS income \
             FROM users WHERE country = 'DE'",
        ),
    ] {
        let file = folder.path().join(format!("data/{name}.parquet")).display().to_string();
        let text = format!("{} {numbered} {query}", tables.concat());
        crate::common::succeed(["sql", "--allow-ddl", "--format", "parquet", "--output", &file, "-c", &text]);
    }
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/complete-journey/run.sh");
    let ended = succeed(
        Command::new("bash").arg(script).arg(folder.path()).env("ITEM_AFFINITY", env!("CARGO_BIN_EXE_item-affinity")),
    );
    assert!(ended.stdout.contains("1,500 users, 80 items, 15,472 interactions"), "{}", ended.stdout);
    assert!(ended.stdout.contains("items: asked=80 ok=80 empty=0 error=0"), "{}", ended.stdout);
    let departments = ended.stdout.lines().filter(|l| l.contains("| 10    |") && l.ends_with("| DE                 |"));
    assert_eq!(departments.count(), 8, "{}", ended.stdout);
}
