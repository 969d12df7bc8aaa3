//! `item_affinity_items()` and `item_affinity_versions([location])`: what can be asked for, as tables.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use item_affinity_solution::{SolutionRef, VersionSummary, versions};

use crate::call_arguments::{Accepted, CallArguments};
use crate::error::from_solution;
use crate::options;
use crate::solution_cache::{QueryId, SolutionCache, query_of};

/// What the list of items takes.
pub(crate) static ITEMS: Accepted = Accepted {
    function: "item_affinity_items",
    places: "([solution_version])",
    names: &["solution_version"],
    by_place: 1,
    required: false,
    description: "What can be asked for: every item of a solution version with its interactions, the distinct users among \
         them, the time of the newest, and whether the model has factors for it.",
    example: "SELECT item_id FROM item_affinity_items() WHERE in_model ORDER BY users DESC LIMIT 20",
};

/// What the list of versions takes.
pub(crate) static VERSIONS: Accepted = Accepted {
    function: "item_affinity_versions",
    places: "([location])",
    names: &["location"],
    by_place: 1,
    required: false,
    description: "The kept versions of a solution, oldest first: when and on what each was trained, and how well it ranked \
         users whom it had not seen.",
    example: "SELECT version, as_of, new_pairs_recall_at_1_percent FROM item_affinity_versions('s3://lake/solutions/affinity')",
};

fn time(name: &str) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), false)
}

/// Every item of a version: interactions with it, distinct users among them, the time of the newest, and whether the
/// model has factors for it; an item whose events all weigh nothing has none, and its users are ranked by how active they
/// are.
static ITEMS_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("item_id", DataType::Utf8, false),
        Field::new("interactions", DataType::Int64, false),
        Field::new("users", DataType::Int64, false),
        time("last_interaction"),
        Field::new("in_model", DataType::Boolean, false),
    ]))
});

/// Measures of quality as the commit of a version names them, each a column; NULL where nothing was held out.
const METRICS: [&str; 6] = [
    "expected_calibration_error",
    "mean_probability",
    "all_pairs_precision_at_1_percent",
    "all_pairs_recall_at_1_percent",
    "new_pairs_precision_at_1_percent",
    "new_pairs_recall_at_1_percent",
];

/// Every kept version of a solution, oldest first; `horizon_days` is NULL where the recipe leaves it to the data,
/// `refreshed_from` for a training, and `loss` for a refresh.
static VERSIONS_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let mut fields = vec![
        Field::new("version", DataType::Int64, false),
        time("committed_at"),
        time("as_of"),
        Field::new("horizon_days", DataType::Float64, true),
        Field::new("hidden_dimension", DataType::Int64, false),
        Field::new("users", DataType::Int64, false),
        Field::new("items", DataType::Int64, false),
        Field::new("interactions", DataType::Int64, false),
        Field::new("refreshed_from", DataType::Int64, true),
        Field::new("loss", DataType::Float64, true),
    ];
    fields.extend(METRICS.iter().map(|name| Field::new(*name, DataType::Float64, true)));
    Arc::new(Schema::new(fields))
});

/// Which of the two tables a function gives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Catalog {
    Items,
    Versions,
}

impl Catalog {
    pub(crate) fn accepted(self) -> &'static Accepted {
        match self {
            Self::Items => &ITEMS,
            Self::Versions => &VERSIONS,
        }
    }
}

/// A table function of one optional argument: the solution, the session's unless said.
#[derive(Debug)]
pub(crate) struct CatalogFunction {
    pub(crate) catalog: Catalog,
    pub(crate) solutions: SolutionCache,
}

impl TableFunctionImpl for CatalogFunction {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let accepted = self.catalog.accepted();
        let arguments = CallArguments::new(accepted, args.exprs())?;
        let solution = arguments.text(accepted.names[0])?;
        Ok(Arc::new(CatalogTable { catalog: self.catalog, solutions: self.solutions.clone(), solution }))
    }
}

#[derive(Debug)]
struct CatalogTable {
    catalog: Catalog,
    solutions: SolutionCache,
    solution: Option<String>,
}

#[async_trait]
impl TableProvider for CatalogTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(match self.catalog {
            Catalog::Items => &ITEMS_SCHEMA,
            Catalog::Versions => &VERSIONS_SCHEMA,
        })
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
        let solution = match &self.solution {
            Some(text) => text,
            None => options::required_solution_version(session.config_options())?,
        };
        let columns = match self.catalog {
            Catalog::Items => self.items(solution, query_of(session)).await?,
            Catalog::Versions => self.versions(solution).await?,
        };
        let batch = RecordBatch::try_new(self.schema(), columns)?;
        Ok(MemorySourceConfig::try_new_exec(&[vec![batch]], self.schema(), projection.cloned())?)
    }
}

impl CatalogTable {
    async fn items(&self, solution: &str, query: QueryId) -> Result<Vec<ArrayRef>> {
        let version = self.solutions.open_named(solution, query).await?;
        let items = &version.items;
        let seconds = items.last_interaction.iter().copied();
        Ok(vec![
            Arc::new(StringArray::from_iter_values(items.ids.iter())),
            Arc::new(Int64Array::from(items.interactions.clone())),
            Arc::new(Int64Array::from(items.users.clone())),
            times(seconds),
            Arc::new(
                items
                    .factors
                    .rows()
                    .into_iter()
                    .map(|row| Some(row.iter().any(|x| *x != 0.0)))
                    .collect::<BooleanArray>(),
            ),
        ])
    }

    async fn versions(&self, solution: &str) -> Result<Vec<ArrayRef>> {
        let reference = SolutionRef::parse(solution).map_err(from_solution)?;
        let all = versions(self.solutions.stores(), &reference.location).await.map_err(from_solution)?;
        let number = |of: fn(&VersionSummary) -> u64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(all.iter().map(|version| whole(of(version)))))
        };
        let mut columns = vec![
            number(|version| version.version),
            times(all.iter().map(|version| version.committed_at)),
            times(all.iter().map(|version| version.as_of)),
            Arc::new(all.iter().map(|version| version.recipe.horizon_days).collect::<Float64Array>()),
            number(|version| version.hidden_dimension as u64),
            number(|version| version.users),
            number(|version| version.items),
            number(|version| version.interactions),
            Arc::new(all.iter().map(|version| version.refreshed_from.map(whole)).collect::<Int64Array>()),
            Arc::new(all.iter().map(|version| version.loss).collect::<Float64Array>()),
        ];
        columns.extend(METRICS.iter().map(|name| -> ArrayRef {
            Arc::new(all.iter().map(|version| version.metrics.get(*name).copied()).collect::<Float64Array>())
        }));
        Ok(columns)
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Epoch seconds as times.
fn times(seconds: impl Iterator<Item = i64>) -> ArrayRef {
    let times = seconds.map(|second| second.saturating_mul(1_000));
    Arc::new(TimestampMillisecondArray::from_iter_values(times).with_timezone("UTC"))
}
