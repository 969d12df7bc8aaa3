//! Shorthands of the prompt: what begins with a backslash, as in psql, each with the SQL that it stands for.

use crate::exit::Failure;

/// What a shorthand asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Shorthand {
    /// The end of the prompt.
    Leave,
    /// Words for a person.
    Say(&'static str),
    /// A statement.
    Run(String),
}

const HELP: &str = "\\d           tables and views            SELECT … FROM information_schema.tables
\\d NAME      columns of a table          DESCRIBE NAME
\\df [NAME]   functions of item-affinity  SELECT … FROM information_schema.routines; SHOW FUNCTIONS lists all
\\set         options of item-affinity    SELECT … FROM information_schema.df_settings
\\i           items that can be asked for SELECT * FROM item_affinity_items() ORDER BY users DESC
\\v           versions of the solution    SELECT … FROM item_affinity_versions()
\\q           leaves; so do exit, quit and Ctrl-D
Ctrl-C stops a query. --set NAME=VALUE puts values in the place of ${NAME}.";

impl Shorthand {
    /// Reads a line; none when it is no shorthand.
    ///
    /// # Errors   a usage failure that lists what there is
    pub(crate) fn read(line: &str) -> Result<Option<Self>, Failure> {
        let line = line.trim().trim_end_matches(';').trim_end();
        if ["exit", "quit"].iter().any(|word| line.eq_ignore_ascii_case(word)) {
            return Ok(Some(Self::Leave));
        }
        let Some(shorthand) = line.strip_prefix('\\') else { return Ok(None) };
        let (name, argument) = shorthand.split_once(char::is_whitespace).unwrap_or((shorthand, ""));
        let argument = argument.trim();
        let found = match (name, argument) {
            ("q", "") => Self::Leave,
            ("?" | "h", "") => Self::Say(HELP),
            ("d" | "dt", "") => Self::Run(
                "SELECT table_schema, table_name, table_type FROM information_schema.tables \
                 WHERE table_schema <> 'information_schema' ORDER BY table_schema, table_name"
                    .to_owned(),
            ),
            ("d", table) => Self::Run(format!("DESCRIBE {table}")),
            ("df", name) => {
                let pattern = if name.is_empty() { "item_affinity" } else { name };
                Self::Run(format!(
                    "SELECT DISTINCT routine_name AS function, description, syntax_example AS example \
                     FROM information_schema.routines WHERE routine_name LIKE '{}%' ORDER BY function",
                    pattern.to_lowercase().replace('\'', "''")
                ))
            }
            ("set", "") => Self::Run(
                "SELECT name, value, description FROM information_schema.df_settings \
                 WHERE name LIKE 'item_affinity.%' ORDER BY name"
                    .to_owned(),
            ),
            ("i", "") => Self::Run("SELECT * FROM item_affinity_items() ORDER BY users DESC, item_id".to_owned()),
            ("v", "") => Self::Run(
                "SELECT version, committed_at, as_of, users, items, interactions, refreshed_from \
                 FROM item_affinity_versions() ORDER BY version DESC"
                    .to_owned(),
            ),
            _ => return Err(Failure::usage(format!("there is no shorthand {line}; \\? lists them"))),
        };
        Ok(Some(found))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Shorthand;

    #[test]
    fn shorthands_stand_for_sql_and_others_are_refused() {
        let run = |line: &str| match Shorthand::read(line).unwrap() {
            Some(Shorthand::Run(sql)) => sql,
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(run("\\d items"), "DESCRIBE items");
        assert!(run("\\d").contains("information_schema.tables"));
        assert!(run("\\df Item_Affinity_Score").contains("LIKE 'item_affinity_score%'"));
        assert!(run("\\df it's").contains("LIKE 'it''s%'"));
        assert_eq!(Shorthand::read(" \\q ; ").unwrap(), Some(Shorthand::Leave));
        assert_eq!(Shorthand::read("QUIT").unwrap(), Some(Shorthand::Leave));
        assert_eq!(Shorthand::read("SELECT 1;").unwrap(), None);
        for line in ["\\x", "\\q now", "\\"] {
            assert!(Shorthand::read(line).is_err(), "{line}");
        }
    }
}
