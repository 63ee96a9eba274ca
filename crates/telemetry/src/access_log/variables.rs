use std::borrow::Cow;

use crate::event_record::{AuthorizerKind, AuthorizerRecord, EventRecord, Subject};
use tidegate_core::id::ConnectionId;
use tidegate_core::request_context::Event;

/// The value of a variable.
pub(super) enum Value<'r> {
    /// A text that has to be escaped.
    Text(Cow<'r, str>),
    /// A text that includes its own quotes. Only one variable does, as on AWS.
    Quoted(String),
    Number(u128),
    Id(ConnectionId),
}

/// Returns the value of a variable for one event.
pub(super) fn value<'r>(record: &'r EventRecord<'_>, name: &str) -> Option<Value<'r>> {
    let number = |number: u128| Some(Value::Number(number));
    let integration = record.integration.as_ref();
    let text = |text: &'r str| Value::Text(Cow::Borrowed(text));
    match name {
        "status" => number(record.status.into()),
        "error.message" => record.client_text.map(text),
        "error.messageString" => record.client_text.map(|text| Value::Quoted(format!("{text:?}"))),
        "error.responseType" => record.reason.map(|reason| text(reason.response_type())),
        "integration.latency" | "integrationLatency" => number(integration?.latency.as_millis()),
        "integration.status" | "integration.integrationStatus" | "integrationStatus" => {
            number(integration?.status?.into())
        }
        "integration.error" | "integrationErrorMessage" => integration?.error.as_deref().map(text),
        "integration.requestId" | "awsEndpointRequestId" => integration?.request_id.as_deref().map(text),
        "responseLatency" | "tidegate.duration" => number(record.started.elapsed().as_millis()),
        "responseLength" => number(record.response_bytes as u128),
        "tidegate.requestLength" => number(record.request_bytes as u128),
        "tidegate.reason" => record.reason.map(|reason| text(reason.code())),
        "tidegate.traceId" => Some(Value::Text(record.trace.trace_id_hex().into())),
        "tidegate.integrationId" => integration.map(|integration| text(&integration.integration_id)),
        "xrayTraceId" => Some(Value::Text(record.trace.root().to_string().into())),
        "authorizer.error"
        | "authorizer.latency"
        | "authorizer.status"
        | "authorizer.integrationLatency"
        | "authorizer.integrationStatus"
        | "authorizer.requestId"
        | "authenticate.error"
        | "authenticate.latency"
        | "authenticate.status"
        | "authorize.error"
        | "authorize.latency"
        | "authorize.status"
            if let Some(authorizer) = &record.authorizer =>
        {
            of_authorizer(authorizer, record.status, name)
        }
        "connectionId" => record.subject.connection_id().map(Value::Id),
        _ => of_subject(&record.subject, name).map(Value::Text),
    }
}

/// Returns the value of a variable about the decision of an authorizer: `authenticate` is the signature and `authorize`
/// the policy of `AWS_IAM`, `authorizer` any other. A step that refused the client has the status that the client got.
fn of_authorizer<'r>(authorizer: &'r AuthorizerRecord, refused: u16, name: &str) -> Option<Value<'r>> {
    let (step, name) = name.split_once('.')?;
    let is_iam = authorizer.kind == AuthorizerKind::Iam;
    let error = authorizer.error.as_deref();
    let error = match step {
        "authorizer" if !is_iam => error,
        "authenticate" if is_iam => error.filter(|_| !authorizer.is_signed),
        "authorize" if is_iam && authorizer.is_signed => error,
        _ => return None,
    };
    let call = authorizer.call.as_ref();
    match name {
        "error" => error.map(|error| Value::Text(error.into())),
        "latency" => Some(Value::Number(authorizer.latency.as_millis())),
        "status" => Some(Value::Number(if error.is_some() { refused.into() } else { 200 })),
        "integrationLatency" => Some(Value::Number(call?.latency.as_millis())),
        "integrationStatus" => Some(Value::Number(call?.status?.into())),
        "requestId" => call?.request_id.as_deref().map(|id| Value::Text(id.into())),
        _ => None,
    }
}

fn of_subject<'r>(subject: &'r Subject<'_>, name: &str) -> Option<Cow<'r, str>> {
    match subject {
        Subject::Event(context) => match (&context.event, name) {
            (Event::Disconnect { code, .. }, "tidegate.closeCode") => Some(Cow::Owned(code.to_string())),
            (Event::Disconnect { reason, .. }, "tidegate.closeReason") => Some(Cow::Borrowed(reason)),
            (_, "tidegate.nodeId") => Some(Cow::Owned(context.connection.id.node().to_string())),
            _ => context.variable(name),
        },
        Subject::Callback(callback) => Some(match name {
            "apiId" => Cow::Borrowed(callback.api_id),
            "stage" => Cow::Borrowed(callback.stage),
            "domainName" => Cow::Borrowed(callback.domain_name),
            "eventType" => Cow::Borrowed("CONNECTION_API"),
            "routeKey" => Cow::Owned(format!("{} {}", callback.method, callback.path)),
            "tidegate.operation" => Cow::Borrowed(callback.operation?),
            "tidegate.delivered" => Cow::Owned(callback.delivered?.to_string()),
            "tidegate.nodeId" => Cow::Owned(callback.connection_id?.node().to_string()),
            "requestId" | "extendedRequestId" => Cow::Borrowed(callback.request_id.as_str()),
            "requestTime" => Cow::Owned(callback.request_time.clf()),
            "requestTimeEpoch" => Cow::Owned(callback.request_time.millis().to_string()),
            "identity.sourceIp" => Cow::Owned(callback.source_ip?.to_string()),
            "identity.userAgent" => Cow::Borrowed(callback.user_agent?),
            "identity.accountId" => Cow::Borrowed(&callback.signer?.account_id),
            "identity.caller" | "identity.user" => Cow::Borrowed(&callback.signer?.name),
            "identity.userArn" => Cow::Borrowed(&callback.signer?.user_arn),
            _ => return None,
        }),
    }
}
