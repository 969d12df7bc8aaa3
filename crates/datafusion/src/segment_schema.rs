//! The schemas of segments, everywhere the same: `item_id, rank, user_id, score`, and with reasons
//! `reason_rank, because_item_id, share` after them.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::expressions::Column;

/// `item_id Utf8, rank Int32 (from 1), user_id Utf8, score Float32`, none of them NULL.
pub static SEGMENT_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("item_id", DataType::Utf8, false),
        Field::new("rank", DataType::Int32, false),
        Field::new("user_id", DataType::Utf8, false),
        Field::new("score", DataType::Float32, false),
    ]))
});

/// Segments with the reasons of each user: [`SEGMENT_SCHEMA`], then `reason_rank Int32 (from 1), because_item_id Utf8,
/// share Float32`, all three NULL in the one row of a user without a reason.
pub static EXPLANATION_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let mut fields = SEGMENT_SCHEMA.fields().to_vec();
    fields.push(Arc::new(Field::new("reason_rank", DataType::Int32, true)));
    fields.push(Arc::new(Field::new("because_item_id", DataType::Utf8, true)));
    fields.push(Arc::new(Field::new("share", DataType::Float32, true)));
    Arc::new(Schema::new(fields))
});

/// The places of columns in [`INDEXED_SEGMENT_SCHEMA`].
pub(crate) const ITEM_ID: usize = 0;
pub(crate) const RANK: usize = 1;
pub(crate) const USER_ID: usize = 2;
pub(crate) const SCORE: usize = 3;
pub(crate) const ITEM: usize = 4;
pub(crate) const USER_INDEX: usize = 5;

/// What the ranking hands to the explanation: [`SEGMENT_SCHEMA`], then the item as its position in the request and the
/// user as its place in the solution version.
pub(crate) static INDEXED_SEGMENT_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let mut fields = SEGMENT_SCHEMA.fields().to_vec();
    fields.push(Arc::clone(&CANDIDATE_SCHEMA.fields()[0]));
    fields.push(Arc::clone(&CANDIDATE_SCHEMA.fields()[1]));
    Arc::new(Schema::new(fields))
});

/// What a partition hands to the exchange. Items travel as their position in the request, which sorts as their ids do,
/// so no item id is built or hashed before the last step.
pub(crate) static CANDIDATE_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let mut fields = ANONYMOUS_CANDIDATE_SCHEMA.fields().to_vec();
    fields.push(Arc::new(Field::new("user_id", DataType::Utf8, false)));
    Arc::new(Schema::new(fields))
});

/// The same where nobody asks for the ids of users: places in the solution version tell them apart.
pub(crate) static ANONYMOUS_CANDIDATE_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("item", DataType::UInt32, false),
        Field::new("user_index", DataType::UInt32, false),
        Field::new("score", DataType::Float32, false),
    ]))
});

/// Which of the two a query hands to the exchange.
pub(crate) fn candidate_schema(user_ids: bool) -> &'static SchemaRef {
    if user_ids { &CANDIDATE_SCHEMA } else { &ANONYMOUS_CANDIDATE_SCHEMA }
}

/// The order in which segments leave the plan: `item_id`, then `rank`.
pub(crate) fn segment_order() -> Vec<PhysicalSortExpr> {
    order(&[("item_id", 0), ("rank", 1)])
}

/// The order in which segments with reasons leave the plan: `item_id`, `rank`, then `reason_rank`.
pub(crate) fn explanation_order() -> Vec<PhysicalSortExpr> {
    order(&[("item_id", 0), ("rank", 1), ("reason_rank", 4)])
}

fn order(columns: &[(&str, usize)]) -> Vec<PhysicalSortExpr> {
    let ascending = SortOptions::new(false, false);
    columns.iter().map(|(name, at)| PhysicalSortExpr::new(Arc::new(Column::new(name, *at)), ascending)).collect()
}
