//! The corpora of the fuzz targets, replayed: inputs that once ended in a panic, and seeds of every kind.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

// They are public where they are fuzzed.
#[allow(unreachable_pub)]
#[path = "../fuzz/src/checks/mod.rs"]
mod checks;
mod seeds;

/// The stack of the command line, on which deep expressions are parsed.
const STACK: usize = 512 << 20;

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut found: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// Panics of our own code, also where something caught them, on any thread of this process. No test of it panics there by
/// intent.
static OWN_PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Whether a source file is one of the rooms; assertions of tests and checks tell themselves.
fn is_own(file: &str) -> bool {
    file.contains("crates/") && !checks::is_foreign(file)
}

/// Notes them from here on.
fn note_own_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.location().is_some_and(|place| is_own(place.file())) {
                OWN_PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(panic.to_string());
            }
            default(panic);
        }));
    });
}

/// Runs a target on its corpus, on changed forms of each input, and on inputs that no corpus needs to hold.
fn replay(target: &str, check: fn(&[u8])) {
    note_own_panics();
    let inputs = corpus(target);
    assert!(!inputs.is_empty(), "no corpus of {target}");
    let run = move || {
        for path in inputs {
            let input = std::fs::read(&path).unwrap();
            println!("{}", path.display());
            check(&input);
            // Cut, and with a byte changed, at a few places: neighbours of what is known.
            for at in (0..input.len()).step_by(input.len().div_ceil(8).max(1)) {
                check(&input[..at]);
                let mut other = input.clone();
                other[at] ^= 0x41;
                check(&other);
            }
        }
        for input in [&b""[..], b"\0", b"\n", b"{}", &[0xff; 9], &[b'('; 64]] {
            check(input);
        }
    };
    std::thread::Builder::new().stack_size(STACK).spawn(run).unwrap().join().unwrap();
    let own = OWN_PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(own.is_empty(), "caught, but our own: {own:?}");
}

#[test]
fn panics_of_our_own_are_told_from_those_of_others() {
    assert!(is_own("crates/datafusion/src/call_planner.rs"));
    for file in ["cargo/registry/src/index/arrow-59.3.2/src/array.rs", "/rustc/1/library/core/src/option.rs", file!()] {
        assert!(!is_own(file), "{file}");
    }
    // Rooms are named as this file is, from the root of the workspace.
    assert_eq!(file!(), "tests/corpora.rs");
}

#[test]
#[ignore = "writes seeds into fuzz/corpus, which the other tests read"]
fn write_seeds() {
    seeds::write(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus"));
}

#[test]
fn commit() {
    replay("commit", checks::commit::check);
}

#[test]
fn filter_expression() {
    replay("filter_expression", checks::filter_expression::check);
}

#[test]
fn ingest() {
    replay("ingest", checks::ingest::check);
}

#[test]
fn item_list() {
    replay("item_list", checks::item_list::check);
}

#[test]
fn job_file() {
    replay("job_file", checks::job_file::check);
}

#[test]
fn path_policy() {
    replay("path_policy", checks::path_policy::check);
}

#[test]
fn preflight() {
    replay("preflight", checks::preflight::check);
}

#[test]
fn solution_version() {
    checks::solution_version::check_that_the_version_is_whole();
    replay("solution_version", checks::solution_version::check);
}

#[test]
fn sql_arguments() {
    replay("sql_arguments", checks::sql_arguments::check);
}

#[test]
fn every_target_has_its_check_and_its_corpus() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = |folder: &str| {
        let mut names = std::fs::read_dir(root.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect::<Vec<_>>();
        names.sort();
        names
    };
    let targets = names("fuzz/fuzz_targets");
    assert_eq!(names("fuzz/corpus"), targets);
    let (manifest, own) = (std::fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap(), include_str!("corpora.rs"));
    for target in targets {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is not in fuzz/Cargo.toml");
        assert!(own.contains(&format!("replay(\"{target}\", ")), "{target} is not replayed");
    }
}
