//! Conversion of selected JSON values to text.
//!
//! A string becomes its content, without quotes and escapes. An array becomes `[item1, item2]` with its items converted
//! by the same rules, except that an array inside it becomes JSON text. A number keeps its spelling. An object becomes
//! its JSON text. JSON text loses the blanks between its tokens and nothing else. No function here is recursive.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use tidegate_core::json;

/// Converts `value`, one JSON value without blanks around it, to text. Returns `None` if `value` is not JSON.
pub(super) fn of_value(value: &str) -> Option<Cow<'_, str>> {
    if value.starts_with('[') { of_array(value).map(Cow::Owned) } else { of_item(value) }
}

fn of_item(item: &str) -> Option<Cow<'_, str>> {
    if item.starts_with('"') { of_string(item) } else { Some(without_blanks(item)) }
}

/// Decodes a JSON string with its quotes. Half of a surrogate pair becomes U+FFFD.
pub(super) fn of_string(string: &str) -> Option<Cow<'_, str>> {
    if string.contains('\\') {
        return json::from_str(string).ok().map(Cow::Owned);
    }
    string.strip_prefix('"')?.strip_suffix('"').map(Cow::Borrowed)
}

fn of_array(array: &str) -> Option<String> {
    serde_json::Deserializer::from_str(array).deserialize_seq(ArrayText).ok()
}

struct ArrayText;

impl<'m> Visitor<'m> for ArrayText {
    type Value = String;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'m>>(self, mut items: A) -> Result<String, A::Error> {
        let mut text = String::from("[");
        let mut separator = "";
        while let Some(item) = items.next_element::<&'m RawValue>()? {
            text.push_str(std::mem::replace(&mut separator, ", "));
            text.push_str(&of_item(item.get()).ok_or_else(|| A::Error::custom("not text"))?);
        }
        text.push(']');
        Ok(text)
    }
}

/// Removes the blanks between the tokens of JSON text.
fn without_blanks(json: &str) -> Cow<'_, str> {
    let mut kept = String::new();
    let mut copied = 0;
    let mut in_string = false;
    let mut escaped = false;
    for (offset, byte) in json.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b' ' | b'\t' | b'\n' | b'\r' if !in_string => {
                kept.push_str(&json[copied..offset]);
                copied = offset + 1;
            }
            _ => {}
        }
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    kept.push_str(&json[copied..]);
    Cow::Owned(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expected: &str) {
        assert_eq!(of_value(value).as_deref(), Some(expected));
    }

    #[test]
    fn every_kind_of_value_has_a_text() {
        check(r#""""#, "");
        check(r#""a \"b\" \\ \u00e9 \ud83d\ude00""#, "a \"b\" \\ é 😀");
        check("-0", "-0");
        check("1.50e+3", "1.50e+3");
        check("1e999", "1e999");
        check("true", "true");
        check("null", "null");
        check("[]", "[]");
        check("[ ]", "[]");
        check(r#"[ 1 ,"a b", null,"" ]"#, "[1, a b, null, ]");
        check(r#"["", "x"]"#, "[, x]");
        check(r#"[[1, "a b"], {"k": [ 2 ]}]"#, r#"[[1,"a b"], {"k":[2]}]"#);
        check("{}", "{}");
        check("{ \"a\\\" \" :\t\"b \\\\\" ,\r\n\"c\": [ ] }", r#"{"a\" ":"b \\","c":[]}"#);
        check(r#"{"kept": "\ud800"}"#, r#"{"kept":"\ud800"}"#);
    }

    #[test]
    fn half_of_a_surrogate_pair_is_a_replacement_character() {
        check(r#""a\ud800b""#, "a\u{fffd}b");
        check(r#"["a", "\udc00"]"#, "[a, \u{fffd}]");
    }

    #[test]
    fn what_needs_no_change_is_borrowed() {
        for value in [r#""chat""#, "12", r#"{"a":"b c"}"#] {
            assert!(matches!(of_value(value), Some(Cow::Borrowed(_))), "{value}");
        }
    }
}
