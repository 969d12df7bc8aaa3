//! An optimizer rule that brings `item_affinity_score` to places where the engine can run it.
//!
//! The score is an asynchronous function, and the engine runs those in the lists of `SELECT` and in filters only. In the
//! `ORDER BY` of a query or a window, in `GROUP BY`, in aggregates and in the `ON` of a join it would end in an internal
//! error, and of two aggregates of two scores the second would show the first. The rule computes each score in a
//! projection below, and the place reads its column.
//!
//! It also ties each call to its query, so that all batches of a query see the same version.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ExprSchema, JoinType, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::score_function::{NAME, score_function};
use crate::solution_cache::{QueryId, SolutionCache};

/// The name of the rule.
pub(crate) const RULE: &str = "item_affinity_place_scores";

/// The rule; it comes last, after those that move filters into joins.
#[derive(Debug)]
pub(crate) struct PlaceScores {
    pub(crate) solutions: SolutionCache,
}

impl PlaceScores {
    /// The plan with the function as this query calls it.
    fn of_query(&self, plan: LogicalPlan, query: QueryId) -> Result<Transformed<LogicalPlan>> {
        let function = Arc::new(score_function(self.solutions.clone(), query));
        plan.map_expressions(|expr| {
            expr.transform_up(|part| match part {
                Expr::ScalarFunction(call) if call.name() == NAME && *call.func != *function => {
                    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func: Arc::clone(&function), ..call })))
                }
                other => Ok(Transformed::no(other)),
            })
        })
    }
}

impl OptimizerRule for PlaceScores {
    fn name(&self) -> &'static str {
        RULE
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let mut found = false;
        plan.apply_expressions(|expr| {
            found |= !calls(expr)?.is_empty();
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !found {
            return Ok(Transformed::no(plan));
        }
        let query = config.query_execution_start_time().and_then(|started| started.timestamp_nanos_opt());
        let plan = self.of_query(plan, query)?;
        match plan.data {
            // A projection and a filter run the function; a scan has its filters again above it.
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::TableScan(_) => Ok(plan),
            LogicalPlan::Join(join) => Ok(Transformed::yes(in_join(join)?)),
            node @ (LogicalPlan::Sort(_) | LogicalPlan::Window(_) | LogicalPlan::Aggregate(_)) => {
                Ok(Transformed::yes(below(node)?))
            }
            other => plan_err!(
                "{NAME} cannot be called here ({}); call it in the SELECT of a subquery, and use its column",
                other.display()
            ),
        }
    }
}

/// The calls in an expression, the outermost of each.
fn calls(expr: &Expr) -> Result<Vec<Expr>> {
    let mut found = Vec::new();
    expr.apply(|part| match part {
        Expr::ScalarFunction(call) if call.name() == NAME => {
            found.push(part.clone());
            Ok(TreeNodeRecursion::Jump)
        }
        _ => Ok(TreeNodeRecursion::Continue),
    })?;
    Ok(found)
}

/// Scores that a projection computes beside the columns of its input.
struct Computed {
    input: LogicalPlan,
    scores: Vec<(Expr, Column)>,
}

impl Computed {
    fn on(input: LogicalPlan) -> Self {
        Self { input, scores: Vec::new() }
    }

    /// The expression with the columns in the place of its calls.
    fn replaced(&mut self, expr: Expr) -> Result<Expr> {
        for call in calls(&expr)? {
            if !self.scores.iter().any(|(known, _)| *known == call) {
                let free = (1usize..).map(|number| format!("__{NAME}_{number}")).find(|name| {
                    let taken = self.scores.iter().any(|(_, column)| column.name == *name);
                    !taken && !self.input.schema().fields().iter().any(|field| field.name() == name)
                });
                self.scores.push((call, Column::new_unqualified(free.unwrap_or_default())));
            }
        }
        let column = |part: Expr| match self.scores.iter().find(|(call, _)| *call == part) {
            Some((_, column)) => Transformed::new(Expr::Column(column.clone()), true, TreeNodeRecursion::Jump),
            None => Transformed::no(part),
        };
        Ok(expr.transform_down(|part| Ok(column(part)))?.data)
    }

