use bytes::Bytes;

use super::CallRecord;
use crate::cluster::link::Link;
use crate::groups::GroupRequest;
use crate::stage_names::StageNames;

/// The connections that a call may name, by their stage. All stages of an API share its connections, as on AWS, but a key
/// whose policy names stages cannot reach those of another stage through one of its own. Groups and users span stages for
/// every caller.
#[derive(Clone, Copy, Debug)]
pub(in crate::data_plane) enum Reach<'a> {
    /// Connections of every stage: nobody had to sign.
    Everywhere,
    /// Connections of stages in which the key of the call may do the same.
    OfCall(&'a CallRecord),
    /// Connections of the stages that another node has found for its caller.
    Named(StageNames<&'a [u8]>),
}

impl Reach<'_> {
    /// Returns `true` if a connection of `stage` may be named; otherwise the caller treats it as gone.
    pub(super) fn has(&self, stage: &str) -> bool {
        match self {
            Reach::Everywhere => true,
            Reach::OfCall(call) => call.reaches(stage),
            Reach::Named(stages) => stages.has(stage),
        }
    }

    /// The stages to send along to another node, or `None` for every stage.
    pub(super) fn stages(&self) -> Option<StageNames<Bytes>> {
        match self {
            Reach::OfCall(call) => call.stages(),
            // What another node has asked goes no further.
            Reach::Everywhere | Reach::Named(_) => None,
        }
    }
}

/// The stages to send along to one peer. A peer of an earlier version does not understand them, so it gets none: until it
/// is replaced its connections can be named through every stage, as in calls that reach it directly.
pub(super) fn stages_for(link: &Link, stages: Option<&StageNames<Bytes>>) -> Option<StageNames<Bytes>> {
    stages.filter(|_| link.knows_stages()).cloned()
}

/// The bytes of an ask in which connections are named.
pub(super) fn encode_for(link: &Link, ask: GroupRequest, stages: Option<&StageNames<Bytes>>) -> Bytes {
    match stages_for(link, stages) {
        Some(stages) => GroupRequest::Within { stages, request: Box::new(ask) }.encode(),
        None => ask.encode(),
    }
}
