//! The house rules that a compiler does not check.

use std::path::{Path, PathBuf};
use std::process::Command;

use item_affinity_model::ItemAffinity;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Rust files of the rooms, tests left out.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join("crates")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|n| n != "tests") {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.to_string_lossy().ends_with("_tests.rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// What of ours and of the engine each room may import, by its manifest.
const MAY_IMPORT: [(&str, &[&str]); 7] = [
    ("model", &["faer", "ndarray", "pulp", "rayon", "rand"]),
    ("storage", &["arrow", "parquet", "object_store", "deltalake-core"]),
    ("ingest", &["item-affinity-model", "item-affinity-storage", "arrow", "parquet", "rayon"]),
    (
        "solution",
        &["item-affinity-model", "item-affinity-storage", "item-affinity-ingest", "arrow", "parquet", "rayon"],
    ),
    ("datafusion", &["item-affinity-model", "item-affinity-storage", "item-affinity-solution", "datafusion"]),
    (
        "job",
        &[
            "item-affinity-model",
            "item-affinity-storage",
            "item-affinity-ingest",
            "item-affinity-solution",
            "item-affinity-datafusion",
            "datafusion",
        ],
    ),
    ("ballista", &["item-affinity-storage", "item-affinity-solution", "item-affinity-datafusion", "datafusion"]),
];

/// Dependencies that tell the rooms apart; the rest (errors, logs, serialization) is free.
const WATCHED: [&str; 19] = [
    "item-affinity-model",
    "item-affinity-storage",
    "item-affinity-ingest",
    "item-affinity-solution",
    "item-affinity-datafusion",
    "item-affinity-job",
    "arrow",
    "parquet",
    "object_store",
    "datafusion",
    "deltalake-core",
    "faer",
    "ndarray",
    "pulp",
    "rayon",
    "rand",
    "clap",
    "indicatif",
    "anyhow",
];

#[test]
fn each_room_imports_only_what_the_architecture_allows() {
    for (room, allowed) in MAY_IMPORT {
        let manifest = read(&format!("crates/{room}/Cargo.toml"));
        let (_, after) = manifest.split_once("[dependencies]").unwrap();
        let dependencies = after.split("\n[").next().unwrap();
        for name in dependencies.lines().filter_map(|l| l.split(['.', ' ', '=']).next()) {
            let random_run_ids = room == "storage" && name == "rand";
            if WATCHED.contains(&name) && !allowed.contains(&name) && !random_run_ids {
                panic!("crates/{room} imports {name}");
            }
        }
    }
}

#[test]
fn only_one_file_of_the_model_names_faer() {
    let naming = sources()
        .into_iter()
        .filter(|p| {
            let text = std::fs::read_to_string(p).unwrap();
            text.lines().any(|l| l.contains("faer::") && !l.trim_start().starts_with("//"))
        })
        .collect::<Vec<_>>();
    assert_eq!(naming, [root().join("crates/model/src/linalg.rs")]);
}

#[test]
fn no_source_file_is_longer_than_400_lines_before_its_tests() {
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\n").next().unwrap().lines().count();
        assert!(code <= 400, "{} has {code} lines", path.display());
    }
}

#[test]
fn p23_counts_are_checked_in_every_profile_and_casts_are_linted() {
    let manifest = read("Cargo.toml").parse::<toml::Table>().unwrap();
    let at = |path: &[&str]| path.iter().try_fold(toml::Value::Table(manifest.clone()), |of, key| of.get(key).cloned());
    let profiles = at(&["profile"]).unwrap();
    for (name, profile) in profiles.as_table().unwrap().iter().filter(|(name, _)| *name != "dev" && *name != "test") {
        assert_eq!(profile.get("overflow-checks").and_then(toml::Value::as_bool), Some(true), "profile {name}");
    }
    assert_eq!(at(&["profile", "dev", "overflow-checks"]), None, "on unless said");
    for lint in ["cast_possible_truncation", "cast_possible_wrap", "cast_sign_loss"] {
        assert_eq!(
            at(&["workspace", "lints", "clippy", lint]),
            Some("warn".into()),
            "{lint}: checked with -D warnings"
        );
    }
    for room in MAY_IMPORT.iter().map(|(room, _)| format!("crates/{room}/Cargo.toml")).chain(["Cargo.toml".to_owned()])
    {
        let own = read(&room).parse::<toml::Table>().unwrap();
        assert_eq!(own["lints"]["workspace"].as_bool(), Some(true), "{room}");
    }
}

#[test]
fn names_say_what_they_are() {
    for path in sources() {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(
            !["utils", "util", "helpers", "common", "types", "misc"].contains(&name.as_str()),
            "{}",
            path.display()
        );
        let text = std::fs::read_to_string(&path).unwrap();
        for word in ["pub fn get_", "pub struct Manager", "todo!(", "unimplemented!("] {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
    }
}

#[test]
fn readme_table_of_settings_is_the_recipe() {
    let readme = read("README.md");
    for setting in ItemAffinity::SETTINGS {
        let row = format!("| `{}` | {} | {} |", setting.name, setting.default, setting.range);
        assert!(readme.contains(&row), "README.md lacks the row {row}");
    }
    let rows = readme.lines().filter(|l| l.starts_with("| `") && l.matches('|').count() == 5).count();
    assert_eq!(rows, ItemAffinity::SETTINGS.len(), "settings in README.md");
}

#[test]
fn help_names_every_command_that_the_readme_names() {
    let help = crate::common::succeed(["--help"]).stdout;
    for command in [
        "demo",
        "check",
        "train",
        "refresh",
        "segment",
        "evaluate",
        "sql",
        "show",
        "verify",
        "gc",
        "run",
        "completions",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
        assert!(read("README.md").contains(&format!("`{command}`")), "README.md lacks `{command}`");
    }
}

#[test]
fn tracked_files_hold_no_path_of_a_machine() {
    let listed = Command::new("git").args(["ls-files"]).current_dir(root()).output().unwrap();
    let Ok(listed) = String::from_utf8(listed.stdout) else { panic!("file names are not UTF-8") };
    let homes = ["/ro", "/wo", "/ho"].iter().zip(["ot/", "rk/", "me/"]).map(|(a, b)| format!("{a}{b}"));
    let homes = homes.collect::<Vec<_>>();
    for name in listed.lines().filter(|n| !n.ends_with(".parquet") && !n.ends_with(".lock")) {
        let Ok(text) = std::fs::read_to_string(root().join(name)) else { continue };
        for home in &homes {
            assert!(!text.contains(&format!(" {home}")) && !text.contains(&format!("\"{home}")), "{name} holds {home}");
        }
    }
}
