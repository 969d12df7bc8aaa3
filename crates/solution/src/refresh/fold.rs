//! From a version and newer interactions to the numbers of the next version. Never on the async runtime.

use item_affinity_ingest::MemoryNeed;
use item_affinity_model::ndarray::Axis;
use item_affinity_model::{Attributes, Clock, Factors, Interactions, LeftOut, UsersNow, Vocabulary, fold_in_users};

use super::Changes;
use crate::error::{Error, Result};
use crate::fit::{Computed, Made, Watch};
use crate::model_card::ModelCard;
use crate::moment::moment;
use crate::observer::{Observer, Stage};
use crate::tables::attribute_weights::AttributeWeights;
use crate::version::ItemStates;

/// The version that is refreshed.
pub(super) struct Old {
    /// Where it is, with its number.
    pub(super) location: String,
    pub(super) version: u64,
    /// The version that was trained: itself, or what it was refreshed from.
    pub(super) trained: u64,
    pub(super) card: ModelCard,
    pub(super) items: ItemStates,
    pub(super) users: Vocabulary,
    /// What attributes of users are worth, where the version uses them.
    pub(super) user_attributes: Option<AttributeWeights>,
}

/// What a refresh knows beside the numbers.
pub(crate) struct Refreshed {
    /// The version that was trained.
    pub(crate) trained: u64,
    /// Epoch seconds of the oldest and of the newest interaction, items that are left out included.
    pub(crate) times: (i64, i64),
    /// By item: epoch seconds of the newest interaction that the old version has seen.
    pub(crate) last_interaction: Vec<i64>,
    pub(crate) changes: Changes,
    /// What stays true of item factors that nobody trained anew.
    pub(crate) marks: Vec<String>,
}

/// Gives every user a state, on the threads of the current rayon pool.
///
/// attributes: of the users of the interactions, by the features of the version
pub(super) fn fold_in(
    old: Old,
    interactions: Interactions,
    attributes: Option<&Attributes>,
    watch: &Watch<'_>,
) -> Result<Computed> {
    let Old { location, version, trained, card, items, users, user_attributes } = old;
    let clock = Clock::of(&interactions, Some(card.horizon_seconds));
    let (Some(times), Some(clock)) = (interactions.time_range(), clock) else {
        return Err(Error::NoKnownItem { interactions: 0, solution: location });
    };
    if times.1 < card.last_interaction {
        let (newest, known) = (moment(times.1), moment(card.last_interaction));
        return Err(Error::Older { newest, known, solution: location });
    }
    let (read, marks) = (interactions.len(), card.marks());
    let expected = match (&user_attributes, attributes) {
        (Some(AttributeWeights { weights, .. }), Some(of)) => {
            Some((interactions.users().clone(), of.prior_means(weights.view())?))
        }
        _ => None,
    };
    MemoryNeed::check("folding in users", memory(&interactions, &card), watch.memory_limit)?;
    watch.observer.stage(Stage::new("folding in users", "users", None));
    let (interactions, left_out) = interactions.onto_items(items.ids)?;
    if interactions.is_empty() {
        return Err(Error::NoKnownItem { interactions: read, solution: location });
    }
    let changes = changes(version, &left_out, &users, interactions.users());
    say(&changes, users.len() as u64, watch.observer);
    watch.check()?;
    let (factors, as_of) = (items.factors.view(), clock.as_of);
    // Users without an item of the version are gone from the interactions.
    let prior = expected.map(|(before, means)| {
        let rows = interactions.users().iter().filter_map(|id| before.index_of(id)).map(|row| row as usize);
        means.select(Axis(0), &rows.collect::<Vec<_>>())
    });
    let prior = prior.as_ref().map(|means| means.view());
    let now = fold_in_users(&card.recipe, &card.propensity, factors, &interactions, prior, as_of)?;
    let folded = interactions.users().len() as u64;
    watch.observer.advance(folded, Some(folded));
    let UsersNow { user_factors, log_odds, histories } = now;
    let made = Made {
        recipe: card.recipe,
        events: card.events,
        interactions,
        clock,
        // The losses are those of the training; nothing was fitted here.
        factors: Factors {
            user_factors,
            item_factors: items.factors,
            loss: Vec::new(),
            item_weights: None,
            user_weights: None,
        },
        propensity: card.propensity,
        log_odds,
        histories,
        side: card.side,
        item_attributes: card.item_attributes,
        user_attributes,
        // It was measured with other user states.
        evaluation: None,
        refreshed: Some(Refreshed { trained, times, last_interaction: items.last_interaction, changes, marks }),
    };
    made.finish(watch)
}

/// Bytes of a refresh: the interactions and those of known items, 32 for each pair, taking each interaction for one, and the
/// factors, those of users twice.
fn memory(interactions: &Interactions, card: &ModelCard) -> u64 {
    let held =
        2 * interactions.allocated_bytes() + 2 * interactions.users().allocated_bytes() + 32 * interactions.len();
    let rows = (2 * interactions.users().len() as u64).saturating_add(card.items);
    (held as u64).saturating_add(rows.saturating_mul(4 * card.recipe.hidden_dimension as u64))
}

fn changes(from: u64, left_out: &LeftOut, before: &Vocabulary, now: &Vocabulary) -> Changes {
    let stayed = now.iter().filter(|id| before.index_of(id).is_some()).count();
    Changes {
        from,
        new_users: (now.len() - stayed) as u64,
        gone_users: (before.len() - stayed) as u64,
        left_out_interactions: left_out.interactions as u64,
        left_out_items: left_out.items as u64,
        left_out_users: left_out.users as u64,
    }
}

/// Tells what is left out, and what looks as if the data were not the whole history.
pub(super) fn say(changes: &Changes, users_before: u64, observer: &dyn Observer) {
    let Changes { from, gone_users, left_out_interactions, left_out_items, .. } = changes;
    if *left_out_interactions > 0 {
        observer.note(&format!(
            "{left_out_interactions} interactions with {left_out_items} items that version {from} does not know are \
             left out; train to take them in"
        ));
    }
    if gone_users.saturating_mul(2) > users_before {
        observer.warning(&format!(
            "{gone_users} of the {users_before} users of version {from} have no interactions in these data: a refresh \
             reads the whole history, not only what is new"
        ));
    }
}
