use std::io::Write as _;
use std::process::{Command, Stdio};

/// Runs `promtool`, of Debian's package `prometheus`, with this input, and expects it to be content.
pub(crate) fn promtool(arguments: &[&str], input: &str) {
    let child = Command::new("promtool").args(arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("promtool is there: apt-get install prometheus");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && complaints.trim().is_empty(), "{complaints}\n{input}");
}
