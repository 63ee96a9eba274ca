//! The answer of a REQUEST authorizer:
//! `{"principalId":"…","policyDocument":{…},"context":{…},"usageIdentifierKey":"…"}`.
//!
//! Source: AWS, "Output from an API Gateway Lambda authorizer".

use serde_json::Value;
use thiserror::Error;

use crate::iam::policy::{Policy, PolicyError};
use tidegate_core::json;
use tidegate_core::principal::AuthorizerContext;

/// Largest answer, in bytes.
///
/// Source: AWS, "Quotas for configuring and running a WebSocket API in API Gateway".
pub(super) const ANSWER_MAX_BYTES: usize = 8 * 1024;

/// A parsed answer. Its policy is still to be evaluated.
#[derive(Debug)]
pub(super) struct AuthorizerAnswer {
    pub(super) policy: Policy,
    pub(super) context: AuthorizerContext,
    /// API key that the authorizer names for the client.
    pub(super) usage_identifier_key: Option<Box<str>>,
}

/// The reason why an answer cannot be used.
#[derive(Debug, Error)]
pub enum AuthorizerAnswerError {
    /// The function raised exactly `Unauthorized`.
    #[error("the authorizer answered `Unauthorized`")]
    Unauthorized,
    #[error("the authorizer's function failed")]
    Function,
    #[error("the answer is larger than 8 KB")]
    TooLarge,
    #[error("the answer is not a JSON object")]
    NotAnObject,
    #[error("`{0}` is missing or of the wrong type")]
    WrongType(&'static str),
    /// A value in `context` that is not scalar. The error does not name it, because the name may be confidential.
    #[error("a value in `context` is neither text nor a number nor a boolean")]
    NestedContext,
    #[error("the policy cannot be evaluated")]
    Policy(#[source] PolicyError),
}

/// Parses an answer.
///
/// # Errors
/// Returns [`AuthorizerAnswerError::Unauthorized`] if the function refused the client,
/// [`AuthorizerAnswerError::Function`] if it failed, and otherwise the first mistake in the answer.
pub(super) fn parse(answer: &[u8]) -> Result<AuthorizerAnswer, AuthorizerAnswerError> {
    if answer.len() > ANSWER_MAX_BYTES {
        return Err(AuthorizerAnswerError::TooLarge);
    }
    let Ok(Value::Object(answer)) = json::from_slice(answer) else {
        return Err(AuthorizerAnswerError::NotAnObject);
    };
    if !answer.contains_key("policyDocument") {
        match answer.get("errorMessage") {
            Some(Value::String(message)) if message == "Unauthorized" => {
                return Err(AuthorizerAnswerError::Unauthorized);
            }
            Some(_) => return Err(AuthorizerAnswerError::Function),
            None => {}
        }
    }
    let text = |key: &'static str| match answer.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(Box::from(text.as_str()))),
        Some(_) => Err(AuthorizerAnswerError::WrongType(key)),
    };
    let document = answer.get("policyDocument").ok_or(AuthorizerAnswerError::WrongType("policyDocument"))?;
    let policy = Policy::parse(document).map_err(AuthorizerAnswerError::Policy)?;
    let principal_id = text("principalId")?.ok_or(AuthorizerAnswerError::WrongType("principalId"))?;
    let context = match answer.get("context") {
        None | Some(Value::Null) => Box::default(),
        Some(Value::Object(entries)) => entries
            .iter()
            .map(|(name, value)| Ok((name.as_str().into(), as_text(value)?)))
            .collect::<Result<Box<[_]>, AuthorizerAnswerError>>()?,
        Some(_) => return Err(AuthorizerAnswerError::WrongType("context")),
    };
    Ok(AuthorizerAnswer {
        policy,
        context: AuthorizerContext::Request { principal_id: Some(principal_id), context },
        usage_identifier_key: text("usageIdentifierKey")?,
    })
}

fn as_text(value: &Value) -> Result<Box<str>, AuthorizerAnswerError> {
    match value {
        Value::String(text) => Ok(text.as_str().into()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string().into()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(AuthorizerAnswerError::NestedContext),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: &str =
        r#""policyDocument":{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;

    #[test]
    fn answers_are_read_as_aws_reads_them() {
        let check = |answer: &str, expected: Result<&[(&str, &str)], &str>| {
            let parsed = parse(answer.as_bytes()).map_err(|error| error.to_string());
            let context = parsed.map(|answer| match answer.context {
                AuthorizerContext::Request { context, .. } => context,
                AuthorizerContext::Jwt { .. } => Box::default(),
            });
            let expected = expected.map_err(str::to_owned);
            let expected = expected.map(|pairs| pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect());
            assert_eq!(context, expected, "{answer}");
        };
        check(&format!(r#"{{"principalId":"ann",{ALLOW}}}"#), Ok(&[]));
        check(
            &format!(r#"{{"principalId":"ann",{ALLOW},"context":{{"a":"x","b":1.5,"c":true}},"extra":1}}"#),
            Ok(&[("a", "x"), ("b", "1.5"), ("c", "true")]),
        );
        check(
            &format!("\u{feff}{{\"principalId\":\"a\\ud83d\",{ALLOW},\"context\":{{\"a\":\"\\ude00x\"}}}}"),
            Ok(&[("a", "\u{fffd}x")]),
        );
        let nested = Err("a value in `context` is neither text nor a number nor a boolean");
        check(&format!(r#"{{"principalId":"ann",{ALLOW},"context":{{"a":{{}}}}}}"#), nested);
        check(&format!(r#"{{"principalId":"ann",{ALLOW},"context":{{"a":[1]}}}}"#), nested);
        check(&format!(r#"{{"principalId":"ann",{ALLOW},"context":{{"a":null}}}}"#), nested);
        check(
            &format!(r#"{{"principalId":"ann",{ALLOW},"context":[]}}"#),
            Err("`context` is missing or of the wrong type"),
        );
        check(&format!(r#"{{"principalId":7,{ALLOW}}}"#), Err("`principalId` is missing or of the wrong type"));
        check(&format!("{{{ALLOW}}}"), Err("`principalId` is missing or of the wrong type"));
        check(r#"{"principalId":"ann"}"#, Err("`policyDocument` is missing or of the wrong type"));
        check(r#"{"principalId":"ann","policyDocument":{}}"#, Err("the policy cannot be evaluated"));
        check(
            &format!(r#"{{"principalId":"ann",{ALLOW},"usageIdentifierKey":1}}"#),
            Err("`usageIdentifierKey` is missing or of the wrong type"),
        );
        check(r#"{"errorMessage":"Unauthorized","errorType":"Error"}"#, Err("the authorizer answered `Unauthorized`"));
        check(r#"{"errorMessage":"unauthorized"}"#, Err("the authorizer's function failed"));
        check(r#"{"errorMessage":"Unauthorized."}"#, Err("the authorizer's function failed"));
        check("null", Err("the answer is not a JSON object"));
        check("", Err("the answer is not a JSON object"));
        check(r#""Unauthorized""#, Err("the answer is not a JSON object"));
    }

    #[test]
    fn an_answer_of_8_kb_is_read_and_one_byte_more_is_not() {
        let answer =
            |padding: usize| format!(r#"{{"principalId":"ann",{ALLOW},"context":{{"x":"{}"}}}}"#, "a".repeat(padding));
        let fits = answer(ANSWER_MAX_BYTES - answer(0).len());
        assert_eq!(fits.len(), ANSWER_MAX_BYTES);
        assert!(parse(fits.as_bytes()).is_ok());
        let too_large = format!("{fits} ");
        assert!(matches!(parse(too_large.as_bytes()), Err(AuthorizerAnswerError::TooLarge)));
    }
}
