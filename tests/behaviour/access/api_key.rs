use serde_json::json;
use tidegate_testing::{Reply, TestBackend, TestGateway, connect, raw, refused};

fn yaml(backend: &str, plan: &str) -> String {
    format!(
        "
apiKeys:
  mobile: {{ value: key-of-mobile }}
  web: {{ value: key-of-web }}
  retired: {{ value: key-of-retired, enabled: false }}
  planless: {{ value: key-of-planless }}
usagePlans:
  basic: {{ apiStages: [ 'chat:prod' ], apiKeys: [ mobile, web, retired ], {plan} }}
apis:
  chat:
    routeSelectionExpression: $request.body.action
    integrations:
      backend: {{ integrationType: AWS_PROXY, integrationUri: {backend} }}
    routes:
      $connect: {{ target: integrations/backend, apiKeyRequired: true }}
      $disconnect: {{ target: integrations/backend }}
      $default: {{ target: integrations/backend, routeResponseSelectionExpression: $default }}
    stages: {{ prod: {{}}, dev: {{}} }}
"
    )
}

fn key(value: &str) -> [(&'static str, &str); 1] {
    [("x-api-key", value)]
}

async fn post(gateway: &TestGateway, method: &str, id: &str) -> String {
    let path = format!("/prod/@connections/{}", id.replace('=', "%3D"));
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi");
    raw(gateway.internal(), request.as_bytes()).await[9..12].to_owned()
}

#[tokio::test]
async fn a_client_needs_a_key_with_a_plan_for_its_stage() {
    let backend = TestBackend::saying_hello().await;
    let gateway = TestGateway::start(&yaml(&backend.url(), "throttle: { rateLimit: 100 }")).await;
    connect(&gateway.url("/prod"), &key("key-of-mobile")).await;
    let identity = backend.next_call().await.event()["requestContext"]["identity"].clone();
    assert_eq!((&identity["apiKey"], &identity["apiKeyId"]), (&json!("key-of-mobile"), &json!("mobile")));
    let forbidden = (403, "Forbidden".to_owned());
    for value in ["", "key-of-nobody", "KEY-OF-MOBILE", "key-of-retired", "key-of-planless", "mobile"] {
        assert_eq!(refused(&gateway.url("/prod"), &key(value)).await, forbidden, "{value}");
    }
    assert_eq!(refused(&gateway.url("/prod"), &[]).await, forbidden);
    assert_eq!(refused(&gateway.url("/dev"), &key("key-of-mobile")).await, forbidden);
    for second in ["x-api-key", "x_api_key", "x-api.key"] {
        let two = [("x-api-key", "key-of-mobile"), (second, "key-of-web")];
        assert_eq!(refused(&gateway.url("/prod"), &two).await, forbidden, "{second}");
    }
}

#[tokio::test]
async fn connects_messages_and_posts_count_against_the_quota_and_closing_does_not() {
    let backend = TestBackend::saying_hello().await;
    let gateway = TestGateway::start(&yaml(&backend.url(), "quota: { limit: 4, period: MONTH }")).await;
    let mut client = connect(&gateway.url("/prod"), &key("key-of-mobile")).await;
    let id = backend.next_call().await.event()["requestContext"]["connectionId"].as_str().expect("an id").to_owned();
    client.send("one").await;
    assert_eq!(client.next_text().await, "hello");
    assert_eq!(post(&gateway, "POST", &id).await, "200");
    assert_eq!(client.next_text().await, "hi");
    assert_eq!(post(&gateway, "GET", &id).await, "200");
    assert_eq!(post(&gateway, "POST", &id).await, "429");
    client.send("two").await;
    assert!(client.next_text().await.starts_with(r#"{"message": "Limit Exceeded""#));
    assert_eq!(refused(&gateway.url("/prod"), &key("key-of-mobile")).await, (429, "Limit Exceeded".to_owned()));
    connect(&gateway.url("/prod"), &key("key-of-web")).await;
    assert_eq!(post(&gateway, "DELETE", &id).await, "204");
    assert_eq!(client.next_close().await.0, 1000);
    let metrics = gateway.metrics().await;
    assert!(
        metrics.contains(r#"tidegate_throttled_total{api_id="chat",stage="prod",level="usagePlan"} 3"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_reload_keeps_what_is_used_up_and_a_rate_turns_away() {
    let backend = TestBackend::saying_hello().await;
    let mut gateway = TestGateway::start(&yaml(&backend.url(), "quota: { limit: 1, period: MONTH }")).await;
    connect(&gateway.url("/prod"), &key("key-of-mobile")).await;
    gateway.reload_text(&yaml(&backend.url(), "quota: { limit: 1, period: MONTH }, throttle: { rateLimit: 100 }"));
    assert_eq!(refused(&gateway.url("/prod"), &key("key-of-mobile")).await, (429, "Limit Exceeded".to_owned()));
    gateway.reload_text(&yaml(&backend.url(), "throttle: { rateLimit: 0.001, burstLimit: 1 }"));
    connect(&gateway.url("/prod"), &key("key-of-mobile")).await;
    assert_eq!(refused(&gateway.url("/prod"), &key("key-of-mobile")).await, (429, "Too Many Requests".to_owned()));
}

#[tokio::test]
async fn an_authorizer_can_find_the_key() {
    let answer = |key: Option<&str>| {
        let statement = json!({ "Effect": "Allow", "Action": "*", "Resource": "*" });
        Reply::json(&json!({
            "principalId": "ann", "usageIdentifierKey": key,
            "policyDocument": { "Version": "2012-10-17", "Statement": [statement] },
        }))
    };
    let authorizer = TestBackend::start_with(move |_| answer(Some("key-of-web"))).await;
    let backend = TestBackend::saying_hello().await;
    let yaml = yaml(&backend.url(), "throttle: { rateLimit: 100 }")
        .replace(
            "    integrations:\n",
            &format!(
                "    apiKeySelectionExpression: $context.authorizer.usageIdentifierKey\n    authorizers:\n      session: \
                 {{ authorizerType: REQUEST, authorizerUri: '{}' }}\n    integrations:\n",
                authorizer.url()
            ),
        )
        .replace("apiKeyRequired: true", "apiKeyRequired: true, authorizationType: CUSTOM, authorizerId: session");
    let gateway = TestGateway::start(&yaml).await;
    connect(&gateway.url("/prod"), &[]).await;
    let context = backend.next_call().await.event()["requestContext"].clone();
    assert_eq!(
        (&context["identity"]["apiKeyId"], &context["authorizer"]["principalId"]),
        (&json!("web"), &json!("ann"))
    );
    authorizer.answer_with(move |_| answer(None));
    assert_eq!(refused(&gateway.url("/prod"), &key("key-of-web")).await, (403, "Forbidden".to_owned()));
}
