use jsonschema::{JsonType, JsonTypeSet, ValidationError, Validator};
use serde_json::Value;

use super::explain::{Kind, Mistake, explain, mistakes};
use super::problem::Problem;
use super::schema::values_schema;
use super::source::Source;
use super::yaml::finite;

/// Validates `source` against the schema and returns all problems.
///
/// A text that was filled in is converted to the number or boolean that the schema requires in its place, if it can be
/// parsed as one.
pub(super) fn validate(source: &mut Source) -> Vec<Problem> {
    let schema = values_schema();
    let validator = match jsonschema::validator_for(&schema) {
        Ok(validator) => validator,
        // Not a user's mistake. A unit test ensures that it does not happen.
        Err(error) => return vec![Problem::of_file(0, format!("the schema itself is not valid: {error}"))],
    };
    let mut found = find(&validator, &source.value);
    let converted: Vec<(String, Value)> = found.iter().filter_map(|mistake| convert(mistake, source)).collect();
    if !converted.is_empty() {
        for (pointer, value) in converted {
            if let Some(place) = source.value.pointer_mut(&pointer) {
                *place = value;
            }
        }
        found = find(&validator, &source.value);
    }
    let said = found.iter().filter(|mistake| !source.is_rejected(&mistake.pointer));
    said.map(|mistake| explain(mistake, source, &schema)).collect()
}

fn find(validator: &Validator, value: &Value) -> Vec<Mistake> {
    let errors: Vec<ValidationError<'_>> = validator.iter_errors(value).collect();
    mistakes(&errors)
}

/// Returns the pointer of a filled-in text that has the wrong type, and the value that the schema requires in its
/// place.
fn convert(mistake: &Mistake, source: &Source) -> Option<(String, Value)> {
    let Kind::Type(wanted) = &mistake.kind else { return None };
    if !source.is_interpolated(&mistake.pointer) {
        return None;
    }
    let text = source.value.pointer(&mistake.pointer)?.as_str()?;
    Some((mistake.pointer.clone(), parse(text, *wanted)?))
}

fn parse(text: &str, wanted: JsonTypeSet) -> Option<Value> {
    let wants = |single: JsonType| wanted.iter().any(|wanted| wanted == single);
    if (wants(JsonType::Integer) || wants(JsonType::Number))
        && let Ok(integer) = text.parse::<i64>()
    {
        return Some(integer.into());
    }
    if wants(JsonType::Number)
        && let Some(number) = text.parse::<f64>().ok().and_then(finite)
    {
        return Some(number.into());
    }
    if wants(JsonType::Boolean)
        && let Ok(boolean) = text.parse::<bool>()
    {
        return Some(boolean.into());
    }
    None
}
