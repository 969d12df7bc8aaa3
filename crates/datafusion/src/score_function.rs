//! `item_affinity_score(user_id, item_id)`: the score of one pair, for joins, thresholds and blends in any SQL.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{AsArray, Float32Array, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{exec_err, internal_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use item_affinity_model::{dot, probability};

use crate::routine_descriptions::Described;
use crate::solution_cache::{QueryId, SolutionCache};

/// The name in SQL.
pub(crate) const NAME: &str = "item_affinity_score";

/// What lists of functions say.
pub(crate) const DESCRIBED: Described = Described {
    function: NAME,
    description: "The probability that a user interacts with an item within the horizon of the session's solution version; \
         NULL if either is unknown.",
    example: "SELECT user_id, item_affinity_score(user_id, 'B001') AS score FROM users",
};

/// The scalar function: ready to be registered, or as one query calls it, which sees one version all along.
pub(crate) fn score_function(solutions: SolutionCache, query: QueryId) -> ScalarUDF {
    AsyncScalarUDF::new(Arc::new(ScoreFunction::new(solutions, query))).into_scalar_udf()
}

/// Float32: the score of this user for this item; NULL when the solution version knows one of them not.
#[derive(Debug)]
struct ScoreFunction {
    solutions: SolutionCache,
    query: QueryId,
    signature: Signature,
    documentation: Documentation,
}

impl ScoreFunction {
    fn new(solutions: SolutionCache, query: QueryId) -> Self {
        let documentation = Documentation::builder(
            datafusion::logical_expr::DocSection { include: true, label: "Item affinity", description: None },
            DESCRIBED.description,
            "item_affinity_score(user_id, item_id)",
        )
        .with_argument("user_id", "The user, a string or an integer.")
        .with_argument("item_id", "The item, a string or an integer.")
        .with_sql_example(DESCRIBED.example)
        .build();
        // Anything is taken, and judged by `return_type`; the second form is what lists of functions show.
        let shown = TypeSignature::Exact(vec![DataType::Utf8, DataType::Utf8]);
        let signature = Signature::one_of(vec![TypeSignature::VariadicAny, shown], Volatility::Stable);
        Self { solutions, query, signature, documentation }
    }
}

impl PartialEq for ScoreFunction {
    fn eq(&self, other: &Self) -> bool {
        self.query == other.query && self.signature == other.signature
    }
}

impl Eq for ScoreFunction {}

impl Hash for ScoreFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.name(), self.query).hash(state);
    }
}

impl ScalarUDFImpl for ScoreFunction {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Checks the arguments as well: an asynchronous function is not asked for coercions of its own.
    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        if arg_types.len() != 2 {
            return plan_err!("item_affinity_score takes (user_id, item_id), got {} arguments", arg_types.len());
        }
        for (name, found) in ["user_id", "item_id"].iter().zip(arg_types) {
            let value = if let DataType::Dictionary(_, value) = found { value.as_ref() } else { found };
            let text = matches!(value, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null);
            if !text && !value.is_integer() {
                return plan_err!("item_affinity_score: {name} is a string or an integer, found {found}");
            }
        }
        Ok(DataType::Float32)
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("item_affinity_score is asynchronous")
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for ScoreFunction {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let version = self.solutions.open(&args.config_options, self.query).await?;
        let users = self.solutions.user_states(&version).await?;
        let [user_ids, item_ids] = args.args.as_slice() else {
            return exec_err!("item_affinity_score takes (user_id, item_id)");
        };
        let user_ids = texts(user_ids, args.number_rows)?;
        let item_ids = texts(item_ids, args.number_rows)?;
        let items: Vec<Option<u32>> = item_ids.iter().map(|item| version.items.ids.index_of(item?)).collect();
        let history = self.solutions.history(&version, items.iter().flatten().copied().collect()).await?;
        let scores = user_ids.iter().zip(items).map(|(user, item)| {
            let (user, item) = (users.ids.index_of(user?)?, item?);
            if let Some(log_odds) = history.get(&item).and_then(|pairs| pairs.log_odds(user)) {
                return Some(probability(f64::from(log_odds)));
            }
            let (user, item) = (user as usize, item as usize);
            let affinity = dot(users.factors.row(user), version.items.factors.row(item));
            let (of_user, of_item) = (users.log_odds[user], version.items.log_odds[item]);
            Some(probability(version.model.slopes.log_odds(affinity, of_user, of_item)))
        });
        Ok(ColumnarValue::Array(Arc::new(scores.collect::<Float32Array>())))
    }
}

fn texts(value: &ColumnarValue, rows: usize) -> Result<StringArray> {
    let array = value.to_array(rows)?;
    Ok(cast(&array, &DataType::Utf8)?.as_string::<i32>().clone())
}
