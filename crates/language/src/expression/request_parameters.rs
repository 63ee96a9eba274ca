use http::HeaderName;

use tidegate_core::context_variable::{EVENT_VARIABLES, is_event_variable};

use super::names::header_key;
use super::uri_template::is_stage_variable_name;
use super::{BodyPath, ExpressionError};

/// Headers that a mapping may not set, because they belong to the connection to the backend or to the gateway.
const RESERVED_HEADERS: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// Prefixes of headers that a mapping may not set.
const RESERVED_HEADER_PREFIXES: [&str; 2] = ["proxy-", "x-tidegate-"];

/// The left side of a request parameter mapping: the part of the call to the backend that it sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// `integration.request.header.NAME`
    Header(HeaderName),
    /// `integration.request.querystring.NAME`
    QueryString(String),
}

/// The right side of a request parameter mapping: the source of its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `route.request.querystring.NAME`: the last value. Only `$connect` has a query string and headers.
    QueryString(String),
    /// `route.request.header.NAME`: the last value.
    Header(HeaderName),
    /// `route.request.multivaluequerystring.NAME`: all values.
    MultiValueQueryString(String),
    /// `route.request.multivalueheader.NAME`: all values.
    MultiValueHeader(HeaderName),
    /// `route.request.body.PATH`: a value of the message. Only messages have a body.
    Body(BodyPath),
    /// `context.NAME`: one of [`CONTEXT_VARIABLES`], or `authorizer.` and a name. The text does not contain `context.`.
    Context(String),
    /// `stageVariables.NAME`
    StageVariable(String),
    /// `'text'`: the text without the quotes. It contains no control characters.
    Literal(String),
}

/// A parameter that a `$connect` route declares in its `requestParameters`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteParameter {
    /// `route.request.querystring.NAME`
    QueryString(String),
    /// `route.request.header.NAME`
    Header(HeaderName),
}

/// The reason why a text is neither a side of a request parameter mapping nor a parameter of a route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    #[error(
        "{0} is not a destination in the integration's request; allowed are `integration.request.header.NAME` and \
         `integration.request.querystring.NAME`"
    )]
    UnknownDestination(String),
    #[error(
        "{0} is not a source; allowed are `context.NAME`, `stageVariables.NAME`, `route.request.querystring.NAME`, \
         `route.request.header.NAME`, `route.request.multivaluequerystring.NAME`, \
         `route.request.multivalueheader.NAME`, `route.request.body.PATH` and `'literal'`"
    )]
    UnknownSource(String),
    #[error(
        "{0} is not a parameter of a route; allowed are `route.request.querystring.NAME` and \
         `route.request.header.NAME`"
    )]
    UnknownRouteParameter(String),
    #[error("{0:?} cannot be the name of a parameter; allowed are letters, digits, `.`, `_`, `$` and `-`")]
    InvalidName(String),
    #[error(
        "the gateway itself sets the header {0}; a mapping may set any header but {reserved}, and those that begin \
         with {prefixes}",
        reserved = RESERVED_HEADERS.join(", "),
        prefixes = RESERVED_HEADER_PREFIXES.join(" or ")
    )]
    ReservedHeader(HeaderName),
    #[error("the body path is not valid")]
    InvalidBodyPath(#[source] ExpressionError),
    #[error(
        "there is no variable context.{0}; allowed are authorizer.NAME and {allowed}",
        allowed = EVENT_VARIABLES.join(", ")
    )]
    UnknownContextVariable(String),
    #[error("{0:?} cannot be the name of a stage variable; allowed are 1 to 64 letters, digits and `_`")]
    InvalidStageVariable(String),
    #[error("a literal is enclosed in single quotes and contains no control characters")]
    InvalidLiteral,
}

impl Destination {
    /// Parses the left side of a mapping.
    pub fn parse(key: &str) -> Result<Self, ParameterError> {
        if let Some(name) = key.strip_prefix("integration.request.header.") {
            let header = header_name(name)?;
            if is_reserved(&header) {
                return Err(ParameterError::ReservedHeader(header));
            }
            return Ok(Destination::Header(header));
        }
        if let Some(name) = key.strip_prefix("integration.request.querystring.") {
            return parameter_name(name).map(Destination::QueryString);
        }
        Err(ParameterError::UnknownDestination(key.to_owned()))
    }
}

