use std::borrow::Cow;
use std::net::IpAddr;

use http::HeaderMap;
use http::header::USER_AGENT;
use ipnet::IpNet;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::policy::PolicyError;
use super::wildcard::Wildcard;
use tidegate_core::clock::Timestamp;

/// Values of the supported condition keys.
#[derive(Clone, Debug)]
pub struct ConditionKeys<'a> {
    pub source_ip: IpAddr,
    pub user_agent: Option<&'a str>,
    pub secure_transport: bool,
    pub now: Timestamp,
    /// Name and ARN of the credential that signed the request.
    pub user: Option<(&'a str, &'a str)>,
}

/// Returns the `User-Agent` of a request, with replacement characters for what is not UTF-8. A header that were left out
/// because of one byte could not be denied.
pub fn user_agent(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    headers.get(USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()))
}

/// The condition keys that a policy may test. Their names are compared without regard to case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    SourceIp,
    UserAgent,
    SecureTransport,
    CurrentTime,
    EpochTime,
    Username,
    PrincipalArn,
}

const KEYS: [(&str, Key); 7] = [
    ("aws:SourceIp", Key::SourceIp),
    ("aws:UserAgent", Key::UserAgent),
    ("aws:SecureTransport", Key::SecureTransport),
    ("aws:CurrentTime", Key::CurrentTime),
    ("aws:EpochTime", Key::EpochTime),
    ("aws:username", Key::Username),
    ("aws:PrincipalArn", Key::PrincipalArn),
];

/// A test of one condition key. It is met if any value of the policy passes, or, for a `Not` operator, if none does.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    key: Key,
    test: Test,
    negated: bool,
    if_exists: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Equals {
        values: Vec<String>,
        ignoring_case: bool,
    },
    Like(Vec<Wildcard>),
    Compare {
        values: Vec<f64>,
        order: Order,
    },
    Network(Vec<IpNet>),
    Bool(Vec<bool>),
    /// `true` is met if the key has no value, `false` if it has one.
    Null(Vec<bool>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Parses a statement's `Condition`: a mapping of operators to mappings of keys to values.
pub(super) fn parse(value: &Value) -> Result<Vec<Condition>, PolicyError> {
    let operators = object(value, &[])?;
    let mut conditions = Vec::new();
    for (operator, keys) in operators {
        for (key, values) in object(keys, &[operator])? {
            let place = [operator.as_str(), key.as_str()];
            conditions.push(condition(operator, key, values).map_err(|message| PolicyError::at(place, message))?);
        }
    }
    Ok(conditions)
}

fn object<'a>(value: &'a Value, path: &[&str]) -> Result<&'a Map<String, Value>, PolicyError> {
    value.as_object().ok_or_else(|| PolicyError::at(path.iter().copied(), "not a mapping"))
}

fn condition(operator: &str, key: &str, values: &Value) -> Result<Condition, String> {
    let known = KEYS.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
    let Some((_, key)) = known else {
        let names: Vec<&str> = KEYS.iter().map(|(name, _)| *name).collect();
        return Err(format!("the condition key is not supported; allowed: {}", names.join(", ")));
    };
    let (name, if_exists) = match operator.strip_suffix("IfExists") {
        Some(name) if name != "Null" => (name, true),
        _ => (operator, false),
    };
    let values = texts(values)?;
    let equals = |ignoring_case| Test::Equals { values: values.clone(), ignoring_case };
    let like = || Test::Like(values.iter().map(|value| Wildcard::new(value)).collect());
    let compare = |order| Ok::<_, String>(Test::Compare { values: all(&values, number, "a number")?, order });
    let date = |order| Ok::<_, String>(Test::Compare { values: all(&values, moment, "a date")?, order });
    let network = || Ok::<_, String>(Test::Network(all(&values, network, "an address or a network")?));
    let boolean = || all(&values, |text| text.to_ascii_lowercase().parse().ok(), "`true` or `false`");
    let (test, negated) = match name {
        "StringEquals" => (equals(false), false),
        "StringNotEquals" => (equals(false), true),
        "StringEqualsIgnoreCase" => (equals(true), false),
        "StringNotEqualsIgnoreCase" => (equals(true), true),
        "StringLike" | "ArnLike" | "ArnEquals" => (like(), false),
        "StringNotLike" | "ArnNotLike" | "ArnNotEquals" => (like(), true),
        "NumericEquals" => (compare(Order::Equal)?, false),
        "NumericNotEquals" => (compare(Order::Equal)?, true),
        "NumericLessThan" => (compare(Order::Less)?, false),
        "NumericLessThanEquals" => (compare(Order::LessOrEqual)?, false),
        "NumericGreaterThan" => (compare(Order::Greater)?, false),
        "NumericGreaterThanEquals" => (compare(Order::GreaterOrEqual)?, false),
        "DateEquals" => (date(Order::Equal)?, false),
        "DateNotEquals" => (date(Order::Equal)?, true),
        "DateLessThan" => (date(Order::Less)?, false),
        "DateLessThanEquals" => (date(Order::LessOrEqual)?, false),
        "DateGreaterThan" => (date(Order::Greater)?, false),
        "DateGreaterThanEquals" => (date(Order::GreaterOrEqual)?, false),
        "IpAddress" => (network()?, false),
        "NotIpAddress" => (network()?, true),
        "Bool" => (Test::Bool(boolean()?), false),
        "Null" => (Test::Null(boolean()?), false),
        _ => {
            return Err("the condition operator is not supported; allowed: String, Numeric, Date, Arn, IpAddress, \
                        Bool and Null operators, without ForAllValues and ForAnyValue"
                .to_owned());
        }
    };
    Ok(Condition { key: *key, test, negated, if_exists })
}

