//! A refresh as plans of a session: in this process, or on the cluster that the session submits its plans to.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use futures::FutureExt;
use futures::future::BoxFuture;
use item_affinity_solution::{RefreshStage, RefreshTask, RefreshTasks, SolutionRef, TaskFailure};
use item_affinity_storage::Stores;

use crate::error::{error_kind, error_message, from_solution};
use crate::refresh_exec::{RefreshExec, RefreshPlan, RefreshStep};
use crate::segments_plan::project;
use crate::version_source::{TravelledVersions, VersionSource};

/// Runs the tasks of a refresh as plans of this session.
///
/// ```text
/// WriteRefreshedPairsExec   one file for each group of items; only while writing
///   RepartitionExec         by group of items
///     FoldInUsersExec       per part of users: sums over them, or a file of their states and the rows of their pairs
///       RepartitionExec     by part of users
///         ReadInteractionsExec   units of interactions become events of users
///           DataSourceExec  units, in memory
/// ```
#[must_use]
pub fn refresh_tasks(ctx: &SessionContext, stores: &Stores) -> Arc<dyn RefreshTasks> {
    Arc::new(PlannedTasks { ctx: ctx.clone(), versions: TravelledVersions::new(stores.clone()) })
}

struct PlannedTasks {
    ctx: SessionContext,
    /// Opened as by the tasks of a plan that has travelled, wherever they run.
    versions: TravelledVersions,
}

impl PlannedTasks {
    async fn rows(&self, task: RefreshTask, units: Vec<String>) -> Result<Vec<RecordBatch>> {
        let reference = SolutionRef::parse(&task.solution_version).map_err(from_solution)?;
        let version = self.versions.source(&reference, &task.commit_sha256);
        let table = RefreshTable { task: Arc::new(task), version, units };
        self.ctx.read_table(Arc::new(table))?.collect().await
    }
}

impl RefreshTasks for PlannedTasks {
    fn run(
        &self,
        task: RefreshTask,
        units: Vec<String>,
    ) -> BoxFuture<'_, std::result::Result<Vec<RecordBatch>, TaskFailure>> {
        let failure = |e| TaskFailure { kind: error_kind(&e), message: error_message(&e) };
        self.rows(task, units).map(move |rows| rows.map_err(failure)).boxed()
    }
}

/// The rows of a refresh as a table.
#[derive(Debug)]
struct RefreshTable {
    task: Arc<RefreshTask>,
    version: VersionSource,
    units: Vec<String>,
}

#[async_trait]
impl TableProvider for RefreshTable {
    fn schema(&self) -> SchemaRef {
        if self.task.stage == RefreshStage::Measure { self.task.folded_schema() } else { RefreshTask::files_schema() }
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = RefreshPlan::new(Arc::clone(&self.task), self.version.clone());
        let units = self.units(session.config().target_partitions())?;
        let read = Arc::new(RefreshExec::new(RefreshStep::ReadInteractions, plan.clone(), units));
        let mut top = Arc::new(RefreshExec::new(RefreshStep::FoldInUsers, plan.clone(), read));
        if self.task.stage == RefreshStage::Write {
            top = Arc::new(RefreshExec::new(RefreshStep::WritePairs, plan, top));
        }
        project(top, projection)
    }
}

impl RefreshTable {
    /// The leaf: units in runs of about equal numbers, a run in each partition. A scheduler can cut it into tasks.
    fn units(&self, partitions: usize) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = Arc::new(Schema::new(vec![Field::new("unit", DataType::Utf8, false)]));
        let run = self.units.len().div_ceil(partitions.max(1)).max(1);
        let batch = |units: &[String]| {
            let column: ArrayRef = Arc::new(StringArray::from_iter_values(units));
            Ok(vec![RecordBatch::try_new(Arc::clone(&schema), vec![column])?])
        };
        let partitions = self.units.chunks(run).map(batch).collect::<Result<Vec<_>>>()?;
        Ok(DataSourceExec::from_data_source(MemorySourceConfig::try_new(&partitions, schema, None)?))
    }
}
