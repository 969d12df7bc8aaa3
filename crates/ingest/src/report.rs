//! The data report: what a data set holds, and what speaks against training on it.
//!
//! The thresholds are those of Amazon Personalize. Where it refuses data that is good enough here, the finding is a
//! warning that says so.

use item_affinity_model::Interactions;
use serde::Serialize;

use crate::error::{Error, Result, printable};
use crate::event_types::EventTypeCounts;
use crate::interactions::Ingested;
use crate::look_alikes::look_alikes;
use crate::metadata::Metadata;
use crate::profile::{ColumnProfile, Completeness};
use crate::tally::{RowCounts, percent, share};

/// Unique interactions below which training is refused.
pub const LEAST_INTERACTIONS: u64 = 1_000;
/// Users with two or more interactions below which training is refused.
pub const LEAST_USERS_WITH_TWO: u64 = 25;
/// Share of users with two or more interactions below which training is refused.
pub const LEAST_SHARE_WITH_TWO: f64 = 0.01;
/// Event types above which Amazon Personalize refuses to train; here they are a warning.
pub const MOST_EVENT_TYPES: usize = 10;
/// Completeness of a column below which there is a warning.
pub const LEAST_COMPLETE: f64 = 0.7;
/// Categories of a column above which there is a warning.
pub const MANY_CATEGORIES: u64 = 30;
/// Interactions that Amazon Personalize recommends.
pub const RECOMMENDED_INTERACTIONS: u64 = 50_000;
/// Users with two or more interactions that Amazon Personalize recommends.
pub const RECOMMENDED_USERS: u64 = 1_000;
/// Interactions that Amazon Personalize considers; there is no such limit here.
pub const MOST_INTERACTIONS_CONSIDERED: u64 = 500_000_000;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Training is refused.
    Error,
    /// Training goes on; the result may suffer.
    Warning,
    /// Advice.
    Info,
}

/// One thing that a person should know about the data.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// A stable code.
    pub code: &'static str,
    /// The finding in one line.
    pub message: String,
}

/// What Items or Users hold, next to the interactions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetadataReport {
    /// What happened to each row.
    pub rows: RowCounts,
    /// Distinct ids.
    pub ids: u64,
    /// Rows whose id another row has too.
    pub duplicates: u64,
    /// Ids that no interaction has.
    pub without_interactions: u64,
    /// Ids of interactions that the metadata lacks.
    pub unknown_ids: u64,
    /// Interactions with such an id.
    pub unknown_interactions: u64,
    /// Every column but the id.
    pub columns: Vec<ColumnProfile>,
}

/// What a data set holds, and what speaks against training on it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DataReport {
    /// What happened to each row of the interactions.
    pub rows: RowCounts,
    /// Interactions after all filters.
    pub interactions: u64,
    /// Interactions that differ in user, item or time.
    pub unique_interactions: u64,
    /// Users with an interaction.
    pub users: u64,
    /// Items with an interaction.
    pub items: u64,
    /// Users with two or more interactions.
    pub users_with_two_or_more: u64,
    /// The oldest interaction, in epoch seconds.
    pub first_time: Option<i64>,
    /// The newest interaction, in epoch seconds.
    pub last_time: Option<i64>,
    /// Event types over all rows, before any filter.
    pub event_types: EventTypeCounts,
    /// The contract's columns of the interactions.
    pub columns: Vec<Completeness>,
    /// Items, when they were given.
    pub item_metadata: Option<MetadataReport>,
    /// Users, when they were given.
    pub user_metadata: Option<MetadataReport>,
    /// The findings, the gravest first.
    pub findings: Vec<Finding>,
}

impl DataReport {
    /// Looks at everything that was read.
    ///
    /// # Cost
    /// One pass over the interactions, and a search for each id.
    pub fn new(ingested: &Ingested, items: Option<&Metadata>, users: Option<&Metadata>) -> Self {
        let log = &ingested.interactions;
        let events = Events::of(log);
        let time = log.time_range();
        let mut report = Self {
            rows: ingested.counts.clone(),
            interactions: log.len() as u64,
            unique_interactions: events.unique,
            users: log.users().len() as u64,
            items: log.items().len() as u64,
            users_with_two_or_more: log.users_with_at_least(2) as u64,
            first_time: time.map(|(first, _)| first),
            last_time: time.map(|(_, last)| last),
            event_types: ingested.event_types.clone(),
            columns: ingested.columns.clone(),
            item_metadata: items.map(|items| MetadataReport::new(items, log.items().iter(), &events.by_item)),
            user_metadata: users.map(|users| MetadataReport::new(users, log.users().iter(), &events.by_user)),
            findings: Vec::new(),
        };
        report.find_refusals();
        report.find_in_interactions(log, &events);
        report.find_in_metadata();
        for warning in [Some(&ingested.warnings), items.map(|m| &m.warnings), users.map(|m| &m.warnings)] {
            for warning in warning.into_iter().flatten() {
                report.find(Level::Warning, warning.code, warning.message.clone());
            }
        }
        report.findings.sort_by_key(|finding| finding.level);
        report
    }

