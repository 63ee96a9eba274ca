//! What an `AWS_PROXY` backend answers: `{"statusCode":200,"headers":{…},"body":"…","isBase64Encoded":false}`.
//!
//! Source: AWS, "Set up Lambda proxy integrations in API Gateway"; the answers of the Runtime Interface Emulator.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::groups::InvalidActions;

/// A readable answer.
#[derive(Clone, Debug)]
pub struct ProxyAnswer {
    pub status: StatusCode,
    /// `headers` and `multiValueHeaders` merged; what is no HTTP header is left out.
    pub headers: HeaderMap,
    /// Decoded, if it was base64.
    pub body: Bytes,
    /// What the backend asks for beside its answer.
    pub tidegate: Option<Value>,
}

/// Why an answer cannot be used.
#[derive(Debug, Error)]
pub enum ProxyAnswerError {
    /// The function failed: `errorMessage` without `statusCode`.
    #[error("the function failed")]
    Function,
    #[error("the answer is not JSON")]
    NotJson(#[source] serde_json::Error),
    #[error("the answer is no JSON object")]
    NotAnObject,
    #[error("the answer has no `statusCode` from 100 to 599")]
    NoStatusCode,
    #[error("`{0}` is of the wrong type")]
    WrongType(&'static str),
    #[error("`body` is not base64, though `isBase64Encoded` says so")]
    NotBase64(#[source] base64::DecodeError),
    #[error("what the backend asks for in its answer cannot be done")]
    Actions(#[source] InvalidActions),
}

/// Reads an answer. Unknown keys are ignored; a numeric string is taken as a status code.
///
/// # Errors
/// The function failed, or the answer is malformed.
pub fn parse(answer: &[u8]) -> Result<ProxyAnswer, ProxyAnswerError> {
    let answer: Value = serde_json::from_slice(answer).map_err(ProxyAnswerError::NotJson)?;
    let Value::Object(mut answer) = answer else { return Err(ProxyAnswerError::NotAnObject) };
    let Some(status) = answer.get("statusCode") else {
        let failed = answer.contains_key("errorMessage") || answer.contains_key("errorType");
        return Err(if failed { ProxyAnswerError::Function } else { ProxyAnswerError::NoStatusCode });
    };
    let status = status_code(status).ok_or(ProxyAnswerError::NoStatusCode)?;
    let is_base64 = match answer.get("isBase64Encoded") {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(_) => return Err(ProxyAnswerError::WrongType("isBase64Encoded")),
    };
    let body = match answer.remove("body") {
        None | Some(Value::Null) => Bytes::new(),
        Some(Value::String(body)) if is_base64 => STANDARD.decode(body).map_err(ProxyAnswerError::NotBase64)?.into(),
        Some(Value::String(body)) => body.into(),
        Some(_) => return Err(ProxyAnswerError::WrongType("body")),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in map_of(&answer, "headers")? {
        set(&mut headers, name, [value]);
    }
    for (name, values) in map_of(&answer, "multiValueHeaders")? {
        let Value::Array(values) = values else { return Err(ProxyAnswerError::WrongType("multiValueHeaders")) };
        set(&mut headers, name, values);
    }
    let tidegate = answer.remove("tidegate");
    Ok(ProxyAnswer { status, headers, body, tidegate })
}

fn status_code(value: &Value) -> Option<StatusCode> {
    let number = match value {
        Value::Number(number) => number.as_u64()?,
        Value::String(text) => text.parse().ok()?,
        _ => return None,
    };
    u16::try_from(number)
        .ok()
        .filter(|number| (100..600).contains(number))
        .and_then(|number| StatusCode::from_u16(number).ok())
}

fn map_of<'a>(
    answer: &'a Map<String, Value>,
    key: &'static str,
) -> Result<impl Iterator<Item = (&'a String, &'a Value)>, ProxyAnswerError> {
    match answer.get(key) {
        None | Some(Value::Null) => Ok(None.into_iter().flatten()),
        Some(Value::Object(map)) => Ok(Some(map.iter()).into_iter().flatten()),
        Some(_) => Err(ProxyAnswerError::WrongType(key)),
    }
}

/// Replaces the values of one header; what is no header is left out.
fn set<'a>(headers: &mut HeaderMap, name: &str, values: impl IntoIterator<Item = &'a Value>) {
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { return };
    headers.remove(&name);
    for value in values {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => continue,
        };
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.append(name.clone(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_aws_reads_them() {
        let check = |answer: &str, expected: Result<(u16, &str), &str>| {
            let parsed = parse(answer.as_bytes());
            let parsed =
                parsed.as_ref().map(|answer| (answer.status.as_u16(), std::str::from_utf8(&answer.body).unwrap()));
            assert_eq!(parsed.map_err(ToString::to_string), expected.map_err(str::to_owned), "{answer}");
        };
        let no_status = Err("the answer has no `statusCode` from 100 to 599");
        check(r#"{"statusCode":200}"#, Ok((200, "")));
        check(r#"{"statusCode":200,"body":"hi"}"#, Ok((200, "hi")));
        check(r#"{"statusCode":200,"body":null}"#, Ok((200, "")));
        check(r#"{"statusCode":"403","body":"no"}"#, Ok((403, "no")));
        check(r#"{"statusCode":200,"body":"aGk=","isBase64Encoded":true}"#, Ok((200, "hi")));
        check(r#"{"statusCode":200,"extra":[1]}"#, Ok((200, "")));
        check(r#"{"statusCode":200,"errorMessage":"x"}"#, Ok((200, "")));
        check(r#"{"statusCode":99}"#, no_status);
        check(r#"{"statusCode":600}"#, no_status);
        check(r#"{"statusCode":200.5}"#, no_status);
        check(r#"{"statusCode":null}"#, no_status);
        check(r#"{"statusCode":-200}"#, no_status);
        check(r#"{"body":"hi"}"#, no_status);
        check("{}", no_status);
        check("null", Err("the answer is no JSON object"));
        check(r#""ok""#, Err("the answer is no JSON object"));
        check("[]", Err("the answer is no JSON object"));
        check("", Err("the answer is not JSON"));
        check("Task timed out after 3.00 seconds", Err("the answer is not JSON"));
        check(r#"{"statusCode":200,"body":{"a":1}}"#, Err("`body` is of the wrong type"));
        check(r#"{"statusCode":200,"headers":[]}"#, Err("`headers` is of the wrong type"));
        check(r#"{"statusCode":200,"isBase64Encoded":"yes"}"#, Err("`isBase64Encoded` is of the wrong type"));
        check(
            r#"{"statusCode":200,"body":"%","isBase64Encoded":true}"#,
            Err("`body` is not base64, though `isBase64Encoded` says so"),
        );
        check(r#"{"errorMessage":"boom","errorType":"Error","stackTrace":[]}"#, Err("the function failed"));
    }

    #[test]
    fn both_header_maps_are_merged_and_names_have_no_case() {
        let answer = parse(
            br#"{"statusCode":200,"headers":{"sec-websocket-PROTOCOL":"v1","X-A":"1","bad name":"x","X-N":7},
                 "multiValueHeaders":{"x-a":["2","3"]}}"#,
        )
        .unwrap();
        assert_eq!(answer.headers["sec-websocket-protocol"], "v1");
        assert_eq!(answer.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["2", "3"]);
        assert_eq!(answer.headers["x-n"], "7");
        assert_eq!(answer.headers.len(), 4);
    }
}