/// Returns one value or a list of values as texts.
fn texts(value: &Value) -> Result<Vec<String>, String> {
    let values = match value {
        Value::Array(values) => values.as_slice(),
        single => std::slice::from_ref(single),
    };
    let text = |value: &Value| match value {
        Value::String(text) if text.contains("${") => Err("policy variables are not supported".to_owned()),
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err("a value is text, a number or a boolean".to_owned()),
    };
    if values.is_empty() {
        return Err("the list of values is empty".to_owned());
    }
    values.iter().map(text).collect()
}

fn all<T>(values: &[String], parse: impl Fn(&str) -> Option<T>, wanted: &str) -> Result<Vec<T>, String> {
    values.iter().map(|value| parse(value).ok_or_else(|| format!("`{value}` is not {wanted}"))).collect()
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Parses a date in ISO 8601, or a number of seconds, into seconds since 1970.
fn moment(text: &str) -> Option<f64> {
    let date_alone = text.len() == 10 && text.contains('-');
    let text = if date_alone { format!("{text}T00:00:00Z") } else { text.to_owned() };
    match OffsetDateTime::parse(&text, &Rfc3339) {
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a double")]
        Ok(moment) => Some(moment.unix_timestamp() as f64),
        Err(_) => number(&text),
    }
}

fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()
}

impl Condition {
    /// Returns true if the request meets the condition. A key without a value fails every test but negated ones, as on
    /// AWS.
    pub(super) fn is_met(&self, keys: &ConditionKeys<'_>) -> bool {
        let value = keys.value(self.key);
        if let Test::Null(wanted) = &self.test {
            return wanted.contains(&value.is_none());
        }
        match value {
            None => self.if_exists || self.negated,
            Some(value) => self.test.passes(&value) != self.negated,
        }
    }
}

impl Test {
    fn passes(&self, value: &str) -> bool {
        match self {
            Test::Equals { values, ignoring_case: false } => values.iter().any(|wanted| wanted == value),
            Test::Equals { values, ignoring_case: true } => {
                values.iter().any(|wanted| wanted.to_lowercase() == value.to_lowercase())
            }
            Test::Like(patterns) => patterns.iter().any(|pattern| pattern.matches(value)),
            Test::Compare { values, order } => {
                moment(value).is_some_and(|value| values.iter().any(|wanted| order.holds(value, *wanted)))
            }
            Test::Network(networks) => {
                let address = value.parse::<IpAddr>();
                address.is_ok_and(|address| networks.iter().any(|network| network.contains(&address)))
            }
            Test::Bool(values) => value.parse().is_ok_and(|value| values.contains(&value)),
            Test::Null(_) => false,
        }
    }
}

impl Order {
    fn holds(self, value: f64, wanted: f64) -> bool {
        match self {
            #[expect(clippy::float_cmp, reason = "a policy asks for equality")]
            Order::Equal => value == wanted,
            Order::Less => value < wanted,
            Order::LessOrEqual => value <= wanted,
            Order::Greater => value > wanted,
            Order::GreaterOrEqual => value >= wanted,
        }
    }
}

impl ConditionKeys<'_> {
    fn value(&self, key: Key) -> Option<String> {
        match key {
            Key::SourceIp => Some(self.source_ip.to_canonical().to_string()),
            Key::UserAgent => self.user_agent.map(str::to_owned),
            Key::SecureTransport => Some(self.secure_transport.to_string()),
            Key::CurrentTime | Key::EpochTime => Some((self.now.millis() / 1000).to_string()),
            Key::Username => self.user.map(|(name, _)| name.to_owned()),
            Key::PrincipalArn => self.user.map(|(_, arn)| arn.to_owned()),
        }
    }
}
