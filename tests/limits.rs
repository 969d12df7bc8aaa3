//! P24 to P26: a job keeps to its memory or says so, bounds its temporary files, and leaves none.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::parquet::arrow::ArrowWriter;

#[cfg(target_os = "linux")]
use crate::common::memory_group::MemoryGroup;
use crate::common::{Ended, behind, data, files_below, item_affinity, run, solution, succeed};
use crate::system_calls::can_mount;

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

/// The same where the kernel kills who takes more than the bound, if this machine can say so to it.
#[cfg(target_os = "linux")]
fn within(bound: u64, command: &mut Command) -> (Ended, u64) {
    match MemoryGroup::new(bound) {
        Some(group) => with_peak(&mut group.of(command)),
        None => {
            println!("no group of processes with a memory limit here: only the peak is compared with the bound");
            with_peak(command)
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn p25_a_group_with_too_little_memory_kills_what_runs_in_it() {
    let Some(group) = MemoryGroup::new(24 << 20) else {
        println!("skipped 1 test: no group of processes with a memory limit here");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (ended, _) = with_peak(&mut group.of(&all_users(&folder.path().join("killed"))));
    assert_eq!(ended.code, -1, "{ended:?}");
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
        let bound = limit * MB * 5 / 4 + fixed + OVERHEAD;
        let (ended, peak) = within(bound, all_users(&output).args(["--memory-limit", &format!("{limit}MB")]));
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
        println!("memory limit {limit} MB: exit code {}, peak {} MB, bound {} MB", ended.code, peak / MB, bound / MB);
        assert!(peak <= bound, "{limit} MB: {} MB over {} MB", peak / MB, bound / MB);
    }
    assert!(refused > 0 && kept > 0);
}

/// Interactions whose training takes far more memory than the program itself.
#[cfg(target_os = "linux")]
fn large_interactions(path: &Path) {
    const EVENTS: i64 = 800_000;
    let rows = 0..EVENTS;
    let users = rows.clone().map(|n| format!("user-{:06}", n.wrapping_mul(7_919) % 100_000));
    let items = rows.clone().map(|n| format!("item-{:05}", (n.wrapping_mul(104_729) + n / 1_000) % 15_000));
    let columns: [(&str, ArrayRef); 3] = [
        ("user_id", Arc::new(StringArray::from_iter_values(users))),
        ("item_id", Arc::new(StringArray::from_iter_values(items))),
        ("timestamp", Arc::new(Int64Array::from_iter_values(rows.map(|n| 1_767_225_600 + n * 10)))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn p25_a_training_keeps_to_its_memory_or_ends_with_8_and_names_the_phase() {
    const MB: u64 = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let (small, large) = (folder.path().join("small.parquet"), folder.path().join("large.parquet"));
    crate::common::small_interactions(&small);
    large_interactions(&large);
    let train = |interactions: &Path, solution: &str| {
        let mut command = item_affinity();
        command.args(["train", "--quiet", "--threads", "2", "--hidden-dimension", "64", "--iterations", "1"]);
        command.args(["--regularization", "0.005", "--interactions"]).arg(interactions);
        command.arg("--solution").arg(folder.path().join(solution));
        command
    };
    let (least, fixed) = with_peak(&mut train(&small, "small"));
    assert_eq!(least.code, 0, "{least:?}");
    let (free, peak) = with_peak(&mut train(&large, "free"));
    assert_eq!(free.code, 0, "{free:?}");
    println!("training: {} MB for a small log, {} MB for a large one without a limit", fixed / MB, peak / MB);
    let mut phases = std::collections::BTreeSet::new();
    for limit in [1, 16, 64, 128, 192, 256, 512] {
        let solution = format!("limit-{limit}");
        let mut command = train(&large, &solution);
        let bound = limit * MB * 5 / 4 + fixed + OVERHEAD;
        let (ended, peak) = within(bound, command.args(["--memory-limit", &format!("{limit}MB")]));
        let phase = ["reading interactions", "training"].into_iter().find(|phase| ended.stderr.contains(phase));
        let left = files_below(&folder.path().join(&solution));
        match (ended.code, phase) {
            (0, None) => phases.insert("done"),
            (8, Some(phase)) => {
                assert!(ended.stderr.starts_with("error: ERR_MEMORY_LIMIT: ") && left.is_empty(), "{ended:?} {left:?}");
                phases.insert(phase)
            }
            _ => panic!("{limit} MB: {ended:?}"),
        };
        println!("training in {limit} MB: exit code {}, peak {} MB, bound {} MB", ended.code, peak / MB, bound / MB);
        assert!(peak <= bound, "{limit} MB: {} MB over {} MB", peak / MB, bound / MB);
    }
    assert_eq!(phases.into_iter().collect::<Vec<_>>(), ["done", "reading interactions", "training"]);
    // The limit of a refresh is one as well.
    let solution = folder.path().join("free");
    let mut refresh = item_affinity();
    refresh.args(["refresh", "--quiet", "--force", "--threads", "2", "--interactions"]).arg(&large);
    refresh.arg("--solution").arg(&solution);
    for (limit, code) in [("1MB", 8), ("64MB", 8), ("2GB", 0)] {
        let mut command = item_affinity();
        command.args(refresh.get_args()).args(["--memory-limit", limit]);
        let ended = run(&mut command);
        assert_eq!(ended.code, code, "{limit}: {ended:?}");
        assert!(code == 0 || ended.stderr.starts_with("error: ERR_MEMORY_LIMIT: "), "{ended:?}");
    }
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

/// A query that sorts more than its memory holds; its answer is one number.
const SORTS: &str = "SELECT max(place) FROM (SELECT row_number() OVER (ORDER BY x) AS place FROM \
                     (SELECT concat((value * 7919) % 1000003, '-and-some-more-to-take-room') AS x \
                     FROM generate_series(1, 1000000)))";

/// The query with a folder for temporary files.
fn sorting(temporary: &Path, more: &[&str]) -> Command {
    let mut command = item_affinity();
    command.env("TMPDIR", temporary).args(["sql", "--threads", "1", "--format", "csv", "-c", SORTS]).args(more);
    command
}

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// How many files without a name a process holds in this folder.
#[cfg(target_os = "linux")]
fn unnamed_files(process: u32, folder: &Path) -> usize {
    let Ok(open) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return 0 };
    let links = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.starts_with(folder) && link.to_string_lossy().ends_with(" (deleted)")).count()
}

#[cfg(target_os = "linux")]
#[test]
fn p26_temporary_files_have_no_names_and_are_gone_however_the_query_ends() {
    let folder = tempfile::tempdir().unwrap();
    let little = ["--memory-limit", "24MB"];
    for end in [None, Some("-TERM"), Some("-KILL")] {
        let mut child = sorting(folder.path(), &little).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut seen = 0;
        while child.try_wait().unwrap().is_none() {
            seen = seen.max(unnamed_files(child.id(), folder.path()));
            assert_eq!(entries(folder.path()), 0, "a name in the folder");
            if let Some(signal) = end.filter(|_| seen > 0) {
                assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let output = child.wait_with_output().unwrap();
        assert!(seen > 0, "the query did not spill");
        match end {
            None => assert_eq!((output.status.code(), output.stdout.ends_with(b"1000000\n")), (Some(0), true)),
            Some("-TERM") => assert_eq!(output.status.code(), Some(143)),
            Some(_) => assert_eq!(output.status.code(), None),
        }
        assert_eq!(entries(folder.path()), 0, "{end:?}");
    }
}

#[test]
fn p26_more_temporary_files_than_the_limit_end_with_8_and_a_full_disk_with_5() {
    let folder = tempfile::tempdir().unwrap();
    let little = ["--memory-limit", "24MB"];
    let limited = run(&mut sorting(folder.path(), &[&little[..], &["--temp-limit", "1MB"]].concat()));
    assert_eq!((limited.code, limited.stdout.lines().count()), (8, 1), "the header alone: {limited:?}");
    let says = format!(
        "error: ERR_TEMP_LIMIT: the query needs more than 1048576 bytes of temporary files; file={}",
        folder.path().display()
    );
    assert!(limited.stderr.starts_with(&says) && limited.stderr.contains("--temp-limit"), "{limited:?}");
    assert_eq!(entries(folder.path()), 0);
    let enough = run(&mut sorting(folder.path(), &[&little[..], &["--temp-limit", "1GB"]].concat()));
    assert_eq!(enough.code, 0, "{enough:?}");
    let nowhere = folder.path().join("nowhere");
    let missing = run(&mut sorting(&nowhere, &little));
    assert!(missing.code == 5 && missing.stderr.contains(&format!("file={}", nowhere.display())), "{missing:?}");
    assert!(missing.stderr.contains("TMPDIR"), "{missing:?}");
    if !can_mount("p26_more_temporary_files_than_the_limit_end_with_8_and_a_full_disk_with_5") {
        return;
    }
    let script = "mount -t tmpfs -o size=1m tmpfs \"$TMPDIR\"; exec \"$0\" \"$@\"";
    let full = run(&mut behind(&["unshare", "-m", "sh", "-c", script], &sorting(folder.path(), &little)));
    assert_eq!(full.code, 5, "{full:?}");
    assert!(full.stderr.contains("TMPDIR") && full.stderr.lines().count() == 1, "{full:?}");
}

#[test]
fn p24_batches_of_any_size_give_the_same_segments() {
    let folder = tempfile::tempdir().unwrap();
    let segments = |rows: &str| {
        let output = folder.path().join(rows);
        let mut command = item_affinity();
        command.args(["segment", "--quiet", "--solution", solution(), "--item", "COFFEE-01", "--item", "MUSIC-05"]);
        command.args(["--num-results", "700", "--reasons", "2", "--output"]).arg(&output);
        let ended = run(command.env("DATAFUSION_EXECUTION_BATCH_SIZE", rows));
        assert_eq!(ended.code, 0, "{rows}: {ended:?}");
        let parts = files_below(&output).into_iter().filter(|file| file.ends_with("part-00000.parquet"));
        parts.map(|file| std::fs::read(output.join(file)).unwrap()).collect::<Vec<_>>()
    };
    let usual = segments("8192");
    assert_eq!(usual.len(), 2, "segments and reasons");
    for rows in ["1", "7", "1048576"] {
        assert!(segments(rows) == usual, "batches of {rows} rows");
    }
}

#[test]
fn p17_batches_that_nothing_can_hold_are_refused_before_the_engine_panics() {
    let query = |rows: &str, said: &str| {
        let mut command = item_affinity();
        let sql = format!("{said} SELECT count(*) FROM item_affinity_segments(['COFFEE-01'], 10)");
        command.args(["sql", "--allow-ddl", "--solution-version", solution(), "-c", &sql]);
        run(command.env("DATAFUSION_EXECUTION_BATCH_SIZE", rows))
    };
    for rows in ["18446744073709551615", "1099511627776", "1048577"] {
        let ended = query(rows, "");
        assert_eq!(ended.code, 3, "{rows}: {ended:?}");
        assert!(ended.stderr.contains("1 to 1048576") && ended.stderr.lines().count() == 1, "{rows}: {ended:?}");
        // Set right, the session works.
        let ended = query(rows, "SET datafusion.execution.batch_size = 1048576;");
        assert_eq!(ended.code, 0, "{rows}: {ended:?}");
        let set = query("8192", &format!("SET datafusion.execution.batch_size = {rows};"));
        assert!(set.code == 3 && set.stderr.contains("1 to 1048576"), "{rows}: {set:?}");
    }
}
