use serde_json::{Map, Value};
use thiserror::Error;

use super::condition::{self, Condition, ConditionKeys};
use super::wildcard::Wildcard;

/// A compiled IAM policy document.
///
/// Every element of a document is either evaluated or a reason to refuse the document: nothing is ignored. An
/// unsupported element (`Principal`, policy variables, an unknown condition operator or key) is a [`PolicyError`].
///
/// Source: AWS, "IAM JSON policy element reference" and "Policy evaluation logic".
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    statements: Vec<Statement>,
}

/// The reason why a document is refused, and the place in the document.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}: {message}", .path.join("."))]
pub struct PolicyError {
    /// Keys and indexes from the top of the document to the place.
    pub path: Vec<String>,
    pub message: String,
}

/// The result of evaluating a policy for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// A statement denies the request, even if others allow it.
    ExplicitDeny,
    /// No statement allows the request.
    NoAllow,
}

/// The input of a policy evaluation.
#[derive(Clone, Copy, Debug)]
pub struct PolicyRequest<'a> {
    /// Action such as `execute-api:Invoke`, compared without regard to case.
    pub action: &'a str,
    /// ARN of the resource.
    pub resource: &'a str,
    pub keys: &'a ConditionKeys<'a>,
}

#[derive(Clone, Debug, PartialEq)]
struct Statement {
    allows: bool,
    actions: Patterns,
    resources: Patterns,
    conditions: Vec<Condition>,
}

/// `Action` and `Resource`, or `NotAction` and `NotResource`.
#[derive(Clone, Debug, PartialEq)]
struct Patterns {
    patterns: Vec<Wildcard>,
    negated: bool,
}

const VERSIONS: [&str; 2] = ["2012-10-17", "2008-10-17"];

impl PolicyError {
    pub(super) fn at<'p>(path: impl IntoIterator<Item = &'p str>, message: impl Into<String>) -> Self {
        PolicyError { path: path.into_iter().map(str::to_owned).collect(), message: message.into() }
    }

    fn below(mut self, above: &[&str]) -> Self {
        let mut path: Vec<String> = above.iter().map(|key| (*key).to_owned()).collect();
        path.append(&mut self.path);
        self.path = path;
        self
    }
}

impl Policy {
    /// Compiles a document.
    ///
    /// # Errors
    /// Returns a [`PolicyError`] for the first element that is malformed or not supported.
    pub fn parse(document: &Value) -> Result<Self, PolicyError> {
        let document = document.as_object().ok_or_else(|| PolicyError::at([], "a policy is a mapping"))?;
        known_keys(document, &["Version", "Id", "Statement"])?;
        if let Some(version) = document.get("Version")
            && !version.as_str().is_some_and(|version| VERSIONS.contains(&version))
        {
            return Err(PolicyError::at(["Version"], "allowed: \"2012-10-17\", in quotes"));
        }
        let statements = match document.get("Statement") {
            Some(Value::Array(statements)) => statements.as_slice(),
            Some(single @ Value::Object(_)) => std::slice::from_ref(single),
            Some(_) => {
                return Err(PolicyError::at(["Statement"], "allowed: one statement or a list of statements"));
            }
            None => return Err(PolicyError::at([], "`Statement` is missing")),
        };
        let read = |(index, statement): (usize, &Value)| {
            Statement::parse(statement).map_err(|error| error.below(&["Statement", &index.to_string()]))
        };
        Ok(Policy { statements: statements.iter().enumerate().map(read).collect::<Result<_, _>>()? })
    }

    /// Evaluates the policy for `request`. A statement that denies takes precedence over all statements that allow.
    pub fn evaluate(&self, request: &PolicyRequest<'_>) -> Decision {
        let action = request.action.to_ascii_lowercase();
        let applies = |statement: &&Statement| statement.applies(&action, request);
        if self.statements.iter().filter(|statement| !statement.allows).any(|statement| applies(&statement)) {
            return Decision::ExplicitDeny;
        }
        let allowed = self.statements.iter().filter(|statement| statement.allows).any(|statement| applies(&statement));
        if allowed { Decision::Allow } else { Decision::NoAllow }
    }
}

