use std::time::Duration;

use fantoccini::wd::Capabilities;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;
use tempfile::TempDir;

use crate::{LIMIT, Process};

/// Chromium, driven through chromedriver. Dropping it kills both.
pub struct Browser {
    pub client: Client,
    _driver: Process,
    _profile: TempDir,
}

impl Browser {
    /// Starts both, with a profile of their own.
    pub async fn start() -> Self {
        let profile = TempDir::new().expect("a directory");
        let mut driver = Process::start("chromedriver", &["--port=0"], &[]);
        let line = driver.line_with("started successfully on port").await;
        let port: u16 =
            line.rsplit(' ').next().and_then(|word| word.trim_end_matches('.').parse().ok()).expect("a port");
        let arguments = [
            "--headless=new",
            "--no-sandbox", // tests may run as root
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1440,900",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let capabilities = json!({ "goog:chromeOptions": { "args": arguments } });
        let capabilities: Capabilities = serde_json::from_value(capabilities).expect("an object");
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("chromedriver opens a browser");
        Browser { client, _driver: driver, _profile: profile }
    }

    /// Waits for an element and returns its text.
    pub async fn see(&self, locator: Locator<'_>) -> String {
        let found = self.client.wait().at_most(LIMIT).every(Duration::from_millis(50)).for_element(locator).await;
        match found {
            Ok(element) => element.text().await.unwrap_or_default(),
            Err(error) => {
                let page = self.client.source().await.unwrap_or_default();
                let body = page.rfind("<body").map_or(&*page, |start| &page[start..]);
                let body = body.split("<script").next().unwrap_or_default();
                panic!("{locator:?} is not on the page: {error}\n{body}")
            }
        }
    }
}
