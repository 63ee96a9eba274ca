//! Whatever clients send, the number of series stays as it is.

use tidegate_testing::{Settings, TestBackend, TestGateway, http, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Distinct names of each kind.
const COUNT: usize = 10_000;

/// Requests that are sent before their answers are read.
const PIPELINED: usize = 100;

async fn series(gateway: &TestGateway) -> Vec<String> {
    let page = http(gateway.internal(), "GET", "/metrics", &[], b"").await;
    let lines = page.text().lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series.to_owned()).collect()
}

/// Requests to hosts, stages and with keys that nobody knows.
async fn refused_requests(gateway: &TestGateway, from: usize, count: usize) {
    let mut stream = TcpStream::connect(gateway.public()).await.unwrap();
    for batch in (from..from + count).collect::<Vec<_>>().chunks(PIPELINED) {
        let requests = batch.iter().map(|n| {
            format!("GET /stage{n} HTTP/1.1\r\nHost: api{n}.execute-api.localhost\r\nx-api-key: key{n}\r\nUser-Agent: agent{n}\r\n\r\n")
        });
        stream.write_all(requests.collect::<String>().as_bytes()).await.unwrap();
        let (mut answers, mut buffer) = (String::new(), vec![0; 64 * 1024]);
        while answers.matches("HTTP/1.1 403").count() < batch.len() || !answers.ends_with('}') {
            let read = within("answers", stream.read(&mut buffer)).await.unwrap();
            assert!(read > 0, "{answers}");
            answers.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
    }
}

#[tokio::test]
async fn ten_thousand_bogus_names_of_each_kind_make_no_series() {
    let backend = TestBackend::start().await;
    let stage = "defaultRouteSettings: { detailedMetricsEnabled: true }";
    let routes = "$connect: { target: integrations/backend }, ask: { target: integrations/backend }";
    let gateway = Settings::aws_proxy(&backend).routes(routes).stage(stage).stages(&["prod"]).start().await;
    let (mut client, _) = gateway.client(&backend).await;
    let mut message = async |n: usize| {
        client.send(&format!(r#"{{"action":"bogus{n}"}}"#)).await;
        assert!(client.next_text().await.contains("Forbidden"));
    };
    message(0).await;
    refused_requests(&gateway, 0, 1).await;
    let before = series(&gateway).await;
    for n in 1..=COUNT {
        message(n).await;
    }
    refused_requests(&gateway, 1, COUNT).await;
    let after = series(&gateway).await;
    assert_eq!(after, before);
    assert_eq!(gateway.metric("tidegate_messages_total").await, 1 + COUNT as i64);
}
