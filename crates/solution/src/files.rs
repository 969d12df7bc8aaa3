//! The files that a commit of a solution version names, and how they are read: every fault by file name.

use bytes::Bytes;
use item_affinity_storage::{Artifact, Commit, FileEntry, Location, Stores, Versions, preflight};

use crate::error::{Error, Result};
use crate::model_card::{CardFault, ModelCard};
use crate::reference::SolutionRef;
use crate::tables::attribute_weights::{self, AttributeWeights};
use crate::tables::{FORMAT_MAJOR, MODEL_CARD, MODEL_CARD_LIMIT, Table, pairs};

/// A part of a table and the range of indexes in it.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) entry: FileEntry,
    pub(crate) first_index: u32,
    pub(crate) rows: u32,
}

/// The files of a version by what they are; files that a later minor version added are passed over.
#[derive(Debug)]
pub(crate) struct VersionFiles {
    pub(crate) card: FileEntry,
    pub(crate) items: Vec<Part>,
    pub(crate) users: Vec<Part>,
    pub(crate) pairs: Vec<Part>,
    /// What attributes of users are worth; only versions that use them have it.
    pub(crate) user_attributes: Option<FileEntry>,
}

/// Reads the files of one version.
pub(crate) struct VersionReader {
    pub(crate) versions: Versions,
    pub(crate) commit: Commit,
}

impl VersionReader {
    /// A reader for the version that `reference` names.
    pub(crate) async fn open(stores: &Stores, reference: &SolutionRef) -> Result<Self> {
        let versions = Versions::new(stores, reference.location.clone(), Artifact::SolutionVersion)?;
        let commit = versions.resolve(reference.version).await?;
        Ok(Self { versions, commit })
    }

    /// A reader for a version whose commit is known.
    pub(crate) fn new(stores: &Stores, location: &Location, commit: Commit) -> Result<Self> {
        let versions = Versions::new(stores, location.clone(), Artifact::SolutionVersion)?;
        Ok(Self { versions, commit })
    }

    /// Whether a file is there with the size that the commit gives.
    pub(crate) async fn check_size(&self, entry: &FileEntry) -> Result<()> {
        Ok(self.versions.check_file(entry).await?)
    }

    /// The files by what they are.
    pub(crate) fn files(&self) -> Result<VersionFiles> {
        let folder = format!("versions/{}/", self.commit.run_id);
        let file = |name: &str| {
            let is_it = |entry: &&FileEntry| entry.path.strip_prefix(&folder) == Some(name);
            self.commit.files.iter().find(is_it).cloned()
        };
        let card = file(MODEL_CARD).ok_or_else(|| {
            self.damaged(&commit_path(self.commit.version), format!("the commit names no {MODEL_CARD}"))
        })?;
        let items = self.parts(&folder, Table::Items.folder())?;
        let users = self.parts(&folder, Table::Users.folder())?;
        let pairs = self.parts(&folder, pairs::FOLDER)?;
        Ok(VersionFiles { card, items, users, pairs, user_attributes: file(attribute_weights::FILE) })
    }

    fn parts(&self, folder: &str, table: &str) -> Result<Vec<Part>> {
        let prefix = format!("{folder}{table}/part-");
        let mut entries: Vec<&FileEntry> =
            self.commit.files.iter().filter(|entry| entry.path.starts_with(&prefix)).collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let mut first_index = 0u32;
        let mut parts = Vec::with_capacity(entries.len());
        for entry in entries {
            let rows = entry.rows.and_then(|rows| u32::try_from(rows).ok());
            let next = rows.and_then(|rows| first_index.checked_add(rows));
            let (Some(rows), Some(next)) = (rows, next) else {
                return Err(self.damaged(&entry.path, "the commit gives an impossible number of rows".to_owned()));
            };
            parts.push(Part { entry: entry.clone(), first_index, rows });
            first_index = next;
        }
        Ok(parts)
    }

    /// The model card, verified.
    pub(crate) async fn card(&self, entry: &FileEntry) -> Result<ModelCard> {
        if entry.bytes > MODEL_CARD_LIMIT {
            let what = format!("{} bytes, where a model card has at most {MODEL_CARD_LIMIT}", entry.bytes);
            return Err(self.damaged(&entry.path, what));
        }
        let bytes = self.bytes(entry).await?;
        ModelCard::from_json(&bytes).map_err(|fault| match fault {
            CardFault::Damaged(what) => self.damaged(&entry.path, what),
            CardFault::Version(found) => self.other_format(&entry.path, &found),
        })
    }

