use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, RedisResult, ServerErrorKind};
use tokio::time::timeout;

use super::{Reach, RedisError, RedisSettings, RedisUrls};

pub use redis::{FromRedisValue, Value};

/// Most redirections that a call to a Redis Cluster follows.
const CLUSTER_RETRIES: u32 = 3;

/// Reads a value from an answer.
///
/// # Errors
/// [`RedisError::Unexpected`]: the answer has another shape.
pub fn read<T: FromRedisValue>(answer: Value) -> Result<T, RedisError> {
    redis::from_redis_value(answer).map_err(|_| RedisError::Unexpected)
}

/// The source of connections to Redis: the real one, or a simulation.
pub trait Redis: fmt::Debug + Send + Sync {
    /// Connects. `timeout` bounds this and every later call on the connection.
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<RedisConnection, RedisError>>;

    /// Names the host and the port, for operators.
    fn address(&self) -> String;

    /// Tries the address of Redis with a TCP connection, whatever is behind it.
    fn reach(&self, timeout: Duration) -> BoxFuture<'_, Reach>;
}

/// A transport that carries pipelines to a simulation of Redis.
pub trait Transport: Send + Sync {
    /// Sends all calls and waits for all answers, in the order of the calls.
    fn run(&self, calls: Vec<RedisCommand>) -> BoxFuture<'_, Result<Vec<Value>, RedisError>>;
}

/// A multiplexed connection; clones share it. Drop it once it has failed: the calls that were sent on it may or may not
/// have been executed.
#[derive(Clone)]
pub struct RedisConnection {
    link: RedisLink,
    timeout: Duration,
    /// True if the user of this connection may not run `INFO`.
    hides_info: Arc<AtomicBool>,
}

#[derive(Clone)]
enum RedisLink {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
    Played(Arc<dyn Transport>),
}

/// A command or a script, with its keys and arguments.
#[derive(Clone, Debug)]
pub struct RedisCommand {
    name: &'static str,
    script: Option<&'static ScriptText>,
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
}

/// The text of a script, and its hash, by which Redis knows it.
#[derive(Debug)]
pub(crate) struct ScriptText {
    text: &'static str,
    hash: OnceLock<String>,
}

impl ScriptText {
    pub(crate) const fn new(text: &'static str) -> Self {
        ScriptText { text, hash: OnceLock::new() }
    }

    fn hash(&self) -> &str {
        self.hash.get_or_init(|| redis::Script::new(self.text).get_hash().to_owned())
    }
}

impl RedisCommand {
    /// Returns a command of Redis's own on one key.
    pub fn new(name: &'static str, key: String) -> Self {
        RedisCommand { name, script: None, keys: vec![key], arguments: Vec::new() }
    }

    /// Returns a call of a script.
    pub(crate) fn script(script: &'static ScriptText, keys: Vec<String>) -> Self {
        RedisCommand { name: "EVALSHA", script: Some(script), keys, arguments: Vec::new() }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<[u8]>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Returns the name of the command; `EVALSHA` for a script.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the text of the script, if the call is one.
    pub fn script_text(&self) -> Option<&'static str> {
        self.script.map(|script| script.text)
    }

    /// Returns the keys that the call touches.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Returns the arguments, which follow the keys.
    pub fn arguments(&self) -> &[Vec<u8>] {
        &self.arguments
    }

    /// Encodes the call for Redis: a script by its hash.
    fn encode(&self) -> Cmd {
        match self.script {
            Some(script) => self.encode_script("EVALSHA", script.hash()),
            None => {
                let mut cmd = redis::cmd(self.name);
                cmd.arg(&self.keys).arg(&self.arguments);
                cmd
            }
        }
    }

    /// Encodes a script with its whole text; `None` if the call is a command.
    fn encode_text(&self) -> Option<Cmd> {
        self.script.map(|script| self.encode_script("EVAL", script.text))
    }

    fn encode_script(&self, name: &str, script: &str) -> Cmd {
        let mut cmd = redis::cmd(name);
        cmd.arg(script).arg(self.keys.len()).arg(&self.keys).arg(&self.arguments);
        cmd
    }
}

