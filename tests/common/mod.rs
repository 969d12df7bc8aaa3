//! What several test files need: the real binary, the built-in data, one trained solution, an S3 server.

#[cfg(target_os = "linux")]
pub(crate) mod memory_group;
mod mini_s3;
mod s3;
mod small_data;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use tempfile::TempDir;

pub(crate) use mini_s3::{Asked, ENCRYPTION, Fault, Kept, MiniS3};
pub(crate) use s3::S3Server;
#[cfg(feature = "ballista")]
pub(crate) use small_data::interactions_of_many;
pub(crate) use small_data::{fewer_interactions, fingerprint, small_interactions};

/// The built-in data set, as the demo trains on it.
pub(crate) fn data(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(name).display().to_string()
}

/// The real binary with no settings from this machine.
pub(crate) fn item_affinity() -> Command {
    without_settings(Command::new(env!("CARGO_BIN_EXE_item-affinity")))
}

/// A command of ours behind the words of another one, such as strace.
pub(crate) fn behind(words: &[&str], ours: &Command) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(ours.get_program()).args(ours.get_args());
    for (name, value) in ours.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// The real binary as a child that ends, killed if need be, after `seconds`, and cannot take more than 8 GiB of addresses.
pub(crate) fn limited(seconds: u64) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 8388608; exec timeout -s KILL \"$@\"", "sh", &seconds.to_string()]);
    command.arg(env!("CARGO_BIN_EXE_item-affinity"));
    without_settings(command)
}

fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("AWS_")
            || text.starts_with("ITEM_AFFINITY_")
            || text.starts_with("DATAFUSION_")
            || text == "RUST_LOG"
        {
            command.env_remove(&name);
        }
    }
    // No machine has credentials at this address, so that no test waits for a cloud.
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    // What SQL of the tests reads; what else it may not is the subject of `sql_policy.rs`.
    command.env("ITEM_AFFINITY_ROOT", format!("{},{}", std::env::temp_dir().display(), env!("CARGO_MANIFEST_DIR")));
    command
}

/// How a run of the binary ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Ended {
    let Output { status, stdout, stderr } = command.output().expect("the command starts");
    Ended {
        code: status.code().unwrap_or(-1),
        stdout: String::from_utf8(stdout).expect("stdout is UTF-8"),
        stderr: String::from_utf8(stderr).expect("stderr is UTF-8"),
    }
}

/// Runs the binary with these arguments.
pub(crate) fn cli<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Ended {
    run(item_affinity().args(arguments))
}

/// Runs the binary and insists on success.
pub(crate) fn succeed<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Ended {
    let ended = cli(arguments);
    assert_eq!(ended.code, 0, "{ended:?}");
    ended
}

/// A solution trained once on the built-in data, for all tests that only read it.
pub(crate) fn solution() -> &'static str {
    static TRAINED: LazyLock<(TempDir, String)> = LazyLock::new(|| {
        let folder = TempDir::new().expect("a temporary folder");
        let solution = folder.path().join("solution").display().to_string();
        succeed([
            "train",
            "--quiet",
            "--interactions",
            &data("interactions.parquet"),
            "--items",
            &data("items.parquet"),
            "--users",
            &data("users.parquet"),
            "--hidden-dimension",
            "32",
            "--solution",
            &solution,
        ]);
        (folder, solution)
    });
    &TRAINED.1
}

/// Rows of CSV text, header left out.
pub(crate) fn csv_rows(text: &str) -> Vec<Vec<String>> {
    text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

/// All files below a folder, relative, sorted.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&next) else { continue };
        for entry in entries {
            let path = entry.expect("a folder entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(folder).expect("below the folder").to_path_buf());
            }
        }
    }
    found.sort();
    found
}
