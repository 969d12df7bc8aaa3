//! The other implementation, as a child process.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// Python with the package deltalake.
pub(super) struct Peer {
    python: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Peer {
    /// Without the package the test is skipped, and says so; when `ITEM_AFFINITY_DELTA_PYTHON` names a Python, it has to
    /// have it.
    pub(super) fn find(test: &str) -> Option<Self> {
        let named = std::env::var_os("ITEM_AFFINITY_DELTA_PYTHON").map(PathBuf::from);
        let python =
            named.clone().unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python"));
        let has = Command::new(&python).args(["-c", "import deltalake"]).stderr(Stdio::null()).status();
        if has.is_ok_and(|status| status.success()) {
            return Some(Self { python, environment: Vec::new() });
        }
        assert!(named.is_none(), "{} has no package deltalake", python.display());
        println!("skipped 1 test ({test}): no deltalake in .venv and ITEM_AFFINITY_DELTA_PYTHON is not set");
        None
    }

    /// The same with these variables, which say where S3 is.
    pub(super) fn with(mut self, environment: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.environment.extend(environment);
        self
    }

    pub(super) fn start(&self, arguments: &[&str], columns: Option<&Value>) -> Child {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/delta/peer.py");
        let mut child = Command::new(&self.python)
            .arg(script)
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(columns.map(Value::to_string).unwrap_or_default().as_bytes()).unwrap();
        child
    }

    fn run(&self, arguments: &[&str], columns: Option<&Value>) -> String {
        ended(self.start(arguments, columns))
    }

    /// Writes these columns in this mode, partitioned by these columns.
    pub(super) fn write(&self, table: &str, mode: &str, columns: &Value, partition: &[&str]) {
        self.run(&[&["write", table, mode], partition].concat(), Some(columns));
    }

    pub(super) fn delete(&self, table: &str, predicate: &str) {
        self.run(&["delete", table, predicate], None);
    }

    /// The rows of a query over the table `t`, as a list of lists.
    pub(super) fn query(&self, table: &str, sql: &str) -> Value {
        serde_json::from_str(&self.run(&["query", table, sql], None)).unwrap()
    }

    /// The version of a table, what made each, and how many files it has.
    pub(super) fn log(&self, table: &str) -> (u64, Vec<String>, u64) {
        let log: Value = serde_json::from_str(&self.run(&["log", table], None)).unwrap();
        let operations = serde_json::from_value(log["operations"].clone()).unwrap();
        (log["version"].as_u64().unwrap(), operations, log["files"].as_u64().unwrap())
    }
}

/// What a child printed that ended well.
pub(super) fn ended(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Columns for [`Peer::write`] from the rows of CSV text with a header.
pub(super) fn columns(csv: &str, types: &[&str]) -> Value {
    let names = csv.lines().next().unwrap().split(',');
    let rows = crate::common::csv_rows(csv);
    let column = |(at, (name, of)): (usize, (&str, &&str))| {
        let values = rows.iter().map(|row| match (*of, row[at].as_str()) {
            (_, "") => Value::Null,
            ("string", text) => text.into(),
            ("float", text) => text.parse::<f64>().unwrap().into(),
            (_, text) => text.parse::<i64>().unwrap().into(),
        });
        (name.to_owned(), json!([of, values.collect::<Vec<_>>()]))
    };
    Value::Object(names.zip(types).enumerate().map(column).collect())
}
