use bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// What a backend answers to one call.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Http {
        status: u16,
        headers: Vec<(String, String)>,
        body: Bytes,
    },
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
pub(crate) struct Gate(CancellationToken);

impl Gate {
    pub(crate) fn open(&self) {
        self.0.cancel();
    }

    pub(super) async fn opened(&self) {
        self.0.cancelled().await;
    }
}

impl Reply {
    /// An `AWS_PROXY` answer without a body.
    pub(crate) fn ok() -> Self {
        Reply::json(&json!({"statusCode": 200}))
    }

    /// An `AWS_PROXY` answer with this body.
    pub(crate) fn body(body: &str) -> Self {
        Reply::json(&json!({"statusCode": 200, "body": body}))
    }

    /// A JSON document, with status 200.
    pub(crate) fn json(document: &Value) -> Self {
        Reply::http(200, document.to_string()).header("content-type", "application/json")
    }

    /// An HTTP answer without headers of its own.
    pub(crate) fn http(status: u16, body: impl Into<Bytes>) -> Self {
        Reply::Http { status, headers: Vec::new(), body: body.into() }
    }

    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        match self {
            Reply::Http { status, mut headers, body } => {
                headers.push((name.to_owned(), value.to_owned()));
                Reply::Http { status, headers, body }
            }
            other => panic!("{other:?} has no headers"),
        }
    }

    pub(crate) fn held(self, gate: &Gate) -> Self {
        Reply::Held(gate.clone(), Box::new(self))
    }

    /// Held for ever.
    pub(crate) fn hang() -> Self {
        Reply::ok().held(&Gate::default())
    }
}
