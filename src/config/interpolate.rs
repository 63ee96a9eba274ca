use serde_json::Value;

use super::problem::Problem;
use super::source::{Source, child};

const OPENING: &str = "${env:";

/// Fills `${env:NAME}` and `${env:NAME:-default}` into every string value; keys stay as they are.
///
/// As in a shell, the default stands in for a variable that is not set or empty. Anything else that begins with `$`
/// stays, `${stageVariables.name}` and `$$` too, and what a variable holds is not searched again.
pub(super) fn interpolate(source: &mut Source, environment: &dyn Fn(&str) -> Option<String>) -> Vec<Problem> {
    let mut value = std::mem::take(&mut source.value);
    let mut problems = Vec::new();
    visit_strings(&mut value, "", &mut |pointer, text| {
        let Some(filled) = fill(text, environment) else { return };
        source.mark_interpolated(pointer);
        source.note_environment(filled.variables);
        if filled.mistakes.is_empty() {
            *text = filled.text;
        } else {
            problems.extend(filled.mistakes.into_iter().map(|mistake| source.problem(pointer, mistake)));
            source.reject(pointer);
        }
    });
    source.value = value;
    problems
}

/// Shows `visit` every string below `value` with its JSON pointer.
fn visit_strings(value: &mut Value, pointer: &str, visit: &mut dyn FnMut(&str, &mut String)) {
    match value {
        Value::String(text) => visit(pointer, text),
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                visit_strings(item, &child(pointer, &index.to_string()), visit);
            }
        }
        Value::Object(entries) => {
            for (key, entry) in entries {
                visit_strings(entry, &child(pointer, key), visit);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[derive(Debug, Default, PartialEq)]
struct Filled {
    text: String,
    /// Names and values that were used.
    variables: Vec<(String, String)>,
    mistakes: Vec<String>,
}

/// `None` if `text` has nothing to fill in.
fn fill(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Option<Filled> {
    let (before, mut rest) = text.split_once(OPENING)?;
    let mut filled = Filled { text: before.to_owned(), ..Filled::default() };
    loop {
        let malformed = "malformed `${env:`; allowed: `${env:NAME}` or `${env:NAME:-default}`, NAME of letters, \
                         digits and `_`, the default without `${` and `}`";
        let Some((inside, after)) = rest.split_once('}') else {
            filled.mistakes.push(malformed.to_owned());
            return Some(filled);
        };
        let (name, default) = inside.split_once(":-").map_or((inside, None), |(name, default)| (name, Some(default)));
        if !is_name(name) || default.is_some_and(|default| default.contains("${")) {
            filled.mistakes.push(malformed.to_owned());
        } else {
            match (environment(name), default) {
                (Some(value), Some(default)) if value.is_empty() => filled.text.push_str(default),
                (Some(value), _) => {
                    filled.text.push_str(&value);
                    filled.variables.push((name.to_owned(), value));
                }
                (None, Some(default)) => filled.text.push_str(default),
                (None, None) => filled.mistakes.push(format!(
                    "environment variable `{name}` is not set; set it or write `${{env:{name}:-default}}`"
                )),
            }
        }
        let Some((between, next)) = after.split_once(OPENING) else {
            filled.text.push_str(after);
            return Some(filled);
        };
        filled.text.push_str(between);
        rest = next;
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "PORT" => Some("8080".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${env:PORT}".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_and_defaults_are_filled_in() {
        let check = |text: &str, expected: &str| {
            let filled = fill(text, &environment).expect("something to fill in");
            assert_eq!((filled.text.as_str(), filled.mistakes.as_slice()), (expected, [].as_slice()), "{text}");
        };
        check("${env:PORT}", "8080");
        check("a${env:PORT}b${env:PORT}c", "a8080b8080c");
        check("${env:PORT:-1}", "8080");
        check("${env:MISSING:-1}", "1");
        check("${env:MISSING:-}", "");
        check("${env:MISSING:-http://a:1/}", "http://a:1/");
        check("${env:EMPTY}", "");
        check("${env:EMPTY:-1}", "1");
        check("${env:NESTED}", "${env:PORT}");
        check("$${env:PORT}", "$8080");
        check("${env:PORT}/${stageVariables.path}", "8080/${stageVariables.path}");
    }

    #[test]
    fn other_uses_of_the_dollar_sign_stay() {
        let check = |text: &str| assert_eq!(fill(text, &environment), None, "{text}");
        check("");
        check("$default");
        check("$$");
        check("${stageVariables.path}");
        check("${ENV:PORT}");
        check("${env}");
    }

    #[test]
    fn each_mistake_of_a_text_is_named() {
        let check = |text: &str, expected: &[&str]| {
            let filled = fill(text, &environment).expect("something to fill in");
            assert_eq!(filled.mistakes.len(), expected.len(), "{text}: {:?}", filled.mistakes);
            for (mistake, expected) in filled.mistakes.iter().zip(expected) {
                assert!(mistake.starts_with(expected), "{text}: {mistake}");
            }
        };
        check(
            "${env:MISSING}",
            &["environment variable `MISSING` is not set; set it or write `${env:MISSING:-default}`"],
        );
        check("${env:A}${env:B}", &["environment variable `A`", "environment variable `B`"]);
        check("${env:PORT", &["malformed `${env:`"]);
        check("${env:}", &["malformed"]);
        check("${env:1A}", &["malformed"]);
        check("${env:A-b}", &["malformed"]);
        check("${env: PORT}", &["malformed"]);
        check("${env:A:-${env:PORT}}", &["malformed"]);
    }
}
