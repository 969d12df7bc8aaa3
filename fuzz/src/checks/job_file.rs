//! Job files of `run`.

/// Bytes as a job file for one day, with one variable in the environment.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match item_affinity::job_file_commands(text, "2026-03-01", &|name| (name == "LAKE").then(|| "s3://lake".to_owned()))
    {
        Ok(commands) => assert!(!commands.is_empty() && commands.iter().all(|words| !words.is_empty())),
        Err(error) => assert!(!error.is_empty() && !error.contains(['\n', '\u{1b}']), "{error:?}"),
    }
}
