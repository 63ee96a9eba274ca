use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use tidegate_core::request_context::{Event, RequestContext};
use tidegate_core::trace_context::{TraceContext, X_AMZN_TRACE_ID};

/// Adds the headers that every call has.
pub(super) fn add_context_headers(headers: &mut HeaderMap, context: &RequestContext<'_>, event_type: &str) {
    let connection = context.connection;
    let mut set = |name: &'static str, value: &str| {
        headers.insert(HeaderName::from_static(name), header_value(value));
    };
    set("x-tidegate-connection-id", &connection.id.to_string());
    set("x-tidegate-api-id", &connection.api_id);
    set("x-tidegate-stage", &connection.stage);
    set("x-tidegate-route-key", context.route_key);
    set("x-tidegate-event-type", event_type);
    set("x-tidegate-request-id", context.request_id.as_str());
    set("x-tidegate-callback-url", &context.callback_url);
    match &context.event {
        Event::Connect | Event::Message { .. } => set("x-tidegate-attempt", "1"),
        Event::Disconnect { code, reason, attempt } => {
            set("x-tidegate-attempt", &attempt.to_string());
            set("x-tidegate-disconnect-code", &code.to_string());
            set("x-tidegate-disconnect-reason", &utf8_percent_encode(reason, NON_ALPHANUMERIC).to_string());
        }
    }
    let trace = context.trace.unwrap_or_else(|| TraceContext::new(context.request_time, false));
    set("traceparent", &trace.traceparent());
    if trace.sampled {
        headers.insert(X_AMZN_TRACE_ID, header_value(&trace.amzn()));
    } else if !headers.contains_key(X_AMZN_TRACE_ID) {
        headers.insert(X_AMZN_TRACE_ID, header_value(&trace.root().to_string()));
    }
}

/// Returns `text` as a header value. It is percent-encoded if it holds characters that a header cannot hold, or begins
/// or ends with a space, which a header would lose: route keys are free text.
fn header_value(text: &str) -> HeaderValue {
    let is_plain = text.is_ascii() && !text.contains('\t') && !text.starts_with(' ') && !text.ends_with(' ');
    // Refuses control characters by itself, so the text is read byte by byte only once.
    let value = if is_plain { HeaderValue::from_str(text).ok() } else { None };
    value.unwrap_or_else(|| {
        let encoded = utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        HeaderValue::from_str(&encoded).expect("visible ASCII is a header value")
    })
}
