//! A refresh brings new behaviour and new users into the items and coefficients of a training, and nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use item_affinity_model::{dot, probability};
use item_affinity_solution::{Error, Observer, RefreshJob, SolutionVersion, Stage, versions};
use item_affinity_storage::{ErrorKind, Location, Stores};
use tokio_util::sync::CancellationToken;

use crate::damage::forge;
use crate::jobs::Listens;
use crate::planted::{
    GROUPS, Random, Rows, hashes, job, objects, open, parquet, planted, put, small_data, small_recipe, trained,
};

const ITEMS: usize = 40;
const DAY: i64 = 86_400;
/// After all events of the trainings.
const LATER: i64 = 1_700_000_000 + 21 * DAY;
/// Items of each group that nobody has in `events_of`, where a group has 30.
const LAST: [usize; 4] = [26, 27, 28, 29];

fn refresh(stores: &Stores) -> RefreshJob {
    RefreshJob::new("memory:///affinity").interactions("memory:///events/").stores(stores.clone())
}

fn item(number: usize) -> String {
    format!("item-{number:03}")
}

/// Later events of a user with so many items of a group, one an hour.
fn events_of(user: &str, group: usize, count: usize) -> Rows {
    let of = |n: usize| (user.to_owned(), item(n * GROUPS + group), LATER + 3_600 * n as i64);
    (0..count).map(of).collect()
}

async fn add(stores: &Stores, part: usize, rows: &Rows) {
    put(stores, &format!("memory:///events/part-{part}.parquet"), parquet(rows)).await;
}

/// What is needed to rank all users for an item.
pub(crate) struct Ranking {
    version: SolutionVersion,
    users: item_affinity_solution::UserStates,
}

impl Ranking {
    pub(crate) async fn of(stores: &Stores, reference: &str) -> Self {
        let version = open(stores, reference).await.unwrap();
        let users = version.user_states(stores).await.unwrap();
        Self { version, users }
    }

    /// The place of a user among the users who never had the item, best first, as a share of all users.
    pub(crate) async fn place(&self, stores: &Stores, item: &str, user: &str) -> f64 {
        let (items, model) = (&self.version.items, &self.version.model);
        let at = items.ids.index_of(item).unwrap();
        let history = self.version.item_history(stores, &[at]).await.unwrap();
        let had = history.log_odds.row(0).0;
        let score = |user: u32| {
            let user = user as usize;
            let affinity = dot(self.users.factors.row(user), items.factors.row(at as usize));
            probability(model.slopes.log_odds(affinity, self.users.log_odds[user], items.log_odds[at as usize]))
        };
        let own = self.users.ids.index_of(user).unwrap();
        assert!(had.binary_search(&own).is_err(), "{user} had {item}");
        let all = 0..u32::try_from(self.users.ids.len()).unwrap();
        let better = all.filter(|other| had.binary_search(other).is_err() && score(*other) > score(own)).count();
        better as f64 / self.users.ids.len() as f64
    }

    /// The mean place of a user for the last items of a group, which it never had.
    async fn mean_place(&self, stores: &Stores, user: &str, group: usize) -> f64 {
        let mut sum = 0.0;
        for number in LAST {
            sum += self.place(stores, &item(number * GROUPS + group), user).await;
        }
        sum / LAST.len() as f64
    }
}