    /// The model card, verified, of a version whose other files are all there with their sizes.
    pub(crate) async fn whole(&self) -> Result<ModelCard> {
        let files = self.files()?;
        let card = self.card(&files.card).await?;
        self.agree(&files, &card)?;
        let parts = files.items.iter().chain(&files.users).chain(&files.pairs).map(|part| &part.entry);
        for entry in parts.chain(&files.user_attributes) {
            self.check_size(entry).await?;
        }
        Ok(card)
    }

    /// A state file, verified against the commit and passed by the footer preflight.
    pub(crate) async fn parquet(&self, entry: &FileEntry) -> Result<Bytes> {
        let bytes = self.bytes(entry).await?;
        preflight(&bytes, &entry.path).map_err(|error| match error {
            item_affinity_storage::Error::Parquet { fault, reason, .. } => {
                self.damaged(&entry.path, format!("{}: {reason}", fault.code()))
            }
            other => other.into(),
        })?;
        Ok(bytes)
    }

    /// What attributes of users are worth, verified; none for a version without.
    pub(crate) async fn user_attributes(
        &self,
        files: &VersionFiles,
        card: &ModelCard,
    ) -> Result<Option<AttributeWeights>> {
        let Some(entry) = &files.user_attributes else { return Ok(None) };
        let bytes = self.parquet(entry).await?;
        let weights = AttributeWeights::decode(&bytes, entry.rows.unwrap_or_default(), card.recipe.hidden_dimension);
        weights.map(Some).map_err(|what| self.damaged(&entry.path, what))
    }

    /// A file whose size and SHA-256 are those of the commit.
    async fn bytes(&self, entry: &FileEntry) -> Result<Bytes> {
        Ok(self.versions.read_file(entry).await?)
    }

    /// An error for a file that is not as the commit or the format says.
    pub(crate) fn damaged(&self, file: &str, what: String) -> Error {
        Error::Damaged { what, file: file.to_owned(), cure: self.cure() }
    }

    /// An error for a file that belongs to a model of other data.
    pub(crate) fn foreign(&self, file: &str, what: &str) -> Error {
        Error::Foreign { what: what.to_owned(), file: file.to_owned(), cure: self.cure() }
    }

    fn other_format(&self, file: &str, found: &str) -> Error {
        let found: String = found.escape_debug().take(40).collect();
        Error::Format {
            found,
            reads: format!("{FORMAT_MAJOR}.x"),
            file: file.to_owned(),
            cure: format!("use a program of that time, or {}", self.cure()),
        }
    }

    /// The last version before this one, if there is one, and what always helps.
    fn cure(&self) -> String {
        match self.commit.parent_version {
            Some(earlier) => format!("use an earlier version ({}@{earlier}) or train again", self.versions.location()),
            None => "train again".to_owned(),
        }
    }

    /// Checks that the rows that the commit gives are those of the model card, and fit into the files.
    pub(crate) fn agree(&self, files: &VersionFiles, card: &ModelCard) -> Result<()> {
        let width = 4 * card.recipe.hidden_dimension as u64;
        if files.pairs.len() != card.pair_parts.len() || !card.pair_parts.is_sorted() {
            let what = format!("names {} parts of pairs, the commit {}", card.pair_parts.len(), files.pairs.len());
            return Err(self.damaged(&files.card.path, what));
        }
        for (name, parts, rows, width) in [
            ("items", &files.items, card.items, width),
            ("users", &files.users, card.users, width),
            ("pairs", &files.pairs, card.pairs, 16),
        ] {
            let found: u64 = parts.iter().map(|part| u64::from(part.rows)).sum();
            if found != rows {
                return Err(self.damaged(&files.card.path, format!("counts {rows} {name}, the files have {found}")));
            }
            for part in parts {
                let least = u64::from(part.rows).checked_mul(width);
                if least.is_none_or(|least| least > part.entry.bytes) {
                    let what =
                        format!("{} rows of {width} bytes do not fit into {} bytes", part.rows, part.entry.bytes);
                    return Err(self.damaged(&part.entry.path, what));
                }
            }
        }
        Ok(())
    }
}

/// The commit object of a version, below the location of the solution.
pub(crate) fn commit_path(version: u64) -> String {
    format!("_item_affinity/commits/{version:020}.json")
}
