//! P1, P4, P5: the job at its system calls: killed at one, refused by one, with a full or a read-only disk.
//!
//! strace counts calls for each thread, so the n-th call may come in several places; n goes up until none is hit.

use std::path::Path;
use std::process::{Command, Stdio};

use item_affinity_storage::{Artifact, Location, Stores, Versions};

use crate::common::{Ended, behind, files_below, fingerprint, item_affinity, run, small_interactions, solution};

/// Whether this machine lets a test trace its children.
pub(crate) fn can_trace(test: &str) -> bool {
    let can = Command::new("strace").args(["-f", "-qq", "-e", "trace=none", "true"]).stderr(Stdio::null()).status();
    let can = can.is_ok_and(|status| status.success());
    if !can {
        println!("skipped 1 test ({test}): no strace, or no right to trace");
    }
    can
}

/// Whether this test may mount in a name space of its own.
pub(crate) fn can_mount(test: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=64k tmpfs \"$0\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(folder.path()).stderr(Stdio::null());
    let can = command.status().is_ok_and(|status| status.success());
    if !can {
        println!("skipped 1 test ({test}): no right to mount");
    }
    can
}

fn segment(output: &Path, num_results: u32) -> Command {
    let mut command = item_affinity();
    command.args(["segment", "--quiet", "--threads", "1", "--solution", solution(), "--item", "COFFEE-01"]);
    command.args(["--num-results", &num_results.to_string(), "--output"]).arg(output);
    command
}

/// Runs with a fault at the n-th of these calls; `None` for the end when none was hit.
fn with_fault(ours: &Command, calls: &str, fault: &str, n: usize) -> (Ended, bool) {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace").display().to_string();
    let (only, inject) = (format!("trace={calls}"), format!("inject={calls}:{fault}:when={n}"));
    let ended = run(&mut behind(&["strace", "-f", "-qq", "-o", &trace, "-e", &only, "-e", &inject], ours));
    let traced = std::fs::read_to_string(&trace).unwrap();
    (ended, traced.contains("(INJECTED)") || traced.contains("killed by SIGKILL"))
}

fn versions(output: &Path) -> Versions {
    let place = Location::parse(output.to_str().unwrap()).unwrap();
    Versions::new(&Stores::in_memory(), place, Artifact::Segments).unwrap()
}

/// The newest version, with every byte compared.
fn newest(output: &Path) -> Option<(u64, Vec<(String, String)>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let versions = versions(output);
        let newest = versions.latest().await.unwrap()?;
        let found = versions.verify(None, true).await.unwrap();
        assert!(found.faults.is_empty(), "{:?}", found.faults);
        Some((newest.version, fingerprint(&newest)))
    })
}

#[test]
fn p1_killed_at_the_nth_call_the_old_version_or_the_new_one_is_there() {
    if !can_trace("p1_killed_at_the_nth_call_the_old_version_or_the_new_one_is_there") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let reference = folder.path().join("reference");
    let [old, new] = [5, 7].map(|num_results| {
        assert_eq!(run(&mut segment(&reference, num_results)).code, 0);
        newest(&reference).unwrap().1
    });
    let (mut points, mut landed, mut kinds) = (0, 0, Vec::new());
    for calls in ["mkdir,mkdirat", "write", "fsync", "link,linkat", "rename,renameat,renameat2", "unlink,unlinkat"] {
        for n in 1.. {
            let output = folder.path().join(format!("{}-{n}", calls.split(',').next().unwrap()));
            assert_eq!(run(&mut segment(&output, 5)).code, 0);
            let (ended, hit) = with_fault(&segment(&output, 7), calls, "signal=KILL", n);
            if !hit {
                assert_eq!(ended.code, 0, "{calls} {n}: {ended:?}");
                break;
            }
            points += 1;
            kinds.push(calls);
            match newest(&output).unwrap() {
                (1, found) => assert!(found == old, "{calls} {n}: a mixture"),
                (2, found) => {
                    assert!(found == new, "{calls} {n}: a mixture");
                    landed += 1;
                }
                (version, _) => panic!("{calls} {n}: version {version}"),
            }
            let again = run(&mut segment(&output, 7));
            assert_eq!(again.code, 0, "{calls} {n}: {again:?}");
            assert!(newest(&output).unwrap() == (2, new.clone()), "{calls} {n}");
        }
    }
    println!(
        "killed at {points} system calls, {landed} of them after the commit: 0 mixtures, {points} reruns completed"
    );
    // How many points there are depends on how the calls fall on threads, since each thread counts its own.
    kinds.dedup();
    assert!(["mkdir,mkdirat", "write", "fsync", "link,linkat"].iter().all(|calls| kinds.contains(calls)), "{kinds:?}");
    assert!(landed > 0 && landed < points);
}

