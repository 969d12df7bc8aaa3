//! Delta tables as inputs and as the output of segments, beside another implementation: the Python package deltalake.

#[cfg(feature = "delta")]
mod faults;
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

#[test]
fn a_delta_table_among_other_files_is_refused_and_one_of_its_files_is_a_file() {
    use crate::common::{cli, data};

    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("lake/events");
    std::fs::create_dir_all(table.join("_delta_log")).unwrap();
    std::fs::copy(data("interactions.parquet"), table.join("part-0.parquet")).unwrap();
    std::fs::copy(data("interactions.parquet"), folder.path().join("lake/more.parquet")).unwrap();
    let check = |place: &str| {
        let place = format!("{}/{place}", folder.path().display());
        cli(["check", "--quiet", "--interactions", &place])
    };
    for place in ["lake", "lake/**", "lake/*/part-0.parquet", "lake/events/*.parquet"] {
        let ended = check(place);
        assert_eq!(ended.code, 3, "{place} {ended:?}");
        assert!(ended.stderr.contains("ERR_DELTA: there is a Delta table among the files, see "), "{place} {ended:?}");
        assert!(ended.stderr.contains("give the folder of each table as a location of its own"), "{place} {ended:?}");
    }
    for place in ["lake/*.parquet", "lake/events/part-0.parquet"] {
        assert_eq!(check(place).code, 0, "{place} {:?}", check(place));
    }
}
