//! The `items` argument: a list, a table or view, a subquery, or a file; always resolved to at most `max_items` ids.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::Session;
use datafusion::common::{ScalarValue, TableReference, internal_err, plan_datafusion_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use item_affinity_storage::{Location, Stores};

use crate::error::from_storage;
use crate::id_column;
use crate::item_list::ItemList;

/// The column of ids in a table or view of items.
pub(crate) const ITEM_ID: &str = "item_id";

/// What may stand where items are expected; said in every refusal.
const ACCEPTED: &str = "a list ['a', 'b'], a table or view with a column item_id, a subquery (SELECT item_id FROM …) \
     in its own parentheses, or the path of a JSON Lines, Parquet or CSV file";

/// The items that a call asks for, as planned; nothing is read before the scan.
#[derive(Clone, Debug)]
pub(crate) struct ItemsArgument {
    /// The called function, for what is said to a person.
    function: &'static str,
    source: ItemSource,
}

/// Where the asked items come from.
#[derive(Clone, Debug)]
enum ItemSource {
    Ids(Vec<String>),
    Relation(TableReference),
    Query(Arc<LogicalPlan>),
    File(Location),
}

impl ItemsArgument {
    /// Reads the argument of a function as the SQL planner hands it over.
    pub(crate) fn from_expr(function: &'static str, expr: &Expr) -> Result<Self> {
        Ok(Self { function, source: ItemSource::from_expr(function, expr)? })
    }

    /// The distinct item ids, at most `max_items`; a subquery or a table is run here.
    pub(crate) async fn resolve(
        &self,
        session: &dyn Session,
        stores: &Stores,
        max_items: usize,
    ) -> Result<Vec<String>> {
        let mut ids = Distinct::new(self.function, max_items);
        match &self.source {
            ItemSource::Ids(list) => list.iter().try_for_each(|id| ids.add(id))?,
            ItemSource::File(location) => {
                let list = ItemList::read(stores, location).await?;
                for entry in &list.entries {
                    match &entry.item {
                        Ok(id) => ids.add(id)?,
                        Err(error) => return plan_err!("{}: {}; file={location}", self.function, error.message),
                    }
                }
            }
            ItemSource::Query(plan) => run(session, plan, &mut ids).await?,
            ItemSource::Relation(name) => {
                let missing =
                    || plan_datafusion_err!("{}: there is no table '{name}'; items may be {ACCEPTED}", self.function);
                let table = id_column::scan(session, name).await?.ok_or_else(missing)?;
                run(session, &id_column::of(self.function, &format!("table '{name}'"), table, ITEM_ID)?, &mut ids)
                    .await?
            }
        }
        Ok(ids.list)
    }
}

impl ItemSource {
    fn from_expr(function: &str, expr: &Expr) -> Result<Self> {
        match expr {
            Expr::Literal(ScalarValue::Utf8(Some(text)), _)
            | Expr::Literal(ScalarValue::Utf8View(Some(text)), _)
            | Expr::Literal(ScalarValue::LargeUtf8(Some(text)), _) => Self::from_text(function, text),
            Expr::Literal(value, _) if value.is_null() => {
                plan_err!("{function}: items is NULL; give {ACCEPTED}")
            }
            Expr::Literal(value, _) => Self::from_list(function, value),
            Expr::Column(column) if column.relation.is_none() => {
                Ok(Self::Relation(TableReference::bare(column.name.clone())))
            }
            Expr::Column(column) => plan_err!(
                "{function}({column}) would run once, not once a row; to use the items of a table write \
                 JOIN {function}((SELECT item_id FROM …)) s ON s.item_id = {column}, and put a table name \
                 with a schema in quotes: {function}('{column}')"
            ),
            Expr::OuterReferenceColumn(_, column) => plan_err!(
                "{function}({column}) cannot take a value of each outer row; write JOIN \
                 {function}((SELECT item_id FROM …)) s ON s.item_id = {column}"
            ),
            Expr::Placeholder(placeholder) => {
                let id = &placeholder.id;
                plan_err!(
                    "{function}({id}) cannot take a parameter, since items are resolved when the statement is \
                     planned; name all candidates and bind in the filter: {function}(items) WHERE item_id = {id}"
                )
            }
            Expr::ScalarSubquery(subquery) => {
                let columns = subquery.subquery.schema().fields().len();
                if columns != 1 {
                    return plan_err!("{function}: the subquery has {columns} columns; select item_id alone");
                }
                id_column::refuse_unbound(function, &subquery.subquery)?;
                Ok(Self::Query(Arc::clone(&subquery.subquery)))
            }
            Expr::Alias(alias) => Self::from_expr(function, &alias.expr),
            other => plan_err!("{function}: {other} is not a list of items; give {ACCEPTED}"),
        }
    }

    /// A text is the path of a file when it looks like one, else the name of a table.
    fn from_text(function: &str, text: &str) -> Result<Self> {
        let lower = text.to_ascii_lowercase();
        let is_file = lower.contains('/')
            || [".json", ".jsonl", ".ndjson", ".parquet", ".csv"].iter().any(|end| lower.ends_with(end));
        if is_file {
            return Ok(Self::File(Location::parse(text).map_err(from_storage)?));
        }
        if text.trim().is_empty() {
            return plan_err!("{function}: items is an empty text; give {ACCEPTED}");
        }
        Ok(Self::Relation(TableReference::parse_str(text)))
    }

    fn from_list(function: &str, value: &ScalarValue) -> Result<Self> {
        let values = match value {
            ScalarValue::List(array) => array.value(0),
            ScalarValue::LargeList(array) => array.value(0),
            ScalarValue::FixedSizeList(array) => array.value(0),
            other => {
                return plan_err!(
                    "{function}: items is {other} of type {}; one item is written ['{other}']; give \
                     {ACCEPTED}",
                    other.data_type()
                );
            }
        };
        let ids = id_texts(&values)?;
        if ids.null_count() > 0 {
            return plan_err!("{function}: the list of items holds NULL; leave it out");
        }
        if ids.is_empty() {
            return plan_err!("{function}: the list of items is empty; give {ACCEPTED}");
        }
        Ok(Self::Ids(ids.iter().flatten().map(str::to_owned).collect()))
    }
}

/// Ids as text: strings as they are, integers in decimal.
pub(crate) fn id_texts(values: &dyn Array) -> Result<StringArray> {
    if !id_column::holds_ids(values.data_type()) {
        return plan_err!("item ids are strings or integers, found {}", values.data_type());
    }
    Ok(cast(values, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// Item ids in the order of their first appearance, each once, and not too many.
struct Distinct {
    function: &'static str,
    seen: HashSet<String>,
    list: Vec<String>,
    max_items: usize,
}

impl Distinct {
    fn new(function: &'static str, max_items: usize) -> Self {
        Self { function, seen: HashSet::new(), list: Vec::new(), max_items }
    }

    fn add(&mut self, id: &str) -> Result<()> {
        if !self.seen.insert(id.to_owned()) {
            return Ok(());
        }
        if self.list.len() == self.max_items {
            return plan_err!(
                "{}: more than {} items; ask for fewer, or allow more: max_items => 1000, or SET item_affinity.max_items",
                self.function,
                self.max_items
            );
        }
        self.list.push(id.to_owned());
        Ok(())
    }
}

/// Runs a query of one column of ids, or of lists of ids, and stops at the first id too many.
async fn run(session: &dyn Session, plan: &LogicalPlan, ids: &mut Distinct) -> Result<()> {
    let function = ids.function;
    let physical = session.create_physical_plan(plan).await?;
    let mut stream = execute_stream(physical, session.task_ctx())?;
    while let Some(batch) = stream.next().await.transpose()? {
        if batch.num_columns() != 1 {
            return internal_err!("an item query with {} columns", batch.num_columns());
        }
        let mut values = Arc::clone(batch.column(0));
        while let Some(inner) = list_values(values.as_ref())? {
            values = inner;
        }
        let texts = id_texts(&values)?;
        if texts.null_count() > 0 {
            return plan_err!("{function}: the items hold NULL; add WHERE item_id IS NOT NULL");
        }
        texts.iter().flatten().try_for_each(|id| ids.add(id))?;
    }
    Ok(())
}

/// The elements of a list column, all rows one after another (`array_agg` gives one row).
fn list_values(values: &dyn Array) -> Result<Option<Arc<dyn Array>>> {
    Ok(match values.data_type() {
        DataType::List(_) => Some(datafusion::arrow::compute::concat(
            &values.as_list::<i32>().iter().flatten().collect::<Vec<_>>().iter().map(AsRef::as_ref).collect::<Vec<_>>(),
        )?),
        _ => None,
    })
}
