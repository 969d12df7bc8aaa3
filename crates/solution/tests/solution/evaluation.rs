//! The evaluation job finds planted structure and tells a model from chance.

use item_affinity_solution::{EvaluationJob, Protocol};
use item_affinity_storage::Stores;
use tokio_util::sync::CancellationToken;

use crate::planted::{objects, parquet, planted, put, small_data, small_recipe};

fn job(stores: &Stores) -> EvaluationJob {
    EvaluationJob::new("memory:///events/").recipe(small_recipe()).stores(stores.clone())
}

#[tokio::test]
async fn planted_groups_are_found_better_than_by_chance() {
    let stores = Stores::in_memory();
    put(&stores, "memory:///events/part-0.parquet", parquet(&planted(600, 40, 15))).await;
    let before = objects(&stores, "memory:///").await;
    let report = job(&stores).protocols([Protocol::Time, Protocol::Personalize]).run().await.unwrap();
    let personalize = report.personalize.as_ref().unwrap();
    let (model, random) = (&personalize.model, &personalize.random);
    assert!(model.recall_at_1_percent > 1.5 * random.recall_at_1_percent, "{report:?}");
    assert!((model.coverage - 1.0).abs() < 1e-9, "{report:?}");
    let all = &report.time.as_ref().unwrap().all_pairs.rankers;
    let of = |name: &str| all.iter().find(|of| of.ranker == name).unwrap().precision;
    assert!(of("item_affinity") > 1.5 * of("random"), "{all:?}");
    assert_eq!(objects(&stores, "memory:///").await, before, "an evaluation writes nothing");
}

#[tokio::test]
async fn threads_do_not_change_the_measures() {
    let stores = small_data().await;
    let measures = async |threads| {
        let report = job(&stores).threads(Some(threads)).run().await.unwrap();
        assert!(report.personalize.is_none());
        serde_json::to_string(&report.time).unwrap()
    };
    assert_eq!(measures(1).await, measures(4).await);
}

#[tokio::test]
async fn too_little_data_is_refused_unless_it_is_allowed() {
    let stores = Stores::in_memory();
    put(&stores, "memory:///events/part-0.parquet", parquet(&planted(20, 8, 5))).await;
    assert!(job(&stores).run().await.unwrap_err().to_string().starts_with("ERR_TOO_LITTLE_DATA"));
    job(&stores).allow_small_data(true).run().await.unwrap();
}

#[tokio::test]
async fn a_cancelled_evaluation_ends() {
    let stores = small_data().await;
    let token = CancellationToken::new();
    token.cancel();
    assert!(job(&stores).cancellation(token).run().await.unwrap_err().is_cancelled());
}
