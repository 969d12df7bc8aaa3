//! The catalogue of bad input, B1 to B99: one row each, run through the real binary in a child with limits.
//!
//! A row tries one or several inputs. Each try has to end with its exit code, within its time and memory, with one line that
//! says what is promised, without a user id, and without a new commit.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{parquet_rows, request_rows, shell_rows, size_rows, solution_rows, store_rows, value_rows};
use crate::common::{Ended, files_below, limited, run};

/// Seconds that a try may take: the slowest takes 20 without optimization on an idle machine, and machines are busy.
const SECONDS: u64 = 240;

/// One row: its number, what it is, and how it is tried.
pub(super) struct Row {
    pub(super) id: u32,
    what: &'static str,
    by: fn(&mut Case),
}

pub(super) const fn row(id: u32, what: &'static str, by: fn(&mut Case)) -> Row {
    Row { id, what, by }
}

/// The tries of one row, in a folder of their own.
pub(super) struct Case {
    folder: tempfile::TempDir,
    pub(super) environment: Vec<(&'static str, String)>,
    pub(super) failures: Vec<String>,
    pub(super) tries: usize,
    /// Refusals whose shape was looked at.
    messages: usize,
    /// Why the row was not tried on this machine.
    pub(super) skipped: Option<String>,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, environment: Vec::new(), failures: Vec::new(), tries: 0, messages: 0, skipped: None }
    }

    pub(super) fn root(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Writes a file and gives its path.
    pub(super) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    fn commits(&self) -> BTreeSet<PathBuf> {
        let files = files_below(self.root());
        files.into_iter().filter(|file| file.to_string_lossy().contains("_item_affinity/commits/")).collect()
    }

    /// Runs the binary; a signal, a caught panic, a timeout and a user id in what it says are failures whatever is expected.
    pub(super) fn run(&mut self, arguments: &[&str]) -> Ended {
        let mut command = limited(SECONDS);
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .args(arguments)
            .current_dir(self.root());
        self.ended(run(&mut command), arguments)
    }

    pub(super) fn ended(&mut self, ended: Ended, arguments: &[&str]) -> Ended {
        self.tries += 1;
        if ended.code == 1 || !(0..128).contains(&ended.code) {
            self.fail(arguments, &ended, "a signal, a panic or a timeout");
        }
        if ended.stderr.contains("user-") || (ended.code != 0 && ended.stdout.contains("user-")) {
            self.fail(arguments, &ended, "a user id is shown");
        }
        // Keys of stores and passwords of locations are called so.
        if ended.stderr.contains("canary") || ended.stdout.contains("canary") {
            self.fail(arguments, &ended, "a secret is shown");
        }
        ended
    }

    /// Runs the binary, which has to refuse.
    pub(super) fn refuses(&mut self, code: i32, arguments: &[&str], says: &[&str]) {
        let before = self.commits();
        let ended = self.run(arguments);
        self.was_refused(&ended, code, arguments, says);
        if self.commits() != before {
            self.fail(arguments, &ended, "a new commit");
        }
    }

    pub(super) fn was_refused(&mut self, ended: &Ended, code: i32, arguments: &[&str], says: &[&str]) {
        if ended.code != code {
            return self.fail(arguments, ended, &format!("exit code {} instead of {code}", ended.code));
        }
        let lines = ended.stderr.lines().filter(|line| !line.starts_with("warning: ")).count();
        // Of wrong arguments the usage is said too.
        if !ended.stderr.lines().any(|line| line.starts_with("error: ")) || (code != 2 && lines != 1) {
            self.fail(arguments, ended, "not one line `error: …`");
        }
        // P16: a code, what is wrong, and after a semicolon where it is and what to do.
        for line in ended.stderr.lines().filter_map(|line| line.strip_prefix("error: ERR_")) {
            self.messages += 1;
            let (name, text) = line.split_once(": ").unwrap_or_default();
            let named = !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
            let cure = text.rsplit_once("; ").is_some_and(|(what, cure)| !what.is_empty() && cure.len() > 5);
            if !named || !cure {
                self.fail(arguments, ended, "not the shape `ERR_CODE: what is wrong; place; what to do`");
            }
        }
        self.says(&ended.stderr, ended, arguments, says);
    }

    /// Runs the binary, which has to do its work, and to say this on stdout or stderr.
    pub(super) fn works(&mut self, arguments: &[&str], says: &[&str]) -> Ended {
        self.ends(0, arguments, says)
    }

    /// Runs the binary, which has to end with this code, and to say this on stdout or stderr.
    pub(super) fn ends(&mut self, code: i32, arguments: &[&str], says: &[&str]) -> Ended {
        let ended = self.run(arguments);
        if ended.code != code {
            self.fail(arguments, &ended, &format!("exit code {} instead of {code}", ended.code));
        } else {
            let text = format!("{}{}", ended.stdout, ended.stderr);
            self.says(&text, &ended, arguments, says);
        }
        ended
    }

    fn says(&mut self, text: &str, ended: &Ended, arguments: &[&str], says: &[&str]) {
        for part in says.iter().filter(|part| !text.contains(**part)) {
            self.fail(arguments, ended, &format!("does not say {part:?}"));
        }
    }

    pub(super) fn fail(&mut self, arguments: &[&str], ended: &Ended, what: &str) {
        let short = |text: &str| text.chars().take(600).collect::<String>();
        let arguments = arguments.iter().map(|argument| short(argument)).collect::<Vec<_>>().join(" ");
        self.failures.push(format!(
            "{what}: {arguments}: {} {} {}",
            ended.code,
            short(&ended.stderr),
            short(&ended.stdout)
        ));
    }
}

