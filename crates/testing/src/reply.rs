use bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// The answer of a backend to one call.
#[derive(Clone, Debug)]
pub enum Reply {
    /// This status, these headers and this body.
    Http { status: u16, headers: Vec<(String, String)>, body: Bytes },
    /// Another one, once the gate is open.
    Held(Gate, Box<Reply>),
    /// None: the connection is closed.
    Close,
    /// A head that promises more than is sent before the connection is closed.
    Half,
    /// Bytes that are not HTTP.
    Raw(&'static [u8]),
    /// A body of this many bytes; none: without end.
    Large(Option<u64>),
}

/// Holds replies back until it is opened.
#[derive(Clone, Debug, Default)]
pub struct Gate(CancellationToken);

impl Gate {
    /// Lets all replies out that are held back, and all that come.
    pub fn open(&self) {
        self.0.cancel();
    }

    pub(crate) async fn opened(&self) {
        self.0.cancelled().await;
    }
}

impl Reply {
    /// Answers `AWS_PROXY`, without a body.
    pub fn ok() -> Self {
        Reply::json(&json!({"statusCode": 200}))
    }

    /// Answers `AWS_PROXY` with this body.
    pub fn body(body: &str) -> Self {
        Reply::json(&json!({"statusCode": 200, "body": body}))
    }

    /// Answers with a JSON document and status 200.
    pub fn json(document: &Value) -> Self {
        Reply::http(200, document.to_string()).header("content-type", "application/json")
    }

    /// Answers with this status and body.
    pub fn http(status: u16, body: impl Into<Bytes>) -> Self {
        Reply::Http { status, headers: Vec::new(), body: body.into() }
    }

    /// Redirects to a URL, with status 307.
    pub fn redirect(url: &str) -> Self {
        Reply::http(307, "").header("location", url)
    }

    /// Adds a header.
    pub fn header(self, name: &str, value: &str) -> Self {
        match self {
            Reply::Http { status, mut headers, body } => {
                headers.push((name.to_owned(), value.to_owned()));
                Reply::Http { status, headers, body }
            }
            other => panic!("{other:?} has no headers"),
        }
    }

    /// Holds the answer back until the gate is open.
    pub fn held(self, gate: &Gate) -> Self {
        Reply::Held(gate.clone(), Box::new(self))
    }

    /// Never answers.
    pub fn hang() -> Self {
        Reply::ok().held(&Gate::default())
    }
}
