use futures_util::future::join_all;
use serde_json::{Value, json};
use tidegate_testing::{Issuer, Key, Reply, TestBackend, TestGateway, connect, raw, refused};

pub(crate) fn yaml(issuer: &str, backend: &str, source: &str, more: &str) -> String {
    format!(
        "
apis:
  chat:
    routeSelectionExpression: $request.body.action
    authorizers:
      oidc:
        authorizerType: JWT
        identitySource: [ route.request.{source} ]
        jwtConfiguration: {{ issuer: '{issuer}', audience: [ chat ] }}
        {more}
    integrations:
      backend: {{ integrationType: AWS_PROXY, integrationUri: {backend} }}
    routes:
      $connect:
        {{ target: integrations/backend, authorizationType: JWT, authorizerId: oidc, authorizationScopes: [ chat ] }}
      $disconnect: {{ target: integrations/backend }}
      $default: {{ target: integrations/backend, routeResponseSelectionExpression: $default }}
    stages: {{ prod: {{}} }}
"
    )
}

const QUERY: &str = "querystring.token";
/// The answer of an issuer of this URL to every request.
type Discovery = Box<dyn Fn(&str) -> Reply + Send + Sync>;

const UNAUTHORIZED: (u16, &str) = (401, "Unauthorized");

async fn check_refused(gateway: &TestGateway, token: &str, expected: (u16, &str)) {
    let (status, message) = refused(&gateway.url(&format!("/prod?token={token}")), &[]).await;
    assert_eq!((status, message.as_str()), expected);
}

#[tokio::test]
async fn a_token_is_taken_from_query_header_and_subprotocol_and_its_claims_are_in_every_event() {
    let key = Key::new("one");
    let issuer = Issuer::start(&[&key]).await;
    let backend = TestBackend::saying_hello().await;
    let token = key.sign(&issuer.claims(600));
    let mut gateway = TestGateway::start(&yaml(&issuer.url(), &backend.url(), QUERY, "")).await;
    let mut client = connect(&gateway.url(&format!("/prod?token={token}")), &[]).await;
    let event = backend.next_call().await.event();
    let jwt = &event["requestContext"]["authorizer"]["jwt"];
    assert_eq!(
        (&jwt["claims"]["sub"], &jwt["claims"]["aud"], &jwt["scopes"]),
        (&json!("ann"), &json!("chat"), &json!(["chat"]))
    );
    assert!(jwt["claims"]["exp"].is_string());
    client.send("hi").await;
    assert_eq!(client.next_text().await, "hello");
    assert_eq!(backend.next_call().await.event()["requestContext"]["authorizer"]["jwt"], *jwt);

    gateway.reload_text(&yaml(&issuer.url(), &backend.url(), "header.Authorization", ""));
    connect(&gateway.url("/prod"), &[("authorization", &format!("Bearer {token}"))]).await;
    connect(&gateway.url("/prod"), &[("authorization", &token)]).await;
    let two = [("authorization", token.as_str()), ("authorization", token.as_str())];
    assert_eq!(refused(&gateway.url("/prod"), &two).await.0, 400, "as AWS, whatever the identity source is");
    assert_eq!(refused(&gateway.url("/prod"), &[]).await.0, 401);

    backend.answer_with(|_| {
        Reply::json(&json!({ "statusCode": 200, "headers": { "Sec-WebSocket-Protocol": "chat.v1" } }))
    });
    gateway.reload_text(&yaml(&issuer.url(), &backend.url(), "header.Sec-WebSocket-Protocol", ""));
    connect(&gateway.url("/prod"), &[("sec-websocket-protocol", &format!("chat.v1, bearer.{token}"))]).await;
}

#[tokio::test]
async fn two_tokens_are_refused_wherever_they_are() {
    let key = Key::new("one");
    let issuer = Issuer::start(&[&key]).await;
    let backend = TestBackend::saying_hello().await;
    let token = key.sign(&issuer.claims(600));
    let unauthorized = (401, "Unauthorized".to_owned());
    let mut gateway = TestGateway::start(&yaml(&issuer.url(), &backend.url(), QUERY, "")).await;
    for query in [format!("token={token}&token=other"), format!("token=other&%54oken={token}")] {
        assert_eq!(refused(&gateway.url(&format!("/prod?{query}")), &[]).await, unauthorized, "{query}");
    }
    gateway.reload_text(&yaml(&issuer.url(), &backend.url(), "header.X-Token", ""));
    for (first, second) in [("x-token", "x-token"), ("x-token", "x_token")] {
        assert_eq!(refused(&gateway.url("/prod"), &[(first, &token), (second, "other")]).await, unauthorized);
    }
    gateway.reload_text(&yaml(&issuer.url(), &backend.url(), "header.Sec-WebSocket-Protocol", ""));
    for offer in [format!("bearer.{token}, bearer.other"), format!("bearer, {token}, bearer.other")] {
        let headers = [("sec-websocket-protocol", offer.as_str())];
        assert_eq!(refused(&gateway.url("/prod"), &headers).await, unauthorized, "{offer}");
    }
    assert_eq!(backend.count_new(), 0);
}

