use bytes::Bytes;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use tidegate_core::data_type::DataType;

/// The data that a client sent with an event.
#[derive(Clone, Debug)]
pub enum Payload {
    /// No data, as with `$connect` and `$disconnect`.
    Empty,
    Text(Utf8Bytes),
    Binary(Bytes),
}

impl Payload {
    /// Returns the length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Payload::Empty => 0,
            Payload::Text(text) => text.len(),
            Payload::Binary(bytes) => bytes.len(),
        }
    }

    /// Returns the type of its data; text if it has none.
    pub fn data_type(&self) -> DataType {
        match self {
            Payload::Empty | Payload::Text(_) => DataType::Text,
            Payload::Binary(_) => DataType::Binary,
        }
    }

    /// Returns true if the payload has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes, shared and not copied.
    pub fn bytes(&self) -> Bytes {
        match self {
            Payload::Empty => Bytes::new(),
            Payload::Text(text) => Bytes::from(text.clone()),
            Payload::Binary(bytes) => bytes.clone(),
        }
    }
}
