//! A refresh of a version that uses attributes of users: new users get what these are worth.

use std::collections::BTreeSet;
use std::time::Duration;

use arrow::array::ArrayRef;
use item_affinity_solution::{RefreshJob, RefreshReport, Result, SolutionRef, forget_users};
use item_affinity_storage::{Artifact, ErrorKind, Location, Stores, Versions};

use crate::planted::{Rows, hashes, job, open, parquet, planted, put, table, texts};
use crate::refresh::{Ranking, assert_states_of_the_training};

const USERS: usize = 900;
const ITEMS: usize = 400;
/// After all events of the training.
const LATER: i64 = 1_700_000_000 + 21 * 86_400;

/// Users with so few events that their group is hard to see, and a column that tells it.
async fn trained() -> Stores {
    let stores = Stores::in_memory();
    put(&stores, "memory:///events/part-0.parquet", parquet(&planted(USERS, ITEMS, 4))).await;
    put_users(&stores, "home", &[]).await;
    let report = job(&stores).users("memory:///users.parquet").run().await.unwrap();
    assert_eq!(report.model.user_attributes, ["home"]);
    stores
}

async fn put_users(stores: &Stores, column: &str, more: &[(&str, usize)]) {
    let known = (0..USERS).map(|user| (format!("user-{user:05}"), user % 4));
    let all = known.chain(more.iter().map(|(user, home)| ((*user).to_owned(), *home))).collect::<Vec<_>>();
    let ids: ArrayRef = texts(all.iter().map(|(user, _)| user.clone()));
    let homes = texts(all.iter().map(|(_, home)| format!("home-{home}")));
    put(stores, "memory:///users.parquet", table(vec![("user_id", ids), (column, homes)])).await;
}

async fn refresh(stores: &Stores) -> Result<RefreshReport> {
    let job = RefreshJob::new("memory:///affinity").interactions("memory:///events/").stores(stores.clone());
    job.users("memory:///users.parquet").run().await
}

/// The SHA-256 of what attributes are worth in a version.
async fn weights(stores: &Stores, version: u64) -> String {
    let version = open(stores, &format!("memory:///affinity@{version}")).await.unwrap();
    hashes(&version.commit).remove("user_attributes.parquet").unwrap()
}

#[tokio::test]
async fn a_new_user_is_ranked_by_what_its_attributes_are_worth() {
    let stores = trained().await;
    // One event each, the same one; only their homes tell them apart. The third knows no item of the version.
    let event = |user: &str, item: &str| (user.to_owned(), item.to_owned(), LATER);
    let new: Rows = vec![event("a-stranger", "item-unknown"), event("new-1", "item-008"), event("new-2", "item-008")];
    put(&stores, "memory:///events/part-1.parquet", parquet(&new)).await;
    put_users(&stores, "home", &[("new-2", 2), ("new-1", 1), ("a-stranger", 3)]).await;
    let report = refresh(&stores).await.unwrap();
    let changes = report.changes.unwrap();
    assert_eq!((changes.new_users, changes.left_out_users, report.version), (2, 1, 2));
    let ranking = Ranking::of(&stores, "memory:///affinity@2").await;
    for (own, other) in [(1, 2), (2, 1)] {
        let (mut of_own, mut of_other) = (0.0, 0.0);
        for item in (40..80).filter(|item| item % 4 == own) {
            let item = format!("item-{item:03}");
            of_own += ranking.place(&stores, &item, &format!("new-{own}")).await / 10.0;
            of_other += ranking.place(&stores, &item, &format!("new-{other}")).await / 10.0;
        }
        println!("items of home {own}: behind {of_own:.3} of the users, with home {other} behind {of_other:.3}");
        // Alike in all else, and so active of late that both are among the first.
        assert!(of_own < of_other && of_other < 0.1, "home {own}: {of_own} {of_other}");
    }

    // The refreshed version can be refreshed again, with the same weights; nothing new is a no-op.
    assert!(refresh(&stores).await.unwrap().already_done);
    put(&stores, "memory:///events/part-2.parquet", parquet(&[event("new-1", "item-012")])).await;
    assert_eq!(refresh(&stores).await.unwrap().version, 3);
    assert_eq!(weights(&stores, 1).await, weights(&stores, 3).await);
    // So is a change of what is known of users.
    put_users(&stores, "home", &[("new-2", 3), ("new-1", 1)]).await;
    assert_eq!(refresh(&stores).await.unwrap().version, 4);
}

#[tokio::test]
async fn the_data_of_the_training_give_the_states_of_the_training_with_attributes_too() {
    let stores = trained().await;
    assert_eq!(refresh(&stores).await.unwrap().version, 2);
    assert_states_of_the_training(&stores).await;
}

#[tokio::test]
async fn a_version_without_some_users_keeps_what_attributes_are_worth() {
    let stores = trained().await;
    let location = Location::parse("memory:///affinity").unwrap();
    let versions = Versions::new(&stores, location, Artifact::SolutionVersion).unwrap();
    let run = versions.begin_alone(Duration::ZERO, &|_| ()).await.unwrap();
    let (users, whole) =
        (BTreeSet::from(["user-00003".to_owned()]), SolutionRef::parse("memory:///affinity@1").unwrap());
    let (body, forgotten) = forget_users(&stores, &whole, &users, &run).await.unwrap().unwrap();
    assert_eq!(forgotten.users, 1);
    run.commit_after(body, 1).await.unwrap();
    assert_eq!(weights(&stores, 1).await, weights(&stores, 2).await);
    assert_eq!(refresh(&stores).await.unwrap().version, 3);
}

#[tokio::test]
async fn users_that_are_missing_or_lack_a_column_are_asked_for_by_name() {
    let stores = trained().await;
    let without = RefreshJob::new("memory:///affinity").interactions("memory:///events/").stores(stores.clone());
    let error = without.run().await.unwrap_err();
    let expected = "ERR_REFRESH_USER_ATTRIBUTES: the version uses attributes of users (home); file=memory:///affinity@1; \
                    name the Users with --users";
    assert_eq!((error.to_string().as_str(), error.kind()), (expected, ErrorKind::BadInput));
    put_users(&stores, "town", &[]).await;
    let error = refresh(&stores).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadInput, "{error}");
    let words = r#"Users has no column "home" beside its id; columns are [town]; give Users as they were"#;
    assert!(error.to_string().contains(words), "{error}");
}
