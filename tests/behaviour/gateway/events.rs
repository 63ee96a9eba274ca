//! The events that `AWS_PROXY` backends receive.

use serde_json::{Value, json};
use tidegate_testing::{Call, RawClient, Settings, TestBackend, handshake, http};
use tokio_tungstenite::tungstenite::Message;

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// Checks the fields that every event has, and returns its `requestContext`.
fn expect_context(call: &Call, route_key: &str, event_type: &str, more: &[&str]) -> Value {
    let context = call.context();
    let mut expected = vec![
        "apiId",
        "callbackUrl",
        "connectedAt",
        "connectionId",
        "domainName",
        "eventType",
        "extendedRequestId",
        "identity",
        "messageDirection",
        "requestId",
        "requestTime",
        "requestTimeEpoch",
        "routeKey",
        "stage",
    ];
    expected.extend(more);
    expected.sort_unstable();
    assert_eq!(keys(&context), expected);
    assert_eq!(context["routeKey"], route_key);
    assert_eq!(context["eventType"], event_type);
    assert_eq!(context["messageDirection"], "IN");
    assert_eq!(context["apiId"], "chat");
    assert_eq!(context["stage"], "prod");
    assert_eq!(context["extendedRequestId"], context["requestId"]);
    assert_eq!(context["requestId"].as_str().unwrap().len(), 16);
    let time = context["requestTimeEpoch"].as_u64().unwrap();
    assert!(time > 1_700_000_000_000, "milliseconds");
    assert!(context["connectedAt"].as_u64().unwrap() <= time);
    let clf = context["requestTime"].as_str().unwrap();
    assert!(clf.ends_with(" +0000") && clf.len() == 26, "{clf}");

    assert_eq!(call.method, "POST");
    assert_eq!(call.uri, "/events");
    assert_eq!(call.header("content-type"), "application/json");
    for (header, key) in [
        ("x-tidegate-connection-id", "connectionId"),
        ("x-tidegate-api-id", "apiId"),
        ("x-tidegate-stage", "stage"),
        ("x-tidegate-route-key", "routeKey"),
        ("x-tidegate-event-type", "eventType"),
        ("x-tidegate-request-id", "requestId"),
        ("x-tidegate-callback-url", "callbackUrl"),
    ] {
        assert_eq!(call.header(header), context[key], "{header}");
    }
    assert_eq!(call.header("x-tidegate-attempt"), "1");
    let traceparent: Vec<&str> = call.header("traceparent").split('-').collect();
    assert_eq!(traceparent.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2]);
    let root = call.header("x-amzn-trace-id").strip_prefix("Root=1-").unwrap().replace('-', "");
    assert_eq!(root, traceparent[1]);
    context
}

