//! The schema of a segment, everywhere the same: `item_id, rank, user_id, score`.

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

/// What a partition hands to the exchange. Items travel as their position in the request, which sorts as their ids do,
/// so no item id is built or hashed before the last step.
pub(crate) static CANDIDATE_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("item", DataType::UInt32, false),
        Field::new("user_index", DataType::UInt32, false),
        Field::new("user_id", DataType::Utf8, false),
        Field::new("score", DataType::Float32, false),
    ]))
});

/// The order in which segments leave the plan: `item_id`, then `rank`.
pub(crate) fn segment_order() -> Vec<PhysicalSortExpr> {
    [("item_id", 0), ("rank", 1)]
        .map(|(name, index)| PhysicalSortExpr::new(Arc::new(Column::new(name, index)), SortOptions::new(false, false)))
        .to_vec()
}