#[test]
fn p4_a_disk_that_does_not_confirm_is_never_claimed_as_committed() {
    if !can_trace("p4_a_disk_that_does_not_confirm_is_never_claimed_as_committed") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut points, mut unknown) = (0, 0);
    for n in 1.. {
        let output = folder.path().join(n.to_string());
        let (ended, hit) = with_fault(&segment(&output, 5), "fsync,fdatasync", "error=EIO", n);
        if !hit {
            assert_eq!(ended.code, 0, "{ended:?}");
            break;
        }
        points += 1;
        assert!([5, 7].contains(&ended.code), "{n}: {ended:?}");
        assert!(!ended.stdout.contains("committed") && ended.stderr.lines().count() == 1, "{n}: {ended:?}");
        unknown += usize::from(ended.code == 7);
        if ended.code == 5 {
            assert_eq!(newest(&output), None, "{n}");
        }
        let again = run(&mut segment(&output, 5));
        assert_eq!(again.code, 0, "{n}: {again:?}");
        assert_eq!(newest(&output).unwrap().0, 1);
    }
    println!("EIO at {points} calls of fsync: {points} clean failures, {unknown} of them with 7, 0 commits claimed");
    assert!(points >= 4);
}

#[test]
fn p4_files_are_on_disk_before_the_commit_has_its_name_and_that_before_the_message() {
    if !can_trace("p4_files_are_on_disk_before_the_commit_has_its_name_and_that_before_the_message") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let trace = folder.path().join("trace");
    let name = trace.display().to_string();
    let words = ["strace", "-f", "-qq", "-y", "-s", "64", "-o", &name, "-e", "trace=write,fsync,link,linkat"];
    assert_eq!(run(&mut behind(&words, &segment(&output, 5))).code, 0);
    let text = std::fs::read_to_string(&trace).unwrap();
    // A call that another thread interrupts stands where it ends.
    let lines: Vec<&str> = text.lines().collect();
    let last = |what: &dyn Fn(&str) -> bool| lines.iter().rposition(|line| what(line));
    let first = |what: &dyn Fn(&str) -> bool| lines.iter().position(|line| what(line));
    let synced = |path: &str| {
        let path = format!("{path}>");
        last(&|line| line.contains("fsync(") && line.contains(&path)).unwrap_or_else(|| panic!("{path}: {text}"))
    };
    let commit = "_item_affinity/commits/00000000000000000001.json";
    let named = first(&|line| line.contains("link") && line.contains(commit)).unwrap();
    let body = first(&|line| line.contains("fsync(") && line.contains("/commits/.")).unwrap();
    let said = first(&|line| line.contains("write(1<") && line.contains("committed version 1")).unwrap();
    let files: Vec<String> = files_below(&output).iter().map(|file| file.display().to_string()).collect();
    let part = files.iter().find(|file| file.ends_with("part-00000.parquet")).unwrap();
    let run = part.strip_suffix("/part-00000.parquet").unwrap();
    assert!(synced(part) < body, "data before the commit");
    for above in [run, "/data", "_item_affinity/runs", "_item_affinity", "/out"] {
        assert!(synced(above) < body, "{above} before the commit");
    }
    assert!(body < named, "the bytes of the commit before its name");
    assert!(named < synced("_item_affinity/commits"), "its name on disk");
    assert!(synced("_item_affinity/commits") < said, "before anybody is told");

    // Nothing of this without durability.
    std::fs::remove_dir_all(&output).unwrap();
    let mut quick = segment(&output, 5);
    quick.arg("--no-durable");
    assert_eq!(crate::common::run(&mut behind(&words, &quick)).code, 0);
    assert!(!std::fs::read_to_string(&trace).unwrap().contains("fsync("));
}