impl Source {
    /// Parses the right side of a mapping.
    pub fn parse(source: &str) -> Result<Self, ParameterError> {
        if let Some(literal) = source.strip_prefix('\'') {
            return literal_text(literal).map(Source::Literal);
        }
        if let Some(name) = source.strip_prefix("context.") {
            return context_variable(name).map(Source::Context);
        }
        if let Some(name) = source.strip_prefix("stageVariables.") {
            return stage_variable(name).map(Source::StageVariable);
        }
        if let Some(path) = source.strip_prefix("route.request.body")
            && (path.starts_with('[') || path.starts_with('.'))
        {
            let path = path.strip_prefix('.').unwrap_or(path);
            return BodyPath::parse(path).map(Source::Body).map_err(ParameterError::InvalidBodyPath);
        }
        let unknown = || ParameterError::UnknownSource(source.to_owned());
        let (place, name) =
            source.strip_prefix("route.request.").and_then(|place| place.split_once('.')).ok_or_else(unknown)?;
        match place {
            "querystring" => parameter_name(name).map(Source::QueryString),
            "header" => header_name(name).map(Source::Header),
            "multivaluequerystring" => parameter_name(name).map(Source::MultiValueQueryString),
            "multivalueheader" => header_name(name).map(Source::MultiValueHeader),
            _ => Err(unknown()),
        }
    }
}

impl RouteParameter {
    /// Parses a key of a route's `requestParameters`.
    pub fn parse(key: &str) -> Result<Self, ParameterError> {
        if let Some(name) = key.strip_prefix("route.request.querystring.") {
            return parameter_name(name).map(RouteParameter::QueryString);
        }
        if let Some(name) = key.strip_prefix("route.request.header.") {
            return header_name(name).map(RouteParameter::Header);
        }
        Err(ParameterError::UnknownRouteParameter(key.to_owned()))
    }
}

/// Checks `^[a-zA-Z0-9._$-]+$`.
///
/// Source: AWS, "Set up data mapping for WebSocket APIs in API Gateway".
fn parameter_name(name: &str) -> Result<String, ParameterError> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._$-".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_allowed) {
        return Err(ParameterError::InvalidName(name.to_owned()));
    }
    Ok(name.to_owned())
}

fn header_name(name: &str) -> Result<HeaderName, ParameterError> {
    let name = parameter_name(name)?;
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| ParameterError::InvalidName(name))
}

