use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::{Map, Value, json};

use super::Config;

/// Returns the JSON Schema of the configuration file before placeholders are filled in, for editors.
///
/// In place of a number or a boolean it also accepts text with `${env:NAME}` or `${file:/PATH}`. Other texts are
/// described as they are after filling in.
pub fn schema() -> Value {
    let mut schema = generate();
    RecursiveTransform(allow_placeholders).transform(&mut schema);
    schema.to_value()
}

/// Returns [`schema`] as text, as in the output of `tidegate schema` and in `config/tidegate.schema.json`.
pub fn schema_text() -> String {
    format!("{:#}\n", schema())
}

/// Returns the JSON Schema of a configuration whose placeholders are filled in, which `validate` uses.
pub(super) fn values_schema() -> Value {
    generate().to_value()
}

fn generate() -> Schema {
    let settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(bound_integers));
    settings.into_generator().into_root_schema_for::<Config>()
}

/// Gives integers the bounds of their Rust type, unless narrower ones are set.
fn bound_integers(schema: &mut Schema) {
    let maximum = match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => u64::from(u8::MAX),
        Some("uint16") => u64::from(u16::MAX),
        Some("uint32") => u64::from(u32::MAX),
        _ => return,
    };
    if schema.get("maximum").is_none() {
        schema.insert("maximum".to_owned(), maximum.into());
    }
}

/// Adds text with a placeholder to a schema of numbers or booleans. Bounds apply only to numbers and patterns only to
/// text, so one schema can have both.
fn allow_placeholders(schema: &mut Schema) {
    let types = match schema.get("type") {
        Some(Value::String(name)) => vec![Value::from(name.as_str())],
        Some(Value::Array(names)) => names.clone(),
        _ => return,
    };
    let wants_no_text = !types.contains(&json!("string"));
    if wants_no_text && ["integer", "number", "boolean"].iter().any(|name| types.contains(&json!(name))) {
        let types = types.into_iter().chain([json!("string")]).collect();
        schema.insert("type".to_owned(), Value::Array(types));
        schema.insert("pattern".to_owned(), json!(r"\$\{(env|file):"));
    }
}

/// Returns the part of `schema` that contains the keyword at `schema_path`.
pub(super) fn owner<'a>(schema: &'a Value, schema_path: &str) -> Option<&'a Map<String, Value>> {
    schema.pointer(super::source::parent(schema_path)).and_then(Value::as_object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_schema_is_the_generated_one() {
        let committed = include_str!("../../config/tidegate.schema.json");
        assert!(committed == schema_text(), "regenerate it: tidegate schema > config/tidegate.schema.json");
    }

    #[test]
    fn the_published_schema_takes_placeholders_where_numbers_are_wanted() {
        let validator = jsonschema::validator_for(&schema()).expect("a valid schema");
        let check = |value: Value, expected: bool| {
            assert_eq!(validator.is_valid(&json!({ "drain": { "graceMillis": value } })), expected, "{value}");
        };
        check(json!(100), true);
        check(json!("${env:GRACE}"), true);
        check(json!("${env:GRACE:-100}"), true);
        check(json!("100"), false);
        check(json!(99), false);
        check(json!(null), false);
    }
}
