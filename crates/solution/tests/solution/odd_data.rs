//! Data that are odd but no reason to stop: each is trained on, and what is odd about it is said.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use item_affinity_ingest::AttributeSelection;
use item_affinity_model::{ItemAffinity, Regime, TimeProtocol};
use item_affinity_solution::{EvaluationJob, Protocol, SolutionVersion, TrainingJob, TrainingReport, versions};
use item_affinity_storage::{ErrorKind, Location, Stores};

use crate::jobs::Listens;
use crate::planted::{Random, Rows, job, objects, parquet, planted, put, small_recipe, table, texts};

const START: i64 = 1_700_000_000;
const DAY: i64 = 86_400;

struct Said {
    report: TrainingReport,
    warnings: Vec<String>,
    notes: Vec<String>,
}

impl Said {
    fn warned(&self, words: &str) -> bool {
        self.warnings.iter().any(|warning| warning.contains(words))
    }

    fn warned_in_card(&self, words: &str) -> bool {
        self.report.model.warnings.iter().any(|warning| warning.contains(words)) && self.warned(words)
    }
}

/// Trains on rows, and checks that the version can be read and holds nothing but numbers.
async fn train(rows: &Rows, change: impl FnOnce(TrainingJob) -> TrainingJob) -> (Stores, Said) {
    let stores = Stores::in_memory();
    put(&stores, "memory:///events/part-0.parquet", parquet(rows)).await;
    let said = run(&stores, change(job(&stores))).await;
    (stores, said)
}

async fn run(stores: &Stores, job: TrainingJob) -> Said {
    let observer = Arc::new(Listens::default());
    let report = job.observer(observer.clone()).run().await.unwrap();
    let version = SolutionVersion::open(stores, &report.solution).await.unwrap();
    let users = version.user_states(stores).await.unwrap();
    for (factors, log_odds) in [(&version.items.factors, &version.items.log_odds), (&users.factors, &users.log_odds)] {
        assert!(factors.iter().chain(log_odds).all(|number| number.is_finite()));
    }
    let texts = |of: &std::sync::Mutex<Vec<String>>| of.lock().unwrap().clone();
    Said { report, warnings: texts(&observer.warnings), notes: texts(&observer.notes) }
}

fn small(job: TrainingJob) -> TrainingJob {
    job.allow_small_data(true)
}

#[tokio::test]
async fn where_every_pair_repeats_new_pairs_never_happen() {
    let once = planted(240, 40, 12);
    let again = once.iter().map(|(user, item, time)| (user.clone(), item.clone(), time + 20 * DAY));
    let rows: Rows = once.iter().cloned().chain(again).collect();
    let (_, said) = train(&rows, |job| job).await;
    assert_eq!(said.report.model.propensity.new_pairs, Regime::Never);
    assert!(matches!(said.report.model.propensity.repeat_pairs, Regime::Fitted { .. }));
    assert!(said.warned_in_card("no pairs without history interacted in the held-out window"), "{:?}", said.warnings);
}

