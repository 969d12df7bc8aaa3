//! Ballista's own codec, whose readers of shuffled rows read every partition once.

use std::any::Any;
use std::collections::HashSet;
use std::sync::Arc;

use ballista_core::execution_plans::ShuffleReaderExec;
use ballista_core::serde::BallistaPhysicalExtensionCodec;
use ballista_core::serde::scheduler::PartitionLocation;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};

/// After an executor was lost a scheduler may name two places for one partition of a stage: where it was made first, and
/// where it was made again. Both hold the same rows, and a reader of both would have them twice.
#[derive(Debug, Default)]
pub(crate) struct ShuffleCodec(BallistaPhysicalExtensionCodec);

impl PhysicalExtensionCodec for ShuffleCodec {
    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut node = self.0.try_decode(buf, inputs, context, converter)?;
        let reader =
            Arc::get_mut(&mut node).and_then(|node| (node as &mut dyn Any).downcast_mut::<ShuffleReaderExec>());
        if let Some(reader) = reader {
            reader.partition.iter_mut().for_each(keep_newest);
        }
        Ok(node)
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        self.0.try_encode(node, buf, converter)
    }
}

/// Of places of one partition the one that was named last.
///
/// Of a sort shuffle each task of the stage has a file with rows of every partition. Which partitions of its input it read
/// is not said; where a task has one, as [`cluster_session`](crate::cluster_session) asks, its number stands for it.
fn keep_newest(locations: &mut Vec<PartitionLocation>) {
    let mut known = HashSet::new();
    locations.reverse();
    locations.retain(|l| {
        let task = l.is_sort_shuffle.then_some(l.map_partition_id);
        known.insert((l.partition_id.stage_id, l.partition_id.partition_id, task))
    });
    locations.reverse();
}
