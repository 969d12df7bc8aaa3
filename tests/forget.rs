//! `forget`: after it no byte below the roots names a user who was named (P38).

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::file::reader::{FileReader, SerializedFileReader};
use item_affinity_storage::{Artifact, Location, Stores, Versions};

use crate::common::{Ended, cli, csv_rows, data, files_below, item_affinity, solution, succeed};

struct Lake(tempfile::TempDir);

impl Lake {
    /// Two versions of a solution, two of an output as Parquet with reasons, one as JSON Lines.
    fn new() -> Self {
        let lake = Self(tempfile::tempdir().unwrap());
        let interactions = data("interactions.parquet");
        let solution = lake.path("solution");
        let train =
            ["train", "--quiet", "--hidden-dimension", "32", "--interactions", &interactions, "--solution", &solution];
        succeed(train);
        lake.segment("segments", &["--reasons", "2"]);
        lake.segment("lines", &["--format", "json-lines"]);
        succeed(train.into_iter().chain(["--force"]));
        lake.segment("segments", &["--reasons", "2"]);
        lake
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn segment(&self, output: &str, more: &[&str]) {
        let (solution, output) = (self.path("solution"), self.path(output));
        let fixed = ["segment", "--quiet", "--solution", &solution, "--item", "COFFEE-01", "--item", "MUSIC-05"];
        let fixed = fixed.into_iter().chain(["--num-results", "100000", "--output", &output]);
        succeed(fixed.chain(more.iter().copied()));
    }

    fn forget(&self, users: &str) -> Ended {
        let (solution, segments, lines) = (self.path("solution"), self.path("segments"), self.path("lines"));
        cli(["forget", "--users", users, "--solution", &solution, "--output", &segments, "--output", &lines])
    }

    fn names(&self, users: &[&str]) -> String {
        let file = self.path("names.csv");
        std::fs::write(&file, format!("user_id\n{}\n", users.join("\n"))).unwrap();
        file
    }

    /// Which of these users any file below a location names: in its bytes, or in a page of Parquet once it is decoded.
    fn found(&self, users: &[&str]) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for place in ["solution", "segments", "lines"] {
            for file in files_below(&self.0.path().join(place)) {
                let path = self.0.path().join(place).join(&file);
                let mut texts = vec![std::fs::read(&path).unwrap()];
                if file.extension().is_some_and(|end| end == "parquet") {
                    texts.push(decoded(&path));
                }
                for user in users {
                    if texts.iter().any(|text| text.windows(user.len()).any(|bytes| bytes == user.as_bytes())) {
                        found.insert((*user).to_owned());
                    }
                }
            }
        }
        found
    }
}

/// The pages of all columns, dictionaries included, decompressed; and all texts, since ids that begin alike are not whole in
/// a page.
fn decoded(path: &Path) -> Vec<u8> {
    let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut bytes = Vec::new();
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).unwrap();
        for column in 0..group.num_columns() {
            let mut pages = group.get_column_page_reader(column).unwrap();
            while let Some(page) = pages.get_next_page().unwrap() {
                bytes.extend_from_slice(page.buffer());
            }
        }
    }
    let rows = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap().build().unwrap();
    for column in rows.flat_map(|batch| batch.unwrap().columns().to_vec()) {
        if column.data_type().is_string() {
            let texts = cast(&column, &DataType::Utf8).unwrap();
            texts.as_string::<i32>().iter().flatten().for_each(|text| bytes.extend_from_slice(text.as_bytes()));
        }
    }
    bytes
}

/// Puts users on the list of a location and does nothing else.
fn put_on_list(location: &str, artifact: Artifact, users: &[&str]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let versions = Versions::new(&Stores::from_env(), Location::parse(location).unwrap(), artifact).unwrap();
    let listed = runtime.block_on(versions.forget(users.iter().copied())).unwrap();
    assert_eq!(listed, users.len() as u64);
}

fn rows(query: &str) -> Vec<Vec<String>> {
    csv_rows(&succeed(["sql", "--format", "csv", "-c", query]).stdout)
}

