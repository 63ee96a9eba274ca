use serde_json::json;
use tidegate::app::Gateway;
use tidegate::config::{self, ACCESS_YAML};
use tidegate_testing::{Issuer, Key, Reply, TestBackend, connect, refused};

#[tokio::test]
async fn the_example_of_access_runs() {
    let key = Key::new("one");
    let issuer = Issuer::start(&[&key]).await;
    let backend = TestBackend::start_with(|got| {
        if got.uri.path() == "/auth" {
            let arn = got.event()["methodArn"].clone();
            let statement = json!({ "Effect": "Allow", "Action": "execute-api:Invoke", "Resource": arn });
            let policy = json!({ "Version": "2012-10-17", "Statement": [statement] });
            return Reply::json(&json!({ "principalId": "ann", "policyDocument": policy }));
        }
        Reply::json(&json!({ "statusCode": 200, "body": "hello" }))
    })
    .await;
    let (backend_url, issuer_url) = (backend.url(), issuer.url());
    let environment = |name: &str| match name {
        "ACCESS_PORT" | "ACCESS_INTERNAL_PORT" => Some("0".to_owned()),
        "ACCESS_BACKEND" => Some(format!("{backend_url}/")),
        "ACCESS_AUTHORIZER" => Some(format!("{backend_url}/auth")),
        "ACCESS_ISSUER" => Some(issuer_url.clone()),
        _ => None,
    };
    let config = config::load(ACCESS_YAML, &environment).expect("a good example");
    let gateway = Gateway::builder(config).start().await.expect("a gateway");
    let url = |api: &str, query: &str| format!("ws://{}/_aws/execute-api/{api}/prod{query}", gateway.public_address());

    let mobile = [("x-api-key", "only-for-trying-it-out-mobile")];
    let mut client = connect(&url("chat", "?token=t"), &mobile).await;
    assert_eq!(backend.next_call().await.event_type(), "AUTHORIZER");
    assert_eq!(backend.next_call().await.event_type(), "CONNECT");
    client.send(r#"{"action":"x"}"#).await;
    assert_eq!(client.next_text().await, "hello");
    assert_eq!(refused(&url("chat", ""), &mobile).await.0, 401);
    assert_eq!(refused(&url("chat", "?token=t"), &[]).await.0, 403);

    // As a browser does it: nothing but the URL.
    let token = key.sign(&issuer.claims(600));
    let mut client = connect(&url("browser", &format!("?token={token}")), &[]).await;
    client.send(&json!({ "action": "refresh", "token": key.sign(&issuer.claims(900)) }).to_string()).await;
    assert!(client.next_text().await.contains("Token refreshed"));
    assert_eq!(refused(&url("browser", "?token=x"), &[]).await.0, 401);

    assert_eq!(refused(&url("signed", ""), &[]).await, (403, "Missing Authentication Token".to_owned()));
}
