//! `run`: job files, and the schedules that are shipped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::shell_words;
use crate::common::{Ended, cli, data, files_below, item_affinity, run, solution};

fn scheduled(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/scheduled").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(scheduled(name)).unwrap()
}

/// A lake with the built-in interactions and the items of one day.
fn lake() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["interactions", "campaigns"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    std::fs::copy(data("interactions.parquet"), folder.path().join("interactions/part-0.parquet")).unwrap();
    let items = "{\"itemId\": \"COFFEE-01\"}\n{\"itemId\": \"NEVER-SOLD\"}\n";
    std::fs::write(folder.path().join("campaigns/2026-11-24.json"), items).unwrap();
    folder
}

fn with_lake(lake: &Path, arguments: &[&str]) -> Ended {
    run(item_affinity().env("LAKE", lake).args(arguments))
}

#[test]
fn the_shipped_job_files_run_and_a_rerun_does_nothing() {
    let lake = lake();
    let file = |name| scheduled(name).display().to_string();
    let (weekly, nightly) = (file("weekly.toml"), file("nightly.toml"));
    let job = |name: &str, more: &[&str]| {
        let arguments = ["run", "--date", "2026-11-24"].iter().copied().chain(more.iter().copied()).chain([name]);
        with_lake(lake.path(), &arguments.collect::<Vec<_>>())
    };
    let before = files_below(lake.path());
    let dry = job(&weekly, &["--dry-run"]);
    assert_eq!((dry.code, files_below(lake.path())), (0, before), "{dry:?}");
    for line in [
        "step 1 of 3: train\n  item-affinity train --interactions=",
        "  reads 1 file, 104,521 bytes: ",
        "  commits after nothing: ",
        "step 3 of 3: gc\n  item-affinity gc --solution=",
    ] {
        assert!(dry.stdout.contains(line), "{line}: {}", dry.stdout);
    }

    let trained = job(&weekly, &[]);
    assert_eq!(trained.code, 0, "{trained:?}");
    assert!(trained.stdout.contains("committed version 1 of ") && trained.stderr.contains("step 2 of 3: verify"));
    let first = job(&nightly, &[]);
    assert_eq!(first.code, 4, "an item without a segment: {first:?}");
    for line in
        ["committed version 2 of ", "committed version 1 of ", "items: asked=2 ok=1 empty=0 error=1", "/segments-new"]
    {
        assert!(first.stdout.contains(line), "{line}: {}", first.stdout);
    }
    let before = files_below(lake.path());
    let again = job(&nightly, &[]);
    assert_eq!((again.code, again.stdout.matches("already done as version").count()), (4, 3), "{again:?}");
    assert_eq!(files_below(lake.path()), before);
    // The items of another day are another job; there are none.
    let other = with_lake(lake.path(), &["run", "--date", "2026-11-25", &nightly]);
    assert!(other.code == 3 && other.stderr.contains("campaigns/2026-11-25.json"), "{other:?}");
}

#[test]
fn a_job_file_says_what_the_command_line_says() {
    let folder = tempfile::tempdir().unwrap();
    let (file, output) = (folder.path().join("job.toml"), folder.path().join("out"));
    std::fs::write(
        &file,
        format!(
            "quiet = true\n[segment]\nsolution = '{}'\nitem = ['COFFEE-01', 'MUSIC-05']\nnum-results = 7\nmin-score = \
             0.01\noutput = '{}'\n",
            solution(),
            output.display()
        ),
    )
    .unwrap();
    let by_file = cli(["run", &file.display().to_string()]);
    assert_eq!((by_file.code, by_file.stderr.as_str()), (0, ""), "{by_file:?}");
    let place = output.display().to_string();
    let arguments = ["segment", "--solution", solution(), "--item", "COFFEE-01", "--item", "MUSIC-05", "--num-results"];
    let by_hand = cli(arguments.iter().copied().chain(["7", "--min-score", "0.01", "--output", &place]));
    assert!(by_hand.stdout.starts_with("already done as version 1"), "{by_hand:?}");
}

#[test]
fn mistakes_end_with_3_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.toml");
    let name = file.display().to_string();
    let out = folder.path().join("out").display().to_string();
    let good = format!("[[segment]]\nsolution = '{}'\nitem = 'COFFEE-01'\noutput = '{out}'\n", solution());
    for (more, says) in [
        ("num_results = 7", "ERR_JOB_FILE: unknown key 'num_results' in [segment]"),
        ("[[segment]]\nsolution = 's'", "ERR_JOB_FILE: [segment 2]: the following required arguments"),
        ("[train]\nsolution = '${NO_SUCH_VARIABLE}'", "NO_SUCH_VARIABLE is not set"),
        ("num-results = ", &format!("file={name} line=5 column=")),
        ("num-result = 7", &format!("file={name} line=5 column=1; did you mean 'num-results'?")),
    ] {
        std::fs::write(&file, format!("{good}{more}\n")).unwrap();
        for dry in [&["run", "--dry-run", &name][..], &["run", &name]] {
            let ended = cli(dry);
            assert_eq!(ended.code, 3, "{more}: {ended:?}");
            assert!(ended.stderr.contains(says) && ended.stderr.contains(&format!("file={name}")), "{}", ended.stderr);
            assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        }
    }
    assert!(!folder.path().join("out").exists());
    assert_eq!(cli(["run", &folder.path().join("none.toml").display().to_string()]).code, 3);
    assert_eq!(cli(["run", "--date", "yesterday", &name]).code, 2);
    std::fs::write(&file, [0xff, 0xfe]).unwrap();
    assert!(cli(["run", &name]).stderr.contains("it is not UTF-8"));
}