#[tokio::test]
async fn a_push_to_the_subject_of_a_token_reaches_all_connections_that_it_opened_and_no_others() {
    let key = Key::new("one");
    let issuer = Issuer::start(&[&key]).await;
    let backend = TestBackend::saying_hello().await;
    let gateway = TestGateway::start(&yaml(&issuer.url(), &backend.url(), QUERY, "")).await;
    let enter = async |sub: &str| {
        let mut claims = issuer.claims(600);
        claims["sub"] = sub.into();
        connect(&gateway.url(&format!("/prod?token={}", key.sign(&claims))), &[]).await
    };
    let (mut phone, mut laptop, mut bob) = (enter("idp|Ann B.").await, enter("idp|Ann B.").await, enter("bob").await);
    let post = async |user: &str, text: &str| {
        let length = text.len();
        let head = format!("POST /prod/@users/{user} HTTP/1.1\r\nhost: localhost\r\nconnection: close");
        let answer =
            raw(gateway.internal(), format!("{head}\r\ncontent-length: {length}\r\n\r\n{text}").as_bytes()).await;
        serde_json::from_str::<Value>(answer.split("\r\n\r\n").last().unwrap_or_default()).expect("a report")["delivered"]
            .as_u64()
    };
    assert_eq!(post("idp%7CAnn%20B.", "hi Ann").await, Some(2));
    assert_eq!((phone.next_text().await, laptop.next_text().await), ("hi Ann".to_owned(), "hi Ann".to_owned()));
    assert_eq!(post("bob", "hi Bob").await, Some(1));
    assert_eq!(bob.next_text().await, "hi Bob", "and nothing before");
    assert_eq!(post("ann", "nobody").await, Some(0));
}

#[tokio::test]
async fn tokens_that_do_not_count_are_refused() {
    let (key, stranger) = (Key::new("one"), Key::new("one"));
    let issuer = Issuer::start(&[&key]).await;
    let backend = TestBackend::saying_hello().await;
    let gateway = TestGateway::start(&yaml(&issuer.url(), &backend.url(), QUERY, "")).await;
    let with = |name: &str, value: Value| {
        let mut claims = issuer.claims(600);
        claims[name] = value;
        key.sign(&claims)
    };
    let evil = TestBackend::start_with(|_| Reply::http(200, String::new())).await;
    let elsewhere = json!({ "jku": format!("{}/keys", evil.url()), "x5u": format!("{}/x5u", evil.url()) });
    for (what, token) in [
        ("no token", "rubbish".to_owned()),
        ("another key", stranger.sign(&issuer.claims(600))),
        ("another key, and where it is", stranger.sign_with(&issuer.claims(600), &elsewhere)),
        ("expired", key.sign(&issuer.claims(-1))),
        ("another audience", with("aud", json!("other"))),
        ("another issuer", with("iss", json!("https://id.example.com"))),
        ("a huge end", with("exp", json!(1e300))),
        ("signed twice", key.sign_with(&issuer.claims(600), &json!({ "cty": "JWT" }))),
        ("an algorithm of its own", key.sign_with(&issuer.claims(600), &json!({ "alg": "none" }))),
        ("of a logout", key.sign_with(&issuer.claims(600), &json!({ "typ": "logout+jwt" }))),
        ("of a security event", key.sign_with(&issuer.claims(600), &json!({ "typ": "application/secevent+jwt" }))),
        ("of a proof", key.sign_with(&issuer.claims(600), &json!({ "typ": "dpop+jwt" }))),
        ("of an empty type", key.sign_with(&issuer.claims(600), &json!({ "typ": "" }))),
        ("of no type that is text", key.sign_with(&issuer.claims(600), &json!({ "typ": ["JWT"] }))),
    ] {
        let (status, message) = refused(&gateway.url(&format!("/prod?token={token}")), &[]).await;
        assert_eq!((status, message.as_str()), UNAUTHORIZED, "{what}");
    }
    for typ in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/jwt", "application/at+jwt", "Application/AT+jwt"] {
        let token = key.sign_with(&issuer.claims(600), &json!({ "typ": typ }));
        connect(&gateway.url(&format!("/prod?token={token}")), &[]).await;
    }
    check_refused(&gateway, &with("scope", json!("read")), (403, "Forbidden")).await;
    connect(&gateway.url(&format!("/prod?token={}", with("scp", json!(["chat"])))), &[]).await;
    let evil = evil;
    assert_eq!(evil.count_new(), 0, "nobody asks where a token says its key is");
}

