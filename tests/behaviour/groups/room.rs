//! Steps that the tests of this folder share: clients with their ids, and calls below a stage.

use serde_json::{Value, json};
use tidegate_testing::{HttpResponse, Settings, TestBackend, TestClient, TestGateway, http};

/// A gateway, its backend, and clients with their ids.
pub(crate) struct Room {
    pub(crate) backend: TestBackend,
    pub(crate) gateway: TestGateway,
}

impl Room {
    pub(crate) async fn start() -> Self {
        Self::with(|settings| settings).await
    }

    /// With `AWS_PROXY` and other settings.
    pub(crate) async fn with(change: impl FnOnce(Settings) -> Settings) -> Self {
        let backend = TestBackend::start().await;
        let gateway = change(Settings::aws_proxy(&backend)).start().await;
        Room { backend, gateway }
    }

    pub(crate) async fn client(&self) -> (TestClient, String) {
        self.gateway.client(&self.backend).await
    }

    /// Connects a client that is in a group.
    pub(crate) async fn member(&self, group: &str) -> (TestClient, String) {
        let (client, id) = self.client().await;
        self.join(group, &id).await;
        (client, id)
    }

    pub(crate) async fn join(&self, group: &str, id: &str) {
        assert_eq!(self.call("PUT", &format!("@groups/{group}/connections/{id}"), b"").await.status, 204);
    }

    pub(crate) async fn leave(&self, group: &str, id: &str) {
        assert_eq!(self.call("DELETE", &format!("@groups/{group}/connections/{id}"), b"").await.status, 204);
    }

    /// A call below the stage `prod`, on the internal listener.
    pub(crate) async fn call(&self, method: &str, path: &str, body: &[u8]) -> HttpResponse {
        self.call_with(method, path, &[], body).await
    }

    pub(crate) async fn call_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> HttpResponse {
        http(self.gateway.internal(), method, &format!("/prod/{path}"), headers, body).await
    }

    /// Posts, and what became of it, which has to be said with 200.
    pub(crate) async fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Value {
        let response = self.call("POST", path, body.as_ref()).await;
        assert_eq!(response.status, 200, "{response:?}");
        response.json()
    }

    /// Asks, which has to be answered with 200.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = self.call("GET", path, b"").await;
        assert_eq!(response.status, 200, "{response:?}");
        response.json()
    }
}

/// Returns the answer to a post that was delivered to `count` connections and failed for none.
pub(crate) fn delivered(count: usize) -> Value {
    json!({ "delivered": count, "gone": 0, "full": 0, "pending": 0, "unreachableNodes": 0 })
}
