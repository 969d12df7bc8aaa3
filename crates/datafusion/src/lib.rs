//! Item affinity in any DataFusion session: `register(&ctx)`, then
//!
//! ```sql
//! SET item_affinity.solution_version = 's3://lake/solutions/affinity';
//! SELECT * FROM item_affinity_segments(['B001', 'B002'], 100);
//! SELECT * FROM item_affinity_segments(['B001'], 100, users => (SELECT user_id FROM users WHERE country = 'DE'));
//! SELECT item_affinity_score(user_id, 'B001') FROM users;
//! ```
//!
//! | function | gives |
//! | --- | --- |
//! | `item_affinity_segments(items [, num_results] [, name => value]…)` | `item_id, rank, user_id, score` in the order `(item_id, rank)`: for each item the users who will most likely interact with it next |
//! | `item_affinity_explain(items [, num_results [, reasons]] [, name => value]…)` | the same segments with the past items that make each user's affinity: `reason_rank, because_item_id, share` |
//! | `item_affinity_score(user_id, item_id)` | Float32, NULL when one of them is unknown |
//! | `item_affinity_items([solution_version])` | `item_id, interactions, users, last_interaction, in_model`: what can be asked for |
//! | `item_affinity_versions([location])` | `version, committed_at, as_of, horizon_days, hidden_dimension, users, items, interactions, refreshed_from, loss` and measures of quality, oldest first |
//! | `item_affinity_output(location)` | `item_id, rank, user_id, score`: the committed segments of a job, the newest or those of `location@3` |
//! | `item_affinity_vector(factor)` | a list of Float32: a factor column of a solution version's files |
//!
//! A `share` is the part of the affinity, the product of the factors of user and item, that a past item makes: the shares
//! of all past items and the part of the user's attributes, if the version uses them, sum to it exactly. Past items that
//! speak against the item have negative shares and are no reasons. A user without a reason has one row, with NULL in the
//! three columns, so that segments are complete.
//!
//! A score is the probability that the user interacts with the item within the horizon of the solution version.
//!
//! `items` is a list, a table or view with a column `item_id`, a subquery in its own parentheses, or the path of a JSON
//! Lines, Parquet or CSV file. `users` is a table, a view or a subquery with a column `user_id`: nobody else is ranked.
//! Arguments also go by name, `seen => 'exclude'`, and all but these two have a session option `item_affinity.<name>`.
//!
//! Scores may stand wherever an expression may: an optimizer rule computes them below places where the engine cannot run
//! asynchronous functions. Lists of functions (`SHOW FUNCTIONS`) describe all of them. Calls of a query see one version.
//!
//! Memory is the session's: parts of user states, heaps and ids are taken from its pool, and what does not fit is refused
//! with `ResourcesExhausted` and the setting to change. Dropping a stream stops its work within a tile of users.
//!
//! Segments always come from the same physical plan: user states scanned from Parquet, [`CandidateUsersExec`] where there
//! is a filter of users, [`TopKUsersPerItemExec`] per partition, an exchange by item, [`SegmentsFinalExec`];
//! [`ExplainSegmentsExec`] goes on with its rows. A refresh in parts is a plan of [`RefreshExec`]s. Invariant: nothing here knows of files of interactions, of the command
//! line, or of output formats.

mod among_users;
mod asked_items;
mod batch_rows;
mod call_arguments;
mod call_planner;
mod candidate_users_exec;
mod catalog_functions;
mod checked_footers;
mod checked_settings;
mod delta_provider;
mod error;
mod explain_function;
mod explain_segments_exec;
mod id_column;
mod id_set;
mod item_list;
mod items_argument;
mod memory_limit;
mod only_child;
mod options;
mod output_function;
mod place_set;
mod pushed_filters;
mod refresh_exec;
mod refresh_tasks;
mod routine_descriptions;
mod score_function;
mod score_placement;
mod segment_merge;
mod segment_reasons;
mod segment_schema;
mod segments_final_exec;
mod segments_function;
mod segments_plan;
mod session;
mod shared_pairs;
mod shared_parts;
mod solution_cache;
mod spill;
mod top_k_users;
mod top_k_users_exec;
mod user_ids;
mod user_list;
mod user_states;
mod user_states_exec;
mod users_argument;
mod vector_function;
mod version_source;

