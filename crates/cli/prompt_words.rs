//! What the prompt knows of a session: names to complete, and where a statement ends.

use datafusion::execution::context::SessionContext;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use item_affinity_datafusion::EXPLANATION_SCHEMA;
use rustyline::completion::Completer;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper, Highlighter, Hinter};

/// Names of functions, tables, columns and options.
#[derive(Default)]
pub(crate) struct Words {
    /// Sorted; functions with their parenthesis.
    names: Vec<String>,
    /// Sorted; options, whose names hold dots.
    options: Vec<String>,
}

impl Words {
    /// The names of a session as it is now: tables come and go.
    pub(crate) async fn of(ctx: &SessionContext) -> Self {
        let state = ctx.state();
        let mut names = EXPLANATION_SCHEMA.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        let functions = state.scalar_functions().keys();
        let functions = functions.chain(state.aggregate_functions().keys()).chain(state.window_functions().keys());
        names.extend(functions.chain(state.table_functions().keys()).map(|name| format!("{name}(")));
        for catalog in ctx.catalog_names().iter().filter_map(|name| ctx.catalog(name)) {
            for schema in catalog.schema_names().iter().filter_map(|name| catalog.schema(name)) {
                for name in schema.table_names() {
                    // A table that cannot be opened has no columns to complete.
                    if let Ok(Some(table)) = schema.table(&name).await {
                        names.extend(table.schema().fields().iter().map(|field| field.name().clone()));
                    }
                    names.push(name);
                }
            }
        }
        let mut options = state.config_options().entries().into_iter().map(|entry| entry.key).collect::<Vec<_>>();
        names.push("information_schema".to_owned());
        for list in [&mut names, &mut options] {
            list.sort_unstable();
            list.dedup();
        }
        Self { names, options }
    }

    /// Where the word at the end of a text starts, and the names that begin with it in any letter case.
    fn completed(&self, text: &str) -> (usize, Vec<String>) {
        let of_word = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
        let start =
            text.rfind(|c: char| !of_word(c)).map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
        let beginning = |list: &[String], word: &str| {
            let lower = word.to_lowercase();
            let begins = |name: &&String| name.to_lowercase().starts_with(&lower);
            list.iter().filter(begins).cloned().collect::<Vec<_>>()
        };
        let word = &text[start..];
        if word.is_empty() || in_text(text) {
            return (text.len(), Vec::new());
        }
        match word.rfind('.') {
            None => (start, beginning(&self.names, word)),
            Some(dot) => match beginning(&self.options, word) {
                // After the name of a table stands a column.
                options if options.is_empty() => (start + dot + 1, beginning(&self.names, &word[dot + 1..])),
                options => (start, options),
            },
        }
    }
}

/// Whether a text ends within quotes.
fn in_text(text: &str) -> bool {
    text.matches('\'').count() % 2 == 1
}

/// Whether a text is all of a statement, or a shorthand: else Enter begins a new line of it.
fn is_whole(text: &str) -> bool {
    let text = text.trim();
    if text.is_empty() || text.starts_with('\\') || ["exit", "quit"].iter().any(|word| text.eq_ignore_ascii_case(word))
    {
        return true;
    }
    match Tokenizer::new(&GenericDialect {}, text).tokenize() {
        Ok(tokens) => {
            let last = tokens.iter().rfind(|token| !matches!(token, Token::Whitespace(_)));
            matches!(last, Some(Token::SemiColon))
        }
        // An open quote or comment goes on in the next line.
        Err(_) => false,
    }
}

/// The prompt's help while a statement is typed.
#[derive(Helper, Highlighter, Hinter)]
pub(crate) struct SqlHelper {
    words: Words,
}

impl SqlHelper {
    pub(crate) fn new(words: Words) -> Self {
        Self { words }
    }
}

impl Completer for SqlHelper {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _context: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.words.completed(&line[..at]))
    }
}

impl Validator for SqlHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if is_whole(context.input()) { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn functions_tables_columns_and_options_are_completed_in_any_letter_case() {
        let ctx = SessionContext::new();
        item_affinity_datafusion::register(&ctx);
        ctx.sql("CREATE TABLE Basket AS SELECT 1 AS household, 2 AS Hour").await.unwrap();
        let words = Words::of(&ctx).await;
        let completed = |text: &str| words.completed(text);
        assert_eq!(completed("SELECT * FROM item_affinity_seg"), (14, vec!["item_affinity_segments(".to_owned()]));
        assert_eq!(completed("SELECT ITEM_AFFINITY_SC"), (7, vec!["item_affinity_score(".to_owned()]));
        assert_eq!(completed("SELECT 1 FROM bas"), (14, vec!["basket".to_owned()]));
        assert_eq!(completed("SELECT house"), (7, vec!["household".to_owned()]));
        assert_eq!(completed("SELECT b.house"), (9, vec!["household".to_owned()]));
        assert_eq!(completed("SELECT because"), (7, vec!["because_item_id".to_owned()]));
        let (at, options) = completed("SET item_affinity.num");
        assert_eq!((at, options), (4, vec!["item_affinity.num_results".to_owned()]));
        for nothing in ["SELECT ", "SELECT 'house", "SELECT zzz"] {
            assert!(completed(nothing).1.is_empty(), "{nothing}");
        }
        assert_eq!(completed("SELECT 'é', house"), (13, vec!["household".to_owned()]));
    }

    #[test]
    fn a_statement_ends_with_a_semicolon_outside_of_quotes_and_comments() {
        for whole in ["", "SELECT 1;", "SELECT 1; -- done", "SELECT ';'\n;", "\\d items", "Exit", "SELECT 1; SELECT 2;"]
        {
            assert!(is_whole(whole), "{whole}");
        }
        for part in ["SELECT 1", "SELECT ';", "SELECT 1 -- ;", "SELECT 1 /* ;", "SELECT 1; SELECT 2", "exit now"] {
            assert!(!is_whole(part), "{part}");
        }
    }
}