    /// Refuses to train on data that is too small or has no order in time.
    ///
    /// `allow_small` lets small data pass; data without an order in time is refused all the same.
    ///
    /// # Errors
    /// [`Error::TooLittleData`], [`Error::TimestampsEqual`].
    pub fn refusal(&self, allow_small: bool) -> Result<()> {
        let errors = self.findings.iter().filter(|finding| finding.level == Level::Error);
        refuse(errors.map(|finding| (finding.code, finding.message.as_str())), allow_small)
    }

    fn find(&mut self, level: Level, code: &'static str, message: String) {
        self.findings.push(Finding { level, code, message });
    }

    fn find_refusals(&mut self) {
        let times = self.first_time.zip(self.last_time);
        let counts = (self.unique_interactions, self.users, self.users_with_two_or_more);
        for (code, message) in refusals(counts, self.interactions, times) {
            self.find(Level::Error, code, message);
        }
    }

    fn find_in_interactions(&mut self, log: &Interactions, events: &Events) {
        let types = self.event_types.types.len();
        if types > MOST_EVENT_TYPES {
            let types = if self.event_types.unlisted > 0 { format!("over {types}") } else { types.to_string() };
            let message = format!("{types} event types; Amazon Personalize refuses more than {MOST_EVENT_TYPES}");
            self.find(Level::Warning, "EVENT_TYPES_MANY", message);
        }
        for (name, complete) in incomplete(self.columns.iter().map(|column| (column.name, column.complete()))) {
            self.find(Level::Warning, "COLUMN_INCOMPLETE", format!("{name} of Interactions is {complete} complete"));
        }
        let most_of = |counts: &[u64]| counts.iter().copied().enumerate().max_by_key(|(_, count)| *count);
        if let Some((_, most)) = most_of(&events.by_user)
            && most > self.interactions / 2
            && self.users > 1
        {
            let message = format!("one user has {} of all interactions", percent(share(most, self.interactions)));
            self.find(Level::Warning, "USER_SKEW", message);
        }
        if let Some((item, most)) = most_of(&events.by_item)
            && most > self.interactions / 2
            && self.items > 1
        {
            let item = u32::try_from(item).ok().and_then(|item| log.items().id(item)).unwrap_or_default();
            let part = percent(share(most, self.interactions));
            self.find(Level::Warning, "ITEM_SKEW", format!("item {} has {part} of all interactions", printable(item)));
        }
        if self.items == 1 {
            self.find(Level::Warning, "ONE_ITEM", "there is one item only: every segment is the same".to_string());
        }
        for (what, ids) in [("user", log.users()), ("item", log.items())] {
            let count = look_alikes(ids);
            if count > 0 {
                let message = format!(
                    "{count} {what} ids differ from another one only by spaces around them, leading zeros or '.0'; \
                     they count as different"
                );
                self.find(Level::Warning, "LOOK_ALIKE_IDS", message);
            }
        }
        let repeated = self.interactions.saturating_sub(self.unique_interactions);
        if repeated > 0 {
            let message = format!("{repeated} interactions repeat user, item and time of another; each counts");
            self.find(Level::Info, "REPEATED_INTERACTIONS", message);
        }
        if self.interactions > MOST_INTERACTIONS_CONSIDERED {
            let message = "Amazon Personalize considers 500 million interactions; here all count".to_string();
            self.find(Level::Info, "INTERACTIONS_MANY", message);
        }
        if self.interactions < RECOMMENDED_INTERACTIONS || self.users_with_two_or_more < RECOMMENDED_USERS {
            let message = format!(
                "Amazon Personalize recommends {RECOMMENDED_INTERACTIONS} interactions from {RECOMMENDED_USERS} users with \
                 two or more each"
            );
            self.find(Level::Info, "BELOW_RECOMMENDED", message);
        }
    }

    fn find_in_metadata(&mut self) {
        let mut found = Vec::new();
        let kinds = [("Items", "items", &self.item_metadata), ("Users", "users", &self.user_metadata)];
        for (dataset, ids, metadata) in kinds {
            let Some(metadata) = metadata else { continue };
            if metadata.unknown_ids > 0 {
                let code = if dataset == "Items" { "ITEMS_UNKNOWN" } else { "USERS_UNKNOWN" };
                found.push((
                    code,
                    format!(
                        "{} {ids} of {} interactions ({}) are not in {dataset}",
                        metadata.unknown_ids,
                        metadata.unknown_interactions,
                        percent(share(metadata.unknown_interactions, self.interactions)),
                    ),
                ));
            }
            if metadata.without_interactions > 0 {
                let code = if dataset == "Items" { "ITEMS_WITHOUT_INTERACTIONS" } else { "USERS_WITHOUT_INTERACTIONS" };
                found.push((
                    code,
                    format!(
                        "{} of {} {ids} in {dataset} ({}) have no interactions",
                        metadata.without_interactions,
                        metadata.ids,
                        percent(share(metadata.without_interactions, metadata.ids)),
                    ),
                ));
            }
            let columns = metadata.columns.iter().map(|column| (column.name.as_str(), column.complete()));
            for (name, complete) in incomplete(columns) {
                found.push(("COLUMN_INCOMPLETE", format!("{name} of {dataset} is {complete} complete")));
            }
            for column in &metadata.columns {
                if let Some(count) = column.categories.filter(|count| *count > MANY_CATEGORIES) {
                    let over = if column.more_categories { "over " } else { "" };
                    let name = printable(&column.name);
                    found.push(("CATEGORIES_MANY", format!("{name} of {dataset} has {over}{count} categories")));
                }
            }
        }
        for (code, message) in found {
            self.find(Level::Warning, code, message);
        }
    }
}