use std::sync::Arc;

use datafusion::execution::context::SessionContext;
use item_affinity_storage::Stores;

use catalog_functions::Catalog;

pub use asked_items::AskedItems;
pub use candidate_users_exec::{CandidateCounts, CandidateUsersExec};
pub use delta_provider::DeltaProvider;
pub use error::{TaskError, error_kind, error_message};
pub use explain_segments_exec::{ExplainSegmentsExec, ExplanationQuery};
pub use item_list::{ItemEntry, ItemError, ItemFile, ItemList};
pub use options::{
    DEFAULT_MAX_ITEMS, DEFAULT_NUM_RESULTS, DEFAULT_REASONS, ItemAffinityOptions, NUM_RESULTS_RANGE, OnUnknownItem,
    REASONS_RANGE, Seen,
};
pub use refresh_exec::{RefreshExec, RefreshPlan, RefreshStep};
pub use refresh_tasks::refresh_tasks;
pub use segment_schema::{EXPLANATION_SCHEMA, SEGMENT_SCHEMA};
pub use segments_final_exec::SegmentsFinalExec;
pub use segments_plan::{SegmentsPlan, SegmentsRequest, segments_dataframe};
pub use session::{SessionSettings, session, store_registry};
pub use spill::unnamed_files;
pub use top_k_users_exec::{SegmentQuery, TopKUsersPerItemExec};
pub use user_list::read_user_ids;
pub use user_states_exec::UserStatesExec;
pub use version_source::{TravelledVersions, VersionSource};

/// Adds the functions and options to a session; solution versions are reached with what the environment says.
pub fn register(ctx: &SessionContext) {
    register_with(ctx, Stores::from_env());
}

/// Adds the functions and options to a session; solution versions are reached through `stores`.
pub fn register_with(ctx: &SessionContext, stores: Stores) {
    let state = ctx.state_ref();
    let mut state = state.write();
    let extensions = &mut state.config_mut().options_mut().extensions;
    if extensions.get::<ItemAffinityOptions>().is_none() {
        extensions.insert(ItemAffinityOptions::default());
    }
    // This does not fail; if it did, arguments by place would still work.
    let functions = vec![
        &segments_function::ACCEPTED,
        &explain_function::ACCEPTED,
        &catalog_functions::ITEMS,
        &catalog_functions::VERSIONS,
        &output_function::ACCEPTED,
    ];
    let scalars = [score_function::DESCRIBED, vector_function::DESCRIBED];
    let described = functions.iter().map(|function| function.described()).chain(scalars).collect();
    state.register_relation_planner(Arc::new(call_planner::CallPlanner { functions, described })).unwrap_or_default();
    let delta = Arc::new(delta_provider::DeltaTables { stores: stores.clone() });
    state.table_factories_mut().insert("DELTATABLE".to_owned(), delta);
    state.table_factories_mut().insert("PARQUET".to_owned(), Arc::new(checked_footers::CheckedTables));
    drop(state);
    let solutions = solution_cache::SolutionCache::new(stores, ctx);
    let segments = segments_function::SegmentsFunction { solutions: solutions.clone() };
    ctx.register_udtf(segments_function::NAME, Arc::new(segments));
    let explain = explain_function::ExplainFunction { solutions: solutions.clone() };
    ctx.register_udtf(explain_function::NAME, Arc::new(explain));
    for catalog in [Catalog::Items, Catalog::Versions] {
        let function = catalog_functions::CatalogFunction { catalog, solutions: solutions.clone() };
        ctx.register_udtf(catalog.accepted().function, Arc::new(function));
    }
    let output = output_function::OutputFunction { stores: solutions.stores().clone() };
    ctx.register_udtf(output_function::ACCEPTED.function, Arc::new(output));
    ctx.register_udf(vector_function::vector_function());
    ctx.register_udf(score_function::score_function(solutions.clone(), None));
    ctx.remove_optimizer_rule(score_placement::RULE);
    ctx.add_optimizer_rule(Arc::new(score_placement::PlaceScores { solutions }));
}
