use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sdk_apigatewaymanagement::Client as ManagementClient;
use aws_sdk_apigatewaymanagement::config::{BehaviorVersion, Credentials as SdkCredentials, Region};
use aws_sdk_apigatewaymanagement::error::ProvideErrorMetadata as _;
use aws_sdk_apigatewaymanagement::primitives::Blob;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use tidegate_testing::{TestBackend, TestClient, TestGateway, connect, eventually, raw, refused};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn yaml(backend: &str, authorization: &str) -> String {
    format!(
        "
credentials:
  all: {{ accessKeyId: AKIDALL, secretAccessKey: {SECRET} }}
  temporary: {{ accessKeyId: AKIDTEMP, secretAccessKey: {SECRET}, sessionToken: example-session-token }}
  expired:
    accessKeyId: AKIDEXPIRED
    secretAccessKey: {SECRET}
    sessionToken: example-session-token
    expiration: 2020-01-01T00:00:00Z
  poster:
    accessKeyId: AKIDPOSTER
    secretAccessKey: {SECRET}
    policyDocument:
      Version: '2012-10-17'
      Statement:
        Effect: Allow
        Action: execute-api:ManageConnections
        Resource: arn:aws:execute-api:*:*:chat/prod/POST/@connections/*
  client:
    accessKeyId: AKIDCLIENT
    secretAccessKey: {SECRET}
    policyDocument:
      Version: '2012-10-17'
      Statement:
        - {{ Effect: Allow, Action: 'execute-api:*', Resource: '*' }}
        - {{ Effect: Deny, Action: 'execute-api:ManageConnections', Resource: '*' }}
apis:
  chat:
    routeSelectionExpression: $request.body.action
    integrations:
      backend: {{ integrationType: AWS_PROXY, integrationUri: {backend} }}
    routes:
      $connect: {{ target: integrations/backend, authorizationType: {authorization} }}
      $default: {{ target: integrations/backend }}
    stages: {{ prod: {{}}, dev: {{}} }}
"
    )
}

fn sdk(gateway: &TestGateway, stage: &str, key: &str, secret: &str, token: Option<&str>) -> ManagementClient {
    let credentials = SdkCredentials::new(key, secret, token.map(str::to_owned), None, "test");
    let config = aws_sdk_apigatewaymanagement::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .endpoint_url(format!("http://{}/{stage}", gateway.public()))
        .retry_config(aws_sdk_apigatewaymanagement::config::retry::RetryConfig::disabled())
        .credentials_provider(credentials)
        .build();
    ManagementClient::from_conf(config)
}

async fn post(client: &ManagementClient, id: &str) -> Result<(), (String, String)> {
    let posted = client.post_to_connection().connection_id(id).data(Blob::new("hi")).send().await;
    posted.map(|_| ()).map_err(|error| {
        let error = error.into_service_error();
        (error.code().unwrap_or_default().to_owned(), error.message().unwrap_or_default().to_owned())
    })
}

async fn connected(gateway: &TestGateway, backend: &TestBackend) -> (TestClient, String) {
    let client = connect(&gateway.url("/prod"), &[]).await;
    let event = backend.next_call().await.event();
    (client, event["requestContext"]["connectionId"].as_str().expect("an id").to_owned())
}

#[tokio::test]
async fn the_rust_sdk_posts_with_its_key_and_gets_awss_codes_otherwise() {
    let backend = TestBackend::saying_hello().await;
    let gateway = TestGateway::start(&yaml(&backend.url(), "NONE")).await;
    let (mut client, id) = connected(&gateway, &backend).await;
    let all = sdk(&gateway, "prod", "AKIDALL", SECRET, None);
    assert_eq!(post(&all, &id).await, Ok(()));
    assert_eq!(client.next_text().await, "hi");
    all.get_connection().connection_id(&id).send().await.expect("a connection");
    let code = |result: Result<(), (String, String)>| result.map_err(|(code, _)| code);
    let refused = |code: &str| Err(code.to_owned());
    let unknown = sdk(&gateway, "prod", "AKIDNOBODY", SECRET, None);
    assert_eq!(code(post(&unknown, &id).await), refused("UnrecognizedClientException"));
    let wrong = sdk(&gateway, "prod", "AKIDALL", "another secret", None);
    assert_eq!(code(post(&wrong, &id).await), refused("InvalidSignatureException"));
    let stolen = sdk(&gateway, "prod", "AKIDALL", SECRET, Some("a token"));
    assert_eq!(code(post(&stolen, &id).await), refused("UnrecognizedClientException"));
    let temporary = |token| sdk(&gateway, "prod", "AKIDTEMP", SECRET, token);
    assert_eq!(post(&temporary(Some("example-session-token")), &id).await, Ok(()));
    assert_eq!(code(post(&temporary(Some("another-token")), &id).await), refused("UnrecognizedClientException"));
    assert_eq!(code(post(&temporary(None), &id).await), refused("UnrecognizedClientException"));
    let expired = |token| sdk(&gateway, "prod", "AKIDEXPIRED", SECRET, Some(token));
    assert_eq!(code(post(&expired("example-session-token"), &id).await), refused("ExpiredTokenException"));
    assert_eq!(code(post(&expired("another-token"), &id).await), refused("UnrecognizedClientException"));

    let poster = sdk(&gateway, "prod", "AKIDPOSTER", SECRET, None);
    assert_eq!(post(&poster, &id).await, Ok(()));
    let error = poster.get_connection().connection_id(&id).send().await.expect_err("not allowed").into_service_error();
    assert_eq!(error.code(), Some("AccessDeniedException"));
    let (code, message) = post(&sdk(&gateway, "dev", "AKIDPOSTER", SECRET, None), &id).await.expect_err("not allowed");
    assert_eq!(code, "AccessDeniedException");
    assert_eq!(
        message,
        "User: arn:aws:iam::000000000000:user/poster is not authorized to perform: execute-api:ManageConnections on \
         resource: arn:aws:execute-api:us-east-1:********0000:chat/dev/POST/@connections/{connectionId} because no \
         identity-based policy allows the execute-api:ManageConnections action"
    );
    let denied = post(&sdk(&gateway, "prod", "AKIDCLIENT", SECRET, None), &id).await.expect_err("not allowed");
    assert!(denied.1.ends_with("with an explicit deny in an identity-based policy"));
    // Who may not call does not learn whether the connection is there.
    assert_eq!(post(&wrong, "R0oXAdfD0kwCH6w=").await.expect_err("wrong").0, "InvalidSignatureException");
    let metrics = gateway.metrics().await;
    assert!(
        metrics.contains(r#"tidegate_pushes_total{api_id="chat",stage="prod",outcome="forbidden",path="local"} 9"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn who_may_not_call_takes_nothing_from_the_throttle() {
    let backend = TestBackend::saying_hello().await;
    let throttle = "throttle: { rateLimit: 0.001, burstLimit: 2 }\n";
    let gateway = TestGateway::start(&format!("{throttle}{}", yaml(&backend.url(), "NONE"))).await;
    let (_client, id) = connected(&gateway, &backend).await;
    let code = |result: Result<(), (String, String)>| result.map_err(|(code, _)| code);
    let wrong = sdk(&gateway, "prod", "AKIDALL", "another secret", None);
    for _ in 0..5 {
        assert_eq!(code(post(&wrong, &id).await), Err("InvalidSignatureException".to_owned()));
    }
    let all = sdk(&gateway, "prod", "AKIDALL", SECRET, None);
    assert_eq!(post(&all, &id).await, Ok(()));
    assert_eq!(code(post(&all, &id).await), Err("LimitExceededException".to_owned()));
    assert_eq!(code(post(&wrong, &id).await), Err("InvalidSignatureException".to_owned()));
}

#[tokio::test]
async fn a_reload_replaces_the_keys() {
    let backend = TestBackend::saying_hello().await;
    let mut gateway = TestGateway::start(&yaml(&backend.url(), "NONE")).await;
    let (_client, id) = connected(&gateway, &backend).await;
    gateway.reload_text(&yaml(&backend.url(), "NONE").replace("AKIDALL", "AKIDNEW"));
    let code = |result: Result<(), (String, String)>| result.map_err(|(code, _)| code);
    let old = sdk(&gateway, "prod", "AKIDALL", SECRET, None);
    assert_eq!(code(post(&old, &id).await), Err("UnrecognizedClientException".to_owned()));
    assert_eq!(post(&sdk(&gateway, "prod", "AKIDNEW", SECRET, None), &id).await, Ok(()));
}

#[tokio::test]
async fn unsigned_and_half_signed_calls_get_awss_codes() {
    let backend = TestBackend::saying_hello().await;
    let gateway = TestGateway::start(&yaml(&backend.url(), "NONE")).await;
    let call = async |path: &str, headers: &str| {
        let path = format!("/prod/@connections/R0oXAdfD0kwCH6w%3D{path}");
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 2\r\n{headers}\r\nhi"
        );
        let answer = raw(gateway.public(), request.as_bytes()).await;
        let error = answer.lines().find_map(|line| line.strip_prefix("x-amzn-errortype: ")).unwrap_or_default();
        (answer[9..12].to_owned(), error.to_owned())
    };
    let forbidden = |error: &str| ("403".to_owned(), error.to_owned());
    let signed = "authorization: AWS4-HMAC-SHA256 Credential=A/20261120/r/execute-api/aws4_request, \
                  SignedHeaders=host, Signature=00\r\n";
    assert_eq!(call("", "").await, forbidden("MissingAuthenticationTokenException"));
    assert_eq!(call("", "authorization: Bearer x\r\n").await, forbidden("IncompleteSignatureException"));
    assert_eq!(call("", signed).await, forbidden("IncompleteSignatureException"));
    assert_eq!(call("", &format!("{signed}{signed}")).await, forbidden("IncompleteSignatureException"));
    assert_eq!(call("?X-Amz-Signature=00", signed).await, forbidden("IncompleteSignatureException"));
    let old = format!(
        "x-amz-date: 20261120T000000Z\r\n{}",
        signed.replace("Signature=00", &format!("Signature={}", "0".repeat(64)))
    );
    assert_eq!(call("", &old.replace("20261120", "20201120")).await, forbidden("InvalidSignatureException"));
}

/// A query string that signs `GET {path}` on `host`.
fn presigned(host: &str, path: &str, key: &str, secret: &str, token: Option<&str>) -> String {
    let identity = Credentials::new(key, secret, token.map(str::to_owned), None, "test").into();
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(Duration::from_secs(60));
    #[expect(clippy::disallowed_methods, reason = "a signer has a clock of its own")]
    let now = SystemTime::now();
    let params = SigningParams::builder().identity(&identity).region("us-east-1").name("execute-api").time(now);
    let params = params.settings(settings).build().expect("parameters").into();
    let url = format!("http://{host}{path}");
    let request = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::empty()).expect("a request");
    let (instructions, _) = sign(request, &params).expect("a signature").into_parts();
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in instructions.params() {
        query.append_pair(name, value);
    }
    query.finish()
}

#[tokio::test]
async fn a_user_agent_that_a_policy_denies_is_denied_whatever_bytes_are_in_it() {
    let backend = TestBackend::saying_hello().await;
    let all = "Deny, Action: 'execute-api:ManageConnections', Resource: '*' }";
    let scanners = "Deny, Action: '*', Resource: '*', Condition: { StringLike: { aws:UserAgent: '*scanner*' } } }";
    let yaml = yaml(&backend.url(), "NONE");
    assert!(yaml.contains(all), "{yaml}");
    let gateway = TestGateway::start(&yaml.replace(all, scanners)).await;
    let (_client, id) = connected(&gateway, &backend).await;
    let host = gateway.public().to_string();
    let path = format!("/prod/@connections/{}", id.replace('=', "%3D"));
    let call = async |agent: &[u8]| {
        let query = presigned(&host, &path, "AKIDCLIENT", SECRET, None);
        let mut request = format!("GET {path}?{query} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n").into_bytes();
        request.extend_from_slice(&[b"user-agent: ", agent, b"\r\n\r\n"].concat());
        raw(gateway.public(), &request).await[9..12].to_owned()
    };
    assert_eq!(call(b"backend/1.0").await, "200");
    assert_eq!(call(b"backend/1.0 \xe4").await, "200");
    assert_eq!(call(b"scanner/1.0").await, "403");
    assert_eq!(call(b"scanner/1.0 \xe4").await, "403");
    assert_eq!(call("scanner/1.0 \u{e4}".as_bytes()).await, "403");
}

#[tokio::test]
async fn a_client_signs_its_handshake_in_the_url() {
    let backend = TestBackend::saying_hello().await;
    let gateway = TestGateway::start(&yaml(&backend.url(), "AWS_IAM")).await;
    let host = gateway.public().to_string();
    let signed = |key: &str, secret: &str, token| presigned(&host, "/prod", key, secret, token);
    let url = |query: &str| gateway.url(&format!("/prod?{query}"));
    connect(&url(&signed("AKIDCLIENT", SECRET, None)), &[]).await;
    let identity = backend.next_call().await.event()["requestContext"]["identity"].clone();
    assert_eq!(identity["userArn"], "arn:aws:iam::000000000000:user/client");
    assert_eq!((&identity["accessKey"], &identity["user"]), (&"AKIDCLIENT".into(), &"client".into()));
    connect(&url(&signed("AKIDTEMP", SECRET, Some("example-session-token"))), &[]).await;
    assert_eq!(backend.next_call().await.event_type(), "CONNECT");

    let (status, message) = refused(&gateway.url("/prod"), &[]).await;
    assert_eq!((status, message.as_str()), (403, "Missing Authentication Token"));
    let (status, message) = refused(&url(&signed("AKIDCLIENT", "wrong", None)), &[]).await;
    assert!(status == 403 && message.starts_with("The request signature we calculated does not match"), "{message}");
    let (status, message) = refused(&url(&signed("AKIDNOBODY", SECRET, None)), &[]).await;
    assert_eq!((status, message.as_str()), (403, "The security token included in the request is invalid."));
    let (status, message) = refused(&url(&signed("AKIDPOSTER", SECRET, None)), &[]).await;
    assert_eq!(status, 403);
    assert!(message.starts_with("User: arn:aws:iam::000000000000:user/poster is not authorized"), "{message}");
    let (status, _) = refused(&url(&signed("AKIDCLIENT", SECRET, None)), &[("authorization", "Bearer x")]).await;
    assert_eq!(status, 403);
    let other_stage = gateway.url(&format!("/dev?{}", signed("AKIDCLIENT", SECRET, None)));
    assert_eq!(refused(&other_stage, &[]).await.0, 403);
}

#[tokio::test]
async fn the_access_log_says_who_signed_and_which_step_refused_whom() {
    let backend = TestBackend::saying_hello().await;
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("access.log");
    let format = "$context.eventType $context.status $context.identity.caller $context.identity.user \
                  $context.identity.accountId $context.identity.userArn signature $context.authenticate.status policy \
                  $context.authorize.status authorizer $context.authorizer.status";
    let stage = format!("prod: {{ accessLogSettings: {{ destination: '{}', format: '{format}' }} }}", log.display());
    let gateway = TestGateway::start(&yaml(&backend.url(), "AWS_IAM").replace("prod: {}", &stage)).await;
    let host = gateway.public().to_string();
    let url = |key: &str, secret: &str| gateway.url(&format!("/prod?{}", presigned(&host, "/prod", key, secret, None)));
    let _client = connect(&url("AKIDCLIENT", SECRET), &[]).await;
    let event = backend.next_call().await.event();
    let id = event["requestContext"]["connectionId"].as_str().expect("an id");
    refused(&url("AKIDCLIENT", "wrong"), &[]).await;
    refused(&url("AKIDPOSTER", SECRET), &[]).await;
    assert_eq!(post(&sdk(&gateway, "prod", "AKIDPOSTER", SECRET, None), id).await, Ok(()));
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("four lines", async || read().lines().count() >= 4).await;
    let poster = "poster poster 000000000000 arn:aws:iam::000000000000:user/poster";
    let expected = [
        "CONNECT 200 client client 000000000000 arn:aws:iam::000000000000:user/client signature 200 policy 200 authorizer -",
        "CONNECT 403 - - - - signature 403 policy - authorizer -",
        "CONNECT 403 - - - - signature 200 policy 403 authorizer -",
        &format!("CONNECTION_API 200 {poster} signature - policy - authorizer -"),
    ];
    assert_eq!(read().lines().collect::<Vec<_>>(), expected);
}