    fn plan(self) -> Result<LogicalPlan> {
        if self.scores.is_empty() {
            return Ok(self.input);
        }
        let columns = self.input.schema().columns().into_iter().map(Expr::Column);
        let scores = self.scores.into_iter().map(|(call, column)| call.alias(column.name));
        let all = columns.chain(scores).collect::<Vec<_>>();
        LogicalPlanBuilder::from(self.input).project(all)?.build()
    }
}

/// A node of one input, over the scores that its expressions call.
fn below(plan: LogicalPlan) -> Result<LogicalPlan> {
    let input = plan.inputs().into_iter().next().cloned();
    let Some(input) = input else { return Ok(plan) };
    let given = input.schema().fields().len();
    let mut computed = Computed::on(input);
    let exprs = plan.expressions().into_iter().map(|expr| computed.replaced(expr)).collect::<Result<Vec<_>>>()?;
    let added = computed.scores.len();
    let keeps_input = !matches!(plan, LogicalPlan::Aggregate(_));
    let placed = plan.with_new_exprs(exprs, vec![computed.plan()?])?;
    // Outside, nobody sees the difference: the same columns, under the same names.
    let columns = plan.schema().iter().enumerate().map(|(at, (qualifier, field))| {
        let at = if keeps_input && at >= given { at + added } else { at };
        let column = Column::from(placed.schema().qualified_field(at));
        let same = column.relation.as_ref() == qualifier && column.name == *field.name();
        let expr = Expr::Column(column);
        if same { expr } else { expr.alias_qualified(qualifier.cloned(), field.name()) }
    });
    let columns = columns.collect::<Vec<_>>();
    LogicalPlanBuilder::from(placed).project(columns)?.build()
}

/// A join over the scores of either side; what needs both sides is a filter above it.
fn in_join(join: Join) -> Result<LogicalPlan> {
    let columns = join.schema.columns();
    let mut left = Computed::on(LogicalPlan::clone(&join.left));
    let mut right = Computed::on(LogicalPlan::clone(&join.right));
    let on = join.on.into_iter().map(|(of_left, of_right)| Ok((left.replaced(of_left)?, right.replaced(of_right)?)));
    let on = on.collect::<Result<Vec<_>>>()?;
    let (mut filter, mut above) = (Vec::new(), Vec::new());
    for part in join.filter.map(split_conjunction_owned).unwrap_or_default() {
        let mut of_both = false;
        let mut kept = part.clone();
        for call in calls(&part)? {
            let side = [&mut left, &mut right].into_iter().find(|side| {
                call.column_refs().into_iter().all(|column| side.input.schema().field_from_column(column).is_ok())
            });
            match side {
                Some(side) => {
                    let column = side.replaced(call.clone())?;
                    kept = kept
                        .transform_down(|e| {
                            Ok(if e == call { Transformed::yes(column.clone()) } else { Transformed::no(e) })
                        })?
                        .data;
                }
                None => of_both = true,
            }
        }
        if !of_both {
            filter.push(kept);
        } else if join.join_type == JoinType::Inner {
            above.push(part);
        } else {
            return plan_err!(
                "{NAME} over columns of both sides cannot stand in the ON of a {} join; join first, and call it in the \
                 SELECT of a subquery",
                join.join_type
            );
        }
    }
    let joined = LogicalPlan::Join(Join::try_new(
        left.plan()?.into(),
        right.plan()?.into(),
        on,
        conjunction(filter),
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?);
    let filtered = match conjunction(above) {
        Some(predicate) => LogicalPlanBuilder::from(joined).filter(predicate)?.build()?,
        None => joined,
    };
    if filtered.schema().fields().len() == columns.len() {
        return Ok(filtered);
    }
    LogicalPlanBuilder::from(filtered).project(columns.into_iter().map(Expr::Column))?.build()
}
