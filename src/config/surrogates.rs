//! The only escape that JSON has and YAML has not: a surrogate pair, which is a character beyond the basic plane
//! written as two halves, `\ud83d\ude00`.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::problem::Problem;
use tidegate_core::json;

/// Length of an escape such as `\u0041`, in bytes.
const ESCAPE_BYTES: usize = 6;
/// Escape that replaces a half while quotes are looked for.
const MASK: &str = r"\u0041";

/// Rewrites each surrogate pair in double-quoted texts as YAML writes it, `\U0001f600`. Other texts have no escapes,
/// and stay unchanged. Line numbers do not change.
///
/// A half without the other is reported as a problem, and becomes `\ufffd`.
pub(super) fn join(text: &str) -> (Cow<'_, str>, Vec<Problem>) {
    let Some(masked) = mask(text) else { return (Cow::Borrowed(text), Vec::new()) };
    let mut joined = String::with_capacity(text.len());
    let (mut copied, mut problems) = (0, Vec::new());
    for (start, line) in quotes(&masked) {
        let mut offset = start + 1;
        while let Some(byte) = text.as_bytes().get(offset).filter(|byte| **byte != b'"') {
            let unit = |offset| json::unit(text.as_bytes(), offset).filter(|unit| is_surrogate(*unit));
            if *byte != b'\\' {
                offset += 1;
                continue;
            }
            let Some(first) = unit(offset) else {
                // The escaped character is not a quote that ends the text.
                offset += 2;
                continue;
            };
            joined.push_str(&text[copied..offset]);
            let second = unit(offset + ESCAPE_BYTES);
            match char::decode_utf16([first].into_iter().chain(second)).next() {
                Some(Ok(character)) => {
                    joined.push_str(&format!("\\U{:08x}", u32::from(character)));
                    offset += 2 * ESCAPE_BYTES;
                }
                _ => {
                    let line = line + text[start..offset].matches('\n').count();
                    let half = &text[offset..offset + ESCAPE_BYTES];
                    let message = format!(
                        "`{half}` is half of a surrogate pair, not a character; allowed: both halves, such as \
                         `\\ud83d\\ude00`, or the character itself"
                    );
                    problems.push(Problem::of_file(line, message));
                    joined.push_str(r"\ufffd");
                    offset += ESCAPE_BYTES;
                }
            }
            copied = offset;
        }
    }
    joined.push_str(&text[copied..]);
    (Cow::Owned(joined), problems)
}

fn is_surrogate(unit: u16) -> bool {
    (0xD800..=0xDFFF).contains(&unit)
}

/// Returns the text with an escaped letter in place of each half, so that a YAML parser accepts it and positions stay
/// the same. Returns `None` if there is no half.
fn mask(text: &str) -> Option<String> {
    let halves: Vec<usize> = text
        .match_indices(r"\u")
        .map(|(offset, _)| offset)
        .filter(|offset| json::unit(text.as_bytes(), *offset).is_some_and(is_surrogate))
        .collect();
    if halves.is_empty() {
        return None;
    }
    let mut masked = text.to_owned();
    for offset in halves {
        masked.replace_range(offset..offset + ESCAPE_BYTES, MASK);
    }
    Some(masked)
}

/// Returns the byte offset and the line where each double-quoted text begins, up to the first YAML error.
fn quotes(text: &str) -> Vec<(usize, usize)> {
    let mut quotes = Vec::new();
    let mut bytes = text.char_indices().map(|(byte, _)| byte).enumerate();
    for (event, span) in Parser::new_from_str(text).map_while(Result::ok) {
        if !matches!(event, Event::Scalar(_, ScalarStyle::DoubleQuoted, ..)) {
            continue;
        }
        let Some((_, start)) = bytes.find(|(index, _)| *index == span.start.index()) else { return quotes };
        // An anchor or a tag may come first, and may contain a quote.
        let before = |quote: usize| text[start..start + quote].chars().next_back();
        let mut inside = text[start..].match_indices('"').map(|(quote, _)| quote);
        if let Some(quote) = inside.find(|quote| before(*quote).is_none_or(char::is_whitespace)) {
            let line = span.start.line() + text[start..start + quote].matches('\n').count();
            quotes.push((start + quote, line));
        }
    }
    quotes
}
