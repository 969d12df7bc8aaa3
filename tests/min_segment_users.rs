//! `segment --min-segment-users`: what is too small is withheld, counted, and told without its size (P39).

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::{Ended, cli, csv_rows, files_below, solution, succeed};

const ITEMS: [&str; 4] = ["BAKING-03", "COFFEE-01", "MUSIC-05", "NEVER-SOLD"];

/// Segments of all who ever had the item, which differ in size.
fn segment(output: &Path, more: &[&str]) -> Ended {
    let output = output.display().to_string();
    let items = ITEMS.iter().flat_map(|item| ["--item", item]);
    let fixed = ["segment", "--solution", solution(), "--seen", "only", "--num-results", "1000", "--output", &output];
    cli(fixed.into_iter().chain(items).chain(more.iter().copied()))
}

fn rows(query: &str) -> Vec<Vec<String>> {
    csv_rows(&succeed(["sql", "--format", "csv", "-c", query]).stdout)
}

fn sizes(output: &Path) -> BTreeMap<String, u64> {
    let query = format!("SELECT item_id, count(*) FROM item_affinity_output('{}') GROUP BY item_id", output.display());
    rows(&query).into_iter().map(|row| (row[0].clone(), row[1].parse().unwrap())).collect()
}

/// Every text that the job left or said.
fn said(output: &Path, ended: &Ended) -> String {
    let json = files_below(output).into_iter().filter(|file| file.extension().is_some_and(|end| end == "json"));
    let json = json.map(|file| std::fs::read_to_string(output.join(file)).unwrap());
    json.chain([ended.stdout.clone(), ended.stderr.clone()]).collect::<Vec<_>>().join("\n")
}

#[test]
fn p39_no_segment_under_k_users_is_written_and_no_count_under_k_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let all = folder.path().join("all");
    segment(&all, &[]);
    let all = sizes(&all);
    assert_eq!(all.len(), 3);
    let (smallest, least) = all.iter().min_by_key(|(_, users)| **users).unwrap();
    assert!(all.values().filter(|users| *users == least).count() == 1 && *least > 1, "{all:?}");

    for (k, withheld) in [(least - 1, 0), (*least, 0), (least + 1, 1), (1_000, 3)] {
        for more in [&[][..], &["--reasons", "2"]] {
            let output = folder.path().join(format!("k{k}-{}", more.len()));
            let floor = k.to_string();
            let ended = segment(&output, &[&["--min-segment-users", &floor], more].concat());
            assert_eq!(ended.code, 4, "{ended:?}");
            let expected: BTreeMap<_, _> = all.clone().into_iter().filter(|(_, users)| *users >= k).collect();
            assert_eq!(sizes(&output), expected, "at least {k}");
            let suppressed = if withheld == 0 { String::new() } else { format!(" suppressed={withheld}") };
            let counts = format!("items: asked=4 ok={} empty=0 error=1{suppressed}\n", 3 - withheld);
            assert!(ended.stdout.contains(&counts), "{counts}: {}", ended.stdout);

            let errors = files_below(&output).into_iter().find(|file| file.ends_with("errors.parquet")).unwrap();
            let errors = rows(&format!(
                "CREATE EXTERNAL TABLE e STORED AS PARQUET LOCATION '{}'; SELECT item_id, message FROM e WHERE code = 'SUPPRESSED_MIN_K'",
                output.join(errors).display()
            ));
            assert_eq!(errors.len(), withheld);
            let message = format!("the segment has fewer users than --min-segment-users {k}");
            assert!(errors.iter().all(|row| row[1] == message && !expected.contains_key(&row[0])), "{errors:?}");
            if withheld == 1 {
                assert_eq!(errors[0][0], *smallest);
                // The size that must not be known is no field of a commit, of metrics, or of what the job says.
                let text = said(&output, &ended);
                for count in
                    [format!(":{least},"), format!(":{least}}}"), format!("={least} "), format!(" {least} users")]
                {
                    assert!(!text.contains(&count), "{count}: {text}");
                }
            }
            if let Some(reasons) = files_below(&output).iter().find(|file| file.to_string_lossy().contains("_reasons/"))
            {
                let of = rows(&format!(
                    "CREATE EXTERNAL TABLE r STORED AS PARQUET LOCATION '{}'; SELECT DISTINCT item_id FROM r ORDER BY 1",
                    output.join(reasons).display()
                ));
                assert!(of.iter().all(|row| expected.contains_key(&row[0])), "{of:?}");
            }
        }
    }
}

#[test]
fn p39_a_line_of_amazon_personalize_says_that_its_segment_is_withheld() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let ended = segment(&output, &["--min-segment-users", "1000", "--format", "json-lines"]);
    assert_eq!(ended.code, 4, "{ended:?}");
    let lines = std::fs::read_to_string(output.join("items.json.out")).unwrap();
    assert_eq!(lines.lines().count(), 4);
    let withheld =
        r#""output": {"usersList": []}, "error": "the segment has fewer users than --min-segment-users 1000"}"#;
    assert_eq!(lines.lines().filter(|line| line.ends_with(withheld)).count(), 3, "{lines}");
    // With another floor it is another job; with the same one it is done.
    let again = segment(&output, &["--min-segment-users", "1000", "--format", "json-lines"]);
    assert!(again.stdout.contains("already done as version 1") && again.stdout.contains("suppressed=3"), "{again:?}");
    let all = segment(&output, &["--format", "json-lines"]);
    assert!(all.stdout.contains("committed version 2"), "{all:?}");
}