#[test]
fn p38_no_byte_names_a_forgotten_user_and_the_others_keep_their_place() {
    let lake = Lake::new();
    let all = rows(&format!(
        "SELECT user_id FROM item_affinity_output('{}') WHERE item_id = 'COFFEE-01'",
        lake.path("segments")
    ));
    let named = [all[0][0].as_str(), all[4][0].as_str(), all[all.len() - 1][0].as_str()];
    assert_eq!(lake.found(&named).len(), 3);
    let query = |place: &str| {
        format!("SELECT item_id, user_id, score FROM item_affinity_output('{place}') ORDER BY item_id, rank")
    };
    let others = |place: &str| {
        rows(&query(place)).into_iter().filter(|row| !named.contains(&row[1].as_str())).collect::<Vec<_>>()
    };
    let before = others(&lake.path("segments"));
    let scores = format!(
        "SET item_affinity.solution_version = '{}'; SELECT item_id, user_id, score FROM item_affinity_segments(['COFFEE-01', 'MUSIC-05'], 100000) ORDER BY item_id, rank",
        lake.path("solution")
    );

    let ended = lake.forget(&lake.names(&[&named[..], &["never-seen"]].concat()));
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(lake.found(&named), BTreeSet::new());
    for text in [&ended.stdout, &ended.stderr] {
        assert!(named.iter().all(|id| !text.contains(id)) && !text.contains("never-seen"), "{text}");
    }
    for line in [
        "4 users named\n",
        "/solution: version 3 is without 3 users and ",
        "; versions 1 to 2 removed, ",
        "/segments: version 3 is without 6 rows; versions 1 to 2 removed, ",
        "/lines: version 2 is without 6 rows; version 1 removed, ",
    ] {
        assert!(ended.stdout.contains(line), "{line}: {}", ended.stdout);
    }

    // What is left is whole, in its order, and what it was.
    assert_eq!(rows(&query(&lake.path("segments"))), before);
    assert_eq!(rows(&scores), before);
    let ranks = "SELECT item_id, min(rank) = 1 AND max(rank) = count(*) AND count(DISTINCT rank) = count(*)";
    for row in rows(&format!("{ranks} FROM item_affinity_output('{}') GROUP BY item_id", lake.path("segments"))) {
        assert_eq!(row[1], "true", "{row:?}");
    }
    let reasons = files_below(Path::new(&lake.path("segments")))
        .into_iter()
        .find(|f| f.to_string_lossy().contains("_reasons/"))
        .unwrap();
    let mismatches = format!(
        "CREATE EXTERNAL TABLE r STORED AS PARQUET LOCATION '{}/{}';
         SELECT count(*), count(s.user_id) FROM r LEFT JOIN item_affinity_output('{}') AS s
           ON s.item_id = r.item_id AND s.rank = r.rank AND s.user_id = r.user_id",
        lake.path("segments"),
        reasons.display(),
        lake.path("segments")
    );
    let counts = rows(&mismatches);
    assert!(counts[0][0] == counts[0][1] && counts[0][0] != "0", "{counts:?}");
    for (option, place) in [("--solution", "solution"), ("--output", "segments"), ("--output", "lines")] {
        succeed(["verify", option, &lake.path(place), "--all"]);
    }
    let lines = std::fs::read_to_string(lake.path("lines/items.json.out")).unwrap();
    let users = lines.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["output"]["usersList"].as_array().unwrap().len()
    });
    assert_eq!(users.sum::<usize>(), before.len());

    // Again: nothing is left to do. The version can be used and refreshed as any other.
    let again = lake.forget(&lake.names(&named));
    assert_eq!(again.code, 0, "{again:?}");
    assert_eq!(again.stdout.matches("has none of them; no version removed, 0 files").count(), 3, "{}", again.stdout);
    let card = succeed(["show", "--solution", &lake.path("solution")]).stdout;
    assert!(card.contains("FORGOTTEN: 3 users"), "{card}");
    let refreshed = succeed([
        "refresh",
        "--quiet",
        "--interactions",
        &data("interactions.parquet"),
        "--solution",
        &lake.path("solution"),
    ]);
    // Item factors are those of before: the mark stays until a training.
    let card = succeed(["show", "--solution", &lake.path("solution")]).stdout;
    assert!(card.contains("FORGOTTEN: 3 users"), "{card}");
    // The interactions still hold them, and nobody is new.
    assert!(refreshed.stdout.contains("0 users are new, 0 are gone"), "{}", refreshed.stdout);
    assert_eq!(lake.found(&named), BTreeSet::new());
}

