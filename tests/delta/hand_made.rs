//! Logs that no writer here makes, refused or read by what they say.

use std::path::Path;

use serde_json::{Value, json};

use crate::common::{cli, data, item_affinity, run, succeed};

/// A table of the built-in users with one commit of these actions.
fn table(folder: &Path, name: &str, change: impl FnOnce(&mut Vec<Value>)) -> String {
    let table = folder.join(name);
    std::fs::create_dir_all(table.join("_delta_log")).unwrap();
    let file = table.join("part 0.parquet");
    std::fs::copy(data("users.parquet"), &file).unwrap();
    let fields =
        ["user_id", "country"].map(|name| json!({ "name": name, "type": "string", "nullable": true, "metadata": {} }));
    let schema = json!({ "type": "struct", "fields": fields }).to_string();
    let mut actions = vec![
        json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": 2 } }),
        json!({ "metaData": {
            "id": "0", "format": { "provider": "parquet", "options": {} }, "schemaString": schema,
            "partitionColumns": [], "configuration": {}, "createdTime": 0,
        } }),
        json!({ "add": {
            "path": "part%200.parquet", "partitionValues": {}, "size": file.metadata().unwrap().len(),
            "modificationTime": 0, "dataChange": true,
        } }),
    ];
    change(&mut actions);
    let text = actions.iter().map(|action| format!("{action}\n")).collect::<String>();
    std::fs::write(table.join("_delta_log/00000000000000000000.json"), text).unwrap();
    table.display().to_string()
}

fn read(table: &str) -> crate::common::Ended {
    let sql = format!("CREATE EXTERNAL TABLE t STORED AS DELTATABLE LOCATION '{table}'; SELECT count(*) AS n FROM t");
    cli(["sql", "--format", "csv", "-c", &sql])
}

#[test]
fn a_log_that_plain_parquet_files_do_not_answer_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let plain = table(folder.path(), "plain", |_| ());
    let counted = format!(
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{}'; SELECT count(*) AS n FROM t",
        data("users.parquet")
    );
    assert_eq!(read(&plain).stdout, succeed(["sql", "--format", "csv", "-c", &counted]).stdout, "{:?}", read(&plain));

    let features = json!({ "protocol": {
        "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"],
    } });
    let unknown = json!({ "protocol": {
        "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["tomorrow"], "writerFeatures": ["tomorrow"],
    } });
    type Change<'a> = Box<dyn FnOnce(&mut Vec<Value>) + 'a>;
    let cases: Vec<(&str, &str, Change<'_>)> = vec![
        (
            "vectors",
            "part 0.parquet has a deletion vector; ",
            Box::new(|log: &mut Vec<Value>| {
                log[0] = features.clone();
                log[1]["metaData"]["configuration"] = json!({ "delta.enableDeletionVectors": "true" });
                log[2]["add"]["deletionVector"] = json!({
                    "storageType": "u", "pathOrInlineDv": "vBn[lx{q8@P<9BNH/isA", "offset": 1, "sizeInBytes": 36, "cardinality": 2,
                });
            }),
        ),
        (
            "mapping",
            "the table maps its columns by name; ",
            Box::new(|log: &mut Vec<Value>| {
                log[0] = json!({ "protocol": { "minReaderVersion": 2, "minWriterVersion": 5 } });
                log[1]["metaData"]["configuration"] =
                    json!({ "delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "2" });
                let fields = ["user_id", "country"].into_iter().enumerate().map(|(id, name)| {
                    json!({
                        "name": name, "type": "string", "nullable": true,
                        "metadata": { "delta.columnMapping.id": id + 1, "delta.columnMapping.physicalName": name },
                    })
                });
                let schema = json!({ "type": "struct", "fields": fields.collect::<Vec<_>>() });
                log[1]["metaData"]["schemaString"] = schema.to_string().into();
            }),
        ),
        (
            "clone",
            "s3://other/part.parquet lies outside the table",
            Box::new(|log: &mut Vec<Value>| {
                log[2]["add"]["path"] = "s3://other/part.parquet".into();
            }),
        ),
        (
            "above",
            "../plain/part 0.parquet lies outside the table",
            Box::new(|log: &mut Vec<Value>| {
                log[2]["add"]["path"] = "../plain/part%200.parquet".into();
            }),
        ),
        (
            "size",
            "the log says 7 bytes, the file has ",
            Box::new(|log: &mut Vec<Value>| log[2]["add"]["size"] = 7.into()),
        ),
        ("future", "tomorrow", Box::new(|log: &mut Vec<Value>| log[0] = unknown.clone())),
        ("empty", "the Delta table has no rows", Box::new(|log: &mut Vec<Value>| log.truncate(2))),
        ("half", "ERR_DELTA: ", Box::new(|log: &mut Vec<Value>| log.truncate(1))),
    ];
    for (name, message, change) in cases {
        let table = table(folder.path(), name, change);
        for ended in [read(&table), cli(["check", "--quiet", "--interactions", &table])] {
            assert_eq!(ended.code, 3, "{name} {ended:?}");
            assert!(ended.stderr.contains(message) && ended.stderr.contains(&table), "{name} {ended:?}");
            assert_eq!(ended.stderr.lines().count(), 1, "{name} {ended:?}");
        }
    }
    let damaged = Path::new(&plain).join("_delta_log/00000000000000000000.json");
    for text in ["{", "", "\u{0}\u{0}", "[]", "{\"add\":7}", "{\"metaData\":{}}"] {
        std::fs::write(&damaged, text).unwrap();
        let ended = read(&plain);
        assert_eq!((ended.code, ended.stderr.lines().count()), (3, 1), "{text:?} {ended:?}");
        assert!(ended.stderr.contains("ERR_DELTA: ") && !ended.stderr.contains("panicked"), "{text:?} {ended:?}");
    }
    // Lines of a log hold ids of users: bounds of files and values of partition columns. No message repeats them.
    for line in [
        json!({ "add": { "path": "p", "partitionValues": { "user_id": ["canary"] }, "size": "canary", "modificationTime": 0 } }),
        json!({ "metaData": { "id": "canary", "schemaString": "canary", "partitionColumns": "canary" } }),
        json!({ "protocol": { "minReaderVersion": "canary" } }),
    ] {
        std::fs::write(&damaged, format!("{line}\n{line} canary")).unwrap();
        let sql = format!("CREATE EXTERNAL TABLE t STORED AS DELTATABLE LOCATION '{plain}'");
        let ended = run(item_affinity().env("RUST_LOG", "trace").args(["sql", "-c", &sql]));
        assert_eq!(ended.code, 3, "{line} {ended:?}");
        assert!(ended.stderr.contains("ERR_DELTA: ") && !ended.stderr.contains("canary"), "{line} {ended:?}");
    }
    std::fs::remove_file(&damaged).unwrap();
    assert!(read(&plain).stderr.contains("the folder _delta_log has no log"), "{:?}", read(&plain));
}
