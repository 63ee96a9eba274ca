use std::fmt::Write as _;
use std::path::Path;

use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::task::TaskTracker;

use crate::config::{self, Config};
use tidegate_access::authorizer::{Access, Mechanisms};
use tidegate_core::error_chain::chain;
use tidegate_core::limits::ThrottleLevel;
use tidegate_gateway::data_plane::websocket::fallback;
use tidegate_gateway::deployment::{CompileContext, Route, Stage, compile_api};
use tidegate_http::http_client::HttpClient;
use tidegate_integration::Payload;
use tidegate_resources::Api;
use tidegate_telemetry::Reason;

/// The arguments of `tidegate route`.
#[derive(Clone, Debug)]
pub struct RouteQuestion<'a> {
    /// The apiId; may be left out if there is one API.
    pub api: Option<&'a str>,
    /// The stageName; may be left out if the API has one stage.
    pub stage: Option<&'a str>,
    pub message: &'a str,
}

/// Runs `tidegate route`: describes what a message would do, without a running gateway and without a call.
///
/// # Errors
/// Returns a text for the user if the configuration has problems, or if there is no such API or stage.
pub fn route(path: &Path, question: &RouteQuestion<'_>) -> Result<String, String> {
    let loaded =
        config::load_file(path, &|name| std::env::var(name).ok()).map_err(|error| chain(&error).to_string())?;
    explain(&loaded.config, question)
}

fn explain(config: &Config, question: &RouteQuestion<'_>) -> Result<String, String> {
    let (api_id, api) = choose("API", question.api, config.apis.iter())?;
    let (stage, _) = choose("stage", question.stage, api.stages.iter())?;
    let mechanisms = Mechanisms::alone(HttpClient::new(TaskTracker::new()), TaskTracker::new());
    let access = Access::compile(&config.access(), &mechanisms, &mut Vec::new());
    let context = CompileContext { limits: &config.limits, access: &access, mechanisms: &mechanisms };
    let deployment = compile_api(api_id, api, context)
        .map_err(|problems| format!("the configuration has {} problems; see `tidegate check`", problems.len()))?;
    let stage = deployment.stage(stage).ok_or("there is no such stage")?;

    let payload = Payload::Text(Utf8Bytes::from(question.message));
    let selected = deployment.route_selection_expression.evaluate(question.message);
    let route = stage.route(selected.as_deref());
    let reason = match route {
        Some(route) => fallback(route, selected.as_deref(), &payload),
        None => Some(Reason::NoRoute),
    };
    let mut text = String::new();
    let mut say = |name: &str, value: &str| _ = writeln!(text, "{name:<12} {value}");
    say("api", api_id);
    say("stage", &stage.name);
    say("expression", &api.route_selection_expression);
    say("value", &selected.as_deref().map_or("none: the message is not JSON".to_owned(), |value| format!("{value:?}")));
    say("route", route.map_or("none", |route| route.key.as_str()));
    if let Some(reason) = reason {
        say("reason", &format!("{}: {}", reason.code(), reason.meaning()));
    }
    match route {
        Some(route) => describe(route, stage, api, &mut say),
        None => say("reply", r#"{"message": "Forbidden", …}: the gateway's error frame; the connection stays open"#),
    }
    Ok(text)
}

fn describe(route: &Route, stage: &Stage, api: &Api, say: &mut impl FnMut(&str, &str)) {
    let integration = &route.integration;
    say("integration", &format!("{} ({})", integration.id, integration.type_description()));
    integration.request_line().into_iter().for_each(|request_line| say("uri", &request_line));
    say("timeout", &format!("{} ms", integration.timeout.as_millis()));
    if let Some(throttle) = &route.throttle {
        let settings = api.stages.get(&*stage.name);
        let own = settings.and_then(|settings| settings.route_settings.get(route.key.as_str()));
        let shared = settings.and_then(|settings| settings.default_route_settings.as_ref());
        let settings = if throttle.level == ThrottleLevel::Route { own } else { shared };
        let rate = settings.and_then(|settings| settings.throttling_rate_limit);
        say(
            "throttle",
            &format!("{}, {} a second", throttle.level, rate.map_or("-".to_owned(), |rate| rate.to_string())),
        );
    }
    say("reply", if route.two_way { "the body of the backend's answer" } else { "none: the route is one-way" });
}

/// Returns the entry that is named, or the only one.
fn choose<'a, T: 'a>(
    what: &str,
    named: Option<&str>,
    all: impl Iterator<Item = (&'a String, &'a T)>,
) -> Result<(&'a str, &'a T), String> {
    let all: Vec<(&String, &T)> = all.collect();
    let names = all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    match (named, all.as_slice()) {
        (Some(named), all) => match all.iter().find(|(name, _)| *name == named) {
            Some((name, value)) => Ok((name, value)),
            None => Err(format!("there is no {what} `{named}`; there are: {names}")),
        },
        (None, [(name, value)]) => Ok((name, value)),
        (None, _) => Err(format!("choose the {what} with --{}; there are: {names}", what.to_lowercase())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &str, expected: &[&str]) {
        let config = config::load(config::TIDEGATE_YAML, &|_| None).expect("no problems");
        let text = explain(&config, &RouteQuestion { api: None, stage: None, message }).expect("an answer");
        for line in expected {
            assert!(
                text.lines().any(|found| found.split_whitespace().collect::<Vec<_>>().join(" ") == *line),
                "{text}"
            );
        }
    }

    #[test]
    fn the_way_of_a_message_is_told() {
        check(
            r#"{"action":"sendMessage"}"#,
            &[
                "expression $request.body.action",
                "value \"sendMessage\"",
                "route sendMessage",
                "integration backend (AWS_PROXY: the event as JSON)",
                "uri POST http://127.0.0.1:9000/ws",
                "reply the body of the backend's answer",
            ],
        );
        check(r#"{"action":"x"}"#, &["value \"x\"", "route $default", "reply none: the route is one-way"]);
        check("hello", &["value none: the message is not JSON", "route $default"]);
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_right_ones() {
        let config = config::load(config::TIDEGATE_YAML, &|_| None).expect("no problems");
        let question = RouteQuestion { api: Some("x"), stage: None, message: "" };
        assert_eq!(explain(&config, &question), Err("there is no API `x`; there are: chat".to_owned()));
    }
}
