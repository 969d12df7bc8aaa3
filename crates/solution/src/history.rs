//! The versions of a solution, from their commits alone.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt, TryStreamExt};
use item_affinity_ingest::RowCounts;
use item_affinity_model::ItemAffinity;
use item_affinity_storage::{Artifact, Commit, CommitBody, InputFile, InputPin, Location, Stores, Versions};
use serde::{Deserialize, Serialize};

use crate::dataset::Pinned;
use crate::error::{Error, Result};
use crate::files::commit_path;
use crate::model_card::{EventFilter, ModelCard, known_settings};
use crate::refresh::Changes;
use crate::tables::{FORMAT, schemas};

/// Commits asked for at once.
const READ_AT_ONCE: usize = 16;

/// One version of a solution, as its commit tells it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct VersionSummary {
    /// Its number.
    pub version: u64,
    /// The run that made it.
    pub run_id: String,
    /// When it was committed, in epoch seconds.
    pub committed_at: i64,
    /// The program that made it.
    pub tool: String,
    /// The same for every run of the same job.
    pub job_key: String,
    /// The name that a person gave the job.
    pub job_name: Option<String>,
    /// Its files.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Users.
    pub users: u64,
    /// Items.
    pub items: u64,
    /// Interactions that were trained on.
    pub interactions: u64,
    /// Distinct user-item pairs among them.
    pub pairs: u64,
    /// Time of the newest interaction, in epoch seconds.
    pub as_of: i64,
    /// Number of hidden variables.
    pub hidden_dimension: usize,
    /// The recipe, with every setting.
    pub recipe: ItemAffinity,
    /// Objective after the last iteration; none for a refresh.
    pub loss: Option<f64>,
    /// Measures of quality, by name.
    pub metrics: BTreeMap<String, f64>,
    /// The version that was trained, of which this one has the item factors and coefficients; none for a training.
    pub refreshed_from: Option<u64>,
}

/// What the commit of a solution version says beyond files and counts, so that its history needs no other file.
#[derive(Serialize, Deserialize)]
struct Details {
    format: String,
    #[serde(deserialize_with = "known_settings")]
    recipe: ItemAffinity,
    #[serde(default)]
    events: EventFilter,
    as_of: i64,
    loss: Option<f64>,
    #[serde(default)]
    metrics: BTreeMap<String, f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refreshed_from: Option<u64>,
}

/// Lists the kept versions at a location, oldest first.
///
/// # Errors
/// [`Error::Storage`] when a commit cannot be read, there is none, or they are not of a solution; [`Error::Damaged`] for
/// one that does not say what was trained.
///
/// # Cost
/// One request per version.
pub async fn versions(stores: &Stores, location: &Location) -> Result<Vec<VersionSummary>> {
    let versions = Versions::new(stores, location.clone(), Artifact::SolutionVersion)?;
    let numbers = versions.numbers().await?;
    if numbers.is_empty() {
        // The words for a location without a solution are those of every other reader.
        versions.resolve(None).await?;
    }
    let commits = stream::iter(numbers).map(|number| versions.read(number)).buffered(READ_AT_ONCE);
    commits.map(|commit| summary(commit?)).try_collect().await
}

fn summary(commit: Commit) -> Result<VersionSummary> {
    let details = serde_json::from_value::<Details>(commit.body.details).map_err(|e| Error::Damaged {
        what: format!("the commit does not say what was trained ({e})"),
        file: commit_path(commit.version),
        cure: "train again".to_owned(),
    })?;
    let count = |name: &str| commit.body.counts.get(name).copied().unwrap_or_default();
    Ok(VersionSummary {
        version: commit.version,
        run_id: commit.run_id,
        committed_at: commit.committed_at,
        tool: commit.tool,
        job_key: commit.body.job_key,
        job_name: commit.job_name,
        files: commit.files.len() as u64,
        bytes: commit.files.iter().map(|file| file.bytes).fold(0, u64::saturating_add),
        users: count("users"),
        items: count("items"),
        interactions: count("interactions"),
        pairs: count("pairs"),
        as_of: details.as_of,
        hidden_dimension: details.recipe.hidden_dimension,
        recipe: details.recipe,
        loss: details.loss,
        metrics: details.metrics,
        refreshed_from: details.refreshed_from,
    })
}

/// What a job says about the version that it commits.
pub(crate) fn commit_body(
    job_key: String,
    pinned: &Pinned,
    rows: &RowCounts,
    card: &ModelCard,
    changes: Option<&Changes>,
) -> Result<CommitBody> {
    let details = Details {
        format: FORMAT.to_owned(),
        recipe: card.recipe.clone(),
        events: card.events.clone(),
        as_of: card.as_of,
        loss: card.loss.last().copied(),
        metrics: card.metrics.clone(),
        refreshed_from: card.refreshed_from,
    };
    let mut counts = BTreeMap::from([
        ("users".to_owned(), card.users),
        ("items".to_owned(), card.items),
        ("interactions".to_owned(), card.interactions),
        ("pairs".to_owned(), card.pairs),
        ("rows".to_owned(), rows.rows),
    ]);
    counts.extend((rows.forgotten > 0).then(|| ("forgotten_rows".to_owned(), rows.forgotten)));
    counts.extend(rows.rejected.iter().map(|(reason, rejected)| (format!("rejected_{reason}"), rejected.count)));
    counts.extend(changes.iter().flat_map(|changes| changes.counts()));
    let inputs = [&pinned.interactions, &pinned.items, &pinned.users];
    Ok(CommitBody {
        job_key,
        inputs: inputs.into_iter().flatten().map(pin).collect(),
        solution_version: None,
        schema: Some(schemas(card.recipe.hidden_dimension)),
        item_list_sha256: None,
        counts,
        details: serde_json::to_value(details).map_err(Error::encode)?,
    })
}

fn pin(file: &InputFile) -> InputPin {
    InputPin {
        uri: file.location.url().to_string(),
        etag: file.meta.e_tag.clone(),
        bytes: file.meta.size,
        last_modified: file.meta.last_modified.timestamp(),
        delta_version: file.delta_version,
    }
}