#[tokio::test]
async fn the_three_events_of_a_connection_have_the_shapes_of_aws() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).stage("stageVariables: { table: sessions }").start().await;
    let address = gateway.public().to_string();
    let mut client = RawClient::connect(gateway.public()).await;
    let headers = [
        ("user-agent", "demo/1"),
        ("ORIGIN", "https://app.example.test"),
        ("x-API-key", "k"),
        ("cookie", "a=1"),
        ("x-many", "1"),
        ("X-Many", "2"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("Sec-WebSocket-Extensions", "permessage-deflate"),
    ];
    client.send(&handshake(gateway.public(), "/prod?room=blue&tag=a&tag=b%20c&empty=", &headers)).await;
    assert_eq!(client.response().await.status, 101);

    let call = backend.next("CONNECT").await;
    let connect = expect_context(&call, "$connect", "CONNECT", &[]);
    let event = call.event();
    assert_eq!(
        keys(&event),
        [
            "headers",
            "isBase64Encoded",
            "multiValueHeaders",
            "multiValueQueryStringParameters",
            "queryStringParameters",
            "requestContext",
            "stageVariables",
        ]
    );
    let trace = call.header("x-amzn-trace-id");
    let port = gateway.public().port().to_string();
    assert_eq!(
        event["headers"],
        json!({
            "Cookie": "a=1", "Host": address, "Origin": "https://app.example.test",
            "Sec-WebSocket-Extensions": "permessage-deflate", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version": "13", "User-Agent": "demo/1", "X-Amzn-Trace-Id": trace,
            "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Port": port, "X-Forwarded-Proto": "http", "X-Many": "2",
            "x-api-key": "k",
        })
    );
    assert_eq!(keys(&event["multiValueHeaders"]), keys(&event["headers"]));
    assert_eq!(event["multiValueHeaders"]["X-Many"], json!(["1", "2"]));
    assert_eq!(event["multiValueHeaders"]["Host"], json!([address]));
    assert_eq!(event["queryStringParameters"], json!({"room": "blue", "tag": "b c", "empty": ""}));
    assert_eq!(event["multiValueQueryStringParameters"], json!({"room": ["blue"], "tag": ["a", "b c"], "empty": [""]}));
    assert_eq!(event["stageVariables"], json!({"table": "sessions"}));
    assert_eq!(event["isBase64Encoded"], false);
    assert_eq!(connect["identity"], json!({"sourceIp": "127.0.0.1", "userAgent": "demo/1"}));
    assert_eq!(connect["domainName"], *address);
    let id = connect["connectionId"].as_str().unwrap();
    assert_eq!(connect["callbackUrl"], format!("http://{address}/prod/@connections/{id}"));

    client.send(&tidegate_testing::frame(0x81, "{\"action\":\"tell\",\"text\":\"\u{e9}\"}".as_bytes())).await;
    let call = backend.next("MESSAGE").await;
    let message = expect_context(&call, "tell", "MESSAGE", &["messageId"]);
    let event = call.event();
    assert_eq!(keys(&event), ["body", "isBase64Encoded", "requestContext", "stageVariables"]);
    assert_eq!(event["body"], "{\"action\":\"tell\",\"text\":\"\u{e9}\"}");
    for key in ["connectionId", "connectedAt", "identity", "domainName", "callbackUrl"] {
        assert_eq!(message[key], connect[key], "{key}");
    }
    assert_ne!(message["requestId"], connect["requestId"]);
    assert_ne!(message["messageId"], message["requestId"]);

    client.send(&tidegate_testing::frame(0x88, b"\x03\xe8bye")).await;
    let call = backend.next("DISCONNECT").await;
    let more = ["disconnectStatusCode", "disconnectReason"];
    let disconnect = expect_context(&call, "$disconnect", "DISCONNECT", &more);
    let event = call.event();
    assert_eq!(keys(&event), ["headers", "isBase64Encoded", "multiValueHeaders", "requestContext", "stageVariables"]);
    assert_eq!(event["headers"], json!({"Host": address, "x-api-key": "", "X-Forwarded-For": "", "x-restapi": ""}));
    assert_eq!(
        event["multiValueHeaders"],
        json!({"Host": [address], "x-api-key": [""], "X-Forwarded-For": [""], "x-restapi": [""]})
    );
    assert_eq!(call.closing(), (1000, "bye".to_owned()));
    for key in ["connectionId", "connectedAt", "identity", "domainName", "callbackUrl"] {
        assert_eq!(disconnect[key], connect[key], "{key}");
    }
}

#[tokio::test]
async fn keys_without_a_value_are_left_out() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    assert_eq!(gateway.handshake("/prod", &[]).await.status, 101);
    let event = backend.next("CONNECT").await.event();
    assert_eq!(keys(&event), ["headers", "isBase64Encoded", "multiValueHeaders", "requestContext"]);
    assert_eq!(event["requestContext"]["identity"], json!({"sourceIp": "127.0.0.1"}));
    assert!(!event.to_string().contains("null"));
}

#[tokio::test]
async fn a_clients_trace_goes_on() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    gateway.connect_with("/prod", &[("traceparent", parent)]).await;
    let call = backend.next("CONNECT").await;
    assert_eq!(call.header("traceparent"), parent, "without a collector no span is made here, so none is named");
    let root = "Root=1-0af76519-16cd43dd8448eb211c80319c";
    assert_eq!(call.event()["headers"]["X-Amzn-Trace-Id"], root);
}

