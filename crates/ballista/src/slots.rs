//! What executors have free, counted from the tasks that run.
//!
//! Ballista gives a slot back when the task that held it reports its end, and looks up what it held in its stage. A stage
//! that is rolled back, because an executor that made its input died, has no tasks any more: what the executors that are
//! left hold for it is never given back, and a cluster whose executors all lose their slots runs nothing any more (the same
//! as apache/datafusion-ballista#2418, which is about cancelled jobs). So reports give nothing back here; before tasks are
//! bound, each executor has what it registered less what its tasks in the graphs of running jobs hold.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use ballista_core::JobId;
use ballista_core::error::Result;
use ballista_core::serde::protobuf::ExecutorHeartbeat;
use ballista_core::serde::scheduler::{ExecutorData, ExecutorMetadata};
use ballista_scheduler::cluster::memory::InMemoryClusterState;
use ballista_scheduler::cluster::{BoundTask, ClusterState, ClusterStateEventStream, ExecutorSlot};
use ballista_scheduler::config::TaskDistributionPolicy;
use ballista_scheduler::state::task_manager::JobInfoCache;
use tokio::sync::Mutex;

/// The state of a cluster in memory, whose slots cannot be lost.
#[derive(Default)]
pub(crate) struct CountedSlots {
    state: InMemoryClusterState,
    slots: Mutex<HashMap<String, Slots>>,
}

/// Of one executor.
struct Slots {
    total: u32,
    /// What `state` takes for free.
    free: u32,
}

/// Slots by executor that tasks of these jobs hold.
async fn held(jobs: &HashMap<JobId, JobInfoCache>) -> HashMap<String, u32> {
    let mut held = HashMap::new();
    for job in jobs.values() {
        let graph = job.execution_graph.read().await;
        for task in graph.running_tasks() {
            *held.entry(task.executor_id).or_default() += graph.task_vcores(task.stage_id, task.task_id).unwrap_or(1);
        }
    }
    held
}

#[async_trait]
impl ClusterState for CountedSlots {
    async fn init(&self) -> Result<()> {
        self.state.init().await
    }

    async fn bind_schedulable_tasks(
        &self,
        distribution: TaskDistributionPolicy,
        active_jobs: Arc<HashMap<JobId, JobInfoCache>>,
        executors: Option<HashSet<String>>,
    ) -> Result<Vec<BoundTask>> {
        let mut slots = self.slots.lock().await;
        let held = held(&active_jobs).await;
        let mut given_back = Vec::new();
        for (executor, slots) in slots.iter_mut() {
            let free = slots.total.saturating_sub(held.get(executor).copied().unwrap_or_default());
            if free > slots.free {
                given_back.push((executor.clone(), free - slots.free));
                slots.free = free;
            }
        }
        self.state.unbind_tasks(given_back).await?;
        let bound = self.state.bind_schedulable_tasks(distribution, active_jobs, executors).await?;
        for (executor, task) in &bound {
            if let Some(slots) = slots.get_mut(executor) {
                slots.free = slots.free.saturating_sub(task.vcores_consumed);
            }
        }
        Ok(bound)
    }

    async fn unbind_tasks(&self, _executor_slots: Vec<ExecutorSlot>) -> Result<()> {
        Ok(())
    }

    async fn register_executor(&self, metadata: ExecutorMetadata, spec: ExecutorData) -> Result<()> {
        let mut slots = self.slots.lock().await;
        let (executor, of_it) = (metadata.id.clone(), Slots { total: spec.total_vcores, free: spec.available_vcores });
        self.state.register_executor(metadata, spec).await?;
        slots.insert(executor, of_it);
        Ok(())
    }

    async fn save_executor_metadata(&self, metadata: ExecutorMetadata) -> Result<()> {
        self.state.save_executor_metadata(metadata).await
    }

    async fn get_executor_metadata(&self, executor_id: &str) -> Result<ExecutorMetadata> {
        self.state.get_executor_metadata(executor_id).await
    }

    async fn registered_executor_metadata(&self) -> Vec<ExecutorMetadata> {
        self.state.registered_executor_metadata().await
    }

    async fn save_executor_heartbeat(&self, heartbeat: ExecutorHeartbeat) -> Result<()> {
        self.state.save_executor_heartbeat(heartbeat).await
    }

    async fn remove_executor(&self, executor_id: &str) -> Result<()> {
        let mut slots = self.slots.lock().await;
        slots.remove(executor_id);
        self.state.remove_executor(executor_id).await
    }

    fn executor_heartbeats(&self) -> HashMap<String, ExecutorHeartbeat> {
        self.state.executor_heartbeats()
    }

    fn get_executor_heartbeat(&self, executor_id: &str) -> Option<ExecutorHeartbeat> {
        self.state.get_executor_heartbeat(executor_id)
    }

    async fn cluster_state_events(&self) -> Result<ClusterStateEventStream> {
        self.state.cluster_state_events().await
    }
}
