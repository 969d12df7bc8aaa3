//! Tables that the other implementation wrote, as inputs.

use item_affinity_storage::{Artifact, Commit, Location, Stores, Versions};
use serde_json::json;

use super::peer::{Peer, columns};
use crate::common::{S3Server, csv_rows, data, fingerprint, item_affinity, run, small_interactions, solution, succeed};

fn csv(sql: &str) -> String {
    succeed(["sql", "--format", "csv", "-c", sql]).stdout
}

/// A query over the Parquet file `p`.
fn of_parquet(file: &str, sql: &str) -> String {
    csv(&format!("CREATE EXTERNAL TABLE p STORED AS PARQUET LOCATION '{file}'; {sql}"))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn latest(location: &str) -> Commit {
    let location = Location::parse(location).unwrap();
    let versions = Versions::new(&Stores::from_env(), location, Artifact::SolutionVersion).unwrap();
    versions.latest().await.unwrap().unwrap()
}

fn train<'a>(interactions: &'a str, solution: &'a str) -> Vec<&'a str> {
    vec![
        "train",
        "--quiet",
        "--hidden-dimension",
        "32",
        "--allow-small-data",
        "--interactions",
        interactions,
        "--solution",
        solution,
    ]
}

#[test]
fn a_delta_table_trains_what_its_rows_train_and_a_rerun_does_nothing_until_it_changes() {
    let Some(peer) = Peer::find("delta::reading") else { return };
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let (parquet, table) = (place("interactions.parquet"), place("interactions"));
    small_interactions(parquet.as_ref());
    let rows = of_parquet(&parquet, "SELECT user_id, item_id, timestamp FROM p ORDER BY timestamp");
    let (first, second) = rows.split_at(rows.match_indices('\n').nth(700).unwrap().0 + 1);
    let types = ["string", "string", "long"];
    peer.write(&table, "append", &columns(first, &types), &[]);
    // Rows that are deleted leave their file in the folder: only the log says that it is no longer data.
    let junk = json!({ "user_id": ["string", ["junk"]], "item_id": ["string", ["junk"]], "timestamp": ["long", [1_767_225_600]] });
    peer.write(&table, "append", &junk, &[]);
    peer.delete(&table, "user_id = 'junk'");
    peer.write(&table, "append", &columns(&format!("user_id,item_id,timestamp\n{second}"), &types), &[]);

    let (plain, delta) = (place("of-parquet"), place("of-delta"));
    succeed(train(&parquet, &plain));
    succeed(train(&table, &delta));
    let (plain, trained) = (latest(&plain), latest(&delta));
    let parts = |commit: &Commit| {
        let files = fingerprint(commit);
        // The model card names the inputs.
        files.into_iter().filter(|(name, _)| !name.ends_with("model.json")).collect::<Vec<_>>()
    };
    assert_eq!(parts(&plain), parts(&trained));
    assert_eq!(trained.body.inputs.len(), 2);
    assert!(trained.body.inputs.iter().all(|input| input.delta_version == Some(3)), "{:?}", trained.body.inputs);

    let again = succeed(train(&table, &delta));
    assert_eq!(latest(&delta).version, 1, "{again:?}");
    peer.write(&table, "append", &junk, &[]);
    succeed(train(&table, &delta));
    let newer = latest(&delta);
    assert_eq!((newer.version, newer.body.inputs[0].delta_version), (2, Some(4)));
}

#[test]
fn partition_columns_are_columns_wherever_a_delta_table_is_read() {
    let Some(peer) = Peer::find("delta::reading") else { return };
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let (users, items, output, plain) = (place("my users"), place("items"), place("out"), place("plain"));
    let file = data("users.parquet");
    // A value that is written with percent signs in the name of its folder.
    let rows = of_parquet(
        &file,
        "SELECT user_id, CASE WHEN country = 'DE' THEN 'D/E %20' ELSE country END AS country FROM p ORDER BY user_id",
    );
    peer.write(&users, "append", &columns(&rows, &["string", "string"]), &["country"]);
    peer.write(&items, "append", &json!({ "item_id": ["string", ["COFFEE-01", "MUSIC-05"]] }), &[]);

    let segment = |list: [&str; 2], users: &str, filter: &str, output: &str| {
        let lists = ["segment", "--quiet", "--solution", solution(), "--num-results", "20", "--output", output];
        let of_users = ["--users", users, "--users-filter", filter];
        succeed(lists.into_iter().chain(list).chain(of_users))
    };
    let done = segment(["--items", &items], &users, "country = 'D/E %20'", &output);
    assert!(done.stdout.contains("asked=2 ok=2"), "{done:?}");
    let list = place("items.json");
    std::fs::write(&list, "{\"itemId\": \"COFFEE-01\"}\n{\"itemId\": \"MUSIC-05\"}\n").unwrap();
    segment(["--items", &list], &file, "country = 'DE'", &plain);
    let rows = |output: &str| csv(&format!("SELECT * FROM item_affinity_output('{output}') ORDER BY item_id, rank"));
    assert_eq!(rows(&output), rows(&plain));
    assert!(segment(["--items", &items], &users, "country = 'D/E %20'", &output).stdout.contains("already done"));

    let create = format!("CREATE EXTERNAL TABLE u STORED AS DELTATABLE LOCATION '{users}';");
    let counted = |source: &str| {
        format!("SELECT country, count(*) FROM {source} GROUP BY country ORDER BY replace(country, '/', '')")
    };
    let found = csv_rows(&csv(&format!("{create} {}", counted("u"))));
    let expected = csv_rows(&of_parquet(&file, &counted("p")));
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found[0].replace("/E %20", "E"), expected[0]);
        assert_eq!(found[1], expected[1]);
    }
    // Columns come in the order of the table, and filters of both kinds of columns hold.
    assert_eq!(
        csv(&format!("{create} SELECT * FROM u WHERE country = 'D/E %20' AND user_id = (SELECT min(user_id) FROM u WHERE country = 'D/E %20')")).lines().count(),
        2
    );
}

