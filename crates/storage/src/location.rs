//! Where something is: a path on local disk or an object in a bucket.

use std::fmt;
use std::path::{Component, PathBuf};

use object_store::path::Path;
use url::Url;

use crate::{Error, Result};

const SUPPORTED: &str = "a local path, file:///path or s3://bucket/path";

/// A file, a folder or an object: what a person typed, made absolute and checked.
///
/// Plain paths are taken as they are, so `a%20b` is a file with a percent sign; in URLs `%20` is a space. Two
/// locations are equal when they name the same place. [`Display`](fmt::Display) gives what a person would type, and
/// parsing that text gives the same location; it never holds user info or a query, because these are refused.
#[derive(Clone, Eq, PartialEq, Hash)]
pub struct Location {
    store: Store,
    path: Path,
    prefix: bool,
    url: Url,
}

/// Which store a location is in.
#[derive(Clone, Eq, PartialEq, Hash)]
enum Store {
    Local,
    Memory,
    S3 { bucket: String },
}

impl Location {
    /// The location that a text names; a relative path is made absolute and need not exist.
    ///
    /// # Errors
    /// [`Error::Location`] for an unknown scheme, user info, a query, a host in `file://`, a missing or impossible
    /// bucket, `..` in a URL and empty path parts.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(refuse("the location is empty", format!("give {SUPPORTED}")));
        }
        let Some((scheme, rest)) = split_scheme(text) else {
            return Self::parse_local(text);
        };
        if rest.contains('?') || rest.contains('#') {
            return Err(refuse(
                format!("{scheme}:// location with a query or fragment"),
                "remove it, or write ? as %3F and # as %23 if they belong to the name",
            ));
        }
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if host.contains('@') {
            return Err(refuse(
                format!("{scheme}:// location with user info"),
                "remove it; credentials come from the environment",
            ));
        }
        match scheme.as_str() {
            "file" if host.is_empty() => Self::parse_local(&format!("/{}", decode(path)?)),
            "file" => Err(refuse("file:// location with a host", "write file:///path with three slashes")),
            "memory" if host.is_empty() => Self::build(Store::Memory, &decode(path)?),
            "memory" => Err(refuse("memory:// location with a host", "write memory:///path with three slashes")),
            "s3" | "s3a" => {
                let bucket = bucket(host)?;
                Self::build(Store::S3 { bucket }, &decode(path)?)
            }
            _ => Err(refuse(format!("unknown scheme {}", printable(&scheme)), format!("give {SUPPORTED}"))),
        }
    }

    fn parse_local(text: &str) -> Result<Self> {
        let mut chars = text.chars();
        if let (Some(drive), Some(':'), Some('\\')) = (chars.next(), chars.next(), chars.next())
            && drive.is_ascii_alphabetic()
        {
            return Err(refuse(format!("{} looks like a Windows path", printable(text)), format!("give {SUPPORTED}")));
        }
        let absolute = std::path::absolute(text).map_err(|e| {
            refuse(format!("{} cannot be made absolute: {e}", printable(text)), "give an absolute path")
        })?;
        let mut resolved = PathBuf::new();
        for component in absolute.components() {
            match component {
                // `..` after a link leaves the target of the link, as the kernel does it.
                Component::ParentDir => {
                    if let Ok(canonical) = resolved.canonicalize() {
                        resolved = canonical;
                    }
                    resolved.pop();
                }
                other => resolved.push(other),
            }
        }
        let Some(plain) = resolved.to_str() else {
            return Err(refuse(format!("{} is not UTF-8", printable(text)), "rename the folder"));
        };
        let prefix =
            text.ends_with('/') || text == "." || text == ".." || text.ends_with("/.") || text.ends_with("/..");
        let plain = if prefix && !plain.ends_with('/') { format!("{plain}/") } else { plain.to_owned() };
        Self::build(Store::Local, plain.trim_start_matches('/'))
    }

    /// `path` is raw: nothing in it is percent-encoded.
    fn build(store: Store, path: &str) -> Result<Self> {
        let prefix = path.is_empty() || path.ends_with('/');
        let trimmed = path.strip_suffix('/').unwrap_or(path);
        let parsed = if trimmed.is_empty() {
            Path::default()
        } else {
            check_parts(trimmed)?;
            let control =
                || refuse(format!("{} has a control character", printable(path)), "rename the file or folder");
            // The store refuses those of ASCII alone; a terminal obeys the others too.
            if trimmed.contains(char::is_control) {
                return Err(control());
            }
            Path::parse(trimmed).map_err(|_| control())?
        };
        let mut url = store.url()?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear();
            segments.extend(trimmed.split('/').filter(|part| !part.is_empty()));
            if prefix {
                segments.push("");
            }
        }
        Ok(Self { store, path: parsed, prefix, url })
    }

    /// The whole URL, percent-encoded.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The URL of the store: scheme and bucket, such as `file:///` or `s3://bucket/`.
    #[must_use]
    pub fn store_url(&self) -> Url {
        let mut url = self.url.clone();
        url.set_path("/");
        url
    }

    /// The path inside the store.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is on local disk.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.store == Store::Local
    }

    /// The absolute path, when it is on local disk.
    #[must_use]
    pub fn local_path(&self) -> Option<PathBuf> {
        self.is_local().then(|| PathBuf::from(format!("/{}", self.path.as_ref())))
    }

    /// Something below it: a file, or a folder when `relative` ends in `/`.
    ///
    /// # Errors
    /// [`Error::Location`] when `relative` is empty or absolute, has an empty part, `.` or `..`, or a scheme.
    pub fn child(&self, relative: &str) -> Result<Self> {
        if relative.starts_with('/') || split_scheme(relative).is_some() {
            return Err(refuse(format!("{} is not relative", printable(relative)), "give a name below the location"));
        }
        check_parts(relative.strip_suffix('/').unwrap_or(relative))?;
        let base = self.path.as_ref();
        let path = if base.is_empty() { relative.to_owned() } else { format!("{base}/{relative}") };
        Self::build(self.store.clone(), &path)
    }

    /// The location of an object of the same store.
    pub(crate) fn sibling(&self, path: &Path) -> Result<Self> {
        Self::build(self.store.clone(), path.as_ref())
    }

    /// Whether it was written with a `/` at the end, so that it can only be a folder.
    #[must_use]
    pub fn is_prefix(&self) -> bool {
        self.prefix
    }

    /// Whether `other` is this location or lies below it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.store == other.store && other.path.prefix_match(&self.path).is_some()
    }
}

