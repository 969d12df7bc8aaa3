//! Encryption asked for is encryption done (P37): each write asks for it, and an answer that does not say so ends the job.

use std::sync::{Arc, Mutex};

use crate::common::{Asked, ENCRYPTION, Ended, Fault, MiniS3, item_affinity, run, solution};

const KEY_ID: &str = "x-amz-server-side-encryption-aws-kms-key-id";

/// A command whose writes shall be encrypted with a key.
fn encrypted(server: &MiniS3, arguments: &[&str]) -> Ended {
    let mut command = item_affinity();
    command.envs(server.environment()).env("AWS_SERVER_SIDE_ENCRYPTION", "aws:kms").env("AWS_SSE_KMS_KEY_ID", "key-7");
    run(command.args(arguments))
}

fn segment(server: &MiniS3, more: &[&str]) -> Ended {
    let fixed = ["segment", "--quiet", "--solution", solution(), "--item", "COFFEE-01", "--output", "s3://lake/out"];
    encrypted(server, &[&fixed[..], more].concat())
}

/// Whether a request makes an object, and so must ask: parts of an upload belong to a request that did.
fn writes(asked: &Asked) -> bool {
    match asked.method.as_str() {
        "PUT" => !asked.query.contains_key("uploadId"),
        "POST" => asked.query.contains_key("uploads"),
        _ => false,
    }
}

#[test]
fn p37_every_write_of_a_job_asks_for_encryption_with_its_key() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let server = MiniS3::start(move |asked, _| {
        if writes(asked) {
            let headers = [ENCRYPTION, KEY_ID].map(|name| asked.headers.get(name).cloned().unwrap_or_default());
            let copy = asked.headers.contains_key("x-amz-copy-source");
            log.lock().unwrap().push((asked.method.clone(), asked.key.clone(), copy, headers));
        }
        Fault::None
    });
    // Amazon Personalize's files are copied to their names on top.
    for more in [&["--num-results", "1000"][..], &["--format", "json-lines"]] {
        let ended = segment(&server, more);
        assert_eq!(ended.code, 0, "{ended:?}");
    }
    let commit = server.with(|kept| {
        let key = kept.objects.keys().find(|key| key.contains("/commits/")).cloned().unwrap();
        serde_json::from_slice::<serde_json::Value>(&kept.objects[&key].bytes).unwrap()
    });
    assert_eq!(commit["security"]["encryption"], "aws:kms");
    assert!(commit["security"]["os_user"].as_str().is_some_and(|user| !user.is_empty()), "{commit}");
    // Too large for one request: an upload in parts.
    let large =
        "COPY (SELECT random() AS a FROM generate_series(1, 2000000)) TO 's3://lake/x.parquet' STORED AS PARQUET";
    let ended = encrypted(&server, &["sql", "--root", "s3://lake/", "--allow-copy", "-c", large]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let seen = seen.lock().unwrap();
    for (method, key, _, headers) in seen.iter() {
        assert_eq!(headers, &["aws:kms".to_owned(), "key-7".to_owned()], "{method} {key}");
    }
    for part in ["/commits/", "/part-00000.parquet", "intent.json", "probe", "_SUCCESS", "metrics.json", "_CHECK"] {
        assert!(seen.iter().any(|(_, key, ..)| key.contains(part)), "no write of {part}: {seen:?}");
    }
    assert!(seen.iter().any(|(_, _, copy, _)| *copy) && seen.iter().any(|(method, ..)| method == "POST"), "{seen:?}");
}

#[test]
fn p37_an_answer_that_does_not_say_so_ends_the_job_and_commits_nothing() {
    for of in ["probe", "part-00000.parquet", "/commits/"] {
        let server = MiniS3::start(move |asked, _| match writes(asked) && asked.key.contains(of) {
            true => Fault::NotEncrypted,
            false => Fault::None,
        });
        let ended = segment(&server, &[]);
        let says = "ERR_STORE_SETTING: the store did not say that it encrypts what it was asked to encrypt";
        if of == "/commits/" {
            // What stands there is ours, and its name cannot be taken back: that it is not encrypted is said.
            assert_eq!(ended.code, 7, "{ended:?}");
        } else {
            assert_eq!(ended.code, 3, "{of}: {ended:?}");
            assert!(server.with(|kept| !kept.objects.keys().any(|key| key.contains("/commits/0"))), "{of}");
        }
        assert!(ended.stderr.contains(says), "{of}: {}", ended.stderr);
    }
}

#[test]
fn p37_without_the_wish_no_header_is_sent_and_a_wrong_one_is_refused() {
    let server = MiniS3::start(|asked, _| match asked.headers.contains_key(ENCRYPTION) {
        true => Fault::Status(400, "InvalidRequest"),
        false => Fault::None,
    });
    let plain = |name: &str, value: &str| {
        let mut command = item_affinity();
        command.envs(server.environment()).env(name, value);
        let fixed =
            ["segment", "--quiet", "--solution", solution(), "--item", "COFFEE-01", "--output", "s3://lake/out"];
        run(command.args(fixed))
    };
    assert_eq!(plain("AWS_UNRELATED", "x").code, 0);
    let wrong = plain("AWS_SERVER_SIDE_ENCRYPTION", "CANARY");
    assert_eq!(wrong.code, 3, "{wrong:?}");
    assert!(wrong.stderr.contains("ERR_STORE_SETTING: ") && !wrong.stderr.contains("CANARY"), "{}", wrong.stderr);
}