#[tokio::test]
async fn a_new_user_enters_the_segments_of_its_group_and_a_user_who_moves_follows() {
    // 30 items a group, and 20 events a user but for one who has just begun, in group 0.
    let (stores, mut rows) = (Stores::in_memory(), planted(600, 120, 20));
    rows.extend(events_of("moving", 0, 4).into_iter().map(|(user, item, time)| (user, item, time - 10 * DAY)));
    add(&stores, 0, &rows).await;
    trained(&stores).await;
    let mut rows = events_of("moving", 2, 16);
    for group in 0..GROUPS {
        rows.extend(events_of(&format!("visitor-{group}"), group, 20));
    }
    add(&stores, 1, &rows).await;
    let report = refresh(&stores).run().await.unwrap();
    let changes = report.changes.unwrap();
    assert_eq!((changes.from, changes.new_users, changes.gone_users), (1, 4, 0));
    assert_eq!((report.version, report.already_done, report.model.users), (2, false, 605));

    let (before, after) =
        (Ranking::of(&stores, "memory:///affinity@1").await, Ranking::of(&stores, "memory:///affinity@2").await);
    for group in 0..GROUPS {
        let visitor = format!("visitor-{group}");
        assert_eq!(before.users.ids.index_of(&visitor), None);
        for other in 0..GROUPS {
            let place = after.mean_place(&stores, &visitor, other).await;
            println!("{visitor}, items of group {other}: behind {:.1} % of the users", 100.0 * place);
            assert_eq!(other == group, place < 0.1, "{visitor} for group {other}: {place}");
        }
    }
    let [was, is] = [before.mean_place(&stores, "moving", 2).await, after.mean_place(&stores, "moving", 2).await];
    let [left, stays] = [before.mean_place(&stores, "moving", 0).await, after.mean_place(&stores, "moving", 0).await];
    println!("who moves from group 0 to 2: {left:.3} to {stays:.3} for items of 0, {was:.3} to {is:.3} for those of 2");
    assert!(left < was && was > 0.5 && is < 0.2 && is < stays, "{left} {stays} {was} {is}");
}

#[tokio::test]
async fn items_factors_and_coefficients_stay_bit_by_bit_and_as_of_moves() {
    let stores = small_data().await;
    trained(&stores).await;
    add(&stores, 1, &events_of("visitor", 1, 8)).await;
    refresh(&stores).run().await.unwrap();
    let (old, new) =
        (open(&stores, "memory:///affinity@1").await.unwrap(), open(&stores, "memory:///affinity@2").await.unwrap());
    let bits = |of: &SolutionVersion| of.items.factors.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(old.items.ids, new.items.ids);
    assert_eq!(bits(&old), bits(&new));
    assert_eq!(old.model.propensity, new.model.propensity);
    assert_eq!(old.model.recipe, new.model.recipe);
    assert_eq!(old.model.horizon_seconds, new.model.horizon_seconds);
    assert_eq!(old.model.item_ids_sha256, new.model.item_ids_sha256);
    let newest = LATER + 7 * 3_600;
    assert!(old.model.as_of < LATER);
    assert_eq!((new.model.last_interaction, new.model.as_of), (newest, newest + 1));
    assert_eq!((old.model.refreshed_from, new.model.refreshed_from), (None, Some(1)));
    // What was measured or fitted was so for version 1.
    assert!(!old.model.loss.is_empty() && new.model.loss.is_empty());
    assert_eq!((new.model.evaluation.is_none(), new.model.metrics.len()), (true, 0));
    let location = Location::parse("memory:///affinity").unwrap();
    let listed = versions(&stores, &location).await.unwrap();
    assert_eq!(listed.iter().map(|version| version.refreshed_from).collect::<Vec<_>>(), [None, Some(1)]);
    // Their popularity is that of now.
    assert_ne!(old.items.log_odds, new.items.log_odds);
    let at = old.items.ids.index_of(&item(GROUPS + 1)).unwrap() as usize;
    assert_eq!(new.items.interactions[at], old.items.interactions[at] + 1);
}

#[tokio::test]
async fn an_item_that_nobody_had_any_more_stays_with_its_last_time() {
    let stores = small_data().await;
    trained(&stores).await;
    let mut rows = planted(240, ITEMS, 12);
    rows.retain(|row| row.1 != item(5));
    add(&stores, 0, &rows).await;
    let report = refresh(&stores).run().await.unwrap();
    assert_eq!((report.model.items, report.changes.unwrap().left_out_interactions), (40, 0));
    let (old, new) =
        (open(&stores, "memory:///affinity@1").await.unwrap(), open(&stores, "memory:///affinity@2").await.unwrap());
    let at = new.items.ids.index_of(&item(5)).unwrap() as usize;
    assert_eq!((new.items.interactions[at], new.items.users[at]), (0, 0));
    assert_eq!(new.items.last_interaction[at], old.items.last_interaction[at]);
    assert_eq!(new.items.factors.row(at), old.items.factors.row(at));
    assert_ne!(new.items.log_odds[at], old.items.log_odds[at]);
}