impl RedisConnection {
    /// Connects, and authenticates. `timeout` bounds this and every later [`RedisConnection::run`].
    ///
    /// # Errors
    /// Every variant of [`RedisError`] but [`RedisError::Unexpected`], by the reason: Redis cannot be reached, or it
    /// refuses the connection.
    pub async fn open(settings: &RedisSettings, timeout: Duration) -> Result<Self, RedisError> {
        if settings.urls.all().iter().any(super::RedisUrl::is_tls) {
            // The first provider that is installed stays. This fails if there is one already, which does as well.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let link = tokio::time::timeout(timeout, connect(settings, timeout)).await;
        Ok(Self::new(link.map_err(|_| RedisError::TimedOut)??, timeout))
    }

    /// Returns a connection to a simulation of Redis.
    pub fn played(transport: Arc<dyn Transport>, timeout: Duration) -> Self {
        Self::new(RedisLink::Played(transport), timeout)
    }

    fn new(link: RedisLink, timeout: Duration) -> Self {
        RedisConnection { link, timeout, hides_info: Arc::default() }
    }

    /// Notes that the user may not run `INFO`. No clone of this connection sends it from now on.
    pub fn hide_info(&self) {
        self.hides_info.store(true, Ordering::Relaxed);
    }

    /// Returns true if it was noted that the user may not run `INFO`.
    pub fn hides_info(&self) -> bool {
        self.hides_info.load(Ordering::Relaxed)
    }

    /// Returns true if a script may touch any keys, because there is one server and no slots.
    pub fn is_one_server(&self) -> bool {
        !matches!(self.link, RedisLink::Cluster(_))
    }

    /// Sends all calls in one round trip and waits for all answers, in the order of the calls.
    ///
    /// # Errors
    /// The first failure of any call. The other calls may have been executed.
    pub async fn run(&self, calls: &[RedisCommand]) -> Result<Vec<Value>, RedisError> {
        timeout(self.timeout, self.send(calls)).await.map_err(|_| RedisError::TimedOut)?
    }

    /// Runs one call, as [`RedisConnection::run`] does.
    ///
    /// # Errors
    /// The failure of the call.
    pub async fn run_one(&self, call: RedisCommand) -> Result<Value, RedisError> {
        self.run(&[call]).await?.pop().ok_or(RedisError::Unexpected)
    }

    async fn send(&self, calls: &[RedisCommand]) -> Result<Vec<Value>, RedisError> {
        if let RedisLink::Played(transport) = &self.link {
            return transport.run(calls.to_vec()).await;
        }
        let mut answers = self.pipeline(calls.iter().map(RedisCommand::encode).collect()).await?;
        // A script that this server does not know yet is sent again, once, with its whole text.
        let is_unknown = |answer: &RedisResult<Value>| {
            answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
        };
        let unknown: Vec<usize> = (0..answers.len()).filter(|index| is_unknown(&answers[*index])).collect();
        if !unknown.is_empty() {
            let texts = unknown.iter().filter_map(|index| calls.get(*index)?.encode_text()).collect();
            for (index, answer) in unknown.into_iter().zip(self.pipeline(texts).await?) {
                answers[index] = answer;
            }
        }
        if answers.len() != calls.len() {
            return Err(RedisError::Unexpected);
        }
        answers.into_iter().map(|answer| answer.map_err(RedisError::from)).collect()
    }

    async fn pipeline(&self, commands: Vec<Cmd>) -> Result<Vec<RedisResult<Value>>, RedisError> {
        if commands.is_empty() {
            // The library takes an empty pipeline for an error.
            return Ok(Vec::new());
        }
        match &self.link {
            RedisLink::One(connection) => {
                let mut pipeline = redis::Pipeline::with_capacity(commands.len());
                for command in commands {
                    pipeline.add_command(command);
                }
                Ok(pipeline.ignore_errors().query_async(&mut connection.clone()).await?)
            }
            // A pipeline must stay within one slot there. So the calls run side by side, and still share the
            // connection.
            RedisLink::Cluster(connection) => {
                let run = |command: Cmd| {
                    let mut connection = connection.clone();
                    async move { command.query_async(&mut connection).await }
                };
                Ok(join_all(commands.into_iter().map(run)).await)
            }
            RedisLink::Played(_) => Err(redis::RedisError::from((ErrorKind::Client, "never encoded")).into()),
        }
    }
}

impl Redis for RedisSettings {
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<RedisConnection, RedisError>> {
        Box::pin(RedisConnection::open(self, timeout))
    }

    fn address(&self) -> String {
        let addresses = self.urls.all().iter().filter_map(super::RedisUrl::address);
        addresses.collect::<Vec<_>>().join(", ")
    }

    fn reach(&self, timeout: Duration) -> BoxFuture<'_, Reach> {
        let addresses = self.urls.all().iter().filter_map(super::RedisUrl::address);
        Box::pin(Reach::of_all(addresses.collect(), timeout))
    }
}

async fn connect(settings: &RedisSettings, timeout: Duration) -> Result<RedisLink, RedisError> {
    let infos = settings.urls.all().iter().map(|url| {
        let info = url.info()?;
        let mut redis = info.redis_settings().clone();
        if let Some(username) = &settings.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = &settings.password {
            redis = redis.set_password(password.expose());
        }
        Ok(info.set_redis_settings(redis))
    });
    let mut infos = infos.collect::<Result<Vec<_>, redis::RedisError>>()?;
    match &settings.urls {
        RedisUrls::One(_) => {
            let info = infos.pop().ok_or(RedisError::Unexpected)?;
            let config =
                AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(Some(timeout));
            Ok(RedisLink::One(Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await?))
        }
        RedisUrls::Cluster(_) => {
            let client = ClusterClient::builder(infos)
                .retries(CLUSTER_RETRIES)
                .connection_timeout(timeout)
                .response_timeout(timeout)
                .build()?;
            Ok(RedisLink::Cluster(client.get_async_connection().await?))
        }
    }
}

impl fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisConnection")
    }
}