#[test]
fn p38_no_later_job_lets_a_forgotten_user_in() {
    let lake = Lake::new();
    let (solution, segments) = (lake.path("solution"), lake.path("segments"));
    let best =
        rows(&format!("SELECT user_id FROM item_affinity_output('{segments}') WHERE rank <= 2 ORDER BY user_id"));
    let best = best.into_iter().map(|row| row[0].clone()).collect::<BTreeSet<_>>();
    let best = best.iter().map(String::as_str).collect::<Vec<_>>();
    let named = [best[0], best[1]];
    let names = lake.names(&named);
    let interactions = data("interactions.parquet");

    // The output alone: the version still has them, and its segments do not, whoever else is asked for.
    succeed(["forget", "--users", &names, "--output", &segments]);
    assert!(!lake.found(&named).is_empty(), "the solution has them");
    let in_output = |rank: &str| {
        let query = format!("SELECT item_id, user_id FROM item_affinity_output('{segments}') WHERE rank <= {rank}");
        rows(&query).into_iter().map(|row| row[1].clone()).collect::<Vec<_>>()
    };
    let everybody = lake.path("users.parquet");
    let all_users = format!(
        "CREATE EXTERNAL TABLE u STORED AS PARQUET LOCATION '{}'; SELECT user_id FROM u",
        data("users.parquet")
    );
    succeed(["sql", "--format", "parquet", "--output", &everybody, "-c", &all_users]);
    for more in [&["--reasons", "2"][..], &["--num-results", "7"], &["--users", &everybody]] {
        let job =
            ["segment", "--solution", &solution, "--item", "COFFEE-01", "--item", "MUSIC-05", "--output", &segments];
        let ended = succeed(job.into_iter().chain(more.iter().copied()));
        assert!(ended.stderr.contains("2 forgotten users are left out"), "{ended:?}");
        let found = in_output("1000000");
        assert!(!found.is_empty() && !found.iter().any(|user| named.contains(&user.as_str())));
    }
    // The place of who is left out is taken by the next best, so that segments are as long as asked for.
    assert_eq!(in_output("7").len(), 14);

    // The solution: neither a training nor a refresh of the same interactions has them again.
    succeed([
        "forget",
        "--users",
        &names,
        "--solution",
        &solution,
        "--output",
        &segments,
        "--output",
        &lake.path("lines"),
    ]);
    assert_eq!(lake.found(&named), BTreeSet::new());
    let train = ["train", "--hidden-dimension", "32", "--interactions", &interactions, "--solution", &solution];
    let trained = succeed(train);
    assert!(trained.stderr.contains("interactions of forgotten users are left out"), "{trained:?}");
    succeed(["refresh", "--force", "--interactions", &interactions, "--solution", &solution]);
    lake.segment("segments", &["--force"]);
    lake.segment("lines", &["--format", "json-lines", "--force"]);
    assert_eq!(lake.found(&named), BTreeSet::new());
    // As if they had never been in the interactions.
    let without = lake.path("without.parquet");
    let query = format!(
        "CREATE EXTERNAL TABLE i STORED AS PARQUET LOCATION '{interactions}'; SELECT * FROM i WHERE user_id NOT IN ('{}', '{}')",
        named[0], named[1]
    );
    succeed(["sql", "--format", "parquet", "--output", &without, "-c", &query]);
    let other = lake.path("other");
    succeed(["train", "--quiet", "--hidden-dimension", "32", "--interactions", &without, "--solution", &other]);
    let scores = |solution: &str| {
        rows(&format!(
            "SET item_affinity.solution_version = '{solution}';
             SELECT item_id, rank, user_id, score FROM item_affinity_segments(['COFFEE-01', 'MUSIC-05'], 100)"
        ))
    };
    succeed(train.into_iter().chain(["--force"]));
    assert_eq!(scores(&solution), scores(&other));
}

