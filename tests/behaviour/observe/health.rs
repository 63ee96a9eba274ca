//! Health, version, state, and what is logged, on the internal listener.

use serde_json::json;
use tidegate_testing::{Process, Settings, TestBackend, http};

#[tokio::test]
async fn a_node_says_what_it_is_and_how_full() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let _client = gateway.connect("/prod").await;
    let get = async |path: &str| http(gateway.internal(), "GET", path, &[], b"").await;
    let ready = get("/readyz").await;
    assert_eq!((ready.status, ready.json()), (200, json!({ "status": "ready", "reasons": [] })));
    assert_eq!(get("/version").await.json()["version"], env!("CARGO_PKG_VERSION"));
    let state = get("/state").await.json();
    assert_eq!(state["status"], "ready");
    assert_eq!(state["connections"]["live"], 1);
    assert_eq!(state["apis"]["chat"]["stages"]["prod"]["accessLog"], false);
    assert!(state["apis"]["chat"]["stages"]["prod"]["routes"].as_array().unwrap().contains(&"ask".into()));
    assert!(state["backends"][backend.url()]["connections"].is_number());
    for path in ["/readyz", "/version", "/state", "/metrics"] {
        assert_eq!(http(gateway.internal(), "DELETE", path, &[], b"").await.status, 405, "{path}");
    }
    let public = http(gateway.public(), "GET", "/state", &[], b"").await;
    assert_eq!(public.status, 403, "operators' paths are on the internal listener alone");
}

#[tokio::test]
async fn what_is_logged_changes_while_the_process_runs() {
    let folder = tempfile::tempdir().unwrap();
    let backend = TestBackend::start().await;
    let file = folder.path().join("tidegate.yaml");
    std::fs::write(&file, Settings::aws_proxy(&backend).text()).unwrap();
    let mut process = Process::tidegate(&["serve", "--config", file.to_str().unwrap()], &[]);
    let (public, internal) = process.addresses().await;
    let put = async |body: &[u8]| http(internal, "PUT", "/log-level", &[], body).await;
    assert_eq!(http(internal, "GET", "/log-level", &[], b"").await.json(), json!({ "filter": "info" }));
    assert_eq!(put(b"not=a=filter").await.status, 400);
    assert_eq!(put(&[b'x'; 5000]).await.status, 400);
    assert_eq!(put(b"info,tidegate=debug").await.status, 200);
    let _client = tidegate_testing::TestClient::connect(public, "/prod", &[]).await.unwrap();
    process.stderr.log("connected").await;
}
