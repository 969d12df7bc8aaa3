//! Users who were forgotten are no candidates, whatever version and whatever users a job is given.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::execution::context::SessionContext;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::logical_expr::{cast as cast_to, ident, lit};
use datafusion::prelude::{DataFrame, ParquetReadOptions};
use futures::stream::{self, StreamExt, TryStreamExt};
use item_affinity_solution::{SolutionVersion, UserPart};
use item_affinity_storage::{Artifact, Stores, Tombstones, Versions};

use crate::error::{Error, Result};
use crate::job_users::{JobUsers, UsersCondition};
use crate::segment_job::BatchSegmentJob;

/// Parts of the users that are read at once, at most.
const PARTS_AT_ONCE: usize = 4;

/// The forgotten among the users of a job, whichever of its filters they pass. No `Debug`: these are ids.
pub(crate) struct ForgottenUsers(BTreeSet<String>);

impl BatchSegmentJob {
    /// The forgotten of the output and of the solution who are among the users that the job was told of; where it was told of
    /// none, those whom the version knows.
    ///
    /// # Cost
    /// The lists; where anybody was forgotten, one pass over the ids of these users, or over all user parts of the version,
    /// which are taken from the memory of the session while they are read.
    pub(crate) async fn forgotten(
        &self,
        ctx: &SessionContext,
        output: &Versions,
        version: &SolutionVersion,
        users: Option<&JobUsers>,
    ) -> Result<ForgottenUsers> {
        let location = version.reference().location.clone();
        let solution = Versions::new(&self.stores, location, Artifact::SolutionVersion)?;
        let forgotten = output.tombstones().await?.and(solution.tombstones().await?);
        if forgotten.is_empty() {
            return Ok(ForgottenUsers(BTreeSet::new()));
        }
        Ok(ForgottenUsers(match users {
            // All of them: a condition may hold for others when the plan asks it again.
            Some(users) => {
                in_query(users.query(ctx, &self.stores, UsersCondition::Everybody).await?, &forgotten).await?
            }
            None => in_version(ctx, &self.stores, version, &forgotten).await?,
        }))
    }
}

impl ForgottenUsers {
    /// How many people they are.
    pub(crate) fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// The users of a query, or all users of the version, without the forgotten. None: everybody of the version may be in a
    /// segment.
    ///
    /// # Cost
    /// The plan holds the ids of the forgotten and no others, so that it can travel; it is as it was where there are none.
    pub(crate) async fn leave_out(
        &self,
        ctx: &SessionContext,
        stores: &Stores,
        version: &SolutionVersion,
        users: Option<DataFrame>,
    ) -> Result<Option<DataFrame>> {
        if self.0.is_empty() {
            return Ok(users);
        }
        let users = match users {
            Some(users) => users,
            None => of_version(ctx, stores, version).await?,
        };
        Ok(Some(without(users, &self.0)?))
    }
}

/// The rows whose `user_id`, a string or an integer, is none of these ids.
fn without(users: DataFrame, ids: &BTreeSet<String>) -> Result<DataFrame> {
    let user_id = cast_to(ident("user_id"), DataType::Utf8);
    Ok(users.filter(user_id.in_list(ids.iter().map(|id| lit(id.as_str())).collect(), true))?)
}

/// The forgotten in the column `user_id` of a query.
async fn in_query(users: DataFrame, forgotten: &Tombstones) -> Result<BTreeSet<String>> {
    let mut rows = users.select_columns(&["user_id"])?.execute_stream().await?;
    let mut found = BTreeSet::new();
    while let Some(batch) = rows.try_next().await? {
        let ids = cast(batch.column(0), &DataType::Utf8View)?;
        let ids = ids.as_string_view().iter().flatten();
        found.extend(ids.filter(|id| forgotten.contains(id)).map(str::to_owned));
    }
    Ok(found)
}

/// The forgotten whom a version knows.
async fn in_version(
    ctx: &SessionContext,
    stores: &Stores,
    version: &SolutionVersion,
    forgotten: &Tombstones,
) -> Result<BTreeSet<String>> {
    let pool = Arc::clone(&ctx.runtime_env().memory_pool);
    let at_once = ctx.copied_config().target_partitions().clamp(1, PARTS_AT_ONCE);
    // Owned parts: a closure over references would keep the whole future from being sent between threads.
    let read = |part: UserPart| {
        let memory = MemoryConsumer::new("ForgottenUsers").register(&pool);
        async move {
            // A part, and its ids, which take no more.
            memory.try_resize(usize::try_from(part.entry.bytes).unwrap_or(usize::MAX).saturating_mul(2))?;
            let mut ids = version.user_ids_of(stores, &part).await?;
            ids.retain(|id| forgotten.contains(id));
            Ok::<_, Error>(ids)
        }
    };
    let mut parts = stream::iter(version.user_parts.clone()).map(read).buffer_unordered(at_once);
    let mut found = BTreeSet::new();
    while let Some(ids) = parts.try_next().await? {
        found.extend(ids);
    }
    Ok(found)
}

