//! Real Parquet files in, the model's types or one line of advice out.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]

mod attributes;
mod bad_rows;
mod events;
mod files;
mod ids;
mod metadata;
mod names;
mod online_retail;
mod report;
mod same_data;
mod survey;
mod times;
mod whole_files;
