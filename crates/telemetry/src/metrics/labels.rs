use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;

/// The API and the stage of an event.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StageLabels {
    pub api_id: Arc<str>,
    pub stage: Arc<str>,
}

impl StageLabels {
    /// Returns the labels of a request that belongs to no API and no stage.
    pub fn none() -> Self {
        StageLabels { api_id: "-".into(), stage: "-".into() }
    }
}

/// Declares the labels of a metric that has more than API and stage.
macro_rules! stage_labels {
    ($name:ident { $($field:ident: $type:ty),+ }) => {
        #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
        pub(super) struct $name {
            pub(super) api_id: Arc<str>,
            pub(super) stage: Arc<str>,
            $(pub(super) $field: $type),+
        }

        impl $name {
            pub(super) fn new(labels: &StageLabels, $($field: $type),+) -> Self {
                $name { api_id: Arc::clone(&labels.api_id), stage: Arc::clone(&labels.stage), $($field),+ }
            }
        }
    };
}

stage_labels!(OutcomeLabels { outcome: &'static str });
stage_labels!(CauseLabels { cause: &'static str });
stage_labels!(CodeLabels { code: &'static str });
stage_labels!(RouteLabels { route_key: Arc<str> });
stage_labels!(RouteClassLabels { route_key: Arc<str>, class: &'static str });
stage_labels!(PushLabels { outcome: &'static str, path: &'static str });
stage_labels!(KindLabels { kind: &'static str });
stage_labels!(LevelLabels { level: &'static str });
stage_labels!(DirectionLabels { direction: &'static str });
stage_labels!(ReasonLabels { event_type: &'static str, reason: &'static str });

/// The state of the registry.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct StateLabels {
    pub(super) state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ResultLabels {
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct LossLabels {
    pub(super) cause: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct OperationLabels {
    pub(super) operation: &'static str,
}

/// A listener: `public`, `internal` or `peers`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ListenerLabels {
    pub(super) listener: &'static str,
}

/// A backend's address, as the configuration writes it.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct BackendLabels {
    pub(super) backend: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct VersionLabels {
    pub(super) version: &'static str,
}
