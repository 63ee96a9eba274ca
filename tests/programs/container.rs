//! Containers: the image's configuration and its health check, and deploy/ for several nodes. No engine is
//! needed.

use std::io::Write as _;
use std::path::Path;

use tempfile::NamedTempFile;
use tidegate_testing::{Tidegate, run, tidegate_path};

/// The health check of the Dockerfile, for another internal port.
async fn is_healthy(port: u16) -> bool {
    let dockerfile = include_str!("../../Dockerfile");
    let check = dockerfile.lines().find_map(|line| line.trim().strip_prefix("CMD [\"bash\"")).expect("a health check");
    let command: Vec<String> = serde_json::from_str(&format!("[\"bash\"{check}")).expect("its exec form is JSON");
    let command: Vec<String> = command.iter().map(|part| part.replace("8081", &port.to_string())).collect();
    let arguments: Vec<&str> = command[1..].iter().map(String::as_str).collect();
    run(&command[0], &arguments, &[]).await.0
}

#[tokio::test]
async fn the_images_gateway_is_healthy_until_it_is_gone() {
    let text = include_str!("../../config/container.yaml").replace(":8080\n", ":0\n");
    let text = text.replace("address: 0.0.0.0:8081 ", "address: 127.0.0.1:0 ").replace("0.0.0.0", "127.0.0.1");
    let config = NamedTempFile::with_suffix(".yaml").expect("a file");
    std::fs::write(config.path(), text).expect("the file can be written");
    let gateway = Tidegate::serve(config.path(), &[]).await;
    let port = gateway.internal.port();
    assert!(is_healthy(port).await);
    drop(gateway);
    assert!(!is_healthy(port).await);
}

#[tokio::test]
async fn shipped_configurations_leave_two_decisions_to_their_user_in_a_line_each() {
    for name in ["config/demo.yaml", "config/tidegate.yaml", "examples/tidegate.yaml"] {
        let (path, output) = check(name).await;
        let (fine, warnings) = output.split_once('\n').expect("lines");
        assert_eq!(fine, format!("{path}: fine"));
        assert_eq!(warnings.lines().filter(|line| line.starts_with("warning: ")).count(), 2, "{output}");
        assert_eq!(warnings.lines().count(), 2, "{output}");
        assert!(warnings.contains("`callbackBaseUrl`") && warnings.contains("`allowOrigins`"), "{output}");
    }
}

#[tokio::test]
async fn the_images_configuration_leaves_one_decision_to_its_user() {
    let (path, output) = check("config/container.yaml").await;
    // Standard output first, then standard error.
    let (fine, warning) = output.split_once('\n').expect("two lines");
    assert_eq!(fine, format!("{path}: fine"));
    assert!(warning.starts_with("warning: ") && warning.contains("allowOrigins"), "{output}");
    assert_eq!(warning.lines().count(), 1, "{output}");
}

#[tokio::test]
async fn compose_and_kubernetes_are_fine_by_their_own_rules() {
    let (succeeded, output) = run(concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/check-deploy"), &[], &[]).await;
    if let Some(why) = output.lines().find(|line| line.starts_with("skipped: ")) {
        // Past the capture of the test's output, so that nobody takes it for a run.
        writeln!(std::io::stderr(), "{why}").expect("stderr is open");
    }
    assert!(succeeded, "{output}");
}

#[tokio::test]
async fn nodes_take_the_configurations_of_compose_and_kubernetes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("cluster-secret"), "a secret of sixteen").expect("written");
    std::fs::write(path("redis-url"), "redis://redis:6379/0").expect("written");
    let manifest = include_str!("../../deploy/kubernetes/config.yaml");
    let (_, text) = manifest.split_once("tidegate.yaml: |\n").expect("a configuration");
    let text: String = text.lines().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect();
    std::fs::write(path("tidegate.yaml"), text.replace("/run/secrets/tidegate", &path(""))).expect("written");
    let compose = include_str!("../../deploy/compose.yaml");
    let variables = compose.lines().filter_map(|line| line.strip_prefix("  TIDEGATE_")?.split_once(": "));
    let mut environment: Vec<(String, &str)> = variables
        .map(|(name, value)| (format!("TIDEGATE_{name}"), value))
        .filter(|(_, value)| !value.starts_with('$'))
        .collect();
    assert!(environment.len() >= 5, "{environment:?}");
    for (name, value) in [
        ("TIDEGATE_CLUSTER_SECRET", "a secret of sixteen"),
        ("TIDEGATE_BACKEND", "http://chat:9000/"),
        ("TIDEGATE_ADVERTISE", "node-1:8082"),
        ("POD_NAME", "tidegate-0"),
        ("POD_NAMESPACE", "tidegate"),
    ] {
        environment.push((name.to_owned(), value));
    }
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    for file in [concat!(env!("CARGO_MANIFEST_DIR"), "/config/cluster.yaml").to_owned(), path("tidegate.yaml")] {
        let (_, output) = run(tidegate_path(), &["check", "--config", &file], &environment).await;
        assert_eq!(output, format!("{file}: fine\n"));
    }
}

async fn check(name: &str) -> (String, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name).display().to_string();
    let (_, output) = run(tidegate_path(), &["check", "--config", &path], &[]).await;
    (path, output)
}
