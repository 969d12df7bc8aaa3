//! Plan nodes as messages. Numbers of fields are never used twice; a change that an older reader would misread raises
//! [`FORMAT`].

use prost::{Message, Oneof};

/// The format of the messages; client, scheduler and executors must agree on it.
pub(crate) const FORMAT: u32 = 1;

/// One node of a plan, its children left out.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct NodeMessage {
    #[prost(uint32, tag = "1")]
    pub(crate) format: u32,
    #[prost(oneof = "Node", tags = "2, 3, 4, 5, 6")]
    pub(crate) node: Option<Node>,
}

/// Which node it is.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Node {
    #[prost(message, tag = "2")]
    TopKUsersPerItem(QueryMessage),
    #[prost(message, tag = "3")]
    CandidateUsers(CandidateUsersMessage),
    #[prost(message, tag = "4")]
    SegmentsFinal(SegmentsFinalMessage),
    #[prost(message, tag = "5")]
    ExplainSegments(ExplainSegmentsMessage),
    #[prost(message, tag = "6")]
    Refresh(RefreshMessage),
}

/// Items of a solution version: `location@number`, the commit that it was planned with, and the items both by id and by
/// place, so that another version is told from it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ItemsMessage {
    #[prost(string, tag = "1")]
    pub(crate) solution_version: String,
    #[prost(string, tag = "2")]
    pub(crate) commit_sha256: String,
    #[prost(string, repeated, tag = "3")]
    pub(crate) ids: Vec<String>,
    #[prost(uint32, repeated, tag = "4")]
    pub(crate) places: Vec<u32>,
}

/// What is asked.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct QueryMessage {
    #[prost(message, optional, tag = "1")]
    pub(crate) items: Option<ItemsMessage>,
    #[prost(uint64, tag = "2")]
    pub(crate) num_results: u64,
    /// As it is written in SQL.
    #[prost(string, tag = "3")]
    pub(crate) seen: String,
    #[prost(float, tag = "4")]
    pub(crate) min_score: f32,
    #[prost(bool, tag = "5")]
    pub(crate) user_ids: bool,
    #[prost(uint64, tag = "6")]
    pub(crate) users: u64,
    #[prost(bool, tag = "7")]
    pub(crate) filtered: bool,
}

/// It holds nothing but its children.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CandidateUsersMessage {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SegmentsFinalMessage {
    #[prost(message, optional, tag = "1")]
    pub(crate) query: Option<QueryMessage>,
    #[prost(uint32, repeated, tag = "2")]
    pub(crate) columns: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ExplainSegmentsMessage {
    #[prost(message, optional, tag = "1")]
    pub(crate) items: Option<ItemsMessage>,
    #[prost(uint64, tag = "2")]
    pub(crate) reasons: u64,
}

/// A step of a refresh in parts.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RefreshMessage {
    /// 1 reads interactions, 2 folds users in, 3 writes pairs.
    #[prost(uint32, tag = "1")]
    pub(crate) step: u32,
    /// What every task is told, as JSON of the solution room.
    #[prost(string, tag = "2")]
    pub(crate) task: String,
}
