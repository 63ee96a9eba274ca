use serde_json::{Value, json};
use tidegate_testing::{Reply, TestBackend, TestGateway, connect, refused};

fn yaml(authorizer: &str, backend: &str, more: &str) -> String {
    format!(
        "
apis:
  chat:
    routeSelectionExpression: $request.body.action
    authorizers:
      session:
        authorizerType: REQUEST
        authorizerUri: {authorizer}/auth?kind=ws
        identitySource: [ route.request.querystring.token ]
        {more}
    integrations:
      backend: {{ integrationType: AWS_PROXY, integrationUri: {backend} }}
      plain:
        integrationType: HTTP_PROXY
        integrationUri: {backend}/plain
        requestParameters:
          integration.request.header.x-user: context.authorizer.principalId
          integration.request.header.x-tier: context.authorizer.tier
    routes:
      $connect: {{ target: integrations/backend, authorizationType: CUSTOM, authorizerId: session }}
      $disconnect: {{ target: integrations/backend }}
      $default: {{ target: integrations/backend, routeResponseSelectionExpression: $default }}
      plain: {{ target: integrations/plain, routeResponseSelectionExpression: $default }}
    stages: {{ prod: {{ stageVariables: {{ table: t }} }} }}
"
    )
}

fn statement(effect: &str, resource: &str) -> Value {
    json!({ "Effect": effect, "Action": "execute-api:Invoke", "Resource": resource })
}

fn answer(statements: &[Value], context: &Value) -> Value {
    json!({
        "principalId": "ann", "context": context,
        "policyDocument": { "Version": "2012-10-17", "Statement": statements },
    })
}

fn allow() -> Value {
    answer(&[statement("Allow", "*")], &json!({ "tier": "gold", "level": 3, "beta": true }))
}