#[tokio::test]
async fn a_rotated_key_works_at_once_and_old_keys_stay_while_the_issuer_is_away() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let issuer = Issuer::start(&[&old]).await;
    let backend = TestBackend::saying_hello().await;
    let gateway = TestGateway::start(&yaml(&issuer.url(), &backend.url(), QUERY, "")).await;
    let url = |key: &Key, issuer: &Issuer| gateway.url(&format!("/prod?token={}", key.sign(&issuer.claims(600))));
    for _ in 0..3 {
        connect(&url(&old, &issuer), &[]).await;
    }
    assert_eq!(issuer.server.count_new(), 2, "discovery and keys, once");
    issuer.publish(&[&new]);
    connect(&url(&new, &issuer), &[]).await;
    check_refused(&gateway, &old.sign(&issuer.claims(600)), UNAUTHORIZED).await;

    issuer.server.answer_with(|_| Reply::http(503, String::new()));
    connect(&url(&new, &issuer), &[]).await;
    let _ = issuer.server.count_new();
    for kid in ["a", "b", "c", "d", "e", "f"] {
        check_refused(&gateway, &Key::new(kid).sign(&issuer.claims(600)), UNAUTHORIZED).await;
    }
    assert!(issuer.server.count_new() <= 2, "an issuer is not asked for every token");
    connect(&url(&new, &issuer), &[]).await;
}

#[tokio::test]
async fn a_bad_issuer_lets_nobody_in() {
    let key = Key::new("one");
    let backend = TestBackend::saying_hello().await;
    let other = Issuer::start(&[&key]).await;
    let other_url = other.url();
    let cases: Vec<(&str, Discovery)> = vec![
        ("down", Box::new(|_| Reply::http(503, String::new()))),
        ("redirecting", Box::new(|_| Reply::redirect("/elsewhere"))),
        ("lying about its name", {
            let other = other_url.clone();
            Box::new(move |_| Reply::json(&json!({ "issuer": other, "jwks_uri": format!("{other}/keys") })))
        }),
        ("speaking of plain keys", {
            Box::new(|url| Reply::json(&json!({ "issuer": url, "jwks_uri": "http://id.example.com/keys" })))
        }),
        ("rambling", Box::new(|_| Reply::http(200, format!("{{\"x\":\"{}\"}}", "a".repeat(10 * 1024 * 1024))))),
        ("silent about keys", Box::new(|url| Reply::json(&json!({ "issuer": url })))),
    ];
    for (what, answer) in cases {
        let issuer = Issuer::start(&[&key]).await;
        let url = issuer.url();
        issuer.server.answer_with(move |_| answer(&url));
        let gateway = TestGateway::start(&yaml(&issuer.url(), &backend.url(), QUERY, "")).await;
        let token = key.sign(&issuer.claims(600));
        let (status, message) = refused(&gateway.url(&format!("/prod?token={token}")), &[]).await;
        assert_eq!((status, message.as_str()), UNAUTHORIZED, "{what}");
    }
    let issuer = Issuer::start(&[&key]).await;
    issuer.publish_text(format!("{{\"keys\":[{}]}}", "{},".repeat(4 * 1024 * 1024)));
    let gateway = TestGateway::start(&yaml(&issuer.url(), &backend.url(), QUERY, "")).await;
    check_refused(&gateway, &key.sign(&issuer.claims(600)), UNAUTHORIZED).await;
    issuer.publish(&[&key]);
    connect(&gateway.url(&format!("/prod?token={}", key.sign(&issuer.claims(600)))), &[]).await;
}

#[tokio::test]
async fn the_same_kid_at_two_issuers_is_two_keys() {
    let (mine, theirs) = (Key::new("one"), Key::new("one"));
    let (issuer, other) = (Issuer::start(&[&mine]).await, Issuer::start(&[&theirs]).await);
    let backend = TestBackend::saying_hello().await;
    let first = TestGateway::start(&yaml(&issuer.url(), &backend.url(), QUERY, "")).await;
    let second = TestGateway::start(&yaml(&other.url(), &backend.url(), QUERY, "")).await;
    connect(&first.url(&format!("/prod?token={}", mine.sign(&issuer.claims(600)))), &[]).await;
    connect(&second.url(&format!("/prod?token={}", theirs.sign(&other.claims(600)))), &[]).await;
    check_refused(&first, &theirs.sign(&issuer.claims(600)), UNAUTHORIZED).await;
    check_refused(&second, &mine.sign(&other.claims(600)), UNAUTHORIZED).await;
}