impl Statement {
    fn parse(value: &Value) -> Result<Self, PolicyError> {
        let statement = value.as_object().ok_or_else(|| PolicyError::at([], "a statement is a mapping"))?;
        let keys = ["Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"];
        known_keys(statement, &keys)?;
        let allows = match statement.get("Effect").and_then(Value::as_str) {
            Some("Allow") => true,
            Some("Deny") => false,
            _ => return Err(PolicyError::at(["Effect"], "allowed: `Allow`, `Deny`")),
        };
        let conditions = match statement.get("Condition") {
            Some(value) => condition::parse(value).map_err(|error| error.below(&["Condition"]))?,
            None => Vec::new(),
        };
        Ok(Statement {
            allows,
            actions: patterns(statement, "Action", "NotAction", |text| text.to_ascii_lowercase())?,
            resources: patterns(statement, "Resource", "NotResource", str::to_owned)?,
            conditions,
        })
    }

    fn applies(&self, action: &str, request: &PolicyRequest<'_>) -> bool {
        self.actions.cover(action)
            && self.resources.cover(request.resource)
            && self.conditions.iter().all(|condition| condition.is_met(request.keys))
    }
}

impl Patterns {
    fn cover(&self, text: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(text)) != self.negated
    }
}

fn known_keys(map: &Map<String, Value>, known: &[&str]) -> Result<(), PolicyError> {
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(PolicyError::at([key.as_str()], format!("not supported; allowed: {}", known.join(", ")))),
        None => Ok(()),
    }
}

