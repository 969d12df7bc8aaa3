//! From interactions to the numbers of a solution version. Runs for long: never on the async runtime.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use item_affinity_ingest::MemoryNeed;
use item_affinity_model::ndarray::Array2;
use item_affinity_model::{
    AttributeColumn, Clock, Csr, Factors, Interactions, ItemAffinity, Iteration, LogOdds, Propensity, SideChoice,
    SideDecision, SideInformation, TimeEvaluation, TimeProtocol, TrainedModel, evaluate_time,
};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::estimate::Estimate;
use crate::model_card::{EventFilter, ModelCard, ScoreKind};
use crate::observer::{Observer, Stage};
use crate::refresh::{Changes, Refreshed};
use crate::states::ids_sha256;
use crate::tables::Table;
use crate::tables::attribute_weights::AttributeWeights;
use crate::tables::encode::StateTable;
use crate::tables::pairs::PairTable;

/// Everything that a solution version holds, before it is written.
pub(crate) struct Computed {
    pub(crate) card: ModelCard,
    /// What a refresh changed.
    pub(crate) changes: Option<Changes>,
    interactions: Interactions,
    user_factors: Array2<f32>,
    item_factors: Array2<f32>,
    user_log_odds: Vec<f32>,
    item_log_odds: Vec<f32>,
    pub(crate) pairs: PairTable,
    /// What attributes of users are worth, where they are used.
    pub(crate) user_attributes: Option<AttributeWeights>,
    item_activity: Activity,
    user_activity: Activity,
}

/// What a training or a refresh made of interactions.
pub(crate) struct Made {
    pub(crate) recipe: ItemAffinity,
    pub(crate) events: EventFilter,
    pub(crate) interactions: Interactions,
    pub(crate) clock: Clock,
    pub(crate) factors: Factors,
    pub(crate) propensity: Propensity,
    pub(crate) log_odds: LogOdds,
    pub(crate) histories: Csr,
    pub(crate) side: SideChoice,
    /// Columns of Items that are used.
    pub(crate) item_attributes: Vec<String>,
    /// Attributes of Users that are used.
    pub(crate) user_attributes: Option<AttributeWeights>,
    pub(crate) evaluation: Option<TimeEvaluation>,
    pub(crate) refreshed: Option<Refreshed>,
}

/// Counts of the rows of one table, in their order.
struct Activity {
    interactions: Vec<i64>,
    /// Distinct users of each item; `None` for users.
    users: Option<Vec<i64>>,
    /// Epoch seconds.
    last_interaction: Vec<i64>,
}

