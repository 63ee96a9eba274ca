//! The binary that is shipped: commands, signals and exit codes.

use std::path::Path;

use tempfile::TempDir;
use tidegate_testing::{Process, Reply, Settings, TestBackend, TestClient, eventually, http, run_tidegate, spawn};

/// The configuration of some settings as a file.
fn write(folder: &TempDir, settings: &Settings) -> String {
    let path = folder.path().join("tidegate.yaml");
    std::fs::write(&path, settings.text()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn serve(path: &str) -> Process {
    Process::tidegate(&["serve", "--config", path, "--log-format", "json"], &[])
}

async fn status(address: std::net::SocketAddr, target: &str) -> u16 {
    http(address, "GET", target, &[], b"").await.status
}

#[tokio::test]
async fn sighup_puts_a_good_file_in_force_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let backend = TestBackend::start().await;
    let settings = Settings::aws_proxy(&backend);
    let path = write(&folder, &settings);
    let mut process = serve(&path);
    let (public, _) = process.addresses().await;
    let mut client = TestClient::connect(public, "/prod", &[]).await.unwrap();

    std::fs::write(&path, "limits: { messageBytes: none }\nnonsense: 1\n").unwrap();
    process.signal("HUP");
    let line = process.stderr.log("could not reload the configuration").await;
    assert_eq!(line["level"], "ERROR");
    let message = line.to_string();
    assert!(message.contains(":1: limits.messageBytes") && message.contains(":2: nonsense"), "{message}");
    client.send(r#"{"action":"fresh"}"#).await;
    assert_eq!(backend.next("MESSAGE").await.header("x-tidegate-route-key"), "$default");

    write(&folder, &settings.clone().route("fresh: { target: integrations/backend }"));
    process.signal("HUP");
    process.stderr.log("the configuration was reloaded").await;
    client.send(r#"{"action":"fresh"}"#).await;
    assert_eq!(backend.next("MESSAGE").await.header("x-tidegate-route-key"), "fresh");

    std::fs::remove_file(&path).unwrap();
    process.signal("HUP");
    process.stderr.find("a missing file", |line| line.contains("could not read").then_some(())).await;
    client.send("x").await;
    backend.next("MESSAGE").await;
}

#[tokio::test]
async fn a_file_that_is_being_written_when_sighup_comes_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let backend = TestBackend::start().await;
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let secret = file("secret", "b2xkIG9sZCBvbGQgb2xkIG9sZCBvbGQgb2xk\n");
    let key = file("key", "open sesame\n");
    let settings = Settings::aws_proxy(&backend)
        .integration(format!("signing: {{ secrets: [ \"${{file:{secret}}}\" ] }}"))
        .section(format!("apiKeys: {{ mobile: {{ value: \"${{file:{key}}}\" }} }}"));
    let path = write(&folder, &settings);
    let mut process = serve(&path);
    let (public, internal) = process.addresses().await;
    let mut client = TestClient::connect(public, "/prod", &[]).await.unwrap();
    let reloads = async |outcome: &str| {
        let page = http(internal, "GET", "/metrics", &[], b"").await;
        let name = format!("tidegate_reloads_total{{outcome=\"{outcome}\"}} ");
        let count = page.text().lines().find_map(|line| line.strip_prefix(&name)?.parse::<usize>().ok());
        count.unwrap_or(0)
    };
    let text = settings.text();
    let listeners = text.split("apis:").next().unwrap();
    let truncated = [
        (&path, ""),
        (&path, "{}"),
        (&path, "# to be filled in\n"),
        (&path, listeners),
        (&path, "apis: {}\n"),
        (&secret, ""),
        (&key, "\n"),
    ];
    for (number, (path, content)) in truncated.into_iter().enumerate() {
        let whole = std::fs::read_to_string(path).unwrap();
        std::fs::write(path, content).unwrap();
        process.signal("HUP");
        eventually("a refused reload", async || reloads("refused").await == number + 1).await;
        client.send("x").await;
        backend.next("MESSAGE").await;
        let newcomer = TestClient::connect(public, "/prod", &[]).await.unwrap();
        assert_eq!(newcomer.close(None).await.0, 1005);
        std::fs::write(path, whole).unwrap();
    }
    process.signal("HUP");
    eventually("a good reload", async || reloads("ok").await == 1).await;
    assert_eq!(reloads("refused").await, 7);
    client.close(Some((1000, ""))).await;
    backend.next("DISCONNECT").await;
}

#[tokio::test]
async fn sigterm_drains_and_exits_with_0() {
    for signal in ["TERM", "INT"] {
        let folder = tempfile::tempdir().unwrap();
        let backend = TestBackend::start().await;
        let settings = Settings::aws_proxy(&backend).section("drain: { graceMillis: 20000 }");
        let mut process = serve(&write(&folder, &settings));
        let (public, internal) = process.addresses().await;
        assert_eq!((status(internal, "/readyz").await, status(internal, "/healthz").await), (200, 200));
        let mut client = TestClient::connect(public, "/prod", &[]).await.unwrap();
        let gate = tidegate_testing::Gate::default();
        backend.answer("DISCONNECT", Reply::ok().held(&gate));
        process.signal(signal);
        assert_eq!(client.next_close().await, (1001, "Going away".to_owned()));
        assert_eq!(backend.next("DISCONNECT").await.closing(), (1001, "Going away".to_owned()));
        assert_eq!((status(internal, "/readyz").await, status(internal, "/healthz").await), (503, 200));
        gate.open();
        assert_eq!(process.exit().await, 0);
        let lines = process.stderr.all().await;
        assert!(!lines.iter().any(|line| line.contains("could not deliver")), "{lines:#?}");
    }
}

#[tokio::test]
async fn what_could_not_be_delivered_is_named_and_the_exit_is_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let backend = TestBackend::start().await;
    let settings = Settings::aws_proxy(&backend).section("drain: { graceMillis: 1500 }");
    let mut process = serve(&write(&folder, &settings));
    let (public, _) = process.addresses().await;
    let _client = TestClient::connect(public, "/prod", &[]).await.unwrap();
    let id = backend.next("CONNECT").await.connection_id().to_owned();
    backend.answer("DISCONNECT", Reply::hang());
    let start = tokio::time::Instant::now();
    process.signal("TERM");
    assert_eq!(process.exit().await, 0);
    assert!(start.elapsed().as_millis() < 1500 + 1000, "{:?}", start.elapsed());
    let line = process.stderr.log("could not deliver").await;
    assert_eq!((&line["level"], &line["connection_ids"]), (&"ERROR".into(), &id.into()));
}

#[tokio::test]
async fn a_second_signal_ends_a_drain_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let backend = TestBackend::start().await;
    let settings = Settings::aws_proxy(&backend).section("drain: { graceMillis: 600000 }");
    let mut process = serve(&write(&folder, &settings));
    let (public, _) = process.addresses().await;
    let _client = TestClient::connect(public, "/prod", &[]).await.unwrap();
    backend.answer("DISCONNECT", Reply::hang());
    process.signal("TERM");
    backend.next("DISCONNECT").await;
    process.signal("TERM");
    assert_eq!(process.exit().await, 0);
}

