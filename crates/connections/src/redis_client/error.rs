use redis::{ErrorKind, ServerErrorKind};
use thiserror::Error;

/// Error texts of a script whose user may not run a command, or not on a key: those of Redis 7.0, then those of later
/// versions.
const DENIALS: [&str; 3] =
    ["The user executing the script can't run", "The user executing the script can't access", "ACL failure in script"];

/// The text of the library or of the server, causes included.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Cause(String);

/// The reason why a Redis command failed.
#[derive(Debug, Error)]
pub enum RedisError {
    #[error("nothing listens at the address of Redis")]
    Refused(#[source] Cause),
    #[error("Redis does not answer in time")]
    TimedOut,
    #[error("Redis does not accept the user name or the password")]
    Credentials(#[source] Cause),
    #[error("the Redis user has no right to do this")]
    Denied(#[source] Cause),
    #[error("Redis is a read-only replica")]
    ReadOnly(#[source] Cause),
    #[error("Redis has used up its memory")]
    Full(#[source] Cause),
    #[error("Redis is loading its data")]
    Loading(#[source] Cause),
    #[error("the connection to Redis broke")]
    Connection(#[source] Cause),
    #[error("Redis answered with an error")]
    Server(#[source] Cause),
    #[error("Redis cannot be used as it is configured")]
    Settings(#[source] Cause),
    #[error("Redis gave an answer that was not expected")]
    Unexpected,
}

impl RedisError {
    /// Returns true if Redis is reachable and refused only this call, so that another call may succeed.
    pub fn is_of_call(&self) -> bool {
        match self {
            RedisError::Server(_) | RedisError::Denied(_) | RedisError::Unexpected => true,
            RedisError::Refused(_)
            | RedisError::TimedOut
            | RedisError::Credentials(_)
            | RedisError::ReadOnly(_)
            | RedisError::Full(_)
            | RedisError::Loading(_)
            | RedisError::Connection(_)
            | RedisError::Settings(_) => false,
        }
    }
}

impl From<redis::RedisError> for RedisError {
    fn from(error: redis::RedisError) -> Self {
        let code = error.code().unwrap_or_default();
        let cause = || Cause(error.to_string());
        match error.kind() {
            ErrorKind::AuthenticationFailed => RedisError::Credentials(cause()),
            ErrorKind::Server(ServerErrorKind::ReadOnly) => RedisError::ReadOnly(cause()),
            ErrorKind::Server(ServerErrorKind::NoPerm) => RedisError::Denied(cause()),
            ErrorKind::Server(ServerErrorKind::BusyLoading) => RedisError::Loading(cause()),
            ErrorKind::InvalidClientConfig => RedisError::Settings(cause()),
            _ if matches!(code, "WRONGPASS" | "NOAUTH") => RedisError::Credentials(cause()),
            _ if DENIALS.iter().any(|text| has_code(&error, text)) => RedisError::Denied(cause()),
            _ if has_code(&error, "OOM") => RedisError::Full(cause()),
            _ if has_code(&error, "READONLY") => RedisError::ReadOnly(cause()),
            ErrorKind::Server(_) | ErrorKind::Extension => RedisError::Server(cause()),
            _ if error.is_connection_refusal() => RedisError::Refused(cause()),
            _ if error.is_timeout() => RedisError::TimedOut,
            _ => RedisError::Connection(cause()),
        }
    }
}

/// Returns true if the error has this code. An error inside a script has it in its text alone.
fn has_code(error: &redis::RedisError, code: &str) -> bool {
    error.code() == Some(code) || error.detail().is_some_and(|detail| detail.contains(code))
}