fn train(interactions: &Path, solution: &Path) -> Command {
    let mut command = item_affinity();
    command.args(["train", "--quiet", "--threads", "1", "--hidden-dimension", "32", "--iterations", "1"]);
    command.arg("--interactions").arg(interactions).arg("--solution").arg(solution);
    command
}

/// No data, no lease and no temporary file.
fn assert_clean(solution: &Path, told: &str) {
    let left = files_below(solution);
    assert!(left.is_empty(), "{told}: {left:?}");
}

#[test]
fn p5_a_limit_of_file_sizes_ends_with_5_and_names_path_and_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let interactions = folder.path().join("interactions.parquet");
    small_interactions(&interactions);
    let solution = folder.path().join("solution");
    let mut failures = 0;
    for limit in (6..30).map(|power| 1_u64 << power) {
        let script = format!("trap '' XFSZ; exec prlimit --fsize={limit} \"$0\" \"$@\"");
        let ended = run(&mut behind(&["sh", "-c", &script], &train(&interactions, &solution)));
        if ended.code == 0 {
            break;
        }
        failures += 1;
        assert_eq!(ended.code, 5, "{limit}: {ended:?}");
        let message = "error: ERR_DISK_FULL: write of ";
        assert!(ended.stderr.starts_with(message) && ended.stderr.contains(" bytes failed"), "{limit}: {ended:?}");
        assert!(ended.stderr.contains(&format!("file={}", solution.display())), "{limit}: {ended:?}");
        assert_clean(&solution, &limit.to_string());
    }
    println!("file size limits: {failures} clean failures with 5 before the first that is enough");
    assert!(failures >= 3);
}

#[test]
fn p5_a_full_disk_ends_with_5_and_a_read_only_one_with_3() {
    if !can_mount("p5_a_full_disk_ends_with_5_and_a_read_only_one_with_3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (interactions, disk) = (folder.path().join("interactions.parquet"), folder.path().join("disk"));
    small_interactions(&interactions);
    std::fs::create_dir(&disk).unwrap();
    let solution = disk.join("solution");
    let place = disk.display().to_string();
    let on_disk = |prepare: &str| {
        // What is on the disk is seen from inside only.
        let script =
            format!("d=\"$0\"; {prepare}; \"$@\"; code=$?; find \"$d\" -type f | sed 's/^/left: /' >&2; exit $code");
        run(&mut behind(&["unshare", "-m", "sh", "-c", &script, &place], &train(&interactions, &solution)))
    };
    let mut failures = 0;
    for kilobytes in (4..16).map(|power| 1_u64 << power) {
        let ended = on_disk(&format!("mount -t tmpfs -o size={kilobytes}k tmpfs \"$d\""));
        if ended.code == 0 {
            assert!(ended.stdout.contains("committed version 1"), "{ended:?}");
            break;
        }
        failures += 1;
        assert_eq!(ended.code, 5, "{kilobytes} KiB: {ended:?}");
        assert!(ended.stderr.starts_with("error: ERR_DISK_FULL: ") && !ended.stderr.contains("left: "), "{ended:?}");
    }
    println!("tmpfs: {failures} clean failures with 5, nothing left behind, before the first size that is enough");
    assert!(failures >= 1);
    let read_only = on_disk("mount -t tmpfs -o size=4m tmpfs \"$d\" && mount -o remount,ro \"$d\"");
    assert_eq!(read_only.code, 3, "{read_only:?}");
    assert!(read_only.stderr.contains("ead-only") && read_only.stderr.contains(&place), "{read_only:?}");
}
