//! Secrets: no token, key or signature is in any output of the gateway, at any log level.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tidegate_testing::{Issuer, Key, Reply, TestBackend, connect, eventually, raw, refused};
use tokio::process::{Child, Command};

/// Each stands for a secret of its own, by the place that it is put into.
const SECRETS: [&str; 14] = [
    "hidden-secret-access-key",
    "hidden-session-token",
    "hidden-api-key",
    "hidden-wrong-api-key",
    "hidden-query-token",
    "hidden-bearer",
    "hidden-cookie",
    "hidden-signature",
    "hidden-security-token",
    "hidden-presigned-token",
    "hidden-authorizer-context",
    "hidden-usage-identifier-key",
    "hidden-policy",
    "hidden-refresh-token",
];

fn yaml(authorizer: &str, issuer: &str, backend: &str, access_log: &Path) -> String {
    let access_log = access_log.display();
    let format = "$context.requestId $context.eventType $context.status $context.error.message \
                  $context.authorizer.error $context.authorizer.principalId $context.identity.apiKeyId";
    let routes = "$disconnect: { target: integrations/backend }\n      \
                  $default: { target: integrations/backend, routeResponseSelectionExpression: $default }";
    let stages = format!(
        "stages: {{ prod: {{ accessLogSettings: {{ destination: '{access_log}', format: '{format}' }}, \
         defaultRouteSettings: {{ loggingLevel: INFO }} }} }}"
    );
    let rest = format!(
        "routeSelectionExpression: $request.body.action\n    integrations: {{ backend: {{ integrationType: AWS_PROXY, \
         integrationUri: {backend} }} }}\n    {stages}"
    );
    format!(
        "
listeners:
  public: {{ address: '127.0.0.1:0', connectionsApi: AWS_IAM }}
  internal: {{ address: '127.0.0.1:0' }}
credentials:
  one: {{ accessKeyId: AKIDONE, secretAccessKey: hidden-secret-access-key, sessionToken: hidden-session-token }}
apiKeys: {{ mobile: {{ value: hidden-api-key }} }}
usagePlans: {{ basic: {{ apiStages: [ 'asked:prod' ], apiKeys: [ mobile ], quota: {{ limit: 3, period: MONTH }} }} }}
apis:
  asked:
    {rest}
    authorizers:
      session: {{ authorizerType: REQUEST, authorizerUri: '{authorizer}', identitySource: [ route.request.querystring.token ] }}
    routes:
      $connect: {{ target: integrations/backend, authorizationType: CUSTOM, authorizerId: session, apiKeyRequired: true }}
      {routes}
  tokens:
    {rest}
    authorizers:
      oidc:
        authorizerType: JWT
        identitySource: [ route.request.querystring.token ]
        jwtConfiguration: {{ issuer: '{issuer}', audience: [ chat ] }}
        refreshRouteKey: refresh
    routes:
      $connect: {{ target: integrations/backend, authorizationType: JWT, authorizerId: oidc }}
      {routes}
  signed:
    {rest}
    routes:
      $connect: {{ target: integrations/backend, authorizationType: AWS_IAM }}
      {routes}
"
    )
}

/// The binary that is shipped; its log goes to a file.
struct Gateway {
    child: Child,
    public: SocketAddr,
    internal: SocketAddr,
}

impl Gateway {
    async fn start(config: &Path, log: &Path, level: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["serve", "--log-format", "json", "--config"])
            .arg(config)
            .env("RUST_LOG", level)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(log).expect("a file"))
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        let ready = || {
            let log = std::fs::read_to_string(log).unwrap_or_default();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.into_iter().find(|line| line["message"] == "ready")
        };
        eventually("it is ready", async || ready().is_some()).await;
        let ready = ready().expect("found above");
        let address = |key: &str| ready[key].as_str().and_then(|text| text.parse().ok()).expect("an address");
        Gateway { public: address("public"), internal: address("internal"), child }
    }

    fn url(&self, api: &str, query: &str) -> String {
        format!("ws://{}/_aws/execute-api/{api}/prod?{query}", self.public)
    }

    async fn stop(mut self) {
        let id = self.child.id().expect("it runs").to_string();
        Command::new("kill").args(["-TERM", &id]).status().await.expect("kill runs");
        assert!(self.child.wait().await.expect("a status").success());
    }
}

