//! Which solution version is meant: a location, and a number when it is pinned.

use std::fmt;

use item_affinity_storage::{Artifact, Location, Stores, Versions};

use crate::error::{Error, Result};

/// Names a solution version: `s3://lake/affinity` is the newest one, `s3://lake/affinity@7` is version 7.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SolutionRef {
    /// The folder that training wrote to.
    pub location: Location,
    /// The version, or `None` for the newest one at the time of asking.
    pub version: Option<u64>,
}

impl SolutionRef {
    /// Reads `location` or `location@number`.
    ///
    /// An `@` that is not followed by digits only, up to the end, belongs to the location.
    ///
    /// # Errors
    /// [`Error::Reference`] for version 0 or a number beyond 64 bits; [`Error::Storage`] for a text that is no location.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((location, number)) = text.rsplit_once('@').filter(|(_, number)| is_number(number)) else {
            return Ok(Self { location: Location::parse(text)?, version: None });
        };
        // The location first: a text with a password in it must not be quoted by our own error.
        let location = Location::parse(location)?;
        match number.parse::<u64>() {
            Ok(version) if version > 0 => Ok(Self { location, version: Some(version) }),
            _ => Err(Error::Reference { location: location.to_string(), version: number.to_owned() }),
        }
    }

    /// The newest version when none is pinned, checked to be there; the same number when one is.
    ///
    /// # Errors
    /// [`Error::Storage`] when there is no such version, or no solution at the location.
    pub async fn resolve(&self, stores: &Stores) -> Result<Self> {
        let versions = Versions::new(stores, self.location.clone(), Artifact::SolutionVersion)?;
        let commit = versions.resolve(self.version).await?;
        Ok(Self { location: self.location.clone(), version: Some(commit.version) })
    }
}

impl fmt::Display for SolutionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "{}@{version}", self.location),
            None => write!(f, "{}", self.location),
        }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_after_the_last_at_sign_pins_the_version() {
        let reference = SolutionRef::parse("s3://lake/affinity@7").unwrap();
        assert_eq!(reference.version, Some(7));
        assert_eq!(reference.location, Location::parse("s3://lake/affinity").unwrap());
        assert_eq!(reference.to_string(), "s3://lake/affinity@7");
    }

    #[test]
    fn no_number_means_the_newest_version() {
        let reference = SolutionRef::parse("s3://lake/affinity").unwrap();
        assert_eq!(reference.version, None);
        assert_eq!(reference.to_string(), "s3://lake/affinity");
    }

    #[test]
    fn an_at_sign_in_a_folder_name_belongs_to_the_location() {
        for text in ["s3://lake/me@home/affinity", "s3://lake/affinity@v7", "s3://lake/affinity@"] {
            let reference = SolutionRef::parse(text).unwrap();
            assert_eq!((reference.version, &reference.location), (None, &Location::parse(text).unwrap()), "{text}");
        }
        assert_eq!(SolutionRef::parse("s3://lake/me@home/affinity@3").unwrap().version, Some(3));
    }

    #[test]
    fn version_zero_and_numbers_beyond_64_bits_are_refused() {
        for number in ["0", "00", "18446744073709551616"] {
            let error = SolutionRef::parse(&format!("s3://lake/affinity@{number}")).unwrap_err();
            assert!(matches!(&error, Error::Reference { version, .. } if version == number), "{error}");
            assert!(error.to_string().contains("s3://lake/affinity"), "{error}");
        }
    }
}