#[tokio::test]
async fn interactions_with_unknown_items_are_left_out_counted_and_told() {
    let stores = small_data().await;
    trained(&stores).await;
    let mut rows = events_of("visitor", 1, 3);
    for (user, item) in [("visitor", "novelty-1"), ("stranger", "novelty-1"), ("stranger", "novelty-2")] {
        rows.push((user.to_owned(), item.to_owned(), LATER + DAY));
    }
    add(&stores, 1, &rows).await;
    let heard = Arc::new(Listens::default());
    let report = refresh(&stores).observer(heard.clone()).run().await.unwrap();
    let changes = report.changes.unwrap();
    assert_eq!((changes.left_out_interactions, changes.left_out_items, changes.left_out_users), (3, 2, 1));
    assert_eq!((changes.new_users, report.model.users, report.model.interactions), (1, 241, 240 * 12 + 3));
    // They are read all the same: the moment is right after the newest of them.
    assert_eq!(report.model.as_of, LATER + DAY + 1);
    let told = "3 interactions with 2 items that version 1 does not know are left out; train to take them in";
    assert_eq!(heard.notes.lock().unwrap().iter().filter(|note| *note == told).count(), 1);
    let counts = open(&stores, "memory:///affinity").await.unwrap().commit.body.counts;
    let of = |name: &str| counts[name];
    assert_eq!(
        ["left_out_interactions", "left_out_items", "left_out_users", "new_users", "gone_users"].map(of),
        [3, 2, 1, 1, 0]
    );
    assert_eq!(of("rows"), 240 * 12 + 6);
}

#[tokio::test]
async fn the_same_refresh_again_does_nothing_and_new_data_give_a_new_version() {
    let stores = small_data().await;
    trained(&stores).await;
    add(&stores, 1, &events_of("visitor", 1, 8)).await;
    assert_eq!(refresh(&stores).run().await.unwrap().version, 2);
    let before = objects(&stores, "memory:///affinity").await;
    for reference in ["memory:///affinity", "memory:///affinity@1", "memory:///affinity@2"] {
        let again = RefreshJob::new(reference).interactions("memory:///events/*.parquet").stores(stores.clone());
        let again = again.run().await.unwrap();
        assert_eq!((again.version, again.already_done), (2, true), "{reference}");
        assert!(again.data.is_none() && again.changes.is_none());
        assert_eq!(again.model.refreshed_from, Some(1));
    }
    assert_eq!(objects(&stores, "memory:///affinity").await, before);

    add(&stores, 2, &events_of("guest", 2, 8)).await;
    let next = refresh(&stores).run().await.unwrap();
    assert_eq!((next.version, next.model.refreshed_from), (3, Some(1)));
    let changes = next.changes.unwrap();
    assert_eq!((changes.from, changes.new_users), (2, 1));
    assert!(refresh(&stores).run().await.unwrap().already_done);
    // A training has other factors, so that a refresh of it is another job.
    job(&stores).hidden_dimension(40).run().await.unwrap();
    let of_training = refresh(&stores).run().await.unwrap();
    assert_eq!((of_training.version, of_training.model.refreshed_from), (5, Some(4)));
}

#[tokio::test]
async fn a_chain_of_refreshes_threads_and_force_give_the_same_bytes() {
    let stores = small_data().await;
    trained(&stores).await;
    for (part, user) in [(1, "visitor"), (2, "guest")] {
        add(&stores, part, &events_of(user, part, 8)).await;
        refresh(&stores).run().await.unwrap();
    }
    for threads in [1, 4] {
        let from_training = RefreshJob::new("memory:///affinity@1").interactions("memory:///events/");
        from_training.stores(stores.clone()).threads(Some(threads)).force(true).run().await.unwrap();
    }
    let of =
        async |version: u64| hashes(&open(&stores, &format!("memory:///affinity@{version}")).await.unwrap().commit);
    let third: BTreeMap<String, String> = of(3).await;
    assert_ne!(of(2).await, third);
    assert_eq!((of(4).await, of(5).await), (third.clone(), third));
}

