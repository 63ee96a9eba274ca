use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tidegate_testing::{Nodes, Plan, Visitor};

/// Paths that SDKs and people make of one connection.
fn paths(id: &str) -> Vec<String> {
    let encoded = id.replace('=', "%3D");
    let all: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
    vec![
        format!("/prod/@connections/{id}"),
        format!("/prod/@connections/{encoded}"),
        format!("/prod/@connections/{}", id.replace('=', "%3d")),
        format!("/prod/@connections/{all}"),
        format!("/prod/%40connections/{encoded}"),
        format!("/prod//@connections/{encoded}"),
        format!("//prod/@connections/{encoded}/"),
        format!("/_aws/execute-api/chat/prod/@connections/{encoded}"),
        format!("/prod/@connections/{encoded}?X-Amz-Signature=0&x=1"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_answers_for_500_connections_of_all_nodes_in_every_spelling_and_in_order() {
    let mut nodes = Nodes::start(Plan::default()).await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let call = async |base: &str, method: Method, path: &str, body: String| {
        let request = http::Request::builder().method(method).uri(format!("http://{base}{path}"));
        let response = client.request(request.body(Full::from(body)).unwrap()).await.unwrap();
        response.status().as_u16()
    };
    let bases: Vec<String> =
        nodes.all.iter().flat_map(|node| [node.public().to_string(), node.internal().to_string()]).collect();
    let one = async |number: usize| {
        let owner = &nodes.all[number % nodes.all.len()];
        let mut visitor = Visitor::enter(owner.public(), &format!("visitor-{number}"), &nodes.ledger).await;
        let paths = paths(&visitor.id);
        for (turn, path) in paths.iter().enumerate() {
            // Over all turns and visitors each spelling meets each listener of each node.
            let base = &bases[(number / nodes.all.len() + turn) % bases.len()];
            assert_eq!(call(base, Method::POST, path, turn.to_string()).await, 200, "{path}");
            assert_eq!(call(base, Method::GET, path, String::new()).await, 200, "{path}");
        }
        for turn in 0..paths.len() {
            assert_eq!(visitor.next_text().await, turn.to_string(), "in order");
        }
        let (path, base) = (&paths[number % paths.len()], &bases[number % bases.len()]);
        assert_eq!(call(base, Method::DELETE, path, String::new()).await, 204, "{path}");
        visitor.closed().await;
        for base in &bases {
            for method in [Method::POST, Method::GET, Method::DELETE] {
                assert_eq!(call(base, method, path, "x".to_owned()).await, 410, "{path}");
            }
        }
    };
    join_all((0..500).map(one)).await;
    nodes.ledger.balances(&Default::default()).await;
    nodes.stop().await;
    assert_eq!(nodes.redis.keys().await, Vec::<String>::new(), "all have left");
}
