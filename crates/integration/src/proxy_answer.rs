//! The answer of an `AWS_PROXY` backend: `{"statusCode":200,"headers":{…},"body":"…","isBase64Encoded":false}`.
//!
//! Source: AWS, "Set up Lambda proxy integrations in API Gateway"; the answers of the Runtime Interface Emulator.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;
use thiserror::Error;

use tidegate_connections::groups::InvalidActions;
use tidegate_core::json;
use tidegate_core::received_base64;

/// A parsed answer.
#[derive(Clone, Debug)]
pub struct ProxyAnswer {
    pub status: StatusCode,
    /// `headers` and `multiValueHeaders` merged. Entries that are not valid HTTP headers are left out.
    pub headers: HeaderMap,
    /// The body, decoded if it was base64. Empty if it is `""`, `None` if it is missing or `null`.
    pub body: Option<Bytes>,
    /// The `tidegate` key: actions that the backend requests with its answer.
    pub tidegate: Option<Value>,
    /// The first key that a proxy answer does not have, made printable and cut if it is long.
    pub unknown_key: Option<Box<str>>,
}

/// Longest name of an unknown key that is kept, in characters.
const NAME_MAX_CHARACTERS: usize = 64;

/// The reason why an answer cannot be used.
#[derive(Debug, Error)]
pub enum ProxyAnswerError {
    /// The function failed: `errorMessage` without `statusCode`.
    #[error("the function failed")]
    Function,
    #[error("the answer is not JSON")]
    NotJson(#[source] serde_json::Error),
    #[error("the answer is not a JSON object")]
    NotAnObject,
    #[error("the answer has no `statusCode` from 100 to 599")]
    NoStatusCode,
    #[error("`{0}` is of the wrong type")]
    WrongType(&'static str),
    #[error("`body` is not base64, though `isBase64Encoded` says so")]
    NotBase64(#[source] base64::DecodeError),
    #[error("the `tidegate` key of the answer is not valid")]
    Actions(#[source] InvalidActions),
}

/// Parses an answer. If a key occurs twice, the last one applies. A numeric string is accepted as a status code. A long
/// body without escapes is not copied.
///
/// Differs from AWS: unknown keys are accepted. AWS sends `Internal server error`.
///
/// # Errors
/// Returns `Function` if the function failed, and one of the other errors if the answer is malformed.
pub fn parse(answer: &Bytes) -> Result<ProxyAnswer, ProxyAnswerError> {
    match read(answer) {
        Err(ProxyAnswerError::NotJson(error)) => match json::mend(answer) {
            Some(mended) => read(&mended.into()),
            None => Err(ProxyAnswerError::NotJson(error)),
        },
        read => read,
    }
}

fn read(answer: &Bytes) -> Result<ProxyAnswer, ProxyAnswerError> {
    // Every key accepts any value, so a wrong type can only be that of the whole answer.
    let written: Written<'_> = serde_json::from_slice(answer).map_err(|error| match error.classify() {
        Category::Data => ProxyAnswerError::NotAnObject,
        Category::Io | Category::Syntax | Category::Eof => ProxyAnswerError::NotJson(error),
    })?;
    let Some(status) = written.status_code else {
        return Err(if written.is_failure { ProxyAnswerError::Function } else { ProxyAnswerError::NoStatusCode });
    };
    let status = status_code(&status).ok_or(ProxyAnswerError::NoStatusCode)?;
    let is_base64 = match written.is_base64_encoded {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        _ => return Err(ProxyAnswerError::WrongType("isBase64Encoded")),
    };
    let body = match written.body {
        Body::None => None,
        Body::Text(body) if is_base64 => {
            Some(received_base64::decode(&*body).map_err(ProxyAnswerError::NotBase64)?.into())
        }
        // A short body is copied, since it would keep a long answer in memory.
        Body::Text(Cow::Borrowed(body)) if body.len() >= answer.len() / 2 => Some(answer.slice_ref(body.as_bytes())),
        Body::Text(body) => Some(body.into_owned().into()),
        Body::Other => return Err(ProxyAnswerError::WrongType("body")),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in map_of(&written.headers, "headers")? {
        set(&mut headers, name, [value]);
    }
    for (name, values) in map_of(&written.multi_value_headers, "multiValueHeaders")? {
        let Value::Array(values) = values else { return Err(ProxyAnswerError::WrongType("multiValueHeaders")) };
        set(&mut headers, name, values);
    }
    Ok(ProxyAnswer { status, headers, body, tidegate: written.tidegate, unknown_key: written.unknown_key })
}

/// The raw members of an answer.
#[derive(Default)]
struct Written<'a> {
    status_code: Option<Value>,
    is_base64_encoded: Value,
    body: Body<'a>,
    headers: Value,
    multi_value_headers: Value,
    tidegate: Option<Value>,
    /// True if the answer describes the failure of a function.
    is_failure: bool,
    unknown_key: Option<Box<str>>,
}

#[derive(Default)]
enum Body<'a> {
    #[default]
    None,
    Text(Cow<'a, str>),
    Other,
}

enum Key {
    StatusCode,
    IsBase64Encoded,
    Body,
    Headers,
    MultiValueHeaders,
    Tidegate,
    /// A key of a failed function's answer. Next to a status code it is an unknown key.
    Failure(&'static str),
    Unknown(Box<str>),
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E>(self, name: &str) -> Result<Key, E> {
                Ok(match name {
                    "statusCode" => Key::StatusCode,
                    "isBase64Encoded" => Key::IsBase64Encoded,
                    "body" => Key::Body,
                    "headers" => Key::Headers,
                    "multiValueHeaders" => Key::MultiValueHeaders,
                    "tidegate" => Key::Tidegate,
                    "errorMessage" => Key::Failure("errorMessage"),
                    "errorType" => Key::Failure("errorType"),
                    other => Key::Unknown(printable(other)),
                })
            }
        }
        deserializer.deserialize_identifier(KeyVisitor)
    }
}

/// Returns the name with characters that are safe in a log, and cut if it is long.
fn printable(name: &str) -> Box<str> {
    let is_printable = |character: char| character.is_ascii_graphic() || character == ' ';
    let name = name.chars().take(NAME_MAX_CHARACTERS);
    name.map(|character| if is_printable(character) { character } else { '?' }).collect()
}

impl<'de> Deserialize<'de> for Written<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WrittenVisitor;
        impl<'de> Visitor<'de> for WrittenVisitor {
            type Value = Written<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut written = Written::default();
                while let Some(key) = map.next_key()? {
                    match key {
                        Key::StatusCode => written.status_code = Some(map.next_value()?),
                        Key::IsBase64Encoded => written.is_base64_encoded = map.next_value()?,
                        Key::Body => written.body = map.next_value()?,
                        Key::Headers => written.headers = map.next_value()?,
                        Key::MultiValueHeaders => written.multi_value_headers = map.next_value()?,
                        Key::Tidegate => written.tidegate = Some(map.next_value()?),
                        Key::Failure(name) => {
                            written.is_failure = true;
                            written.unknown_key.get_or_insert_with(|| name.into());
                            map.next_value::<IgnoredAny>()?;
                        }
                        Key::Unknown(name) => {
                            written.unknown_key.get_or_insert(name);
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(written)
            }
        }
        deserializer.deserialize_map(WrittenVisitor)
    }
}

impl<'de> Deserialize<'de> for Body<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BodyVisitor;
        impl<'de> Visitor<'de> for BodyVisitor {
            type Value = Body<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Body::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Body::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Body::None)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Body::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Body::Other)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Body::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Body::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                IgnoredAny.visit_seq(list).map(|_| Body::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                IgnoredAny.visit_map(map).map(|_| Body::Other)
            }
        }
        deserializer.deserialize_any(BodyVisitor)
    }
}

