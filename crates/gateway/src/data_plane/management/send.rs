use std::collections::BTreeSet;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};

use super::CallRecord;
use super::post_to_audience::Report;
use crate::data_plane::delivery::fan_out::{Outcome, begin, finish};
use crate::data_plane::delivery::reach::Reach;
use crate::data_plane::response::{Body, json, respond};
use crate::data_plane::{ConnectionsApiError, DataPlane};
use crate::deployment::Resource;
use tidegate_access::iam::PolicyPath;
use tidegate_connections::groups::{Except, InvalidMessage, MessageLimits, PushMessage};
use tidegate_core::data_type::DataType;
use tidegate_core::limits::LimitSettings;
use tidegate_core::topic::TopicKind;

const JSON_LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// The messages of one call of `@send`.
#[derive(Debug)]
pub struct Batch {
    messages: Vec<PushMessage>,
    /// True if the response has one line for each message.
    in_lines: bool,
}

impl Batch {
    /// Parses a body: one message, or JSON Lines. No message gets to the connections of `except`.
    ///
    /// # Errors
    /// Returns `BadRequest` if there is no message, `InvalidMessage` if one is malformed, or `OverLimit` if one exceeds
    /// a limit. In all these cases no message is sent.
    pub fn parse(
        body: &Bytes,
        content_type: Option<&HeaderValue>,
        data_type: DataType,
        except: &Except,
        limits: &LimitSettings,
    ) -> Result<Self, ConnectionsApiError> {
        let mut messages = PushMessage::parse_all(body, data_type, message_limits(limits)).map_err(invalid)?;
        if messages.is_empty() {
            return Err(ConnectionsApiError::BadRequest("the body must be a message"));
        }
        for message in &mut messages {
            message.audience.except.0.extend(&except.0);
        }
        Ok(Batch { in_lines: Batch::asks_for_lines(content_type) || messages.len() > 1, messages })
    }

    /// Returns true if a request with this `Content-Type` gets a response with one line for each message.
    pub fn asks_for_lines(content_type: Option<&HeaderValue>) -> bool {
        let essence = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = essence.split(';').next().unwrap_or_default().trim();
        ["application/x-ndjson", "application/jsonl", "application/x-jsonlines"].contains(&essence)
    }

    /// Returns the paths that policies must allow: those that a call for each target alone would need.
    pub(super) fn policy_paths(&self) -> impl Iterator<Item = PolicyPath> {
        let mut names = BTreeSet::new();
        let mut names_connections = false;
        for PushMessage { audience, .. } in &self.messages {
            names.extend(audience.topics.iter().cloned());
            names_connections |= !audience.connections.is_empty();
        }
        let topics = names.into_iter().map(|name| match name.kind() {
            TopicKind::Group => Resource::Group(name.as_str().to_owned()).policy_path(),
            TopicKind::User => Resource::User(name.as_str().to_owned()).policy_path(),
        });
        topics.chain(names_connections.then(Resource::connection_policy_path))
    }
}

/// Returns the limits of one message.
pub(in crate::data_plane) fn message_limits(limits: &LimitSettings) -> MessageLimits {
    let targets = usize::try_from(limits.targets).unwrap_or(usize::MAX);
    MessageLimits { targets, data_bytes: limits.message_bytes }
}

fn invalid((at, error): (usize, InvalidMessage)) -> ConnectionsApiError {
    match error {
        InvalidMessage::TooMuch { what, max } => ConnectionsApiError::OverLimit { what, max },
        InvalidMessage::Json(_)
        | InvalidMessage::ConnectionId(_)
        | InvalidMessage::Name(_)
        | InvalidMessage::NotBase64
        | InvalidMessage::NoTarget => ConnectionsApiError::InvalidMessage { number: at + 1, error },
    }
}

/// Carries out `POST /{stage}/@send`: sends each message to all of its targets, in the order of the messages.
pub(super) async fn send(plane: &DataPlane, call: &mut CallRecord, batch: Batch) -> Response<Body> {
    let Batch { messages, in_lines } = batch;
    let labels = call.labels();
    let messages = messages.into_iter().map(|PushMessage { audience, frame }| (audience, frame)).collect();
    let (mut lines, mut total) = (Vec::new(), Outcome::default());
    for pushing in begin(plane, &labels, &call.span, Reach::OfCall(call), messages).await {
        let outcome = finish(plane, &call.live, &labels, pushing).await;
        total.counts.add(outcome.counts);
        total.unreachable_nodes = total.unreachable_nodes.max(outcome.unreachable_nodes);
        lines.push(Report::with_names(&outcome));
    }
    call.fanned_out(&total);
    match &lines[..] {
        [line] if !in_lines => json(StatusCode::OK, line),
        lines => {
            let mut body = Vec::new();
            for line in lines {
                serde_json::to_writer(&mut body, line).expect("texts and numbers are JSON");
                body.push(b'\n');
            }
            respond(StatusCode::OK, JSON_LINES, body)
        }
    }
}
