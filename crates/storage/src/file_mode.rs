//! Who may read and write what is made on local disk: its owner alone, unless it was said otherwise.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

static CHOSEN: OnceLock<FileMode> = OnceLock::new();

/// The permissions of files on local disk; folders have x wherever files have r.
///
/// Its text is octal, as `640`: read and write for the owner, and what others get of both. Nobody executes a file, and no
/// file changes who runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(u32);

impl Default for FileMode {
    /// `600`.
    fn default() -> Self {
        Self(0o600)
    }
}

impl FileMode {
    /// Of a file.
    #[must_use]
    pub fn of_files(self) -> u32 {
        self.0
    }

    /// Of a folder: whoever may read a file may reach it.
    #[must_use]
    pub fn of_folders(self) -> u32 {
        self.0 | (self.0 & 0o444) >> 2
    }

    /// Makes it the mode of all files that this process makes from now on through this crate, and gives the one that counts:
    /// that of the first call.
    pub fn choose(self) -> Self {
        *CHOSEN.get_or_init(|| self)
    }

    pub(crate) fn chosen() -> Self {
        CHOSEN.get().copied().unwrap_or_default()
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:o}", self.0)
    }
}

impl FromStr for FileMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(text);
        let mode = (digits.len() == 3).then(|| u32::from_str_radix(digits, 8).ok()).flatten();
        match mode {
            Some(mode) if mode & 0o600 == 0o600 && mode & 0o111 == 0 => Ok(Self(mode)),
            _ => Err(format!(
                "'{}' is no mode of files; write 600, 640 or 660: the owner reads and writes, nobody executes, and folders \
                 are open to whoever may read",
                text.escape_debug().take(20).collect::<String>()
            )),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_open_to_whoever_may_read() {
        for (text, files, folders) in [
            ("600", 0o600, 0o700),
            ("640", 0o640, 0o750),
            ("0660", 0o660, 0o770),
            ("644", 0o644, 0o755),
            ("620", 0o620, 0o720),
        ] {
            let mode = text.parse::<FileMode>().unwrap();
            assert_eq!((mode.of_files(), mode.of_folders()), (files, folders), "{text}");
        }
        assert_eq!(FileMode::default(), "600".parse().unwrap());
    }

    #[test]
    fn what_is_no_mode_is_an_error_that_says_what_is() {
        for text in ["", "400", "700", "755", "64", "6400", "0o640", "4640", "rw-", "688", "-640", "+40", "64\u{e9}"] {
            let error = text.parse::<FileMode>().unwrap_err();
            assert!(error.contains("write 600, 640 or 660"), "{text}: {error}");
        }
    }
}