/// The ids of all users of a version, whose parts [`in_version`] has found to be those of the commit.
async fn of_version(ctx: &SessionContext, stores: &Stores, version: &SolutionVersion) -> Result<DataFrame> {
    let solution = &version.reference().location;
    ctx.runtime_env().register_object_store(&solution.store_url(), stores.store(solution)?);
    let urls = version.user_parts.iter().map(|part| part.location.url().to_string()).collect::<Vec<_>>();
    let options = ParquetReadOptions { file_extension: "", ..ParquetReadOptions::default() };
    Ok(ctx.read_parquet(urls, options).await?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, Int64Array, LargeStringArray, RecordBatch, StringArray};
    use datafusion::parquet::arrow::ArrowWriter;
    use datafusion::physical_plan::displayable;
    use item_affinity_datafusion::{ItemList, SessionSettings, session};
    use item_affinity_solution::TrainingJob;
    use item_affinity_storage::{ErrorKind, Location};

    use super::*;

    async fn ids(users: DataFrame) -> Vec<String> {
        let mut ids = Vec::new();
        for batch in users.select_columns(&["user_id"]).unwrap().collect().await.unwrap() {
            let texts = cast(batch.column(0), &DataType::Utf8View).unwrap();
            ids.extend(texts.as_string_view().iter().flatten().map(str::to_owned));
        }
        ids.sort();
        ids
    }

    #[tokio::test]
    async fn p38_strings_and_integers_are_left_out_by_their_text() {
        let texts = [Some("7"), Some("8"), Some("7"), None, Some("70")];
        let columns: [ArrayRef; 3] = [
            Arc::new(Int64Array::from(vec![Some(7), Some(8), Some(7), None, Some(70)])),
            Arc::new(StringArray::from(texts.to_vec())),
            Arc::new(LargeStringArray::from(texts.to_vec())),
        ];
        let many = (0..100).map(|n| if n == 7 { "7".to_owned() } else { format!("user-{n}") }).collect();
        let sets: [(BTreeSet<String>, &[&str]); 3] = [
            (["7".to_owned()].into(), &["70", "8"]),
            (["07".to_owned()].into(), &["7", "7", "70", "8"]),
            (many, &["70", "8"]),
        ];
        let ctx = SessionContext::new();
        for column in columns {
            for (gone, left) in &sets {
                let users = RecordBatch::try_from_iter([("user_id", Arc::clone(&column))]).unwrap();
                let users = without(ctx.read_batch(users).unwrap(), gone).unwrap();
                assert_eq!(ids(users).await, *left, "{}", column.data_type());
            }
        }
    }

    /// 1,200 interactions of 60 users with 30 items.
    fn interactions() -> Vec<u8> {
        let rows = 0..1_200_i64;
        let item = |n: i64| (n * 7 + n / 60 * 11) % 15 * 2 + n % 2;
        let columns: [(&str, ArrayRef); 3] = [
            ("user_id", Arc::new(StringArray::from_iter_values(rows.clone().map(|n| format!("user-{:02}", n % 60))))),
            ("item_id", Arc::new(StringArray::from_iter_values(rows.clone().map(|n| format!("item-{:02}", item(n)))))),
            ("timestamp", Arc::new(Int64Array::from_iter_values(rows.map(|n| 1_767_225_600 + n * 3_600)))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }

    #[tokio::test]
    async fn p38_plans_hold_the_ids_of_the_forgotten_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("interactions.parquet"), interactions()).unwrap();
        let stores = Stores::in_memory();
        let train = TrainingJob::new(path("interactions.parquet")).stores(stores.clone()).hidden_dimension(32);
        let trained = train.allow_small_data(true).solution(path("solution")).run().await.unwrap().solution;
        let version = SolutionVersion::open(&stores, &trained).await.unwrap();
        let output = Location::parse(&path("segments")).unwrap();
        let output = Versions::new(&stores, output, Artifact::Segments).unwrap();
        let job = BatchSegmentJob::new(&trained.to_string(), ItemList::from_ids(["item-03"])).stores(stores.clone());
        let ctx = session(&stores, SessionSettings::default()).unwrap();

        let nobody = job.forgotten(&ctx, &output, &version, None).await.unwrap();
        assert_eq!(nobody.count(), 0);
        assert!(nobody.leave_out(&ctx, &stores, &version, None).await.unwrap().is_none());
        output.forget(["user-07", "user-13", "never-seen"]).await.unwrap();
        let gone = job.forgotten(&ctx, &output, &version, None).await.unwrap();
        assert_eq!(gone.count(), 2);
        let left = gone.leave_out(&ctx, &stores, &version, None).await.unwrap().unwrap();
        let plan = left.clone().create_physical_plan().await.unwrap();
        let plan = displayable(plan.as_ref()).indent(false).to_string();
        assert!(plan.contains("user-07") && !plan.contains("partition_sizes"), "{plan}");
        let left = ids(left).await;
        assert_eq!(left.len(), 58);
        assert!(!left.iter().any(|id| ["user-07", "user-13"].contains(&id.as_str())));

        let little = SessionSettings { memory_limit: Some(1), ..SessionSettings::default() };
        let refused = job.forgotten(&session(&stores, little).unwrap(), &output, &version, None).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Limit, "{refused}");
    }
}
