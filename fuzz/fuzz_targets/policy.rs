//! Any policy and any request: neither panics, a policy that denies everything denies, and a pattern of its own text
//! matches.
//!
//! Input: a pattern, a line feed, a text, a line feed, a policy as JSON.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use tidegate_access::iam::policy::{Decision, Policy, PolicyRequest};
use tidegate_access::iam::{ConditionKeys, Wildcard};
use tidegate_core::clock::Timestamp;

fuzz_target!(|input: &str| {
    let mut parts = input.splitn(3, '\n');
    let [pattern, text, document] = [(); 3].map(|()| parts.next().unwrap_or_default());
    if !text.contains(['*', '?']) {
        assert!(Wildcard::new(text).matches(text));
    }
    assert!(!Wildcard::new(pattern).matches(text) || Wildcard::new(&format!("*{pattern}*")).matches(text));

    let keys = ConditionKeys {
        source_ip: IpAddr::from([127, 0, 0, 1]),
        user_agent: Some(text),
        secure_transport: false,
        now: Timestamp(1_790_295_749_887),
        user: Some((text, text)),
    };
    let request = PolicyRequest { action: pattern, resource: text, keys: &keys };
    if let Some(policy) = serde_json::from_str(document).ok().and_then(|value| Policy::parse(&value).ok()) {
        let _ = policy.evaluate(&request);
    }
    let mut document: Value = serde_json::from_str(document).unwrap_or_default();
    if let Some(Value::Array(statements)) = document.get_mut("Statement") {
        statements.push(json!({ "Effect": "Deny", "Action": "*", "Resource": "*" }));
        if let Ok(policy) = Policy::parse(&document) {
            assert_eq!(policy.evaluate(&request), Decision::ExplicitDeny);
        }
    }
});
