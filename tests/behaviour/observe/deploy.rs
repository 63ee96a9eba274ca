//! The dashboard and the alert rules ask for metrics that there are.

use std::collections::BTreeSet;

use serde_json::Value;
use tidegate_telemetry::Metrics;

use crate::observe::programs::promtool;

fn read(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every name in a text that looks like one of a metric.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words =
        text.split(|c: char| !is_part(c)).filter(|word| word.starts_with("tidegate_") || word.starts_with("process_"));
    words.map(str::to_owned).collect()
}

#[test]
fn every_metric_that_they_use_exists() {
    let known: BTreeSet<String> = Metrics::new("memory").names().iter().cloned().collect();
    for path in ["deploy/grafana/dashboard.json", "deploy/prometheus/alerts.yaml"] {
        let used = names(&read(path));
        assert!(used.len() >= 8, "{path} uses {used:?}");
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?}");
    }
}

#[test]
fn prometheus_takes_the_rules_and_grafana_the_dashboard() {
    promtool(&["check", "rules", concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus/alerts.yaml")], "");
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<i64> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    assert!(panels.iter().all(|panel| panel["type"] == "row" || panel["targets"][0]["expr"].is_string()));
}

#[test]
fn the_page_of_the_docs_names_metrics_that_there_are() {
    let known: BTreeSet<String> = Metrics::new("memory").names().iter().cloned().collect();
    let documented = names(&read("docs/observability.md"));
    // A family of names is written with a star, or without the suffix of a histogram.
    let unknown: Vec<_> = documented
        .iter()
        .filter(|name| {
            !known.iter().any(|known| known == *name || known.starts_with(&format!("{}_", name.trim_end_matches('_'))))
        })
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let missing: Vec<_> = known.iter().filter(|name| !name.ends_with("_bucket") && !name.ends_with("_sum")).collect();
    let missing: Vec<_> = missing
        .into_iter()
        .filter(|name| !documented.contains(name.trim_end_matches("_count")) && !documented.contains(*name))
        .collect();
    assert!(missing.is_empty(), "not in the docs: {missing:?}");
}
