//! Progress on stderr: a bar on a terminal, plain lines elsewhere, nothing with `--quiet`.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use item_affinity_solution::{Observer, Stage};
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::{Global, LogFormat};

/// Without a terminal, one line a stage this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Starts log lines on stderr; libraries that tell too much stay at warnings, whatever RUST_LOG says.
pub(crate) fn start_logging(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, _) => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let told = filter_fn(|line| {
        let target = line.target();
        !repeats_itself(target) && (*line.level() <= Level::WARN || !tells_too_much(target))
    });
    // Without a hint every line of every level would be made, to be looked at.
    let filter = filter.and(told.with_max_level_hint(LevelFilter::TRACE));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let log = tracing_subscriber::registry();
    match global.log_format {
        LogFormat::Text => log.with(lines.with_ansi(std::io::stderr().is_terminal()).with_filter(filter)).init(),
        LogFormat::Json => log.with(lines.json().with_filter(filter)).init(),
    }
    // At its trace level the engine prints batches, with the ids of users, to where our data goes.
    log::set_max_level(log::max_level().min(log::LevelFilter::Debug));
}

/// Whether a library prints requests with their headers, or the tokens and plans of SQL with all that was typed there,
/// below the level of warnings.
fn tells_too_much(target: &str) -> bool {
    const LIBRARIES: [&str; 7] = ["hyper", "h2", "reqwest", "rustls", "sqlparser", "datafusion", "rustyline"];
    LIBRARIES.iter().any(|library| target.starts_with(library))
}

/// Whether a library repeats at all levels what is not to be said, or is said already: lines of the logs of Delta tables,
/// where the bounds of a file are ids of users, and the error of a cluster that the command ends with.
fn repeats_itself(target: &str) -> bool {
    const TARGETS: [&str; 3] =
        ["buoyant_kernel", "deltalake_core", "ballista_core::execution_plans::distributed_query"];
    TARGETS.iter().any(|library| target.starts_with(library))
}

/// Tells a person what is going on.
pub(crate) struct Progress {
    quiet: bool,
    json: bool,
    terminal: bool,
    now: Mutex<Option<Running>>,
}

struct Running {
    stage: Stage,
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Instant,
    done: u64,
    total: Option<u64>,
}

impl Progress {
    pub(crate) fn new(global: &Global) -> Self {
        let json = global.log_format == LogFormat::Json;
        let terminal = std::io::stderr().is_terminal() && !json;
        Self { quiet: global.quiet, json, terminal, now: Mutex::new(None) }
    }

    fn line(&self, text: &str) {
        if self.quiet {
            return;
        }
        if self.json {
            eprintln!("{}", serde_json::json!({ "level": "info", "message": text }));
        } else {
            eprintln!("{text}");
        }
    }

    /// Ends the running stage, with the time that it took.
    pub(crate) fn end_stage(&self) {
        let Ok(mut now) = self.now.lock() else { return };
        let Some(running) = now.take() else { return };
        if let Some(bar) = running.bar {
            bar.finish_and_clear();
        }
        let seconds = running.started.elapsed().as_secs_f64();
        let done = running.done.max(running.total.unwrap_or(0));
        let amount = if done > 0 { format!(", {} {}", grouped(done), running.stage.unit) } else { String::new() };
        self.line(&format!("{}: {seconds:.1} s{amount}", running.stage.name));
    }
}

impl Observer for Progress {
    fn stage(&self, stage: Stage) {
        self.end_stage();
        let bar = (self.terminal && !self.quiet).then(|| {
            let bar = match stage.total {
                Some(total) => ProgressBar::new(total),
                None => ProgressBar::new_spinner(),
            };
            bar.set_draw_target(ProgressDrawTarget::stderr());
            let template = if stage.total.is_some() {
                "{msg:<24} {bar:30} {human_pos}/{human_len} {elapsed} (left {eta})"
            } else {
                "{msg:<24} {spinner} {human_pos} {elapsed}"
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_message(stage.name);
            bar
        });
        let total = stage.total;
        let started = Instant::now();
        if let Ok(mut now) = self.now.lock() {
            *now = Some(Running { stage, bar, started, last_line: started, done: 0, total });
        }
    }

    fn advance(&self, done: u64, total: Option<u64>) {
        let Ok(mut now) = self.now.lock() else { return };
        let Some(running) = now.as_mut() else { return };
        running.done = done;
        running.total = total.or(running.total);
        if let Some(bar) = &running.bar {
            if let Some(total) = running.total {
                bar.set_length(total);
            }
            bar.set_position(done);
        } else if running.last_line.elapsed() >= LINE_EVERY {
            running.last_line = Instant::now();
            let of = running.total.map(|t| format!(" of {}", grouped(t))).unwrap_or_default();
            self.line(&format!("{}: {}{of} {}", running.stage.name, grouped(done), running.stage.unit));
        }
    }

    fn note(&self, text: &str) {
        self.line(text);
    }

    fn warning(&self, text: &str) {
        if self.json {
            eprintln!("{}", serde_json::json!({ "level": "warning", "message": text }));
        } else if !self.quiet {
            eprintln!("warning: {text}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end_stage();
    }
}

/// 1234567 as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn numbers_are_grouped_by_three() {
        assert_eq!([0, 12, 999, 1000, 1_234_567].map(grouped), ["0", "12", "999", "1,000", "1,234,567"]);
    }
}
