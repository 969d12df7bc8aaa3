//! The codec of this project's plan nodes, and the one that Ballista gets.

use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::{not_impl_err, plan_datafusion_err, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::bytes::{
    physical_plan_from_bytes_with_extension_codec, physical_plan_to_bytes_with_extension_codec,
};
use datafusion_proto::physical_plan::{
    ComposedPhysicalExtensionCodec, PhysicalExtensionCodec, PhysicalProtoConverterExtension,
};
use item_affinity_datafusion::{
    AskedItems, CandidateUsersExec, ExplainSegmentsExec, ExplanationQuery, RefreshExec, RefreshPlan, RefreshStep, Seen,
    SegmentQuery, SegmentsFinalExec, TopKUsersPerItemExec, TravelledVersions,
};
use item_affinity_solution::{RefreshTask, SolutionRef};
use item_affinity_storage::Stores;
use prost::Message;

use crate::message::{
    CandidateUsersMessage, ExplainSegmentsMessage, FORMAT, ItemsMessage, Node, NodeMessage, QueryMessage,
    RefreshMessage, SegmentsFinalMessage,
};
use crate::shuffle_codec::ShuffleCodec;

/// The codec of scheduler, executors and clients. The place of a codec in the list is written into the messages, so the
/// list is the same everywhere, and a new one goes to its end.
#[must_use]
pub fn cluster_codec(stores: Stores) -> Arc<dyn PhysicalExtensionCodec> {
    Arc::new(ComposedPhysicalExtensionCodec::new(vec![
        Arc::new(ShuffleCodec::default()),
        Arc::new(ItemAffinityCodec::new(stores)),
    ]))
}

/// A plan as the bytes that are submitted.
///
/// # Errors   a plan error that names the node which cannot travel
pub fn encode_plan(plan: Arc<dyn ExecutionPlan>, codec: &dyn PhysicalExtensionCodec) -> Result<Vec<u8>> {
    Ok(physical_plan_to_bytes_with_extension_codec(plan, codec)?.to_vec())
}

/// The plan that such bytes hold; nothing is read before it runs.
///
/// # Errors   a plan error for bytes that are no plan, or of another format
pub fn decode_plan(
    bytes: &[u8],
    context: &TaskContext,
    codec: &dyn PhysicalExtensionCodec,
) -> Result<Arc<dyn ExecutionPlan>> {
    physical_plan_from_bytes_with_extension_codec(bytes, context, codec)
}

/// Turns the nodes that make segments into messages and back; decoding reads nothing.
#[derive(Debug)]
pub struct ItemAffinityCodec {
    versions: TravelledVersions,
    /// Of the plan that was decoded last: its tasks on an executor read factors and pairs of these items once.
    items: Mutex<Option<Arc<AskedItems>>>,
}

impl ItemAffinityCodec {
    /// Nodes that are decoded reach their solution version through `stores`.
    #[must_use]
    pub fn new(stores: Stores) -> Self {
        Self { versions: TravelledVersions::new(stores), items: Mutex::default() }
    }

    fn items(&self, message: Option<ItemsMessage>) -> Result<Arc<AskedItems>> {
        let ItemsMessage { solution_version, commit_sha256, ids, places } = message.ok_or_else(incomplete)?;
        let reference = SolutionRef::parse(&solution_version).map_err(|e| DataFusionError::External(Box::new(e)))?;
        if reference.version.is_none() {
            return plan_err!("a plan names {solution_version} without the number of its version");
        }
        let mut kept = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |of: &&Arc<AskedItems>| {
            let source = of.source();
            *source.reference() == reference
                && source.commit_sha256() == commit_sha256
                && of.ids() == ids
                && of.places() == places
        };
        if let Some(items) = kept.as_ref().filter(same) {
            return Ok(Arc::clone(items));
        }
        // Those of the plan before are let go.
        let source = self.versions.source(&reference, &commit_sha256);
        Ok(Arc::clone(kept.insert(Arc::new(AskedItems::new(source, ids, places)?))))
    }

    fn refresh(&self, message: &RefreshMessage) -> Result<(RefreshStep, RefreshPlan)> {
        let damaged = |e| plan_datafusion_err!("a plan node's message is damaged: {e}");
        let task = serde_json::from_str::<RefreshTask>(&message.task).map_err(damaged)?;
        let reference =
            SolutionRef::parse(&task.solution_version).map_err(|e| DataFusionError::External(Box::new(e)))?;
        let version = self.versions.source(&reference, &task.commit_sha256);
        let step = STEPS.into_iter().find(|(number, _)| *number == message.step).ok_or_else(incomplete)?.1;
        Ok((step, RefreshPlan::new(Arc::new(task), version)))
    }

    fn query(&self, message: Option<QueryMessage>) -> Result<Arc<SegmentQuery>> {
        let message = message.ok_or_else(incomplete)?;
        Ok(Arc::new(SegmentQuery {
            items: self.items(message.items)?,
            num_results: size(message.num_results)?,
            seen: Seen::parse("seen", &message.seen)?,
            min_score: message.min_score,
            user_ids: message.user_ids,
            users: size(message.users)?,
            filtered: message.filtered,
        }))
    }
}

impl PhysicalExtensionCodec for ItemAffinityCodec {
    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        _converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let node = if let Some(top) = node.downcast_ref::<TopKUsersPerItemExec>() {
            Node::TopKUsersPerItem(query_message(top.query()))
        } else if node.is::<CandidateUsersExec>() {
            Node::CandidateUsers(CandidateUsersMessage {})
        } else if let Some(segments) = node.downcast_ref::<SegmentsFinalExec>() {
            let (query, columns) = segments.asked();
            let columns = columns.iter().map(|column| u32::try_from(*column).unwrap_or(u32::MAX)).collect();
            Node::SegmentsFinal(SegmentsFinalMessage { query: Some(query_message(query)), columns })
        } else if let Some(explain) = node.downcast_ref::<ExplainSegmentsExec>() {
            let ExplanationQuery { items, reasons } = explain.query().as_ref();
            let items = Some(items_message(items));
            Node::ExplainSegments(ExplainSegmentsMessage { items, reasons: *reasons as u64 })
        } else if let Some(refresh) = node.downcast_ref::<RefreshExec>() {
            let (step, plan) = refresh.what();
            let task = serde_json::to_string(plan.task());
            let task = task.map_err(|e| plan_datafusion_err!("a plan cannot be written as a message: {e}"))?;
            let step = STEPS.into_iter().find(|(_, of)| *of == step).map_or(0, |(number, _)| number);
            Node::Refresh(RefreshMessage { step, task })
        } else {
            return not_impl_err!("{} cannot run on a cluster", node.name());
        };
        NodeMessage { format: FORMAT, node: Some(node) }
            .encode(buf)
            .map_err(|e| plan_datafusion_err!("a plan cannot be written as a message: {e}"))
    }

    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        _context: &TaskContext,
        _converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let message =
            NodeMessage::decode(buf).map_err(|e| plan_datafusion_err!("a plan node's message is damaged: {e}"))?;
        if message.format != FORMAT {
            return plan_err!(
                "ERR_CLUSTER_FORMAT: a plan has format {}, this program reads {FORMAT}; run the same item-affinity on \
                 client, scheduler and executors",
                message.format
            );
        }
        Ok(match (message.node, inputs) {
            (Some(Node::TopKUsersPerItem(query)), [states]) => {
                Arc::new(TopKUsersPerItemExec::new(self.query(Some(query))?, Arc::clone(states)))
            }
            (Some(Node::CandidateUsers(_)), [states, users]) => {
                Arc::new(CandidateUsersExec::new(Arc::clone(states), Arc::clone(users)))
            }
            (Some(Node::SegmentsFinal(message)), [input]) => {
                let columns = message.columns.into_iter().map(|column| column as usize).collect();
                Arc::new(SegmentsFinalExec::with_columns(self.query(message.query)?, Arc::clone(input), columns)?)
            }
            (Some(Node::ExplainSegments(message)), [input]) => {
                let what = ExplanationQuery { items: self.items(message.items)?, reasons: size(message.reasons)? };
                Arc::new(ExplainSegmentsExec::new(Arc::new(what), Arc::clone(input)))
            }
            (Some(Node::Refresh(message)), [input]) => {
                let (step, plan) = self.refresh(&message)?;
                Arc::new(RefreshExec::new(step, plan, Arc::clone(input)))
            }
            (node, inputs) => {
                return plan_err!("a plan node's message is damaged: {} inputs of {node:?}", inputs.len());
            }
        })
    }
}

/// Steps of a refresh by their numbers in messages.
const STEPS: [(u32, RefreshStep); 3] =
    [(1, RefreshStep::ReadInteractions), (2, RefreshStep::FoldInUsers), (3, RefreshStep::WritePairs)];

fn incomplete() -> DataFusionError {
    plan_datafusion_err!("a plan node's message is damaged: a part is missing")
}

fn size(number: u64) -> Result<usize> {
    usize::try_from(number).map_err(|_| plan_datafusion_err!("a plan asks for {number} rows"))
}

fn items_message(items: &AskedItems) -> ItemsMessage {
    ItemsMessage {
        solution_version: items.source().reference().to_string(),
        commit_sha256: items.source().commit_sha256().to_owned(),
        ids: items.ids().to_vec(),
        places: items.places().to_vec(),
    }
}

fn query_message(query: &SegmentQuery) -> QueryMessage {
    let SegmentQuery { items, num_results, seen, min_score, user_ids, users, filtered } = query;
    QueryMessage {
        items: Some(items_message(items)),
        num_results: *num_results as u64,
        seen: seen.to_string(),
        min_score: *min_score,
        user_ids: *user_ids,
        users: *users as u64,
        filtered: *filtered,
    }
}