impl Store {
    fn url(&self) -> Result<Url> {
        let text = match self {
            Self::Local => "file:///".to_owned(),
            Self::Memory => "memory:///".to_owned(),
            Self::S3 { bucket } => format!("s3://{bucket}/"),
        };
        Url::parse(&text).map_err(|e| refuse(format!("{text} is not a URL: {e}"), format!("give {SUPPORTED}")))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.store {
            Store::Local => write!(f, "/{}", self.path.as_ref())?,
            Store::Memory => write!(f, "memory:///{}", encode(self.path.as_ref()))?,
            Store::S3 { bucket } => write!(f, "s3://{bucket}/{}", encode(self.path.as_ref()))?,
        }
        if self.prefix && !self.path.as_ref().is_empty() { f.write_str("/") } else { Ok(()) }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}

fn refuse(reason: impl Into<String>, cure: impl Into<String>) -> Error {
    Error::Location { reason: reason.into(), cure: cure.into() }
}

/// Scheme in lower case and what follows `://`.
fn split_scheme(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let mut chars = scheme.chars();
    let first = chars.next()?;
    let valid = first.is_ascii_alphabetic() && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    valid.then(|| (scheme.to_ascii_lowercase(), rest))
}

fn bucket(host: &str) -> Result<String> {
    if host.is_empty() {
        return Err(refuse("s3:// location without a bucket", "write s3://bucket/path"));
    }
    let valid = (3..=63).contains(&host.len())
        && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'))
        && host.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if valid {
        Ok(host.to_owned())
    } else {
        Err(refuse(
            format!("{} is not the name of a bucket", printable(host)),
            "use 3 to 63 lower-case letters, digits, dots and dashes",
        ))
    }
}

fn check_parts(path: &str) -> Result<()> {
    for part in path.split('/') {
        let reason = match part {
            "" => "an empty part",
            "." | ".." => "a part of dots",
            _ => continue,
        };
        return Err(refuse(format!("{} has {reason}", printable(path)), "write the path without it"));
    }
    Ok(())
}

/// Percent-decodes the path of a URL.
pub(crate) fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = |i: usize| tail.get(i).and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(high * 16 + low);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes)
        .map_err(|_| refuse(format!("{} is not UTF-8 after percent decoding", printable(text)), "give a UTF-8 name"))
}

/// The inverse of [`decode`] with as little encoding as possible.
fn encode(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '%' => text.push_str("%25"),
            '?' => text.push_str("%3F"),
            '#' => text.push_str("%23"),
            _ => text.push(c),
        }
    }
    text
}

