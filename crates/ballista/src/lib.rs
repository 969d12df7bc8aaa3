//! The same plan on a cluster: Apache Ballista's scheduler and executors with this project's plan nodes built in, and a
//! session whose queries run there.
//!
//! The plan that would run in the process is the plan that is submitted; nodes travel by `ItemAffinityCodec`. They
//! name a solution version and what is asked of it; each executor reads factors, pairs and user states from the object
//! store itself, with the checksums of the commit. A commit is made by the client alone. Invariant: no file format, no
//! ranking and no command line is here.
//!
//! Without the feature `ballista` the crate is empty.
#![cfg(feature = "ballista")]

mod cluster_exec;
mod codec;
mod health;
mod message;
mod processes;
mod session;
mod shuffle_codec;
mod slots;
mod submission;

pub use cluster_exec::{ClusterExec, submit_plan, travelling};
pub use codec::{ItemAffinityCodec, cluster_codec, decode_plan, encode_plan};
pub use processes::{ClusterError, ExecutorSettings, SchedulerSettings, run_executor, run_scheduler};
pub use session::{ClusterSettings, SchedulerAddress, cluster_session};
