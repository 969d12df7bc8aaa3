//! How the values of one column become features.

use std::collections::HashMap;

use item_affinity_model::{AttributeColumn, Encoding, MOST_DEVIATIONS, Vocabulary};

use crate::attribute_values::{Column, codes_of, number_of};
use crate::error::{Error, Result, printable};
use crate::tally::Warning;

/// The metadata row of each id, where it has one.
pub(crate) type Rows = Vec<Option<u64>>;

/// Whole numbers of at most so many distinct values are categories only.
const FEW_NUMBERS: usize = 20;
/// Values of a column that become features, the most frequent ones.
const MOST_FEATURES: usize = 5_000;
/// Rows in which a value must occur.
const LEAST_ROWS: u32 = 2;
/// The share of rows with a value that must share it with another row: below it a column is text.
const LEAST_REPEATED: f64 = 0.1;
/// Whole numbers up to here are exact.
const MOST_WHOLE: f64 = 9_007_199_254_740_992.0;

/// Decides what a column becomes, and says what is left out.
pub(crate) fn encode(
    name: &str,
    column: &Column,
    rows: &Rows,
    columns: &mut Vec<AttributeColumn>,
    warnings: &mut Vec<Warning>,
) {
    let known: Vec<u64> = rows.iter().copied().flatten().collect();
    let mut drop = |code: &'static str, why: &str, count: usize| {
        let message = format!("{why}; count={count} column={}; the column is not used", printable(name));
        warnings.push(Warning::new(code, message));
    };
    match column {
        Column::Nothing => drop("ATTRIBUTE_EMPTY", "no row has a value", known.len()),
        Column::GivenUp { code, why } => drop(code, why, known.len()),
        Column::Text { names, ends, codes } => {
            let values = known.iter().map(|row| {
                let mut of_row = codes_of(ends, codes, *row).to_vec();
                of_row.sort_unstable();
                of_row.dedup();
                of_row
            });
            let values: Vec<Vec<u32>> = values.collect();
            let kept = choose(&values, names.len(), names_at(names), &mut drop);
            finish(name, kept, columns, warnings);
        }
        Column::Numbers(numbers) => {
            let values: Vec<f64> = known.iter().filter_map(|row| number_of(numbers, *row)).collect();
            let mut distinct = values.clone();
            distinct.sort_unstable_by(f64::total_cmp);
            distinct.dedup();
            let whole = values.iter().all(|value| value.fract() == 0.0 && value.abs() <= MOST_WHOLE);
            match distinct.len() {
                0 => return drop("ATTRIBUTE_EMPTY", "no row has a value", known.len()),
                1 if values.len() == known.len() || !whole => {
                    return drop("ATTRIBUTE_CONSTANT", "every row has the same value", known.len());
                }
                count if whole && count > FEW_NUMBERS && count == values.len() => {
                    return drop("ATTRIBUTE_DISTINCT", "no whole number occurs twice", count);
                }
                _ => {}
            }
            if !whole || distinct.len() > FEW_NUMBERS {
                let Some(encoding) = standardize(&values) else {
                    return drop("ATTRIBUTE_CONSTANT", "the numbers have no spread that can be told", values.len());
                };
                columns.push(AttributeColumn { name: name.to_string(), encoding });
            }
            if whole {
                let code = |value: f64| distinct.partition_point(|other| *other < value);
                let values: Vec<Vec<u32>> = known
                    .iter()
                    .map(|row| number_of(numbers, *row).and_then(|value| u32::try_from(code(value)).ok()))
                    .map(|code| code.into_iter().collect())
                    .collect();
                // As a number the column is used in any case.
                let few = distinct.len() <= FEW_NUMBERS;
                let mut quiet = |_: &'static str, _: &str, _: usize| {};
                let drop: &mut dyn FnMut(&'static str, &str, usize) = if few { &mut drop } else { &mut quiet };
                let text = |code: u32| distinct.get(code as usize).map(|value| whole_text(*value));
                let kept = choose(&values, distinct.len(), text, drop);
                finish(name, kept, columns, warnings);
            }
        }
    }
}

/// The categories that are kept, and how many are not because there are too many or too few rows of them.
#[derive(Default)]
struct Kept {
    values: Vec<String>,
    rare: usize,
    beyond: usize,
}

fn finish(name: &str, kept: Kept, columns: &mut Vec<AttributeColumn>, warnings: &mut Vec<Warning>) {
    if kept.values.is_empty() {
        return;
    }
    let shown = printable(name);
    if kept.rare > 0 {
        let message = format!("values of one row only; count={} column={shown}; they are not used", kept.rare);
        warnings.push(Warning::new("ATTRIBUTE_VALUES_RARE", message));
    }
    if kept.beyond > 0 {
        let message = format!(
            "values beyond the {MOST_FEATURES} most frequent; count={} column={shown}; they are not used",
            kept.beyond
        );
        warnings.push(Warning::new("ATTRIBUTE_VALUES_MANY", message));
    }
    columns.push(AttributeColumn { name: name.to_string(), encoding: Encoding::Categories { values: kept.values } });
}

