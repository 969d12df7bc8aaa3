//! Laws of filters: what is written reads back, nothing panics, and the engine keeps the users that the words say.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use datafusion::execution::context::SessionContext;
use proptest::prelude::*;

use crate::filter_error::FilterError;
use crate::filter_expression::{Action, Comparison, Condition, Expression, FilterExpression, Subject, Test, Value};
use crate::filter_predicate::UserColumn;
use crate::filter_tokens::{Number, quote};
use crate::filter_values::filter_values;

/// Texts that would break out of a filter that was formatted into SQL, or out of quotes, patterns and lists.
const HOSTILE: [&str; 14] = [
    "DE",
    "de",
    "",
    " ",
    "'",
    "\"",
    "\\",
    "\\\"",
    "'; DROP TABLE users; --",
    "x') OR (1=1",
    "\" ) | INCLUDE UserID WHERE Users.COUNTRY IN (\"DE",
    "%_*",
    "$COUNTRY",
    "naïve\n\u{202e}😀\0",
];

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![proptest::sample::select(&HOSTILE[..]).prop_map(str::to_owned), any::<String>()]
}

fn any_number() -> impl Strategy<Value = Number> {
    prop_oneof![
        any::<i64>().prop_map(Number::Whole),
        (-50i64..50).prop_map(Number::Whole),
        any::<f64>().prop_filter("finite", |real| real.is_finite()).prop_map(Number::Real),
    ]
}

fn value<T: std::fmt::Debug + Clone>(literal: impl Strategy<Value = T>) -> impl Strategy<Value = Value<T>> {
    prop_oneof![3 => literal.prop_map(Value::Literal), 1 => "[A-Z][A-Z_0-9]{0,5}".prop_map(Value::Parameter)]
}

fn any_condition() -> impl Strategy<Value = Condition> {
    let comparison = proptest::sample::select(&Comparison::ALL[..]).prop_map(|(_, comparison)| comparison);
    let inside = || {
        (any::<bool>(), prop::collection::vec(value(any_text().prop_map(|text| text.chars().take(20).collect())), 1..4))
            .prop_map(|(negated, values)| Test::In { negated, values })
    };
    let field = "[A-Za-z_][A-Za-z0-9_]{0,6}".prop_map(Subject::Field);
    let compare = (comparison, value(any_number())).prop_map(|(comparison, value)| Test::Compare { comparison, value });
    prop_oneof![
        (field, prop_oneof![inside(), compare]).prop_map(|(subject, test)| Condition { subject, test, position: 0 }),
        inside().prop_map(|test| Condition { subject: Subject::EventType, test, position: 0 }),
    ]
}

fn any_filter(condition: impl Strategy<Value = Condition>) -> impl Strategy<Value = FilterExpression> {
    let alternatives = prop::collection::vec(prop::collection::vec(condition, 1..3), 1..3);
    let action = prop_oneof![Just(Action::Include), Just(Action::Exclude)];
    prop::collection::vec((action, alternatives), 1..4).prop_map(|parts| {
        let expressions = parts.into_iter().map(|(action, mut any_of)| {
            // All conditions of an expression ask for the data set of the first one.
            let of_users = matches!(any_of[0][0].subject, Subject::Field(_));
            any_of.iter_mut().for_each(|all_of| {
                all_of.retain(|condition| matches!(condition.subject, Subject::Field(_)) == of_users);
            });
            any_of.retain(|all_of| !all_of.is_empty());
            Expression { action, any_of }
        });
        FilterExpression { expressions: expressions.collect() }
    })
}

