//! The chat page of `tidegate demo` in a real browser: two people, the panel of calls, the shell command, lost
//! connections.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use fantoccini::Locator;
use fantoccini::wd::WindowHandle;
use tidegate_testing::{Browser, Process, run, tidegate_path};

/// A browser, for what there is on the chat page.
struct Page(Browser);

impl Deref for Page {
    type Target = Browser;

    fn deref(&self) -> &Browser {
        &self.0
    }
}

impl Page {
    /// Waits for an entry of the log with this kind and text.
    async fn see_entry(&self, kind: &str, text: &str) {
        let path = format!("//*[@id='log']//li[@data-kind='{kind}' and contains(., '{text}')]");
        self.see(Locator::XPath(&path)).await;
    }

    /// Waits until this window has a connection other than `previous`; returns its id.
    async fn see_connected(&self, previous: &str) -> String {
        let path = format!("//*[@id='state-pill' and @data-state='connected' and not(@data-connection='{previous}')]");
        self.see(Locator::XPath(&path)).await;
        self.attribute("state-pill", "data-connection").await
    }

    async fn attribute(&self, id: &str, name: &str) -> String {
        let element = self.client.find(Locator::Id(id)).await.expect("the element is there");
        element.attr(name).await.expect("an attribute").expect("it is set")
    }

    async fn click(&self, css: &str) {
        self.client.find(Locator::Css(css)).await.expect(css).click().await.expect(css);
    }

    async fn fill(&self, id: &str, text: &str) {
        let field = self.client.find(Locator::Id(id)).await.expect(id);
        field.clear().await.expect(id);
        field.send_keys(text).await.expect(id);
    }

    async fn say(&self, text: &str) {
        self.fill("message", text).await;
        self.click("#send").await;
    }

    async fn go_to(&self, window: &WindowHandle) {
        self.client.switch_to_window(window.clone()).await.expect("the window is open");
    }

    /// Runs the command of the curl box as it stands there.
    async fn run_curl_box(&self) {
        let command = self.see(Locator::Id("curl-box")).await;
        assert!(command.starts_with("curl "), "{command}");
        let command = command.replacen("curl ", "curl --silent --show-error --fail ", 1);
        let (succeeded, output) = run("sh", &["-c", &command], &[]).await;
        assert!(succeeded, "{command}: {output}");
    }

    async fn save_screenshot(&self) -> PathBuf {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo.png");
        std::fs::write(&path, self.client.screenshot().await.expect("a picture")).expect("target/ can be written");
        path
    }
}

#[tokio::test]
async fn pages_of_three_nodes_chat_on_when_one_is_killed_and_redis_is_stopped() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/local-cluster");
    let mut cluster =
        Process::start(script, &["0"], &[("TIDEGATE", tidegate_path().to_str().expect("a path in UTF-8"))]);
    let node = cluster.line_with("node 2 ").await;
    let second_node = node.split_whitespace().last().expect("a process id").to_owned();
    let line = cluster.line_with("stop it: kill").await;
    let redis = line.split_whitespace().nth(3).expect("a process id").to_owned();
    cluster.line_with("chat page").await;
    let pages = [cluster.url().await, cluster.url().await, cluster.url().await];
    let browser = Page(Browser::start().await);
    browser.client.goto(&format!("{}&name=Ada", pages[0])).await.expect("the page opens");
    let ada = browser.client.window().await.expect("a window");
    let adas_connection = browser.see_connected("").await;
    let eve = browser.client.new_window(false).await.expect("another window").handle;
    browser.go_to(&eve).await;
    browser.client.goto(&format!("{}&name=Eve", pages[2])).await.expect("the page opens");
    let eves_connection = browser.see_connected("").await;
    assert_ne!(adas_connection[..8], eves_connection[..8], "connections of two nodes");
    let chat = async |said: &str| {
        for (speaker, listener) in [(&ada, &eve), (&eve, &ada)] {
            browser.go_to(speaker).await;
            browser.say(said).await;
            browser.go_to(listener).await;
            browser
                .see(Locator::XPath(&format!("//*[@id='log']//li[@data-own='false' and contains(., '{said}')]")))
                .await;
        }
    };
    chat("With Redis").await;

    // Bob is on a node that dies, and all are told by those who live on.
    let bob = browser.client.new_window(false).await.expect("another window").handle;
    browser.go_to(&bob).await;
    browser.client.goto(&format!("{}&name=Bob", pages[1])).await.expect("the page opens");
    let bobs_connection = browser.see_connected("").await;
    browser.go_to(&ada).await;
    browser.see(Locator::Css(&format!("#people li[data-connection='{bobs_connection}']"))).await;
    assert!(run("kill", &["-KILL", &second_node], &[]).await.0);
    for window in [&ada, &eve] {
        browser.go_to(window).await;
        browser.see_entry("notice", "Bob left (1006").await;
        browser.see(Locator::XPath("//*[@id='people-count' and text()='2']")).await;
    }
    chat("Without Bob").await;
    browser.click("#crowd").await;
    browser.see(Locator::XPath("//*[@id='crowd-result' and contains(., '1000 members had one push after')]")).await;
    assert!(run("kill", &["-KILL", &redis], &[]).await.0);
    cluster.line_with("Redis cannot be used; serving clients without it").await;
    chat("Without Redis").await;

    // Somebody comes in meanwhile, and all hear each other.
    browser.go_to(&bob).await;
    browser.client.goto(&format!("{}&name=Bob", pages[2])).await.expect("the page opens");
    browser.see_connected("").await;
    browser.say("Bob is here").await;
    for window in [&ada, &eve] {
        browser.go_to(window).await;
        browser.see_entry("message", "Bob is here").await;
    }
    assert_eq!(browser.attribute("state-pill", "data-connection").await, eves_connection, "nobody was cut off");
    cluster.signal("TERM");
    assert!(cluster.end().await.iter().any(|line| line == "stopped"));
    browser.client.clone().close().await.expect("the browser closes");
}