#[tokio::test]
async fn a_connection_whose_token_expires_is_given_notice_and_closed() {
    let key = Key::new("one");
    let issuer = Issuer::start(&[&key]).await;
    let backend = TestBackend::saying_hello().await;
    let more = "tokenExpiration: { noticeSeconds: 3600 }";
    let gateway = TestGateway::start(&yaml(&issuer.url(), &backend.url(), QUERY, more)).await;
    let mut client = connect(&gateway.url(&format!("/prod?token={}", key.sign(&issuer.claims(2)))), &[]).await;
    let notice: Value = serde_json::from_str(&client.next_text().await).expect("JSON");
    assert_eq!(notice["message"], "Token expires");
    assert!(notice["expiresAt"].is_u64());
    assert_eq!(client.next_close().await, (4401, "Token expired".to_owned()));
    assert_eq!(backend.next_call().await.event_type(), "CONNECT");
    let disconnected = backend.next_call().await.event();
    assert_eq!(disconnected["requestContext"]["disconnectStatusCode"], 4401);
    assert!(gateway.metrics().await.contains(r#"cause="tokenExpired"} 1"#));
}

#[tokio::test]
async fn a_fresh_token_replaces_the_old_one_and_a_bad_one_changes_nothing() {
    let key = Key::new("one");
    let issuer = Issuer::start(&[&key]).await;
    let backend = TestBackend::saying_hello().await;
    let gateway = TestGateway::start(&yaml(&issuer.url(), &backend.url(), QUERY, "refreshRouteKey: refresh")).await;
    let mut client = connect(&gateway.url(&format!("/prod?token={}", key.sign(&issuer.claims(600)))), &[]).await;
    assert_eq!(backend.next_call().await.event_type(), "CONNECT");
    let with = |name: &str, value: Value| {
        let mut claims = issuer.claims(900);
        claims[name] = value;
        key.sign(&claims)
    };
    let message = |text: &str| serde_json::from_str::<Value>(text).expect("JSON")["message"].clone();
    for token in
        ["rubbish".to_owned(), with("sub", json!("eve")), with("scope", json!("read")), key.sign(&issuer.claims(-1))]
    {
        client.send(&json!({ "action": "refresh", "token": token }).to_string()).await;
        assert_eq!(message(&client.next_text().await), "Unauthorized");
    }
    client.send(r#"{"action":"refresh"}"#).await;
    assert_eq!(message(&client.next_text().await), "Unauthorized");
    client.send(&json!({ "action": "refresh", "token": with("tier", json!("gold")) }).to_string()).await;
    assert_eq!(message(&client.next_text().await), "Token refreshed");
    assert_eq!(backend.count_new(), 0, "no backend hears of it");
    client.send("hi").await;
    assert_eq!(client.next_text().await, "hello");
    assert_eq!(backend.next_call().await.event()["requestContext"]["authorizer"]["jwt"]["claims"]["tier"], "gold");
    // A token that ends sooner counts too.
    client.send(&json!({ "action": "refresh", "token": key.sign(&issuer.claims(2)) }).to_string()).await;
    assert_eq!(message(&client.next_text().await), "Token refreshed");
    assert_eq!(client.next_close().await, (4401, "Token expired".to_owned()));
}

#[tokio::test]
async fn a_slow_issuer_holds_up_nobody_whose_key_is_known_and_others_not_for_long() {
    let (key, new) = (Key::new("one"), Key::new("new"));
    let issuer = Issuer::start(&[&key]).await;
    let backend = TestBackend::saying_hello().await;
    let gateway = TestGateway::start(&yaml(&issuer.url(), &backend.url(), QUERY, "")).await;
    let (known, unknown) = (key.sign(&issuer.claims(600)), new.sign(&issuer.claims(600)));
    let url = gateway.url(&format!("/prod?token={known}"));
    connect(&url, &[]).await;
    assert_eq!(issuer.server.count_new(), 2, "discovery and keys");
    issuer.server.answer_with(|_| Reply::hang());
    // All of them wait for one and the same question, which has an end of its own.
    let waiting = join_all((0..20).map(|_| check_refused(&gateway, &unknown, UNAUTHORIZED)));
    let others = async {
        issuer.server.next_call().await;
        for _ in 0..20 {
            connect(&url, &[]).await;
        }
        issuer.server.count_new()
    };
    let asked = tokio::select! {
        biased;
        asked = others => asked,
        _ = waiting => panic!("who has a known key waited for the issuer"),
    };
    assert_eq!(asked, 0, "the issuer is asked once for all");
    check_refused(&gateway, &unknown, UNAUTHORIZED).await;
}