proptest! {
    #[test]
    fn a_filter_reads_back_as_it_was_written(filter in any_filter(any_condition())) {
        let text = filter.to_string();
        prop_assume!(text.chars().count() <= 2_500);
        prop_assert_eq!(text.parse::<FilterExpression>(), Ok(filter));
    }

    #[test]
    fn any_text_is_read_or_refused_at_one_of_its_characters(
        text in prop_oneof![any::<String>(), "(INCLUDE|EXCLUDE|UserID|WHERE|Users|\\.|IN|NOT|AND|[ \"(),|<=>$0-9eE+-])*"],
    ) {
        if let Err(FilterError::Syntax { position, .. }) = text.parse::<FilterExpression>() {
            prop_assert!((1..=text.chars().count() + 1).contains(&position), "{position}");
        }
    }

    #[test]
    fn values_arrive_as_they_are(texts in prop::collection::vec(any_text(), 1..4)) {
        let filter = "INCLUDE UserID WHERE Users.COUNTRY IN ($C)".parse::<FilterExpression>().unwrap();
        let written = texts.iter().map(|text| quote(text)).collect::<Vec<_>>().join(",");
        let line = serde_json::json!({ "itemId": "1", "filterValues": { "C": written } });
        let bound = filter.bind(&filter_values(Some(&line)).unwrap()).unwrap();
        let expected = texts.into_iter().map(Value::Literal).collect();
        prop_assert_eq!(&bound.0.expressions[0].any_of[0][0].test, &Test::In { negated: false, values: expected });
    }
}

/// Countries, also missing, also lists, and ages, also missing.
fn users() -> (Vec<Option<String>>, Vec<Option<i64>>) {
    let mut countries = HOSTILE.iter().map(|text| Some((*text).to_owned())).collect::<Vec<_>>();
    countries.extend([None, Some("DE|FR".to_owned()), Some("FR|'|\"".to_owned()), Some("DEX".to_owned())]);
    let ages = (0..countries.len() as i64).map(|n| (n % 5 > 0).then_some(n * 3 - 20)).collect();
    (countries, ages)
}

/// What the words say of one user; none where a value is missing.
fn holds(condition: &Condition, country: Option<&str>, age: Option<i64>) -> Option<bool> {
    match &condition.test {
        Test::In { negated, values } => {
            let country = country?;
            let found = values.iter().any(|value| match value {
                Value::Literal(text) => {
                    country == text || (country.contains('|') && country.split('|').any(|p| p == text))
                }
                Value::Parameter(_) => unreachable!("the filter is bound"),
            });
            Some(found != *negated)
        }
        Test::Compare { comparison, value: Value::Literal(number) } => {
            let (age, number) = match number {
                Number::Whole(whole) => (age? as f64, *whole as f64),
                Number::Real(real) => (age? as f64, *real),
            };
            Some(match comparison {
                Comparison::Equal => age == number,
                Comparison::NotEqual => age != number,
                Comparison::Less => age < number,
                Comparison::LessOrEqual => age <= number,
                Comparison::Greater => age > number,
                Comparison::GreaterOrEqual => age >= number,
            })
        }
        Test::Compare { .. } => unreachable!("the filter is bound"),
    }
}

/// AND and OR of answers that may be unknown.
fn holds_all(mut answers: impl Iterator<Item = Option<bool>> + Clone) -> Option<bool> {
    if answers.clone().any(|answer| answer == Some(false)) {
        return Some(false);
    }
    answers.all(|answer| answer.is_some()).then_some(true)
}

fn kept(filter: &FilterExpression, country: Option<&str>, age: Option<i64>) -> bool {
    let any = |action: Action| {
        filter.expressions.iter().filter(|e| e.action == action).any(|expression| {
            expression
                .any_of
                .iter()
                .any(|all_of| holds_all(all_of.iter().map(|c| holds(c, country, age))) == Some(true))
        })
    };
    let has_include = filter.expressions.iter().any(|e| e.action == Action::Include);
    (!has_include || any(Action::Include)) && !any(Action::Exclude)
}

