//! The key that tells whether a batch segment job was done already.

use std::fmt::Write as _;

use item_affinity_solution::SolutionVersion;
use item_affinity_storage::sha256_hex;

use crate::job_users::JobUsers;
use crate::segment_job::{BatchSegmentJob, OutputFormat};

impl BatchSegmentJob {
    pub(crate) fn item_list_sha256(&self) -> String {
        let mut text = String::new();
        for (number, file) in self.items.iter().enumerate() {
            // A single list keeps the hash that it had before there were several.
            if number > 0 {
                writeln!(text, "file {number}").unwrap_or_default();
            }
            for entry in &file.list.entries {
                match &entry.item {
                    Ok(id) => writeln!(text, "+{}:{id}", id.len()),
                    Err(error) => writeln!(text, "-{}:{}", error.code, entry.line.unwrap_or_default()),
                }
                .unwrap_or_default();
            }
        }
        sha256_hex(text.as_bytes())
    }

    /// The filter and the values that the lines give it, which decide what it means.
    fn filter_key(&self) -> Option<String> {
        let filter = self.filter.as_ref()?;
        let mut text = format!("{filter}\n");
        for entry in self.items.iter().flat_map(|file| &file.list.entries) {
            let values = entry.input.as_ref().and_then(|line| line.get("filterValues"));
            writeln!(text, "{}", values.unwrap_or(&serde_json::Value::Null)).unwrap_or_default();
        }
        Some(sha256_hex(text.as_bytes()))
    }

    /// The same solution version, items and settings give the same key.
    pub(crate) fn job_key(&self, version: &SolutionVersion, users: Option<&JobUsers>) -> String {
        let mut parts = vec![
            "segments 1".to_owned(),
            version.commit.sha256.clone(),
            self.item_list_sha256(),
            self.num_results.to_string(),
            self.format_key(),
            format!("{} {}", self.seen, self.min_score),
        ];
        // Jobs without reasons or users keep the key that they had before there were any.
        parts.extend(self.reasons.map(|reasons| format!("reasons {reasons}")));
        parts.extend(users.map(|users| format!("users {}", users.key(self.users_filter.as_deref()))));
        parts.extend((self.least_users > 1).then(|| format!("min users {}", self.least_users)));
        parts.extend(self.filter_key().map(|filter| format!("filter {filter}")));
        sha256_hex(parts.join("\n").as_bytes())
    }

    /// The names of the input files count where outputs are named after them.
    fn format_key(&self) -> String {
        match &self.format {
            OutputFormat::Parquet => "Parquet".to_owned(),
            OutputFormat::Delta { mode } => format!("Delta {mode:?}"),
            OutputFormat::JsonLines { users_key } => {
                let names = self.items.iter().map(|file| file.name.as_str()).collect::<Vec<_>>();
                format!("JsonLines {names:?} {users_key:?}")
            }
        }
    }
}