/// Returns true if some backend reads the name as a reserved one: `x_tidegate_stage`.
fn is_reserved(header: &HeaderName) -> bool {
    let name = &*header_key(header.as_str());
    RESERVED_HEADERS.contains(&name) || RESERVED_HEADER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn context_variable(name: &str) -> Result<String, ParameterError> {
    let is_known = match name.strip_prefix("authorizer.") {
        Some(property) => parameter_name(property).is_ok(),
        None => is_event_variable(name),
    };
    if is_known { Ok(name.to_owned()) } else { Err(ParameterError::UnknownContextVariable(name.to_owned())) }
}

fn stage_variable(name: &str) -> Result<String, ParameterError> {
    if !is_stage_variable_name(name) {
        return Err(ParameterError::InvalidStageVariable(name.to_owned()));
    }
    Ok(name.to_owned())
}

/// Returns the text before the closing quote. Quotes inside are part of the text.
fn literal_text(literal: &str) -> Result<String, ParameterError> {
    let text = literal.strip_suffix('\'').ok_or(ParameterError::InvalidLiteral)?;
    if text.contains(|character: char| character.is_control()) {
        return Err(ParameterError::InvalidLiteral);
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &'static str) -> HeaderName {
        HeaderName::from_static(name)
    }

    #[test]
    fn destinations_are_headers_and_query_strings() {
        #[track_caller]
        fn check(key: &str, expected: &Result<Destination, ParameterError>) {
            assert_eq!(&Destination::parse(key), expected);
        }
        let reserved = |name| Err(ParameterError::ReservedHeader(header(name)));
        check("integration.request.header.connectionId", &Ok(Destination::Header(header("connectionid"))));
        check("integration.request.header.X-My.Header", &Ok(Destination::Header(header("x-my.header"))));
        check("integration.request.querystring.connectionId", &Ok(Destination::QueryString("connectionId".into())));
        check("integration.request.header.Host", &reserved("host"));
        check("integration.request.header.Content-Length", &reserved("content-length"));
        check("integration.request.header.transfer-encoding", &reserved("transfer-encoding"));
        check("integration.request.header.Connection", &reserved("connection"));
        check("integration.request.header.upgrade", &reserved("upgrade"));
        check("integration.request.header.TE", &reserved("te"));
        check("integration.request.header.trailer", &reserved("trailer"));
        check("integration.request.header.keep-alive", &reserved("keep-alive"));
        check("integration.request.header.Proxy-Authorization", &reserved("proxy-authorization"));
        check("integration.request.header.X-Tidegate-Event", &reserved("x-tidegate-event"));
        check("integration.request.header.x_tidegate_event", &reserved("x_tidegate_event"));
        check("integration.request.header.Content_Length", &reserved("content_length"));
        check("integration.request.header.Expect", &reserved("expect"));
        check("integration.request.header.webhook-signature", &reserved("webhook-signature"));
        check("integration.request.header.", &Err(ParameterError::InvalidName(String::new())));
        check("integration.request.header.a b", &Err(ParameterError::InvalidName("a b".into())));
        check("integration.request.querystring.a[]", &Err(ParameterError::InvalidName("a[]".into())));
        for key in ["integration.request.path.a", "route.request.header.a", "header.a", ""] {
            check(key, &Err(ParameterError::UnknownDestination(key.into())));
        }
    }

    #[test]
    fn sources_are_the_request_the_context_the_stage_and_literals() {
        #[track_caller]
        fn check(source: &str, expected: &Result<Source, ParameterError>) {
            assert_eq!(&Source::parse(source), expected);
        }
        let body = |path| Ok(Source::Body(BodyPath::parse(path).expect("a valid path")));
        check("route.request.querystring.token", &Ok(Source::QueryString("token".into())));
        check("route.request.header.User-Agent", &Ok(Source::Header(header("user-agent"))));
        check("route.request.multivaluequerystring.a.b", &Ok(Source::MultiValueQueryString("a.b".into())));
        check("route.request.multivalueheader.Cookie", &Ok(Source::MultiValueHeader(header("cookie"))));
        check("route.request.body.user.id", &body("user.id"));
        check("route.request.body['a b'][0]", &body("['a b'][0]"));
        check("context.connectionId", &Ok(Source::Context("connectionId".into())));
        check("context.identity.sourceIp", &Ok(Source::Context("identity.sourceIp".into())));
        check("context.authorizer.principalId", &Ok(Source::Context("authorizer.principalId".into())));
        check("context.authorizer.tenant", &Ok(Source::Context("authorizer.tenant".into())));
        check("stageVariables.secret_1", &Ok(Source::StageVariable("secret_1".into())));
        check("'application/json'", &Ok(Source::Literal("application/json".into())));
        check("''", &Ok(Source::Literal(String::new())));
        check("'it's'", &Ok(Source::Literal("it's".into())));

        check("'", &Err(ParameterError::InvalidLiteral));
        check("'open", &Err(ParameterError::InvalidLiteral));
        check("'a\nb'", &Err(ParameterError::InvalidLiteral));
        check("route.request.header.a:b", &Err(ParameterError::InvalidName("a:b".into())));
        check("context.connection", &Err(ParameterError::UnknownContextVariable("connection".into())));
        check("context.authorizer.", &Err(ParameterError::UnknownContextVariable("authorizer.".into())));
        check("context.error.message", &Err(ParameterError::UnknownContextVariable("error.message".into())));
        check("stageVariables.a-b", &Err(ParameterError::InvalidStageVariable("a-b".into())));
        for source in
            ["", "application/json", "$context.stage", "route.request.path.a", "route.request.body", "context"]
        {
            check(source, &Err(ParameterError::UnknownSource(source.into())));
        }
        assert!(matches!(Source::parse("route.request.body.a[*]"), Err(ParameterError::InvalidBodyPath(_))));
        assert!(matches!(Source::parse("route.request.body."), Err(ParameterError::InvalidBodyPath(_))));
    }

    #[test]
    fn routes_declare_query_strings_and_headers() {
        #[track_caller]
        fn check(key: &str, expected: &Result<RouteParameter, ParameterError>) {
            assert_eq!(&RouteParameter::parse(key), expected);
        }
        check("route.request.querystring.authToken", &Ok(RouteParameter::QueryString("authToken".into())));
        check("route.request.header.Auth", &Ok(RouteParameter::Header(header("auth"))));
        check("route.request.header.", &Err(ParameterError::InvalidName(String::new())));
        for key in ["route.request.body.a", "route.request.multivalueheader.a", "querystring.a"] {
            check(key, &Err(ParameterError::UnknownRouteParameter(key.into())));
        }
    }
}
