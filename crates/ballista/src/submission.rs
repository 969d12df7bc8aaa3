//! One plan at a scheduler: submitted, watched, its rows fetched, and cancelled when nobody waits for it any more.
//!
//! Ballista's own client does all of that but the last: a job whose client is gone would run to its end.

use std::collections::BTreeMap;
use std::time::Duration;

use ballista_core::client::BallistaClient;
use ballista_core::config::BallistaConfig;
use ballista_core::serde::protobuf::execute_query_params::Query;
use ballista_core::serde::protobuf::get_job_status_result::FlightProxy;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_core::serde::protobuf::{
    CancelJobParams, ExecuteQueryParams, GetJobStatusParams, KeyValuePair, PartitionLocation, execute_query_result,
    job_status,
};
use ballista_core::utils::{GrpcClientConfig, create_grpc_client_endpoint};
use ballista_core::version;
use datafusion::common::{exec_datafusion_err, exec_err};
use datafusion::error::Result;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::prelude::SessionConfig;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use tonic::transport::Channel;

use crate::session::SchedulerAddress;

/// How often a scheduler is asked how far a job is.
const ASKED_EVERY: Duration = Duration::from_millis(50);
/// How long the word that a job is cancelled may take.
const CANCELLED_WITHIN: Duration = Duration::from_secs(2);

/// Submits the bytes of a plan, waits until its job is done, and gives its rows, partition after partition.
///
/// Dropped before the job is done, the job is cancelled.
///
/// # Errors   what Ballista says, in its words
pub(crate) async fn submit(
    scheduler: &SchedulerAddress,
    plan: Vec<u8>,
    session_id: String,
    config: &SessionConfig,
    of_ballista: &BallistaConfig,
) -> Result<BoxStream<'static, Result<datafusion::arrow::array::RecordBatch>>> {
    let grpc = GrpcClientConfig::from(of_ballista);
    let most = of_ballista.grpc_client_max_message_size();
    let endpoint = create_grpc_client_endpoint(scheduler.url(), Some(&grpc)).map_err(|e| said(&e))?;
    let channel = endpoint.connect().await.map_err(|e| said(&e))?;
    let mut client = SchedulerGrpcClient::new(channel).max_encoding_message_size(most).max_decoding_message_size(most);
    let entries = config.options().entries();
    let settings = entries.into_iter().map(|entry| KeyValuePair { key: entry.key, value: entry.value }).collect();
    let mut request = tonic::Request::new(ExecuteQueryParams {
        operation_id: session_id.clone(),
        session_id,
        settings,
        query: Some(Query::PhysicalPlan(plan)),
    });
    version::insert_version_header(request.metadata_mut());
    let mut asking = client.clone();
    let at = scheduler.clone();
    // A task of its own: a job that is queued when nobody waits any more is cancelled as soon as its name is known.
    let asked = tokio::spawn(async move {
        let answer = asking.execute_query(request).await.map_err(|e| said(&e))?;
        let theirs = version::version_from_metadata(answer.metadata()).map(str::to_owned);
        let compatible = version::check_compatibility(Some(ballista_core::BALLISTA_VERSION), theirs.as_deref());
        let job = match answer.into_inner().result {
            Some(execute_query_result::Result::Success(success)) => {
                Ok(Job { scheduler: at, job_id: success.job_id, over: false })
            }
            other => exec_err!("Fail to execute query due to {other:?}"),
        };
        // An older scheduler has queued the job all the same: dropping it cancels it.
        compatible.map_err(|e| exec_datafusion_err!("{e}"))?;
        job
    });
    let mut job = asked.await.map_err(|e| said(&e))??;
    let (locations, proxy) = job.done(&mut client).await?;
    let (scheduler, config) = (scheduler.clone(), of_ballista.clone());
    let rows = futures::stream::iter(locations)
        .then(move |location| fetch(location, proxy.clone(), scheduler.clone(), config.clone()));
    Ok(rows.try_flatten().boxed())
}

fn said(error: &dyn std::fmt::Debug) -> datafusion::error::DataFusionError {
    exec_datafusion_err!("{error:?}")
}

