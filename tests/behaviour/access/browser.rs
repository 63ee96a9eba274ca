//! A page in a real browser, which can put a token nowhere but into the URL and the subprotocols.

use std::net::SocketAddr;

use fantoccini::Locator;
use serde_json::json;
use tidegate_testing::{Browser, Issuer, Key, Reply, TestBackend, TestGateway, connect, eventually, raw};

use crate::access::jwt::yaml;

/// Connects to what its own URL says, sends a message, and shows what comes.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>page</title><ol id="log"></ol><script>
const parameters = new URLSearchParams(location.search);
const log = text => {
  const entry = document.createElement("li");
  entry.textContent = text;
  document.getElementById("log").append(entry);
};
const socket = new WebSocket(parameters.get("socket"), parameters.getAll("protocol"));
socket.onopen = () => { log(`open ${socket.protocol}`); socket.send("hi"); };
socket.onmessage = message => log(message.data);
socket.onclose = event => log(`closed ${event.code} ${event.reason}`);
</script>"#;

#[tokio::test]
async fn a_page_connects_with_a_token_in_the_url_or_among_the_subprotocols() {
    let key = Key::new("one");
    let issuer = Issuer::start(&[&key]).await;
    let pages = TestBackend::start_with(|_| Reply::http(200, PAGE.to_owned())).await;
    let backend = TestBackend::start_with(|got| match got.event_type() {
        "CONNECT" => Reply::json(&json!({ "statusCode": 200, "headers": { "Sec-WebSocket-Protocol": "chat.v1" } })),
        _ => Reply::json(&json!({ "statusCode": 200, "body": "hello" })),
    })
    .await;
    let mut gateway = TestGateway::start(&yaml(&issuer.url(), &backend.url(), "querystring.token", "")).await;
    let browser = Browser::start().await;
    let page = |socket: &str, protocols: &[&str]| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("socket", socket);
        query.extend_pairs(protocols.iter().map(|protocol| ("protocol", protocol)));
        format!("{}/?{}", pages.url(), query.finish())
    };
    let see = async |text: &str| {
        let path = format!("//*[@id='log']/li[.='{text}']");
        browser.see(Locator::XPath(&path)).await;
    };

    let token = key.sign(&issuer.claims(600));
    let socket = gateway.url(&format!("/prod?token={token}"));
    browser.client.goto(&page(&socket, &["chat.v1"])).await.expect("the page opens");
    see("open chat.v1").await;
    see("hello").await;
    let claims = backend.next_call().await.event()["requestContext"]["authorizer"]["jwt"]["claims"].clone();
    assert_eq!((&claims["sub"], &claims["iss"]), (&json!("ann"), &json!(issuer.url())));

    // A page sees of a refusal only that there was one.
    let stranger = Key::new("one").sign(&issuer.claims(600));
    let socket = gateway.url(&format!("/prod?token={stranger}"));
    browser.client.goto(&page(&socket, &[])).await.expect("the page opens");
    see("closed 1006 ").await;

    // One that is about to expire.
    let short = key.sign(&issuer.claims(10));
    let socket = gateway.url(&format!("/prod?token={short}"));
    browser.client.goto(&page(&socket, &["chat.v1"])).await.expect("the page opens");
    see("hello").await;
    see("closed 4401 Token expired").await;

    gateway.reload_text(&yaml(&issuer.url(), &backend.url(), "header.Sec-WebSocket-Protocol", ""));
    let protocols = ["chat.v1", &format!("bearer.{token}")];
    browser.client.goto(&page(&gateway.url("/prod"), &protocols)).await.expect("the page opens");
    see("open chat.v1").await;
    see("hello").await;
    browser.client.clone().close().await.expect("the browser closes");
}

/// Posts to what its own URL says, in each way in which a page can without being asked first, and shows when all is done.
const POSTING_PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>page</title><body><script>
const url = new URLSearchParams(location.search).get("url");
const post = options => fetch(url, { method: "POST", body: "from a page", mode: "no-cors", ...options }).catch(() => {});
const form = () => new Promise(resolve => {
  const frame = document.createElement("iframe");
  frame.name = "frame";
  document.body.append(frame);
  const form = document.createElement("form");
  Object.assign(form, { method: "post", action: url, target: "frame", enctype: "text/plain" });
  document.body.append(form);
  frame.onload = resolve;
  form.submit();
});
(async () => {
  await post({});
  await post({ referrerPolicy: "no-referrer" });
  await post({ credentials: "include" });
  navigator.sendBeacon(url, "from a page");
  await form();
  const done = document.createElement("p");
  done.id = "done";
  document.body.append(done);
})();
</script>"#;

/// The number of unsigned calls of pages that were refused.
async fn refused_pages(gateway: &TestGateway) -> u64 {
    let metrics = gateway.metrics().await;
    let lines = metrics.lines().filter(|line| line.starts_with("tidegate_reasons_total") && line.contains("fromPage"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[tokio::test]
async fn a_page_of_another_loopback_port_cannot_post_to_everybody() {
    let pages = TestBackend::start_with(|_| Reply::http(200, POSTING_PAGE.to_owned())).await;
    let backend = TestBackend::saying_hello().await;
    let yaml = format!(
        "apis:\n  chat:\n    routeSelectionExpression: $request.body.action\n    integrations: {{ backend: {{ \
         integrationType: AWS_PROXY, integrationUri: \"{}\" }} }}\n    routes: {{ $connect: {{ target: \
         integrations/backend }} }}\n    stages: {{ prod: {{}} }}\n",
        backend.url()
    );
    let gateway = TestGateway::start(&yaml).await;
    let mut client = connect(&gateway.url("/prod"), &[]).await;
    let browser = Browser::start().await;
    let internal: SocketAddr = gateway.internal();
    for host in ["127.0.0.1", "localhost"] {
        let before = refused_pages(&gateway).await;
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("url", &format!("http://{host}:{}/prod/@broadcast", internal.port()));
        let page = format!("{}/?{}", pages.url(), query.finish());
        browser.client.goto(&page).await.expect("the page opens");
        browser.see(Locator::Css("#done")).await;
        eventually("all five ways were tried", async || refused_pages(&gateway).await >= before + 5).await;
    }
    // A program may, and its post is the first that arrives.
    let post =
        b"POST /prod/@broadcast HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 9\r\n\r\na program";
    assert!(raw(internal, post).await.contains("\"delivered\":1"));
    assert_eq!(client.next_text().await, "a program");
    browser.client.clone().close().await.expect("the browser closes");
}
