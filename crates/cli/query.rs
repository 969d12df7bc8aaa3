//! Runs SQL statements one after another and stops at the first that fails.

use datafusion::execution::context::SessionContext;
use datafusion::sql::parser::DFParserBuilder;

use crate::exit::Failure;
use crate::print::Printer;

/// Runs every statement of a text; rows of the last one are returned.
pub(crate) async fn run(ctx: &SessionContext, text: &str, printer: &mut Printer) -> Result<u64, Failure> {
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
        let plan = ctx.state().statement_to_plan(statement).await?;
        let result = ctx.execute_logical_plan(plan).await?.execute_stream().await?;
        rows = printer.print(result).await?;
    }
    Ok(rows)
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