#[tokio::test]
async fn a_refresh_keeps_the_rules_by_which_events_count() {
    let forged = forge(|files| {
        let (bytes, _) = files.get_mut("model.json").unwrap();
        let mut card: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        card["events"]["event_types"] = serde_json::json!(["purchase"]);
        *bytes = serde_json::to_vec(&card).unwrap().into();
    })
    .await;
    // The data have no such column, which only a filter that is in force can miss.
    let error = refresh(&forged).run().await.unwrap_err();
    assert!(error.to_string().contains("EVENT_TYPE"), "{error}");
}

#[tokio::test]
async fn data_that_end_before_those_of_the_version_are_refused_with_both_moments() {
    let stores = small_data().await;
    trained(&stores).await;
    let before = objects(&stores, "memory:///affinity").await;
    let mut rows = planted(240, ITEMS, 12);
    rows.retain(|row| row.2 < 1_700_000_000 + 10 * DAY);
    let newest = rows.iter().map(|row| row.2).max().unwrap();
    add(&stores, 0, &rows).await;
    let error = refresh(&stores).run().await.unwrap_err();
    let known = open(&stores, "memory:///affinity").await.unwrap().model.last_interaction;
    let [newest, known] = [newest, known].map(item_affinity_solution::moment);
    assert!(newest.starts_with("2023-11-24 ") && known.starts_with("2023-11-26 "), "{newest} {known}");
    let expected = format!(
        "ERR_REFRESH_OLDER_DATA: the interactions end at {newest}, those of the version at {known}; \
         file=memory:///affinity@1; name the whole history up to now"
    );
    assert_eq!((error.to_string(), error.kind()), (expected, ErrorKind::BadInput));
    assert_eq!(objects(&stores, "memory:///affinity").await, before);
}

