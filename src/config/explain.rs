use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{JsonType, JsonTypeSet, ValidationError};
use serde_json::{Map, Value};

use super::problem::Problem;
use super::schema::owner;
use super::secrets::is_secret;
use super::source::{Source, child};

/// Most allowed keys that a message lists.
const KEYS_SHOWN_MAX: usize = 20;

/// Least likeness, from 0 to 1, with which a name is suggested as the right spelling.
const LIKENESS_MIN: f64 = 0.6;

/// A violation of the schema.
#[derive(Debug, PartialEq)]
pub(super) struct Mistake {
    /// Place in the file, as a JSON pointer.
    pub pointer: String,
    /// The violated keyword in the schema, as a JSON pointer.
    schema_path: String,
    pub kind: Kind,
}

/// The kind of a mistake. Each has its own wording.
#[derive(Debug, PartialEq)]
pub(super) enum Kind {
    Type(JsonTypeSet),
    Choice(Vec<Value>),
    UnknownKey(String),
    MissingKey(String),
    Range,
    Length,
    Pattern(String),
    Other(String),
}

/// Returns the mistakes behind `errors`. Alternatives are resolved to the one that was meant.
pub(super) fn mistakes<'e, 'v: 'e>(errors: impl IntoIterator<Item = &'e ValidationError<'v>>) -> Vec<Mistake> {
    let mut mistakes: Vec<Mistake> = errors.into_iter().flat_map(of_error).collect();
    // A number in place of one of several texts breaks two rules. The choice is more helpful than the type.
    let choices: Vec<String> =
        mistakes.iter().filter(|m| matches!(m.kind, Kind::Choice(_))).map(|m| m.pointer.clone()).collect();
    mistakes.retain(|mistake| !(matches!(mistake.kind, Kind::Type(_)) && choices.contains(&mistake.pointer)));
    mistakes
}

fn of_error(error: &ValidationError<'_>) -> Vec<Mistake> {
    let kind = match error.kind() {
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            return of_alternatives(error, context);
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            return unexpected.iter().map(|key| mistake(error, Kind::UnknownKey(key.clone()))).collect();
        }
        ValidationErrorKind::Required { property } => {
            Kind::MissingKey(property.as_str().map_or_else(|| property.to_string(), str::to_owned))
        }
        ValidationErrorKind::Type { kind } => Kind::Type(types(kind)),
        ValidationErrorKind::Constant { expected_value } => Kind::Choice(vec![expected_value.as_ref().clone()]),
        ValidationErrorKind::Enum { options } => Kind::Choice(options.as_array().cloned().unwrap_or_default()),
        ValidationErrorKind::Minimum { .. } | ValidationErrorKind::Maximum { .. } => Kind::Range,
        ValidationErrorKind::MinLength { .. } | ValidationErrorKind::MaxLength { .. } => Kind::Length,
        ValidationErrorKind::Pattern { pattern } => Kind::Pattern(pattern.clone()),
        other => Kind::Other(other.keyword().to_owned()),
    };
    vec![mistake(error, kind)]
}

fn mistake(error: &ValidationError<'_>, kind: Kind) -> Mistake {
    Mistake {
        pointer: error.instance_path().as_str().to_owned(),
        schema_path: error.schema_path().as_str().to_owned(),
        kind,
    }
}

/// Returns the mistakes of a value that fits none of the alternatives. The alternatives of an optional setting are its
/// type and null, those of an enum are its constants.
fn of_alternatives(error: &ValidationError<'_>, alternatives: &[Vec<ValidationError<'static>>]) -> Vec<Mistake> {
    let here = error.instance_path().as_str();
    let alternatives: Vec<Vec<Mistake>> = alternatives.iter().map(mistakes).collect();
    let choice = |found: &Vec<Mistake>| {
        found.iter().find_map(|mistake| match &mistake.kind {
            Kind::Choice(options) if mistake.pointer == here => Some(options.clone()),
            _ => None,
        })
    };
    if let Some(options) = alternatives.iter().map(choice).collect::<Option<Vec<_>>>() {
        return vec![mistake(error, Kind::Choice(options.concat()))];
    }
    let mut wanted = JsonTypeSet::empty();
    let mut meant: Option<Vec<Mistake>> = None;
    for found in alternatives {
        let mut wrong_type = false;
        for mistake in found.iter().filter(|mistake| mistake.pointer == here) {
            if let Kind::Type(types) = mistake.kind {
                wrong_type = true;
                wanted = types.iter().fold(wanted, JsonTypeSet::insert);
            }
        }
        // The first alternative of the right type was meant.
        if !wrong_type && meant.is_none() {
            meant = Some(found);
        }
    }
    meant.unwrap_or_else(|| vec![mistake(error, Kind::Type(wanted))])
}

fn types(kind: &TypeKind) -> JsonTypeSet {
    match kind {
        TypeKind::Single(single) => JsonTypeSet::from(*single),
        TypeKind::Multiple(several) => *several,
    }
}