#[tokio::test]
async fn one_user_or_one_item_or_one_event_trains_when_small_data_is_allowed() {
    let hourly = |n: i64, user: String, item: String| (user, item, START + n * 3_600);
    let one_user: Rows = (0..200).map(|n| hourly(n, "u".to_owned(), format!("i{}", n % 17))).collect();
    let one_item: Rows = (0..200).map(|n| hourly(n, format!("u{}", n % 17), "i".to_owned())).collect();
    let one_event: Rows = vec![hourly(0, "u".to_owned(), "i".to_owned())];
    for (rows, users, items, words) in [
        (one_user, 1, 17, "TOO_FEW_USERS: 1 users"),
        (one_item, 17, 1, "ONE_ITEM: "),
        (one_event, 1, 1, "no time could be held out"),
    ] {
        let (stores, said) = train(&rows, small).await;
        assert_eq!((said.report.model.users, said.report.model.items), (users, items));
        assert!(said.warned(words), "{words}: {:?}", said.warnings);
        // Pairs of items with too few users to learn from are unknown, not impossible.
        assert!(!matches!(said.report.model.propensity.repeat_pairs, Regime::Never), "{words}");
        let evaluation = EvaluationJob::new("memory:///events/").recipe(small_recipe()).stores(stores.clone());
        let both = evaluation.protocols([Protocol::Time, Protocol::Personalize]).allow_small_data(true);
        let report = both.run().await.unwrap();
        let text = serde_json::to_string(&(&report.time, &report.personalize)).unwrap();
        // Of all that is optional only the attributes are missing.
        let text = text.replace(r#""side":{"items":null,"users":null}"#, "");
        assert!(!text.contains("null"), "a number that JSON has no word for: {text}");
        // Without the permission it is the refusal of the report.
        let refused = job(&stores).force(true).run().await.unwrap_err();
        assert!(refused.to_string().starts_with("ERR_TOO_LITTLE_DATA: "), "{refused}");
    }
}

#[tokio::test]
async fn windows_of_any_length_are_learnt_from_or_said_to_be_none() {
    let base = planted(240, 40, 12);
    let with =
        |days: f64| move |job: TrainingJob| job.recipe(ItemAffinity { horizon_days: Some(days), ..small_recipe() });
    let window = |said: &Said| said.report.model.propensity.window.unwrap();
    let (_, long) = train(&base, with(36_500.0)).await;
    assert!(window(&long).shortened);
    assert!(long.warned_in_card("the horizon of 3153600000 s is long for this history"), "{:?}", long.warnings);
    let (_, short) = train(&base, with(0.000_1)).await;
    assert_eq!(window(&short).until - window(&short).from, 9);
    assert!(short.warned_in_card("too few pairs without history interacted"), "{:?}", short.warnings);
    // Ten empty years lie before the last event: its window holds nobody else.
    let mut gap = base.clone();
    gap.push(("user-00000".to_owned(), "item-001".to_owned(), START + 3_650 * DAY));
    let (_, gap) = train(&gap, with(1.0)).await;
    assert!(gap.warned_in_card("no pairs with history interacted in the held-out window"), "{:?}", gap.warnings);
    assert!(gap.warned("TIMESTAMP_FUTURE: times more than a day ahead of this clock; count=1 "), "{:?}", gap.warnings);
}

#[tokio::test]
async fn times_to_come_are_counted_and_count_as_given() {
    let base = planted(240, 40, 12);
    let ahead: Rows = base.iter().map(|(user, item, time)| (user.clone(), item.clone(), time + 14_600 * DAY)).collect();
    let (_, said) = train(&ahead, |job| job).await;
    assert!(
        said.warned(&format!("TIMESTAMP_FUTURE: times more than a day ahead of this clock; count={} ", base.len()))
    );
    let (_, plain) = train(&base, |job| job).await;
    assert_eq!(said.report.model.as_of - plain.report.model.as_of, 14_600 * DAY);
    assert_eq!(said.report.model.propensity.new_pairs, plain.report.model.propensity.new_pairs);
}

#[tokio::test]
async fn figures_of_train_evaluate_are_those_of_the_evaluation() {
    let (stores, said) = train(&planted(600, 40, 12), |job| job.evaluate(Some(TimeProtocol::default()))).await;
    let alone =
        EvaluationJob::new("memory:///events/").recipe(small_recipe()).stores(stores.clone()).run().await.unwrap();
    let card = &said.report.model;
    assert!(card.evaluation.is_some());
    assert_eq!(card.evaluation, alone.time);
    let of_model = &card.evaluation.as_ref().unwrap().new_pairs.rankers[0];
    assert_eq!(card.metrics["new_pairs_precision_at_1_percent"], of_model.precision);
    assert_eq!(card.metrics.len(), 6);
    let listed = versions(&stores, &Location::parse("memory:///affinity").unwrap()).await.unwrap();
    assert_eq!(listed[0].metrics, card.metrics);
    // The figures change nothing of what was trained.
    let plain = run(&stores, job(&stores).force(true)).await.report.model;
    assert_eq!(plain.evaluation, None);
    assert_eq!((plain.propensity, plain.loss), (card.propensity.clone(), card.loss.clone()));
}

fn item_ids(items: usize) -> ArrayRef {
    texts((0..items).map(|item| format!("item-{item:03}")))
}

async fn train_with_items(rows: &Rows, items: Vec<u8>) -> Said {
    let stores = Stores::in_memory();
    put(&stores, "memory:///events/part-0.parquet", parquet(rows)).await;
    put(&stores, "memory:///items.parquet", items).await;
    run(&stores, job(&stores).items("memory:///items.parquet")).await
}

#[tokio::test]
async fn attributes_that_help_stand_in_the_card_and_others_are_decided_against() {
    // So few events an item that its group is hard to see.
    let rows = planted(900, 400, 4);
    let mut random = Random(3);
    let kind = |of: &mut dyn FnMut(usize) -> usize| texts((0..400).map(|item| format!("kind-{}", of(item))));
    let told = kind(&mut |item| item % 4);
    let said = train_with_items(&rows, table(vec![("item_id", item_ids(400)), ("kind", told)])).await;
    let decision = said.report.model.side.items.clone().unwrap();
    assert!(decision.used && decision.with > decision.without, "{decision:?}");
    assert_eq!(said.report.model.item_attributes, ["kind"]);
    assert!(
        said.notes.iter().any(|note| note.starts_with("attributes of items are used: soft recall")),
        "{:?}",
        said.notes
    );
    assert_eq!((said.report.model.side.users, said.report.model.user_attributes), (None, vec![]));

    let noise = kind(&mut |_| random.below(4));
    let said = train_with_items(&rows, table(vec![("item_id", item_ids(400)), ("kind", noise)])).await;
    let decision = said.report.model.side.items.clone().unwrap();
    assert!(!decision.used, "{decision:?}");
    assert_eq!(said.report.model.item_attributes, Vec::<String>::new());
    assert!(
        said.notes.iter().any(|note| note.starts_with("attributes of items are not used, since")),
        "{:?}",
        said.notes
    );
}

#[tokio::test]
async fn what_is_odd_about_attributes_is_counted_and_said() {
    let numbers = |make: &dyn Fn(usize) -> f64| Arc::new(Float64Array::from_iter_values((0..40).map(make))) as ArrayRef;
    let kinds = texts((0..40).map(|item| format!("kind-{}", item % 4)));
    let with = |name: &'static str, column: ArrayRef| {
        table(vec![("item_id", item_ids(40)), ("kind", kinds.clone()), (name, column)])
    };
    let odd = |n: usize| {
        if n.is_multiple_of(20) {
            f64::NAN
        } else if n == 7 {
            f64::NEG_INFINITY
        } else {
            n as f64 / 3.0
        }
    };
    let strangers = texts((0..40).map(|item| format!("item-{:03}", item + 30)));
    for (name, items, says) in [
        (
            "all null",
            with("brand", Arc::new(StringArray::from(vec![None::<&str>; 40]))),
            "ATTRIBUTE_EMPTY: no row has a value; count=40 column=brand; the column is not used",
        ),
        (
            "all distinct",
            with("title", texts((0..40).map(|item| format!("title {item}")))),
            "ATTRIBUTE_DISTINCT: the values hardly repeat, as in free text; count=40 column=title",
        ),
        ("all equal", with("shop", texts((0..40).map(|_| "one".to_owned()))), "ATTRIBUTE_CONSTANT: "),
        (
            "not finite",
            with("price", numbers(&odd)),
            "NUMBERS_NOT_FINITE: numbers that are NaN or infinite; count=3 column=price; they count as missing",
        ),
        ("no number at all", with("price", numbers(&|_| f64::NAN)), "ATTRIBUTE_EMPTY: no row has a value; count=40"),
        ("twice the column", with("Kind", kinds.clone()), "COLUMN_REPEATED: two columns of a file have this name"),
        (
            "unknown ids",
            table(vec![("item_id", strangers.clone()), ("kind", kinds.clone())]),
            "ITEMS_WITHOUT_INTERACTIONS: 30 of 40 items in Items (75 %) have no interactions",
        ),
        (
            "ids without attributes",
            table(vec![("item_id", strangers), ("kind", kinds.clone())]),
            "ITEMS_UNKNOWN: 30 items of ",
        ),
        (
            "no attribute at all",
            table(vec![("item_id", item_ids(40))]),
            "NO_METADATA: Items has no column beside ITEM_ID",
        ),
    ] {
        let said = train_with_items(&planted(240, 40, 12), items).await;
        assert!(said.warned(says), "{name}: {:?}", said.warnings);
        let used = &said.report.model.item_attributes;
        assert!(used.iter().all(|column| column == "kind" || column == "price"), "{name}: {used:?}");
    }
}