#[tokio::test]
async fn a_port_in_use_is_said_and_the_exit_is_1() {
    let folder = tempfile::tempdir().unwrap();
    let backend = TestBackend::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let settings = Settings::aws_proxy(&backend);
    let text = settings.text().replacen("127.0.0.1:0", &address.to_string(), 1);
    let path = folder.path().join("tidegate.yaml");
    std::fs::write(&path, text).unwrap();
    let mut process = serve(path.to_str().unwrap());
    assert_eq!(process.exit().await, 1);
    let lines = process.stderr.all().await.join("\n");
    assert!(lines.contains(&format!("could not listen on {address}")), "{lines}");
    assert!(lines.to_lowercase().contains("in use"), "{lines}");
    assert!(process.stdout.all().await.is_empty());
}

#[tokio::test]
async fn no_secrets_are_logged() {
    let folder = tempfile::tempdir().unwrap();
    let backend = TestBackend::start().await;
    let settings = Settings::aws_proxy(&backend).section("limits: { messageBytes: 100 }");
    let mut process = serve(&write(&folder, &settings));
    let (public, internal) = process.addresses().await;
    for status in [200, 403, 500] {
        backend.answer("CONNECT", Reply::http(status, r#"{"statusCode":200,"body":"s3cret"}"#));
        let headers = [("authorization", "Bearer s3cret"), ("cookie", "s3cret")];
        let client = TestClient::connect(public, "/prod?token=s3cret", &headers).await;
        let id = backend.next("CONNECT").await.connection_id().to_owned();
        if let Ok(mut client) = client {
            backend.answer("MESSAGE", Reply::http(500, "s3cret"));
            client.send("s3cret").await;
            client.next_text().await;
            http(internal, "POST", &format!("/prod/@connections/{id}?x=s3cret"), &[], b"s3cret").await;
            backend.answer("DISCONNECT", Reply::http(500, "s3cret"));
            client.send(&"s3cret".repeat(100)).await;
        }
    }
    process.signal("TERM");
    assert_eq!(process.exit().await, 0);
    let lines = process.stderr.all().await;
    assert!(lines.len() > 3, "something is logged");
    assert!(!lines.join("\n").contains("s3cret"), "{lines:#?}");
}

#[tokio::test]
async fn check_names_every_mistake_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.yaml");
    let text = "\
limits:
  messageByte: 1
drain: { graceMillis: 1 }
region: ${env:TIDEGATE_TEST_NOT_SET}
apis:
  chat:
    routeSelectionExpression: $request.body.action
    integrations:
      backend: { integrationType: LAMBDA, integrationUri: http://127.0.0.1:9000/ }
    stages: { prod: {} }
";
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let output = run_tidegate(&["check", "--config", path]).await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    for (line, place, hint) in [
        (2, "limits.messageByte", "messageBytes"),
        (3, "drain.graceMillis", "100"),
        (4, "region", "TIDEGATE_TEST_NOT_SET"),
        (9, "apis.chat.integrations.backend.integrationType", "AWS_PROXY"),
    ] {
        let start = format!("{path}:{line}: {place}");
        assert!(said.lines().any(|said| said.starts_with(&start) && said.contains(hint)), "{start}\n{said}");
    }

    std::fs::write(path, "drain: {}\n").unwrap();
    for command in ["check", "serve"] {
        let output = run_tidegate(&[command, "--config", path]).await;
        assert_eq!(output.status.code(), Some(1), "{command}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(&format!("{path}:1: apis: there is no API")), "{command}: {said}");
    }
    let output = run_tidegate(&["serve", "--config", "/nowhere/tidegate.yaml"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/nowhere/tidegate.yaml"));
    let output = run_tidegate(&["check", "--config", "/nowhere/tidegate.yaml"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("No such file"), "the cause is said too");
}

#[tokio::test]
async fn a_configuration_may_be_json_with_every_escape() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.json");
    let text = "\u{feff}{\r\n\t\"region\": \"eu-west-1\",\r\n\t\"apis\": { \"chat\": {\r\n\t\t\"name\": \"\\ud83d\\ude00 \\/ \\u00e9\\b\\f\",\r\n\
                \t\t\"routeSelectionExpression\": \"$request.body.action\",\r\n\t\t\"integrations\": { \"backend\": {\r\n\
                \t\t\t\"integrationType\": \"AWS_PROXY\", \"integrationUri\": \"http:\\/\\/127.0.0.1:9000\\/\" } },\r\n\
                \t\t\"routes\": { \"\\ud83d\\ude00\": { \"target\": \"integrations\\/backend\" } },\r\n\t\t\"stages\": { \"prod\": {} }\r\n\t} }\r\n}\r\n";
    std::fs::write(&path, text).unwrap();
    let output = run_tidegate(&["check", "--config", path.to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));

    std::fs::write(&path, text.replacen("\\ude00", "", 1)).unwrap();
    let output = run_tidegate(&["check", "--config", path.to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("{}:4: `\\ud83d` is half of a surrogate pair", path.display())), "{said}");
}

#[tokio::test]
async fn bad_usage_is_2_and_help_is_0() {
    for arguments in [&["serve", "--nonsense"][..], &["nonsense"], &[], &["demo", "--port", "x"], &["check", "file"]] {
        let output = run_tidegate(arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["serve", "--help"],
        &["demo", "--help"],
        &["check", "--help"],
        &["schema", "--help"],
    ] {
        let output = run_tidegate(arguments).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty());
    }
}

#[tokio::test]
async fn the_printed_schema_is_the_committed_one() {
    let output = run_tidegate(&["schema"]).await;
    assert_eq!(output.status.code(), Some(0));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tidegate.schema.json");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), std::fs::read_to_string(path).unwrap());
}

#[tokio::test]
async fn the_shipped_configuration_files_are_fine() {
    for file in ["config/tidegate.yaml", "config/demo.yaml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let output = run_tidegate(&["check", "--config", path.to_str().unwrap()]).await;
        assert_eq!(output.status.code(), Some(0), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn the_demo_prints_its_page_last_and_the_page_answers() {
    let mut process = Process::tidegate(&["demo", "--port", "0"], &[]);
    let page = process.stdout.find("the page's URL", |line| line.strip_prefix("http://").map(str::to_owned)).await;
    let address = page.trim_end_matches('/').parse().unwrap();
    let response = http(address, "GET", "/", &[], b"").await;
    assert_eq!(response.status, 200);
    assert!(response.text().contains("<html"));
    let gateway = process.stdout.find("the gateway", |line| Some(line.split_once("ws://")?.1.to_owned())).await;
    let gateway = gateway.trim_end_matches("/prod").parse().unwrap();
    let mut client = TestClient::connect(gateway, "/prod", &[]).await.unwrap();
    process.signal("TERM");
    assert_eq!(client.next_close().await.0, 1001);
    assert_eq!(process.exit().await, 0);
    assert_eq!(process.stdout.all().await.last().unwrap(), &format!("http://{page}"));
}

#[tokio::test]
async fn a_killed_process_leaves_its_port_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let backend = TestBackend::start().await;
    let settings = Settings::aws_proxy(&backend);
    let mut process = serve(&write(&folder, &settings));
    let (public, _) = process.addresses().await;
    let _client = TestClient::connect(public, "/prod", &[]).await.unwrap();
    process.signal("KILL");
    process.exit().await;
    let text = settings.text().replacen("127.0.0.1:0", &public.to_string(), 1);
    let path = folder.path().join("again.yaml");
    std::fs::write(&path, text).unwrap();
    let mut process = serve(path.to_str().unwrap());
    assert_eq!(process.addresses().await.0, public);
    let connecting = spawn(async move { TestClient::connect(public, "/prod", &[]).await.is_ok() });
    eventually("a client is let in", async || connecting.is_finished()).await;
    assert!(connecting.await.unwrap());
}
