//! The requests that `HTTP_PROXY` backends receive, and what becomes of their answers.

use tidegate_testing::{RawClient, Reply, Settings, TestBackend, frame, handshake};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn a_plain_http_backend_gets_the_clients_handshake_its_messages_and_its_end() {
    let backend = TestBackend::start().await;
    let settings = Settings::http_proxy(&backend).integration("integrationUri: \"${env:BACKEND}/hook?fixed=1\"");
    let gateway = settings.start().await;
    let mut client = RawClient::connect(gateway.public()).await;
    let headers = [
        ("Cookie", "a=1"),
        ("User-Agent", "demo/1"),
        ("Origin", "https://app.test"),
        ("Authorization", "Bearer t"),
        ("X-Tidegate-Connection-Id", "forged"),
        ("x-tidegate-event-type", "DISCONNECT"),
        ("x-tidegate-anything", "1"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("Proxy-Authorization", "secret"),
        ("TE", "trailers"),
    ];
    client.send(&handshake(gateway.public(), "/prod?ws_token=a%20b&channel=1", &headers)).await;
    assert_eq!(client.response().await.status, 101);

    let call = backend.next("CONNECT").await;
    assert_eq!(call.method, "POST");
    assert_eq!(call.uri, "/hook?fixed=1&ws_token=a%20b&channel=1");
    assert!(call.body.is_empty());
    for (name, value) in [
        ("cookie", "a=1"),
        ("user-agent", "demo/1"),
        ("origin", "https://app.test"),
        ("authorization", "Bearer t"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-amzn-apigateway-api-id", "chat"),
        ("content-length", "0"),
        ("x-tidegate-event-type", "CONNECT"),
    ] {
        assert_eq!(call.header(name), value);
    }
    assert_eq!(call.header("host"), backend.address().to_string());
    assert_eq!(call.header("x-forwarded-port"), gateway.public().port().to_string());
    assert!(call.header("x-amzn-trace-id").starts_with("Root=1-"));
    let id = call.connection_id().to_owned();
    assert_eq!(id.len(), 20);
    for absent in ["upgrade", "connection", "content-type", "x-tidegate-anything", "proxy-authorization", "te"] {
        assert!(!call.headers.contains_key(absent), "{absent}");
    }

    client.send(&frame(0x81, br#"{"action":"tell"}"#)).await;
    let call = backend.next("MESSAGE").await;
    assert_eq!((call.method.as_str(), call.uri.to_string()), ("POST", "/hook?fixed=1".to_owned()));
    assert_eq!(call.text(), r#"{"action":"tell"}"#);
    for (name, value) in [
        ("content-type", "application/json"),
        ("user-agent", "demo/1"),
        ("x-amzn-apigateway-api-id", "chat"),
        ("x-tidegate-route-key", "tell"),
        ("x-tidegate-connection-id", &id),
        ("x-tidegate-attempt", "1"),
    ] {
        assert_eq!(call.header(name), value);
    }
    for absent in ["cookie", "origin", "sec-websocket-key", "authorization", "x-tidegate-anything"] {
        assert!(!call.headers.contains_key(absent), "{absent}");
    }

    client.send(&frame(0x88, &[&4001_u16.to_be_bytes()[..], "b\u{e9} %".as_bytes()].concat())).await;
    let call = backend.next("DISCONNECT").await;
    assert!(call.body.is_empty());
    for (name, value) in [
        ("x-tidegate-disconnect-code", "4001"),
        ("x-tidegate-disconnect-reason", "b%C3%A9%20%25"),
        ("user-agent", "demo/1"),
        ("x-tidegate-connection-id", &id),
    ] {
        assert_eq!(call.header(name), value);
    }
}

#[tokio::test]
async fn request_parameters_are_mapped_from_every_source() {
    let backend = TestBackend::start().await;
    let parameters = [
        ("header.connectionId", "context.connectionId"),
        ("header.x-route", "context.routeKey"),
        ("header.x-ip", "context.identity.sourceIp"),
        ("header.x-token", "route.request.querystring.token"),
        ("header.x-all-tokens", "route.request.multivaluequerystring.token"),
        ("header.x-agent", "route.request.header.User-Agent"),
        ("header.x-many", "route.request.multivalueheader.x-list"),
        ("header.x-secret", "\"'s3 cret'\""),
        ("header.x-table", "stageVariables.table"),
        ("header.x-room", "\"route.request.body.data.rooms[1]\""),
        ("querystring.stage", "context.stage"),
        ("querystring.room", "\"route.request.body.data.rooms[1]\""),
    ];
    let parameters: Vec<String> =
        parameters.iter().map(|(to, from)| format!("integration.request.{to}: {from}")).collect();
    let gateway = Settings::http_proxy(&backend)
        .integration(format!("integrationMethod: PUT, requestParameters: {{ {} }}", parameters.join(", ")))
        .stage("stageVariables: { table: t1 }")
        .start()
        .await;
    let headers = [("x-list", "a"), ("x-list", "b"), ("user-agent", "demo/1")];
    let mut client = gateway.connect_with("/prod?token=1&token=2", &headers).await;
    let call = backend.next("CONNECT").await;
    assert_eq!(call.method, "PUT");
    assert_eq!(call.uri, "/events?token=1&token=2&stage=prod");
    let id = call.connection_id().to_owned();
    for (name, value) in [
        ("connectionid", &*id),
        ("x-route", "$connect"),
        ("x-ip", "127.0.0.1"),
        ("x-token", "2"),
        ("x-all-tokens", "1,2"),
        ("x-agent", "demo/1"),
        ("x-many", "a,b"),
        ("x-secret", "s3 cret"),
        ("x-table", "t1"),
    ] {
        assert_eq!(call.header(name), value);
    }
    assert!(!call.headers.contains_key("x-room"), "a source without a value sets nothing");

    client.send(r#"{"action":"tell","data":{"rooms":["a","b&c d"]}}"#).await;
    let call = backend.next("MESSAGE").await;
    assert_eq!(call.uri, "/events?room=b%26c+d&stage=prod");
    for (name, value) in [("connectionid", &*id), ("x-route", "tell"), ("x-room", "b&c d"), ("x-secret", "s3 cret")] {
        assert_eq!(call.header(name), value);
    }
    assert!(!call.headers.contains_key("x-token"));

    client.send("{\"data\":{\"rooms\":[0,\"a\\r\\nx-evil: 1\"]}}").await;
    let call = backend.next("MESSAGE").await;
    assert!(!call.headers.contains_key("x-evil"));
    assert!(!call.headers.contains_key("x-room"), "what no header can hold sets none");
}

#[tokio::test]
async fn what_a_mapping_names_is_never_the_clients_whatever_becomes_of_the_value() {
    let backend = TestBackend::start().await;
    let parameters = [
        ("header.x-user", "context.authorizer.principalId"),
        ("header.x-bad", "route.request.querystring.bad"),
        ("header.user-agent", "\"route.request.body.agent\""),
        ("header.x-stage", "context.stage"),
        ("querystring.user", "context.authorizer.principalId"),
        ("querystring.stage", "context.stage"),
    ];
    let parameters: Vec<String> =
        parameters.iter().map(|(to, from)| format!("integration.request.{to}: {from}")).collect();
    let gateway = Settings::http_proxy(&backend)
        .integration(format!(
            "integrationUri: \"${{env:BACKEND}}/hook?tenant=acme&${{stageVariables.more}}\", \
             requestParameters: {{ {} }}",
            parameters.join(", ")
        ))
        .stage("stageVariables: { more: region=eu }")
        .start()
        .await;
    let headers = [
        ("X-User", "admin"),
        ("x_user", "admin"),
        ("X-User", "root"),
        ("X-Bad", "forged"),
        ("User-Agent", "forged"),
        ("X-Stage", "forged"),
        ("X-User-Name", "ann"),
    ];
    let forged = "user=admin&%75ser=admin&USER=admin&user[]=admin&+user=admin&stage=forged&tenant=evil&te%6Eant=evil&\
                  region=us&x=1;user=admin;region=us";
    let target = format!("/prod?bad=a%0Ab&{forged}&usern=ann");
    let mut client = RawClient::connect(gateway.public()).await;
    client.send(&handshake(gateway.public(), &target, &headers)).await;
    assert_eq!(client.response().await.status, 101);
    let call = backend.next("CONNECT").await;
    assert_eq!(call.uri, "/hook?tenant=acme&region=eu&bad=a%0Ab&x=1;usern=ann&stage=prod");
    assert_eq!((call.header("x-stage"), call.header("x-user-name")), ("prod", "ann"));
    for absent in ["x-user", "x_user", "x-bad", "user-agent"] {
        assert!(!call.headers.contains_key(absent), "{absent}: {:?}", call.headers);
    }

    client.send(&frame(0x81, br#"{"action":"tell"}"#)).await;
    let call = backend.next("MESSAGE").await;
    assert!(!call.headers.contains_key("user-agent"), "the client wrote it, and the mapping names it");
    client.send(&frame(0x81, br#"{"action":"tell","agent":"told/1"}"#)).await;
    assert_eq!(backend.next("MESSAGE").await.header("user-agent"), "told/1");
}

#[tokio::test]
async fn headers_that_a_backend_could_take_for_the_gateways_or_a_proxys_do_not_pass() {
    let backend = TestBackend::start().await;
    let mapping = "requestParameters: { integration.request.header.x-country: route.request.header.CF-Connecting-IP }";
    let gateway = Settings::http_proxy(&backend).integration(mapping).start().await;
    let names = [
        "x_tidegate_connection_id",
        "x-tidegate-anything",
        "x.tidegate.user",
        "webhook-signature",
        "webhook_signature",
        "x_forwarded_for",
        "x_forwarded_proto",
        "accept_language",
        "content-type",
        "content-encoding",
        "expect",
        "Forwarded",
        "X-Real-IP",
        "X-Forwarded-Host",
        "X-Forwarded-Prefix",
        "X-Forwarded-Server",
        "X-Forwarded-Ssl",
        "X-Forwarded-Scheme",
        "X-Forwarded-User",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-Client-Cert",
        "X-SSL-Client-Verify",
        "Client-Cert",
        "True-Client-IP",
        "CF-Connecting-IP",
        "X-Amzn-Mtls-Clientcert",
        "Proxy",
        "X-Sendfile-Type",
        "X-Envoy-External-Address",
        "x-hop",
        "x-second-hop",
        "HTTP2-Settings",
        "Keep-Alive",
    ];
    let mut headers: Vec<(&str, &str)> = names.iter().map(|name| (*name, "6.6.6.6")).collect();
    headers.extend([
        ("Connection", "Upgrade, X-Hop"),
        ("Connection", "x-second-hop,x-forwarded-for"),
        ("X-Own", "1"),
        ("X-Amz-Date", "2"),
        ("Authorization", "Bearer t"),
    ]);
    assert_eq!(gateway.handshake("/prod", &headers).await.status, 101);
    let call = backend.next("CONNECT").await;
    for absent in names {
        assert!(!call.headers.contains_key(absent), "{absent}");
    }
    for (name, value) in [
        ("x-own", "1"),
        ("x-amz-date", "2"),
        ("authorization", "Bearer t"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-country", "6.6.6.6"),
    ] {
        assert_eq!(call.header(name), value);
    }
    let forged: Vec<_> = call.headers.iter().filter(|(_, value)| *value == "6.6.6.6").collect();
    assert_eq!(forged.len(), 1, "{forged:?}");
}

#[tokio::test]
async fn every_call_says_where_the_connection_came_from() {
    let backend = TestBackend::start().await;
    let public = "connectionsApi: NONE, trustedProxies: [127.0.0.0/8, 10.1.0.0/16]";
    let gateway = Settings::http_proxy(&backend).public(public).start().await;
    let behind_proxies =
        [("x-forwarded-for", "203.0.113.7, 10.1.1.1"), ("x-forwarded-proto", "https"), ("x-forwarded-port", "8443")];
    let port = gateway.public().port().to_string();
    for (headers, expected) in [
        (&behind_proxies[..], ["203.0.113.7, 10.1.1.1, 127.0.0.1", "8443", "https"]),
        (&behind_proxies[..1], ["203.0.113.7, 10.1.1.1, 127.0.0.1", &port, "http"]),
        (&[], ["127.0.0.1", &port, "http"]),
    ] {
        let mut client = gateway.connect_with("/prod", headers).await;
        client.send(r#"{"action":"tell"}"#).await;
        client.close(Some((1000, ""))).await;
        for event_type in ["CONNECT", "MESSAGE", "DISCONNECT"] {
            let call = backend.next(event_type).await;
            let names = ["x-forwarded-for", "x-forwarded-port", "x-forwarded-proto"];
            assert_eq!(names.map(|name| call.header(name)), expected, "{event_type}");
        }
    }
    // What is kept of a long way ends with a whole address, and begins with the source.
    let way = format!("203.0.113.7{}", ", 10.1.22.22".repeat(100));
    let mut client = RawClient::connect(gateway.public()).await;
    client.send(&handshake(gateway.public(), "/prod", &[("X-Forwarded-For", &way)])).await;
    assert_eq!(client.response().await.status, 101);
    client.send(&frame(0x81, br#"{"action":"tell"}"#)).await;
    let call = backend.next("MESSAGE").await;
    assert_eq!(call.header("x-forwarded-for"), format!("203.0.113.7{}", ", 10.1.22.22".repeat(41)));
}

#[tokio::test]
async fn a_binary_message_reaches_a_plain_http_backend_as_its_bytes() {
    let backend = TestBackend::start().await;
    let gateway = Settings::http_proxy(&backend).start().await;
    let (mut client, _) = gateway.client(&backend).await;
    client.send_message(Message::binary(vec![0, 255, 254])).await;
    let call = backend.next("MESSAGE").await;
    assert_eq!(&call.body[..], [0, 255, 254]);
    assert_eq!(call.header("content-type"), "application/octet-stream");
    assert_eq!(call.header("x-tidegate-route-key"), "$default");
    client.send("not JSON").await;
    let call = backend.next("MESSAGE").await;
    assert_eq!((call.text(), call.header("content-type")), ("not JSON", "text/plain; charset=utf-8"));
}

#[tokio::test]
async fn an_empty_body_is_an_empty_frame_only_if_it_has_a_type_and_its_status_leaves_room_for_it() {
    let backend = TestBackend::start().await;
    let gateway = Settings::http_proxy(&backend).start().await;
    let (mut client, _) = gateway.client(&backend).await;
    for (status, content_type, is_frame) in [
        (200, Some("text/plain"), true),
        (200, None, false),
        (202, Some("application/json"), true),
        (204, Some("text/plain"), false),
        (205, Some("text/plain"), false),
        (404, Some("text/html"), true),
        (503, None, false),
    ] {
        let reply = Reply::http(status, "");
        backend.answer("MESSAGE", content_type.iter().fold(reply, |reply, value| reply.header("content-type", value)));
        client.send(r#"{"action":"ask"}"#).await;
        backend.next("MESSAGE").await;
        if is_frame {
            assert_eq!(client.next_text().await, "", "{status}");
        }
        backend.answer("MESSAGE", Reply::http(200, "next"));
        client.send(r#"{"action":"ask"}"#).await;
        assert_eq!(client.next_text().await, "next", "{status}: nothing more came");
        backend.next("MESSAGE").await;
    }
}

#[tokio::test]
async fn on_a_two_way_route_the_body_is_the_reply_whatever_the_status() {
    let backend = TestBackend::start().await;
    let gateway = Settings::http_proxy(&backend).start().await;
    let (mut client, _) = gateway.client(&backend).await;
    for status in [200, 202, 400, 404, 500, 503] {
        backend.answer("MESSAGE", Reply::http(status, format!("said with {status}")));
        client.send(r#"{"action":"ask"}"#).await;
        assert_eq!(client.next_text().await, format!("said with {status}"));
        backend.answer("MESSAGE", Reply::http(status, "unheard"));
        client.send(r#"{"action":"tell"}"#).await;
        backend.answer("MESSAGE", Reply::http(status, ""));
        client.send(r#"{"action":"ask"}"#).await;
        for _ in 0..3 {
            backend.next("MESSAGE").await;
        }
    }
    backend.answer("MESSAGE", Reply::http(302, "moved").header("location", "/"));
    client.send(r#"{"action":"tell"}"#).await;
    assert_eq!(client.next_json().await["message"], "Internal server error");
    backend.answer("MESSAGE", Reply::http(200, &b"\xff\xfe"[..]));
    client.send(r#"{"action":"ask"}"#).await;
    assert_eq!(client.next_text().await, "\u{fffd}\u{fffd}");
}
