//! Globs over the paths of a store.

use globset::{GlobBuilder, GlobMatcher};

use crate::{Error, Location, Result};

/// A glob, split at its first wildcard: `base` is a folder that can be listed, the rest is matched.
pub(crate) struct Pattern {
    /// The folder that holds all matches.
    pub(crate) base: String,
    /// One matcher for each depth, or a single one when `**` makes depth meaningless.
    matchers: Vec<GlobMatcher>,
    any_depth: bool,
    /// Whether its last part is more than a wildcard, so that it tells which files are meant.
    names_files: bool,
}

impl Pattern {
    /// The pattern of a location that has wildcards.
    pub(crate) fn parse(location: &Location) -> Result<Option<Self>> {
        let path = location.path().as_ref();
        let is_wild = |part: &str| part.contains(['*', '?', '[']);
        let parts: Vec<&str> = path.split('/').collect();
        let Some(first) = parts.iter().position(|part| is_wild(part)) else { return Ok(None) };
        let (base, wild) = parts.split_at_checked(first).unwrap_or_default();
        let any_depth = wild.contains(&"**");
        let depths: Vec<String> = if any_depth {
            vec![wild.join("/")]
        } else {
            (1..=wild.len()).map(|depth| wild.get(..depth).unwrap_or_default().join("/")).collect()
        };
        let matchers = depths.iter().map(|pattern| compile(pattern)).collect::<Result<_>>()?;
        let names_files = wild.last().is_some_and(|last| !matches!(*last, "*" | "**"));
        Ok(Some(Self { base: base.join("/"), matchers, any_depth, names_files }))
    }

    /// Whether a folder, relative to the base, can hold matches.
    pub(crate) fn enters(&self, folder: &str) -> bool {
        self.any_depth || prefixes(folder).zip(&self.matchers).all(|(prefix, matcher)| matcher.is_match(prefix))
    }

    /// Whether a file, relative to the base, is meant by name (`Some(true)`), as part of a folder or of everything
    /// (`Some(false)`), or not at all.
    pub(crate) fn takes(&self, file: &str) -> Option<bool> {
        let last = self.matchers.last()?;
        if last.is_match(file) {
            return Some(self.names_files);
        }
        let folder = file.rsplit_once('/')?.0;
        prefixes(folder).any(|prefix| last.is_match(prefix)).then_some(false)
    }
}

/// `a`, `a/b`, `a/b/c` of `a/b/c`.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| at).chain([path.len()]).filter_map(|end| path.get(..end))
}

fn compile(pattern: &str) -> Result<GlobMatcher> {
    // Braces are plain characters here, as in a shell without brace expansion inside quotes.
    let mut escaped = String::with_capacity(pattern.len());
    let mut in_class = false;
    for c in pattern.chars() {
        match c {
            '[' => in_class = true,
            ']' => in_class = false,
            _ => {}
        }
        match c {
            '{' | '}' if !in_class => escaped.extend(['[', c, ']']),
            _ => escaped.push(c),
        }
    }
    let glob = GlobBuilder::new(&escaped).literal_separator(true).backslash_escape(false).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|e| Error::Location {
        reason: format!("the pattern {} is not a glob: {}", crate::location::printable(pattern), e.kind()),
        cure: "use * ? [abc] and **".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(&Location::parse(text).unwrap()).unwrap().unwrap()
    }

    #[test]
    fn base_ends_before_the_first_wildcard() {
        assert_eq!(pattern("/data/2024/*/x.parquet").base, "data/2024");
        assert!(Pattern::parse(&Location::parse("/data/x.parquet").unwrap()).unwrap().is_none());
        assert!(Pattern::parse(&Location::parse("/data/[x").unwrap()).is_err());
    }

    #[test]
    fn star_stays_in_a_folder_and_two_stars_do_not() {
        let star = pattern("/data/*.parquet");
        assert_eq!(star.takes("a.parquet"), Some(true));
        assert_eq!(star.takes("a/b.parquet"), None);
        let deep = pattern("/data/**/*.parquet");
        assert_eq!(deep.takes("a/b/c.parquet"), Some(true));
        assert_eq!(deep.takes("c.parquet"), Some(true));
    }

    #[test]
    fn matched_folder_gives_all_that_is_below() {
        let folders = pattern("/data/day=2024-0?");
        assert_eq!(folders.takes("day=2024-01/h=1/x.parquet"), Some(false));
        assert_eq!(folders.takes("day=2023-01/x.parquet"), None);
        assert!(folders.enters("day=2024-01") && folders.enters("day=2024-01/h=1"));
        assert!(!folders.enters("day=2023-01"));
    }

    #[test]
    fn braces_are_plain_characters() {
        assert_eq!(pattern("/data/{a}*").takes("{a}b"), Some(true));
        assert_eq!(pattern("/data/{a}*").takes("ab"), None);
    }
}
