use std::error::Error as _;
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, sleep_until};

use super::{BodyKind, OperationKind};
use crate::data_plane::ConnectionsApiError;
use tidegate_core::limits::{HeldBody, LimitSettings};

/// Longest time for a caller to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The size limit of a call's body.
#[derive(Debug)]
pub(super) struct BodyLimit {
    pub(super) max_bytes: usize,
    /// The error for a larger body.
    too_large: ConnectionsApiError,
}

impl BodyLimit {
    /// Returns the limit for the body of an operation, or of a call without one.
    pub(super) fn of(operation: Option<OperationKind>, limits: &LimitSettings) -> Self {
        let (max, what) = match operation.map_or(BodyKind::None, OperationKind::body) {
            BodyKind::None | BodyKind::Data => (limits.message_bytes, "bytes (limits.messageBytes)"),
            BodyKind::Bulk => (limits.bulk_bytes, "bytes (limits.bulkBytes)"),
        };
        let too_large = if operation == Some(OperationKind::PostToConnection) {
            ConnectionsApiError::TooLarge
        } else {
            ConnectionsApiError::OverLimit { what, max }
        };
        BodyLimit { max_bytes: max, too_large }
    }
}

/// Reads the body of a call, and counts its bytes in `held` as they arrive. The body may pause for at most `stall`.
///
/// # Errors
/// Returns `TooLarge` or `OverLimit` if the body is larger than `limit`, `BodyTimeout` if it does not come in time, `BadRequest`
/// or `BodyLost` if it is malformed or incomplete, and `BodiesFull` if all bodies together have as many bytes as they
/// may.
pub(super) async fn read_body(
    body: &mut Incoming,
    BodyLimit { max_bytes: max, too_large }: BodyLimit,
    held: &mut HeldBody<'_>,
    stall: Duration,
) -> Result<Bytes, ConnectionsApiError> {
    if body.size_hint().lower() > max as u64 {
        return Err(too_large);
    }
    let began = Instant::now();
    let end = began + BODY_TIMEOUT;
    let mut timer = pin!(sleep_until(end.min(began + stall)));
    // Most bodies come in one piece, which is not copied.
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    while !body.is_end_stream() {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            () = timer.as_mut() => return Err(ConnectionsApiError::BodyTimeout),
        };
        let Some(frame) = frame else { break };
        // Frames without data are trailers, which have no use here.
        let Ok(data) = frame.map_err(|error| failed(&error))?.into_data() else { continue };
        let length = first.len() + all.len() + data.len();
        if length > max {
            return Err(too_large);
        }
        if !held.grow(data.len()) {
            return Err(ConnectionsApiError::BodiesFull);
        }
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            // Pieces are joined as they arrive: each small piece would keep the whole buffer that it was read into.
            let left = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
            all.reserve(first.len() + data.len() + if all.is_empty() { left.min(max) } else { 0 });
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
        if !body.is_end_stream() {
            timer.as_mut().reset(end.min(Instant::now() + stall));
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// Returns the error for a body that is malformed, or for one that did not arrive whole.
fn failed(error: &hyper::Error) -> ConnectionsApiError {
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
    match cause {
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
            ConnectionsApiError::BadRequest("the chunks of the body are malformed")
        }
        _ => ConnectionsApiError::BodyLost,
    }
}
