//! Every command of the README is run: what it promises works as it stands there.

use std::path::Path;

use crate::cli::shell_words;
use crate::common::{item_affinity, run};

/// Commands that this test cannot be: they set up, build, or run this very test.
const RUN_ELSEWHERE: [&str; 6] = [
    "cargo build --release --locked",
    "python3 -m venv .venv && .venv/bin/pip install --quiet 'moto[s3,server]==5.2.5'",
    "cargo test --workspace",
    "bash .ci/run",
    "bash examples/complete-journey/run.sh",
    "cargo bench",
];

/// The lines of all ```sh blocks, continued lines joined, comments and blank lines left out.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::<String>::new();
    let mut inside = false;
    let mut open = false;
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```sh";
            continue;
        }
        let line = line.split(" # ").next().unwrap_or_default().trim();
        if !inside || line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (part, goes_on) = line.strip_suffix('\\').map_or((line, false), |l| (l.trim_end(), true));
        if open {
            let last = found.last_mut().unwrap();
            last.push(' ');
            last.push_str(part);
        } else {
            found.push(part.to_owned());
        }
        open = goes_on;
    }
    found
}

#[test]
fn every_command_of_the_readme_works_in_its_order() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // Scripts are named as from a checkout.
    for name in ["sql", "examples"] {
        std::os::unix::fs::symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join(name), folder.path().join(name)).unwrap();
    }
    let mut ran = 0;
    for command in commands(&text) {
        if RUN_ELSEWHERE.contains(&command.as_str()) {
            continue;
        }
        let arguments = command
            .strip_prefix("cargo run --release -- ")
            .or_else(|| command.strip_prefix("item-affinity "))
            .unwrap_or_else(|| panic!("README.md has a command that no test runs: {command}"));
        let mut command_line = item_affinity();
        // Nobody else has named the roots of SQL.
        let ended =
            run(command_line.env_remove("ITEM_AFFINITY_ROOT").args(shell_words(arguments)).current_dir(folder.path()));
        assert_eq!(ended.code, 0, "{command}: {ended:?}");
        ran += 1;
    }
    assert!(ran >= 8, "only {ran} commands found in README.md");
}
