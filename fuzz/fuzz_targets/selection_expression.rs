//! Any expression over any message: neither panics, and only JSON selects something.
//!
//! Input: the expression, a line feed, the message.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;
use tidegate::expression::{BodyPath, SelectionExpression};

fuzz_target!(|input: &str| {
    let Some((expression, message)) = input.split_once('\n') else { return };

    if let Ok(expression) = SelectionExpression::parse(expression) {
        let selected = expression.evaluate(message);
        let is_json = serde_json::from_str::<IgnoredAny>(message).is_ok();
        assert!(selected.is_none() || is_json, "a message that is not JSON selected {selected:?}");
        // Half of a surrogate pair is JSON, but no text where it is selected. `Value` refuses it everywhere.
        if serde_json::from_str::<Value>(message).is_ok() {
            assert!(selected.is_some(), "a JSON message selected nothing");
        }
    }
    if let Ok(path) = BodyPath::parse(expression) {
        let _ = path.evaluate(message);
    }
});
