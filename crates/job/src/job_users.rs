//! The users that a job lets into its segments: a data set, and on request only those that a predicate holds for.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use datafusion::catalog::MemTable;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::prelude::ParquetReadOptions;
use item_affinity_datafusion::DeltaProvider;
use item_affinity_ingest::{CsvRows, DatasetSchema, read_csv};
use item_affinity_storage::{
    FileKind, InputPin, Listing, Location, Stores, check_unchanged, list_files, open_parquet, sha256_hex,
};

use crate::error::{Error, Result};
use crate::filter_predicate::UserColumn;
use crate::filter_values::BoundFilter;

/// The files of the users as they lay there when the job began.
pub(crate) struct JobUsers {
    location: Location,
    files: Listing,
    /// Of CSV files.
    schema: Option<Arc<DatasetSchema>>,
}

/// Which of the users may be in a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum UsersCondition<'a> {
    Everybody,
    /// For whom this SQL holds.
    Sql(&'a str),
    /// Whom this filter of Amazon Personalize keeps.
    Filter(&'a BoundFilter),
}

impl JobUsers {
    /// # Errors   storage errors; [`Error::OutputInInput`] when the segments would lie among the users
    pub(crate) async fn list(
        stores: &Stores,
        location: &str,
        schema: Option<&Arc<DatasetSchema>>,
        output: &Location,
    ) -> Result<Self> {
        let location = Location::parse(location)?;
        if location.contains(output) {
            return Err(Error::OutputInInput { output: output.to_string(), input: location.to_string() });
        }
        let kind = if schema.is_some() { FileKind::CSV } else { FileKind::PARQUET };
        let files = list_files(stores, &location, kind).await?;
        Ok(Self { location, files, schema: schema.cloned() })
    }

    /// What tells these users from others: the SQL condition, and of each file its address, size and ETag, or its time
    /// where the store has no ETags.
    pub(crate) fn key(&self, predicate: Option<&str>) -> String {
        let mut text = format!("{predicate:?}\n");
        if let Some(schema) = &self.schema {
            writeln!(text, "{schema}").unwrap_or_default();
        }
        for file in &self.files.files {
            let etag = file.meta.e_tag.clone();
            let content = etag.unwrap_or_else(|| file.meta.last_modified.timestamp_micros().to_string());
            writeln!(text, "{} {} {content}", file.location.url(), file.meta.size).unwrap_or_default();
        }
        sha256_hex(text.as_bytes())
    }

    /// The files, for the commit.
    pub(crate) fn pins(&self) -> Vec<InputPin> {
        self.files.files.iter().map(InputPin::from).collect()
    }

    /// Checks that the files are still those that the job began with: the engine reads them without looking.
    ///
    /// # Errors   `ERR_INPUT_CHANGED`
    pub(crate) async fn unchanged(&self, stores: &Stores) -> Result<()> {
        for file in &self.files.files {
            check_unchanged(stores, file).await?;
        }
        Ok(())
    }

    /// The query of the users. Its columns are those of the files, in lower case; every footer is checked first.
    ///
    /// # Errors   storage errors; a plan error for files without a column user_id and for a predicate that the engine
    /// cannot plan; [`Error::Filter`] for a filter that does not fit the columns
    pub(crate) async fn query(
        &self,
        ctx: &SessionContext,
        stores: &Stores,
        condition: UsersCondition<'_>,
    ) -> Result<DataFrame> {
        let users = lower_case(match &self.schema {
            None => self.parquet(ctx, stores).await?,
            Some(schema) => {
                let CsvRows { schema, batches } = read_csv(stores, &self.files.files, schema).await?;
                ctx.read_table(Arc::new(MemTable::try_new(schema, vec![batches])?))?
            }
        })?;
        let names = users.schema().columns().into_iter().map(|column| column.name).collect::<Vec<_>>();
        if !names.iter().any(|name| name == "user_id") {
            return Err(plan(format!(
                "USERS_INVALID: no column user_id, found [{}]; rename one to user_id; users={}",
                names.join(", "),
                self.location
            )));
        }
        // The engine's words name columns and functions; the predicate itself may hold ids of users.
        let refused = |error: &DataFusionError| {
            let message = item_affinity_datafusion::error_message(error);
            plan(format!("USERS_FILTER_INVALID: {message}; write a condition over [{}]", names.join(", ")))
        };
        let condition = match condition {
            UsersCondition::Everybody => return Ok(users),
            UsersCondition::Sql(predicate) => users.parse_sql_expr(predicate).map_err(|error| refused(&error))?,
            UsersCondition::Filter(filter) => {
                let schema = users.schema();
                let columns = schema.columns().into_iter().zip(schema.fields().iter());
                let columns =
                    columns.map(|(column, field)| UserColumn { column, data_type: field.data_type().clone() });
                filter.predicate(&columns.collect::<Vec<_>>())?
            }
        };
        // What has no type fails later otherwise, in words that do not say that it is about this condition.
        condition.get_type(users.schema()).map_err(|error| refused(&error))?;
        users.filter(condition).map_err(|error| refused(&error))
    }
}

impl JobUsers {
    async fn parquet(&self, ctx: &SessionContext, stores: &Stores) -> Result<DataFrame> {
        for file in &self.files.files {
            open_parquet(stores, file).await?;
        }
        if let Some(provider) = DeltaProvider::of(stores, &self.files)? {
            return Ok(ctx.read_table(Arc::new(provider))?);
        }
        let store = stores.store(&self.location)?;
        ctx.runtime_env().register_object_store(&self.location.store_url(), store);
        let urls = self.files.files.iter().map(|file| file.location.url().to_string()).collect::<Vec<_>>();
        let options = ParquetReadOptions { file_extension: "", ..ParquetReadOptions::default() };
        Ok(ctx.read_parquet(urls, options).await?)
    }
}

/// Gives columns their names in lower case, as SQL without quotes looks for them, unless two would get the same.
fn lower_case(table: DataFrame) -> Result<DataFrame> {
    let columns = table.schema().columns();
    let distinct = columns.iter().map(|column| column.name.to_lowercase()).collect::<BTreeSet<_>>();
    if distinct.len() < columns.len() {
        return Ok(table);
    }
    let renamed = columns.into_iter().map(|column| {
        let name = column.name.to_lowercase();
        Expr::Column(column).alias(name)
    });
    Ok(table.select(renamed.collect::<Vec<_>>())?)
}

fn plan(message: String) -> Error {
    DataFusionError::Plan(message).into()
}