#[test]
fn p38_who_stands_on_the_list_is_passed_over_before_anything_else_is_done() {
    // As after a kill right behind the list: nothing was written anew yet.
    let lake = Lake::new();
    let (solution, segments) = (lake.path("solution"), lake.path("segments"));
    let named = rows(&format!("SELECT user_id FROM item_affinity_output('{segments}') LIMIT 1"));
    let named = named[0][0].as_str();
    put_on_list(&solution, Artifact::SolutionVersion, &[named]);
    // The output is another place, whose jobs ask the solution as well.
    lake.segment("segments", &[]);
    let rows = rows(&format!("SELECT user_id FROM item_affinity_output('{segments}')"));
    assert!(!rows.is_empty() && !rows.iter().any(|row| row[0] == named));
    let names = lake.names(&[named]);
    assert_eq!(lake.forget(&names).code, 0);
    assert_eq!(lake.found(&[named]), BTreeSet::new());
}

#[test]
fn p38_who_is_among_the_users_three_times_or_by_chance_is_left_out_and_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (output, users) = (path("segments"), path("users.parquet"));
    let best = rows(&format!(
        "SET item_affinity.solution_version = '{}'; SELECT user_id FROM item_affinity_segments(['COFFEE-01'], 2)",
        solution()
    ));
    let named = [best[0][0].as_str(), best[1][0].as_str()];
    put_on_list(&output, Artifact::Segments, &named);
    let thrice = format!(
        "CREATE EXTERNAL TABLE u STORED AS PARQUET LOCATION '{}';
         SELECT user_id FROM u UNION ALL SELECT user_id FROM u UNION ALL SELECT user_id FROM u",
        data("users.parquet")
    );
    succeed(["sql", "--format", "parquet", "--output", &users, "-c", &thrice]);
    let chance: &[&str] = &["--users-filter", "random() < 0.5"];
    for more in [&[][..], chance, chance, chance, chance] {
        let job = ["segment", "--force", "--solution", solution(), "--item", "COFFEE-01", "--num-results", "100000"];
        let ended =
            succeed(job.into_iter().chain(["--users", &users, "--output", &output]).chain(more.iter().copied()));
        assert!(ended.stderr.contains("2 forgotten users are left out"), "{ended:?}");
        let found = rows(&format!("SELECT user_id FROM item_affinity_output('{output}')"));
        assert!(!found.is_empty() && !found.iter().any(|row| named.contains(&row[0].as_str())), "{more:?}");
    }
    let commit = std::fs::read(Path::new(&output).join("_item_affinity/commits/00000000000000000001.json")).unwrap();
    let commit: serde_json::Value = serde_json::from_slice(&commit).unwrap();
    assert_eq!(commit["counts"]["forgotten"], 2, "{commit}");
}

#[test]
fn p33_no_parser_sees_a_damaged_part_of_users_where_somebody_was_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("solution");
    for file in files_below(Path::new(solution())) {
        std::fs::create_dir_all(copy.join(&file).parent().unwrap()).unwrap();
        std::fs::copy(Path::new(solution()).join(&file), copy.join(&file)).unwrap();
    }
    let (place, output) = (copy.display().to_string(), folder.path().join("segments").display().to_string());
    put_on_list(&output, Artifact::Segments, &["never-seen"]);
    let segment = || cli(["segment", "--quiet", "--solution", &place, "--item", "COFFEE-01", "--output", &output]);
    let part = files_below(&copy).into_iter().find(|part| part.parent().is_some_and(|p| p.ends_with("users"))).unwrap();
    let (name, path) = (part.file_name().unwrap().to_string_lossy().into_owned(), copy.join(&part));
    let whole = std::fs::read(&path).unwrap();
    for at in [0, 5, whole.len() / 2, whole.len() - 9, whole.len() - 6, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x40;
        std::fs::write(&path, flipped).unwrap();
        let ended = segment();
        assert_eq!((ended.code, ended.stderr.lines().count()), (3, 1), "byte {at}: {ended:?}");
        assert!(ended.stderr.contains("ERR_SOLUTION_DAMAGED") && ended.stderr.contains(&name), "byte {at}: {ended:?}");
    }
    std::fs::write(&path, whole).unwrap();
    assert_eq!(segment().code, 0);
}