#[tokio::test]
async fn two_people_chat_and_see_every_call_and_every_close() {
    let mut demo = Process::tidegate(&["demo", "--port", "0"], &[]);
    demo.line_with("chat page").await;
    let page = demo.url().await;
    let browser = Page(Browser::start().await);

    // Ada is asked for her name.
    browser.client.goto(&page).await.expect("the page opens");
    browser.see(Locator::Css("#name-dialog[open]")).await;
    browser.fill("name", "Ada").await;
    browser.click("#join").await;
    let first_connection = browser.see_connected("").await;
    let ada = browser.client.window().await.expect("a window");

    // Bob brings his along.
    let bob = browser.client.new_window(false).await.expect("another window").handle;
    browser.go_to(&bob).await;
    browser.client.goto(&format!("{page}?name=Bob&room=lobby")).await.expect("the page opens");
    let bobs_connection = browser.see_connected("").await;
    assert_ne!(first_connection, bobs_connection);
    browser.see(Locator::Css(&format!("#people li[data-connection='{first_connection}']"))).await;

    // They talk both ways.
    browser.say("Hello Ada, is anybody holding the line?").await;
    browser.see(Locator::Css("#log li[data-kind=message][data-own=true]")).await;
    browser.go_to(&ada).await;
    browser.see(Locator::Css(&format!("#people li[data-connection='{bobs_connection}']"))).await;
    browser.see_entry("notice", "Bob joined").await;
    browser.see_entry("message", "Hello Ada").await;
    browser.see(Locator::Css("#log li[data-kind=message][data-own=false]")).await;
    browser.say("The gateway is. My backend only answers HTTP.").await;
    browser.go_to(&bob).await;
    browser.see_entry("message", "The gateway is").await;
    browser.go_to(&ada).await;

    // The panel shows what the backend was called for, and what its answers ask for.
    for route in ["$connect", "join", "sendMessage"] {
        let row = format!("#flow-list li[data-flow=integration][data-route='{route}'][data-status='200']");
        browser.see(Locator::Css(&row)).await;
    }
    for asked in ["join", "send"] {
        let row = format!("#flow-list li[data-flow=answer][data-route={asked}][data-connection='{bobs_connection}']");
        browser.see(Locator::Css(&row)).await;
    }
    for flow in ["sent", "received"] {
        browser.see(Locator::Css(&format!("#flow-list li[data-flow={flow}]"))).await;
    }

    // Anything that can make an HTTP request can push.
    browser.run_curl_box().await;
    browser.see_entry("pushed", "hi").await;
    browser.click("label:has([name=command][value=room])").await;
    browser.run_curl_box().await;
    for window in [&bob, &ada] {
        browser.go_to(window).await;
        browser.see_entry("pushed", "hi all").await;
    }
    println!("screenshot: {}", browser.save_screenshot().await.display());

    // One call, and a thousand hear it.
    browser.click("#crowd").await;
    browser.see(Locator::XPath("//*[@id='crowd-result' and contains(., '1000 members had one push after')]")).await;

    // Closed by the backend's side, with code and reason; the page connects again.
    browser.click("label:has([name=command][value=delete])").await;
    browser.run_curl_box().await;
    browser.see_entry("notice", "Connection closed: 4001 kicked").await;
    let second_connection = browser.see_connected(&first_connection).await;
    browser.go_to(&bob).await;
    browser.see_entry("notice", "Ada left (4001 kicked)").await;
    browser.see(Locator::Css(&format!("#people li[data-connection='{second_connection}']"))).await;

    // The gateway dies.
    drop(demo);
    browser.see_entry("notice", "Connection closed: 1006").await;
    browser.see(Locator::Css("#state-pill[data-state=reconnecting]")).await;
    browser.client.clone().close().await.expect("the browser closes");
}