/// A job that a scheduler knows.
struct Job {
    scheduler: SchedulerAddress,
    job_id: String,
    /// Whether there is nothing left to cancel.
    over: bool,
}

impl Job {
    /// Waits until it is done; gives where its rows are.
    async fn done(
        &mut self,
        client: &mut SchedulerGrpcClient<Channel>,
    ) -> Result<(Vec<PartitionLocation>, Option<FlightProxy>)> {
        loop {
            let asked = client.get_job_status(GetJobStatusParams { job_id: self.job_id.clone() }).await;
            let answer = asked.map_err(|e| said(&e))?.into_inner();
            match answer.status.and_then(|status| status.status) {
                Some(job_status::Status::Failed(failed)) => {
                    self.over = true;
                    return exec_err!("Job {} failed: {}", self.job_id, failed.error);
                }
                Some(job_status::Status::Successful(done)) => {
                    self.over = true;
                    return Ok((once_each(done.partition_location), answer.flight_proxy));
                }
                Some(job_status::Status::Queued(_) | job_status::Status::Running(_)) | None => {
                    tokio::time::sleep(ASKED_EVERY).await;
                }
            }
        }
    }
}

/// One place of each partition, the newest: one that was made again after its executor was lost may be named twice, by the
/// numbers of two tasks.
fn once_each(locations: Vec<PartitionLocation>) -> Vec<PartitionLocation> {
    let number = |l: &PartitionLocation| l.partition_id.as_ref().map(|id| (id.stage_id, id.partition_id));
    let newest: BTreeMap<_, _> = locations.into_iter().map(|location| (number(&location), location)).collect();
    newest.into_values().collect()
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let (url, job_id) = (self.scheduler.url(), self.job_id.clone());
        // The process may end right after this, and its runtime with all that waits in it: so on a thread of its own.
        let cancel = move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            let cancelled = async move {
                let mut client = SchedulerGrpcClient::connect(url).await.ok()?;
                client.cancel_job(CancelJobParams { job_id }).await.ok()
            };
            drop(runtime.block_on(async { tokio::time::timeout(CANCELLED_WITHIN, cancelled).await }));
            // A name that is being looked up is not waited for.
            runtime.shutdown_background();
        };
        if let Ok(thread) = std::thread::Builder::new().spawn(cancel) {
            let _: std::thread::Result<()> = thread.join();
        }
    }
}

/// The rows of one partition, from the executor that has them, or through the scheduler.
async fn fetch(
    location: PartitionLocation,
    proxy: Option<FlightProxy>,
    scheduler: SchedulerAddress,
    config: BallistaConfig,
) -> Result<SendableRecordBatchStream> {
    let layout = location.layout();
    let (Some(executor), Some(partition)) = (location.executor_meta, location.partition_id) else {
        return exec_err!("a scheduler does not say where a partition is");
    };
    let port = u16::try_from(executor.port).map_err(|e| said(&e))?;
    let (host_of_rows, port_of_rows) = match proxy {
        Some(FlightProxy::External(address)) => {
            let address = format!("df://{address}").parse::<SchedulerAddress>().map_err(|e| said(&e))?;
            (address.host().to_owned(), address.port())
        }
        Some(FlightProxy::Local(true)) => (scheduler.host().to_owned(), scheduler.port()),
        Some(FlightProxy::Local(false)) | None => (executor.host.clone(), port),
    };
    let grpc = GrpcClientConfig::from(&config);
    let most = config.grpc_client_max_message_size();
    let (retries, wait) = (grpc.io_retries_times, grpc.io_retry_wait_time_ms);
    let connected = BallistaClient::try_new(&host_of_rows, port_of_rows, most, false, None, retries, wait, 0, 0).await;
    let mut client = connected.map_err(|e| said(&e))?;
    let id = partition.into();
    let rows = client.fetch_partition_proxied(&executor.id, &id, location.file_id, layout, &executor.host, port, true);
    rows.await.map_err(ballista_core::error::BallistaError::into_datafusion)
}