#[test]
fn p38_a_training_at_the_same_time_brings_nobody_back() {
    let lake = Lake::new();
    let (solution, interactions) = (lake.path("solution"), data("interactions.parquet"));
    let users = rows(&format!("SELECT DISTINCT user_id FROM item_affinity_output('{}')", lake.path("segments")));
    for (round, user) in users.iter().take(6).enumerate() {
        let user = user[0].as_str();
        let names = lake.names(&[user]);
        let mut train = item_affinity();
        train.args(["train", "--quiet", "--hidden-dimension", "32", "--force", "--interactions", &interactions]);
        let mut train = train.args(["--solution", &solution]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(40 * round as u64));
        let ended = lake.forget(&names);
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(train.wait().unwrap().success());
        assert_eq!(lake.found(&[user]), BTreeSet::new(), "round {round}");
    }
}

#[test]
fn segments_in_a_delta_table_are_refused_before_anything_is_written() {
    let lake = Lake::new();
    let (solution, segments) = (lake.path("solution"), lake.path("segments"));
    let named = rows(&format!("SELECT user_id FROM item_affinity_output('{segments}') LIMIT 1"));
    let log = Path::new(&segments).join("_delta_log");
    std::fs::create_dir(&log).unwrap();
    std::fs::write(log.join("00000000000000000000.json"), "{}\n").unwrap();
    let before = files_below(lake.0.path());
    let names = lake.names(&[&named[0][0]]);
    let ended = cli(["forget", "--users", &names, "--solution", &solution, "--output", &segments]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stderr.contains("rows of a Delta table") && ended.stderr.contains("VACUUM"), "{ended:?}");
    let after = files_below(lake.0.path());
    assert_eq!(after.len(), before.len() + 1, "the file of names alone is new");
}

