use std::fmt::Write as _;

use thiserror::Error;

use super::variables::{self, Value};
use crate::EventRecord;
use tidegate_core::context_variable::{EVENT_VARIABLES, LOG_VARIABLES, is_log_variable};

const PREFIX: &str = "$context.";

/// Longest format, in bytes.
///
/// Source: AWS, "Quotas for configuring and running a WebSocket API in API Gateway".
const FORMAT_MAX_BYTES: usize = 3 * 1024;

/// Longest value that is written, in bytes; values from clients may be longer.
const VALUE_MAX_BYTES: usize = 1024;

/// Bytes that are reserved for each value, about the length of most values.
const VALUE_BYTES: usize = 24;

/// Text in place of a variable without a value.
const NO_VALUE: &str = "-";

/// The reason why a format cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidFormat {
    #[error("the format has {0} bytes; allowed: 1 to {FORMAT_MAX_BYTES}")]
    Length(usize),
    #[error("the format has more than one line")]
    Lines,
    #[error("there is no variable `$context.{name}`{}", hint(nearest))]
    UnknownVariable { name: String, nearest: Option<&'static str> },
}

fn hint(nearest: &Option<&'static str>) -> String {
    nearest.map(|nearest| format!(" (did you mean `$context.{nearest}`?)")).unwrap_or_default()
}

/// A format, split into its parts.
#[derive(Debug)]
pub(super) struct LineFormat {
    parts: Vec<Part>,
    escape: Escape,
    /// Approximate length of a line.
    line_bytes: usize,
}

#[derive(Debug, PartialEq)]
enum Part {
    Literal(Box<str>),
    Variable(Box<str>),
}

/// The escaping of values, which keeps a value from being read as more than a value. The first character of the format
/// decides.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Escape {
    /// `{`: quotes, backslashes and control characters as in JSON.
    Json,
    /// `<`: `&`, `<`, `>` and quotes as in XML.
    Xml,
    /// Everything else: as in JSON, which also keeps a quoted field of CLF whole.
    Text,
}

impl LineFormat {
    pub(super) fn parse(format: &str) -> Result<Self, InvalidFormat> {
        if format.is_empty() || format.len() > FORMAT_MAX_BYTES {
            return Err(InvalidFormat::Length(format.len()));
        }
        if format.contains(['\n', '\r']) {
            return Err(InvalidFormat::Lines);
        }
        let mut parts = Vec::new();
        let mut rest = format;
        while let Some(start) = rest.find(PREFIX) {
            let after = &rest[start + PREFIX.len()..];
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
            let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
            // A dot that ends a sentence is not part of the name.
            let name = after[..end].trim_end_matches('.');
            if !is_log_variable(name) {
                return Err(InvalidFormat::UnknownVariable { name: name.to_owned(), nearest: nearest(name) });
            }
            if start > 0 {
                parts.push(Part::Literal(rest[..start].into()));
            }
            parts.push(Part::Variable(name.into()));
            rest = &after[name.len()..];
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.into()));
        }
        let literals = parts.iter().map(|part| if let Part::Literal(text) = part { text.len() } else { VALUE_BYTES });
        let line_bytes = literals.sum::<usize>() + 1;
        let escape = match format.trim_start().chars().next() {
            Some('{') => Escape::Json,
            Some('<') => Escape::Xml,
            _ => Escape::Text,
        };
        Ok(LineFormat { parts, escape, line_bytes })
    }

    /// Returns the line of an event, with its line break.
    pub(super) fn line(&self, record: &EventRecord<'_>) -> String {
        let mut line = String::with_capacity(self.line_bytes);
        for part in &self.parts {
            match part {
                Part::Literal(text) => line.push_str(text),
                Part::Variable(name) => match variables::value(record, name) {
                    Some(Value::Text(text)) if !text.is_empty() => self.escape.push(&mut line, shortened(&text)),
                    Some(Value::Quoted(text)) => line.push_str(&text),
                    Some(Value::Number(number)) => _ = write!(line, "{number}"),
                    Some(Value::Id(id)) => _ = write!(line, "{id}"),
                    Some(Value::Text(_)) | None => line.push_str(NO_VALUE),
                },
            }
        }
        line.push('\n');
        line
    }
}

fn nearest(name: &str) -> Option<&'static str> {
    let likeness = |known: &&str| strsim::jaro_winkler(name, known);
    let known = EVENT_VARIABLES.iter().chain(&LOG_VARIABLES).copied();
    let nearest = known.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&nearest) > 0.8).then_some(nearest)
}

fn shortened(value: &str) -> &str {
    &value[..value.floor_char_boundary(VALUE_MAX_BYTES)]
}

impl Escape {
    fn push(self, line: &mut String, value: &str) {
        // Most values are plain, and are copied unchanged.
        if value
            .bytes()
            .all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\' | b'&' | b'<' | b'>' | b'\''))
        {
            return line.push_str(value);
        }
        for c in value.chars() {
            match (self, c) {
                (Escape::Json | Escape::Text, '"' | '\\') => {
                    line.push('\\');
                    line.push(c);
                }
                (Escape::Xml, '&' | '<' | '>' | '"' | '\'') => _ = write!(line, "&#{};", u32::from(c)),
                (Escape::Json | Escape::Text, c) if c.is_control() => _ = write!(line, "\\u{:04x}", u32::from(c)),
                (Escape::Xml, c) if c.is_control() => line.push('\u{fffd}'),
                (_, c) => line.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_taken_apart_and_unknown_variables_named() {
        let parts = |format: &str| LineFormat::parse(format).map(|format| format.parts);
        let literal = |text: &str| Part::Literal(text.into());
        let variable = |name: &str| Part::Variable(name.into());
        assert_eq!(
            parts("$context.identity.sourceIp [$context.requestTime] done: $context.status."),
            Ok(vec![
                variable("identity.sourceIp"),
                literal(" ["),
                variable("requestTime"),
                literal("] done: "),
                variable("status"),
                literal("."),
            ])
        );
        assert_eq!(parts("$context.authorizer.tenant"), Ok(vec![variable("authorizer.tenant")]));
        assert_eq!(parts("no variable, $5"), Ok(vec![literal("no variable, $5")]));
        let unknown = |name: &str, nearest| InvalidFormat::UnknownVariable { name: name.to_owned(), nearest };
        assert_eq!(parts("$context.routekey"), Err(unknown("routekey", Some("routeKey"))));
        assert_eq!(parts("$context."), Err(unknown("", None)));
        assert_eq!(parts("$context.input.body"), Err(unknown("input.body", None)));
        assert_eq!(parts("a\nb"), Err(InvalidFormat::Lines));
        assert_eq!(parts(""), Err(InvalidFormat::Length(0)));
        assert_eq!(
            unknown("routekey", Some("routeKey")).to_string(),
            "there is no variable `$context.routekey` (did you mean `$context.routeKey`?)"
        );
    }

    #[test]
    fn a_value_cannot_end_its_field_or_its_line() {
        let check = |escape: Escape, expected: &str| {
            let mut line = String::new();
            escape.push(&mut line, "a\"b\\c\nd<&é");
            assert_eq!(line, expected);
        };
        check(Escape::Json, "a\\\"b\\\\c\\u000ad<&é");
        check(Escape::Text, "a\\\"b\\\\c\\u000ad<&é");
        check(Escape::Xml, "a&#34;b\\c\u{fffd}d&#60;&#38;é");
    }
}
