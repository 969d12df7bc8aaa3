//! A job file: the settings of commands, by the names that they have on the command line.
//!
//! A table is a command and its keys are the long options, so nothing has to be said twice: the settings are judged by
//! what judges the command line, and an option that is added there is known here.

use std::ffi::OsString;

use clap::{Arg, ArgAction, CommandFactory, Parser};
use item_affinity_ingest::nearest_name;
use toml::{Table, Value};

use crate::args::Arguments;
use crate::job_file_mistake::Mistake;
use crate::placeholders::Placeholders;

/// The commands that a job may be made of.
const COMMANDS: [&str; 7] = ["check", "train", "refresh", "evaluate", "segment", "verify", "gc"];

/// One command of a job file.
pub(crate) struct Step {
    /// Its name, with its number when the file has several.
    pub(crate) name: String,
    /// The words of the command line that says the same.
    pub(crate) words: Vec<String>,
    pub(crate) arguments: Arguments,
}

/// The commands of a job file in the order in which they stand there.
///
/// # Errors   what is wrong, with the table, the key and its place, and what to write instead
pub(crate) fn parse(text: &str, placeholders: &Placeholders<'_>) -> Result<Vec<Step>, Mistake> {
    let table = text.parse::<Table>().map_err(|error| {
        let byte = error.span().map_or(0, |span| span.start);
        Mistake::from(error.message().replace('\n', ", ")).at_byte(text, byte)
    })?;
    let root = Arguments::command();
    let mut general = Vec::new();
    let mut steps = Vec::new();
    for (key, value) in table {
        let tables: Vec<Table> = match value {
            Value::Table(table) => vec![table],
            Value::Array(values) if !values.is_empty() && values.iter().all(Value::is_table) => {
                values.into_iter().filter_map(|value| value.try_into().ok()).collect()
            }
            value => {
                let found = words(root.get_arguments(), "the job file", &key, value, placeholders);
                general.extend(found.map_err(|mistake| mistake.at_key(text, &key, 0, None))?);
                continue;
            }
        };
        let command = COMMANDS.contains(&key.as_str()).then(|| root.find_subcommand(&key)).flatten();
        let command = command.ok_or_else(|| {
            let what = format!("unknown table [{}]; a job is made of {}", shown(&key), COMMANDS.join(", "));
            Mistake::from(what).with_nearest(nearest_name(&key, COMMANDS)).at_key(text, &key, 0, None)
        })?;
        let many = tables.len() > 1;
        for (number, table) in tables.into_iter().enumerate() {
            let name = if many { format!("{key} {}", number + 1) } else { key.clone() };
            let mut own = vec![key.clone()];
            for (option, value) in table {
                let found = words(command.get_arguments(), &format!("[{key}]"), &option, value, placeholders);
                own.extend(found.map_err(|mistake| mistake.at_key(text, &key, number, Some(&option)))?);
            }
            steps.push((name, own, number));
        }
    }
    if steps.is_empty() {
        let what = format!("there is no command in it; write a table such as [train], of {}", COMMANDS.join(", "));
        return Err(what.into());
    }
    let step = |(name, own, number): (String, Vec<String>, usize)| {
        let command = own.first().cloned().unwrap_or_default();
        let words: Vec<String> = general.iter().cloned().chain(own).collect();
        let line = std::iter::once("item-affinity".to_owned()).chain(words.iter().cloned()).map(OsString::from);
        // Without its usage and hints, which are about a command line.
        let arguments = Arguments::try_parse_from(line).map_err(|error| {
            let error = error.to_string();
            let reason = error.split("\n\nUsage").next().unwrap_or_default().trim_start_matches("error: ");
            let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
            Mistake::from(format!("[{name}]: {reason}")).at_key(text, &command, number, None)
        })?;
        Ok(Step { name, words, arguments })
    };
    steps.into_iter().map(step).collect()
}

/// The words of the command line for one key.
fn words<'a>(
    known: impl Iterator<Item = &'a Arg>,
    place: &str,
    key: &str,
    value: Value,
    placeholders: &Placeholders<'_>,
) -> Result<Vec<String>, Mistake> {
    let known: Vec<&Arg> = known.filter(|arg| !matches!(arg.get_long(), None | Some("help" | "version"))).collect();
    let Some(arg) = known.iter().find(|arg| arg.get_long() == Some(key)) else {
        let names: Vec<&str> = known.iter().filter_map(|arg| arg.get_long()).collect();
        let what = format!("unknown key '{}' in {place}; known are {}", shown(key), names.join(", "));
        return Err(Mistake::from(what).with_nearest(nearest_name(key, names)));
    };
    let wrong =
        |expected: &str| Mistake::from(format!("'{key}' in {place} takes {expected}, not {}", value.type_str()));
    match (arg.get_action(), &value) {
        (ArgAction::SetTrue, Value::Boolean(true)) => Ok(vec![format!("--{key}")]),
        (ArgAction::SetTrue, Value::Boolean(false)) => Ok(Vec::new()),
        (ArgAction::SetTrue, _) => Err(wrong("true or false")),
        (ArgAction::Count, Value::Integer(times @ 0..=2)) => Ok((0..*times).map(|_| format!("--{key}")).collect()),
        (ArgAction::Count, _) => Err(wrong("0, 1 or 2")),
        (ArgAction::Append, Value::Array(values)) => {
            let one = |value: &Value| scalar(value).ok_or_else(|| wrong("a list of texts or numbers"));
            values.iter().map(|value| option(place, key, &one(value)?, placeholders)).collect()
        }
        // view = 1 is what the command line says as view=1.
        (ArgAction::Append, Value::Table(pairs)) => {
            let pair = |(name, value): (&String, &Value)| {
                let value = scalar(value).ok_or_else(|| wrong("a table of texts or numbers"))?;
                option(place, key, &format!("{name}={value}"), placeholders)
            };
            pairs.iter().map(pair).collect()
        }
        (_, value) => {
            let text = scalar(value).ok_or_else(|| wrong("one text, number or truth value"))?;
            Ok(vec![option(place, key, &text, placeholders)?])
        }
    }
}

