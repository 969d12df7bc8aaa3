//! `cluster`: a scheduler or an executor, and the session of commands with `--cluster`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use item_affinity_ballista::{ExecutorSettings, SchedulerAddress, SchedulerSettings, run_executor, run_scheduler};
use item_affinity_storage::Stores;

use crate::args::{Global, parse_bytes};
use crate::commit_args::parse_duration;
use crate::exit::Failure;

#[derive(Subcommand)]
pub(crate) enum ClusterCommand {
    /// Gives tasks to executors; one for a cluster. /healthz and /readyz answer on its port.
    Scheduler(SchedulerArgs),
    /// Runs tasks, until SIGTERM: then it ends those that it has.
    Executor(ExecutorArgs),
}

#[derive(Args)]
pub(crate) struct SchedulerArgs {
    /// Address to listen at.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind_host: IpAddr,
    /// Port to listen at.
    #[arg(long, value_name = "PORT", default_value_t = 50050)]
    port: u16,
    /// How executors and clients reach this host.
    #[arg(long, value_name = "HOST", default_value = "localhost")]
    external_host: String,
    /// An executor that is silent for so long is lost, and its tasks run elsewhere.
    #[arg(long, value_name = "DURATION", default_value = "3m", value_parser = parse_duration)]
    executor_timeout: Duration,
    /// Clients fetch results through the scheduler, because they cannot reach executors.
    #[arg(long)]
    proxy_results: bool,
}

#[derive(Args)]
pub(crate) struct ExecutorArgs {
    /// The scheduler, as df://host:50050.
    #[arg(long, value_name = "df://HOST:PORT", env = "ITEM_AFFINITY_CLUSTER")]
    scheduler: SchedulerAddress,
    /// Address to listen at.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind_host: IpAddr,
    /// How others reach this host; the address that the scheduler sees unless said.
    #[arg(long, value_name = "HOST")]
    external_host: Option<String>,
    /// Port for shuffled rows and results.
    #[arg(long, value_name = "PORT", default_value_t = 50051)]
    port: u16,
    /// Port for tasks.
    #[arg(long, value_name = "PORT", default_value_t = 50052)]
    grpc_port: u16,
    /// Port that answers /healthz and /readyz.
    #[arg(long, value_name = "PORT")]
    health_port: Option<u16>,
    /// Folder for shuffled rows, until their query is over.
    #[arg(long, value_name = "FOLDER")]
    work_dir: PathBuf,
    /// Bytes that its tasks may hold together, as 4GB; 70 % of the machine or container unless said.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    memory_limit: Option<usize>,
    /// How often it tells the scheduler that it lives.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    heartbeat: Duration,
    /// How long it waits for the scheduler when it starts.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    connect_timeout: Duration,
}

pub(crate) async fn run(global: &Global, command: ClusterCommand) -> Result<ExitCode, Failure> {
    let stores = Stores::from_env();
    let ended = match command {
        ClusterCommand::Scheduler(args) => {
            let SchedulerArgs { bind_host, port, external_host, executor_timeout, proxy_results } = args;
            let settings = SchedulerSettings { bind_host, port, external_host, executor_timeout, proxy_results };
            run_scheduler(&stores, settings).await
        }
        ClusterCommand::Executor(args) => {
            let settings = ExecutorSettings {
                scheduler: args.scheduler,
                bind_host: args.bind_host,
                external_host: args.external_host,
                port: args.port,
                grpc_port: args.grpc_port,
                health_port: args.health_port,
                work_dir: args.work_dir,
                vcores: global.threads.map_or(0, std::num::NonZeroUsize::get),
                memory_limit: args.memory_limit,
                heartbeat: args.heartbeat,
                connect_timeout: args.connect_timeout,
            };
            run_executor(&stores, settings).await
        }
    };
    ended.map(|()| ExitCode::SUCCESS).map_err(|error| Failure::new(error.kind(), error))
}
