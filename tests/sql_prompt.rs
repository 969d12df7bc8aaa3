//! The prompt in a real terminal: `script` of util-linux gives it one.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::{data, solution};

const PROMPT: &str = "item-affinity> ";
/// What the prompt ends with when a statement begins to run: pasted text is not marked any more.
const HANDED_OVER: &str = "\u{1b}[?2004l";
const CTRL_C: &str = "\u{3}";
/// What the prompt says of a query that Ctrl-C ended.
const STOPPED: &str = "stopped";
/// How long a terminal may take to show what is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Types keys into the prompt, each when the terminal shows the words before it, and returns all that it showed; none
/// without `script`.
fn typed(test: &str, arguments: &str, keys: &[(&str, &str)]) -> Option<String> {
    let version = Command::new("script").arg("--version").output();
    if !version.is_ok_and(|v| String::from_utf8_lossy(&v.stdout).contains("util-linux")) {
        println!("skipped 1 test ({test}): no script of util-linux");
        return None;
    }
    // `exec`, since a shell that waits dies of the Ctrl-C that its child only hears.
    let command =
        format!("exec {} sql --solution-version {} {arguments}", env!("CARGO_BIN_EXE_item-affinity"), solution());
    let mut child = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env("TERM", "xterm")
        .env_remove("ITEM_AFFINITY_HISTORY")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let shown = Arc::new(Mutex::new(Vec::new()));
    let reader = std::thread::spawn({
        let (mut output, shown) = (child.stdout.take().unwrap(), Arc::clone(&shown));
        move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        }
    });
    let mut input = child.stdin.take().unwrap();
    let mut seen = 0;
    for (words, key) in keys {
        let started = Instant::now();
        let mut pressed = started;
        loop {
            let text = String::from_utf8_lossy(&shown.lock().unwrap()[seen..]).into_owned();
            if let Some(at) = text.find(words) {
                seen += at + words.len();
                break;
            }
            // The key that stops a query is lost while the prompt still hands the terminal over: it is pressed again.
            if *words == STOPPED && pressed.elapsed() > Duration::from_millis(500) {
                input.write_all(CTRL_C.as_bytes()).unwrap();
                pressed = Instant::now();
            }
            if started.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("{words} never came: {text}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        input.write_all(key.as_bytes()).unwrap();
        input.flush().unwrap();
    }
    let status = child.wait().unwrap();
    reader.join().unwrap();
    let shown = String::from_utf8_lossy(&shown.lock().unwrap()).into_owned();
    assert!(status.success(), "{status}: {shown}");
    Some(shown)
}

#[test]
fn prompt_runs_statements_of_many_lines_completes_names_stops_queries_and_keeps_secrets_out() {
    let folder = tempfile::tempdir().unwrap();
    let history = folder.path().join("history");
    let users = format!("CREATE EXTERNAL TABLE people STORED AS PARQUET LOCATION '{}';\r", data("users.parquet"));
    let shown = typed(
        "prompt",
        &format!("--history {}", history.display()),
        &[
            (PROMPT, "SELECT 40 +\r"),
            ("40 +", "  2 AS answer;\r"),
            ("1 row, ", &users),
            ("0 rows, ", "SELECT count(*) AS number FROM peo\t"),
            // Tab fills in the one name that fits.
            ("FROM people", ";\r"),
            ("1 row, ", "\\d\r"),
            ("1 row, ", "SELECT 'aws.secret_access_key' AS hidden;\r"),
            ("1 row, ", "SELECT nothing;\r"),
            // Hours of work, and Ctrl-C: the query stops, the prompt stays.
            ("error: ", "SELECT sum(item_affinity_score(a.user_id, 'COFFEE-01')) FROM people a, people b, people c;\r"),
            ("people c;", ""),
            (HANDED_OVER, CTRL_C),
            (STOPPED, "SELECT 'still' || ' here' AS words;\r"),
            ("1 row, ", "\\q\r"),
        ],
    );
    let Some(shown) = shown else { return };
    for words in ["| answer |", "| 42     |", "| 1500   |", "| people     | BASE TABLE |", "stopped", "| still here |"]
    {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(shown.contains("error: ") && shown.contains("nothing"), "{shown}");
    let written = std::fs::read_to_string(&history).unwrap();
    assert!(written.contains("40 +\\n  2 AS answer;") && written.contains("FROM people"), "{written}");
    assert!(!written.contains("secret"), "{written}");
    assert_eq!(std::fs::metadata(&history).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn prompt_writes_no_history_unless_asked_to() {
    let arguments = "--quiet --max-rows 5";
    let keys = [(PROMPT, "SELECT 7 AS seven;\r"), ("| 7 ", "exit\r")];
    let Some(shown) = typed("no history", arguments, &keys) else { return };
    assert!(shown.contains("| 7     |") && !shown.contains("Tab completes"), "{shown}");
    assert!(!std::path::Path::new(".history").exists());
}
