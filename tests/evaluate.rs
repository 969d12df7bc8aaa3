//! Figures of quality where programs find them: files of an evaluation, and the model card.

use std::path::Path;

use crate::common::{Ended, S3Server, cli, csv_rows, data, files_below, item_affinity, run, succeed};

fn evaluate(more: &[&str]) -> Ended {
    let interactions = data("interactions.parquet");
    let arguments = ["evaluate", "--quiet", "--hidden-dimension", "32", "--iterations", "3", "--interactions"];
    cli(arguments.iter().copied().chain([interactions.as_str()]).chain(more.iter().copied()))
}

fn figures(file: &str, query: &str) -> Vec<Vec<String>> {
    let table = format!("CREATE EXTERNAL TABLE f STORED AS PARQUET LOCATION '{file}'; {query}");
    csv_rows(&succeed(["sql", "--format", "csv", "-c", &table]).stdout)
}

#[test]
fn parquet_holds_every_figure_that_json_holds() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let (json, parquet) = (place("new/quality.json"), place("quality.parquet"));
    let both = ["--protocol", "both", "--k", "7"];
    let with = |more: &[&str]| evaluate(&both.iter().chain(more).copied().collect::<Vec<_>>());
    let printed = with(&["--format", "json"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    let written = with(&["--format", "json", "--output", &json]);
    assert_eq!((written.code, written.stdout), (0, format!("the evaluation is written to {json}\n")));
    assert_eq!(std::fs::read_to_string(&json).unwrap(), printed.stdout, "stdout and the file differ");
    assert_eq!(with(&["--format", "parquet", "--output", &parquet]).code, 0);

    let report: serde_json::Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!(report["format"], "item-affinity-evaluation");
    let mut rows = figures(&parquet, "SELECT * FROM f");
    let mut expect = |place: [&str; 7], metric: &str, of: &serde_json::Value, interval: Option<&serde_json::Value>| {
        let at = rows.iter().position(|row| row[..7] == place && row[7] == metric);
        let row = rows.remove(at.unwrap_or_else(|| panic!("no row {place:?} {metric}")));
        let is = |text: &str, of: &serde_json::Value| text.parse::<f64>().unwrap() == of.as_f64().unwrap();
        assert!(is(&row[8], of), "{row:?} {of}");
        match interval {
            Some(of) => assert!(is(&row[9], &of["low"]) && is(&row[10], &of["high"]), "{row:?} {of}"),
            None => assert_eq!(row[9..], ["", ""]),
        }
    };
    let list = |of: &serde_json::Value| of.as_array().unwrap().clone();
    let (time, personalize) = (&report["time"], &report["personalize"]);
    let one_percent = time["k"].to_string();
    for (view, of_view) in [("all_pairs", &time["all_pairs"]), ("new_pairs", &time["new_pairs"])] {
        for metric in ["truth", "items_with_truth"] {
            expect(["time", view, "", "", "", "", ""], metric, &of_view[metric], None);
        }
        assert_eq!(list(&of_view["rankers"]).len(), 12, "six rankers for segments of 1 % and of 7");
        for of in list(&of_view["rankers"]) {
            let (ranker, k) = (of["ranker"].as_str().unwrap(), of["k"].to_string());
            let place = ["time", view, ranker, &k, "", "", ""];
            expect(place, "precision", &of["precision"], Some(&of["precision_interval"]));
            expect(place, "recall", &of["recall"], Some(&of["recall_interval"]));
            expect(place, "ndcg", &of["ndcg"], None);
        }
        for (bucket_of, buckets) in [("items", "by_item_popularity"), ("users", "by_user_activity")] {
            for bucket in list(&of_view[buckets]) {
                let (name, members) = (bucket["name"].as_str().unwrap(), bucket["members"].to_string());
                for (ranker, recall) in item_affinity_model::RANKERS.iter().zip(list(&bucket["recall"])) {
                    let place = ["time", view, ranker, &one_percent, bucket_of, name, &members];
                    expect(place, "recall", &recall, None);
                }
            }
        }
    }
    let calibration = &time["calibration"];
    for (number, bin) in (1..).zip(list(&calibration["bins"])) {
        let (name, pairs) = (format!("tenth {number}"), bin["pairs"].to_string());
        for metric in ["predicted", "observed"] {
            expect(["time", "", "", "", "probabilities", &name, &pairs], metric, &bin[metric], None);
        }
    }
    for metric in ["mean_predicted", "mean_observed", "expected_calibration_error"] {
        expect(["time", "", "", "", "", "", ""], metric, &calibration[metric], None);
    }
    let of_time = ["cut", "horizon_seconds", "users", "items", "train_interactions", "test_interactions"];
    for metric in of_time.into_iter().chain(["users_in_any_segment", "most_frequent_leader"]) {
        expect(["time", "", "", "", "", "", ""], metric, &time[metric], None);
    }
    for metric in ["users", "items", "test_items", "train_interactions", "test_interactions"] {
        expect(["personalize", "", "", "", "", "", ""], metric, &personalize[metric], None);
    }
    let k = personalize["k"].to_string();
    for (ranker, of) in [("item_affinity", "model"), ("most_active", "most_active"), ("random", "random")] {
        for metric in ["coverage", "hits_at_1_percent", "recall_at_1_percent"] {
            let place = ["personalize", "", ranker, &k, "", "", ""];
            expect(place, metric, &personalize[of][metric], None);
        }
    }
    assert_eq!(rows, Vec::<Vec<String>>::new(), "rows that JSON has nothing for");
}

#[test]
fn a_file_is_written_once_and_nobody_elses_file_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("quality.parquet");
    let place = file.display().to_string();
    let write = |more: &[&str]| {
        evaluate(&["--format", "parquet", "--output", &place].iter().chain(more).copied().collect::<Vec<_>>())
    };
    assert_eq!(write(&[]).code, 0);
    let first = std::fs::read(&file).unwrap();
    let again = write(&[]);
    assert_eq!((again.code, again.stdout), (0, format!("the evaluation is already in {place}\n")));
    // Another evaluation does not take its place.
    let other = write(&["--seed", "2"]);
    assert_eq!(other.code, 3, "{other:?}");
    assert!(other.stderr.starts_with("error: ERR_OUTPUT_EXISTS: "), "{}", other.stderr);
    assert!(std::fs::read(&file).unwrap() == first);
    assert_eq!(files_below(folder.path()), [Path::new("quality.parquet")]);
    // What somebody else wrote is refused before anything is read.
    std::fs::write(&file, "mine").unwrap();
    let refused = cli(["evaluate", "--interactions", "nowhere.parquet", "--format", "json", "--output", &place]);
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.stderr.contains("ERR_OUTPUT_EXISTS: ") && refused.stderr.contains("quality.parquet"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn an_output_that_cannot_be_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    for (more, code, says) in [
        (vec!["--format", "parquet"], 2, "--output"),
        (vec!["--output", &place("a.txt")], 2, "--format json"),
        (vec!["--format", "csv", "--output", &place("a.csv")], 2, "parquet"),
        (vec!["--format", "json", "--output", &place("")], 2, "file"),
        (vec!["--format", "json", "--output", "ftp://host/a.json"], 2, "ftp"),
    ] {
        let ended = evaluate(&more);
        assert_eq!(ended.code, code, "{more:?}: {ended:?}");
        assert!(ended.stderr.contains(says), "{more:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "");
    }
    assert!(files_below(folder.path()).is_empty());
}

#[test]
fn an_evaluation_goes_to_s3_and_is_read_from_there() {
    let Some(server) = S3Server::start("an_evaluation_goes_to_s3_and_is_read_from_there") else { return };
    let interactions = data("interactions.parquet");
    let with_server = |arguments: &[&str]| run(item_affinity().envs(server.environment()).args(arguments));
    let place = "s3://lake/reports/quality.parquet";
    let arguments = ["evaluate", "--quiet", "--hidden-dimension", "32", "--iterations", "2", "--interactions"];
    let output = [interactions.as_str(), "--format", "parquet", "--output", place];
    let evaluate = arguments.iter().chain(&output).copied().collect::<Vec<_>>();
    let written = with_server(&evaluate);
    assert_eq!((written.code, written.stdout), (0, format!("the evaluation is written to {place}\n")));
    assert!(with_server(&evaluate).stdout.contains("already in"));
    let query =
        format!("CREATE EXTERNAL TABLE f STORED AS PARQUET LOCATION '{place}'; SELECT count(*) > 100 AS many FROM f");
    assert_eq!(with_server(&["sql", "--root", "s3://lake/", "--format", "csv", "-c", &query]).stdout, "many\ntrue\n");
}

#[test]
fn train_evaluate_keeps_its_figures_and_show_prints_them() {
    let folder = tempfile::tempdir().unwrap();
    let solution = folder.path().join("solution").display().to_string();
    let (interactions, items) = (data("interactions.parquet"), data("items.parquet"));
    let train = |more: &[&str]| {
        let arguments = ["train", "--hidden-dimension", "32", "--iterations", "3", "--solution", &solution];
        let inputs = ["--interactions", &interactions, "--items", &items];
        succeed(arguments.iter().chain(&inputs).chain(more).copied())
    };
    train(&[]);
    let plain = succeed(["show", "--solution", &solution]).stdout;
    assert!(plain.contains("quality was not measured; train --evaluate does"), "{plain}");
    let loud = train(&["--evaluate", "--force"]);
    assert!(loud.stderr.contains("evaluating"), "{}", loud.stderr);
    assert!(loud.stderr.contains("attributes of items are "), "{}", loud.stderr);
    let shown = succeed(["show", "--solution", &solution]).stdout;
    for words in [
        "quality on the ",
        "precision, new pairs",
        "item affinity",
        "earlier buyers",
        "item attributes",
        "expected calibration error",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    // The table shows what the card holds.
    let card = files_below(Path::new(&solution)).into_iter().filter(|f| f.ends_with("model.json"));
    let cards = card.map(|file| std::fs::read(Path::new(&solution).join(file)).unwrap());
    let cards = cards.map(|text| serde_json::from_slice::<serde_json::Value>(&text).unwrap()).collect::<Vec<_>>();
    assert_eq!(cards.len(), 2);
    let measured = cards.iter().find(|card| !card["evaluation"].is_null()).unwrap();
    let precision = measured["metrics"]["all_pairs_precision_at_1_percent"].as_f64().unwrap();
    let row = shown.lines().find(|line| line.starts_with("| item affinity ")).unwrap();
    assert!(row.contains(&format!(" {:.2} ", precision * 100.0)), "{precision} {row}");
}

#[test]
fn columns_that_nobody_has_are_refused_with_those_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let solution = folder.path().join("solution").display().to_string();
    let (interactions, items) = (data("interactions.parquet"), data("items.parquet"));
    let train = ["train", "--quiet", "--interactions", &interactions, "--solution", &solution];
    let with_items = ["--items", &items];
    for (more, says) in [
        (vec!["--include-columns", "brand"], "--include-columns: there are neither Items nor Users"),
        ([&with_items[..], &["--include-columns", "brand"]].concat(), "Items has no column \"brand\""),
        ([&with_items[..], &["--exclude-columns", "colour"]].concat(), "Items has no column \"colour\""),
    ] {
        let ended = cli(train.iter().copied().chain(more.iter().copied()));
        assert_eq!(ended.code, 2, "{more:?}: {ended:?}");
        assert!(ended.stderr.contains(says) && ended.stderr.lines().count() == 1, "{}", ended.stderr);
    }
    assert!(files_below(folder.path()).is_empty());
}
