//! Integration tests, one binary: the real command line, real files, a real S3 server.

mod bad_input;
mod cli;
mod common;
mod examples;
mod pipeline;
mod readme;
mod slt;
mod sql_scripts;
mod tidy;