#[tokio::test]
async fn callback_urls_name_the_api_where_the_host_does_not_and_work_as_they_are() {
    let backend = TestBackend::start().await;
    let settings = Settings::aws_proxy(&backend).another_api("news");
    let gateway = settings.start().await;
    let address = gateway.public();
    let by_host = format!("news.execute-api.localhost:{}", address.port());
    for (target, host, api_id, prefix) in [
        ("/_aws/execute-api/chat/prod", address.to_string(), "chat", "/_aws/execute-api/chat"),
        ("/_aws/execute-api/news/prod", address.to_string(), "news", "/_aws/execute-api/news"),
        ("/prod", by_host.clone(), "news", ""),
        ("/_aws/execute-api/news/prod", by_host.clone(), "news", ""),
    ] {
        let mut client = RawClient::connect(address).await;
        client.send(&handshake(address, target, &[("Host", &host)])).await;
        assert_eq!(client.response().await.status, 101, "{target} {host}");
        let call = backend.next("CONNECT").await;
        let context = call.context();
        assert_eq!(context["apiId"], api_id);
        assert_eq!(context["domainName"], *host);
        let expected = format!("http://{host}{prefix}/prod/@connections/{}", call.connection_id());
        assert_eq!(context["callbackUrl"], *expected);
        let path = format!("{prefix}/prod/@connections/{}", call.connection_id());
        assert_eq!(http(address, "POST", &path, &[("Host", &host)], b"hi").await.status, 200, "{path}");
        assert_eq!(client.next_frame().await.unwrap().payload, b"hi");
    }
    assert_eq!(gateway.handshake("/prod", &[]).await.status, 403, "nothing names the API");
    let response = gateway.handshake("/_aws/execute-api/chat/prod", &[("Host", &by_host)]).await;
    assert_eq!(response.status, 403, "host and path name different APIs");
}

