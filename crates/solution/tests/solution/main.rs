//! Training, opening and evaluating over real Parquet files, through the public API.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]

mod damage;
mod evaluation;
mod jobs;
mod odd_data;
mod planted;
mod refresh;
mod refresh_attributes;
mod same_bytes;
mod train_and_open;
