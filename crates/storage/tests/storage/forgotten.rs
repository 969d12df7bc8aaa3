//! P38: who was forgotten is known from every list, whatever a listing leaves out and a PUT says.

use std::sync::Arc;

use item_affinity_storage::{Artifact, ErrorKind, Location, Stores, Versions};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use url::Url;

use crate::fault_store::{Fault, FaultStore, Plan};

fn scene(plan: Plan) -> (FaultStore, Versions) {
    let store = FaultStore::new(plan);
    let stores = Stores::in_memory();
    stores.register(&Url::parse("memory:///").unwrap(), Arc::new(store.clone()));
    let location = Location::parse("memory:///out").unwrap();
    (store, Versions::new(&stores, location, Artifact::SolutionVersion).unwrap())
}

fn list_path(number: u64) -> Path {
    Path::from(format!("out/_item_affinity/forgotten/{number:020}.json"))
}

#[tokio::test]
async fn p38_a_list_that_a_listing_leaves_out_is_found_by_its_name() {
    const USERS: [&str; 3] = ["anna", "otto", "emil"];
    let (store, versions) = scene(Plan::default());
    for user in USERS {
        assert_eq!(versions.forget([user]).await.unwrap(), 1);
    }
    for number in 1..=3 {
        store.plan.lock().unwrap().unlisted = Some(list_path(number).to_string());
        let known = versions.tombstones().await.unwrap();
        assert!(USERS.into_iter().all(|user| known.contains(user)), "without list {number}");
        assert_eq!(versions.forget(USERS).await.unwrap(), 0);
    }
    // One that was removed lets its users in again, and no others.
    store.plan.lock().unwrap().unlisted = None;
    store.inner.delete(&list_path(2)).await.unwrap();
    let known = versions.tombstones().await.unwrap();
    assert_eq!(USERS.map(|user| known.contains(user)), [true, false, true]);
}

#[tokio::test]
async fn p17_a_name_far_beyond_all_lists_is_an_error_and_no_panic() {
    for number in [u64::MAX, u64::MAX - 1, 1 << 40] {
        let (store, versions) = scene(Plan::default());
        versions.forget(["anna"]).await.unwrap();
        store.inner.put(&list_path(number), "{}".into()).await.unwrap();
        let error = versions.tombstones().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadInput, "{error}");
        assert!(error.to_string().contains(&format!("{number:020}.json")), "{error}");
        assert!(versions.forget(["otto"]).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn p38_a_list_that_the_last_try_writes_is_written() {
    let (store, versions) = scene(Plan { list_puts: vec![Fault::ExistsButNothing; 9].into(), ..Plan::default() });
    assert_eq!(versions.forget(["anna"]).await.unwrap(), 1);
    store.plan.lock().unwrap().list_puts = vec![Fault::ExistsButNothing; 10].into();
    assert_eq!(versions.forget(["otto"]).await.unwrap_err().kind(), ErrorKind::Storage);
    assert!(!versions.tombstones().await.unwrap().contains("otto"));
    // One whose answer was lost counts once.
    store.plan.lock().unwrap().list_puts = vec![Fault::ApplyThenError].into();
    assert_eq!(versions.forget(["otto"]).await.unwrap(), 1);
    let known = versions.tombstones().await.unwrap();
    assert!(known.contains("anna") && known.contains("otto") && known.len() == 2);
}