#[tokio::test]
async fn the_callback_base_url_and_the_domain_name_can_be_set() {
    let backend = TestBackend::start().await;
    let settings = Settings::aws_proxy(&backend)
        .section("callbackBaseUrl: https://ws.example.com/gateway/")
        .api("domainName: chat.example.com");
    let gateway = settings.start().await;
    let (client, id) = gateway.client(&backend).await;
    let context = backend.calls("CONNECT")[0].context();
    assert_eq!(context["domainName"], "chat.example.com");
    assert_eq!(context["callbackUrl"], format!("https://ws.example.com/gateway/prod/@connections/{id}"));
    client.close(None).await;
    let event = backend.next("DISCONNECT").await.event();
    assert_eq!(event["headers"]["Host"], "chat.example.com");

    let gateway = settings.clone().another_api("news").start().await;
    let _client = gateway.connect("/_aws/execute-api/chat/prod").await;
    let call = backend.next("CONNECT").await;
    let expected =
        format!("https://ws.example.com/gateway/_aws/execute-api/chat/prod/@connections/{}", call.connection_id());
    assert_eq!(call.header("x-tidegate-callback-url"), expected);
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_nobody_else() {
    let forwarded =
        [("x-forwarded-for", "203.0.113.7, 10.1.1.1"), ("x-forwarded-proto", "https"), ("x-forwarded-port", "8443")];
    let backend = TestBackend::start().await;
    let public = "connectionsApi: NONE, trustedProxies: [127.0.0.0/8, 10.1.1.1]";
    let gateway = Settings::aws_proxy(&backend).public(public).start().await;
    gateway.connect_with("/prod", &forwarded).await;
    let event = backend.next("CONNECT").await.event();
    assert_eq!(event["requestContext"]["identity"]["sourceIp"], "203.0.113.7");
    assert_eq!(event["headers"]["X-Forwarded-For"], "203.0.113.7, 10.1.1.1, 127.0.0.1");
    assert_eq!(event["headers"]["X-Forwarded-Proto"], "https");
    assert_eq!(event["headers"]["X-Forwarded-Port"], "8443");
    let callback_url = event["requestContext"]["callbackUrl"].as_str().unwrap();
    assert!(callback_url.starts_with("https://"), "{callback_url}");

    let gateway = Settings::aws_proxy(&backend).start().await;
    gateway.connect_with("/prod", &forwarded).await;
    let event = backend.next("CONNECT").await.event();
    assert_eq!(event["requestContext"]["identity"]["sourceIp"], "127.0.0.1");
    assert_eq!(event["headers"]["X-Forwarded-For"], "127.0.0.1");
    assert_eq!(event["headers"]["X-Forwarded-Proto"], "http");
    assert!(event["requestContext"]["callbackUrl"].as_str().unwrap().starts_with("http://"));
}

#[tokio::test]
async fn an_event_shows_no_header_in_which_only_a_proxy_or_the_gateway_speaks() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let hidden = [
        "Forwarded",
        "X-Real-IP",
        "x_real_ip",
        "X-Forwarded-Host",
        "x_forwarded_for",
        "X-Original-URL",
        "True-Client-IP",
        "X-Amzn-Mtls-Clientcert",
        "X-Tidegate-User",
        "x_tidegate_user",
        "webhook-id",
        "x-hop",
        "TE",
        "Keep-Alive",
        "Expect",
        "Proxy-Authorization",
    ];
    let mut headers: Vec<(&str, &str)> = hidden.iter().map(|name| (*name, "6.6.6.6")).collect();
    headers.extend([("Connection", "x-hop, Upgrade"), ("x_own", "1"), ("Content-Type", "text/x")]);
    assert_eq!(gateway.handshake("/prod", &headers).await.status, 101);
    let event = backend.next("CONNECT").await.event();
    assert!(!event.to_string().contains("6.6.6.6"), "{event}");
    assert_eq!(event["headers"]["X_own"], "1", "no other name of the event is like it");
    assert_eq!(event["headers"]["Content-Type"], "text/x");
    assert_eq!(event["multiValueHeaders"]["X-Forwarded-For"], json!(["127.0.0.1"]));
}

#[tokio::test]
async fn a_subprotocol_list_over_several_headers_is_one_text_in_the_event() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let headers = [("Sec-WebSocket-Protocol", "chat.v2"), ("Sec-WebSocket-Protocol", "chat.v1")];
    assert_eq!(gateway.handshake("/prod", &headers).await.status, 101);
    let event = backend.next("CONNECT").await.event();
    assert_eq!(event["headers"]["Sec-WebSocket-Protocol"], "chat.v2, chat.v1");
}

#[tokio::test]
async fn a_binary_message_is_base64_and_goes_to_the_default_route() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let (mut client, _) = gateway.client(&backend).await;
    client.send_message(Message::binary(vec![0, 255, 1])).await;
    let call = backend.next("MESSAGE").await;
    let event = call.event();
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("AP8B"), &json!(true)));
    assert_eq!(event["requestContext"]["routeKey"], "$default");
    client.send_message(Message::binary(&br#"{"action":"tell"}"#[..])).await;
    assert_eq!(backend.next("MESSAGE").await.context()["routeKey"], "$default");
}

#[tokio::test]
async fn a_header_that_cannot_hold_a_route_key_has_it_percent_encoded() {
    let backend = TestBackend::start().await;
    let gateway =
        Settings::aws_proxy(&backend).route("\"gr\u{fc}n\u{1f600}\": { target: integrations/backend }").start().await;
    let (mut client, _) = gateway.client(&backend).await;
    client.send("{\"action\":\"gr\\u00fcn\u{1f600}\"}").await;
    let call = backend.next("MESSAGE").await;
    assert_eq!(call.context()["routeKey"], "gr\u{fc}n\u{1f600}");
    assert_eq!(call.header("x-tidegate-route-key"), "gr%C3%BCn%F0%9F%98%80");
}
