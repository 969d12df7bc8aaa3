//! Segments as a Delta table: the files of a run become data of the table by one commit to its log.
//!
//! The run is committed here first, as always; what its log lacks after a crash, the next run of the same job adds. The
//! id of the run is an application transaction of the table, so no run is ever in it twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use datafusion::arrow::array::{AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::{cast, filter_record_batch};
use datafusion::arrow::datatypes::DataType;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use futures::TryStreamExt;
use item_affinity_solution::SolutionVersion;
use item_affinity_storage::{
    Commit, DeltaChange, DeltaFile, DeltaTable, Error as StorageError, ErrorKind, NewDeltaTable, Versions,
    list_parquet, open_parquet, sha256_hex,
};

use crate::delta_mode::{DeltaMode, FIRST_ITEM, LAST_ITEM};
use crate::error::{Error, Result};
use crate::parquet_output::SEGMENTS;
use crate::segment_job::BatchSegmentJob;
use crate::segment_requests::Requests;

/// The columns of the table and their Delta types. The last one stands in the log alone.
const COLUMNS: [(&str, &str); 5] =
    [("item_id", "string"), ("rank", "integer"), ("user_id", "string"), ("score", "float"), (SOLUTION, "string")];
/// The solution version that ranked, as `location@7`.
const SOLUTION: &str = "solution_version";

/// So often another writer may come first.
const MOST_ATTEMPTS: usize = 50;
/// So often a store may fail in a way that it does not retry by itself, with waits of 0.2 to 6.4 s.
const MOST_FAILURES: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(100);

impl BatchSegmentJob {
    /// Makes the segments of a commit data of the Delta table at the same place, unless they are; gives the version of
    /// the table that did it.
    pub(crate) async fn publish_delta(
        &self,
        mode: DeltaMode,
        versions: &Versions,
        version: &SolutionVersion,
        commit: &Commit,
    ) -> Result<u64> {
        let location = versions.location();
        let transaction = format!("item-affinity/{}", commit.run_id);
        let solution = commit.body.solution_version.as_ref();
        let solution = solution.map(|pin| format!("{}@{}", pin.location, pin.version)).unwrap_or_default();
        let requests = Requests::of(&self.items, self.filter.as_ref(), &version.items.ids);
        let items = requests.groups.iter().flat_map(|group| group.items.iter().map(String::as_str));
        let items = items.filter(|id| version.items.ids.index_of(id).is_some()).collect::<BTreeSet<_>>();
        let mut failures = 0;
        for _ in 0..MOST_ATTEMPTS {
            let table = DeltaTable::open(&self.stores, location).await?;
            let mut change = DeltaChange {
                transaction: transaction.clone(),
                add: segments(commit, &solution).into_iter().collect(),
                remove: Vec::new(),
                replaces: mode != DeltaMode::Append,
                facts: vec![
                    ("itemAffinityRun".to_owned(), commit.run_id.clone().into()),
                    ("itemAffinityVersion".to_owned(), commit.version.into()),
                ],
            };
            let landed = match &table {
                None => {
                    let new = NewDeltaTable {
                        columns: COLUMNS.iter().map(|(name, of)| ((*name).to_owned(), *of)).collect(),
                        partition_columns: vec![SOLUTION.to_owned()],
                    };
                    DeltaTable::create(&self.stores, location, new, change).await
                }
                Some(table) => {
                    if let Some(at) = table.transaction(&transaction).await? {
                        return Ok(at);
                    }
                    check_columns(table, versions)?;
                    let files = table.files()?;
                    match mode {
                        DeltaMode::Append => {}
                        DeltaMode::ReplaceVersion => {
                            let same =
                                |file: &DeltaFile| file.partitions.get(SOLUTION) == Some(&Some(solution.clone()));
                            change.remove = files.into_iter().filter(same).collect();
                        }
                        DeltaMode::ReplaceItems => {
                            for file in files.into_iter().filter(|file| may_hold(file, &items)) {
                                if let Some(rest) = self.without(&file, &items, versions, &transaction).await? {
                                    change.add.extend(rest);
                                    change.remove.push(file);
                                }
                            }
                        }
                    }
                    table.commit(change).await
                }
            };
            match landed {
                Ok(Some(at)) => {
                    versions.sync(&format!("_delta_log/{at:020}.json")).await?;
                    return Ok(at);
                }
                // Another writer came first, or the answer was lost: the log tells which, when it is read again.
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::Storage && failures < MOST_FAILURES => {
                    failures += 1;
                    tokio::time::sleep(FIRST_WAIT * (1 << failures)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::from(StorageError::Conflict {
            reason: format!("other writers came first {MOST_ATTEMPTS} times; the segments are not in the Delta table"),
            file: location.to_string(),
            run_id: commit.run_id.clone(),
            cure: "run the same command again".to_owned(),
        }))
    }

    /// The rows of a file that are of other items, as a new file; none when that is all of them, an empty list when it is
    /// no row.
    async fn without(
        &self,
        file: &DeltaFile,
        items: &BTreeSet<&str>,
        versions: &Versions,
        transaction: &str,
    ) -> Result<Option<Vec<DeltaFile>>> {
        let location = versions.location().child(&file.path)?;
        let Some(input) = list_parquet(&self.stores, &location).await?.files.pop() else { return Ok(None) };
        let input = open_parquet(&self.stores, &input).await?;
        let item_id = input.schema().index_of("item_id")?;
        let columns = (0..input.schema().fields().len()).collect::<Vec<_>>();
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?)).build();
        let mut writer = ArrowWriter::try_new(Vec::new(), input.schema().clone(), Some(properties))?;
        let mut kept = Kept::default();
        let mut batches = Box::pin(input.stream(&columns, 8_192).await?);
        while let Some(batch) = batches.try_next().await? {
            writer.write(&kept.of(&batch, item_id, items)?)?;
        }
        if kept.dropped == 0 {
            return Ok(None);
        }
        if kept.rows == 0 {
            return Ok(Some(Vec::new()));
        }
        let bytes = writer.into_inner()?;
        // The same job gives the same name to the same rows: a run that died leaves no second copy.
        let path =
            format!("data/rest-{}.parquet", &sha256_hex(format!("{transaction} {}", file.path).as_bytes())[..32]);
        let rest = DeltaFile {
            path: path.clone(),
            bytes: bytes.len() as u64,
            modified: file.modified,
            partitions: file.partitions.clone(),
            statistics: kept.statistics(),
        };
        versions.put_beside(&path, bytes.into()).await?;
        versions.sync(&path).await?;
        Ok(Some(vec![rest]))
    }
}

/// What is left of a file.
#[derive(Default)]
struct Kept {
    rows: u64,
    dropped: u64,
    bounds: Option<(String, String)>,
}

impl Kept {
    /// The rows of a batch that stay.
    fn of(&mut self, batch: &RecordBatch, item_id: usize, items: &BTreeSet<&str>) -> Result<RecordBatch> {
        let ids = cast(batch.column(item_id), &DataType::Utf8)?;
        let ids = ids.as_string::<i32>();
        let stays = |id: Option<&str>| id.is_none_or(|id| !items.contains(id));
        let mask = ids.iter().map(|id| Some(stays(id))).collect::<BooleanArray>();
        for id in ids.iter().flatten().filter(|id| stays(Some(id))) {
            let (least, most) = self.bounds.get_or_insert_with(|| (id.to_owned(), id.to_owned()));
            if id < least.as_str() {
                id.clone_into(least);
            }
            if id > most.as_str() {
                id.clone_into(most);
            }
        }
        let kept = filter_record_batch(batch, &mask)?;
        self.rows += kept.num_rows() as u64;
        self.dropped += (batch.num_rows() - kept.num_rows()) as u64;
        Ok(kept)
    }

