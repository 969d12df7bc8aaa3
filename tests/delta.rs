//! Delta tables as inputs and as the output of segments, beside another implementation: the Python package deltalake.

#[cfg(feature = "delta")]
mod hand_made;
#[cfg(feature = "delta")]
mod peer;
#[cfg(feature = "delta")]
mod reading;
#[cfg(feature = "delta")]
mod writing;

#[cfg(not(feature = "delta"))]
#[test]
fn a_build_without_the_feature_says_so_and_reads_no_file_of_a_delta_table() {
    use crate::common::{cli, data, solution};

    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("users");
    std::fs::create_dir_all(table.join("_delta_log")).unwrap();
    std::fs::copy(data("users.parquet"), table.join("part-0.parquet")).unwrap();
    let output = folder.path().join("out").display().to_string();
    let table = table.display().to_string();
    let create = format!("CREATE EXTERNAL TABLE users STORED AS DELTATABLE LOCATION '{table}'");
    let segment = ["segment", "--solution", solution(), "--item", "COFFEE-01", "--output", &output];
    let lacks = "ERR_DELTA: this is a Delta table, and this build lacks the feature delta";
    for (arguments, code, message) in [
        (vec!["check", "--interactions", &table], 3, lacks),
        (vec!["sql", "-c", &create], 3, lacks),
        (segment.into_iter().chain(["--users", &table]).collect(), 3, lacks),
        (segment.into_iter().chain(["--format", "delta"]).collect(), 2, "this build lacks the feature delta"),
    ] {
        let ended = cli(&arguments);
        assert_eq!(ended.code, code, "{arguments:?} {ended:?}");
        assert!(ended.stderr.contains(message) && ended.stderr.contains("--features delta"), "{ended:?}");
    }
}
