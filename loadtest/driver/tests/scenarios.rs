//! Every short scenario, for a second and with few clients, on the floor and on tidegate as they are built for tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Scenarios that some targets cannot play. They are played as soon as the targets can: then this list is wrong and the
/// test says so.
const NOT_PLAYED: [(&str, &str); 4] =
    [("join-100000", "floor"), ("overload", "floor"), ("overload-slow-backend", "floor"), ("push-cross-node", "floor")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The program, from the environment or built now, in the directory where this test is built.
///
/// It is built as a part of the workspace with its tests, so that after `cargo test --workspace` nothing is left to build:
/// a package by itself would have dependencies with other features.
fn program(variable: &str, package: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--workspace", "--bin", package, "--test", "scenarios"])
        .current_dir(root())
        .status()
        .expect("cargo starts");
    assert!(built.success(), "{package} does not build");
    let driver = Path::new(env!("CARGO_BIN_EXE_tidegate-loadtest"));
    driver.parent().expect("a program is in a directory").join(package)
}

fn driver(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate-loadtest"))
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("the driver starts")
}

fn short_scenarios() -> Vec<String> {
    let listed = driver(&["list"]);
    let listed = String::from_utf8(listed.stdout).expect("text");
    let names = listed.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        (words.next()? == "short").then(|| name.to_owned())
    });
    names.collect()
}

#[test]
fn every_short_scenario_is_played_without_an_error() {
    let (tidegate, floor) = (program("TIDEGATE_BIN", "tidegate"), program("TIDEGATE_FLOOR_BIN", "tidegate-floor"));
    let directory = tempfile::tempdir().expect("a directory");
    let (json, plots) = (directory.path().join("report.json"), directory.path().join("plots"));
    let budgets = directory.path().join("budgets.yaml");
    // A debug build meets no budget.
    std::fs::write(&budgets, "noisePercent: 15\nbudgets: []\n").expect("a file");
    let scenarios = short_scenarios();
    assert!(scenarios.len() >= 10, "{scenarios:?}");

    let mut arguments: Vec<&str> = vec!["bench", "--targets", "floor,tidegate", "--rounds", "1"];
    arguments.extend(["--connections", "20", "--warmup-seconds", "0.2", "--seconds", "1"]);
    for scenario in &scenarios {
        arguments.extend(["--scenario", scenario.as_str()]);
    }
    let paths = [
        ("--tidegate", &tidegate),
        ("--floor", &floor),
        ("--budgets", &budgets),
        ("--json", &json),
        ("--plots", &plots),
    ];
    for (option, path) in paths {
        arguments.extend([option, path.to_str().expect("a path in UTF-8")]);
    }
    let output = driver(&arguments);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");

    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("a report")).expect("JSON");
    let mut not_played = BTreeSet::new();
    for played in report["scenarios"].as_array().expect("scenarios") {
        let name = played["scenario"]["name"].as_str().expect("a name");
        for target in played["notPlayed"].as_object().expect("targets").keys() {
            not_played.insert((name, target.as_str()));
        }
        for rounds in played["targets"].as_array().expect("targets") {
            let figures = &rounds["outcomes"][0]["figures"];
            let main = match name {
                "idle" | "idle-tls" => "rss_mib",
                "overload" | "overload-slow-backend" => "goodput_percent",
                _ => "operations_per_second",
            };
            let value = figures[main].as_f64();
            assert!(value.is_some_and(|value| value > 0.0), "{name} on {}: {figures}", rounds["target"]);
        }
    }
    assert_eq!(not_played, BTreeSet::from(NOT_PLAYED));
}