fn authorizer_answer(resource: &str, context: &Value) -> Reply {
    let statement = json!({ "Effect": "Allow", "Action": "execute-api:Invoke", "Resource": resource });
    Reply::json(&json!({
        "principalId": "ann", "context": context, "usageIdentifierKey": "hidden-usage-identifier-key",
        "policyDocument": { "Version": "2012-10-17", "Statement": [statement] },
    }))
}

async fn use_all_secrets(gateway: &Gateway, authorizer: &TestBackend, issuer: &Issuer, key: &Key) -> Vec<String> {
    // A REQUEST authorizer, and an API key.
    let headers = [
        ("x-api-key", "hidden-api-key"),
        ("authorization", "Bearer hidden-bearer"),
        ("cookie", "session=hidden-cookie"),
    ];
    let asked = gateway.url("asked", "token=hidden-query-token");
    let mut client = connect(&asked, &headers).await;
    for expected in ["hello", "hello", "Limit Exceeded"] {
        client.send(r#"{"action":"x"}"#).await;
        assert!(client.next_text().await.contains(expected));
    }
    assert_eq!(refused(&asked, &headers).await.0, 429);
    assert_eq!(refused(&asked, &[("x-api-key", "hidden-wrong-api-key")]).await.0, 403);
    let context = json!({ "a": { "b": "hidden-authorizer-context" } });
    for (answer, status) in [
        (authorizer_answer("*", &context), 500),
        (authorizer_answer("arn:hidden-policy", &json!({})), 403),
        (authorizer_answer("${hidden-policy}", &json!({})), 500),
        (Reply::http(200, "hidden-policy".to_owned()), 500),
        (Reply::json(&json!({ "errorMessage": "hidden-policy" })), 500),
        (Reply::http(403, "hidden-policy".to_owned()), 500),
    ] {
        authorizer.answer_with(move |_| answer.clone());
        assert_eq!(refused(&asked, &headers).await.0, status);
    }
    // Tokens that count and tokens that do not.
    let (token, fresh) = (key.sign(&issuer.claims(600)), key.sign(&issuer.claims(900)));
    let expired = key.sign(&issuer.claims(-600));
    let forged = Key::new("another").sign(&issuer.claims(600));
    let mut client = connect(&gateway.url("tokens", &format!("token={token}")), &[]).await;
    for (token, expected) in [(&*fresh, "Token refreshed"), ("hidden-refresh-token", "Unauthorized"), (&expired, "Una")]
    {
        client.send(&json!({ "action": "refresh", "token": token }).to_string()).await;
        assert!(client.next_text().await.contains(expected));
    }
    for token in [&expired, &forged] {
        assert_eq!(refused(&gateway.url("tokens", &format!("token={token}")), &[]).await.0, 401);
    }
    // Signatures, in the query and in headers.
    let presigned = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDONE%2F20261120%2Fr%2Fexecute-api%2Faws4_request\
                     &X-Amz-Date=20261120T000000Z&X-Amz-SignedHeaders=host&X-Amz-Signature=hidden-signature\
                     &X-Amz-Security-Token=hidden-presigned-token";
    assert_eq!(refused(&gateway.url("signed", presigned), &[]).await.0, 403);
    for date in ["20261120T000000Z", "20991120T000000Z"] {
        let request = format!(
            "POST /_aws/execute-api/signed/prod/@connections/AAAAAAAAAAAAAAAAAAA%3D HTTP/1.1\r\nhost: localhost\r\n\
             connection: close\r\ncontent-length: 13\r\nx-amz-date: {date}\r\nx-amz-security-token: hidden-security-token\r\n\
             authorization: AWS4-HMAC-SHA256 Credential=AKIDONE/{}/r/execute-api/aws4_request, \
             SignedHeaders=host;x-amz-date;x-amz-security-token, Signature=hidden-signature\r\n\r\nhidden-policy",
            &date[..8]
        );
        assert!(raw(gateway.public, request.as_bytes()).await.starts_with("HTTP/1.1 403"));
    }
    let signed = signed_post(gateway.public, "hidden-secret-access-key", "hidden-session-token");
    let answer = raw(gateway.public, signed.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 410"), "signed well, for nobody: {answer}");
    let stolen = signed_post(gateway.public, "hidden-secret-access-key", "hidden-security-token");
    assert!(raw(gateway.public, stolen.as_bytes()).await.contains("UnrecognizedClientException"));
    let signatures = [&signed, &stolen].map(|request| {
        let (_, rest) = request.split_once("Signature=").expect("a signature");
        rest[..64].to_owned()
    });
    // Of a token the last part is enough to tell that it was shown.
    let tokens = [token, fresh, expired, forged].map(|token| token.rsplit_once('.').expect("three parts").1.to_owned());
    signatures.into_iter().chain(tokens).collect()
}

/// A post that is signed as an SDK signs it.
fn signed_post(host: SocketAddr, secret: &str, token: &str) -> String {
    use aws_credential_types::Credentials;
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
    use aws_sigv4::sign::v4::SigningParams;

    #[expect(clippy::disallowed_methods, reason = "a signer has a clock of its own")]
    let now = std::time::SystemTime::now();
    let identity = Credentials::new("AKIDONE", secret, Some(token.to_owned()), None, "test").into();
    let params = SigningParams::builder().identity(&identity).region("us-east-1").name("execute-api").time(now);
    let params = params.settings(SigningSettings::default()).build().expect("parameters").into();
    let path = "/_aws/execute-api/signed/prod/@connections/AAAAAAAAAAAAAAAAAAA%3D";
    let url = format!("http://{host}{path}");
    let request =
        SignableRequest::new("POST", &url, std::iter::empty(), SignableBody::Bytes(b"hi")).expect("a request");
    let (instructions, _) = sign(request, &params).expect("a signature").into_parts();
    let headers: String = instructions.headers().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 2\r\n{headers}\r\nhi")
}

#[tokio::test]
async fn no_secret_is_in_any_output_at_any_level() {
    let key = Key::new("one");
    let (issuer, backend) = (Issuer::start(&[&key]).await, TestBackend::saying_hello().await);
    for level in ["info", "debug", "trace"] {
        let authorizer =
            TestBackend::start_with(|_| authorizer_answer("*", &json!({ "tier": "hidden-authorizer-context" }))).await;
        let folder = tempfile::tempdir().expect("a folder");
        let [config, log, access_log] = ["tidegate.yaml", "log", "access.log"].map(|name| folder.path().join(name));
        std::fs::write(&config, yaml(&authorizer.url(), &issuer.url(), &backend.url(), &access_log)).expect("a file");
        let gateway = Gateway::start(&config, &log, level).await;
        let mut secrets = use_all_secrets(&gateway, &authorizer, &issuer, &key).await;
        secrets.extend(SECRETS.map(str::to_owned));
        let page = async |path: &str| {
            let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            raw(gateway.internal, request.as_bytes()).await
        };
        let pages = [page("/metrics").await, page("/state").await, page("/connections").await];
        gateway.stop().await;
        let [log, access_log] = [log, access_log].map(|file| std::fs::read_to_string(file).expect("a file"));
        assert!(access_log.contains("CONNECT") && log.contains("a client was refused"), "{log}");
        for text in [&log, &access_log].into_iter().chain(&pages) {
            for line in text.lines() {
                let shown = secrets.iter().find(|secret| line.contains(secret.as_str()));
                assert!(shown.is_none(), "{shown:?} is shown at level {level}: {line}");
            }
        }
        // Each refusal has one line, which says why.
        for why in [
            "the authorizer failed: the answer cannot be used: a value in `context`",
            "the authorizer failed: the answer cannot be used: the policy cannot be evaluated",
            "the authorizer failed: the answer cannot be used: the answer is not a JSON object",
            "the authorizer failed: the answer cannot be used: the authorizer's function failed",
            "the authorizer failed: the authorizer answered with status 403",
            "no statement of the authorizer's policy allows execute-api:Invoke",
            "the token is not valid: the token has expired",
            "the token is not valid: the token's key is not among",
            "the signature is not valid: The request signature we calculated does not match",
            "the signature names an unknown key or has another key's session token",
        ] {
            assert!(log.contains(why), "{why} in\n{log}");
        }
    }
}
