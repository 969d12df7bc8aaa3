//! Runs SQL statements one after another and stops at the first that fails.

use std::panic::AssertUnwindSafe;

use datafusion::execution::context::SessionContext;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{SetExpr, Statement as SqlStatement};
use futures::FutureExt;
use item_affinity_storage::ErrorKind;

use crate::exit::Failure;
use crate::print::Printer;
use crate::sql_policy::SqlPolicy;

/// Bytes of a text at most: a longer one is data, which has its place in a file.
const MOST_BYTES: usize = 1 << 20;

/// Queries joined by UNION, INTERSECT or EXCEPT in one statement.
const MOST_UNIONS: usize = 1_000;

/// Runs every statement of a text; rows of the last one are returned.
pub(crate) async fn run(
    ctx: &SessionContext,
    policy: &SqlPolicy,
    text: &str,
    printer: &mut Printer,
) -> Result<u64, Failure> {
    if text.len() > MOST_BYTES {
        return Err(Failure::new(
            ErrorKind::BadInput,
            format!(
                "ERR_SQL_TOO_LONG: the text has {} bytes, at most {MOST_BYTES} are read; put long lists into a table",
                text.len()
            ),
        ));
    }
    let statements = {
        let state = ctx.state();
        let dialect = datafusion::sql::sqlparser::dialect::GenericDialect {};
        DFParserBuilder::new(text)
            .with_dialect(&dialect)
            .with_recursion_limit(state.config_options().sql_parser.recursion_limit.get())
            .build()?
            .parse_statements()?
    };
    let mut rows = 0;
    for statement in statements {
        refuse_long_union(&statement)?;
        let running = async {
            let plan = ctx.state().statement_to_plan(statement).await?;
            policy.check(&plan)?;
            let result = ctx.execute_logical_plan(plan).await?.execute_stream().await?;
            printer.print(result).await
        };
        // Decoders of the engine panic on some damaged files; the text of a panic may hold data, so it is dropped.
        rows = AssertUnwindSafe(running).catch_unwind().await.unwrap_or_else(|_| {
            let message = "ERR_DECODER_PANIC: the engine panicked in this statement, most likely on a damaged file; write \
                           the files of its tables again, and please report it if other readers accept them";
            Err(Failure::new(ErrorKind::BadInput, message))
        })?;
    }
    Ok(rows)
}

/// The planner takes more than a minute for ten thousand queries joined by UNION: they grow on one another's left side.
fn refuse_long_union(statement: &Statement) -> Result<(), Failure> {
    let Statement::Statement(statement) = statement else { return Ok(()) };
    let SqlStatement::Query(query) = statement.as_ref() else { return Ok(()) };
    let (mut body, mut joined) = (query.body.as_ref(), 0);
    while let SetExpr::SetOperation { left, .. } = body {
        body = left.as_ref();
        joined += 1;
    }
    if joined > MOST_UNIONS {
        let message =
            format!("ERR_SQL_TOO_LONG: {joined} set operations, at most {MOST_UNIONS} are planned; use a table");
        return Err(Failure::new(ErrorKind::BadInput, message));
    }
    Ok(())
}

/// Puts values into a text: `${name}` becomes what `--set name=value` says; an unknown name is an error.
pub(crate) fn substitute(text: &str, values: &[(String, String)]) -> Result<String, Failure> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let Some(length) = rest[start..].find('}') else {
            return Err(Failure::usage("a ${ without its } in the SQL text"));
        };
        let name = &rest[start + 2..start + length];
        let Some((_, value)) = values.iter().find(|(known, _)| known == name) else {
            return Err(Failure::usage(format!("the SQL text needs a value for ${{{name}}}; add --set {name}=…")));
        };
        out.push_str(value);
        rest = &rest[start + length + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::substitute;

    #[test]
    fn values_replace_their_names_and_unknown_names_are_refused() {
        let values = [("lake".to_owned(), "s3://b".to_owned())];
        assert_eq!(substitute("FROM '${lake}/x' WHERE a = '$1'", &values).unwrap(), "FROM 's3://b/x' WHERE a = '$1'");
        assert!(substitute("${other}", &values).is_err());
        assert!(substitute("${lake", &values).is_err());
    }
}
