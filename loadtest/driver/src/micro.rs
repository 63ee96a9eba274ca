//! Reads what gungraun counted: `cargo bench --package tidegate-micro -- --output-format=json`.

use anyhow::Context as _;
use serde_json::Value;

/// One function with one input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) function: String,
    pub(crate) case: String,
    pub(crate) instructions: u64,
}

/// All that was counted, in the order in which it ran.
pub(crate) fn read(json: &[u8]) -> anyhow::Result<Vec<Counted>> {
    let summaries = serde_json::Deserializer::from_slice(json).into_iter::<Value>();
    let mut counted = Vec::new();
    for summary in summaries {
        let summary = summary?;
        let text = |name: &str| summary[name].as_str().map(str::to_owned);
        counted.push(Counted {
            function: text("function_name").context("a summary has no function")?,
            case: text("id").unwrap_or_default(),
            instructions: instructions(&summary)
                .context("nothing was counted: has the benchmark symbols, and is valgrind there?")?,
        });
    }
    Ok(counted)
}

/// A table for people.
pub(crate) fn table(counted: &[Counted]) -> String {
    let mut text = "| function | case | instructions |\n|---|---|---|\n".to_owned();
    for Counted { function, case, instructions } in counted {
        text.push_str(&format!("| {function} | {case} | {instructions} |\n"));
    }
    text
}

/// None if there is no count, or if nothing was counted: then the program has no symbols, and the function was not found.
fn instructions(summary: &Value) -> Option<u64> {
    let count = &summary["profiles"][0]["data"]["total"]["metrics"]["Ir"]["values"]["new"];
    count.as_u64().filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_of_nothing_is_an_error() {
        let summary = |count: u64| {
            let metrics = serde_json::json!({"Ir": {"values": {"new": count}}});
            let profiles = serde_json::json!([{"data": {"total": {"metrics": metrics}}}]);
            serde_json::json!({"function_name": "select_route", "id": "small", "profiles": profiles}).to_string()
        };
        let counted = read(format!("{}\n{}\n", summary(7), summary(9)).as_bytes()).unwrap();
        assert_eq!(table(&counted).lines().last(), Some("| select_route | small | 9 |"));
        assert!(read(summary(0).as_bytes()).is_err());
    }
}
