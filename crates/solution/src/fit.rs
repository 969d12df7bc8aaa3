//! From interactions to the numbers of a solution version. Runs for long: never on the async runtime.

use std::ops::ControlFlow;

use item_affinity_model::ndarray::Array2;
use item_affinity_model::{Csr, Decay, Factors, Interactions, ItemAffinity, Iteration, fit};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::estimate::Estimate;
use crate::model_card::{EventFilter, ModelCard, ScoreKind};
use crate::observer::{Observer, Stage};
use crate::states::ids_sha256;
use crate::tables::Table;
use crate::tables::encode::StateTable;

const SECONDS_PER_DAY: f64 = 86_400.0;

/// Everything that a solution version holds, before it is written.
pub(crate) struct Trained {
    pub(crate) card: ModelCard,
    interactions: Interactions,
    factors: Factors,
    item_activity: Activity,
    user_activity: Activity,
}

/// Counts of the rows of one table, in their order.
struct Activity {
    interactions: Vec<i64>,
    /// Distinct users of each item; `None` for users.
    users: Option<Vec<i64>>,
    /// Epoch seconds.
    last_interaction: Vec<i64>,
}

impl Trained {
    /// The rows of a table as they are written.
    pub(crate) fn table(&self, table: Table) -> StateTable<'_> {
        let (ids, factors, activity) = match table {
            Table::Items => (self.interactions.items(), &self.factors.item_factors, &self.item_activity),
            Table::Users => (self.interactions.users(), &self.factors.user_factors, &self.user_activity),
        };
        StateTable {
            table,
            ids,
            factors: factors.view(),
            interactions: &activity.interactions,
            users: activity.users.as_deref(),
            last_interaction: &activity.last_interaction,
        }
    }
}

/// Who watches a computation, and who may stop it.
pub(crate) struct Watch<'a> {
    pub(crate) observer: &'a dyn Observer,
    pub(crate) cancellation: &'a CancellationToken,
}

impl Watch<'_> {
    /// Tells about an iteration; breaks when the job shall stop.
    pub(crate) fn iteration(&self, iteration: &Iteration) -> ControlFlow<()> {
        if self.cancellation.is_cancelled() {
            return ControlFlow::Break(());
        }
        self.observer.advance(iteration.iteration as u64, Some(iteration.iterations as u64));
        ControlFlow::Continue(())
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.cancellation.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// Fits the recipe to the interactions, on the threads of the current rayon pool.
///
/// # Errors
/// [`Error::Model`] from the fit, [`Error::NotFinite`] for numbers that no version may hold, [`Error::Cancelled`].
pub(crate) fn train(
    recipe: &ItemAffinity,
    events: EventFilter,
    interactions: Interactions,
    watch: &Watch<'_>,
) -> Result<Trained> {
    let as_of = interactions.time_range().map_or(0, |(_, newest)| newest);
    let decay = recipe.half_life_days.map(|days| Decay { half_life_seconds: days * SECONDS_PER_DAY, as_of });
    let by_user = interactions.pairs(decay)?.by_user;
    let by_item = by_user.transpose();
    watch.check()?;
    watch.observer.note(&Estimate::new(recipe, &interactions, &by_user, &by_item).to_string());
    watch.observer.stage(Stage::new("fitting factors", "iterations", Some(recipe.iterations as u64)));
    let factors = fit(recipe, &by_user, &by_item, &mut |iteration| watch.iteration(&iteration))?;
    finite(&factors)?;
    let (item_activity, user_activity) = activity(&interactions, &by_item);
    let (format, format_version) = ModelCard::current_format();
    let card = ModelCard {
        format,
        format_version,
        tool: ModelCard::this_tool(),
        recipe: recipe.clone(),
        score: ScoreKind::Affinity,
        events,
        as_of,
        users: interactions.users().len() as u64,
        items: interactions.items().len() as u64,
        interactions: interactions.len() as u64,
        pairs: by_user.nnz() as u64,
        loss: factors.loss.clone(),
        metrics: std::collections::BTreeMap::new(),
        item_ids_sha256: ids_sha256(interactions.items()),
        user_ids_sha256: ids_sha256(interactions.users()),
    };
    Ok(Trained { card, interactions, factors, item_activity, user_activity })
}

fn finite(factors: &Factors) -> Result<()> {
    let all = |values: &Array2<f32>| values.iter().all(|value| value.is_finite());
    let what = if !all(&factors.item_factors) {
        "an item factor"
    } else if !all(&factors.user_factors) {
        "a user factor"
    } else if !factors.loss.iter().all(|loss| loss.is_finite()) {
        "the loss"
    } else {
        return Ok(());
    };
    Err(Error::NotFinite { what })
}

fn activity(interactions: &Interactions, by_item: &Csr) -> (Activity, Activity) {
    let items = interactions.items().len();
    let mut item_interactions = vec![0i64; items];
    let mut item_last = vec![i64::MIN; items];
    let mut user_interactions = Vec::with_capacity(interactions.users().len());
    let mut user_last = Vec::with_capacity(interactions.users().len());
    for user in 0..interactions.users().len() {
        let history = interactions.history(user);
        for (item, time) in history.items.iter().zip(history.times) {
            item_interactions[*item as usize] += 1;
            item_last[*item as usize] = item_last[*item as usize].max(*time);
        }
        user_interactions.push(count(history.items.len()));
        user_last.push(history.times.last().copied().unwrap_or_default());
    }
    let users = (0..items).map(|item| count(by_item.row(item).0.len())).collect();
    (
        Activity { interactions: item_interactions, users: Some(users), last_interaction: item_last },
        Activity { interactions: user_interactions, users: None, last_interaction: user_last },
    )
}

/// A length as it stands in a file; no length of memory reaches the end of i64.
fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
