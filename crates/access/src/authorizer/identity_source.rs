use std::borrow::Cow;
use std::collections::BTreeMap;

use http::HeaderName;
use thiserror::Error;

use super::denial::Denial;
use crate::jwt::TokenError;
use tidegate_core::request_context::RequestContext;
use tidegate_integration::Handshake;

/// Variables that never have a value as an identity source.
const NEVER_RESOLVE: [&str; 2] = ["eventType", "messageDirection"];

/// A value that a client must send before the authorizer is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IdentitySource {
    /// Text of the expression in the configuration.
    pub(super) text: String,
    place: SourceKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum SourceKind {
    Header(HeaderName),
    QueryString(String),
    Context(String),
    StageVariable(String),
}

/// The error of an invalid identity source, in AWS's own words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "Invalid request identity source expression: {0}. Each source must be either a request parameter, matching \
     'route.request.querystring|header.[a-zA-Z0-9._-]+', or a stage variable, matching \
     'stageVariables.[a-zA-Z0-9._-]+', or a context parameter, matching 'context.[a-zA-Z0-9._-]+'"
)]
pub(super) struct InvalidIdentitySource(String);

impl IdentitySource {
    pub(super) fn parse(text: &str) -> Result<Self, InvalidIdentitySource> {
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        let place =
            [("route.request.header.", 0), ("route.request.querystring.", 1), ("context.", 2), ("stageVariables.", 3)]
                .into_iter()
                .find_map(|(prefix, kind)| Some((kind, text.strip_prefix(prefix).filter(|name| is_name(name))?)));
        let place = match place {
            Some((0, name)) => HeaderName::from_bytes(name.as_bytes()).ok().map(SourceKind::Header),
            Some((1, name)) => Some(SourceKind::QueryString(name.to_owned())),
            Some((2, name)) => Some(SourceKind::Context(name.to_owned())),
            Some((_, name)) => Some(SourceKind::StageVariable(name.to_owned())),
            None => None,
        };
        let place = place.ok_or_else(|| InvalidIdentitySource(text.to_owned()))?;
        Ok(IdentitySource { text: text.to_owned(), place })
    }

    /// Returns the value that the client sent. Repeated values are refused, because the authorizer might judge one of
    /// them and the backend read another.
    ///
    /// # Errors
    /// Returns [`Denial::MissingIdentitySource`] if the value is missing or empty, and
    /// [`Denial::RepeatedIdentitySource`] if it is repeated under any name that some backend reads as this one.
    pub(super) fn value<'a>(
        &self,
        context: &'a RequestContext<'_>,
        stage_variables: &'a BTreeMap<String, String>,
        handshake: &'a Handshake,
    ) -> Result<Cow<'a, str>, Denial> {
        let is_repeated = match &self.place {
            SourceKind::Header(name) => handshake.repeats_header(name),
            SourceKind::QueryString(name) => handshake.repeats_parameter(name),
            SourceKind::Context(_) | SourceKind::StageVariable(_) => false,
        };
        if is_repeated {
            return Err(self.repeated());
        }
        let value = match &self.place {
            SourceKind::Header(name) => handshake.header_values(name).pop(),
            SourceKind::QueryString(name) => handshake.query_values(name).pop(),
            SourceKind::Context(name) if NEVER_RESOLVE.contains(&name.as_str()) => None,
            SourceKind::Context(name) => context.variable(name),
            SourceKind::StageVariable(name) => stage_variables.get(name).map(|value| Cow::Borrowed(value.as_str())),
        };
        value.filter(|value| !value.is_empty()).ok_or_else(|| Denial::MissingIdentitySource(self.text.clone()))
    }

    fn repeated(&self) -> Denial {
        Denial::RepeatedIdentitySource(self.text.clone())
    }

    /// Returns the name of the header, if the source is a header.
    pub(super) fn header(&self) -> Option<&HeaderName> {
        match &self.place {
            SourceKind::Header(name) => Some(name),
            SourceKind::QueryString(_) | SourceKind::Context(_) | SourceKind::StageVariable(_) => None,
        }
    }

    /// Returns true if the source can hold a token: if it is a header or a query parameter.
    pub(super) fn is_of_request(&self) -> bool {
        matches!(self.place, SourceKind::Header(_) | SourceKind::QueryString(_))
    }

    /// Returns the token in `value`: the text after `Bearer ` in a header, the text after `bearer.` or the item after
    /// `bearer` in the list of subprotocols, otherwise the value itself.
    ///
    /// # Errors
    /// Returns [`Denial::Token`] if there is no token, and [`Denial::RepeatedIdentitySource`] if the list has several.
    pub(super) fn token<'v>(&self, value: &'v str) -> Result<&'v str, Denial> {
        let token = match &self.place {
            SourceKind::Header(name) if *name == http::header::SEC_WEBSOCKET_PROTOCOL => {
                let mut tokens = in_subprotocols(value);
                let first = tokens.next();
                if tokens.next().is_some() {
                    return Err(self.repeated());
                }
                first
            }
            SourceKind::Header(_) => match value.split_once(' ') {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Some(token.trim()),
                Some(_) => None,
                None => Some(value),
            },
            SourceKind::QueryString(_) | SourceKind::Context(_) | SourceKind::StageVariable(_) => Some(value),
        };
        token.ok_or(Denial::Token(TokenError::Missing))
    }
}

/// Returns the tokens in a list of subprotocols. Browsers can send a token only there or in the URL:
/// `new WebSocket(url, ["chat.v1", "bearer." + token])`.
fn in_subprotocols(list: &str) -> impl Iterator<Item = &str> {
    let mut items = list.split(',').map(str::trim);
    std::iter::from_fn(move || {
        while let Some(item) = items.next() {
            if let Some(token) = item.strip_prefix("bearer.") {
                return Some(token);
            }
            if item.eq_ignore_ascii_case("bearer") {
                return items.next();
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_four_forms_are_sources() {
        let check = |text: &str, expected: bool| assert_eq!(IdentitySource::parse(text).is_ok(), expected, "{text}");
        check("route.request.header.Authorization", true);
        check("route.request.querystring.token", true);
        check("context.connectionId", true);
        check("stageVariables.tier", true);
        check("$request.header.Authorization", false);
        check("route.request.body.token", false);
        check("route.request.header.", false);
        check("route.request.header.a b", false);
        check("context.", false);
        check("method.request.header.x", false);
        check("", false);
    }

    #[test]
    fn a_token_is_found_where_clients_put_it() {
        let check = |source: &str, value: &str, expected: Option<&str>| {
            let source = IdentitySource::parse(source).expect("a source");
            assert_eq!(source.token(value).ok(), expected, "{value}");
        };
        let (header, query) = ("route.request.header.Authorization", "route.request.querystring.token");
        let protocols = "route.request.header.Sec-WebSocket-Protocol";
        check(header, "Bearer a.b.c", Some("a.b.c"));
        check(header, "bearer  a.b.c", Some("a.b.c"));
        check(header, "a.b.c", Some("a.b.c"));
        check(header, "Basic a.b.c", None);
        check(query, "a.b.c", Some("a.b.c"));
        check(protocols, "chat.v1, bearer.a.b.c", Some("a.b.c"));
        check(protocols, "bearer, a.b.c, chat.v1", Some("a.b.c"));
        check(protocols, "chat.v1", None);
        check(protocols, "bearer", None);
        check(protocols, "bearer.a.b.c, bearer.d.e.f", None);
        check(protocols, "bearer, a.b.c, chat.v1, bearer.d.e.f", None);
    }
}
