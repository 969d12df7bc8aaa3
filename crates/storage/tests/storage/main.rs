//! The storage contract, on memory and on local disk.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]

mod commit_faults;
mod commits;
mod corpus;
mod fault_store;
mod footers;
mod forgotten;
mod garbage;
mod leases;
mod listing;
mod parquet_files;
mod reading;
mod verify;
