//! Integration tests, one binary: the real command line, real files, a real S3 server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod bad_input;
mod canaries;
mod cli;
#[cfg(feature = "ballista")]
mod cluster;
mod common;
mod corpora;
mod delta;
mod encryption;
mod evaluate;
mod examples;
mod exit_codes;
mod faults;
mod forget;
mod item_lists;
mod job_files;
mod kills;
mod layouts;
mod limits;
mod maintenance;
mod min_segment_users;
mod output_table;
mod outputs_and_readers;
mod personalize;
mod pipeline;
mod readme;
mod redirects;
mod refresh;
mod refresh_in_parts;
mod signals;
mod slt;
mod sql_policy;
mod sql_prompt;
mod sql_scripts;
mod sql_session;
mod system_calls;
mod tidy;
mod uploads;
mod user_filters;