#[tokio::test]
async fn the_authorizer_gets_the_handshake_and_what_it_says_is_in_every_event() {
    let authorizer = TestBackend::start_with(|_| Reply::json(&allow())).await;
    let backend = TestBackend::saying_hello().await;
    let gateway = TestGateway::start(&yaml(&authorizer.url(), &backend.url(), "")).await;
    let mut client = connect(&gateway.url("/prod?token=t1&room=a&room=b"), &[("x-many", "1"), ("x-many", "2")]).await;

    let asked = authorizer.next_call().await;
    assert_eq!((asked.uri.to_string().as_str(), asked.event_type()), ("/auth?kind=ws", "AUTHORIZER"));
    let event = asked.event();
    assert_eq!(event["type"], "REQUEST");
    assert_eq!(event["methodArn"], "arn:aws:execute-api:us-east-1:000000000000:chat/prod/$connect");
    assert_eq!(event["queryStringParameters"], json!({ "token": "t1", "room": "b" }));
    assert_eq!(event["multiValueQueryStringParameters"]["room"], json!(["a", "b"]));
    assert_eq!(event["multiValueHeaders"]["X-Many"], json!(["1", "2"]));
    assert_eq!(event["headers"]["Upgrade"], "websocket");
    assert_eq!(event["headers"]["Connection"], "upgrade");
    assert_eq!(event["headers"]["content-length"], "0", "spelled as AWS does");
    assert!(event["headers"].get("Content-Length").is_none());
    assert_eq!(event["stageVariables"], json!({ "table": "t" }));
    assert_eq!(event["requestContext"]["eventType"], "CONNECT");
    for absent in ["body", "path", "httpMethod", "resource", "pathParameters", "isBase64Encoded"] {
        assert!(event.get(absent).is_none(), "{absent}");
    }
    assert!(event["requestContext"].get("authorizer").is_none());

    let mut connected = backend.next_call().await.event();
    assert_eq!(connected["requestContext"]["connectionId"], event["requestContext"]["connectionId"]);
    let said = connected["requestContext"]["authorizer"].as_object_mut().expect("an authorizer");
    assert!(said.remove("integrationLatency").is_some_and(|latency| latency.is_u64()));
    let said = Value::Object(said.clone());
    assert_eq!(said, json!({ "principalId": "ann", "tier": "gold", "level": "3", "beta": "true" }));

    client.send(r#"{"action":"x"}"#).await;
    assert_eq!(client.next_text().await, "hello");
    assert_eq!(backend.next_call().await.event()["requestContext"]["authorizer"], said);
    client.send(r#"{"action":"plain"}"#).await;
    let plain = backend.next_call().await;
    assert_eq!(
        (&plain.headers["x-user"], &plain.headers["x-tier"]),
        (&"ann".parse().unwrap(), &"gold".parse().unwrap())
    );
    drop(client);
    let disconnected = backend.next_call().await;
    assert_eq!(disconnected.event_type(), "DISCONNECT");
    assert_eq!(disconnected.event()["requestContext"]["authorizer"], said);
}

#[tokio::test]
async fn without_its_identity_source_a_client_is_refused_and_nobody_is_asked() {
    let authorizer = TestBackend::start_with(|_| Reply::json(&allow())).await;
    let backend = TestBackend::saying_hello().await;
    let gateway = TestGateway::start(&yaml(&authorizer.url(), &backend.url(), "")).await;
    for path in ["/prod", "/prod?token=", "/prod?Token=x"] {
        assert_eq!(refused(&gateway.url(path), &[]).await, (401, "Unauthorized".to_owned()), "{path}");
    }
    assert_eq!(authorizer.count_new(), 0);
    assert!(
        gateway
            .metrics()
            .await
            .contains(r#"tidegate_connects_total{api_id="chat",stage="prod",outcome="unauthorized"} 3"#)
    );
}

#[tokio::test]
async fn an_identity_source_that_is_there_twice_is_refused_and_nobody_is_asked() {
    let authorizer = TestBackend::start_with(|_| Reply::json(&allow())).await;
    let backend = TestBackend::saying_hello().await;
    let by_query = yaml(&authorizer.url(), &backend.url(), "");
    let mut gateway = TestGateway::start(&by_query).await;
    let unauthorized = (401, "Unauthorized".to_owned());
    for query in [
        "token=a&token=b",
        "token=a&token=a",
        "token=a&token=",
        "token=a&%74oken=b",
        "token=a&Token=b",
        "token=a&+token=b",
        "token=a&token[]=b",
        "token=a&token%5B0%5D=b",
        "token=a;token=b",
        "x=1;token=b&token=a",
    ] {
        assert_eq!(refused(&gateway.url(&format!("/prod?{query}")), &[]).await, unauthorized, "{query}");
    }
    gateway.reload_text(&by_query.replace("querystring.token", "header.X-Token"));
    for headers in [
        [("x-token", "a"), ("x-token", "b")],
        [("x-token", "a"), ("x-token", "")],
        [("x-token", "a"), ("x_token", "b")],
        [("x_token", "b"), ("x-token", "a")],
        [("x-token", "a"), ("x.token", "b")],
    ] {
        assert_eq!(refused(&gateway.url("/prod"), &headers).await, unauthorized, "{headers:?}");
    }
    assert_eq!((authorizer.count_new(), backend.count_new()), (0, 0));
    connect(&gateway.url("/prod?token=a&token=b"), &[("x-token", "a"), ("x-tokens", "b")]).await;
    assert_eq!((authorizer.count_new(), backend.count_new()), (1, 1));
    let reasons = r#"event_type="CONNECT",reason="identitySourceRepeated"} 15"#;
    let metrics = gateway.metrics().await;
    assert!(metrics.contains(reasons), "{metrics}");
}

#[tokio::test]
async fn an_authorizer_sees_the_headers_that_backends_see_and_those_that_it_judges() {
    let authorizer = TestBackend::start_with(|_| Reply::json(&allow())).await;
    let backend = TestBackend::saying_hello().await;
    let yaml = yaml(&authorizer.url(), &backend.url(), "").replace("querystring.token", "header.X-Client-Cert");
    let gateway = TestGateway::start(&yaml).await;
    let headers = [("x-client-cert", "of-a-proxy"), ("x-forwarded-host", "forged"), ("x-real-ip", "forged")];
    connect(&gateway.url("/prod"), &headers).await;
    let asked = authorizer.next_call().await.event();
    assert_eq!(asked["headers"]["X-Client-Cert"], "of-a-proxy");
    let told = backend.next_call().await.event();
    for event in [&asked, &told] {
        assert!(!event.to_string().contains("forged"), "{event}");
    }
    assert!(told["headers"].get("X-Client-Cert").is_none());
}

#[tokio::test]
async fn what_an_authorizer_says_and_how_it_fails_is_answered_as_on_aws() {
    let authorizer = TestBackend::start_with(|_| Reply::hang()).await;
    let backend = TestBackend::saying_hello().await;
    let gateway = TestGateway::start(&yaml(&authorizer.url(), &backend.url(), "authorizerTimeoutInMillis: 200")).await;
    let explicit = "User is not authorized to access this resource with an explicit deny in an identity-based policy";
    let no_allow = "User is not authorized to access this resource because no identity-based policy allows the \
                    execute-api:Invoke action";
    let internal = "Internal server error";
    let none = json!({});
    let condition = |operator: &str| {
        let mut statement = statement("Allow", "*");
        statement["Condition"] = json!({ operator: { "aws:SourceIp": "127.0.0.1" } });
        Reply::json(&answer(&[statement], &json!({})))
    };
    let large = json!({ "x": "a".repeat(8 * 1024 + 1 - answer(&[statement("Allow", "*")], &json!({ "x": "" })).to_string().len()) });
    let cases = [
        ("nothing", Reply::hang(), 500, internal),
        ("Unauthorized", Reply::json(&json!({ "errorMessage": "Unauthorized" })), 401, "Unauthorized"),
        ("another error", Reply::json(&json!({ "errorMessage": "boom" })), 500, ""),
        ("a status", Reply::http(500, "{}".to_owned()), 500, internal),
        ("a refusal of its own", Reply::http(403, allow().to_string()), 500, internal),
        ("a redirect", Reply::redirect("/elsewhere"), 500, internal),
        ("no JSON", Reply::http(200, "yes".to_owned()), 500, ""),
        ("no policy", Reply::json(&json!({ "principalId": "ann" })), 500, ""),
        ("8 KB and a byte", Reply::json(&answer(&[statement("Allow", "*")], &large)), 500, ""),
        ("nested context", Reply::json(&answer(&[statement("Allow", "*")], &json!({ "a": { "b": 1 } }))), 500, ""),
        ("an unknown operator", condition("IpAddressInHouse"), 500, ""),
        ("deny", Reply::json(&answer(&[statement("Allow", "*"), statement("Deny", "*")], &none)), 403, explicit),
        ("another stage", Reply::json(&answer(&[statement("Allow", "arn:*:chat/dev/$connect")], &none)), 403, no_allow),
        ("no statement", Reply::json(&answer(&[], &none)), 403, no_allow),
    ];
    for (what, answer, status, message) in cases {
        authorizer.answer_with(move |_| answer.clone());
        assert_eq!(refused(&gateway.url("/prod?token=x"), &[]).await, (status, message.to_owned()), "{what}");
    }
    assert_eq!(backend.count_new(), 0, "the backend learns of nobody who was refused");
    let conditional = condition("IpAddress");
    authorizer.answer_with(move |_| conditional.clone());
    connect(&gateway.url("/prod?token=x"), &[]).await;
}

#[tokio::test]
async fn answers_are_kept_only_when_asked_to_and_for_the_same_identity() {
    let authorizer = TestBackend::start_with(|_| Reply::json(&allow())).await;
    let backend = TestBackend::saying_hello().await;
    let mut gateway = TestGateway::start(&yaml(&authorizer.url(), &backend.url(), "")).await;
    for _ in 0..2 {
        connect(&gateway.url("/prod?token=a"), &[]).await;
    }
    assert_eq!(authorizer.count_new(), 2, "not kept by default");
    gateway.reload_text(&yaml(&authorizer.url(), &backend.url(), "authorizerResultTtlInSeconds: 300"));
    for token in ["a", "a", "b", "a"] {
        connect(&gateway.url(&format!("/prod?token={token}")), &[]).await;
    }
    assert_eq!(authorizer.count_new(), 2);
}