#[tokio::test]
async fn data_of_other_items_and_locations_without_a_solution_are_refused() {
    let stores = small_data().await;
    let error = refresh(&stores).run().await.unwrap_err();
    assert!(error.to_string().starts_with("ERR_NO_VERSION"), "{error}");
    trained(&stores).await;
    let mut rows = planted(240, ITEMS, 12);
    rows.iter_mut().for_each(|row| row.1.insert(0, 'x'));
    add(&stores, 0, &rows).await;
    let error = refresh(&stores).run().await.unwrap_err();
    assert!(matches!(&error, Error::NoKnownItem { interactions: 2880, .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::BadInput);
    let inside = RefreshJob::new("memory:///events/affinity").interactions("memory:///events/").stores(stores.clone());
    assert!(matches!(inside.run().await.unwrap_err(), Error::OutputInInput { .. }));
}

#[tokio::test]
async fn a_version_that_does_not_say_what_its_attributes_of_users_are_worth_is_refused() {
    let stores = forge(|files| {
        let (bytes, _) = files.get_mut("model.json").unwrap();
        let mut card: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        card["user_attributes"] = serde_json::json!(["AGE", "COUNTRY"]);
        *bytes = serde_json::to_vec(&card).unwrap().into();
    })
    .await;
    let error = refresh(&stores).run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadInput);
    let text = error.to_string();
    assert!(text.contains("(AGE,COUNTRY); file=memory:///affinity@2; train again"), "{text}");
    // The version before it has none.
    let pinned = RefreshJob::new("memory:///affinity@1").interactions("memory:///events/").stores(stores.clone());
    assert_eq!(pinned.run().await.unwrap().version, 3);
}

#[tokio::test]
async fn only_new_events_instead_of_the_whole_history_are_warned_of() {
    let stores = small_data().await;
    trained(&stores).await;
    let mut rows = planted(100, ITEMS, 12);
    rows.push(("visitor".to_owned(), item(1), LATER));
    add(&stores, 0, &rows).await;
    let heard = Arc::new(Listens::default());
    let report = refresh(&stores).observer(heard.clone()).run().await.unwrap();
    assert_eq!((report.changes.unwrap().new_users, report.changes.unwrap().gone_users), (1, 140));
    let warnings = heard.warnings.lock().unwrap();
    assert!(warnings.iter().any(|text| text.contains("140 of the 240 users of version 1")), "{warnings:?}");
}

/// Trains with other settings at the moment of the commit.
struct Interferes {
    stores: Stores,
    done: Mutex<bool>,
}

impl Observer for Interferes {
    fn stage(&self, stage: Stage) {
        if stage.name == "committing" && !std::mem::replace(&mut *self.done.lock().unwrap(), true) {
            let other = job(&self.stores).recipe(small_recipe()).hidden_dimension(40).run();
            let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let version = std::thread::spawn(move || runtime().block_on(other).unwrap().version).join().unwrap();
            assert_eq!(version, 2);
        }
    }
}

#[tokio::test]
async fn a_version_that_comes_in_between_makes_a_refresh_give_way() {
    let stores = small_data().await;
    trained(&stores).await;
    let observer = Arc::new(Interferes { stores: stores.clone(), done: Mutex::new(false) });
    let error = refresh(&stores).observer(observer).run().await.unwrap_err();
    assert_eq!((error.kind(), error.kind().exit_code()), (ErrorKind::Conflict, 6), "{error}");
    let newest = open(&stores, "memory:///affinity").await.unwrap();
    assert_eq!((newest.commit.version, newest.model.recipe.hidden_dimension), (2, 40));
    // Again, it builds on that one.
    let again = refresh(&stores).run().await.unwrap();
    assert_eq!((again.version, again.model.refreshed_from), (3, Some(2)));
}

/// Stops the job when the users are folded in.
struct Stops(CancellationToken);

impl Observer for Stops {
    fn stage(&self, stage: Stage) {
        if stage.name == "folding in users" {
            self.0.cancel();
        }
    }
}

#[tokio::test]
async fn a_cancelled_refresh_leaves_nothing() {
    let stores = small_data().await;
    trained(&stores).await;
    add(&stores, 1, &events_of("visitor", 1, 8)).await;
    let before = objects(&stores, "memory:///affinity").await;
    let token = CancellationToken::new();
    let job = refresh(&stores).cancellation(token.clone()).observer(Arc::new(Stops(token.clone())));
    assert!(job.run().await.unwrap_err().is_cancelled());
    assert!(refresh(&stores).cancellation(token).run().await.unwrap_err().is_cancelled());
    assert_eq!(objects(&stores, "memory:///affinity").await, before);
}

#[tokio::test]
async fn the_data_of_the_training_give_the_states_of_the_training() {
    let stores = small_data().await;
    trained(&stores).await;
    let report = refresh(&stores).run().await.unwrap();
    let changes = report.changes.unwrap();
    assert_eq!((changes.new_users, changes.gone_users, changes.left_out_interactions), (0, 0, 0));
    assert_states_of_the_training(&stores).await;
}

/// Version 2, a refresh over the data of version 1, has the bytes of the training.
pub(crate) async fn assert_states_of_the_training(stores: &Stores) {
    let of = async |version: u64| hashes(&open(stores, &format!("memory:///affinity@{version}")).await.unwrap().commit);
    let (mut training, mut refreshed) = (of(1).await, of(2).await);
    // The card says what was refreshed; the states are the same bytes.
    assert_ne!(training.remove("model.json"), refreshed.remove("model.json"));
    assert_eq!(training, refreshed);
}

#[tokio::test]
async fn events_in_any_order_and_layout_refresh_to_the_same_bytes() {
    let files = async |parts: usize, shuffled: bool| {
        let stores = small_data().await;
        trained(&stores).await;
        let mut rows = planted(240, ITEMS, 12);
        rows.extend(events_of("visitor", 3, 8));
        if shuffled {
            Random(5).shuffle(&mut rows);
        }
        for (part, rows) in rows.chunks(rows.len().div_ceil(parts)).enumerate() {
            add(&stores, part, &rows.to_vec()).await;
        }
        refresh(&stores).run().await.unwrap();
        hashes(&open(&stores, "memory:///affinity").await.unwrap().commit)
    };
    assert_eq!(files(1, false).await, files(3, true).await);
}
