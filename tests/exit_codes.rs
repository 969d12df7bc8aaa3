//! P14: exit codes tell a scheduler what to do, one case each.

use item_affinity_storage::ErrorKind;

use crate::common::{Ended, Fault, MiniS3, cli, item_affinity, run, solution};

fn segment(output: &str, more: &[&str]) -> Ended {
    let arguments = ["segment", "--quiet", "--solution", solution(), "--output", output];
    cli(arguments.iter().copied().chain(more.iter().copied()))
}

fn segment_to(server: &MiniS3, more: &[&str]) -> Ended {
    let mut command = item_affinity();
    command.envs(server.environment()).env("ITEM_AFFINITY_RETRY_TIMEOUT", "1");
    command.args(["segment", "--quiet", "--solution", solution(), "--item", "COFFEE-01", "--output", "s3://lake/out"]);
    run(command.args(more))
}

#[test]
fn p14_every_code_has_its_case_and_stands_in_help_and_readme() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("out").display().to_string();
    let one = ["--item", "COFFEE-01"];
    let down = MiniS3::start(|_, _| Fault::Status(503, "SlowDown"));
    let lost = MiniS3::start(|asked, _| match asked.key.contains("/commits/0") && asked.method != "HEAD" {
        true => Fault::ResetBefore,
        false => Fault::None,
    });
    // Somebody on another machine is at work.
    let held = folder.path().join("held");
    let run_id = "0123456789abcdef0123456789abcdef";
    let intent = held.join(format!("_item_affinity/runs/{run_id}/intent.json"));
    std::fs::create_dir_all(intent.parent().unwrap()).unwrap();
    let note = serde_json::json!({
        "format": "item-affinity-intent", "run_id": run_id, "started": 1, "lease_seconds": 60, "tool": "x",
        "process": { "machine": "another", "id": 1, "ticks": 1 },
    });
    std::fs::write(&intent, note.to_string()).unwrap();
    let held = held.display().to_string();

    let cases = [
        ("done", segment(&place, &one), 0),
        ("already done", segment(&place, &one), 0),
        ("an option that is not there", segment(&place, &["--itme", "x"]), 2),
        ("input that is not there", segment(&place, &["--items", "/no/such/file.json"]), 3),
        ("an item that the version does not know", segment(&place, &["--item", "NEVER-SOLD"]), 4),
        ("a store that is down", segment_to(&down, &[]), 5),
        ("another job at work", segment(&held, &["--item", "COFFEE-01", "--lock-timeout", "0s"]), 6),
        ("a commit that nobody can ask for", segment_to(&lost, &[]), 7),
        ("too little memory", segment(&place, &["--item", "COFFEE-01", "--force", "--memory-limit", "1KB"]), 8),
    ];
    let help = cli(["--help"]).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let readme = readme.split_whitespace().collect::<Vec<_>>().join(" ");
    for (name, ended, code) in cases {
        assert_eq!(ended.code, code, "{name}: {ended:?}");
        let lines = ended.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(lines, usize::from(![0, 4].contains(&code)), "{name}: {ended:?}");
    }
    let all = "0 done or already done, 1 a bug, 2 usage, 3 bad input or a missing right, 4 committed but some items have \
               error records, 5 storage (a retry may pass), 6 another job won, 7 commit unknown, 8 a resource limit, 130 \
               and 143 stopped by a signal";
    assert!(help.contains(all), "{help}");
    assert!(readme.contains(all));
}

#[test]
fn p14_every_kind_of_error_has_its_code() {
    use ErrorKind as K;
    let kinds = [K::Bug, K::Usage, K::BadInput, K::Storage, K::Conflict, K::CommitUnknown, K::Limit];
    assert_eq!(kinds.map(K::exit_code), [1, 2, 3, 5, 6, 7, 8]);
}