/// Returns the problem that describes `mistake` to a user.
pub(super) fn explain(mistake: &Mistake, source: &Source, schema: &Value) -> Problem {
    let pointer = mistake.pointer.as_str();
    let value = source.value.pointer(pointer).unwrap_or(&Value::Null);
    let interpolated = source.is_interpolated(pointer);
    let owner = owner(schema, &mistake.schema_path);
    let message = match &mistake.kind {
        Kind::UnknownKey(key) => return source.problem(&child(pointer, key), unknown_key(key, owner)),
        Kind::MissingKey(key) => format!("required key `{key}` is missing"),
        Kind::Type(wanted) => wrong_type(value, interpolated || is_secret(pointer), *wanted),
        Kind::Choice(options) => wrong_choice(value, interpolated, options),
        Kind::Range => {
            let subject = if interpolated { "the number".to_owned() } else { format!("`{value}`") };
            format!("{subject} is out of range; allowed: {}", bounds(owner, "minimum", "maximum"))
        }
        Kind::Length => {
            let length = value.as_str().map_or(0, |text| text.chars().count());
            let characters = if length == 1 { "character" } else { "characters" };
            let allowed = bounds(owner, "minLength", "maxLength");
            format!("the text has {length} {characters}; allowed: {allowed}")
        }
        Kind::Pattern(pattern) => format!("the text is not valid; allowed: text that matches `{pattern}`"),
        Kind::Other(keyword) => format!("the value does not meet `{keyword}` of the schema"),
    };
    source.problem(pointer, message)
}

fn unknown_key(key: &str, owner: Option<&Map<String, Value>>) -> String {
    let properties = owner.and_then(|owner| owner.get("properties")).and_then(Value::as_object);
    let keys: Vec<&str> = properties.into_iter().flat_map(Map::keys).map(String::as_str).collect();
    let mut message = "unknown key".to_owned();
    if let Some(nearest) = nearest(key, &keys) {
        message.push_str(&format!(" (did you mean `{nearest}`?)"));
    }
    if !keys.is_empty() && keys.len() <= KEYS_SHOWN_MAX {
        message.push_str(&format!("; allowed: {}", quoted(&keys)));
    }
    message
}

fn wrong_type(value: &Value, hidden: bool, wanted: JsonTypeSet) -> String {
    let found = match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_) if hidden => "a boolean".to_owned(),
        Value::Bool(boolean) => format!("`{boolean}`"),
        Value::Number(_) if hidden => "a number".to_owned(),
        Value::Number(number) => format!("the number `{number}`"),
        Value::String(_) if hidden => "text (after filling in its placeholders)".to_owned(),
        Value::String(_) => "text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    };
    let names: Vec<&str> = wanted.iter().filter(|wanted| *wanted != JsonType::Null).map(type_name).collect();
    let quotes =
        if names == ["text"] && (value.is_number() || value.is_boolean()) { ", so put it in quotes" } else { "" };
    format!("found {found}; allowed: {}{quotes}", names.join(" or "))
}

fn type_name(wanted: JsonType) -> &'static str {
    match wanted {
        JsonType::Null => "nothing",
        JsonType::Boolean => "`true` or `false`",
        JsonType::Integer => "an integer",
        JsonType::Number => "a number",
        JsonType::String => "text",
        JsonType::Array => "a list",
        JsonType::Object => "a mapping",
    }
}

fn wrong_choice(value: &Value, interpolated: bool, options: &[Value]) -> String {
    let options: Vec<&str> = options.iter().filter_map(Value::as_str).collect();
    let subject = match value {
        Value::String(text) if !interpolated => format!("`{text}`"),
        Value::Bool(_) | Value::Number(_) if !interpolated => format!("`{value}`"),
        _ => "the value".to_owned(),
    };
    let hint = match value {
        Value::String(text) if !interpolated => nearest(text, &options),
        _ => None,
    };
    let hint = hint.map(|nearest| format!(" (did you mean `{nearest}`?)")).unwrap_or_default();
    format!("{subject} is not one of the choices{hint}; allowed: {}", quoted(&options))
}

fn bounds(owner: Option<&Map<String, Value>>, least: &str, most: &str) -> String {
    let bound = |keyword: &str| owner.and_then(|owner| owner.get(keyword)).map(number_text);
    let unit = if least == "minLength" { " characters" } else { "" };
    match (bound(least), bound(most)) {
        (Some(least), Some(most)) => format!("{least} to {most}{unit}"),
        (Some(least), None) => format!("at least {least}{unit}"),
        (None, Some(most)) => format!("at most {most}{unit}"),
        (None, None) => "the range in the schema".to_owned(),
    }
}

/// Returns a bound as text, without the fraction that JSON gives to a whole float.
fn number_text(number: &Value) -> String {
    let whole = number.as_f64().and_then(super::yaml::finite);
    whole.map_or_else(|| number.to_string(), |number| number.to_string())
}

fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let name = name.to_lowercase();
    let likeness = |candidate: &str| strsim::normalized_damerau_levenshtein(&name, &candidate.to_lowercase());
    let scored = candidates.iter().map(|candidate| (likeness(candidate), *candidate));
    scored.filter(|(score, _)| *score >= LIKENESS_MIN).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