#[tokio::test]
async fn infinite_attributes_of_users_train_too() {
    let rows = planted(240, 40, 12);
    let stores = Stores::in_memory();
    put(&stores, "memory:///events/part-0.parquet", parquet(&rows)).await;
    let age = (0..240).map(|user| if user == 0 { f64::INFINITY } else { 1e300 * f64::from(user) });
    let ids = texts((0..240).map(|user| format!("user-{user:05}")));
    let flags = Arc::new(BooleanArray::from_iter((0..240).map(|user| (user % 3 > 0).then_some(user % 2 == 0))));
    let columns =
        vec![("user_id", ids), ("age", Arc::new(Float64Array::from_iter_values(age)) as ArrayRef), ("flag", flags)];
    put(&stores, "memory:///users.parquet", table(columns)).await;
    let said = run(&stores, job(&stores).users("memory:///users.parquet")).await;
    assert!(
        said.warned("NUMBERS_NOT_FINITE: numbers that are NaN or infinite; count=1 column=age"),
        "{:?}",
        said.warnings
    );
    assert!(
        said.warned("ATTRIBUTE_CONSTANT: the numbers have no spread that can be told; count=239 column=age"),
        "{:?}",
        said.warnings
    );
    assert!(said.report.model.side.users.is_some());
}

