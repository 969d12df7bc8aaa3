//! No secret and no user id in anything that is said, logged or written beside the data (P31, P40): canaries go in, the
//! whole command line runs at trace level, also against a store that fails, and all that came out is searched for them.

use std::fmt::Write as _;

use crate::common::{Ended, Fault, MiniS3, item_affinity, run, small_interactions, succeed};

/// What must come out nowhere: credentials, a key, and what stands in locations.
const SECRETS: [&str; 7] = [
    "CANARYKEYID0123456789",
    "canary+secret/0123456789abcdef",
    "canary+session/token==0123456789",
    "Q0FOQVJZLUNBTkFSWS1DQU5BUlktQ0FOQVJZLTMyMjE=",
    "canary-password",
    "canary-signature",
    "canary-typed-secret",
];

/// How every id of a user begins.
const USER: &str = "canary-user-";

/// A secret as it may stand in a text: as it is, percent-encoded, in hexadecimal or base64.
fn spellings(secret: &str) -> Vec<String> {
    let percent = |keep: fn(u8) -> bool| {
        secret.bytes().fold(String::new(), |mut text, byte| {
            match keep(byte) {
                true => text.push(char::from(byte)),
                false => write!(text, "%{byte:02X}").unwrap(),
            }
            text
        })
    };
    let hex = secret.bytes().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    vec![
        secret.to_owned(),
        percent(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)),
        hex,
        base64(secret),
    ]
}

/// Without the last digits, which depend on what follows.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let threes = text.as_bytes().chunks_exact(3).flat_map(|three| {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[(bits >> shift & 63) as usize]))
    });
    threes.collect()
}

/// What the commands said and wrote.
struct Searched {
    server: MiniS3,
    folder: tempfile::TempDir,
    texts: usize,
    bytes: usize,
}

impl Searched {
    fn new() -> Self {
        let (server, folder) = (MiniS3::start(|_, _| Fault::None), tempfile::tempdir().unwrap());
        let plain = folder.path().join("plain.parquet").display().to_string();
        small_interactions(plain.as_ref());
        let own = Self { server, folder, texts: 0, bytes: 0 };
        for (name, columns) in [
            (
                "interactions",
                format!("concat('{USER}', user_id) AS user_id, item_id, \"timestamp\", 'view' AS event_type"),
            ),
            ("users", format!("DISTINCT concat('{USER}', user_id) AS user_id, 'DE' AS country")),
            ("bad", format!("concat('{USER}', user_id) AS user_id, item_id, -1 AS \"timestamp\"")),
        ] {
            let query =
                format!("CREATE EXTERNAL TABLE i STORED AS PARQUET LOCATION '{plain}'; SELECT {columns} FROM i");
            let file = own.path(&format!("{name}.parquet"));
            succeed(["sql", "--format", "parquet", "--output", &file, "-c", &query]);
            let bytes = std::fs::read(&file).unwrap();
            own.server.with(|kept| kept.put(&format!("data/{name}.parquet"), bytes));
        }
        own
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Runs a command at trace level and searches what it says.
    fn run(&mut self, code: i32, arguments: &[&str], more: &[(&str, &str)]) -> Ended {
        let mut command = item_affinity();
        command.envs(self.server.environment());
        // What is said of single libraries does not open them either.
        command.env("RUST_LOG", "trace,sqlparser::parser=trace,hyper_util::client=trace").env("RUST_BACKTRACE", "1");
        command.env("ITEM_AFFINITY_ROOT", format!("s3://lake/,{}", self.folder.path().display()));
        for (name, value) in [
            ("AWS_ACCESS_KEY_ID", SECRETS[0]),
            ("AWS_SECRET_ACCESS_KEY", SECRETS[1]),
            ("AWS_SESSION_TOKEN", SECRETS[2]),
            ("ITEM_AFFINITY_RETRY_TIMEOUT", "1"),
        ] {
            command.env(name, value);
        }
        command.envs(more.iter().copied());
        let ended = run(command.args(arguments));
        assert_eq!(ended.code, code, "{arguments:?}: {}\n{}", ended.stdout, last(&ended.stderr));
        self.search(&format!("stdout of {arguments:?}"), ended.stdout.as_bytes());
        self.search(&format!("stderr of {arguments:?}"), ended.stderr.as_bytes());
        ended
    }

    fn search(&mut self, place: &str, bytes: &[u8]) {
        let spelled = SECRETS.iter().flat_map(|secret| spellings(secret)).chain([USER.to_owned(), base64(USER)]);
        for canary in spelled {
            if let Some(at) = bytes.windows(canary.len()).position(|part| part == canary.as_bytes()) {
                let around = &bytes[at.saturating_sub(300)..bytes.len().min(at + 200)];
                panic!("{place} holds {canary}: …{}…", String::from_utf8_lossy(around));
            }
        }
        self.texts += 1;
        self.bytes += bytes.len();
    }

    /// Searches everything in the bucket but the data themselves.
    fn search_bucket(&mut self) -> usize {
        let objects = self.server.with(|kept| {
            kept.objects.iter().map(|(key, object)| (key.clone(), object.bytes.clone())).collect::<Vec<_>>()
        });
        let is_data =
            |key: &str| (key.ends_with(".parquet") && !key.ends_with("errors.parquet")) || key.ends_with(".out");
        let others = objects.into_iter().filter(|(key, _)| !is_data(key)).collect::<Vec<_>>();
        for (key, bytes) in &others {
            self.search(key, bytes);
        }
        others.len()
    }
}

fn last(text: &str) -> String {
    text.lines().rev().take(5).collect::<Vec<_>>().join("\n")
}

#[test]
fn p31_p40_no_command_at_trace_level_lets_a_secret_or_a_user_id_out() {
    let mut all = Searched::new();
    let (solution, output, lines) = ("s3://lake/solution", "s3://lake/segments", "s3://lake/lines");
    let interactions = ["--interactions", "s3://lake/data/interactions.parquet", "--allow-small-data"];
    let users = ["--users", "s3://lake/data/users.parquet"];
    let items = ["--solution", solution, "--item", "item-02", "--item", "nowhere"];
    let with = |first: &'static str, parts: &[&[&'static str]]| {
        std::iter::once(first).chain(parts.concat()).collect::<Vec<_>>()
    };
    all.run(0, &with("check", &[&interactions, &users]), &[]);
    let train = with("train", &[&interactions, &["--hidden-dimension", "32", "--solution", solution]]);
    all.run(0, &train, &[]);
    all.run(0, &with("refresh", &[&interactions, &["--solution", solution]]), &[]);
    all.run(0, &with("evaluate", &[&interactions, &["--hidden-dimension", "32"]]), &[]);
    all.run(4, &with("segment", &[&items, &users, &["--reasons", "2", "--output", output]]), &[]);
    all.run(4, &with("segment", &[&items, &["--format", "json-lines", "--output", lines]]), &[]);
    for _ in 0..2 {
        let floor = ["--min-segment-users", "1000", "--force", "--log-format", "json", "--output", output];
        all.run(4, &with("segment", &[&items, &floor]), &[]);
    }
    let sql = |query: &'static str| vec!["sql", "--format", "csv", "--solution-version", solution, "-c", query];
    for query in [
        "SELECT count(*) AS n FROM item_affinity_segments(['item-02'], 20)",
        "EXPLAIN ANALYZE SELECT * FROM item_affinity_segments(['item-02'], 20)",
        "CREATE EXTERNAL TABLE u STORED AS PARQUET LOCATION 's3://lake/data/users.parquet';
         SELECT count(*) AS n FROM item_affinity_segments(['item-02'], 20, users => u)",
        "SELECT count(*) AS n FROM item_affinity_output('s3://lake/segments@1')",
        "SELECT sum(item_affinity_score(user_id, item_id)) > 0 AS ok FROM item_affinity_segments(['item-02'], 3)",
    ] {
        all.run(0, &sql(query), &[]);
    }
    for (option, place) in [("--solution", solution), ("--output", output), ("--output", lines)] {
        all.run(0, &["show", option, place], &[]);
        all.run(0, &["verify", option, place, "--all"], &[]);
        all.run(0, &["gc", option, place, "--keep-versions", "9", "--delete"], &[]);
    }
    std::fs::write(all.path("names.csv"), format!("user_id\n{USER}user-07\n")).unwrap();
    let names = all.path("names.csv");
    all.run(0, &["forget", "--users", &names, "--solution", solution, "--output", output, "--output", lines], &[]);
    let written = all.search_bucket();
    assert!(written >= 20, "{written} files beside the data");
    assert!(all.texts > 60 && all.bytes > 30_000, "{} texts, {} bytes", all.texts, all.bytes);
}

