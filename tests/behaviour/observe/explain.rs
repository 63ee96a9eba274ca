//! Reasons of refusals and fallbacks, for clients with `explain: true` and for operators.

use serde_json::Value;
use tidegate_testing::{Reply, Settings, TestBackend, run_tidegate};

#[tokio::test]
async fn refused_handshakes_and_error_frames_say_why_if_they_are_to() {
    let backend = TestBackend::start().await;
    let routes = "$connect: { target: integrations/backend }, ask: { target: integrations/backend }";
    for (explain, expected) in [("explain: true", true), ("", false)] {
        let gateway = Settings::aws_proxy(&backend).routes(routes).section(explain).start().await;
        let reason = |text: &str| expected.then(|| text.to_owned());
        let refused = async |target: &str, headers: &[(&str, &str)]| {
            gateway.handshake(target, headers).await.header("x-tidegate-reason").map(str::to_owned)
        };
        assert_eq!(refused("/nowhere", &[]).await, reason("unknownStage"));
        assert_eq!(refused("/prod/more", &[]).await, reason("unknownResource"));
        assert_eq!(refused("/_aws/execute-api/other/prod", &[]).await, reason("unknownApi"));
        backend.answer("CONNECT", Reply::json(&serde_json::json!({"statusCode": 403, "body": "no"})));
        assert_eq!(refused("/prod", &[]).await, reason("backendRefused"));
        backend.answer("CONNECT", Reply::Close);
        assert_eq!(refused("/prod", &[]).await, reason("backendLost"));

        let mut client = gateway.connect("/prod").await;
        client.send(r#"{"action":"x"}"#).await;
        let frame: Value = serde_json::from_str(&client.next_text().await).unwrap();
        assert_eq!(
            (frame["message"].as_str(), frame["reason"].as_str()),
            (Some("Forbidden"), expected.then_some("noRoute"))
        );
    }
}

#[tokio::test]
async fn the_route_command_tells_what_a_message_would_do() {
    let arguments = ["route", "--config", "config/tidegate.yaml", "--api", "chat", "--message", r#"{"action":"x"}"#];
    let output = run_tidegate(&arguments).await;
    let text = String::from_utf8(output.stdout).unwrap();
    println!("{text}");
    assert!(output.status.success());
    for part in [
        "$request.body.action",
        "\"x\"",
        "$default",
        "defaultNoMatch",
        "POST http://127.0.0.1:9000/ws",
        "none: the route is one-way",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let output = run_tidegate(&["route", "--config", "config/tidegate.yaml", "--api", "x", "--message", "{}"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("there is no API `x`; there are: chat"));
}
