//! Tolerant parsing of JSON that other programs write: answers of backends and authorizers, documents of token issuers,
//! messages of clients and bodies of pushes.
//!
//! Two things that JSON forbids or leaves open occur in such texts, and both are accepted. A byte order mark at the
//! beginning is ignored. An escape that is half of a surrogate pair (`"\ud83d"` alone, from a text that was cut inside
//! a character) is read as U+FFFD, the replacement character. A text is first parsed as it is, so correct JSON costs
//! nothing more.

use std::iter;

use serde::de::{DeserializeOwned, IgnoredAny};

const BYTE_ORDER_MARK: &str = "\u{feff}";

/// The digits of the escape of U+FFFD, the replacement character.
const REPLACEMENT: &[u8; 4] = b"fffd";

/// Length of an escape such as `\u0041`, in bytes.
const ESCAPE_BYTES: usize = 6;

/// Parses a value that borrows nothing from `text`.
///
/// # Errors
/// Returns an error if `text` is not JSON or does not fit `T`, even after [`mend`].
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(text).or_else(|error| from_mended(text, error))
}

/// Parses a value as [`from_slice`] does, from a `str`.
///
/// # Errors
/// Returns an error if `text` is not JSON or does not fit `T`, even after [`mend`].
pub fn from_str<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    serde_json::from_str(text).or_else(|error| from_mended(text.as_bytes(), error))
}

fn from_mended<T: DeserializeOwned>(text: &[u8], error: serde_json::Error) -> serde_json::Result<T> {
    match mend(text) {
        Some(mended) => serde_json::from_slice(&mended),
        None => Err(error),
    }
}

/// Returns true if `text` is JSON.
pub fn is_json(text: &str) -> bool {
    // serde_json does not check surrogates in a string that it skips.
    serde_json::from_str::<IgnoredAny>(without_mark(text)).is_ok()
}

/// Returns `text` without a byte order mark at its beginning.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// Returns a copy of `text` without a byte order mark and with U+FFFD in place of each half of a surrogate pair.
/// Returns `None` if `text` has neither.
pub fn mend(text: &[u8]) -> Option<Vec<u8>> {
    let json = text.strip_prefix(BYTE_ORDER_MARK.as_bytes()).unwrap_or(text);
    let mut halves = halves(json).peekable();
    if json.len() == text.len() && halves.peek().is_none() {
        return None;
    }
    let mut mended = json.to_vec();
    for escape in halves {
        mended[escape + 2..escape + ESCAPE_BYTES].copy_from_slice(REPLACEMENT);
    }
    Some(mended)
}

/// Returns the offset of each escape that is half of a surrogate pair. In JSON a backslash occurs only inside strings.
fn halves(json: &[u8]) -> impl Iterator<Item = usize> {
    let mut offset = 0;
    iter::from_fn(move || {
        loop {
            offset += json.get(offset..)?.iter().position(|byte| *byte == b'\\')?;
            let escape = offset;
            match (unit(json, escape), unit(json, escape + ESCAPE_BYTES)) {
                (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => offset += 2 * ESCAPE_BYTES,
                (Some(0xD800..=0xDFFF), _) => {
                    offset += ESCAPE_BYTES;
                    return Some(escape);
                }
                (Some(_), _) => offset += ESCAPE_BYTES,
                (None, _) => offset += 2,
            }
        }
    })
}

/// Returns the UTF-16 code unit of the escape at `offset`, if there is an escape with four digits.
pub fn unit(text: &[u8], offset: usize) -> Option<u16> {
    let digits = text.get(offset..offset + ESCAPE_BYTES)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | u16::try_from(char::from(*digit).to_digit(16)?).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_mark_is_taken_off_and_halves_are_replaced() {
        let check = |text: &str, expected: Option<&str>| {
            let mended = mend(text.as_bytes()).map(|mended| String::from_utf8(mended).expect("text"));
            assert_eq!(mended.as_deref(), expected, "{text}");
        };
        check("", None);
        check(r#"{"a":"\ud83d\ude00"}"#, None);
        check(r#""\uD83D\uDE00 \u0041 \n""#, None);
        // These are not escapes of characters: the backslash itself is escaped.
        check(r#""\\ud83d \\\\ud83d""#, None);
        check("\u{feff}{}", Some("{}"));
        check("{}\u{feff}", None);
        check(r#"{"a":"\ud83d"}"#, Some(r#"{"a":"\ufffd"}"#));
        check(r#"["\uDE00","\ude00\ud83d"]"#, Some(r#"["\ufffd","\ufffd\ufffd"]"#));
        check(r#""\ud83d\ud83d\ude00""#, Some(r#""\ufffd\ud83d\ude00""#));
        check(r#""\ud83d\n\ude00""#, Some(r#""\ufffd\n\ufffd""#));
        check(r#""\\\ud83d""#, Some(r#""\\\ufffd""#));
        check("\u{feff}\"\\ud83d\"", Some(r#""\ufffd""#));
        check(r#""\ud83"#, None);
        check(r#""\u+d83""#, None);
    }

    #[test]
    fn text_of_all_kinds_is_read() {
        let check = |text: &str, expected: Option<Value>| {
            assert_eq!(from_slice::<Value>(text.as_bytes()).ok(), expected, "{text}");
            assert_eq!(from_str::<Value>(text).ok(), expected, "{text}");
            assert_eq!(is_json(text), expected.is_some(), "{text}");
        };
        check(r#"{"a":[1]}"#, Some(serde_json::json!({ "a": [1] })));
        check("\u{feff} {\"\\udc00\":\"a\\ud800b\"}", Some(serde_json::json!({ "\u{fffd}": "a\u{fffd}b" })));
        check(r#""\ud83d\ude00""#, Some("😀".into()));
        check("\u{feff}\u{feff}1", None);
        check(r#"{"a":"\ud800""#, None);
        check(r#""\ud80""#, None);
        check("", None);
    }

    proptest! {
        #[test]
        fn every_sequence_of_escapes_is_decoded_as_utf_16_is(units in prop::collection::vec(
            prop_oneof![any::<u16>(), 0xD800..=0xDFFF_u16, Just(0x41)], 0..8
        )) {
            let text: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let read = from_slice::<String>(format!("\"{text}\"").as_bytes()).expect("JSON");
            prop_assert_eq!(read, String::from_utf16_lossy(&units));
        }

        #[test]
        fn mending_what_is_no_json_never_panics(text in r#"(\\|u|d8|dc|00|"|\{|x|\u{feff}){0,12}"#) {
            let _ = from_slice::<Value>(text.as_bytes());
        }
    }
}
