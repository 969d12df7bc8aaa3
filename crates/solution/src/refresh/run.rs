//! What a refresh job does, step by step.

use item_affinity_ingest::AttributeSelection;
use item_affinity_storage::Stores;

use super::fold::{Old, fold_in};
use super::in_parts::Before;
use super::{RefreshJob, RefreshReport};
use crate::dataset::Pinned;
use crate::error::{Error, Result};
use crate::files::VersionReader;
use crate::job_key::Parent;
use crate::model_card::ModelCard;
use crate::next_version::{Job, Outcome, Place};
use crate::reference::SolutionRef;
use crate::tables::attribute_weights::AttributeWeights;
use crate::version::SolutionVersion;

impl RefreshJob {
    /// Folds the users in and commits the next version of the solution.
    ///
    /// Nothing is visible before the commit. On an error or a cancellation nothing is committed and the files of the
    /// run are removed as far as possible; when the future is dropped, the files are left to garbage collection.
    ///
    /// # Errors
    /// [`Error::UserAttributes`] for a version that uses attributes of users when no users are given; [`Error::Older`] and
    /// [`Error::NoKnownItem`] for data that do not fit to the version; [`Error::OutputInInput`]; [`Error::Ingest`] for
    /// data that cannot be used or is too little; [`Error::Storage`] for anything about locations, reading and writing,
    /// with the kind `Conflict` when another job commits a version in the meantime; [`Error::Damaged`];
    /// [`Error::Cancelled`].
    ///
    /// # Cost
    /// Reading the interactions and the states of the version, one half-step of the fit over all users, and pairs with
    /// history × (hidden_dimension + 200) multiply-adds. In memory: the interactions, 32 bytes a pair, and the factors.
    pub async fn run(self) -> Result<RefreshReport> {
        let Self { solution, mut job, users, tasks } = self;
        let reference = SolutionRef::parse(&solution)?;
        let place = job.place(&reference.location)?;
        let mut plan = Plan::make(&mut job, &users, &place, &reference).await?;
        if let Some(done) = plan.done.take() {
            return Ok(done.into());
        }
        let begun = job.begin(&place).await?;
        if job.newest(&place).await? != Some(plan.newest) {
            // The run that this one waited for may have done the same, or have given it another version to build on.
            plan = Plan::make(&mut job, &users, &place, &reference).await?;
            if let Some(done) = plan.done.take() {
                begun.abandon().await;
                return Ok(done.into());
            }
        }
        let Plan { newest, from, card, trained, pinned, user_attributes, .. } = plan;
        if let Some(tasks) = tasks {
            let key = |pinned: &Pinned| key(&job, pinned, &card, trained);
            let old = Before { newest, from: &from, card: &card, trained };
            return Ok(job.refresh_in_parts(begun, &place, pinned, &key, old, tasks.as_ref()).await?.into());
        }
        job.user_features = user_attributes.as_ref().map(|of| of.columns.clone());
        let old = job.or_cancelled(open(&place.stores, &from, trained, user_attributes)).await?;
        let of_users = card.user_attributes.join(",");
        let key = |pinned: &Pinned| key(&job, pinned, &card, trained);
        let folded = job.make(begun, &place, pinned, &key, Some(newest), move |data, watch| {
            let users = data.side.and_then(|side| side.users);
            fold_in(old, data.ingested.interactions, users.as_ref(), watch)
        });
        let folded = folded.await.map_err(|error| match error {
            Error::Ingest(item_affinity_ingest::Error::Option { option: "--include-columns", what, cure }) => {
                let cure = format!("{what}; {cure}; give Users as they were in training");
                Error::UserAttributes { columns: of_users, solution: from.to_string(), cure }
            }
            other => other,
        });
        Ok(folded?.into())
    }
}

/// What a refresh would do, from what is there now.
struct Plan {
    /// The commit goes right after this one: what comes in between may have other factors.
    newest: u64,
    from: SolutionRef,
    card: ModelCard,
    /// The version that was trained, not the one that is refreshed: a refresh after a refresh is the same job.
    trained: u64,
    pinned: Pinned,
    /// What attributes of users are worth, where the version uses them.
    user_attributes: Option<AttributeWeights>,
    /// When it was done already.
    done: Option<Outcome>,
}

impl Plan {
    async fn make(job: &mut Job, users: &[String], place: &Place, reference: &SolutionRef) -> Result<Self> {
        let newest = job.or_cancelled(async { Ok(place.versions.resolve(None).await?) }).await?.version;
        let from = SolutionRef { version: Some(reference.version.unwrap_or(newest)), ..reference.clone() };
        let reader = VersionReader::open(&place.stores, &from).await?;
        let files = reader.files()?;
        let card = reader.card(&files.card).await?;
        let user_attributes = job.or_cancelled(reader.user_attributes(&files, &card)).await?;
        choose_users(job, users, &card, user_attributes.is_some(), &from)?;
        job.dataset.take_events(&card.events);
        let pinned = job.pin(place).await?;
        let trained = card.refreshed_from.unwrap_or(reader.commit.version);
        let done = job.already_done(place, &key(job, &pinned, &card, trained)?, |_| true).await?;
        Ok(Self { newest, from, card, trained, pinned, user_attributes, done })
    }
}

fn key(job: &Job, pinned: &Pinned, card: &ModelCard, trained: u64) -> Result<String> {
    let parent = Parent { version: trained, item_ids_sha256: card.item_ids_sha256.clone() };
    job.dataset.job_key(pinned, &card.recipe, Some(parent))
}

/// Reads what a refresh needs of the version: its items, and who its users are.
async fn open(
    stores: &Stores,
    from: &SolutionRef,
    trained: u64,
    user_attributes: Option<AttributeWeights>,
) -> Result<Old> {
    let version = SolutionVersion::open(stores, from).await?;
    // Their factors go again before the interactions come.
    let users = version.user_states(stores).await?.ids;
    let SolutionVersion { reference, commit, model, items, .. } = version;
    Ok(Old {
        location: reference.to_string(),
        version: commit.version,
        trained,
        card: model,
        items,
        users,
        user_attributes,
    })
}

/// Has the Users read where the version uses attributes of them, and only then: no other attribute can count.
fn choose_users(job: &mut Job, users: &[String], card: &ModelCard, kept: bool, from: &SolutionRef) -> Result<()> {
    // A plan that is made again may be of a version that uses none any more.
    job.dataset.users.clear();
    job.dataset.attributes = AttributeSelection::default();
    if card.user_attributes.is_empty() {
        if !users.is_empty() {
            job.observer.note("the version uses no attributes of users: Users are not read");
        }
        return Ok(());
    }
    if users.is_empty() || !kept {
        let cure = match kept {
            true => "name the Users with --users",
            // Written before the format kept them.
            false => "train again: what they are worth is not in this version",
        };
        let (columns, solution) = (card.user_attributes.join(","), from.to_string());
        return Err(Error::UserAttributes { columns, solution, cure: cure.to_owned() });
    }
    job.dataset.users = users.to_vec();
    job.dataset.attributes = AttributeSelection { include: card.user_attributes.clone(), exclude: Vec::new() };
    Ok(())
}

impl From<Outcome> for RefreshReport {
    fn from(of: Outcome) -> Self {
        let Outcome { solution, version, already_done, data, model, changes, seconds } = of;
        Self { solution, version, already_done, data, model, changes, seconds }
    }
}