/// What speaks against training on so much data; counts: unique interactions, users, users with two or more.
fn refusals(
    (unique, users, two): (u64, u64, u64),
    interactions: u64,
    times: Option<(i64, i64)>,
) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if unique < LEAST_INTERACTIONS {
        let message = format!("{unique} unique interactions after filters, training needs {LEAST_INTERACTIONS}");
        found.push((TOO_SMALL[0], message));
    }
    if two < LEAST_USERS_WITH_TWO {
        let message = format!("{two} users with two or more interactions, training needs {LEAST_USERS_WITH_TWO}");
        found.push((TOO_SMALL[1], message));
    }
    if share(two, users) < LEAST_SHARE_WITH_TWO {
        let message = format!("{two} of {users} users have two or more interactions, training needs 1 % of users");
        found.push((TOO_SMALL[2], message));
    }
    if interactions > 1 && times.is_some_and(|(first, last)| first == last) {
        found.push((TIMESTAMPS_EQUAL, format!("all {interactions} interactions have the same timestamp")));
    }
    found
}

/// Makes an error of such findings; small data may be allowed, data without an order in time is not.
fn refuse<'a>(found: impl Iterator<Item = (&'a str, &'a str)> + Clone, allow_small: bool) -> Result<()> {
    let small: Vec<&str> =
        found.clone().filter(|(code, _)| TOO_SMALL.contains(code)).map(|(_, message)| message).collect();
    if !small.is_empty() && !allow_small {
        return Err(Error::TooLittleData {
            what: small.join("; "),
            cure: "add data or loosen the event filter, or try it anyway with --allow-small-data".to_string(),
        });
    }
    match found.clone().find(|(code, _)| *code == TIMESTAMPS_EQUAL) {
        Some((_, message)) => Err(Error::TimestampsEqual {
            what: message.to_owned(),
            cure: "give the time of each interaction, or map its column with --column timestamp=<your column>"
                .to_string(),
        }),
        None => Ok(()),
    }
}

/// [`DataReport::refusal`] of data whose rows were counted and not compared.
pub(crate) fn too_little(interactions: u64, users: u64, two: u64, times: (i64, i64), allow_small: bool) -> Result<()> {
    let found = refusals((interactions, users, two), interactions, Some(times));
    refuse(found.iter().map(|(code, message)| (*code, message.as_str())), allow_small)
}

/// Findings that `--allow-small-data` lets pass.
const TOO_SMALL: [&str; 3] = ["TOO_FEW_INTERACTIONS", "TOO_FEW_USERS", "TOO_FEW_USERS_SHARE"];
const TIMESTAMPS_EQUAL: &str = "TIMESTAMPS_EQUAL";

fn incomplete<'a>(columns: impl Iterator<Item = (&'a str, f64)>) -> Vec<(String, String)> {
    columns
        .filter(|(_, complete)| *complete < LEAST_COMPLETE)
        .map(|(name, complete)| (printable(name), percent(complete)))
        .collect()
}

impl MetadataReport {
    /// `counts` are the interactions of each of the `known` ids.
    fn new<'a>(metadata: &Metadata, known: impl Iterator<Item = &'a str>, counts: &[u64]) -> Self {
        let (mut matched, mut unknown_ids, mut unknown_interactions) = (0, 0, 0);
        for (id, count) in known.zip(counts) {
            if metadata.ids.index_of(id).is_some() {
                matched += 1;
            } else {
                unknown_ids += 1;
                unknown_interactions += count;
            }
        }
        let ids = metadata.ids.len() as u64;
        Self {
            rows: metadata.counts.clone(),
            ids,
            duplicates: metadata.duplicates,
            without_interactions: ids.saturating_sub(matched),
            unknown_ids,
            unknown_interactions,
            columns: metadata.columns.clone(),
        }
    }
}

/// Interactions by user and by item.
struct Events {
    unique: u64,
    by_user: Vec<u64>,
    by_item: Vec<u64>,
}

impl Events {
    fn of(log: &Interactions) -> Self {
        let mut events =
            Self { unique: 0, by_user: Vec::with_capacity(log.users().len()), by_item: vec![0; log.items().len()] };
        for user in 0..log.users().len() {
            let history = log.history(user);
            events.by_user.push(history.items.len() as u64);
            let mut last = None;
            for event in history.items.iter().zip(history.times) {
                events.by_item[*event.0 as usize] += 1;
                // Histories are sorted by time and item, so that repeated events are neighbours.
                events.unique += u64::from(last != Some(event));
                last = Some(event);
            }
        }
        events
    }
}
