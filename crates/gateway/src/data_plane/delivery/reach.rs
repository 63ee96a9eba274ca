use bytes::Bytes;

use crate::data_plane::management::CallRecord;
use tidegate_connections::cluster::link::{GroupRequest, Link};
use tidegate_core::stage_names::StageNames;

/// The connections that a call may name, by their stage. All stages of an API share its connections, as on AWS. But a
/// key whose policy names stages cannot reach connections of another stage through one of its own stages. Groups and
/// users span all stages for every caller.
#[derive(Clone, Copy, Debug)]
pub(in crate::data_plane) enum Reach<'a> {
    /// Connections of every stage: the call need not be signed.
    Everywhere,
    /// Connections of the stages in which the key of this call may make the same call.
    OfCall(&'a CallRecord),
    /// Connections of these stages, which another node found for its caller.
    Named(StageNames<&'a [u8]>),
}

impl Reach<'_> {
    /// Returns true if a connection of `stage` may be named. Otherwise the caller must treat it as gone.
    pub(in crate::data_plane) fn has(&self, stage: &str) -> bool {
        match self {
            Reach::Everywhere => true,
            Reach::OfCall(call) => call.reaches(stage),
            Reach::Named(stages) => stages.has(stage),
        }
    }

    /// Returns the stages that a request to another node must carry, or `None` for every stage.
    pub(in crate::data_plane) fn stages(&self) -> Option<StageNames<Bytes>> {
        match self {
            Reach::OfCall(call) => call.stages(),
            // A request of another node is never forwarded.
            Reach::Everywhere | Reach::Named(_) => None,
        }
    }
}

/// Returns the stages that a request to one peer carries. A peer of an earlier version does not understand them and
/// gets none: until it is replaced, its connections can be named through every stage, as in calls that reach it
/// directly.
pub(in crate::data_plane) fn stages_for(link: &Link, stages: Option<&StageNames<Bytes>>) -> Option<StageNames<Bytes>> {
    stages.filter(|_| link.knows_stages()).cloned()
}

/// Encodes a request that names connections, for the peer at the other end of `link`.
pub(in crate::data_plane) fn encode_for(
    link: &Link,
    request: GroupRequest,
    stages: Option<&StageNames<Bytes>>,
) -> Bytes {
    match stages_for(link, stages) {
        Some(stages) => GroupRequest::Within { stages, request: Box::new(request) }.encode(),
        None => request.encode(),
    }
}
