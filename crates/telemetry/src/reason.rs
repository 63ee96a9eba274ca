/// Declares the reasons: their codes, AWS's gateway response type for each, and their meanings.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $response_type:literal, $meaning:literal;)+) => {
        /// The reason why an event was not handled as requested: it was refused, it took the default route, or it
        /// failed.
        ///
        /// The code of the reason is in the log and in `tidegate_reasons_total`, and with `explain: true` also in the
        /// answer to the client.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* #[doc = $meaning] $name,)+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),+];

            /// Returns the name of the reason, for programs.
            pub fn code(self) -> &'static str {
                match self { $(Reason::$name => $code,)+ }
            }

            /// Returns the meaning of the reason, for people.
            pub fn meaning(self) -> &'static str {
                match self { $(Reason::$name => $meaning,)+ }
            }

            /// Returns `$context.error.responseType`; empty if the event was not refused.
            ///
            /// Source: AWS, "Gateway response types for API Gateway".
            pub fn response_type(self) -> &'static str {
                match self { $(Reason::$name => $response_type,)+ }
            }
        }
    };
}

reasons! {
    // Requests that match no stage, or are refused before one is looked up.
    UnknownApi = "unknownApi", "RESOURCE_NOT_FOUND", "neither Host nor path name a configured API";
    UnknownStage = "unknownStage", "RESOURCE_NOT_FOUND", "the API has no stage of that name";
    UnknownResource = "unknownResource", "RESOURCE_NOT_FOUND", "the path continues behind the stage";
    NoUpgrade = "noUpgrade", "RESOURCE_NOT_FOUND", "a plain HTTP request to a WebSocket stage";
    ClientsNotHere = "clientsNotHere", "ACCESS_DENIED", "clients connect to the public listener only";
    BadHandshake = "badHandshake", "BAD_REQUEST_PARAMETERS", "the request is not a correct WebSocket handshake";
    HeadTooLarge = "headTooLarge", "REQUEST_TOO_LARGE", "the URL or the headers are longer than allowed";
    HostNotAllowed = "hostNotAllowed", "ACCESS_DENIED", "the listener does not answer for this Host";
    FromPage = "fromPage", "ACCESS_DENIED", "a web page may not make an unsigned call";
    OriginNotAllowed = "originNotAllowed", "ACCESS_DENIED", "the origin of the page is not allowed";
    Draining = "draining", "DEFAULT_5XX", "the node drains";

    // Connects and messages that the gateway itself refuses.
    MissingParameter = "missingParameter", "BAD_REQUEST_PARAMETERS", "a required request parameter is missing";
    Throttled = "throttled", "THROTTLED", "a bucket is empty, or an address has as many connections as it may";
    NodeFull = "nodeFull", "DEFAULT_5XX", "the node has as many connections as it may";
    BacklogFull = "backlogFull", "DEFAULT_5XX", "too many ended connections wait for their $disconnect";
    RegistryUnavailable = "registryUnavailable", "DEFAULT_5XX", "the node may accept no connections now";
    NoRoute = "noRoute", "ACCESS_DENIED", "no route has the selected key and there is no $default route";
    ApiRemoved = "apiRemoved", "RESOURCE_NOT_FOUND", "a reload removed the API or its stage";
    ReplyTooLarge = "replyTooLarge", "DEFAULT_5XX", "the backend's reply is larger than allowed";

    // Messages that take $default although $default is not their route key.
    DefaultNotJson = "defaultNotJson", "", "the message is not JSON, so it takes $default";
    DefaultBinary = "defaultBinary", "", "the message is binary, so it takes $default";
    DefaultNoValue = "defaultNoValue", "", "the selection expression gives nothing, so the message takes $default";
    DefaultNoMatch = "defaultNoMatch", "", "no route has the selected key, so the message takes $default";

    // Mapping.
    MappingLeftOut = "mappingLeftOut", "", "the source of a request parameter has no value that fits, so it is left out";

    // Answers of backends.
    SubprotocolLeftOut = "subprotocolLeftOut", "", "the backend chose a subprotocol that the client did not offer, so it is left out";

    // Authorizers, keys and signatures.
    IdentitySourceMissing = "identitySourceMissing", "UNAUTHORIZED", "an identity source of the authorizer is missing or empty";
    IdentitySourceRepeated = "identitySourceRepeated", "UNAUTHORIZED", "an identity source of the authorizer is there more than once";
    AuthorizerUnauthorized = "authorizerUnauthorized", "UNAUTHORIZED", "the authorizer said Unauthorized";
    AuthorizerDenied = "authorizerDenied", "ACCESS_DENIED", "the authorizer's policy denies";
    AuthorizerNotAllowed = "authorizerNotAllowed", "ACCESS_DENIED", "the authorizer's policy does not allow";
    AuthorizerFailed = "authorizerFailed", "AUTHORIZER_FAILURE", "the authorizer gave no valid answer";
    ApiKeyInvalid = "apiKeyInvalid", "INVALID_API_KEY", "no valid API key";
    TokenInvalid = "tokenInvalid", "UNAUTHORIZED", "the token is not valid";
    ScopeMissing = "scopeMissing", "ACCESS_DENIED", "the token has none of the scopes that the route asks for";
    UsageThrottled = "usageThrottled", "THROTTLED", "the bucket of the API key's usage plan is empty";
    QuotaExceeded = "quotaExceeded", "QUOTA_EXCEEDED", "the quota of the API key's usage plan is used up";
    NotSigned = "notSigned", "MISSING_AUTHENTICATION_TOKEN", "the request is not signed";
    SignatureInvalid = "signatureInvalid", "INVALID_SIGNATURE", "the signature or its key is not accepted";

    IamDenied = "iamDenied", "ACCESS_DENIED", "the policy of the signing key does not allow it";

    // Backends.
    BackendRefused = "backendRefused", "", "the backend refused the client";
    BackendUnreachable = "backendUnreachable", "INTEGRATION_FAILURE", "the backend cannot be reached";
    BackendOverloaded = "backendOverloaded", "INTEGRATION_FAILURE", "too many calls wait for the backend";
    BackendTimeout = "backendTimeout", "INTEGRATION_TIMEOUT", "the backend did not answer in time";
    BackendLost = "backendLost", "INTEGRATION_FAILURE", "the answer of the backend was lost";
    BackendStatus = "backendStatus", "INTEGRATION_FAILURE", "the backend refused the call itself";
    BackendUnreadable = "backendUnreadable", "INTEGRATION_FAILURE", "the answer of the backend cannot be used";
    FunctionFailed = "functionFailed", "INTEGRATION_FAILURE", "the function behind the backend failed";

    // Calls of @connections.
    ConnectionGone = "connectionGone", "", "the connection is gone, or not there yet";
    BadCall = "badCall", "BAD_REQUEST_PARAMETERS", "the call itself is wrong";
    TooLarge = "tooLarge", "REQUEST_TOO_LARGE", "the data are larger than allowed";
    BufferFull = "bufferFull", "THROTTLED", "the connection's send buffer is full";
    BodiesFull = "bodiesFull", "THROTTLED", "all calls together hold as many bytes of bodies as they may";
    DeliveryUnknown = "deliveryUnknown", "DEFAULT_5XX", "the node that holds the connection did not answer";
    OwnerUnreachable = "ownerUnreachable", "DEFAULT_5XX", "the node that holds the connection cannot be reached";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_stands_for_one_reason_and_fits_a_header() {
        let codes: HashSet<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        assert!(codes.iter().all(|code| code.bytes().all(|byte| byte.is_ascii_alphanumeric())));
        assert!(Reason::ALL.iter().all(|reason| !reason.meaning().is_empty()));
    }
}
