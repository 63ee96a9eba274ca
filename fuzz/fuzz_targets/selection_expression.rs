//! Any expression over any message: neither panics, and only JSON selects something.
//!
//! Input: the expression, a line feed, the message.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_language::expression::{BodyPath, SelectionExpression};
use tidegate_core::json;

fuzz_target!(|input: &str| {
    let Some((expression, message)) = input.split_once('\n') else { return };

    if let Ok(expression) = SelectionExpression::parse(expression) {
        let selected = expression.evaluate(message);
        assert_eq!(selected.is_some(), json::is_json(message), "JSON alone selects something: {selected:?}");
    }
    if let Ok(path) = BodyPath::parse(expression) {
        let _ = path.evaluate(message);
    }
});
