use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::problem::Problem;
use super::source::Source;
use super::{Config, check, formats, interpolate, validate, yaml};

/// Largest configuration file, in bytes.
pub const FILE_MAX_BYTES: usize = 1024 * 1024;

/// A configuration and its warnings.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub config: Config,
    /// Settings that an operator may not have intended, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// The reason why a configuration could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("could not read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file has problems. The text has one line for each: `FILE:LINE: PATH: what is wrong; what is allowed`.
    #[error("{}", lines(path, problems))]
    Problems { path: PathBuf, problems: Vec<Problem> },
}

/// Reads a configuration from the text of a file.
///
/// # Errors
/// Returns all problems that were found, in the order of the file.
pub fn load(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Config, Vec<Problem>> {
    load_with_warnings(text, environment).map(|loaded| loaded.config)
}

/// Reads a configuration like [`load`] does, with its warnings.
///
/// # Errors
/// Returns all problems that were found, in the order of the file.
pub fn load_with_warnings(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Vec<Problem>> {
    if text.len() > FILE_MAX_BYTES {
        let message = format!("the file is too large; allowed: {FILE_MAX_BYTES} bytes");
        return Err(vec![Problem::of_file(0, message)]);
    }
    let (mut source, mut problems) = yaml::read(text)?;
    problems.extend(interpolate::interpolate(&mut source, environment));
    problems.extend(validate::validate(&mut source));
    problems.extend(formats::check(&source));
    none_or_all(problems)?;

    let config = decode(&source).map_err(|problem| vec![problem])?;
    none_or_all(located(&source, &check::problems(&config)))?;
    let warnings = sorted(located(&source, &check::warnings(&config)));
    Ok(Loaded { config, warnings })
}

/// Reads a configuration and its warnings from the file at `path`.
///
/// # Errors
/// Returns `Read` if the file cannot be read, and `Problems` if it has problems.
pub fn load_file(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, LoadError> {
    let text = read_text(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    load_with_warnings(&text, environment).map_err(|problems| LoadError::Problems { path: path.to_owned(), problems })
}

/// Reads the text of a file. At most one byte more than allowed is read, so that a file that is too large is noticed
/// and not held in memory.
fn read_text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > FILE_MAX_BYTES {
        // The end may be inside a character. The error of `load` about the size does not depend on the text.
        return Ok(" ".repeat(bytes.len()));
    }
    decode_text(bytes)
}

/// Decodes UTF-8, or UTF-16 if there is a byte order mark or a zero byte in the first character (YAML 1.2.2, section
/// 5.2).
fn decode_text(bytes: Vec<u8>) -> io::Result<String> {
    let invalid = |error: &str| io::Error::new(io::ErrorKind::InvalidData, error.to_owned());
    let unit: fn([u8; 2]) -> u16 = match bytes.as_slice() {
        [0xFE, 0xFF, ..] | [0, _, ..] => u16::from_be_bytes,
        [0xFF, 0xFE, ..] | [_, 0, ..] => u16::from_le_bytes,
        _ => return String::from_utf8(bytes).map_err(|error| invalid(&error.utf8_error().to_string())),
    };
    let (pairs, rest) = bytes.as_chunks();
    let text = String::from_utf16(&pairs.iter().map(|pair| unit(*pair)).collect::<Vec<_>>());
    text.ok().filter(|_| rest.is_empty()).ok_or_else(|| invalid("it is neither UTF-8 nor UTF-16"))
}

/// Converts the values, which fit the schema and the formats, to a [`Config`].
fn decode(source: &Source) -> Result<Config, Problem> {
    serde_json::from_value(source.value.clone()).map_err(|error| {
        // The schema accepts something that the types refuse. The text of serde may quote values.
        let cause = if source.has_interpolations() { String::new() } else { format!(": {error}") };
        Problem::of_file(0, format!("a value does not fit the type of its setting{cause}"))
    })
}

fn located(source: &Source, problems: &[tidegate_core::problem::Problem]) -> Vec<Problem> {
    problems.iter().map(|problem| source.locate(problem)).collect()
}

fn none_or_all(problems: Vec<Problem>) -> Result<(), Vec<Problem>> {
    if problems.is_empty() { Ok(()) } else { Err(sorted(problems)) }
}

fn sorted(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by(|a, b| (a.line, &a.path).cmp(&(b.line, &b.path)));
    problems
}

fn lines(path: &Path, problems: &[Problem]) -> String {
    problems.iter().map(|problem| problem.in_file(path).to_string()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::config::mistakes::API;

    fn environment(name: &str) -> Option<String> {
        match name {
            "PORT" => Some("8090".to_owned()),
            "RATE" => Some("0.5".to_owned()),
            "YES" => Some("true".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_from_one_with_problems() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tidegate.yaml");
        let load = || load_file(&path, &environment).expect_err("no configuration");

        let error = load();
        assert!(matches!(&error, LoadError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound));
        assert_eq!(error.to_string(), format!("could not read {}", path.display()));

        std::fs::write(&path, b"region: \xff\n").expect("a written file");
        assert!(matches!(load(), LoadError::Read { source, .. } if source.kind() == io::ErrorKind::InvalidData));

        std::fs::write(&path, "region: ''\nlimits: 1\n").expect("a written file");
        let file = path.display();
        assert_eq!(
            load().to_string(),
            format!(
                "{file}:1: region: the text has 0 characters; allowed: 1 to 64 characters\n\
                 {file}:2: limits: found the number `1`; allowed: a mapping"
            )
        );

        std::fs::write(&path, "é".repeat(FILE_MAX_BYTES)).expect("a written file");
        assert_eq!(load().to_string(), format!("{file}: the file is too large; allowed: 1048576 bytes"));
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let config = load(API, &environment).expect("no problems");
        assert_eq!(Config { apis: BTreeMap::new(), ..config }, Config::default());
    }

    #[test]
    fn a_file_in_utf_16_is_read_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tidegate.yaml");
        let text = API.replace("apis:\n  chat:\n", "apis:\n  chat:\n    name: Plätze 😀\n");
        let name = |bytes: Vec<u8>| {
            std::fs::write(&path, bytes).expect("a written file");
            load_file(&path, &environment).map(|loaded| loaded.config.apis["chat"].name.clone())
        };
        for mark in ["", "\u{feff}"] {
            let units = || mark.encode_utf16().chain(text.encode_utf16());
            for bytes in [units().flat_map(u16::to_le_bytes).collect(), units().flat_map(u16::to_be_bytes).collect()] {
                assert_eq!(name(bytes).expect("no problems").as_deref(), Some("Plätze 😀"), "{mark:?}");
            }
        }
        for bytes in [&b"\xff\xfe\0"[..], b"\xff\xfe\0\xd8", b"a\0\0"] {
            assert!(matches!(name(bytes.to_vec()), Err(LoadError::Read { .. })), "{bytes:?}");
        }
    }

    #[test]
    fn placeholders_become_what_the_schema_wants() {
        let text = "drain:\n  graceMillis: \"${env:PORT}\"\nregion: \"${env:PORT}\"\n\
                    limits:\n  connections: 1e3\n  sendBufferBytes: 2048.0\n\
                    apis:\n  chat:\n    routeSelectionExpression: $request.body.action\n    integrations:\n      backend:\n\
            \x20       integrationType: AWS_PROXY\n        integrationUri: http://a:${env:PORT}/${stageVariables.path}\n\
            \x20       http2: ${env:YES}\n    routes: { $default: { target: integrations/backend } }\n    stages:\n      prod:\n        stageVariables: { path: ws }\n        defaultRouteSettings:\n\
            \x20         throttlingRateLimit: ${env:RATE}\n";
        let config = load(text, &environment).expect("no problems");
        assert_eq!(config.drain.grace_millis, 8090);
        assert_eq!(config.region, "8090");
        assert_eq!((config.limits.connections, config.limits.send_buffer_bytes), (1000, 2048));
        let chat = &config.apis["chat"];
        assert_eq!(chat.integrations["backend"].integration_uri, "http://a:8090/${stageVariables.path}");
        assert!(chat.integrations["backend"].http2);
        assert_eq!(chat.stages["prod"].default_route_settings.and_then(|s| s.throttling_rate_limit), Some(0.5));
    }

    #[test]
    fn aliases_stand_for_their_anchors() {
        let text = format!("limits:\n  frameBytes: &size 1000\n  messageBytes: *size\n{API}");
        assert_eq!(load(&text, &environment).map(|config| config.limits.message_bytes), Ok(1000));
    }

    #[test]
    fn json_is_yaml() {
        let config = load(API, &environment).expect("no problems");
        let text = serde_json::to_string_pretty(&config).expect("JSON");
        assert_eq!(load(&text, &environment), Ok(config));
    }

    #[test]
    fn doubtful_settings_are_warned_of() {
        let check = |settings: &str, expected: &[(usize, &str)]| {
            let loaded = load_with_warnings(&format!("{API}{settings}"), &environment).expect("no problems");
            let places: Vec<(usize, &str)> = loaded.warnings.iter().map(|w| (w.line, w.path.as_str())).collect();
            assert_eq!(places, expected, "{settings}");
        };
        // One warning about web pages and one about Hosts, whatever the address is: a proxy may make it public.
        let (api, unsigned) = ((2, "apis.chat"), "listeners.public.connectionsApi");
        let hosts = |line| (line, "listeners.public.allowedHosts");
        check("", &[hosts(1), api]);
        check("listeners: { public: { connectionsApi: NONE } }", &[api, hosts(12)]);
        check("listeners: { public: { address: '[::1]:1', connectionsApi: NONE } }", &[api, hosts(12)]);
        check("listeners: { public: { address: 0.0.0.0:80 } }", &[api, hosts(12)]);
        check("listeners: { public: { address: '[::]:80' } }", &[api, hosts(12)]);
        check(
            "listeners: { public: { address: 10.0.0.1:80, connectionsApi: NONE } }",
            &[api, hosts(12), (12, unsigned)],
        );
        check("listeners: { public: { allowedHosts: [ a.b ] } }", &[api]);
        check("callbackBaseUrl: https://a.b", &[api]);
        check("domainNames: { a.b: { apiMappings: [ { apiId: chat, stage: prod } ] } }", &[api]);
        // The domain name in events does not change callback URLs.
        check("    domainName: a.b\ncallbackBaseUrl: https://a.b", &[api]);
        check("    domainName: a.b", &[hosts(1), api]);
        check("    allowOrigins: []", &[hosts(1)]);
        // A page cannot sign.
        let signed = "      $connect: { target: integrations/backend, authorizationType: AWS_IAM }\n    stages:\n";
        let signed = API.replace("    stages:\n", signed);
        let signed = format!("{signed}callbackBaseUrl: https://a.b");
        assert_eq!(load_with_warnings(&signed, &environment).map(|loaded| loaded.warnings), Ok(vec![]));
        check(
            "callbackBaseUrl: https://a.b\nlisteners:\n  public:\n    address: 0.0.0.0:80\n    connectionsApi: NONE",
            &[api, (16, unsigned)],
        );
        // One warning for all APIs.
        let another = crate::config::mistakes::API.replace("apis:\n  chat:", "  news:");
        check(&format!("{another}callbackBaseUrl: https://a.b"), &[(1, "apis")]);
    }

    proptest! {
        #[test]
        fn loading_never_panics(text in "\\PC*") {
            let _ = load(&text, &environment);
        }

        #[test]
        fn loading_what_looks_like_yaml_never_panics(
            parts in prop::collection::vec(prop::sample::select(vec![
                "a", "apis", ":", ": ", "\n", "\n  ", "\n- ", "- ", "? ", "[", "]", "{", "}", ", ", "&a ", "*a", "!t ",
                "!!int ", "\"", "'", "|", ">", "#", "---\n", "...\n", "<<", "${env:PORT}", "${env:", "~", "1", "1.5",
                ".inf", "\t", "\\", "%", "\r", "\u{f8ff}", "ä", "limits", "listeners",
            ]), 0..40)
        ) {
            let _ = load(&parts.concat(), &environment);
        }
    }
}
