//! The whole table of AWS's `$context` variables, read back from lines of every kind of event.

use serde_json::{Value, json};
use tidegate_testing::{Reply, Settings, TestBackend, TestGateway, eventually};

/// The expected value of a variable in a line.
#[derive(Clone, Copy)]
enum Is {
    /// `-`.
    Unset,
    /// Anything but `-`.
    Set,
    Text(&'static str),
}
use Is::{Set, Text, Unset};

/// AWS's variables; then what each is for a connect, a message that failed, a disconnect, a call of `@connections`, and
/// a connect that an authorizer refused. Models (`validationErrorString`), Cognito, organizations and the firewall are
/// nothing that tidegate has.
const TABLE: [(&str, [Is; 5]); 56] = [
    ("apiId", [Text("chat"); 5]),
    ("stage", [Text("prod"); 5]),
    ("domainName", [Set; 5]),
    (
        "routeKey",
        [
            Text("$connect"),
            Text("ask"),
            Text("$disconnect"),
            Text("POST /@connections/{connectionId}"),
            Text("$connect"),
        ],
    ),
    ("eventType", [Text("CONNECT"), Text("MESSAGE"), Text("DISCONNECT"), Text("CONNECTION_API"), Text("CONNECT")]),
    ("messageId", [Unset, Set, Unset, Unset, Unset]),
    ("connectionId", [Set; 5]),
    ("connectedAt", [Set, Set, Set, Unset, Set]),
    ("requestId", [Set; 5]),
    ("extendedRequestId", [Set; 5]),
    ("requestTime", [Set; 5]),
    ("requestTimeEpoch", [Set; 5]),
    ("status", [Text("200"), Text("502"), Text("200"), Text("200"), Text("403")]),
    ("authorizer.principalId", [Text("ann"), Text("ann"), Text("ann"), Unset, Unset]),
    ("authorizer.tier", [Text("gold"), Text("gold"), Text("gold"), Unset, Unset]),
    ("authorizer.level", [Text("3"), Text("3"), Text("3"), Unset, Unset]),
    ("authorizer.error", [Unset, Unset, Unset, Unset, Set]),
    ("authorizer.integrationLatency", [Set, Unset, Unset, Unset, Set]),
    ("authorizer.integrationStatus", [Text("200"), Unset, Unset, Unset, Text("200")]),
    ("authorizer.latency", [Set, Unset, Unset, Unset, Set]),
    ("authorizer.requestId", [Text("auth-1"), Unset, Unset, Unset, Unset]),
    ("authorizer.status", [Text("200"), Unset, Unset, Unset, Text("403")]),
    ("authenticate.error", [Unset; 5]),
    ("authenticate.latency", [Unset; 5]),
    ("authenticate.status", [Unset; 5]),
    ("authorize.error", [Unset; 5]),
    ("authorize.latency", [Unset; 5]),
    ("authorize.status", [Unset; 5]),
    ("error.message", [Unset, Text("Internal server error"), Unset, Unset, Set]),
    ("error.responseType", [Unset, Text("INTEGRATION_FAILURE"), Unset, Unset, Text("ACCESS_DENIED")]),
    ("error.validationErrorString", [Unset; 5]),
    ("identity.accountId", [Unset; 5]),
    ("identity.apiKey", [Text("key-of-the-phone"), Text("key-of-the-phone"), Text("key-of-the-phone"), Unset, Unset]),
    ("identity.apiKeyId", [Text("phone"), Text("phone"), Text("phone"), Unset, Unset]),
    ("identity.caller", [Unset; 5]),
    ("identity.cognitoAuthenticationProvider", [Unset; 5]),
    ("identity.cognitoAuthenticationType", [Unset; 5]),
    ("identity.cognitoIdentityId", [Unset; 5]),
    ("identity.cognitoIdentityPoolId", [Unset; 5]),
    ("identity.principalOrgId", [Unset; 5]),
    ("identity.sourceIp", [Text("127.0.0.1"); 5]),
    ("identity.user", [Unset; 5]),
    ("identity.userAgent", [Text("a phone"), Text("a phone"), Text("a phone"), Unset, Text("a phone")]),
    ("identity.userArn", [Unset; 5]),
    ("integration.error", [Unset, Set, Unset, Unset, Unset]),
    ("integration.integrationStatus", [Text("200"), Unset, Text("200"), Unset, Unset]),
    ("integration.latency", [Set, Set, Set, Unset, Unset]),
    ("integration.requestId", [Text("backend-1"), Unset, Unset, Unset, Unset]),
    ("integration.status", [Text("200"), Unset, Text("200"), Unset, Unset]),
    ("integrationErrorMessage", [Unset, Set, Unset, Unset, Unset]),
    ("awsEndpointRequestId", [Text("backend-1"), Unset, Unset, Unset, Unset]),
    ("integrationLatency", [Set, Set, Set, Unset, Unset]),
    ("integrationStatus", [Text("200"), Unset, Text("200"), Unset, Unset]),
    ("waf.error", [Unset; 5]),
    ("waf.latency", [Unset; 5]),
    ("waf.status", [Unset; 5]),
];

fn policy(effect: &str) -> Value {
    let statement = json!({ "Effect": effect, "Action": "execute-api:Invoke", "Resource": "*" });
    json!({
        "principalId": "ann", "context": { "tier": "gold", "level": 3 },
        "policyDocument": { "Version": "2012-10-17", "Statement": [statement] },
    })
}

/// A gateway that asks an authorizer and for an API key, and writes every variable.
async fn gateway(backend: &TestBackend, log: &str) -> TestGateway {
    let variables = TABLE.map(|(name, _)| format!("\"{name}\":\"$context.{name}\"")).join(",");
    // The one variable that brings its own quotes.
    let format = format!("{{{variables},\"quoted\":$context.error.messageString}}");
    let connect = "$connect: { target: integrations/backend, authorizationType: CUSTOM, authorizerId: session, \
                   apiKeyRequired: true }";
    let others = "$disconnect: { target: integrations/backend }, \
                  ask: { target: integrations/backend, routeResponseSelectionExpression: $default }";
    let authorizer = "authorizers: { session: { authorizerType: REQUEST, authorizerUri: \"${env:BACKEND}/auth\", \
                      identitySource: [ route.request.querystring.token ] } }";
    Settings::aws_proxy(backend)
        .api(authorizer)
        .routes(&format!("{connect}, {others}"))
        .stages(&["prod"])
        .stage(&format!("accessLogSettings: {{ destination: '{log}', format: '{format}' }}"))
        .section("apiKeys: { phone: { value: key-of-the-phone } }")
        .section("usagePlans: { all: { apiStages: [ 'chat:prod' ], apiKeys: [ phone ] } }")
        .start()
        .await
}

#[tokio::test]
async fn every_variable_of_aws_is_what_the_table_says_in_a_line_of_each_kind() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let backend = TestBackend::start().await;
    let gateway = gateway(&backend, log.to_str().unwrap()).await;
    let headers = [("user-agent", "a phone"), ("x-api-key", "key-of-the-phone")];
    backend.answer("AUTHORIZER", Reply::json(&policy("Allow")).header("x-amzn-requestid", "auth-1"));
    let accepted = json!({ "statusCode": 200, "headers": { "x-amzn-requestid": "backend-1" } });
    backend.answer("CONNECT", Reply::json(&accepted));
    let mut client = gateway.connect_with("/prod?token=t", &headers).await;
    let id = backend.next("CONNECT").await.connection_id().to_owned();
    backend.answer("MESSAGE", Reply::Close);
    client.send(r#"{"action":"ask"}"#).await;
    client.next_text().await;
    assert_eq!(gateway.post(&id, "pushed").await.status, 200);
    client.next_text().await;
    client.close(None).await;
    gateway.settled().await;
    backend.answer("AUTHORIZER", Reply::json(&policy("Deny")));
    assert!(gateway.try_connect("/prod?token=t", &headers).await.is_err());

    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("five lines", async || read().lines().count() >= 5).await;
    let lines: Vec<Value> = read().lines().map(|line| serde_json::from_str(line).unwrap_or(Value::Null)).collect();
    // A value that is not there has no quotes where the variable brings its own, so that only two lines are JSON.
    let quoted: Vec<&Value> = lines.iter().filter_map(|line| line.get("quoted")).collect();
    assert_eq!(quoted.len(), 2, "{lines:?}");
    let text = read().replace("\"quoted\":-", "\"quoted\":null");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = |column: usize| {
        let [kind, status] = ["eventType", "status"].map(|name| {
            let (_, columns) = TABLE.iter().find(|(variable, _)| *variable == name).unwrap();
            if let Text(text) = columns[column] { text } else { "" }
        });
        let found = lines.iter().find(|line| line["eventType"] == kind && line["status"] == status);
        found.unwrap_or_else(|| panic!("no {kind} {status} in {lines:#?}"))
    };
    for column in 0..5 {
        let line = line(column);
        for (name, columns) in &TABLE {
            let value = line[name].as_str().unwrap();
            let as_expected = match columns[column] {
                Unset => value == "-",
                Set => value != "-" && !value.is_empty(),
                Text(expected) => value == expected,
            };
            assert!(as_expected, "{name} is {value} in\n{line:#}");
        }
    }
}