/// Parses one pattern or a list of patterns under `name`, or under `negated_name`, which covers everything else.
fn patterns(
    statement: &Map<String, Value>,
    name: &str,
    negated_name: &str,
    normalize: impl Fn(&str) -> String,
) -> Result<Patterns, PolicyError> {
    let (name, value, negated) = match (statement.get(name), statement.get(negated_name)) {
        (Some(value), None) => (name, value, false),
        (None, Some(value)) => (negated_name, value, true),
        _ => return Err(PolicyError::at([], format!("one of `{name}` and `{negated_name}` is needed"))),
    };
    let values = match value {
        Value::Array(values) if !values.is_empty() => values.as_slice(),
        single @ Value::String(_) => std::slice::from_ref(single),
        _ => return Err(PolicyError::at([name], "allowed: text, or a list of texts that is not empty")),
    };
    let read = |value: &Value| match value.as_str() {
        Some("") => Err(PolicyError::at([name], "the text is empty")),
        Some(text) if text.contains("${") => Err(PolicyError::at([name], "policy variables are not supported")),
        Some(text) => Ok(Wildcard::new(&normalize(text))),
        None => Err(PolicyError::at([name], "allowed: text, or a list of texts that is not empty")),
    };
    Ok(Patterns { patterns: values.iter().map(read).collect::<Result<_, _>>()?, negated })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use tidegate_core::clock::Timestamp;

    const POST: &str = "arn:aws:execute-api:us-east-1:000000000000:chat/prod/POST/@connections/{connectionId}";
    const CONNECT: &str = "arn:aws:execute-api:us-east-1:000000000000:chat/prod/$connect";
    const MANAGE: &str = "execute-api:ManageConnections";
    const INVOKE: &str = "execute-api:Invoke";

    fn keys() -> ConditionKeys<'static> {
        ConditionKeys {
            source_ip: IpAddr::from([203, 0, 113, 7]),
            user_agent: Some("boto3/1.44 linux"),
            secure_transport: true,
            now: Timestamp(1_790_295_749_887),
            user: Some(("backend", "arn:aws:iam::000000000000:user/backend")),
        }
    }

    #[track_caller]
    fn check(document: &Value, action: &str, resource: &str, expected: Decision) {
        let policy = Policy::parse(document).expect("a policy");
        let decided = policy.evaluate(&PolicyRequest { action, resource, keys: &keys() });
        assert_eq!(decided, expected, "{document} {action} {resource}");
    }

    fn statement(effect: &str, action: impl Into<Value>, resource: impl Into<Value>) -> Value {
        json!({ "Effect": effect, "Action": action.into(), "Resource": resource.into() })
    }

    fn policy(statements: impl Into<Value>) -> Value {
        json!({ "Version": "2012-10-17", "Statement": statements.into() })
    }

    #[test]
    fn actions_and_resources_match_by_wildcards() {
        use Decision::{Allow, NoAllow};
        let resource = |resource: &str, action: &str, asked: &str, expected: Decision| {
            check(&policy(statement("Allow", action, resource)), action, asked, expected);
        };
        resource("*", MANAGE, POST, Allow);
        resource(POST, MANAGE, POST, Allow);
        resource("arn:aws:execute-api:*:*:*/@connections/*", MANAGE, POST, Allow);
        resource("arn:aws:execute-api:*:*:chat/prod/POST/@connections/*", MANAGE, POST, Allow);
        resource("arn:aws:execute-api:us-east-1:000000000000:chat/*", MANAGE, POST, Allow);
        resource("arn:aws:execute-api:us-east-1:000000000000:chat/prod/POST/*", MANAGE, POST, Allow);
        resource("arn:aws:execute-api:us-east-?:000000000000:chat/prod/P?ST/*", MANAGE, POST, Allow);
        // AWS does not match these either.
        resource("arn:aws:execute-api:*:*:chat/prod/POST/@connections", MANAGE, POST, NoAllow);
        resource("arn:aws:execute-api:*:*:chat/prod/POST/@connections/R0oXAdfD0kwCH6w=", MANAGE, POST, NoAllow);
        resource("arn:aws:execute-api:*:*:chat/prod/GET/@connections/*", MANAGE, POST, NoAllow);
        resource("arn:aws:execute-api:*:*:chat/dev/POST/@connections/*", MANAGE, POST, NoAllow);
        resource("arn:aws:execute-api:*:*:other/prod/POST/@connections/*", MANAGE, POST, NoAllow);
        resource("arn:aws:execute-api:eu-west-1:*:chat/*", MANAGE, POST, NoAllow);
        resource("ARN:AWS:EXECUTE-API:*", MANAGE, POST, NoAllow);
        resource("arn:aws:execute-api:*:*:chat/prod/$connect", INVOKE, CONNECT, Allow);
        resource("arn:aws:execute-api:*:*:chat/prod", INVOKE, CONNECT, NoAllow);

        let action = |action: Value, expected: Decision| {
            check(&policy(statement("Allow", action, "*")), MANAGE, POST, expected);
        };
        action(json!("*"), Allow);
        action(json!("execute-api:*"), Allow);
        action(json!("EXECUTE-API:manageconnections"), Allow);
        action(json!("execute-api:Manage*"), Allow);
        action(json!(["s3:GetObject", MANAGE]), Allow);
        action(json!("execute-api:Invoke"), NoAllow);
        action(json!("execute-api:ManageConnection"), NoAllow);
        action(json!("execute-api"), NoAllow);
        action(json!(["s3:*", "sqs:*"]), NoAllow);
    }

    #[test]
    fn an_explicit_deny_wins_and_silence_denies() {
        use Decision::{Allow, ExplicitDeny, NoAllow};
        let allow = statement("Allow", "execute-api:*", "*");
        let deny = statement("Deny", "execute-api:ManageConnections", "*");
        check(&policy(json!([])), MANAGE, POST, NoAllow);
        check(&policy(allow.clone()), MANAGE, POST, Allow);
        check(&policy(json!([allow, deny])), MANAGE, POST, ExplicitDeny);
        check(&policy(json!([deny, allow])), MANAGE, POST, ExplicitDeny);
        check(&policy(json!([allow, deny])), INVOKE, CONNECT, Allow);
        check(&policy(deny), INVOKE, CONNECT, NoAllow);
        check(&policy(json!([allow, statement("Deny", "*", "arn:*:other/*")])), MANAGE, POST, Allow);
        check(
            &policy(json!([allow, statement("Deny", "*", json!(["arn:*:other/*", POST]))])),
            MANAGE,
            POST,
            ExplicitDeny,
        );

        let not = |key: &str, value: Value, other: &str| {
            let mut statement = json!({ "Effect": "Allow", other: "*" });
            statement[key] = value;
            policy(statement)
        };
        check(&not("NotAction", json!("execute-api:Invoke"), "Resource"), MANAGE, POST, Allow);
        check(&not("NotAction", json!("execute-api:*"), "Resource"), MANAGE, POST, NoAllow);
        check(&not("NotResource", json!("arn:*:other/*"), "Action"), MANAGE, POST, Allow);
        check(&not("NotResource", json!(["arn:*:other/*", "arn:*:chat/*"]), "Action"), MANAGE, POST, NoAllow);
    }

    #[test]
    fn conditions_are_tested() {
        let met = |operator: &str, key: &str, values: Value, expected: bool| {
            let mut statement = statement("Allow", "*", "*");
            statement["Condition"] = json!({ operator: { key: values } });
            check(&policy(statement), MANAGE, POST, if expected { Decision::Allow } else { Decision::NoAllow });
        };
        met("IpAddress", "aws:SourceIp", json!("203.0.113.0/24"), true);
        met("IpAddress", "aws:SourceIp", json!("203.0.113.7"), true);
        met("IpAddress", "aws:SourceIp", json!(["10.0.0.0/8", "2001:db8::/32"]), false);
        met("NotIpAddress", "aws:SourceIp", json!("203.0.113.0/24"), false);
        met("NotIpAddress", "AWS:sourceip", json!("10.0.0.0/8"), true);
        met("StringEquals", "aws:username", json!("backend"), true);
        met("StringEquals", "aws:username", json!("Backend"), false);
        met("StringEqualsIgnoreCase", "aws:username", json!("Backend"), true);
        met("StringNotEquals", "aws:username", json!(["other", "backend"]), false);
        met("StringNotEqualsIgnoreCase", "aws:username", json!("other"), true);
        met("StringLike", "aws:UserAgent", json!("boto3/*"), true);
        met("StringNotLike", "aws:UserAgent", json!("boto3/*"), false);
        met("ArnLike", "aws:PrincipalArn", json!("arn:aws:iam::*:user/back*"), true);
        met("ArnNotEquals", "aws:PrincipalArn", json!("arn:aws:iam::*:user/back*"), false);
        met("Bool", "aws:SecureTransport", json!("true"), true);
        met("Bool", "aws:SecureTransport", json!(false), false);
        met("DateGreaterThan", "aws:CurrentTime", json!("2026-09-25T00:00:00Z"), true);
        met("DateLessThan", "aws:CurrentTime", json!("2026-09-25"), false);
        met("DateLessThanEquals", "aws:EpochTime", json!("1790295749"), true);
        met("DateEquals", "aws:EpochTime", json!(1_790_295_749), true);
        met("NumericGreaterThanEquals", "aws:EpochTime", json!(1_790_295_749), true);
        met("NumericLessThan", "aws:EpochTime", json!([5, 6]), false);
        met("NumericNotEquals", "aws:EpochTime", json!(5), true);
        met("Null", "aws:username", json!("false"), true);
        met("Null", "aws:username", json!(true), false);
    }

    #[test]
    fn a_key_without_a_value_fails_what_is_not_negated() {
        let met = |operator: &str, values: Value, expected: bool| {
            let mut statement = statement("Allow", "*", "*");
            statement["Condition"] = json!({ operator: { "aws:UserAgent": values } });
            let policy = Policy::parse(&policy(statement)).expect("a policy");
            let keys = ConditionKeys { user_agent: None, ..keys() };
            let decided = policy.evaluate(&PolicyRequest { action: MANAGE, resource: POST, keys: &keys });
            assert_eq!(decided == Decision::Allow, expected, "{operator}");
        };
        met("StringLike", json!("*"), false);
        met("StringLikeIfExists", json!("x"), true);
        met("StringNotEquals", json!("x"), true);
        met("Null", json!(true), true);
    }

    #[test]
    fn all_conditions_of_a_statement_must_be_met() {
        let mut statement = statement("Allow", "*", "*");
        statement["Condition"] = json!({
            "IpAddress": { "aws:SourceIp": "203.0.113.0/24" }, "Bool": { "aws:SecureTransport": "false" }
        });
        check(&policy(statement), MANAGE, POST, Decision::NoAllow);
    }

    #[test]
    fn what_is_not_supported_is_refused_and_never_ignored() {
        let refused = |document: Value, expected: &str| {
            let error = Policy::parse(&document).expect_err("a refusal").to_string();
            assert!(error.starts_with(expected), "{document}: {error}");
        };
        let with = |key: &str, value: Value| {
            let mut statement = statement("Allow", "*", "*");
            statement[key] = value;
            policy(json!([statement]))
        };
        refused(json!(null), ": a policy is a mapping");
        refused(json!("{}"), ": a policy is a mapping");
        refused(json!({}), ": `Statement` is missing");
        refused(json!({ "Statement": "x" }), "Statement: allowed: one statement");
        refused(json!({ "Statement": ["x"] }), "Statement.0: a statement is a mapping");
        refused(json!({ "Version": "2020-01-01", "Statement": [] }), "Version: allowed");
        refused(json!({ "Version": 1, "Statement": [] }), "Version: allowed");
        refused(json!({ "Statement": [], "statement": [] }), "statement: not supported");
        refused(with("Effect", json!("allow")), "Statement.0.Effect: allowed: `Allow`, `Deny`");
        refused(with("Principal", json!("*")), "Statement.0.Principal: not supported");
        refused(with("NotAction", json!("*")), "Statement.0: one of `Action` and `NotAction`");
        refused(with("Action", json!([])), "Statement.0.Action: allowed");
        refused(with("Action", json!("")), "Statement.0.Action: the text is empty");
        refused(with("Action", json!([1])), "Statement.0.Action: allowed");
        refused(with("Resource", json!({})), "Statement.0.Resource: allowed");
        refused(with("Resource", json!("arn:${aws:username}")), "Statement.0.Resource: policy variables");
        refused(json!({ "Statement": [{ "Effect": "Allow", "Action": "*" }] }), "Statement.0: one of `Resource`");
        refused(with("Condition", json!([])), "Statement.0.Condition: not a mapping");
        refused(with("Condition", json!({ "StringEquals": 1 })), "Statement.0.Condition.StringEquals: not a mapping");
        let condition =
            |operator: &str, key: &str, value: Value| with("Condition", json!({ operator: { key: value } }));
        refused(condition("StringMatches", "aws:username", json!("x")), "Statement.0.Condition.StringMatches");
        refused(
            condition("ForAllValues:StringEquals", "aws:username", json!("x")),
            "Statement.0.Condition.ForAllValues:StringEquals.aws:username: the condition operator is not supported",
        );
        refused(condition("BinaryEquals", "aws:username", json!("x")), "Statement.0.Condition.BinaryEquals");
        refused(condition("NullIfExists", "aws:username", json!("x")), "Statement.0.Condition.NullIfExists");
        refused(
            condition("StringEquals", "aws:MultiFactorAuthPresent", json!("x")),
            "Statement.0.Condition.StringEquals.aws:MultiFactorAuthPresent: the condition key is not supported",
        );
        refused(
            condition("StringEquals", "aws:username", json!([])),
            "Statement.0.Condition.StringEquals.aws:username",
        );
        refused(
            condition("StringEquals", "aws:username", json!({})),
            "Statement.0.Condition.StringEquals.aws:username",
        );
        refused(condition("StringEquals", "aws:username", json!("${x}")), "Statement.0.Condition.StringEquals");
        refused(
            condition("IpAddress", "aws:SourceIp", json!("x")),
            "Statement.0.Condition.IpAddress.aws:SourceIp: `x`",
        );
        refused(condition("Bool", "aws:SecureTransport", json!("maybe")), "Statement.0.Condition.Bool");
        refused(condition("DateLessThan", "aws:CurrentTime", json!("soon")), "Statement.0.Condition.DateLessThan");
        refused(condition("NumericEquals", "aws:EpochTime", json!("1e999")), "Statement.0.Condition.NumericEquals");
    }

    proptest! {
        #[test]
        fn any_document_and_any_request_never_panic(document in ".{0,80}", action in ".*", resource in ".*") {
            let request = PolicyRequest { action: &action, resource: &resource, keys: &keys() };
            for document in [
                serde_json::from_str(&document).unwrap_or(Value::Null),
                policy(statement("Allow", document.as_str(), document.as_str())),
            ] {
                if let Ok(policy) = Policy::parse(&document) {
                    let _ = policy.evaluate(&request);
                }
            }
        }
    }
}
