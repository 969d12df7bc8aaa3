//! P17 with `--isolate-inputs`: what makes a decoder abort ends another process, and nothing else changes.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use datafusion::object_store::ObjectStoreExt;
use item_affinity_storage::Location;

use super::assert_one_line;
use super::hand_made::{Column, file, interactions};
use crate::common::{Ended, S3Server, behind, cli, data, files_below, item_affinity, run, succeed};

const ROWS: i64 = 60;
const ZSTD: i32 = 6;
/// Address space of less than that page and a program.
const LIMITED: [&str; 4] = ["sh", "-c", "ulimit -v 2300000; exec \"$@\"", "sh"];

/// A page of a few bytes that says it has 2 GiB, which the reader reserves before it looks at them.
fn hostile() -> Vec<u8> {
    let mut columns = interactions(ROWS);
    let users: &mut Column = &mut columns[0];
    users.codec = ZSTD;
    users.pages[0].says_uncompressed = Some(i32::MAX);
    file(&columns, ROWS, ROWS)
}

#[test]
fn p17_a_page_of_more_memory_than_there_is_ends_the_process_that_decodes_it_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.parquet").display().to_string();
    std::fs::write(&path, hostile()).unwrap();
    let target = folder.path().join("solution").display().to_string();
    for arguments in [
        vec!["check", "--quiet", "--interactions", &path],
        vec!["train", "--quiet", "--allow-small-data", "--interactions", &path, "--solution", &target],
    ] {
        let apart = run(&mut behind(&LIMITED, item_affinity().args(&arguments).arg("--isolate-inputs")));
        assert_one_line(&apart, 3, &["ERR_DECODER_DIED: ", "signal=6; file=", "hostile.parquet"], arguments[0]);
        assert_eq!(files_below(Path::new(&target)), Vec::<std::path::PathBuf>::new());
        let status = behind(&LIMITED, item_affinity().args(&arguments)).output().unwrap().status;
        assert_eq!(status.signal(), Some(6), "the same file ends the job without the option: {status}");
    }
}

#[test]
fn p17_isolated_inputs_give_the_same_bytes_and_the_same_errors() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let inputs = [data("interactions.parquet"), data("items.parquet"), data("users.parquet")];
    let [log, items, users] = &inputs;
    let made = |name: &str, options: &[&str]| {
        let (solution, output) = (place(&format!("solution-{name}")), place(&format!("out-{name}")));
        let from = ["--interactions", log, "--items", items, "--users", users, "--solution", &solution];
        succeed(["train", "--quiet", "--hidden-dimension", "32"].iter().chain(&from).chain(options));
        let asked = ["--solution", &solution, "--items", items, "--users", users, "--users-filter", "country = 'DE'"];
        succeed(["segment", "--quiet", "--output", &output, "--num-results", "9"].iter().chain(&asked).chain(options));
        let tables = |folder: &str| {
            let files = files_below(Path::new(folder)).into_iter();
            let tables = files.filter(|file| file.extension().is_some_and(|extension| extension == "parquet"));
            let mut bytes: Vec<_> = tables.map(|file| std::fs::read(Path::new(folder).join(file)).unwrap()).collect();
            bytes.sort();
            bytes
        };
        (tables(&solution), tables(&output))
    };
    let (together, apart) = (made("together", &[]), made("apart", &["--isolate-inputs"]));
    assert!(together.0.len() >= 3 && !together.1.is_empty());
    assert!(together == apart);

    // The header of the first page of the log is another one.
    let mut damaged = std::fs::read(log).unwrap();
    damaged[4] ^= 0x55;
    std::fs::write(place("damaged.parquet"), damaged).unwrap();
    let check = |options: &[&str]| -> Ended {
        let path = place("damaged.parquet");
        cli(["check", "--quiet", "--interactions", &path].iter().chain(options))
    };
    let together = check(&[]);
    assert_one_line(&together, 3, &["damaged.parquet"], "a damaged page");
    assert_eq!(check(&["--isolate-inputs"]).stderr, together.stderr);
}

#[test]
fn p17_isolated_inputs_come_from_a_store_as_well() {
    let Some(server) = S3Server::start("p17_isolated_inputs_come_from_a_store_as_well") else { return };
    let location = Location::parse("s3://lake/interactions.parquet").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bytes = std::fs::read(data("interactions.parquet")).unwrap();
    let store = server.stores().store(&location).unwrap();
    runtime.block_on(store.put(location.path(), bytes.into())).unwrap();
    let check = |options: &[&str]| {
        let mut command = item_affinity();
        command.envs(server.environment()).args(["check", "--quiet", "--format", "json"]);
        run(command.args(["--interactions", "s3://lake/interactions.parquet"]).args(options))
    };
    let (together, apart) = (check(&[]), check(&["--isolate-inputs"]));
    assert_eq!((together.code, apart.code), (0, 0), "{apart:?}");
    assert!(together.stdout.len() > 100);
    assert_eq!(together.stdout, apart.stdout);
}
