//! A filter of users within the scan of their states: factors are decoded for those who are asked for alone.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::internal_err;
use datafusion::datasource::physical_plan::{FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use crate::id_set::IdSet;
use crate::users_argument::USER_ID;

/// The same scan of user states for these users alone; none when the plan is no plain scan of Parquet.
///
/// The scan decodes the ids of a part first, and of the other columns only the rows that remain. The change is made when
/// a plan runs, not when it is made: its ids are known only then, and a plan that travels holds nothing of them.
pub(crate) fn scan_among(states: &Arc<dyn ExecutionPlan>, ids: Arc<IdSet>) -> Option<Arc<dyn ExecutionPlan>> {
    let scan = states.downcast_ref::<DataSourceExec>()?;
    let (config, parquet) = scan.downcast_to_file_source::<ParquetSource>()?;
    let user = config.file_schema().index_of(USER_ID).ok()?;
    let predicate = AmongUsers { user: Arc::new(Column::new(USER_ID, user)), ids };
    let parquet = parquet.with_predicate(Arc::new(predicate)).with_pushdown_filters(true);
    let config = FileScanConfigBuilder::from(config.clone()).with_source(Arc::new(parquet)).build();
    Some(DataSourceExec::from_data_source(config))
}

/// Whether the user of a row is in a set.
struct AmongUsers {
    user: Arc<dyn PhysicalExpr>,
    ids: Arc<IdSet>,
}

impl PhysicalExpr for AmongUsers {
    fn data_type(&self, _schema: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, _schema: &Schema) -> Result<bool> {
        Ok(false)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let users = self.user.evaluate(batch)?.into_array(batch.num_rows())?;
        let Some(users) = users.as_string_opt::<i32>() else {
            return internal_err!("user ids are {}, not text", users.data_type());
        };
        Ok(ColumnarValue::Array(Arc::new(BooleanArray::from_unary(users, |id| self.ids.contains(id)))))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.user]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        match (children.pop(), children.is_empty()) {
            (Some(user), true) => Ok(Arc::new(Self { user, ids: Arc::clone(&self.ids) })),
            _ => internal_err!("a filter of users has one column"),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for AmongUsers {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ids, &other.ids) && self.user.eq(&other.user)
    }
}

impl Eq for AmongUsers {}

impl Hash for AmongUsers {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.user.type_id().hash(state);
        self.ids.len().hash(state);
    }
}

impl fmt::Display for AmongUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} among {} users", self.user, self.ids.len())
    }
}

impl fmt::Debug for AmongUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
