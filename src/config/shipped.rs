/// `config/tidegate.yaml`: every setting with its default, and a sample API.
pub const TIDEGATE_YAML: &str = include_str!("../../config/tidegate.yaml");

/// `config/demo.yaml`: the configuration of `tidegate demo`.
pub const DEMO_YAML: &str = include_str!("../../config/demo.yaml");

/// `config/access.yaml`: an example of every way to control which clients may connect and which callers may push.
pub const ACCESS_YAML: &str = include_str!("../../config/access.yaml");

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;
    use crate::config::{Config, load_with_warnings, schema};

    fn load(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Config {
        let loaded = load_with_warnings(text, environment).expect("no problems");
        // The host names and web pages are up to the users of these files.
        let warnings: Vec<&str> = loaded.warnings.iter().map(|warning| warning.message.as_str()).collect();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings.iter().any(|warning| warning.contains("set `callbackBaseUrl`")), "{warnings:?}");
        assert!(warnings.iter().any(|warning| warning.contains("list the pages in `allowOrigins`")), "{warnings:?}");
        loaded.config
    }

    #[test]
    fn every_value_of_the_default_file_is_the_coded_default() {
        let config = load(TIDEGATE_YAML, &|_| None);
        assert_eq!(Config { apis: BTreeMap::new(), ..config }, Config::default());
    }

    #[test]
    fn every_setting_that_has_a_default_is_written_in_the_default_file() {
        let (mut source, problems) = crate::config::yaml::read(TIDEGATE_YAML).expect("a tree");
        assert_eq!(problems, []);
        source.value["apis"] = Value::Object(serde_json::Map::new());
        assert_eq!(source.value, serde_json::to_value(Config::default()).expect("JSON"));
    }

    #[test]
    fn every_key_of_the_schema_is_in_the_default_file() {
        let schema = schema();
        let definitions = schema["$defs"].as_object().expect("definitions").values();
        for section in definitions.chain([&schema]) {
            for key in section["properties"].as_object().into_iter().flat_map(|properties| properties.keys()) {
                assert!(TIDEGATE_YAML.contains(&format!("{key}:")), "`{key}` is not in config/tidegate.yaml");
            }
        }
    }

    #[test]
    fn the_example_of_access_is_right_without_an_environment() {
        let config = load(ACCESS_YAML, &|_| None);
        assert_eq!((config.credentials.len(), config.api_keys.len(), config.apis.len()), (3, 2, 3));
    }

    #[test]
    fn the_demo_listens_where_its_environment_says() {
        let check = |name: &'static str, pick: fn(&Config) -> String, default: &str, chosen: &str| {
            assert_eq!(pick(&load(DEMO_YAML, &|_| None)), default);
            assert_eq!(pick(&load(DEMO_YAML, &|asked| (asked == name).then(|| "7777".to_owned()))), chosen);
        };
        check("TIDEGATE_DEMO_PORT", |c| c.listeners.public.address.to_string(), "127.0.0.1:8080", "127.0.0.1:7777");
        check(
            "TIDEGATE_DEMO_INTERNAL_PORT",
            |c| c.listeners.internal.address.to_string(),
            "127.0.0.1:8081",
            "127.0.0.1:7777",
        );
        check(
            "TIDEGATE_DEMO_BACKEND_PORT",
            |c| c.apis["chat"].integrations["backend"].integration_uri.clone(),
            "http://127.0.0.1:9000/",
            "http://127.0.0.1:7777/",
        );
    }
}
