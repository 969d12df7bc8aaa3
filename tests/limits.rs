//! P25, P26: a job keeps to its memory or says so, and leaves nothing in the folder for temporary files.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::parquet::arrow::ArrowWriter;

use crate::common::{Ended, data, files_below, item_affinity, run, solution, succeed};

const USERS: i64 = 40_000;
const ITEMS: i64 = 60;

/// A solution of many users, trained once.
pub(crate) fn many_users() -> &'static str {
    static TRAINED: LazyLock<(tempfile::TempDir, String)> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        let interactions = folder.path().join("interactions.parquet");
        let rows = 0..USERS * 4;
        let columns: [(&str, ArrayRef); 3] = [
            (
                "user_id",
                Arc::new(StringArray::from_iter_values(rows.clone().map(|n| format!("user-{:06}", n % USERS)))),
            ),
            (
                "item_id",
                Arc::new(StringArray::from_iter_values(
                    rows.clone().map(|n| format!("item-{:02}", (n * 7 + n / USERS * 13 + n % 3) % ITEMS)),
                )),
            ),
            ("timestamp", Arc::new(Int64Array::from_iter_values(rows.map(|n| 1_767_225_600 + n * 20)))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer =
            ArrowWriter::try_new(std::fs::File::create(&interactions).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let solution = folder.path().join("solution").display().to_string();
        let arguments =
            ["train", "--quiet", "--hidden-dimension", "32", "--iterations", "1", "--regularization", "0.005"];
        let place = ["--interactions", &interactions.display().to_string(), "--solution", &solution].map(str::to_owned);
        succeed(arguments.map(str::to_owned).into_iter().chain(place));
        (folder, solution)
    });
    &TRAINED.1
}

/// Runs a command and gives the most memory that it ever held, in bytes.
fn with_peak(command: &mut Command) -> (Ended, u64) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let watching = std::thread::spawn(move || {
        let mut peak = 0;
        // The mark goes up only; the last look before the end is near it.
        while let Ok(text) = std::fs::read_to_string(&status) {
            let mark =
                text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
            let Some(mark) = mark else { break };
            peak = peak.max(mark);
            std::thread::sleep(Duration::from_millis(1));
        }
        peak * 1_024_u64
    });
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ended =
        Ended { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) };
    (ended, watching.join().unwrap())
}

fn all_users(output: &Path) -> Command {
    let mut command = item_affinity();
    command.args(["segment", "--quiet", "--threads", "2", "--solution", many_users(), "--output"]).arg(output);
    command.args((0..ITEMS).flat_map(|item| ["--item".to_owned(), format!("item-{item:02}")]));
    command.args(["--num-results", &USERS.to_string()]);
    command
}

#[cfg(target_os = "linux")]
#[test]
fn p25_a_segment_job_keeps_to_its_memory_or_ends_with_8_and_names_the_phase() {
    const MB: u64 = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let (one, fixed) = with_peak(
        item_affinity()
            .args(["segment", "--quiet", "--solution", many_users(), "--item", "item-07", "--output"])
            .arg(folder.path().join("one")),
    );
    assert_eq!(one.code, 0, "{one:?}");
    let (free, peak) = with_peak(&mut all_users(&folder.path().join("free")));
    assert_eq!(free.code, 0, "{free:?}");
    println!(
        "memory: {} MB for one item, {} MB for {ITEMS} items × {USERS} users without a limit",
        fixed / MB,
        peak / MB
    );
    let (mut refused, mut kept) = (0, 0);
    for limit in [1, 8, 32, 64, 128, 256, 512] {
        let output = folder.path().join(format!("limit-{limit}"));
        let (ended, peak) = with_peak(all_users(&output).args(["--memory-limit", &format!("{limit}MB")]));
        match ended.code {
            0 => kept += 1,
            8 => {
                refused += 1;
                assert!(
                    ended.stderr.contains("TopKUsersPerItem") || ended.stderr.contains("SegmentsFinal"),
                    "{ended:?}"
                );
                assert!(files_below(&output).is_empty(), "{:?}", files_below(&output));
            }
            _ => panic!("{limit} MB: {ended:?}"),
        }
        let bound = limit * MB * 5 / 4 + fixed + OVERHEAD;
        println!("memory limit {limit} MB: exit code {}, peak {} MB, bound {} MB", ended.code, peak / MB, bound / MB);
        assert!(peak <= bound, "{limit} MB: {} MB over {} MB", peak / MB, bound / MB);
    }
    assert!(refused > 0 && kept > 0);
}

/// What a job holds beside its pool and what a job of one item holds: the row group that is being written.
#[cfg(target_os = "linux")]
const OVERHEAD: u64 = 32 << 20;

#[test]
fn p26_jobs_leave_nothing_in_the_folder_for_temporary_files() {
    let folder = tempfile::tempdir().unwrap();
    let (temporary, place) = (folder.path().join("temporary"), folder.path().join("place"));
    std::fs::create_dir(&temporary).unwrap();
    let there = |name: &str| place.join(name).display().to_string();
    let (trained, refreshed, segments) = (there("trained"), there("trained"), there("segments"));
    let interactions = data("interactions.parquet");
    let jobs: [(&[&str], i32); 6] = [
        (&["check", "--interactions", &interactions], 0),
        (&["train", "--hidden-dimension", "32", "--interactions", &interactions, "--solution", &trained], 0),
        (&["refresh", "--force", "--interactions", &interactions, "--solution", &refreshed], 0),
        (&["segment", "--solution", &trained, "--item", "COFFEE-01", "--reasons", "3", "--output", &segments], 0),
        (&["segment", "--solution", &trained, "--item", "x", "--output", &segments], 4),
        (
            &[
                "segment",
                "--memory-limit",
                "1KB",
                "--force",
                "--solution",
                solution(),
                "--item",
                "COFFEE-01",
                "--output",
                &segments,
            ],
            8,
        ),
    ];
    for (arguments, code) in jobs {
        let ended = run(item_affinity().env("TMPDIR", &temporary).arg("--quiet").args(arguments));
        assert_eq!(ended.code, code, "{arguments:?}: {ended:?}");
        let left = std::fs::read_dir(&temporary).unwrap().count();
        assert_eq!(left, 0, "{arguments:?}");
    }
}