fn over_users() -> impl Strategy<Value = Condition> {
    let text = || proptest::sample::select(&HOSTILE[..]).prop_map(|text| Value::Literal(text.to_owned()));
    let inside = (any::<bool>(), prop::collection::vec(text(), 1..4)).prop_map(|(negated, values)| Condition {
        subject: Subject::Field("Country".to_owned()),
        test: Test::In { negated, values },
        position: 0,
    });
    let comparison = proptest::sample::select(&Comparison::ALL[..]);
    let number =
        prop_oneof![(-30i64..40).prop_map(Number::Whole), (-30i64..40).prop_map(|n| Number::Real(n as f64 / 2.0))];
    let compare = (comparison, number).prop_map(|((_, comparison), number)| Condition {
        subject: Subject::Field("AGE".to_owned()),
        test: Test::Compare { comparison, value: Value::Literal(number) },
        position: 0,
    });
    prop_oneof![inside, compare]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_engine_keeps_the_users_that_the_words_say(filter in any_filter(over_users())) {
        let (countries, ages) = users();
        let expected = countries.iter().zip(&ages).map(|(c, a)| kept(&filter, c.as_deref(), *a)).collect::<Vec<_>>();
        let numbers = (0..countries.len() as i64).collect::<Vec<_>>();
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("user_id", Arc::new(Int64Array::from(numbers)) as ArrayRef, false),
            ("country", Arc::new(StringArray::from(countries)) as ArrayRef, true),
            ("age", Arc::new(Int64Array::from(ages)) as ArrayRef, true),
        ]).unwrap();
        let filter = filter.to_string().parse::<FilterExpression>().unwrap();
        let bound = filter.bind(&BTreeMap::new()).unwrap();
        let users = SessionContext::new().read_batch(batch).unwrap();
        let schema = users.schema().clone();
        let columns = schema.columns().into_iter().zip(schema.fields().iter())
            .map(|(column, field)| UserColumn { column, data_type: field.data_type().clone() })
            .collect::<Vec<_>>();
        let users = users.filter(bound.predicate(&columns).unwrap()).unwrap();
        let rows = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(users.collect()).unwrap();
        let mut found = vec![false; expected.len()];
        for batch in rows {
            let ids = batch.column(0).as_primitive::<datafusion::arrow::datatypes::Int64Type>();
            ids.values().iter().for_each(|id| found[usize::try_from(*id).unwrap()] = true);
        }
        prop_assert_eq!(found, expected, "{}", filter);
    }
}

fn refusal(text: &str) -> String {
    text.parse::<FilterExpression>().unwrap_err().to_string()
}

#[test]
fn examples_of_amazon_personalize_are_read_in_any_case_and_spacing() {
    for (text, written) in [
        (
            "INCLUDE UserID WHERE Users.MEMBERSHIP_STATUS IN ($MEMBERSHIP)",
            "INCLUDE UserID WHERE Users.MEMBERSHIP_STATUS IN ($MEMBERSHIP)",
        ),
        ("EXCLUDE UserID WHERE Users.AGE < $AGE", "EXCLUDE UserID WHERE Users.AGE < $AGE"),
        (
            "include userid\n where interactions.event_type in(\"click\",\"rating\")",
            "INCLUDE UserID WHERE Interactions.EVENT_TYPE IN (\"click\", \"rating\")",
        ),
        (
            "Exclude UserID WHERE USERS.a NOT IN (\"x\") OR Users.b>=-1.50 and Users.c=2|INCLUDE UserID WHERE Users.d!=3",
            "EXCLUDE UserID WHERE Users.a NOT IN (\"x\") OR Users.b >= -1.5 AND Users.c = 2 | INCLUDE UserID WHERE Users.d != 3",
        ),
    ] {
        assert_eq!(text.parse::<FilterExpression>().unwrap().to_string(), written);
    }
}

