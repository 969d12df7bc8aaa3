//! Who made a version, and how it was protected.

use serde::{Deserialize, Serialize};

/// What a commit says for an audit. No user of the data set is meant here, and no secret stands here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Security {
    /// The user of the operating system who ran the job: the name, or the number where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_user: Option<String>,
    /// The encryption that was asked of the store, and that it said was done; none when it was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
}

/// The user of this process.
pub(crate) fn os_user() -> String {
    let number = rustix::process::geteuid().as_raw();
    let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_of(&known, number).unwrap_or_else(|| number.to_string())
}

fn name_of(users: &str, number: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse::<u32>().ok()? == number).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn a_number_has_the_name_of_its_line() {
        let users = "root:x:0:0:root:/root:/bin/sh\n\n:x:7:7::/:\n# note\nlake:x:1000:1000::/home/lake:/bin/sh\n";
        assert_eq!(name_of(users, 1000).as_deref(), Some("lake"));
        assert_eq!(name_of(users, 7), None);
        assert_eq!(name_of(users, 12), None);
    }
}
