//! B67 to B75: the command line and what is around it.

use std::path::Path;
use std::process::{Command, Stdio};

use super::catalogue::{Row, row};
use super::{good, write};
use crate::common::{data, item_affinity, run, solution, succeed};

pub(super) const ROWS: &[Row] = &[
    row(67, "output is the input, or inside it", |case| {
        let lake = case.path("lake");
        std::fs::create_dir_all(&lake).unwrap();
        write(&Path::new(&lake).join("a.parquet"), good());
        for inside in [lake.clone(), format!("{lake}/solution"), format!("{lake}/../lake/x/..")] {
            case.refuses(2, &["train", "--quiet", "--interactions", &lake, "--solution", &inside], &["lies in"]);
        }
        case.file("in/q.json", "{\"itemId\": \"COFFEE-01\"}\n");
        for inside in ["in", "in/out"] {
            case.refuses(2, &["segment", "--solution", solution(), "--items", "in/", "--output", inside], &["lies in"]);
        }
    }),
    row(68, "locations that name nothing", |case| {
        for location in
            ["s3://", "s3:///x", "s3://b/../..", "file://host/x", "ftp://host/x", "C:\\data", "s3://b/%2e%2e/x", ""]
        {
            let ended = case.run(&["check", "--quiet", "--interactions", location]);
            if ![2, 3].contains(&ended.code) {
                case.fail(&[location], &ended, "another exit code than 2 or 3");
            }
            case.was_refused(&ended, ended.code, &[location], &["error: "]);
        }
        let interactions = data("interactions.parquet");
        let file = format!("file://{interactions}");
        let twice = interactions.replacen("/examples/", "//examples/", 1);
        for harmless in [file, twice] {
            case.works(&["check", "--interactions", &harmless], &["1,500"]);
        }
        use std::os::unix::ffi::OsStrExt;
        let mut command = item_affinity();
        command.args(["check", "--interactions"]).arg(std::ffi::OsStr::from_bytes(b"a\xff.parquet"));
        let ended = run(&mut command);
        let ended = case.ended(ended, &["not UTF-8"]);
        case.was_refused(&ended, 2, &["not UTF-8"], &["UTF-8"]);
    }),
    row(69, "passwords and signatures in locations", |case| {
        for location in [
            "https://someone:canary@127.0.0.1:9/lake/x.parquet",
            "s3://someone:canary@lake/x.parquet",
            "https://127.0.0.1:9/lake/x.parquet?X-Amz-Signature=canary&X-Amz-Credential=canary",
        ] {
            case.environment = vec![("ITEM_AFFINITY_RETRY_TIMEOUT", "1".to_owned())];
            let ended = case.run(&["check", "--interactions", location]);
            if ended.code == 0 || format!("{ended:?}").contains("canary") {
                case.fail(&["a location with a secret"], &ended, "the secret is shown");
            }
        }
    }),
    row(70, "settings out of range", |case| {
        let interactions = data("interactions.parquet");
        for (option, value) in [
            ("--hidden-dimension", "0"),
            ("--hidden-dimension", "31"),
            ("--hidden-dimension", "257"),
            ("--hidden-dimension", "1000000000"),
            ("--hidden-dimension", "1e9"),
            ("--unobserved-weight", "NaN"),
            ("--unobserved-weight", "2"),
            ("--regularization", "-1"),
            ("--regularization", "inf"),
            ("--iterations", "0"),
            ("--iterations", "101"),
            ("--half-life", "0d"),
            ("--half-life", "soon"),
            ("--horizon", "-1d"),
            ("--threads", "0"),
            ("--threads", "many"),
        ] {
            let argument = format!("{option}={value}");
            let arguments = ["train", "--quiet", "--interactions", &interactions, "--solution", "solution", &argument];
            let name = option.trim_start_matches("--");
            let ended = case.run(&arguments);
            case.was_refused(&ended, 2, &arguments, &[]);
            if !ended.stderr.contains(name) && !ended.stderr.contains(&name.replace('-', "_")) {
                case.fail(&arguments, &ended, "the setting is not named");
            }
        }
        for size in ["10XB", "-1", "0", "99999999999999999999GB", "1.5GB"] {
            let argument = format!("--memory-limit={size}");
            case.refuses(
                2,
                &["segment", "--solution", solution(), "--item", "COFFEE-01", "--output", "out", &argument],
                &["--memory-limit"],
            );
        }
        case.works(&["check", "--quiet", "--threads", "1", "--interactions", &interactions], &[]);
    }),
    row(71, "job file: unknown key, wrong type, cut, twice, 100 MB, includes", |case| {
        for (text, says) in [
            ("[train]\nhidden-dimensions = 64\n", "job.toml line=2 column=1; did you mean 'hidden-dimension'?"),
            ("[train]\nHiddenDimension = 64\n", "did you mean 'hidden-dimension'?"),
            ("[trian]\nsolution = 's'\n", "job.toml line=1 column=2; did you mean 'train'?"),
            ("\nquite = true\n[check]\ninteractions = 'x'\n", "job.toml line=2 column=1; did you mean 'quiet'?"),
            ("[check]\ninteractions = 'x'\n allow-small-data = 'yes'\n", "takes true or false, not string; file="),
            ("[check]\ninteractions = 'x'\n allow-small-data = 'yes'\n", "job.toml line=3 column=2; "),
            ("[check]\ninteractions = 'x", "job.toml line=2 column="),
            ("[check]\ninteractions = 'x'\ninteractions = 'y'\n", "job.toml line=3 column=1; "),
            ("[check]\ninteractions = 'x'\n[check]\n", "job.toml line=3 column=2; "),
            // A file cannot name another one, so that there is no loop.
            ("include = 'job.toml'\n[check]\ninteractions = 'x'\n", "unknown key 'include' in the job file"),
            ("", "there is no command in it"),
        ] {
            case.file("job.toml", text);
            case.refuses(3, &["run", "job.toml"], &["ERR_JOB_FILE: ", says]);
        }
        let large = std::fs::File::create(case.path("job.toml")).unwrap();
        large.set_len(100 << 20).unwrap();
        case.refuses(8, &["run", "job.toml"], &["ERR_TOO_LARGE: ", "job.toml", "104857600", "1048576"]);
        // Deep nesting is no stack overflow.
        case.file("job.toml", format!("x = {}", "[".repeat(500_000)));
        case.refuses(3, &["run", "job.toml"], &["ERR_JOB_FILE: "]);
    }),
    row(72, "no credentials, half of them", |case| {
        let check = ["check", "--quiet", "--interactions", "s3://lake/x.parquet"];
        for environment in
            [vec![], vec![("AWS_ACCESS_KEY_ID", "canary-key")], vec![("AWS_SECRET_ACCESS_KEY", "canary-secret")]]
        {
            case.environment = environment.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
            case.environment.push(("AWS_REGION", "us-east-1".to_owned()));
            case.environment.push(("ITEM_AFFINITY_RETRY_TIMEOUT", "2".to_owned()));
            let started = std::time::Instant::now();
            case.refuses(3, &check, &["ERR_CREDENTIALS: ", "AWS_ACCESS_KEY_ID"]);
            if started.elapsed().as_secs() >= 10 {
                case.failures.push("missing credentials took 10 s".to_owned());
            }
        }
    }),
    row(73, "no HOME, odd locale, few files, closed streams, a pipe that ends", |case| {
        let check = ["check", "--interactions", &data("interactions.parquet")].map(str::to_owned);
        let mut bare = item_affinity();
        bare.args(&check)
            .env_remove("HOME")
            .env("LANG", "C")
            .env("LC_ALL", "C")
            .env("TZ", "Nowhere/Odd")
            .stdin(Stdio::null());
        let ended = run(&mut bare);
        let ended = case.ended(ended, &["no HOME"]);
        if ended.code != 0 || !ended.stdout.contains("1,500") {
            case.fail(&["no HOME"], &ended, "does not work");
        }
        let binary = env!("CARGO_BIN_EXE_item-affinity");
        let (interactions, out) = (data("interactions.parquet"), case.path("out"));
        for (name, script) in [
            ("few files", format!("ulimit -n 32; exec '{binary}' check --interactions '{interactions}'")),
            ("closed stdin", format!("exec '{binary}' check --interactions '{interactions}' <&-")),
            ("closed stdout", format!("exec '{binary}' check --interactions '{interactions}' >&-")),
            ("head", format!("'{binary}' check --interactions '{interactions}' | head -n 1; exit ${{PIPESTATUS[0]}}")),
            (
                "read-only folder",
                format!(
                    "cd /proc && exec '{binary}' segment --quiet --solution '{}' --item COFFEE-01 --output '{out}'",
                    solution()
                ),
            ),
        ] {
            let ended = run(Command::new("bash").args(["-c", &script]));
            let ended = case.ended(ended, &[name]);
            if ![0, 3, 5].contains(&ended.code) || (ended.code != 0 && !ended.stderr.contains("error: ")) {
                case.fail(&[name], &ended, "neither works nor says why");
            }
        }
    }),
    row(74, "job name with a path, too long, empty", |case| {
        let long = "n".repeat(64);
        for name in ["", "a/b", "..", "../x", "a b", "-a", "_a", "a.b", "\u{fc}ber", "a\n", &long] {
            let argument = format!("--job-name={name}");
            let segment = ["segment", "--solution", solution(), "--item", "COFFEE-01", "--output", "out", &argument];
            case.refuses(2, &segment, &["--job-name", "1 to 63"]);
            let train = ["train", "--interactions", "x.parquet", "--solution", "solution", &argument];
            case.refuses(2, &train, &["--job-name", "1 to 63"]);
        }
        case.file("job.toml", "[segment]\nsolution = 's'\nitem = 'A'\noutput = 'o'\njob-name = 'a/b'\n");
        case.refuses(3, &["run", "job.toml"], &["ERR_JOB_FILE: ", "job-name", "1 to 63"]);
        let longest = format!("--job-name=7{}", "-_a".repeat(20) + "b0");
        let segment = ["segment", "--solution", solution(), "--item", "COFFEE-01", "--output", "out", &longest];
        case.works(&segment, &["committed version 1"]);
        case.works(&["show", "--output", "out"], &["job name", longest.trim_start_matches("--job-name=")]);
    }),
    row(75, "objects from the future", |case| {
        // The clock of the machine cannot be moved by a test: an input and a version get times of 1970 and 2100 instead.
        let path = case.path("interactions.parquet");
        write(Path::new(&path), good());
        for date in ["1970-01-02", "2100-01-01"] {
            assert!(Command::new("touch").args(["-d", date, &path]).status().unwrap().success());
            case.works(&["check", "--interactions", &path], &["4,000"]);
        }
        let solution = case.path("solution");
        succeed(["train", "--quiet", "--hidden-dimension", "32", "--interactions", &path, "--solution", &solution]);
        assert!(
            Command::new("sh")
                .args(["-c", "find \"$0\" -exec touch -d 2100-01-01 {} +", &solution])
                .status()
                .unwrap()
                .success()
        );
        case.works(
            &["segment", "--solution", &solution, "--item", "item-3", "--output", "out"],
            &["committed version 1"],
        );
    }),
];