impl Computed {
    /// The rows of a table as they are written.
    pub(crate) fn table(&self, table: Table) -> StateTable<'_> {
        let (ids, factors, log_odds, activity) = match table {
            Table::Items => (self.interactions.items(), &self.item_factors, &self.item_log_odds, &self.item_activity),
            Table::Users => (self.interactions.users(), &self.user_factors, &self.user_log_odds, &self.user_activity),
        };
        StateTable {
            table,
            ids,
            factors: factors.view(),
            log_odds,
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
    /// Bytes that the computation may take.
    pub(crate) memory_limit: Option<u64>,
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

/// Trains the recipe on the interactions, on the threads of the current rayon pool.
///
/// # Errors
/// [`Error::MemoryLimit`] before anything is computed; [`Error::Model`] from the training, [`Error::NotFinite`] for numbers
/// that no version may hold, [`Error::Cancelled`].
pub(crate) fn train(
    recipe: &ItemAffinity,
    events: EventFilter,
    interactions: Interactions,
    side: Option<&SideInformation>,
    evaluate: Option<&TimeProtocol>,
    watch: &Watch<'_>,
) -> Result<Computed> {
    let estimate = Estimate::new(recipe, &interactions, side, evaluate.is_some());
    watch.observer.note(&estimate.to_string());
    MemoryNeed::check("training", estimate.bytes(), watch.memory_limit)?;
    let mut observe = |iteration: Iteration| watch.iteration(&iteration);
    let evaluation = match evaluate {
        Some(protocol) => {
            watch.observer.stage(Stage::new("evaluating", "iterations", None));
            Some(evaluate_time(recipe, protocol, &interactions, side, &mut observe)?)
        }
        None => None,
    };
    let clock = Clock::of(&interactions, recipe.horizon_seconds());
    watch.check()?;
    watch.observer.stage(Stage::new("fitting factors", "iterations", None));
    let model = item_affinity_model::train(recipe, &interactions, side, clock, &mut observe)?;
    if recipe.regularization.is_none() {
        watch.observer.note(&format!("regularization {} is taken", model.recipe.penalty_rate()));
    }
    let TrainedModel { recipe, clock, factors, propensity, log_odds, histories, side: choice } = model;
    let used = |of: Option<&SideDecision>| of.is_some_and(|decision| decision.used);
    let items = side.and_then(|side| side.items.as_ref()).filter(|_| used(choice.items.as_ref()));
    let users = side.and_then(|side| side.users.as_ref()).filter(|_| used(choice.users.as_ref()));
    let item_attributes = items.map(|of| column_names(of.columns())).unwrap_or_default();
    let user_attributes = users.zip(factors.user_weights.clone());
    let user_attributes =
        user_attributes.map(|(of, weights)| AttributeWeights { columns: of.columns().to_vec(), weights });
    for (what, decision) in [("items", &choice.items), ("users", &choice.users)] {
        if let Some(decision) = decision {
            watch.observer.note(&decision_text(what, decision));
        }
    }
    let made = Made {
        recipe,
        events,
        interactions,
        clock,
        factors,
        propensity,
        log_odds,
        histories,
        side: choice,
        item_attributes,
        user_attributes,
        evaluation,
        refreshed: None,
    };
    made.finish(watch)
}

impl Made {
    /// Everything that a version holds of it.
    pub(crate) fn finish(self, watch: &Watch<'_>) -> Result<Computed> {
        let Self { recipe, events, interactions, clock, factors, propensity, log_odds, histories, .. } = self;
        finite(&factors, &log_odds)?;
        watch.check()?;
        let before = self.refreshed.as_ref().map(|refreshed| refreshed.last_interaction.as_slice());
        let (pairs, (mut item_activity, user_activity)) =
            rayon::join(|| PairTable::new(&log_odds.repeat, &histories), || activity(&interactions, before));
        item_activity.users = Some(pairs.users_by_item().map(count).collect());
        let (format, format_version) = ModelCard::current_format();
        let times = self.refreshed.as_ref().map(|refreshed| refreshed.times).or_else(|| interactions.time_range());
        let (first_interaction, last_interaction) = times.unwrap_or((clock.as_of, clock.as_of));
        let marks = self.refreshed.as_ref().map(|refreshed| refreshed.marks.clone()).unwrap_or_default();
        let warnings = told_warnings(&propensity, marks, watch.observer);
        let card = ModelCard {
            format,
            format_version,
            tool: ModelCard::this_tool(),
            recipe,
            score: ScoreKind::Probability,
            events,
            as_of: clock.as_of,
            horizon_seconds: clock.horizon,
            first_interaction,
            last_interaction,
            users: interactions.users().len() as u64,
            items: interactions.items().len() as u64,
            interactions: interactions.len() as u64,
            pairs: histories.nnz() as u64,
            loss: factors.loss.clone(),
            propensity,
            slopes: log_odds.slopes,
            pair_parts: pairs.first_items(),
            warnings,
            side: self.side,
            item_attributes: self.item_attributes,
            user_attributes: self.user_attributes.as_ref().map(|of| column_names(&of.columns)).unwrap_or_default(),
            metrics: self.evaluation.as_ref().map(metrics).unwrap_or_default(),
            evaluation: self.evaluation,
            refreshed_from: self.refreshed.as_ref().map(|refreshed| refreshed.trained),
            item_ids_sha256: ids_sha256(interactions.items()),
            user_ids_sha256: ids_sha256(interactions.users()),
        };
        let Factors { user_factors, item_factors, .. } = factors;
        let LogOdds { users: user_log_odds, items: item_log_odds, .. } = log_odds;
        Ok(Computed {
            card,
            changes: self.refreshed.map(|refreshed| refreshed.changes),
            interactions,
            user_factors,
            item_factors,
            user_log_odds,
            item_log_odds,
            pairs,
            user_attributes: self.user_attributes,
            item_activity,
            user_activity,
        })
    }
}

/// The warnings of a model card: those of its propensity, which a person is told now, and the marks of the version before.
pub(crate) fn told_warnings(propensity: &Propensity, marks: Vec<String>, observer: &dyn Observer) -> Vec<String> {
    let mut warnings = propensity.warnings();
    warnings.iter().for_each(|warning| observer.warning(warning));
    warnings.extend(marks);
    warnings
}

/// The columns of attributes, each once.
fn column_names(columns: &[AttributeColumn]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for column in columns {
        if !names.contains(&column.name) {
            names.push(column.name.clone());
        }
    }
    names
}

/// Whether attributes are used, in words.
fn decision_text(what: &str, decision: &SideDecision) -> String {
    let SideDecision { used, without, with, certainty, pairs, .. } = decision;
    format!(
        "attributes of {what} are {}: soft recall of {pairs} held-out new pairs {:.2} % without, {:.2} % with them \
         ({certainty:.1} standard errors)",
        if *used { "used" } else { "not used, since they do not surely help" },
        without * 100.0,
        with * 100.0
    )
}

/// The figures of an evaluation that a list of versions shows.
fn metrics(of: &TimeEvaluation) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::from([
        ("expected_calibration_error".to_owned(), of.calibration.expected_calibration_error),
        ("mean_probability".to_owned(), of.calibration.mean_predicted),
    ]);
    for (view, name) in [(&of.all_pairs, "all_pairs"), (&of.new_pairs, "new_pairs")] {
        if let Some(model) = view.rankers.first() {
            metrics.insert(format!("{name}_precision_at_1_percent"), model.precision);
            metrics.insert(format!("{name}_recall_at_1_percent"), model.recall);
        }
    }
    metrics
}

fn finite(factors: &Factors, log_odds: &LogOdds) -> Result<()> {
    let all = |values: &Array2<f32>| values.iter().all(|value| value.is_finite());
    let weights = factors.user_weights.as_ref();
    let what = if !all(&factors.item_factors) {
        "an item factor"
    } else if !all(&factors.user_factors) {
        "a user factor"
    } else if !weights.is_none_or(all) {
        "the weight of an attribute"
    } else if !factors.loss.iter().all(|loss| loss.is_finite()) {
        "the loss"
    } else if !log_odds.users.iter().chain(&log_odds.items).chain(log_odds.repeat.values()).all(|z| z.is_finite()) {
        "the log-odds"
    } else {
        return Ok(());
    };
    Err(Error::NotFinite { what })
}

/// Counts and newest events by item and by user; an item without an event keeps the time that it had before. Users are not
/// counted.
fn activity(interactions: &Interactions, before: Option<&[i64]>) -> (Activity, Activity) {
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
    for ((last, count), before) in item_last.iter_mut().zip(&item_interactions).zip(before.unwrap_or_default()) {
        if *count == 0 {
            *last = *before;
        }
    }
    (
        Activity { interactions: item_interactions, users: None, last_interaction: item_last },
        Activity { interactions: user_interactions, users: None, last_interaction: user_last },
    )
}

/// A length as it stands in a file; no length of memory reaches the end of i64.
fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