/// Returns the status code, if there is a valid one. Any notation of a whole number is accepted: `200.0` is 200.
fn status_code(value: &Value) -> Option<StatusCode> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.parse::<u16>().ok()?.into(),
        _ => return None,
    };
    if !(100.0..600.0).contains(&number) || number.fract() != 0.0 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole and within 100 and 599")]
    StatusCode::from_u16(number as u16).ok()
}

fn map_of<'a>(
    value: &'a Value,
    key: &'static str,
) -> Result<impl Iterator<Item = (&'a String, &'a Value)>, ProxyAnswerError> {
    match value {
        Value::Null => Ok(None.into_iter().flatten()),
        Value::Object(map) => Ok(Some(map.iter()).into_iter().flatten()),
        _ => Err(ProxyAnswerError::WrongType(key)),
    }
}

/// Replaces the values of one header. A name or value that is not valid in HTTP is left out.
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
            let parsed = parse(&Bytes::copy_from_slice(answer.as_bytes()));
            let text = |body: Option<Bytes>| String::from_utf8(body.unwrap_or_default().into()).unwrap();
            let parsed = parsed.map(|answer| (answer.status.as_u16(), text(answer.body)));
            let expected = expected.map(|(status, body)| (status, body.to_owned()));
            assert_eq!(parsed.map_err(|error| error.to_string()), expected.map_err(str::to_owned), "{answer}");
        };
        let no_status = Err("the answer has no `statusCode` from 100 to 599");
        check(r#"{"statusCode":200}"#, Ok((200, "")));
        check(r#"{"statusCode":200,"body":"hi"}"#, Ok((200, "hi")));
        check(r#"{"statusCode":200,"body":null}"#, Ok((200, "")));
        check(r#"{"statusCode":"403","body":"no"}"#, Ok((403, "no")));
        check(r#"{"statusCode":200.0,"body":"hi"}"#, Ok((200, "hi")));
        check(r#"{"statusCode":2.04e2}"#, Ok((204, "")));
        check("\u{feff}{\"statusCode\":200,\"body\":\"hi\"}", Ok((200, "hi")));
        check(r#"{"statusCode":200,"body":"a\ud83d"}"#, Ok((200, "a\u{fffd}")));
        check(r#"{"statusCode":200,"body":"a\\ud83d \ud83d\ude00"}"#, Ok((200, r"a\ud83d 😀")));
        check(r#"{"\udc00":{"\ud83d":["\ud83d"]},"statusCode":200,"body":"hi"}"#, Ok((200, "hi")));
        check("\u{feff}{\"statusCode\":200.0,\"body\":\"\\ude00\"}", Ok((200, "\u{fffd}")));
        check(r#"{"statusCode":200,"body":"aGk=","isBase64Encoded":true}"#, Ok((200, "hi")));
        check(r#"{"statusCode":200,"extra":[1]}"#, Ok((200, "")));
        check(r#"{"statusCode":200,"errorMessage":"x"}"#, Ok((200, "")));
        check(r#"{"statusCode":200,"body":"a\"b","body":"c\n\u00e4"}"#, Ok((200, "c\nä")));
        check(r#"{"statusCode":200,"body":7}"#, Err("`body` is of the wrong type"));
        check(r#"{"statusCode":200,"body":[{}]}"#, Err("`body` is of the wrong type"));
        check(r#"{"statusCode":200,"body":false}"#, Err("`body` is of the wrong type"));
        check(r#"{"statusCode":200,"body":"x"} x"#, Err("the answer is not JSON"));
        check(r#"{"statusCode":200,"body":"x""#, Err("the answer is not JSON"));
        check("7", Err("the answer is not a JSON object"));
        check(r#"{"statusCode":99}"#, no_status);
        check(r#"{"statusCode":600}"#, no_status);
        check(r#"{"statusCode":599.5}"#, no_status);
        check(r#"{"statusCode":"200.0"}"#, no_status);
        check(r#"{"statusCode":200.5}"#, no_status);
        check(r#"{"statusCode":null}"#, no_status);
        check(r#"{"statusCode":-200}"#, no_status);
        check(r#"{"body":"hi"}"#, no_status);
        check("{}", no_status);
        check("null", Err("the answer is not a JSON object"));
        check(r#""ok""#, Err("the answer is not a JSON object"));
        check("[]", Err("the answer is not a JSON object"));
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
    fn an_empty_body_is_told_from_none() {
        let check = |members: &str, expected: Option<&'static str>| {
            let answer = parse(&format!(r#"{{"statusCode":200{members}}}"#).into()).unwrap();
            assert_eq!(answer.body, expected.map(Bytes::from), "{members}");
        };
        check("", None);
        check(r#","body":null"#, None);
        check(r#","body":null,"isBase64Encoded":true"#, None);
        check(r#","body":"x","body":null"#, None);
        check(r#","body":"""#, Some(""));
        check(r#","body":"","isBase64Encoded":true"#, Some(""));
        check(r#","body":"x""#, Some("x"));
    }

    #[test]
    fn a_long_body_without_escapes_is_not_copied() {
        let answer = Bytes::from(format!(r#"{{"statusCode":200,"body":"{}"}}"#, "x".repeat(1000)));
        let body = parse(&answer).unwrap().body.unwrap();
        assert!(answer.as_ptr_range().contains(&body.as_ptr()));
    }

    #[test]
    fn an_unknown_key_is_named_as_it_may_stand_in_a_log() {
        let check = |answer: &str, expected: Option<&str>| {
            let answer = parse(&Bytes::copy_from_slice(answer.as_bytes())).unwrap();
            assert_eq!(answer.unknown_key.as_deref(), expected);
        };
        check(r#"{"statusCode":200,"isBase64Encoded":false,"body":"","headers":{"a":"b"},"tidegate":{}}"#, None);
        check(r#"{"multiValueHeaders":{},"statusCode":200}"#, None);
        check(r#"{"statusCode":200,"cookies":[],"extra":1}"#, Some("cookies"));
        check(r#"{"statuscode":1,"statusCode":200}"#, Some("statuscode"));
        check(r#"{"statusCode":200,"errorMessage":"x"}"#, Some("errorMessage"));
        check("{\"a\\nb\\u001b\\u00e4 c\":1,\"statusCode\":200}", Some("a?b?? c"));
        check(&format!(r#"{{"{}":1,"statusCode":200}}"#, "x".repeat(1000)), Some(&"x".repeat(NAME_MAX_CHARACTERS)));
    }

    #[test]
    fn both_header_maps_are_merged_and_names_have_no_case() {
        let answer = parse(&Bytes::from_static(
            br#"{"statusCode":200,"headers":{"sec-websocket-PROTOCOL":"v1","X-A":"1","bad name":"x","X-N":7},
                 "multiValueHeaders":{"x-a":["2","3"]}}"#,
        ))
        .unwrap();
        assert_eq!(answer.headers["sec-websocket-protocol"], "v1");
        assert_eq!(answer.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["2", "3"]);
        assert_eq!(answer.headers["x-n"], "7");
        assert_eq!(answer.headers.len(), 4);
    }
}
