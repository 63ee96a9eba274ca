use std::borrow::Cow;

/// Content type of OpenMetrics.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Content type of Prometheus's own text format.
pub const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Returns true if the `Accept` header of a request asks for OpenMetrics. Prometheus asks for it; `curl` and `promtool`
/// do not.
pub fn wants_open_metrics(accept: Option<&str>) -> bool {
    accept.is_some_and(|accept| accept.contains("application/openmetrics-text"))
}

/// Turns OpenMetrics into Prometheus's text format. They differ in how a counter is described: with `_total` in its
/// name in Prometheus's format, and without it in OpenMetrics. Samples are the same.
pub(super) fn prometheus_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
            continue;
        }
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let name = if kind == "counter" { Cow::Owned(format!("{name}_total")) } else { Cow::Borrowed(name) };
            if let Some((_, help)) = help.take() {
                text.push_str(&format!("# HELP {name} {help}\n"));
            }
            text.push_str(&format!("# TYPE {name} {kind}\n"));
            continue;
        }
        if line != "# EOF" {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_described_by_the_name_that_they_are_read_by() {
        let open_metrics =
            "# HELP a Things.\n# TYPE a counter\na_total{x=\"1\"} 2\n# HELP b Bs.\n# TYPE b gauge\nb 1\n# EOF\n";
        let expected =
            "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"1\"} 2\n# HELP b Bs.\n# TYPE b gauge\nb 1\n";
        assert_eq!(prometheus_text(open_metrics), expected);
    }

    #[test]
    fn prometheus_gets_what_it_asks_for() {
        let check =
            |accept: Option<&str>, expected: bool| assert_eq!(wants_open_metrics(accept), expected, "{accept:?}");
        check(None, false);
        check(Some("*/*"), false);
        check(Some("text/plain;version=0.0.4"), false);
        check(Some("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"), true);
    }
}