fn option(place: &str, key: &str, text: &str, placeholders: &Placeholders<'_>) -> Result<String, Mistake> {
    let filled = placeholders.fill(text).map_err(|error| Mistake::from(format!("'{key}' in {place}: {error}")))?;
    Ok(format!("--{key}={filled}"))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(truth) => Some(truth.to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

/// A name from a file, fit for a message.
fn shown(name: &str) -> String {
    name.escape_debug().take(60).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use chrono::NaiveDate;

    fn parsed(text: &str) -> Result<Vec<Step>, String> {
        let environment = |name: &str| (name == "LAKE").then(|| "s3://lake".to_owned());
        let date = NaiveDate::from_ymd_opt(2026, 3, 1).unwrap();
        parse(text, &Placeholders { date, environment: &environment }).map_err(|mistake| mistake.in_file(&"job.toml"))
    }

    #[test]
    fn tables_are_commands_in_the_order_of_the_file() {
        let steps = parsed(
            "threads = 2\nquiet = true\nverbose = 0\n\
             [train]\ninteractions = ['${LAKE}/a', '${LAKE}/${date}']\nsolution = '${LAKE}/s'\n\
             event-weights = { view = 1, purchase = 4.5 }\nhalf-life = '28d'\nforce = false\nevent-value-threshold = -1\n\
             [[segment]]\nsolution = 's'\nitem = ['A', 'B']\noutput = 'o'\nfail-on-item-error = false\n\
             [[segment]]\nsolution = 's'\nitems = 'i.json'\noutput = 'p'\nnum-results = 7\n",
        )
        .unwrap_or_else(|error| panic!("{error}"));
        let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["train", "segment 1", "segment 2"]);
        let expected = "--threads=2 --quiet train --interactions=s3://lake/a --interactions=s3://lake/2026-03-01 \
                        --solution=s3://lake/s --event-weights=view=1 --event-weights=purchase=4.5 --half-life=28d \
                        --event-value-threshold=-1";
        assert_eq!(steps[0].words.join(" "), expected);
        assert!(steps[1].words.ends_with(&["--output=o".to_owned(), "--fail-on-item-error=false".to_owned()]));
    }

    #[test]
    fn every_mistake_names_the_key_and_what_to_write() {
        for (text, says) in [
            ("", "there is no command in it"),
            ("[train", "file=job.toml line=1 "),
            ("\n\nx = = 1", "file=job.toml line=3 column="),
            ("[demo]\ndir = 'x'", "unknown table [demo]; a job is made of check, train"),
            ("[tarin]", "unknown table [tarin]"),
            ("\n[tarin]", "file=job.toml line=2 column=2; did you mean 'train'?"),
            ("[segment]\nnum_result = 7", "file=job.toml line=2 column=1; did you mean 'num-results'?"),
            ("[segment]\nitem = 'A'\nseen = ['only']", "file=job.toml line=3 column=1; `run --dry-run` checks"),
            ("threds = 2\n[check]\ninteractions = 'x'", "line=1 column=1; did you mean 'threads'?"),
            ("[segment]\nzzzzzzzz = 7", "line=2 column=1; `run --dry-run` checks the file"),
            ("[segment]\nnum_results = 7", "unknown key 'num_results' in [segment]; known are "),
            ("[segment]\nhelp = true", "unknown key 'help'"),
            ("threds = 2\n[check]\ninteractions = 'x'", "unknown key 'threds' in the job file; known are quiet"),
            ("[train]\nforce = 'yes'", "'force' in [train] takes true or false, not string"),
            ("verbose = true\n[check]\ninteractions = 'x'", "'verbose' in the job file takes 0, 1 or 2"),
            ("[train]\nsolution = ['a']", "'solution' in [train] takes one text, number or truth value, not array"),
            ("[train]\ninteractions = [['a']]", "'interactions' in [train] takes a list of texts or numbers"),
            ("[train]\nsolution = 2026-01-01", "not datetime"),
            (
                "[train]\nsolution = '${NOPE}'",
                "'solution' in [train]: ${NOPE}: the environment variable NOPE is not set",
            ),
            ("[train]\nsolution = 's'", "[train]: the following required arguments were not provided: --interactions"),
            ("[segment]\nsolution = 's'\nitem = 'a'\noutput = 'o'\nnum-results = 0", "[segment]: invalid value '0'"),
        ] {
            let error = parsed(text).err().unwrap_or_default();
            assert!(error.contains(says) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
