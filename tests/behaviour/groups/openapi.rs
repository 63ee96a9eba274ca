//! The published description: it has every call that there is, no other, and tells the truth about what they answer.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tidegate_gateway::data_plane::management::OPERATIONS;
use tidegate_testing::http;

use crate::groups::membership::NOBODY;
use crate::groups::room::Room;

async fn description(room: &Room) -> Value {
    let response = http(room.gateway.internal(), "GET", "/openapi.json", &[], b"").await;
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
    response.json()
}

#[tokio::test]
async fn every_call_is_described_and_every_description_is_a_call() {
    let room = Room::start().await;
    let description = description(&room).await;
    assert_eq!(
        (&description["openapi"], &description["info"]["version"]),
        (&json!("3.1.0"), &json!(env!("CARGO_PKG_VERSION")))
    );
    let mut described = BTreeSet::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        let names: BTreeSet<&str> = path.split('/').filter_map(|it| it.strip_prefix('{')?.strip_suffix('}')).collect();
        let references = item["parameters"].as_array().unwrap().iter().map(|it| it["$ref"].as_str().unwrap());
        let given = references.map(|reference| reference.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, given, "{path}");
        for (method, operation) in item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
            described.insert((
                method.to_uppercase(),
                path.clone(),
                operation["operationId"].as_str().unwrap().to_owned(),
            ));
        }
    }
    let there: BTreeSet<_> = OPERATIONS
        .iter()
        .map(|(_, method, path, name)| (method.to_string(), format!("/{{stage}}{path}"), (*name).to_owned()))
        .collect();
    assert_eq!(described, there);
    let text = description.to_string();
    for (reference, _) in text.match_indices("\"$ref\":\"#") {
        let pointer = text[reference + 9..].split('"').next().unwrap();
        assert!(description.pointer(pointer).is_some(), "{pointer}");
    }
    room.gateway.drain().await;
}

#[tokio::test]
async fn answers_are_as_described() {
    let room = Room::start().await;
    let description = description(&room).await;
    let (_client, id) = room.member("a").await;
    let one = format!("@groups/a/connections/{id}");
    let gone = format!("@groups/a/connections/{NOBODY}");
    let members = json!({ "connections": [id, NOBODY] }).to_string();
    let message = json!({ "targets": { "groups": ["a"], "connections": [NOBODY] }, "data": "x" }).to_string();
    let lines = format!("{message}\n{message}");
    let mut seen = BTreeSet::new();
    for (operation, path, body, status) in [
        ("postToConnection", format!("@connections/{id}"), "x", 200),
        ("postToConnection", format!("@connections/{NOBODY}"), "x", 410),
        ("getConnection", format!("@connections/{id}"), "", 200),
        ("getConnectionGroups", format!("@connections/{id}/groups"), "", 200),
        ("postToGroup", "@groups/a".to_owned(), "x", 200),
        ("postToGroup", "@groups/a%20b".to_owned(), "x", 400),
        ("getGroup", "@groups/a?members=true&limit=1".to_owned(), "", 200),
        ("joinGroup", one.clone(), "", 204),
        ("joinGroup", gone.clone(), "", 410),
        ("joinGroupMany", "@groups/a/connections".to_owned(), &members, 200),
        ("leaveGroupMany", "@groups/a/connections".to_owned(), &members, 200),
        ("leaveGroup", one, "", 204),
        ("postToUser", "@users/ann".to_owned(), "x", 200),
        ("getUser", "@users/ann".to_owned(), "", 200),
        ("deleteUser", "@users/ann".to_owned(), "", 200),
        ("broadcast", "@broadcast".to_owned(), "x", 200),
        ("send", "@send".to_owned(), &message, 200),
        ("send", "@send".to_owned(), &lines, 200),
        ("send", "@send".to_owned(), "x", 400),
        ("deleteConnection", format!("@connections/{id}"), "", 204),
    ] {
        let (_, method, template, _) = OPERATIONS.iter().find(|(.., name)| *name == operation).unwrap();
        let response = room.call(method.as_str(), &path, body.as_bytes()).await;
        assert_eq!(response.status, status, "{operation} {path}: {response:?}");
        let method = method.as_str().to_lowercase();
        let described = &description["paths"][format!("/{{stage}}{template}")][method]["responses"][status.to_string()];
        assert!(described.is_object(), "{operation} may answer {status}");
        let reference = described["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        let described = reference.map_or(described, |reference| description.pointer(reference).unwrap());
        let content_type = response.header("content-type").unwrap_or_default();
        let Some(schema) = described["content"][content_type].get("schema") else { continue };
        let mut schema = schema.clone();
        schema["components"] = description["components"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        for line in response.text().lines().filter(|_| content_type.contains("ndjson")) {
            validator.validate(&serde_json::from_str(line).unwrap()).unwrap();
        }
        if !content_type.contains("ndjson") {
            validator.validate(&response.json()).unwrap_or_else(|error| panic!("{operation}: {error}"));
        }
        seen.insert(operation);
    }
    assert!(seen.len() >= 10, "{seen:?}");
    room.gateway.drain().await;
}