#[test]
fn p16_p17_every_row_of_the_catalogue_ends_as_promised() {
    let tables = [
        parquet_rows::ROWS,
        value_rows::ROWS,
        request_rows::ROWS,
        shell_rows::ROWS,
        size_rows::ROWS,
        solution_rows::ROWS,
        store_rows::ROWS,
    ];
    let mut rows = tables.into_iter().flatten().collect::<Vec<_>>();
    rows.sort_by_key(|row| row.id);
    assert_eq!(
        rows.iter().map(|row| row.id).collect::<Vec<_>>(),
        (1..=99).collect::<Vec<_>>(),
        "one row for each number"
    );
    let only = std::env::var("BAD_INPUT_ROW").ok().map(|id| id.parse::<u32>().unwrap());
    let rows = rows.into_iter().filter(|row| only.is_none_or(|id| id == row.id)).collect::<Vec<_>>();
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    // Rows mostly wait: for a child, and children of stores for their retries.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let mut case = Case::new();
                    let panicked = catch_unwind(AssertUnwindSafe(|| (row.by)(&mut case))).is_err();
                    if panicked || (case.tries == 0 && case.skipped.is_none()) {
                        case.failures.push("the row itself is broken".to_owned());
                    }
                    outcomes.lock().unwrap().push((row, case));
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    let passing = outcomes.iter().filter(|(_, case)| case.failures.is_empty() && case.skipped.is_none()).count();
    let tries = outcomes.iter().map(|(_, case)| case.tries).sum::<usize>();
    let failed = outcomes.iter().flat_map(|(row, case)| {
        case.failures.iter().map(move |failure| format!("B{} {}: {failure}", row.id, row.what))
    });
    let failed = failed.collect::<Vec<_>>();
    let skipped = outcomes
        .iter()
        .filter_map(|(row, case)| case.skipped.as_ref().map(|why| format!("B{} {}: {why}", row.id, row.what)));
    for why in skipped {
        println!("bad input: not passing: {why}");
    }
    let messages = outcomes.iter().map(|(_, case)| case.messages).sum::<usize>();
    println!("bad input: {passing} of 99 pass, {tries} inputs tried, {messages} refusals of one shape");
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