/// Chooses categories by the rows that have them.
fn choose(
    values: &[Vec<u32>],
    names: usize,
    text: impl Fn(u32) -> Option<String>,
    drop: &mut dyn FnMut(&'static str, &str, usize),
) -> Kept {
    let mut rows_of = vec![0u32; names];
    for code in values.iter().flatten() {
        if let Some(count) = rows_of.get_mut(*code as usize) {
            *count += 1;
        }
    }
    let count = |code: u32| rows_of.get(code as usize).copied().unwrap_or(0);
    let with_value = values.iter().filter(|values| !values.is_empty()).count();
    let seen = rows_of.iter().filter(|rows| **rows > 0).count();
    if seen == 0 {
        drop("ATTRIBUTE_EMPTY", "no row has a value", values.len());
        return Kept::default();
    }
    if rows_of.iter().filter(|rows| **rows > 0).all(|rows| *rows as usize == values.len()) {
        drop("ATTRIBUTE_CONSTANT", "every row has the same value", values.len());
        return Kept::default();
    }
    let repeated = values.iter().filter(|values| values.iter().any(|code| count(*code) >= LEAST_ROWS)).count();
    #[allow(clippy::cast_precision_loss)] // rows are far below 2^53
    if (repeated as f64) < LEAST_REPEATED * with_value as f64 {
        drop("ATTRIBUTE_DISTINCT", "the values hardly repeat, as in free text", seen);
        return Kept::default();
    }
    let mut codes: Vec<u32> =
        (0..).zip(&rows_of).filter(|(_, rows)| **rows >= LEAST_ROWS).map(|(code, _)| code).collect();
    let rare = seen - codes.len();
    codes.sort_by_key(|code| (std::cmp::Reverse(count(*code)), *code));
    let beyond = codes.len().saturating_sub(MOST_FEATURES);
    codes.truncate(MOST_FEATURES);
    let mut kept: Vec<String> = codes.into_iter().filter_map(text).collect();
    kept.sort_unstable();
    Kept { values: kept, rare, beyond }
}

fn names_at(names: &Vocabulary) -> impl Fn(u32) -> Option<String> {
    |code| names.id(code).map(ToString::to_string)
}

fn whole_text(value: f64) -> String {
    // Adding zero makes −0 the 0 that it equals.
    format!("{:.0}", value + 0.0)
}

/// Mean and deviation; none when the deviation is rounding noise or does not fit.
fn standardize(values: &[f64]) -> Option<Encoding> {
    #[allow(clippy::cast_precision_loss)]
    let count = values.len() as f64;
    let mean = values.iter().map(|value| value / count).sum::<f64>();
    let deviation = values.iter().map(|value| (value - mean).powi(2) / count).sum::<f64>().sqrt();
    let told = deviation.is_finite() && deviation > 1e-12 * mean.abs() && deviation > 0.0;
    told.then_some(Encoding::Number { mean, deviation })
}

/// The features of one column by rows.
pub(crate) struct Features {
    ends: Vec<usize>,
    indices: Vec<u32>,
    weights: Vec<f32>,
}

impl Features {
    pub(crate) fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        (&self.indices[start..self.ends[row]], &self.weights[start..self.ends[row]])
    }
}

/// The features of each id in one column, numbered from `first`.
pub(crate) fn features_of(encoding: &Encoding, column: Option<&Column>, rows: &Rows, first: usize) -> Result<Features> {
    let mut out = Features { ends: Vec::with_capacity(rows.len()), indices: vec![], weights: vec![] };
    let numbered = |feature: usize| {
        let most = u64::from(u32::MAX);
        u32::try_from(feature).map_err(|_| {
            Error::from(item_affinity_model::Error::TooMany { name: "features", count: feature as u64, most })
        })
    };
    let feature_of: HashMap<&str, usize> = match encoding {
        Encoding::Categories { values } => values.iter().map(String::as_str).zip(first..).collect(),
        Encoding::Number { .. } => HashMap::new(),
    };
    // The feature of each code, so that texts are looked up once each.
    let of_code: Vec<Option<usize>> = match column {
        Some(Column::Text { names, .. }) => names.iter().map(|name| feature_of.get(name).copied()).collect(),
        _ => Vec::new(),
    };
    let mut found: Vec<usize> = Vec::new();
    for row in rows {
        found.clear();
        match (column, encoding, row) {
            (Some(Column::Text { ends, codes, .. }), Encoding::Categories { .. }, Some(row)) => {
                let codes = codes_of(ends, codes, *row);
                found.extend(codes.iter().filter_map(|code| of_code.get(*code as usize).copied().flatten()));
            }
            (Some(Column::Numbers(numbers)), Encoding::Categories { .. }, Some(row)) => {
                let text = number_of(numbers, *row).filter(|value| value.fract() == 0.0).map(whole_text);
                found.extend(text.and_then(|text| feature_of.get(text.as_str()).copied()));
            }
            (Some(Column::Numbers(numbers)), Encoding::Number { mean, deviation }, Some(row)) => {
                if let Some(value) = number_of(numbers, *row) {
                    let standard = ((value - mean) / deviation).clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS);
                    out.indices.push(numbered(first)?);
                    #[allow(clippy::cast_possible_truncation)]
                    out.weights.push(standard as f32);
                }
            }
            _ => {}
        }
        found.sort_unstable();
        found.dedup();
        #[allow(clippy::cast_precision_loss)]
        let weight = 1.0 / (found.len() as f32).sqrt();
        for feature in &found {
            out.indices.push(numbered(*feature)?);
            out.weights.push(weight);
        }
        out.ends.push(out.indices.len());
    }
    Ok(out)
}
