//! No request follows a redirect (P32): not its authorization, not its token, not its data.

use std::sync::{Arc, Mutex};

use crate::common::{Fault, MiniS3, item_affinity, run, small_interactions};

/// A server that a redirect names; what it was asked is kept.
fn elsewhere() -> (MiniS3, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    let server = MiniS3::start(move |request, _| {
        let headers = request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>();
        kept.lock().unwrap().push(format!("{} {} {headers:?}", request.method, request.key));
        Fault::None
    });
    (server, asked)
}

#[test]
fn p32_credentials_and_data_follow_no_redirect() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("interactions.parquet");
    small_interactions(&file);
    let bytes = std::fs::read(&file).unwrap();
    let (other, asked) = elsewhere();
    // Everything is there as well: who follows ends well.
    other.with(|kept| kept.put("data/interactions.parquet", bytes.clone()));
    let port = other.port();
    let interactions = ["--interactions", "s3://lake/data/interactions.parquet", "--allow-small-data"];
    let train = ["train", "--hidden-dimension", "32", "--solution", "s3://lake/solution"];
    let train = [&train[..], &interactions].concat();
    let check = [&["check"][..], &interactions].concat();
    let statuses = [301, 302, 303, 307, 308];
    let hosts = ["127.0.0.1", "localhost"];
    for (status, host) in statuses.into_iter().flat_map(|status| hosts.map(|host| (status, host))) {
        for (arguments, method) in [(&check, "HEAD"), (&check, "GET"), (&train, "PUT")] {
            let server = MiniS3::start(move |request, _| match request.method == method {
                true => Fault::Redirect(status, host, port),
                false => Fault::None,
            });
            server.with(|kept| kept.put("data/interactions.parquet", bytes.clone()));
            let mut command = item_affinity();
            command.envs(server.environment()).env("AWS_SESSION_TOKEN", "canary-token");
            let ended = run(command.args(arguments));
            let case = format!("{method} {status} to {host}: {ended:?}");
            assert_eq!(ended.code, 3, "{case}");
            let last = ended.stderr.lines().last().unwrap_or_default();
            assert!(last.contains("no redirect is followed; set AWS_REGION"), "{case}");
            assert!(!last.contains("canary") && !last.contains(&port.to_string()), "{case}");
            assert!(server.fired().values().sum::<u64>() > 0, "{case}");
        }
    }
    assert_eq!(*asked.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn p32_plain_http_is_for_this_machine_unless_the_network_is_trusted() {
    let check = |endpoint: &str, allow: Option<&str>| {
        let mut command = item_affinity();
        let keys = [("AWS_ACCESS_KEY_ID", "canary"), ("AWS_SECRET_ACCESS_KEY", "canary"), ("AWS_REGION", "us-east-1")];
        command.envs(keys).env("AWS_ENDPOINT", endpoint).env("ITEM_AFFINITY_RETRY_TIMEOUT", "0");
        command.envs(allow.map(|allow| ("AWS_ALLOW_HTTP", allow)));
        run(command.env("AWS_CONNECT_TIMEOUT", "1 second").args(["check", "--interactions", "s3://lake/x.parquet"]))
    };
    for allow in [None, Some("false")] {
        let refused = check("http://192.0.2.1:9", allow);
        assert_eq!(refused.code, 3, "{refused:?}");
        assert!(refused.stderr.contains("plain http to 192.0.2.1 would show data and credentials"), "{refused:?}");
    }
    // Tried, and nobody is there.
    for (endpoint, allow) in [("http://127.0.0.1:9", None), ("http://192.0.2.1:9", Some("true"))] {
        let tried = check(endpoint, allow);
        assert_eq!(tried.code, 5, "{tried:?}");
    }
}