/// The arguments of a `run` are those of the program, and its job file is a shipped one.
fn check_command(command: &str) {
    let words = shell_words(command);
    let words = words.iter().map(String::as_str).collect::<Vec<_>>();
    let ["item-affinity" | "/usr/local/bin/item-affinity", "run", options @ .., file] = words.as_slice() else {
        panic!("{command}");
    };
    let name = file.strip_prefix("/etc/item-affinity/").unwrap();
    let lake = lake();
    let shipped = scheduled(name).display().to_string();
    let options = options.iter().map(|word| word.replace("{{ ds }}", "2026-11-24")).collect::<Vec<_>>();
    let mut arguments = vec!["run", "--dry-run"];
    arguments.extend(options.iter().map(String::as_str));
    if !options.iter().any(|word| word == "--date") {
        arguments.extend(["--date", "2026-11-24"]);
    }
    arguments.push(&shipped);
    let ended = with_lake(lake.path(), &arguments);
    assert_eq!(ended.code, 0, "{command}: {ended:?}");
}

#[test]
fn the_shipped_crontab_is_one() {
    let mut jobs = 0;
    for line in text("crontab").lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        if line.split_once('=').is_some_and(|(name, _)| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')) {
            continue;
        }
        let mut fields = line.splitn(6, ' ');
        for (field, most) in [("minute", 59), ("hour", 23), ("day", 31), ("month", 12), ("weekday", 7)] {
            let value = fields.next().unwrap();
            let in_range = |part: &str| part.parse::<u32>().is_ok_and(|number| number <= most);
            assert!(value == "*" || value.split('-').all(in_range), "{field} of {line}");
        }
        // cron takes a percent sign for the end of the command.
        let command = fields.next().unwrap();
        assert!(!command.contains('%'), "{line}");
        command.split(" && ").for_each(check_command);
        jobs += 1;
    }
    assert_eq!(jobs, 2);
}

/// Sections of a unit file with their settings.
fn unit(name: &str) -> BTreeMap<String, Vec<(String, String)>> {
    let mut sections = BTreeMap::<String, Vec<(String, String)>>::new();
    let mut section = String::new();
    for line in text(name).lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(title) => section = title.to_owned(),
            None => {
                let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{name}: {line}"));
                sections.get_mut(&section).map_or_else(
                    || panic!("{name}: {line} stands in no section"),
                    |settings| settings.push((key.to_owned(), value.to_owned())),
                );
                continue;
            }
        }
        sections.entry(section.clone()).or_default();
    }
    sections
}

#[test]
fn the_shipped_units_are_some_and_treat_exit_codes_as_the_readme_says() {
    let service = unit("item-affinity.service");
    let of = |key: &str| &service["Service"].iter().find(|(name, _)| name == key).unwrap_or_else(|| panic!("{key}")).1;
    check_command(of("ExecStart"));
    assert_eq!((of("Type").as_str(), of("SuccessExitStatus").as_str()), ("oneshot", "4"));
    assert_eq!(of("RestartPreventExitStatus"), "1 2 3 8");
    assert!(of("TimeoutStopSec").parse::<u32>().unwrap() > 10, "a job ends within ten seconds");
    let timer = unit("item-affinity.timer");
    assert_eq!(timer.keys().collect::<Vec<_>>(), ["Install", "Timer", "Unit"]);
    assert!(timer["Timer"].contains(&("Persistent".to_owned(), "true".to_owned())));
    // Where systemd is, it judges the files itself.
    match Command::new("systemd-analyze").arg("verify").args([scheduled("item-affinity.timer")]).output() {
        Err(_) => println!("skipped 1 check: no systemd-analyze on this machine"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!said.contains("Unknown key") && !said.contains("Failed to parse"), "{said}");
        }
    }
}

#[test]
fn the_shipped_airflow_dag_is_python_and_runs_the_job_of_its_day() {
    let dag = text("airflow_dag.py");
    let (_, command) = dag.split_once("\"item-affinity").unwrap();
    let (command, _) = command.split_once(" || ").unwrap();
    check_command(&format!("item-affinity{command}").replace("{{ ds }}", "2026-11-24"));
    assert!(command.contains("--date {{ ds }}"));
    let parse = "import ast, sys; ast.parse(open(sys.argv[1]).read())";
    match Command::new("python3").args(["-c", parse]).arg(scheduled("airflow_dag.py")).output() {
        Err(_) => println!("skipped 1 check: no python3 on this machine"),
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
    }
}
