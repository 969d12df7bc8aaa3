//! Filters above a call that can be part of its ranking: fewer items, fewer users each, a higher least score.
//!
//! Each of them cuts an item away or the end of a segment, so the ranks of the rest stay as they are. A filter of users
//! would change them, and stays above; who takes part is said with `users`.

use std::collections::BTreeSet;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown};

/// What is left to be ranked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Narrowed {
    /// The only items that are asked for; none: all of the call.
    items: Option<BTreeSet<String>>,
    /// Users per item at most.
    ranks: Option<usize>,
    /// The least score.
    score: f32,
}

impl Default for Narrowed {
    fn default() -> Self {
        Self { items: None, ranks: None, score: f32::NEG_INFINITY }
    }
}

/// What one filter asks.
enum Filter {
    Items(BTreeSet<String>),
    Ranks(usize),
    Score(f32),
}

/// Which filters are taken as they are; the others stay above the call.
pub(crate) fn pushed(filters: &[&Expr]) -> Vec<TableProviderFilterPushDown> {
    let answer = |filter: &&Expr| match read(filter) {
        // Ranks above the only one that is wanted have to be found all the same.
        Some(_) if is_one_rank(filter) => TableProviderFilterPushDown::Inexact,
        Some(_) => TableProviderFilterPushDown::Exact,
        None => TableProviderFilterPushDown::Unsupported,
    };
    filters.iter().map(answer).collect()
}

impl Narrowed {
    /// All filters that were taken, and the number of rows that anybody will read.
    pub(crate) fn by(filters: &[Expr], limit: Option<usize>) -> Self {
        // So many users of one item are so many rows already.
        let mut narrowed = Self { ranks: limit, ..Self::default() };
        for filter in filters.iter().filter_map(read) {
            match filter {
                Filter::Items(items) => {
                    narrowed.items = Some(match narrowed.items.take() {
                        Some(others) => others.intersection(&items).cloned().collect(),
                        None => items,
                    });
                }
                Filter::Ranks(ranks) => narrowed.ranks = Some(narrowed.ranks.map_or(ranks, |r| r.min(ranks))),
                Filter::Score(score) => narrowed.score = narrowed.score.max(score),
            }
        }
        narrowed
    }

    pub(crate) fn asks_for(&self, item: &str) -> bool {
        self.ranks != Some(0) && self.items.as_ref().is_none_or(|items| items.contains(item))
    }

    pub(crate) fn num_results(&self, asked: usize) -> usize {
        self.ranks.map_or(asked, |ranks| ranks.min(asked)).max(1)
    }

    pub(crate) fn min_score(&self, asked: f32) -> f32 {
        self.score.max(asked)
    }
}

fn read(filter: &Expr) -> Option<Filter> {
    if let Some(items) = items(filter) {
        return Some(Filter::Items(items));
    }
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return None };
    let Expr::Literal(value, _) = right.as_ref() else { return None };
    match (left.as_ref(), op) {
        (Expr::Column(column), Operator::LtEq | Operator::Lt | Operator::Eq) if column.name == "rank" => {
            let ScalarValue::Int32(Some(rank)) = value else { return None };
            let least_excluded = if *op == Operator::Lt { i64::from(*rank) } else { i64::from(*rank) + 1 };
            Some(Filter::Ranks(usize::try_from(least_excluded - 1).unwrap_or(0)))
        }
        (left, Operator::GtEq | Operator::Gt) if is_score(left) => {
            least_score(value, *op == Operator::Gt).map(Filter::Score)
        }
        _ => None,
    }
}

fn is_one_rank(filter: &Expr) -> bool {
    matches!(filter, Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, .. })
        if matches!(left.as_ref(), Expr::Column(column) if column.name == "rank"))
}

