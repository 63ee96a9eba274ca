//! The `$context` variables: the one list of their names. Mappings, access logs and templates check names against it; the
//! values come from the event (`request_context.rs`), and in access logs from its record.
//!
//! Source: AWS, "API Gateway WebSocket API mapping template reference" and "Variables for access logging".

/// Variables of every event. `authorizer.NAME` is one too, for each value that an authorizer returned.
pub const EVENT_VARIABLES: [&str; 28] = [
    "apiId",
    "authorizer.principalId",
    "connectedAt",
    "connectionId",
    "domainName",
    "error.messageString",
    "error.validationErrorString",
    "eventType",
    "extendedRequestId",
    "identity.accountId",
    "identity.apiKey",
    "identity.apiKeyId",
    "identity.caller",
    "identity.cognitoAuthenticationProvider",
    "identity.cognitoAuthenticationType",
    "identity.cognitoIdentityId",
    "identity.cognitoIdentityPoolId",
    "identity.sourceIp",
    "identity.user",
    "identity.userAgent",
    "identity.userArn",
    "messageId",
    "requestId",
    "requestTime",
    "requestTimeEpoch",
    "routeKey",
    "stage",
    "status",
];

/// Variables that access logs have besides: how the event ended. The names with `tidegate.` are tidegate's own.
pub const LOG_VARIABLES: [&str; 40] = [
    "authenticate.error",
    "authenticate.latency",
    "authenticate.status",
    "authorize.error",
    "authorize.latency",
    "authorize.status",
    "authorizer.error",
    "authorizer.integrationLatency",
    "authorizer.integrationStatus",
    "authorizer.latency",
    "authorizer.requestId",
    "authorizer.status",
    "awsEndpointRequestId",
    "error.message",
    "error.responseType",
    "identity.principalOrgId",
    "integration.error",
    "integration.integrationStatus",
    "integration.latency",
    "integration.requestId",
    "integration.status",
    "integrationErrorMessage",
    "integrationLatency",
    "integrationStatus",
    "responseLatency",
    "responseLength",
    "tidegate.closeCode",
    "tidegate.closeReason",
    "tidegate.delivered",
    "tidegate.duration",
    "tidegate.integrationId",
    "tidegate.nodeId",
    "tidegate.operation",
    "tidegate.reason",
    "tidegate.requestLength",
    "tidegate.traceId",
    "waf.error",
    "waf.latency",
    "waf.status",
    "xrayTraceId",
];

/// Returns true if a mapping may read `name`, which is without `$context.`.
pub fn is_event_variable(name: &str) -> bool {
    name.strip_prefix("authorizer.").is_some_and(|property| !property.is_empty()) || EVENT_VARIABLES.contains(&name)
}

/// Returns true if an access log may show `name`, which is without `$context.`.
pub fn is_log_variable(name: &str) -> bool {
    is_event_variable(name) || LOG_VARIABLES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_stands_once_and_in_order() {
        assert!(EVENT_VARIABLES.is_sorted() && LOG_VARIABLES.is_sorted());
        assert!(EVENT_VARIABLES.iter().all(|name| !LOG_VARIABLES.contains(name)));
    }

    #[test]
    fn access_logs_may_show_more_than_mappings_may_read() {
        assert!(is_event_variable("routeKey") && is_log_variable("routeKey"));
        assert!(!is_event_variable("integration.latency") && is_log_variable("integration.latency"));
        assert!(is_event_variable("authorizer.tenant") && is_log_variable("authorizer.tenant"));
        assert!(!is_log_variable("authorizer.") && !is_log_variable("body"));
    }
}