#[test]
fn p31_p40_no_failure_lets_a_secret_or_a_user_id_out() {
    let mut all = Searched::new();
    let bad = ["--interactions", "s3://lake/data/bad.parquet", "--solution", "s3://lake/other"];
    all.run(3, &[&["train"][..], &bad].concat(), &[]);
    all.run(3, &[&["check"][..], &bad[..2]].concat(), &[]);
    // Locations that hold secrets are refused, and not repeated.
    for location in [
        "s3://user:canary-password@lake/x",
        "https://lake.example.org/x?X-Amz-Signature=canary-signature",
        "s3://lake/x?X-Amz-Signature=canary-signature",
    ] {
        all.run(2, &["check", "--interactions", location], &[]);
        let query = format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{location}'");
        all.run(3, &["sql", "-c", &query], &[]);
    }
    // Secrets where no secret belongs: in options of a table.
    let typed = "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 's3://lake/data/users.parquet'
                 OPTIONS ('aws.secret_access_key' 'canary-typed-secret')";
    let ended = all.run(3, &["sql", "-c", typed], &[]);
    assert!(ended.stderr.contains("error: "), "{}", last(&ended.stderr));
    // A user of whom SQL asks, in a query that fails.
    let asked = format!("SELECT nothing FROM item_affinity_items() WHERE user_id = '{USER}user-07'");
    all.run(3, &["sql", "--solution-version", "s3://lake/nowhere", "-c", &asked], &[]);
    let customer = [("AWS_SERVER_SIDE_ENCRYPTION", "sse-c"), ("AWS_SSE_CUSTOMER_KEY_BASE64", SECRETS[3])];
    all.run(3, &["check", "--interactions", "s3://lake/nothing/"], &customer);
    let check = ["check", "--interactions", "s3://lake/data/interactions.parquet"];
    for (code, fault) in [
        (3, Fault::Status(403, "SignatureDoesNotMatch")),
        (3, Fault::Status(403, "AccessDenied")),
        // To HEAD, which has no body, a store does not say why.
        (5, Fault::Status(400, "ExpiredToken")),
        (5, Fault::Status(503, "SlowDown")),
        (5, Fault::ResetBefore),
        (5, Fault::HalfBody),
    ] {
        all.server.plan(move |_, _| fault);
        all.run(code, &check, &[]);
    }
    all.run(3, &check, &[("AWS_ENDPOINT", "http://user:canary-password@example.org"), ("AWS_ALLOW_HTTP", "false")]);
    all.run(3, &check, &[("AWS_ENDPOINT", "canary-password")]);
    assert!(all.texts > 30, "{}", all.texts);
}