#[test]
fn tables_on_s3_are_read_and_written_as_those_on_disk() {
    let Some(server) = S3Server::start("delta::reading") else { return };
    let Some(peer) = Peer::find("delta::reading") else { return };
    let peer = peer.with(server.environment());
    let command = |arguments: &[&str]| {
        let ended = run(item_affinity().args(arguments).envs(server.environment()));
        assert_eq!(ended.code, 0, "{ended:?}");
        ended.stdout
    };
    peer.write("s3://lake/lists/items", "append", &json!({ "item_id": ["string", ["COFFEE-01"]] }), &[]);
    let segment = |item: [&str; 2]| {
        let arguments = ["segment", "--quiet", "--solution", solution(), "--format", "delta"];
        command(&[&arguments[..], &["--output", "s3://lake/segments", "--num-results", "7"], &item].concat())
    };
    assert!(segment(["--items", "s3://lake/lists/items"]).contains("delta: version=0"));
    assert!(segment(["--item", "MUSIC-05"]).contains("delta: version=1"));
    assert!(segment(["--item", "MUSIC-05"]).contains("already done"));
    let counted = "SELECT item_id, count(*) AS n FROM t GROUP BY item_id ORDER BY item_id";
    assert_eq!(peer.query("s3://lake/segments", counted), json!([["COFFEE-01", 7], ["MUSIC-05", 7]]));
    let create = "CREATE EXTERNAL TABLE t STORED AS DELTATABLE LOCATION 's3://lake/segments';";
    let ours = command(&["sql", "--root", "s3://lake/", "--format", "csv", "-c", &format!("{create} {counted}")]);
    assert_eq!(csv_rows(&ours), [["COFFEE-01", "7"], ["MUSIC-05", "7"]]);
    // A folder of tables is none.
    let ended = run(item_affinity().args(["check", "--interactions", "s3://lake/lists/"]).envs(server.environment()));
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stderr.contains("ERR_DELTA: there is a Delta table among the files"), "{ended:?}");
}