#[tokio::test]
async fn columns_that_nobody_has_are_refused_by_name() {
    let stores = Stores::in_memory();
    put(&stores, "memory:///events/part-0.parquet", parquet(&planted(240, 40, 12))).await;
    let kinds = texts((0..40).map(|item| format!("kind-{}", item % 4)));
    put(&stores, "memory:///items.parquet", table(vec![("item_id", item_ids(40)), ("kind", kinds)])).await;
    let ids = texts((0..240).map(|user| format!("user-{user:05}")));
    let ages = Arc::new(Int64Array::from_iter_values((0..240).map(|user| user % 7)));
    put(&stores, "memory:///users.parquet", table(vec![("user_id", ids), ("age", ages)])).await;
    let choose = |include: &[&str], exclude: &[&str]| {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        job(&stores).attributes(AttributeSelection { include: names(include), exclude: names(exclude) })
    };
    let items = |job: TrainingJob| job.items("memory:///items.parquet");
    let both = |job: TrainingJob| items(job).users("memory:///users.parquet");
    for (job, says) in [
        (
            items(choose(&["brand"], &[])),
            "--include-columns: Items has no column \"brand\" beside its id; columns are [kind]",
        ),
        (items(choose(&[], &["age"])), "--exclude-columns: Items has no column \"age\""),
        (both(choose(&["kind", "brand"], &[])), "--include-columns: Items has no column \"brand\""),
        (both(choose(&[], &["brand"])), "--exclude-columns: Items has no column \"brand\""),
        (choose(&["kind"], &[]), "--include-columns: there are neither Items nor Users"),
        (choose(&[], &["kind"]), "--exclude-columns: there are neither Items nor Users"),
    ] {
        let error = job.run().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains(says), "{error}");
    }
    assert!(objects(&stores, "memory:///affinity").await.is_empty());
    // Each name goes to the table that has it.
    let said = run(&stores, both(choose(&["AGE", " kind"], &[]))).await;
    assert!(said.report.model.side.items.is_some() && said.report.model.side.users.is_some());
    let said = run(&stores, both(choose(&[], &["age"]))).await;
    assert!(said.report.model.side.items.is_some() && said.report.model.side.users.is_none());
}