/// The items of `item_id = 'a'`, `item_id IN ('a', 'b')`, and of the ORs that short lists become.
fn items(filter: &Expr) -> Option<BTreeSet<String>> {
    let is_item = |expr: &Expr| matches!(expr, Expr::Column(column) if column.name == "item_id");
    let id = |expr: &Expr| match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
        _ => None,
    };
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) if is_item(left) => {
            Some(BTreeSet::from([id(right)?]))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (mut left, right) = (items(left)?, items(right)?);
            left.extend(right);
            Some(left)
        }
        Expr::InList(list) if !list.negated && is_item(&list.expr) => list.list.iter().map(id).collect(),
        _ => None,
    }
}

/// The column itself, or as the wider number that it is compared as.
fn is_score(expr: &Expr) -> bool {
    match expr {
        Expr::Column(column) => column.name == "score",
        Expr::Cast(cast) if cast.field.data_type() == &DataType::Float64 => {
            matches!(cast.expr.as_ref(), Expr::Column(column) if column.name == "score")
        }
        _ => false,
    }
}

/// The least Float32 that is not below a number, or that is above it.
fn least_score(value: &ScalarValue, above: bool) -> Option<f32> {
    let least = match value {
        ScalarValue::Float32(Some(x)) => f64::from(*x),
        ScalarValue::Float64(Some(x)) => *x,
        _ => return None,
    };
    if !(-1.0..=2.0).contains(&least) {
        return None;
    }
    #[allow(clippy::cast_possible_truncation)] // the nearest one; its neighbour is taken where it is on the wrong side
    let nearest = least as f32;
    let fits = |x: f32| if above { f64::from(x) > least } else { f64::from(x) >= least };
    Some(if fits(nearest) { nearest } else { nearest.next_up() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;

    #[test]
    fn a_least_score_in_float64_becomes_the_float32_that_asks_the_same() {
        let below = f64::from(0.3f32) - 1e-12;
        let over = f64::from(0.3f32) + 1e-12;
        for (value, above, least) in [
            (below, false, 0.3f32),
            (over, false, 0.3f32.next_up()),
            (f64::from(0.3f32), false, 0.3),
            (f64::from(0.3f32), true, 0.3f32.next_up()),
        ] {
            assert_eq!(least_score(&ScalarValue::from(value), above), Some(least), "{value} {above}");
        }
        assert_eq!(least_score(&ScalarValue::from(f64::NAN), false), None);
        assert_eq!(least_score(&ScalarValue::Float64(None), false), None);
    }

    #[test]
    fn filters_meet_and_what_changes_ranks_stays_above() {
        let ids = |filter: Expr| Narrowed::by(&[filter], None);
        let either = ids(col("item_id").eq(lit("a")).or(col("item_id").eq(lit("b"))));
        assert_eq!(either, ids(col("item_id").in_list(vec![lit("a"), lit("b")], false)));
        assert!(either.asks_for("a") && !either.asks_for("c"));
        let filters = [
            col("item_id").in_list(vec![lit("a"), lit("b")], false),
            col("item_id").eq(lit("b")),
            col("rank").lt_eq(lit(7)),
            col("rank").lt(lit(6)),
            col("score").gt_eq(lit(0.25f32)),
        ];
        let narrowed = Narrowed::by(&filters, Some(9));
        assert!(narrowed.asks_for("b") && !narrowed.asks_for("a"));
        assert_eq!((narrowed.num_results(100), narrowed.num_results(3)), (5, 3));
        assert_eq!((narrowed.min_score(0.0), narrowed.min_score(0.5)), (0.25, 0.5));
        assert!(!Narrowed::by(&[col("rank").lt(lit(1))], None).asks_for("b"));
        let one = col("rank").eq(lit(4));
        assert_eq!(pushed(&[&one]), [TableProviderFilterPushDown::Inexact]);
        assert_eq!(Narrowed::by(&[one], None).num_results(100), 4);
        for above in [
            col("user_id").eq(lit("u")),
            col("rank").gt(lit(2)),
            col("score").lt(lit(0.5f32)),
            col("item_id").not_eq(lit("a")),
            col("item_id").in_list(vec![lit("a")], true),
            col("item_id").eq(lit("a")).or(col("user_id").eq(lit("u"))),
        ] {
            assert_eq!(pushed(&[&above]), [TableProviderFilterPushDown::Unsupported], "{above}");
        }
    }
}
