//! P18: one bad item does not fail a job, and every line that was asked for has its outcome.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::common::{cli, solution};

/// One line of a list, and whether it gets a segment.
fn line(random: &mut StdRng, before: &[(String, bool)]) -> (String, bool) {
    let known = ["COFFEE-01", "MUSIC-05", "COFFEE-02", "MUSIC-01"];
    match random.random_range(0..12) {
        0..5 => (json!({ "itemId": known[random.random_range(0..known.len())] }).to_string(), true),
        5 => match before {
            [] => (json!({ "itemId": "COFFEE-01" }).to_string(), true),
            _ => before[random.random_range(0..before.len())].clone(),
        },
        6 => (json!({ "itemId": format!("NEVER-SOLD-{}", random.random_range(0..9)) }).to_string(), false),
        7 => (json!({ "itemId": "a\u{1b}[31m\u{202e}\t" }).to_string(), false),
        8 => ("{\"itemId\": \"COFFEE-01\"".to_owned(), false),
        9 => (json!({ "itemid": "COFFEE-01" }).to_string(), false),
        10 => (json!({ "itemId": null }).to_string(), false),
        _ => ("not JSON".to_owned(), false),
    }
}

/// The counts that a job says, by name.
fn counts(stdout: &str) -> Vec<(String, u64)> {
    let line = stdout.lines().find_map(|line| line.strip_prefix("items: ")).unwrap();
    let count = |pair: &str| pair.split_once('=').map(|(name, count)| (name.to_owned(), count.parse().unwrap()));
    line.split(' ').map(|pair| count(pair).unwrap()).collect()
}

#[test]
fn p18_random_lists_lose_no_line_and_one_bad_item_fails_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (mut asked, mut failed) = (0, 0);
    for seed in 0..24 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut lines = Vec::new();
        for _ in 0..random.random_range(1..30) {
            let next = line(&mut random, &lines);
            lines.push(next);
        }
        let good = lines.iter().filter(|(_, good)| *good).count() as u64;
        let path = folder.path().join(format!("{seed}.json"));
        let text = lines.iter().map(|(line, _)| format!("{line}{}\n", ["", "\r"][usize::from(seed % 3 == 0)]));
        std::fs::write(&path, text.collect::<String>()).unwrap();
        let (list, output) = (path.display().to_string(), folder.path().join(seed.to_string()).display().to_string());
        let mut arguments = vec!["segment", "--quiet", "--solution", solution(), "--items", &list, "--output", &output];
        arguments.extend(["--num-results", "5"]);
        let by_line = seed % 2 == 0;
        arguments.extend(by_line.then_some(["--format", "json-lines"]).into_iter().flatten());
        let least = ["1", "5", "6"][random.random_range(0..3)];
        arguments.extend(["--min-segment-users", least]);
        let ended = cli(&arguments);
        let whole = good == lines.len() as u64 && least != "6";
        assert_eq!(ended.code, if whole { 0 } else { 4 }, "seed {seed}: {ended:?}");
        let counts = counts(&ended.stdout);
        let of = |name: &str| counts.iter().find(|(of, _)| of == name).map_or(0, |(_, count)| *count);
        assert_eq!(of("ok") + of("empty") + of("error") + of("suppressed"), of("asked"), "seed {seed}: {ended:?}");
        assert_eq!(
            (of("asked"), of("error")),
            (lines.len() as u64, lines.len() as u64 - good),
            "seed {seed}: {ended:?}"
        );
        assert_eq!(if least == "6" { of("suppressed") } else { of("ok") }, good, "seed {seed}: {ended:?}");
        if by_line {
            let written = std::fs::read_to_string(folder.path().join(format!("{seed}/{seed}.json.out"))).unwrap();
            let written: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(written.len(), lines.len(), "seed {seed}: one line for each");
            // Lines with a segment come as they are ranked, so that order is no law.
            let outcome = |input: &Value, good: bool| input.is_object().then(|| (input.to_string(), good));
            let mut found: Vec<_> =
                written.iter().filter_map(|answer| outcome(&answer["input"], answer["error"].is_null())).collect();
            let readable = lines.iter().filter_map(|(line, good)| Some((serde_json::from_str(line).ok()?, *good)));
            let mut expected: Vec<_> =
                readable.filter_map(|(input, good): (Value, bool)| outcome(&input, good && least != "6")).collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "seed {seed}");
        }
        asked += lines.len();
        failed += lines.len() as u64 - good;
    }
    println!("random lists: {asked} lines in 24 lists, {failed} of them bad, none lost");
}
