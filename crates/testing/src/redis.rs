use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tidegate_connections::redis_client::{
    RedisCommand, RedisConnection, RedisSettings, RedisUrl, RedisUrls, Value, read,
};

use crate::eventually;

/// Returns a port that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port()
}

/// A `redis-server` of one test, on a free port, without persistence.
pub struct RedisServer {
    port: u16,
    folder: TempDir,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl RedisServer {
    /// Starts one.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with more arguments.
    pub async fn start_with(arguments: &[&str]) -> Self {
        let mut server = Self::stopped(arguments);
        server.restart().await;
        server
    }

    /// Makes one that does not run yet; its port is free.
    pub fn stopped(arguments: &[&str]) -> Self {
        let port = free_port();
        let folder = tempfile::tempdir().expect("a folder");
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        RedisServer { port, folder, arguments, process: None }
    }

    /// Starts it; without data.
    pub async fn restart(&mut self) {
        self.kill();
        let process = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--enable-debug-command", "local", "--loglevel", "warning"])
            .args(&self.arguments)
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.process = Some(process);
        let port = self.port;
        eventually("redis-server answers", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok())
            .await;
    }

    /// Ends it, as if its machine lost its power.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Sends it a signal, such as `STOP` and `CONT`.
    pub fn signal(&self, name: &str) {
        let id = self.process.as_ref().expect("it runs").id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Returns its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Returns its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the settings that lead to it.
    pub fn settings(&self) -> RedisSettings {
        RedisSettings { urls: RedisUrls::One(RedisUrl::from(self.url())), username: None, password: None }
    }

    /// Opens a connection.
    pub async fn connection(&self) -> RedisConnection {
        RedisConnection::open(&self.settings(), Duration::from_secs(10)).await.expect("a connection")
    }

    /// Runs one command whose name and arguments are these words.
    pub async fn run(&self, words: &[&'static str]) -> Value {
        let [name, first, rest @ ..] = words else { panic!("a command with an argument") };
        let call = rest.iter().fold(RedisCommand::new(name, (*first).to_owned()), |call, word| call.arg(word));
        self.connection().await.run_one(call).await.expect("an answer")
    }

    /// Returns the names of all keys.
    pub async fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = read(self.run(&["KEYS", "*"]).await).expect("names");
        keys.sort();
        keys
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
