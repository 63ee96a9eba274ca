//! Who may do what under `AWS_IAM`: policies name groups and users as they are.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use serde_json::json;

use crate::groups::NOBODY;
use crate::room::Room;
use crate::support::{HttpResponse, Settings, http};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn settings(settings: Settings) -> Settings {
    settings.public("connectionsApi: AWS_IAM").section(&format!(
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
          Resource: arn:aws:execute-api:*:*:chat/prod/*/@groups/room-secret"
    ))
}

/// A signed call below `/prod` on the public listener.
async fn call(room: &Room, key: &str, method: &str, path: &str, body: &[u8]) -> HttpResponse {
    let (address, target) = (room.gateway.public(), format!("/prod/{path}"));
    let identity = Credentials::new(key, SECRET, None, None, "test").into();
    #[expect(clippy::disallowed_methods, reason = "a signer has a clock of its own")]
    let now = SystemTime::now();
    let params = SigningParams::builder().identity(&identity).region("us-east-1").name("execute-api").time(now);
    let params = params.settings(SigningSettings::default()).build().expect("parameters").into();
    let host = address.to_string();
    let url = format!("http://{host}{target}");
    let headers = [("host", &*host)].into_iter();
    let request = SignableRequest::new(method, &url, headers, SignableBody::Bytes(body)).expect("a request");
    let (instructions, _) = sign(request, &params).expect("a signature").into_parts();
    let headers: Vec<(&str, &str)> = instructions.headers().collect();
    http(address, method, &target, &headers, body).await
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
