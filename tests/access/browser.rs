//! A page in a real browser, which can put a token nowhere but into the URL and the subprotocols.

use fantoccini::Locator;
use serde_json::json;

use crate::headless::Browser;
use crate::jwt::yaml;
use crate::support::{Answer, Issuer, Key, Server, TestGateway};

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
    let pages = Server::start(|_| Answer::Body(200, PAGE.to_owned())).await;
    let mut backend = Server::start(|got| match got.event() {
        "CONNECT" => Answer::json(&json!({ "statusCode": 200, "headers": { "Sec-WebSocket-Protocol": "chat.v1" } })),
        _ => Answer::json(&json!({ "statusCode": 200, "body": "hello" })),
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
    let claims = backend.next().await.json()["requestContext"]["authorizer"]["jwt"]["claims"].clone();
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

    gateway.reload(&yaml(&issuer.url(), &backend.url(), "header.Sec-WebSocket-Protocol", ""));
    let protocols = ["chat.v1", &format!("bearer.{token}")];
    browser.client.goto(&page(&gateway.url("/prod"), &protocols)).await.expect("the page opens");
    see("open chat.v1").await;
    see("hello").await;
    browser.client.clone().close().await.expect("the browser closes");
}
