use tokio::time::Instant;

use super::DataPlane;
use super::context::labels;
use crate::deployment::{Route, Stage};
use crate::integration::{Answer, Handshake, IntegrationError, Payload};
use crate::request_context::RequestContext;

/// Sends one event to the integration of its route, and counts it: how long it took, and how it failed.
///
/// # Errors
/// The call failed, as the contract counts it.
pub(super) async fn call_integration(
    plane: &DataPlane,
    stage: &Stage,
    route: &Route,
    context: &RequestContext<'_>,
    handshake: Option<&Handshake>,
    payload: &Payload,
) -> Result<Answer, IntegrationError> {
    let started = Instant::now();
    let outcome = plane.integrations.call(stage, route, context, handshake, payload).await;
    let error = outcome.as_ref().err().map(IntegrationError::kind);
    plane.metrics.integration(&labels(context.connection), started.elapsed().as_secs_f64(), error);
    outcome
}