/// A text that is safe on a terminal: control characters escaped, cut at 200 characters.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == 200 {
            out.push('…');
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn relative_path_becomes_absolute_without_existing() {
        let here = std::env::current_dir().unwrap();
        let location = Location::parse("no/such/file.parquet").unwrap();
        assert_eq!(location.local_path().unwrap(), here.join("no/such/file.parquet"));
        assert!(!location.is_prefix());
        assert_eq!(Location::parse("./x/../y").unwrap().local_path().unwrap(), here.join("y"));
        assert_eq!(Location::parse(".").unwrap().local_path().unwrap(), here);
    }

    #[test]
    fn trailing_slash_marks_a_folder() {
        for text in ["/a/b/", "s3://bucket/a/", "memory:///a/", "s3://bucket", "s3://bucket/", "/"] {
            let location = Location::parse(text).unwrap();
            assert!(location.is_prefix(), "{text}");
            assert!(location.url().as_str().ends_with('/'), "{text}");
        }
        assert!(!Location::parse("s3://bucket/a").unwrap().is_prefix());
    }

    #[test]
    fn two_dots_after_a_link_leave_the_target() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("real/inner")).unwrap();
        std::os::unix::fs::symlink(root.join("real/inner"), root.join("link")).unwrap();
        let location = Location::parse(root.join("link/../x").to_str().unwrap()).unwrap();
        assert_eq!(location.local_path().unwrap(), root.join("real/x"));
    }

    #[test]
    fn s3_forms_name_the_same_object() {
        let plain = Location::parse("s3://lake/a b/c").unwrap();
        for text in ["S3://lake/a b/c", "s3a://lake/a%20b/c", "s3://lake/a%20b/c"] {
            assert_eq!(Location::parse(text).unwrap(), plain);
        }
        assert_eq!(plain.to_string(), "s3://lake/a b/c");
        assert_eq!(plain.path().as_ref(), "a b/c");
        assert_eq!(plain.url().as_str(), "s3://lake/a%20b/c");
        assert_eq!(plain.store_url().as_str(), "s3://lake/");
        assert_eq!(Location::parse("file:///tmp/x").unwrap(), Location::parse("/tmp/x").unwrap());
    }

    #[test]
    fn refused_texts_are_usage_errors_that_say_why() {
        for (text, part) in [
            ("", "empty"),
            ("s3://", "without a bucket"),
            ("s3:///x", "without a bucket"),
            ("s3://B/x", "not the name of a bucket"),
            ("s3://bucket:80/x", "not the name of a bucket"),
            ("file://host/x", "with a host"),
            ("memory://host/x", "with a host"),
            ("gs://bucket/x", "unknown scheme gs; give a local path, file:///path or s3://bucket/path"),
            ("https://example.org/x", "unknown scheme https"),
            ("C:\\data", "Windows path"),
            ("s3://bucket/a/../b", "dots"),
            ("s3://bucket/a/%2e%2e/b", "dots"),
            ("s3://bucket/a//b", "empty part"),
            ("s3://bucket/%00", "control character"),
            ("s3://bucket/%ff", "not UTF-8"),
            ("/a\u{1}b", "control character"),
            ("s3://bucket/a\u{9b}b", "control character"),
            ("/a%C2%9Bb\u{85}", "control character"),
        ] {
            let error = Location::parse(text).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Usage, "{text}");
            assert!(error.to_string().starts_with("ERR_LOCATION: "), "{error}");
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn secrets_in_a_url_are_refused_and_never_echoed() {
        for text in [
            "s3://user:CANARY@bucket/x",
            "s3://bucket/x?X-Amz-Signature=CANARY",
            "s3://bucket/x#CANARY",
            "https://user:CANARY@host/x",
            "https://host/x?sig=CANARY",
        ] {
            let error = Location::parse(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("CANARY"), "{error}");
        }
    }

    #[test]
    fn child_stays_below() {
        let base = Location::parse("s3://bucket/out").unwrap();
        assert_eq!(base.child("a/b.parquet").unwrap().to_string(), "s3://bucket/out/a/b.parquet");
        assert!(base.child("a/").unwrap().is_prefix());
        assert_eq!(base.child("100%").unwrap().path().as_ref(), "out/100%");
        for bad in ["", "/a", "..", "a/../b", "a//b", "./a", "s3://other/x", "file:///x", "a/.."] {
            assert!(base.child(bad).is_err(), "{bad}");
        }
        assert!(base.contains(&base.child("x").unwrap()));
        assert!(!base.contains(&Location::parse("s3://bucket/outer").unwrap()));
        assert!(!base.contains(&Location::parse("s3://bucket2/out/x").unwrap()));
    }

    proptest! {
        #[test]
        fn display_parses_to_the_same_location(
            parts in prop::collection::vec("[a-zA-Zé木 %#?&+=*\\[\\]~.,@:-]{1,8}", 1..4), scheme in 0..3_u8
        ) {
            prop_assume!(parts.iter().all(|p| p != "." && p != ".."));
            let base = ["/", "s3://bucket/", "memory:///"][usize::from(scheme)];
            let location = Location::parse(base).unwrap().child(&parts.join("/")).unwrap();
            prop_assert_eq!(location.path().as_ref(), parts.join("/"));
            prop_assert_eq!(&Location::parse(&location.to_string()).unwrap(), &location);
            prop_assert_eq!(&Location::parse(location.url().as_str()).unwrap(), &location);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = Location::parse(&text);
            let _ = Location::parse(&format!("s3://{text}"));
        }
    }
}