#[test]
fn p38_what_died_or_was_copied_out_goes_too_and_small_segments_stay_withheld() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let output = path("lines");
    let segment = |items: &str, more: &[&str]| {
        std::fs::write(path(items), "{\"itemId\": \"COFFEE-01\"}\n").unwrap();
        let list = path(items);
        let fixed = ["segment", "--quiet", "--solution", solution(), "--items", &list, "--output", &output];
        succeed(fixed.into_iter().chain(["--num-results", "5", "--format", "json-lines"]).chain(more.iter().copied()));
    };
    segment("old.json", &[]);
    segment("new.json", &["--min-segment-users", "5"]);
    assert!(Path::new(&output).join("old.json.out").exists());
    let best = rows(&format!(
        "SET item_affinity.solution_version = '{}'; SELECT user_id FROM item_affinity_segments(['COFFEE-01'], 1)",
        solution()
    ));
    // A run that died holds the user as well, and is too young for gc.
    let dead = Path::new(&output).join("data/run=0123456789abcdef0123456789abcdef");
    std::fs::create_dir(&dead).unwrap();
    std::fs::write(dead.join("part-00000.parquet"), &best[0][0]).unwrap();
    std::fs::write(path("names.txt"), &best[0][0]).unwrap();
    let names = path("names.txt");
    let ended = succeed(["forget", "--users", &names, "--output", &output]);
    assert!(ended.stdout.contains("version 3 is without 5 rows; versions 1 to 2 removed"), "{}", ended.stdout);
    let left = files_below(Path::new(&output));
    assert!(
        !left.iter().any(|file| file.ends_with("old.json.out") || Path::new(&output).join(file).starts_with(&dead))
    );
    for file in &left {
        let text = std::fs::read(Path::new(&output).join(file)).unwrap();
        let id = best[0][0].as_bytes();
        assert!(!text.windows(id.len()).any(|bytes| bytes == id), "{}", file.display());
    }
    let lines = std::fs::read_to_string(Path::new(&output).join("new.json.out")).unwrap();
    assert!(lines.contains(r#"{"usersList": []}, "error": "the segment has fewer users than"#), "{lines}");
}

#[test]
fn p38_a_kill_at_any_moment_is_mended_by_the_next_run_and_another_job_is_waited_for() {
    let lake = Lake::new();
    let named = rows(&format!("SELECT user_id FROM item_affinity_output('{}') LIMIT 1", lake.path("segments")));
    let names = lake.names(&[&named[0][0]]);
    // Killed at moments all over its run, and run again: the end is the same.
    let mut killed = 0;
    for wait in (0..40).map(|n| n * 20) {
        let mut command = item_affinity();
        let places = ["solution", "segments", "lines"].map(|place| lake.path(place));
        command.args(["forget", "--quiet", "--users", &names, "--solution", &places[0]]);
        let mut child =
            command.args(["--output", &places[1], "--output", &places[2]]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        killed += u32::from(child.wait().unwrap().signal().is_some());
        // Readers see a whole version, old or new.
        for (option, place) in ["--solution", "--output", "--output"].into_iter().zip(&places) {
            succeed(["verify", option, place]);
        }
    }
    assert!(killed > 0);
    assert_eq!(lake.forget(&names).code, 0);
    assert_eq!(lake.found(&[&named[0][0]]), BTreeSet::new());

    // Somebody is at work there.
    let run_id = "0123456789abcdef0123456789abcdef";
    let intent = Path::new(&lake.path("solution")).join(format!("_item_affinity/runs/{run_id}/intent.json"));
    std::fs::create_dir_all(intent.parent().unwrap()).unwrap();
    let note = serde_json::json!({
        "format": "item-affinity-intent", "run_id": run_id, "started": 1, "lease_seconds": 60, "tool": "x",
        "process": { "machine": "another", "id": 1, "ticks": 1 },
    });
    std::fs::write(&intent, note.to_string()).unwrap();
    let waiting = cli(["forget", "--users", &names, "--solution", &lake.path("solution"), "--lock-timeout", "0s"]);
    assert_eq!(waiting.code, 6, "{waiting:?}");
}

#[test]
fn p38_what_cannot_be_forgotten_is_said_without_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let everybody = path("all.parquet");
    let query = format!(
        "CREATE EXTERNAL TABLE u STORED AS PARQUET LOCATION '{}'; SELECT user_id FROM u",
        data("users.parquet")
    );
    succeed(["sql", "--format", "parquet", "--output", &everybody, "-c", &query]);
    std::fs::write(path("bad.csv"), "canary-1,x\ncanary-2,y\n").unwrap();
    std::fs::write(path("empty.csv"), "user_id\n").unwrap();
    let version = format!("{}@1", solution());
    for (code, users, place, says) in [
        (3, everybody.as_str(), solution(), "ERR_NOBODY_LEFT: "),
        (3, &path("bad.csv"), solution(), "USER_LIST_INVALID: no column user_id in the first line"),
        (3, &path("empty.csv"), solution(), "USER_LIST_INVALID: the list of users is empty"),
        (3, &path("none.parquet"), solution(), "none.parquet"),
        (3, &everybody, &path("nowhere"), "ERR_NO_VERSION: "),
        (2, &everybody, &version, "leave out the @"),
    ] {
        let before = files_below(Path::new(solution()));
        let ended = cli(["forget", "--quiet", "--users", users, "--solution", place]);
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.stderr.contains(says) && ended.stderr.lines().count() == 1, "{says}: {}", ended.stderr);
        assert!(!ended.stderr.contains("canary"), "{}", ended.stderr);
        assert_eq!(files_below(Path::new(solution())), before);
    }
    assert!(!folder.path().join("nowhere").exists());
}