    fn statistics(&self) -> Option<serde_json::Value> {
        let (least, most) = self.bounds.as_ref()?;
        Some(statistics(self.rows, least, most))
    }
}

/// The segments of a commit as a file of the table; none when no item has one.
fn segments(commit: &Commit, solution: &str) -> Option<DeltaFile> {
    let entry =
        commit.files.iter().find(|file| file.path.ends_with(&format!("/{SEGMENTS}")) && !is_reasons(&file.path))?;
    let rows = entry.rows.filter(|rows| *rows > 0)?;
    let bound = |name: &str| commit.body.details.get(name).and_then(serde_json::Value::as_str);
    Some(DeltaFile {
        path: entry.path.clone(),
        bytes: entry.bytes,
        modified: commit.committed_at.saturating_mul(1_000),
        partitions: BTreeMap::from([(SOLUTION.to_owned(), Some(solution.to_owned()))]),
        statistics: bound(FIRST_ITEM).zip(bound(LAST_ITEM)).map(|(least, most)| statistics(rows, least, most)),
    })
}

fn is_reasons(path: &str) -> bool {
    path.contains("/_reasons/")
}

fn statistics(rows: u64, least: &str, most: &str) -> serde_json::Value {
    serde_json::json!({
        "numRecords": rows,
        "minValues": { "item_id": least },
        "maxValues": { "item_id": most },
        "nullCount": { "item_id": 0 },
    })
}

/// Whether a file may hold a row of one of these items, by its bounds, which other writers leave out or cut.
fn may_hold(file: &DeltaFile, items: &BTreeSet<&str>) -> bool {
    let bound = |side: &str| file.statistics.as_ref()?.get(side)?.get("item_id")?.as_str().map(str::to_owned);
    let (least, most) = (bound("minValues").unwrap_or_default(), bound("maxValues"));
    items.range(least.as_str()..).next().is_some_and(|item| most.is_none_or(|most| *item <= most.as_str()))
}

/// A table that somebody else made has to be one of segments.
fn check_columns(table: &DeltaTable, versions: &Versions) -> Result<()> {
    let schema = table.schema();
    let wanted = [DataType::Utf8, DataType::Int32, DataType::Utf8, DataType::Float32, DataType::Utf8];
    let same = schema.fields().len() == COLUMNS.len()
        && COLUMNS.iter().zip(&wanted).all(|((name, _), of)| {
            let found = schema.field_with_name(name).ok().map(|field| field.data_type().clone());
            found.as_ref() == Some(of) || (*of == DataType::Utf8 && found == Some(DataType::Utf8View))
        })
        && table.partition_columns() == [SOLUTION];
    if same {
        return Ok(());
    }
    let found = schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type()));
    let wanted = COLUMNS.iter().map(|(name, of)| format!("{name} {of}")).collect::<Vec<_>>().join(", ");
    Err(Error::from(StorageError::Delta {
        reason: format!("this Delta table is none of segments: it has [{}]", found.collect::<Vec<_>>().join(", ")),
        file: versions.location().to_string(),
        cure: format!("give another output, or a table with [{wanted}] partitioned by {SOLUTION}"),
        source: None,
    }))
}