#[test]
fn what_grows_is_compared_with_its_first_value_and_what_the_machine_cannot_hold_is_said() {
    let tidegate = program("TIDEGATE_BIN", "tidegate");
    let directory = tempfile::tempdir().expect("a directory");
    let (growths, json) = (directory.path().join("growth.yaml"), directory.path().join("growth.json"));
    let text = "growths:
  - { name: connected, description: Messages., scenario: dispatch-paced, target: tidegate, vary: connections, values: [5, 10, 2000000000], figure: cpu_ms_per_1000 }
  - { name: routed, description: Messages., scenario: dispatch, target: tidegate, vary: routes, values: [1, 3], figure: cpu_ms_per_1000 }
  - { name: spread, description: Posts., scenario: cluster-group, target: tidegate, vary: nodes, values: [1, 2], figure: cpu_seconds_per_million }
";
    std::fs::write(&growths, text).expect("a file");
    let mut arguments = vec!["growth", "--rounds", "1", "--seconds", "1", "--warmup-seconds", "0.2"];
    for (option, path) in [("--tidegate", &tidegate), ("--growths", &growths), ("--json", &json)] {
        arguments.extend([option, path.to_str().expect("a path in UTF-8")]);
    }
    let output = driver(&arguments);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("it would be the machine's limit that is measured"), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("a report")).expect("JSON");
    for grown in report["growths"].as_array().expect("growths") {
        let figure = grown["growth"]["figure"].as_str().expect("a figure");
        for step in grown["steps"].as_array().expect("steps").iter().filter(|step| step["notPlayed"].is_null()) {
            let value = step["outcomes"][0]["figures"][figure].as_f64();
            assert!(value.is_some_and(|value| value > 0.0), "{step}");
        }
    }
}

#[test]
fn what_was_measured_becomes_one_page_that_says_what_was_not() {
    let floor = program("TIDEGATE_FLOOR_BIN", "tidegate-floor");
    let directory = tempfile::tempdir().expect("a directory");
    let (json, page, plots) =
        (directory.path().join("bench.json"), directory.path().join("RESULTS.md"), directory.path().join("plots"));
    let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    let (floor, json, from) = (text(&floor), text(&json), text(directory.path()));
    let mut arguments = vec!["bench", "--scenario", "mixed", "--targets", "floor", "--rounds", "1", "--floor", &floor];
    arguments.extend(["--connections", "5", "--warmup-seconds", "0.2", "--seconds", "3", "--json", &json]);
    let measured = driver(&arguments);
    assert!(measured.status.success(), "{}", String::from_utf8_lossy(&measured.stdout));
    let (out, plots) = (text(&page), text(&plots));
    let written = driver(&["results", "--from", &from, "--out", &out, "--plots", &plots]);
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let page = std::fs::read_to_string(page).expect("a page");
    for part in
        ["### mixed", "| operations a second |", "![mixed](plots/mixed.svg)", "Not measured; `make bench-growth`"]
    {
        assert!(page.contains(part), "no {part} in {page}");
    }
    assert!(Path::new(&plots).join("mixed.svg").exists());
}

#[test]
fn a_target_elsewhere_is_refused() {
    let output = driver(&["bench", "--attach", "ws://192.0.2.1:8080/prod", "--backend", "127.0.0.1:0"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--allow-remote-targets-i-own"), "{said}");
}

#[test]
fn more_connections_than_open_files_are_refused_with_the_reason() {
    let output = driver(&["bench", "--scenario", "idle", "--connections", "2000000000"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("machine"), "{said}");
}

/// A gateway that answers wrongly has no throughput: here one whose backend is not the driver's.
#[test]
fn a_wrong_reply_is_an_error() {
    let floor = program("TIDEGATE_FLOOR_BIN", "tidegate-floor");
    let directory = tempfile::tempdir().expect("a directory");
    let wrapper = directory.path().join("floor");
    let floor = floor.to_str().expect("a path in UTF-8");
    // Calls go to the path of events, where a message that is no event is refused.
    let script = format!("#!/bin/sh\nexec {floor} --backend \"$(echo \"$2\" | sed s,/raw,/event,)\"\n");
    std::fs::write(&wrapper, script).expect("a file");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&wrapper, executable).expect("a mode");
    let wrapper = wrapper.to_str().expect("a path in UTF-8");
    let mut arguments = vec!["bench", "--scenario", "dispatch", "--targets", "floor", "--floor", wrapper];
    arguments.extend(["--rounds", "1", "--connections", "2", "--warmup-seconds", "0.1", "--seconds", "0.5"]);
    let output = driver(&arguments);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("a wrong reply") && said.contains("operations a second | 0.00"), "{said}");
}
