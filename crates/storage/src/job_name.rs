//! Names that people give to jobs.

use std::fmt;
use std::str::FromStr;

use crate::Versions;

/// The most characters of a name.
const LONGEST: usize = 63;

/// The name of a job, by the rule of Amazon Personalize: 1 to 63 letters, digits, `-` and `_` of ASCII, a letter or digit
/// first. It stands in commits, for people; what a job is, its key says.
///
/// ```
/// # use item_affinity_storage::JobName;
/// assert_eq!("nightly-2026_11_24".parse::<JobName>()?.as_str(), "nightly-2026_11_24");
/// assert!("../nightly".parse::<JobName>().is_err());
/// # Ok::<(), item_affinity_storage::InvalidJobName>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobName(String);

/// A text that is no name of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a job name has 1 to 63 letters, digits, - and _, and begins with a letter or a digit")]
pub struct InvalidJobName;

impl JobName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Versions {
    /// Names the job in its commits.
    #[must_use]
    pub fn with_job_name(mut self, name: Option<JobName>) -> Self {
        self.job_name = name;
        self
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for JobName {
    type Err = InvalidJobName;

    fn from_str(text: &str) -> Result<Self, InvalidJobName> {
        let known = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if known && first && text.len() <= LONGEST { Ok(Self(text.to_owned())) } else { Err(InvalidJobName) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_amazon_personalize_takes() {
        let longest = "n".repeat(LONGEST);
        for name in ["a", "7", "nightly-2026_11_24", longest.as_str()] {
            assert_eq!(name.parse::<JobName>().map(|name| name.to_string()), Ok(name.to_owned()));
        }
        let too_long = "n".repeat(LONGEST + 1);
        for text in ["", "-a", "_a", "a/b", "..", "a b", "a.b", "\u{fc}ber", "a\0", "a\n", too_long.as_str()] {
            assert_eq!(text.parse::<JobName>(), Err(InvalidJobName), "{text:?}");
        }
    }
}
