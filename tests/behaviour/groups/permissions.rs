//! Permissions under `AWS_IAM`: policies name groups and users as they are.

use serde_json::json;
use tidegate_testing::{HttpResponse, Settings, http, signed};

use crate::groups::membership::NOBODY;
use crate::groups::room::Room;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn settings(settings: Settings) -> Settings {
    settings.public("connectionsApi: AWS_IAM").section(format!(
        "credentials:
  all: {{ accessKeyId: AKIDALL, secretAccessKey: {SECRET} }}
  rooms:
    accessKeyId: AKIDROOMS
    secretAccessKey: {SECRET}
    policyDocument:
      Version: '2012-10-17'
      Statement:
        - Effect: Allow
          Action: execute-api:ManageConnections
          Resource:
            - arn:aws:execute-api:*:*:chat/prod/*/@groups/room-*
            - arn:aws:execute-api:*:*:chat/prod/POST/@users/Änn
            - arn:aws:execute-api:*:*:chat/prod/POST/@send
        - Effect: Deny
          Action: execute-api:ManageConnections
          Resource: arn:aws:execute-api:*:*:chat/prod/*/@groups/room-secret
  tenants:
    accessKeyId: AKIDTENANTS
    secretAccessKey: {SECRET}
    policyDocument:
      Version: '2012-10-17'
      Statement:
        - Effect: Allow
          Action: execute-api:ManageConnections
          Resource:
            - arn:aws:execute-api:*:*:chat/prod/POST/@users/ann
            - arn:aws:execute-api:*:*:chat/prod/POST/@users/acme/*
            - arn:aws:execute-api:*:*:chat/prod/POST/@users/tenant%2F*
            - arn:aws:execute-api:*:*:chat/prod/GET/@users/*
        - Effect: Deny
          Action: execute-api:ManageConnections
          Resource: arn:aws:execute-api:*:*:chat/prod/GET/@users/secret/*
  test-stage:
    accessKeyId: AKIDTEST
    secretAccessKey: {SECRET}
    policyDocument:
      Version: '2012-10-17'
      Statement:
        - Effect: Allow
          Action: execute-api:ManageConnections
          Resource: arn:aws:execute-api:*:*:chat/test/*
  both-stages:
    accessKeyId: AKIDBOTH
    secretAccessKey: {SECRET}
    policyDocument:
      Version: '2012-10-17'
      Statement:
        - Effect: Allow
          Action: execute-api:ManageConnections
          Resource:
            - arn:aws:execute-api:*:*:chat/test/*
            - arn:aws:execute-api:*:*:chat/prod/POST/@connections/*"
    ))
}

/// A signed call below `/prod` on the public listener.
async fn call(room: &Room, key: &str, method: &str, path: &str, body: &[u8]) -> HttpResponse {
    signed_call(room, key, (method, &format!("/prod/{path}")), (&[], &[]), body).await
}

type Headers<'a> = &'a [(&'a str, &'a str)];

/// A call that is signed, with headers that the signature covers and headers that it does not.
async fn signed_call(
    room: &Room,
    key: &str,
    (method, target): (&str, &str),
    (covered, loose): (Headers<'_>, Headers<'_>),
    body: &[u8],
) -> HttpResponse {
    let address = room.gateway.public();
    let signed = signed((key, SECRET), (method, &address.to_string(), target), covered, body);
    let signed: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (&**name, &**value)).collect();
    http(address, method, target, &[&signed, loose].concat(), body).await
}

#[tokio::test]
async fn policies_name_groups_and_users_as_they_are() {
    let room = Room::with(settings).await;
    let (mut client, id) = room.member("room-1").await;
    assert_eq!(call(&room, "AKIDALL", "POST", "@broadcast", b"hi").await.status, 200);
    assert_eq!(client.next_text().await, "hi");
    let send = |groups: &[&str]| json!({ "targets": { "groups": groups }, "data": "x" }).to_string();
    let to_connection = json!({ "connection": NOBODY, "data": "x" }).to_string();
    for (method, path, body, status) in [
        ("POST", "@groups/room-1".to_owned(), "x", 200),
        ("GET", "@groups/room-1".to_owned(), "", 200),
        ("PUT", format!("@groups/room-2/connections/{id}"), "", 204),
        ("DELETE", format!("@groups/room-2/connections/{id}"), "", 204),
        ("PUT", "@groups/room-2/connections".to_owned(), "{\"connections\":[]}", 200),
        ("POST", "@users/%C3%84nn".to_owned(), "x", 200),
        ("POST", "@send".to_owned(), &send(&["room-1", "room-2"]), 200),
        ("POST", "@groups/lobby".to_owned(), "x", 403),
        ("POST", "@groups/room-secret".to_owned(), "x", 403),
        ("GET", "@users/%C3%84nn".to_owned(), "", 403),
        ("POST", "@users/room-1".to_owned(), "x", 403),
        ("POST", "@broadcast".to_owned(), "x", 403),
        ("GET", format!("@connections/{id}/groups"), "", 403),
        // Nobody gets by another way where a single post would not get.
        ("POST", "@send".to_owned(), &send(&["room-1", "lobby"]), 403),
        ("POST", "@send".to_owned(), &send(&["room-secret"]), 403),
        ("POST", "@send".to_owned(), &to_connection, 403),
    ] {
        let response = call(&room, "AKIDROOMS", method, &path, body.as_bytes()).await;
        assert_eq!(response.status, status, "{method} {path} {body}: {response:?}");
        if status == 403 {
            assert_eq!(response.error_type(), Some("AccessDeniedException"));
        }
    }
    let refused = call(&room, "AKIDROOMS", "POST", "@groups/lobby", b"x").await;
    assert!(
        refused.text().contains("chat/prod/POST/@groups/lobby because no identity-based policy allows"),
        "{refused:?}"
    );
    let unsigned = http(room.gateway.public(), "POST", "/prod/@groups/room-1", &[], b"x").await;
    assert_eq!((unsigned.status, unsigned.error_type()), (403, Some("MissingAuthenticationTokenException")));
    room.gateway.drain().await;
}

#[tokio::test]
async fn a_name_in_a_path_is_one_segment_of_a_policy_and_no_wildcard() {
    let room = Room::with(settings).await;
    for (method, user, status) in [
        ("POST", "ann", 200),
        ("POST", "bob", 403),
        // A name with a slash is no user below another.
        ("POST", "acme%2Fann", 403),
        ("POST", "tenant%2Fann", 200),
        ("POST", "tenant%2Fann%2Fphone", 200),
        // Names that look like patterns.
        ("POST", "%2A", 403),
        ("POST", "an%3F", 403),
        ("POST", "tenant%252Fann", 403),
        ("GET", "%2A", 200),
        ("GET", "a%2Fb", 200),
        // What was denied by its own name stays denied.
        ("GET", "secret%2Fann", 403),
    ] {
        let response = call(&room, "AKIDTENANTS", method, &format!("@users/{user}"), b"").await;
        assert_eq!(response.status, status, "{method} {user}: {response:?}");
    }
    let refused = call(&room, "AKIDTENANTS", "POST", "@users/acme%2Fann", b"").await;
    assert!(refused.text().contains("chat/prod/POST/@users/acme%2Fann because no"), "{refused:?}");
    room.gateway.drain().await;
}

#[tokio::test]
async fn headers_that_change_what_a_call_does_are_signed_or_refused() {
    let room = Room::with(settings).await;
    let (mut client, id) = room.member("room-1").await;
    let (mut other, other_id) = room.member("room-1").await;
    let (post, group) = (format!("/prod/@connections/{id}"), "/prod/@groups/room-1");
    let binary = ("x-tidegate-data-type", "binary");
    let except = ("x-tidegate-except", id.as_str());
    let lines = ("content-type", "application/x-ndjson");
    let message = json!({ "connection": id, "data": "by send" }).to_string();
    for (target, header) in [
        (post.as_str(), binary),
        (post.as_str(), ("x-tidegate-data-type", "text")),
        (post.as_str(), ("x-tidegate-receipt", "acked")),
        (group, except),
        ("/prod/@broadcast", except),
        ("/prod/@send", except),
        ("/prod/@send", lines),
        ("/prod/@send", ("content-type", "application/jsonl; charset=utf-8")),
    ] {
        let body = if target.ends_with("@send") { message.as_bytes() } else { b"loose" };
        let refused = signed_call(&room, "AKIDALL", ("POST", target), (&[], &[header]), body).await;
        assert_eq!((refused.status, refused.error_type()), (403, Some("InvalidSignatureException")), "{header:?}");
        let expected = format!("'{}' must be a 'SignedHeader' in the AWS Authorization.", header.0);
        assert_eq!(refused.json()["message"], expected);
    }
    let answer = signed_call(&room, "AKIDALL", ("POST", &post), (&[binary], &[]), b"covered").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(client.next_message().await.into_data(), b"covered".as_slice());
    let answer = signed_call(&room, "AKIDALL", ("POST", group), (&[except], &[]), b"not you").await;
    assert_eq!(answer.json()["delivered"], 1, "{answer:?}");
    assert_eq!(other.next_text().await, "not you");
    let answer = signed_call(&room, "AKIDALL", ("POST", "/prod/@send"), (&[lines], &[]), message.as_bytes()).await;
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"), "{answer:?}");
    assert_eq!(client.next_text().await, "by send");
    // What decides nothing needs no signature: SDKs sign Content-Type or leave it out, curl sends one of its own.
    for (target, header) in [
        (post.as_str(), ("content-type", "application/octet-stream")),
        (post.as_str(), lines),
        ("/prod/@send", ("content-type", "application/x-www-form-urlencoded")),
        (post.as_str(), ("x-other", "1")),
        // A page that knows a key may sign too.
        (post.as_str(), ("origin", "https://app.example.com")),
    ] {
        let body = if target.ends_with("@send") { message.as_bytes() } else { b"by send" };
        let answer = signed_call(&room, "AKIDALL", ("POST", target), (&[], &[header]), body).await;
        assert_eq!(answer.status, 200, "{header:?}: {answer:?}");
        assert_eq!(client.next_text().await, "by send");
    }
    assert_ne!(id, other_id);
    room.gateway.drain().await;
}

#[tokio::test]
async fn a_key_of_one_stage_reaches_no_connection_of_another() {
    let room = Room::with(settings).await;
    let (mut client, id) = room.member("room-1").await;
    let mut own = room.gateway.connect("/test").await;
    let own_id = room.backend.next("CONNECT").await.connection_id().to_owned();
    let send = json!({ "targets": { "connections": [id, own_id] }, "data": "by send" }).to_string();
    let many = json!({ "connections": [id, own_id] }).to_string();
    let by = async |key: &str, method: &str, path: &str, body: &str| {
        signed_call(&room, key, (method, &format!("/test/{path}")), (&[], &[]), body.as_bytes()).await
    };
    for (method, path, body) in [
        ("POST", format!("@connections/{id}"), "no"),
        ("GET", format!("@connections/{id}"), ""),
        ("DELETE", format!("@connections/{id}"), ""),
        ("GET", format!("@connections/{id}/groups"), ""),
        ("PUT", format!("@groups/stolen/connections/{id}"), ""),
        ("DELETE", format!("@groups/room-1/connections/{id}"), ""),
    ] {
        let response = by("AKIDTEST", method, &path, body).await;
        assert_eq!((response.status, response.error_type()), (410, Some("GoneException")), "{method} {path}");
    }
    let report = by("AKIDTEST", "POST", "@send", &send).await.json();
    assert_eq!((&report["delivered"], &report["goneConnections"]), (&json!(1), &json!([id])));
    assert_eq!(own.next_text().await, "by send");
    let report = by("AKIDTEST", "PUT", "@groups/mine/connections", &many).await.json();
    assert_eq!((&report["changed"], &report["goneConnections"]), (&json!(1), &json!([id])));
    // Groups span stages, as is documented: who is in one is reached by those who may post to it.
    room.join("mine", &id).await;
    assert_eq!(by("AKIDTEST", "POST", "@groups/mine", "to all").await.json()["delivered"], 2);
    assert_eq!((client.next_text().await, own.next_text().await), ("to all".to_owned(), "to all".to_owned()));
    // The connections of its own stage are its own.
    assert_eq!(by("AKIDTEST", "POST", &format!("@connections/{own_id}"), "own").await.status, 200);
    assert_eq!(own.next_text().await, "own");

    // A key that may do the same in both stages reaches it through either, as on AWS; another operation it may not do.
    assert_eq!(by("AKIDBOTH", "POST", &format!("@connections/{id}"), "both").await.status, 200);
    assert_eq!(client.next_text().await, "both");
    let report = by("AKIDBOTH", "POST", "@send", &send).await.json();
    assert_eq!((&report["delivered"], &report["goneConnections"]), (&json!(2), &json!([])));
    assert_eq!((client.next_text().await, own.next_text().await), ("by send".to_owned(), "by send".to_owned()));
    assert_eq!(by("AKIDBOTH", "DELETE", &format!("@connections/{id}"), "").await.status, 410);
    // So does a key without a policy, and everybody where nobody signs.
    assert_eq!(by("AKIDALL", "POST", &format!("@connections/{id}"), "all").await.status, 200);
    let path = format!("/test/@connections/{id}");
    assert_eq!(http(room.gateway.internal(), "POST", &path, &[], b"unsigned").await.status, 200);
    assert_eq!((client.next_text().await, client.next_text().await), ("all".to_owned(), "unsigned".to_owned()));
    room.gateway.drain().await;
}