#[test]
fn errors_name_the_position_and_what_is_allowed_there() {
    let start = "INCLUDE UserID WHERE ";
    for (text, says) in [
        (String::new(), "0 characters, a filter has 1 to 2500"),
        (format!("{start}{}", "x".repeat(2_500)), "2521 characters"),
        ("REMOVE UserID".into(), "found 'REMOVE'; position=1; expected INCLUDE or EXCLUDE"),
        ("INCLUDE ItemID WHERE".into(), "found 'ItemID'; position=9; expected UserID"),
        ("INCLUDE UserID".into(), "found the end; position=15; expected WHERE"),
        (format!("{start}Items.X IN (\"a\")"), "found 'Items'; position=22; expected Users."),
        (format!("{start}(Users.X = 1)"), "found '('; position=22; expected Users."),
        (format!("{start}Interactions.VALUE > 3"), "found 'VALUE'; position=35; expected EVENT_TYPE"),
        (format!("{start}Users.X LIKE \"a\""), "found 'LIKE'; position=30; expected IN, NOT IN, ="),
        (format!("{start}Users.X = \"a\""), "found a text in quotes; position=32; expected a number or $NAME; texts"),
        (format!("{start}Users.X IN (3)"), "found a number; position=34; expected a text in \"double quotes\""),
        (format!("{start}Users.X IN (\"a\" \"b\")"), "position=38; expected ',' or ')'"),
        (format!("{start}Users.X IN (\"a)"), "a text whose quote is never closed; position=34"),
        (format!("{start}Users.X IN ('a')"), "the character \\'; position=34; expected words"),
        (format!("{start}Users.X = 1e999"), "no number; position=32"),
        (
            format!("{start}Users.X = 1 OR Interactions.EVENT_TYPE IN (\"a\")"),
            "a condition over Interactions; position=37",
        ),
        (format!("{start}Users.X = 1 IF CurrentUser.X = 1"), "found 'IF'; position=34; expected AND, OR, | or the end"),
    ] {
        let message = refusal(&text);
        assert!(message.starts_with("FILTER_INVALID: ") && message.contains(says), "{says}: {message}");
    }
}

#[test]
fn an_include_needs_its_values_and_an_exclude_does_without() {
    let filter =
        "INCLUDE UserID WHERE Users.A IN ($A) | EXCLUDE UserID WHERE Users.B < $B".parse::<FilterExpression>().unwrap();
    assert_eq!(filter.parameters(), ["A", "B"]);
    let bind = |line: serde_json::Value| filter_values(Some(&line)).and_then(|values| filter.bind(&values));
    let written = |line| bind(line).unwrap().0.to_string();
    assert_eq!(
        written(serde_json::json!({ "filterValues": { "A": "\"x\", \"y\"", "B": "30" } })),
        "INCLUDE UserID WHERE Users.A IN (\"x\", \"y\") | EXCLUDE UserID WHERE Users.B < 30"
    );
    assert_eq!(
        written(serde_json::json!({ "filterValues": { "A": "\"x\"" } })),
        "INCLUDE UserID WHERE Users.A IN (\"x\")"
    );
    let quoted = written(serde_json::json!({ "filterValues": { "A": "\"x\"", "B": "\"3.5\"" } }));
    assert!(quoted.ends_with("Users.B < 3.5"), "{quoted}");
    for (values, says) in [
        (serde_json::json!({}), "no value for $A, which an INCLUDE needs"),
        (
            serde_json::json!({ "a": "\"x\"" }),
            "unknown key \"a\" in filterValues; the filter has $A, $B; keys are case",
        ),
        (serde_json::json!({ "A": "x" }), "the value of $A: found 'x' at character 1"),
        (serde_json::json!({ "A": "\"x\"," }), "the value of $A: found the end"),
        (serde_json::json!({ "A": "" }), "the value of $A: found the end"),
        (serde_json::json!({ "A": "3" }), "the value of $A: a number where texts are asked for"),
        (serde_json::json!({ "A": "\"x\"", "B": "1,2" }), "the value of $B: 2 values where one is asked for"),
        (serde_json::json!({ "A": "\"x\"", "B": "\"old\"" }), "the value of $B: a text that is no number"),
        (serde_json::json!({ "A": ["x"] }), "a value of filterValues is no string"),
        (serde_json::json!("A"), "filterValues is no object"),
    ] {
        let message = bind(serde_json::json!({ "filterValues": values.clone() })).unwrap_err().to_string();
        assert!(message.starts_with("FILTER_VALUE: ") && message.contains(says), "{values}: {message}");
    }
}
