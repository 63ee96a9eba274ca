use http::HeaderName;

use tidegate_integration::Handshake;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The place of a client's API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ApiKeySource {
    /// `$request.header.x-api-key`
    Header,
    /// `$context.authorizer.usageIdentifierKey`
    Authorizer,
}

impl ApiKeySource {
    pub(super) fn parse(expression: &str) -> Option<Self> {
        match expression {
            "$request.header.x-api-key" => Some(ApiKeySource::Header),
            "$context.authorizer.usageIdentifierKey" => Some(ApiKeySource::Authorizer),
            _ => None,
        }
    }

    /// Returns the key that a client sent. Returns `None` if the header is repeated, under any spelling of its name
    /// that some backend reads as the same header.
    pub(super) fn value<'a>(self, handshake: &'a Handshake, of_authorizer: Option<&'a str>) -> Option<&'a str> {
        match self {
            ApiKeySource::Authorizer => of_authorizer,
            ApiKeySource::Header => {
                let value = handshake.headers.get(X_API_KEY).filter(|_| !handshake.repeats_header(&X_API_KEY));
                value.and_then(|value| value.to_str().ok())
            }
        }
    }
}
