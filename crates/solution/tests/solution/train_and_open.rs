//! What was fitted is what is read back.

use item_affinity_ingest::{InteractionsSource, read_interactions};
use item_affinity_model::ndarray::Array2;
use item_affinity_model::{ItemAffinity, TrainedModel, train};
use item_affinity_solution::{SolutionRef, SolutionVersion, TrainingJob};
use item_affinity_storage::{Location, Stores};
use std::ops::ControlFlow;

use crate::planted::{GROUPS, job, open, parquet, planted, put, small_data, small_recipe, trained};

async fn fitted(stores: &Stores, events: &str, recipe: &ItemAffinity) -> TrainedModel {
    let source = InteractionsSource::new(vec![Location::parse(events).unwrap()]);
    let interactions = read_interactions(stores, &source, &|_| ()).await.unwrap().interactions;
    train(recipe, &interactions, None, None, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn bits(values: &Array2<f32>) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[tokio::test]
async fn factors_are_read_back_bit_by_bit_from_memory() {
    let stores = small_data().await;
    let recipe = ItemAffinity { half_life_days: Some(3.5), ..small_recipe() };
    let report = job(&stores).recipe(recipe.clone()).run().await.unwrap();
    assert_eq!((report.version, report.already_done), (1, false));
    assert_eq!(report.solution.to_string(), "memory:///affinity@1");

    let version = open(&stores, "memory:///affinity").await.unwrap();
    let users = version.user_states(&stores).await.unwrap();
    let expected = fitted(&stores, "memory:///events/", &recipe).await;
    assert!(bits(&version.items.factors) == bits(&expected.factors.item_factors));
    assert!(bits(&users.factors) == bits(&expected.factors.user_factors));
    assert_eq!((&version.items.log_odds, &users.log_odds), (&expected.log_odds.items, &expected.log_odds.users));
    assert_eq!(version.model.propensity, expected.propensity);
    assert_eq!(version.model, report.model);
    assert_eq!((version.model.users, version.model.items), (240, 40));
    assert_eq!(version.reference, report.solution);
}

#[tokio::test]
async fn factors_are_read_back_bit_by_bit_from_local_disk_in_several_parts() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir(path("events")).unwrap();
    let rows = planted(9_000, 40, 2);
    for (part, rows) in rows.chunks(5_000).enumerate() {
        std::fs::write(path(&format!("events/part-{part}.parquet")), parquet(rows)).unwrap();
    }
    let stores = Stores::in_memory();
    let recipe = ItemAffinity { half_life_days: None, ..small_recipe() };
    let job = TrainingJob::new(path("events")).recipe(recipe.clone()).solution(path("affinity")).stores(stores.clone());
    let report = job.run().await.unwrap();

    let version = SolutionVersion::open(&stores, &report.solution).await.unwrap();
    let parts: Vec<_> = version.user_parts.iter().map(|part| (part.first_user_index, part.rows)).collect();
    let expected = (0..16).map(|n| (n * 563, if n < 15 { 563 } else { 555 })).collect::<Vec<_>>();
    assert_eq!(parts, expected);
    let users = version.user_states(&stores).await.unwrap();
    let expected = fitted(&stores, &path("events"), &recipe).await;
    assert!(bits(&version.items.factors) == bits(&expected.factors.item_factors));
    assert!(bits(&users.factors) == bits(&expected.factors.user_factors));
}

#[tokio::test]
async fn pairs_with_history_are_read_back_for_the_asked_items() {
    let stores = small_data().await;
    trained(&stores).await;
    let version = open(&stores, "memory:///affinity").await.unwrap();
    let expected = fitted(&stores, "memory:///events/", &small_recipe()).await;
    let (log_odds, weights) = (expected.log_odds.repeat.transpose(), expected.histories.transpose());
    let asked = [3, 4, 17, 39];
    let found = version.item_history(&stores, &asked).await.unwrap();
    assert_eq!((found.log_odds.rows(), found.log_odds.columns()), (4, 240));
    for (row, item) in asked.iter().enumerate() {
        assert!(!log_odds.row(*item as usize).0.is_empty());
        assert_eq!(found.log_odds.row(row), log_odds.row(*item as usize));
        assert_eq!(found.weights.row(row), weights.row(*item as usize));
    }
    assert_eq!(version.item_history(&stores, &[]).await.unwrap().log_odds.nnz(), 0);
    // A part holds all pairs of its items.
    for part in &version.pair_parts {
        let items: Vec<u32> = (part.first_item..=part.last_item).collect();
        assert_eq!(
            version.read_pair_part(&stores, part).await.unwrap(),
            version.item_history(&stores, &items).await.unwrap()
        );
    }
}

#[tokio::test]
async fn histories_of_asked_users_are_their_rows_of_all_pairs() {
    let stores = small_data().await;
    trained(&stores).await;
    let version = open(&stores, "memory:///affinity").await.unwrap();
    let all: Vec<u32> = (0..40).collect();
    let expected = version.item_history(&stores, &all).await.unwrap().weights.transpose();
    assert_eq!((expected.rows(), expected.columns()), (240, 40));
    for users in [vec![], vec![0], vec![7, 63, 64, 65, 239], (0..240).collect::<Vec<u32>>()] {
        let found = version.user_history(&stores, &users).await.unwrap();
        assert_eq!((found.rows(), found.columns()), (users.len(), 40));
        for (row, user) in users.iter().enumerate() {
            assert_eq!(found.row(row), expected.row(*user as usize));
        }
    }
}

#[tokio::test]
async fn histories_are_not_read_from_damaged_pairs() {
    let stores = small_data().await;
    trained(&stores).await;
    let version = open(&stores, "memory:///affinity").await.unwrap();
    let part = &version.pair_parts[0].entry;
    let place = format!("memory:///affinity/{}", part.path);
    let mut bytes = crate::planted::bytes(&stores, &Location::parse(&place).unwrap()).await;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    crate::planted::put(&stores, &place, bytes).await;
    let error = version.user_history(&stores, &[3]).await.unwrap_err().to_string();
    assert!(error.starts_with("ERR_SOLUTION_DAMAGED: ") && error.contains(&part.path), "{error}");
}

#[tokio::test]
async fn counts_and_times_of_states_are_those_of_the_interactions() {
    let stores = small_data().await;
    trained(&stores).await;
    let version = open(&stores, "memory:///affinity").await.unwrap();
    let users = version.user_states(&stores).await.unwrap();
    let rows = planted(240, 40, 12);

    let of_item = |id: &str| rows.iter().filter(move |row| row.1 == id).collect::<Vec<_>>();
    for (index, id) in version.items.ids.iter().enumerate() {
        let rows = of_item(id);
        let distinct: std::collections::BTreeSet<_> = rows.iter().map(|row| &row.0).collect();
        assert_eq!(version.items.interactions[index], rows.len() as i64, "{id}");
        assert_eq!(version.items.users[index], distinct.len() as i64, "{id}");
        assert_eq!(version.items.last_interaction[index], rows.iter().map(|row| row.2).max().unwrap(), "{id}");
    }
    for (index, id) in users.ids.iter().enumerate() {
        let times: Vec<_> = rows.iter().filter(|row| row.0 == id).map(|row| row.2).collect();
        assert_eq!(users.interactions[index], times.len() as i64);
        assert_eq!(users.last_interaction[index], *times.iter().max().unwrap());
    }
    assert_eq!(version.model.interactions, rows.len() as u64);
    let newest = rows.iter().map(|row| row.2).max().unwrap();
    assert_eq!((version.model.last_interaction, version.model.as_of), (newest, newest + 1));
}

#[tokio::test]
async fn best_users_of_an_item_are_those_of_its_planted_group() {
    let stores = small_data().await;
    trained(&stores).await;
    let version = open(&stores, "memory:///affinity").await.unwrap();
    let users = version.user_states(&stores).await.unwrap();
    let scores = version.items.factors.dot(&users.factors.t());
    for (index, id) in version.items.ids.iter().enumerate() {
        let group: usize = id["item-".len()..].parse::<usize>().unwrap() % GROUPS;
        let mut ranked: Vec<usize> = (0..users.ids.len()).collect();
        ranked.sort_by(|a, b| scores[[index, *b]].total_cmp(&scores[[index, *a]]));
        // A quarter of 240 users is in the group: a random ranking would find 10 of 40.
        let found = ranked[..40].iter().filter(|user| *user % GROUPS == group).count();
        assert!(found >= 34, "{id}: {found} of 40");
    }
}

#[tokio::test]
async fn a_user_part_is_a_plain_parquet_file() {
    use arrow::array::AsArray;
    use item_affinity_solution::{factor_values, user_states_schema};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::basic::Compression;

    let stores = small_data().await;
    trained(&stores).await;
    let version = open(&stores, "memory:///affinity").await.unwrap();
    let users = version.user_states(&stores).await.unwrap();
    let bytes = version.read_user_part(&stores, &version.user_parts[0]).await.unwrap();

    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().with_batch_size(1_000);
    assert_eq!(reader.schema().fields(), user_states_schema(32).fields());
    let group = reader.metadata().row_group(0).clone();
    assert_eq!(reader.metadata().num_row_groups(), 1);
    for column in group.columns() {
        assert_eq!(column.compression(), Compression::UNCOMPRESSED);
        assert_eq!(column.dictionary_page_offset(), None);
        assert_eq!(column.statistics().is_some(), column.column_path().string() != "factor");
    }
    let batch = reader.build().unwrap().next().unwrap().unwrap();
    assert_eq!(
        batch.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(),
        users.ids.iter().collect::<Vec<_>>()
    );
    let factors = factor_values(batch.column(2).as_fixed_size_binary()).into_owned();
    assert_eq!(factors, users.factors.as_slice().unwrap());
}

#[tokio::test]
async fn an_older_version_stays_readable_by_its_number() {
    let stores = small_data().await;
    trained(&stores).await;
    let second = job(&stores).hidden_dimension(48).run().await.unwrap();
    assert_eq!(second.version, 2);
    let dimension = async |reference: &str| open(&stores, reference).await.unwrap().items.factors.ncols();
    assert_eq!(dimension("memory:///affinity@1").await, 32);
    assert_eq!(dimension("memory:///affinity@2").await, 48);
    assert_eq!(dimension("memory:///affinity").await, 48);
    let pinned = SolutionRef::parse("memory:///affinity").unwrap().resolve(&stores).await.unwrap();
    assert_eq!(pinned.version, Some(2));
}

#[tokio::test]
async fn items_and_users_are_reported_on_without_changing_the_model() {
    use arrow::array::{ArrayRef, RecordBatch, StringArray};
    use std::sync::Arc;

    let stores = small_data().await;
    let plain = trained(&stores).await;
    let metadata = |id: &str, values: Vec<String>| {
        let colour: ArrayRef = Arc::new(StringArray::from_iter_values(values.iter().map(|_| "red")));
        let ids: ArrayRef = Arc::new(StringArray::from(values));
        let batch = RecordBatch::try_from_iter([(id, ids), ("COLOUR", colour)]).unwrap();
        let mut file = Vec::new();
        let mut writer = parquet::arrow::ArrowWriter::try_new(&mut file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        file
    };
    let items = metadata("ITEM_ID", (0..40).map(|item| format!("item-{item:03}")).collect());
    let users = metadata("USER_ID", (0..240).map(|user| format!("user-{user:05}")).collect());
    put(&stores, "memory:///items.parquet", items).await;
    put(&stores, "memory:///users.parquet", users).await;
    let with = job(&stores).items("memory:///items.parquet").users("memory:///users.parquet").run().await.unwrap();
    assert_eq!((with.version, with.already_done), (2, false));
    assert_eq!(with.model, plain.model);
}

#[test]
fn reading_a_version_can_be_spawned() {
    fn sendable(_: impl Send) {}
    let stores = Stores::in_memory();
    let reference = SolutionRef::parse("memory:///affinity").unwrap();
    sendable(SolutionVersion::open(&stores, &reference));
    sendable(async |version: &SolutionVersion| version.user_states(&stores).await);
    sendable(reference.resolve(&stores));
    sendable(item_affinity_solution::versions(&stores, &reference.location));
}
