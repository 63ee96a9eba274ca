use redis::{ErrorKind, ServerErrorKind};
use thiserror::Error;

/// Why Redis did not do what it was asked.
#[derive(Debug, Error)]
pub enum RedisError {
    #[error("nothing listens at the address of Redis")]
    Refused(#[source] redis::RedisError),
    #[error("Redis does not answer in time")]
    TimedOut,
    #[error("Redis does not accept the user name or the password")]
    Credentials(#[source] redis::RedisError),
    #[error("Redis is a read-only replica")]
    ReadOnly(#[source] redis::RedisError),
    #[error("Redis has used up its memory")]
    Full(#[source] redis::RedisError),
    #[error("Redis is loading its data")]
    Loading(#[source] redis::RedisError),
    #[error("the connection to Redis broke")]
    Connection(#[source] redis::RedisError),
    #[error("Redis answered with an error")]
    Server(#[source] redis::RedisError),
    #[error("Redis cannot be used as it is configured")]
    Settings(#[source] redis::RedisError),
    #[error("Redis gave an answer that was not expected")]
    Unexpected,
}

impl From<redis::RedisError> for RedisError {
    fn from(error: redis::RedisError) -> Self {
        let code = error.code().unwrap_or_default();
        match error.kind() {
            ErrorKind::AuthenticationFailed => RedisError::Credentials(error),
            ErrorKind::Server(ServerErrorKind::ReadOnly) => RedisError::ReadOnly(error),
            ErrorKind::Server(ServerErrorKind::BusyLoading) => RedisError::Loading(error),
            ErrorKind::InvalidClientConfig => RedisError::Settings(error),
            _ if matches!(code, "WRONGPASS" | "NOAUTH") => RedisError::Credentials(error),
            _ if says(&error, "OOM") => RedisError::Full(error),
            _ if says(&error, "READONLY") => RedisError::ReadOnly(error),
            ErrorKind::Server(_) | ErrorKind::Extension => RedisError::Server(error),
            _ if error.is_connection_refusal() => RedisError::Refused(error),
            _ if error.is_timeout() => RedisError::TimedOut,
            _ => RedisError::Connection(error),
        }
    }
}

/// Whether the error is of this code, also when it happened inside of a script and only its text says so.
fn says(error: &redis::RedisError, code: &str) -> bool {
    error.code() == Some(code) || error.detail().is_some_and(|detail| detail.contains(code))
}
