//! What SQL may do from the command line: read the places that the command names, and nothing else unless it says so.

use clap::Args;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{DdlStatement, LogicalPlan, Statement};
use item_affinity_solution::SolutionRef;
use item_affinity_storage::{Error, ErrorKind, Location, Roots};

use crate::exit::Failure;

/// Which places SQL reaches, and what it may change.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PolicyArgs {
    /// SQL reads below this folder or prefix; may repeat. Unless said: the working directory.
    ///
    /// What --solution-version and --set name may be read as well. Links, `..` and other spellings lead nowhere else.
    #[arg(long, value_name = "LOCATION", env = "ITEM_AFFINITY_ROOT", value_delimiter = ',')]
    pub(crate) root: Vec<String>,
    /// Lets COPY and INSERT write, below the same places.
    #[arg(long)]
    pub(crate) allow_copy: bool,
    /// Lets SQL make tables and views in memory, drop them, and SET what is not of item_affinity.
    #[arg(long)]
    pub(crate) allow_ddl: bool,
}

/// The rules of one session.
pub(crate) struct SqlPolicy {
    allow_copy: bool,
    allow_ddl: bool,
    roots: Roots,
}

impl SqlPolicy {
    /// The rules that the arguments give; `named` are other values of the command line that may be locations.
    pub(crate) fn new<'a>(args: &PolicyArgs, named: impl Iterator<Item = &'a str>) -> Result<Self, Failure> {
        let mut locations = args.root.iter().map(|root| Location::parse(root)).collect::<Result<Vec<_>, _>>()?;
        let here = Location::parse(".")?;
        // At `/`, as under cron, the working directory was nobody's choice.
        if args.root.is_empty() && !here.path().as_ref().is_empty() {
            locations.push(here);
        }
        locations.extend(named.filter_map(|text| SolutionRef::parse(text).ok()).map(|named| named.location));
        let roots = Roots::new(locations).writable(args.allow_copy);
        Ok(Self { allow_copy: args.allow_copy, allow_ddl: args.allow_ddl, roots })
    }

    /// The places that stores of the session answer for.
    pub(crate) fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Whether a statement may run, before any of it does.
    pub(crate) fn check(&self, plan: &LogicalPlan) -> Result<(), Failure> {
        let mut outcome = Ok(());
        plan.apply_with_subqueries(|node| {
            outcome = self.check_node(node);
            Ok::<_, DataFusionError>(if outcome.is_ok() {
                TreeNodeRecursion::Continue
            } else {
                TreeNodeRecursion::Stop
            })
        })?;
        outcome
    }

    fn check_node(&self, node: &LogicalPlan) -> Result<(), Failure> {
        const COPY: &str = "add --allow-copy if it shall write; a job that is all or nothing is item-affinity segment";
        const DDL: &str = "add --allow-ddl if it shall";
        match node {
            LogicalPlan::Copy(_) if !self.allow_copy => Err(refused("COPY is not allowed here", COPY)),
            LogicalPlan::Copy(copy) => self.check_location(&copy.output_url),
            LogicalPlan::Dml(_) if !self.allow_copy => Err(refused("changing a table is not allowed here", COPY)),
            LogicalPlan::Ddl(DdlStatement::CreateExternalTable(table)) => {
                table.locations.iter().try_for_each(|location| self.check_location(location))
            }
            LogicalPlan::Ddl(ddl) if !self.allow_ddl => {
                Err(refused(&format!("{} is not allowed here", ddl.name()), DDL))
            }
            LogicalPlan::Statement(statement) if !self.allow_ddl => match setting(statement) {
                Some(name) if !name.to_ascii_lowercase().starts_with("item_affinity.") => {
                    Err(refused("only settings of item_affinity may be changed here", DDL))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// An external location, in the words of the rule even where it is none of ours.
    fn check_location(&self, text: &str) -> Result<(), Failure> {
        match Location::parse(text).and_then(|location| self.roots.check(&location)) {
            Ok(()) => Ok(()),
            Err(error @ Error::Policy { .. }) => Err(error.into()),
            Err(error) => Err(Failure::new(ErrorKind::BadInput, format!("ERR_SQL_POLICY: {error}"))),
        }
    }
}

/// The name of the setting that a statement changes.
fn setting(statement: &Statement) -> Option<&str> {
    match statement {
        Statement::SetVariable(set) => Some(&set.variable),
        Statement::ResetVariable(reset) => Some(&reset.variable),
        _ => None,
    }
}

fn refused(reason: &str, cure: &str) -> Failure {
    Failure::new(ErrorKind::BadInput, format!("ERR_SQL_POLICY: {reason}; {cure}"))
}
