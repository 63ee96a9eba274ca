//! What Redis holds of one connection: all that its `$disconnect` needs, whoever sends it.
//!
//! A format number, then MessagePack. An array without names: a field more is a new format. Each record is written in
//! the oldest format that has all of it, so that nodes of the version before read what they can.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clock::Timestamp;
use crate::id::ConnectionId;
use crate::principal::Principal;
use crate::request_context::Connection;
use crate::tls;

/// The newest format that is written and read: the only one with a client's certificate.
pub const RECORD_FORMAT: u8 = 2;

/// The format of records without a client's certificate.
const WITHOUT_CERTIFICATE: u8 = 1;

/// A connection as Redis knows it.
#[derive(Clone, Debug)]
pub struct Record {
    pub connection: Arc<Connection>,
    pub state: RecordState,
}

/// Where the connection is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordState {
    Connecting,
    Open,
    Ended {
        code: u16,
        reason: Arc<str>,
        /// The number of the next attempt to deliver the event.
        attempt: u32,
    },
}

/// A record that cannot be used. Its neighbours can.
#[derive(Debug, Error)]
pub enum RecordError {
    #[error("it is of format {0}, and {RECORD_FORMAT} is the newest that this version reads")]
    Newer(u8),
    #[error("it is not a record")]
    Corrupt(#[source] Option<rmp_serde::decode::Error>),
    #[error("it refers to text number {0}, which is not there")]
    NoText(u32),
}

/// Text that stands in the record itself, or once for all records of the node.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Text<'a> {
    Interned(u32),
    Inline(#[serde(borrow)] Cow<'a, str>),
}

/// Formats 1 and 2.
#[derive(Serialize, Deserialize)]
struct Encoded<'a> {
    state: u8,
    attempt: u32,
    code: u16,
    #[serde(borrow)]
    reason: Cow<'a, str>,
    #[serde(borrow)]
    api_id: Cow<'a, str>,
    #[serde(borrow)]
    stage: Cow<'a, str>,
    connected_at: u64,
    #[serde(borrow)]
    host: Cow<'a, str>,
    secure: bool,
    source_ip: IpAddr,
    #[serde(borrow)]
    user_agent: Option<Text<'a>>,
    /// Who is on the connection; the value of an API key is left out.
    principal: Option<Cow<'a, Principal>>,
    /// The client's certificate in PEM, from which all else is read again.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    client_cert: Option<Text<'a>>,
}

/// The texts of a record that others may share: each stands in it, or there is its number.
#[derive(Default)]
pub(super) struct Texts<'a> {
    pub(super) user_agent: Option<Text<'a>>,
    /// In PEM.
    pub(super) client_cert: Option<Text<'a>>,
}

/// The bytes of a record. The texts are the connection's own.
pub(super) fn encode(connection: &Connection, state: &RecordState, texts: Texts<'_>) -> Vec<u8> {
    let (state, attempt, code, reason) = match state {
        RecordState::Connecting => (b'c', 0, 0, ""),
        RecordState::Open => (b'o', 0, 0, ""),
        RecordState::Ended { code, reason, attempt } => (b'e', *attempt, *code, &**reason),
    };
    let principal = connection.principal.load();
    let encoded = Encoded {
        state,
        attempt,
        code,
        reason: reason.into(),
        api_id: (&*connection.api_id).into(),
        stage: (&*connection.stage).into(),
        connected_at: connection.connected_at.millis(),
        host: (&*connection.host).into(),
        secure: connection.secure,
        source_ip: connection.source_ip,
        user_agent: texts.user_agent,
        principal: principal.as_deref().map(Cow::Borrowed),
        client_cert: texts.client_cert,
    };
    let format = if encoded.client_cert.is_some() { RECORD_FORMAT } else { WITHOUT_CERTIFICATE };
    let mut bytes = vec![format];
    rmp_serde::encode::write(&mut bytes, &encoded).expect("a record of plain values fits into memory");
    bytes
}

/// Reads a record. `text` knows the texts that the node's records share.
///
/// # Errors
/// The record is of a later version, or damaged.
pub fn decode(id: ConnectionId, bytes: &[u8], text: impl Fn(u32) -> Option<Box<str>>) -> Result<Record, RecordError> {
    let encoded: Encoded<'_> = match bytes {
        [WITHOUT_CERTIFICATE..=RECORD_FORMAT, encoded @ ..] => {
            rmp_serde::from_slice(encoded).map_err(|error| RecordError::Corrupt(Some(error)))?
        }
        [format, ..] if *format > RECORD_FORMAT => return Err(RecordError::Newer(*format)),
        _ => return Err(RecordError::Corrupt(None)),
    };
    let state = match encoded.state {
        b'c' => RecordState::Connecting,
        b'o' => RecordState::Open,
        b'e' => {
            RecordState::Ended { code: encoded.code, reason: encoded.reason.into(), attempt: encoded.attempt.max(1) }
        }
        _ => return Err(RecordError::Corrupt(None)),
    };
    let text = |own: Option<Text<'_>>| match own {
        None => Ok(None),
        Some(Text::Inline(text)) => Ok(Some(Box::<str>::from(text))),
        Some(Text::Interned(number)) => text(number).ok_or(RecordError::NoText(number)).map(Some),
    };
    let (user_agent, client_cert) = (text(encoded.user_agent)?, text(encoded.client_cert)?);
    let connection = Connection {
        id,
        api_id: encoded.api_id.into(),
        stage: encoded.stage.into(),
        connected_at: Timestamp(encoded.connected_at),
        host: encoded.host.into(),
        callback_secure: encoded.secure,
        secure: encoded.secure,
        source_ip: encoded.source_ip,
        user_agent,
        principal: ArcSwapOption::new(encoded.principal.map(|principal| Arc::new(principal.into_owned()))),
        client_cert: client_cert.and_then(|pem| tls::client_cert_of_pem(&pem)).map(Arc::new),
        topics: Default::default(),
    };
    Ok(Record { connection: Arc::new(connection), state })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::NodeId;

    fn connection(user_agent: Option<&str>) -> Connection {
        Connection {
            id: ConnectionId::random(NodeId::random()),
            api_id: "chat".into(),
            stage: "prod".into(),
            connected_at: Timestamp(1_790_295_749_887),
            host: "chat.example.com:8443".into(),
            callback_secure: true,
            secure: true,
            source_ip: IpAddr::from([203, 0, 113, 7]),
            user_agent: user_agent.map(Into::into),
            principal: ArcSwapOption::empty(),
            client_cert: None,
            topics: Default::default(),
        }
    }

    #[test]
    fn a_record_holds_all_that_a_disconnect_event_needs() {
        let connection = connection(Some("Mozilla/5.0"));
        let ended = RecordState::Ended { code: 4001, reason: "kicked \u{0} ä".into(), attempt: 7 };
        for state in [RecordState::Connecting, RecordState::Open, ended] {
            let inline = Text::Inline("Mozilla/5.0".into());
            for user_agent in [inline, Text::Interned(3)] {
                let bytes = encode(&connection, &state, Texts { user_agent: Some(user_agent), client_cert: None });
                assert!(bytes.len() < 90, "{}", bytes.len());
                let text = |number: u32| (number == 3).then(|| "Mozilla/5.0".into());
                let record = decode(connection.id, &bytes, text).unwrap();
                assert_eq!(record.state, state);
                assert_eq!(format!("{:?}", record.connection), format!("{:?}", Arc::new(&connection)));
            }
        }
    }

    #[test]
    fn a_clients_certificate_is_read_again_from_its_text() {
        let issued = rcgen::generate_simple_self_signed(["partner.test".to_owned()]).unwrap();
        let client_cert = tls::client_cert(issued.cert.der()).map(Arc::new);
        assert!(client_cert.is_some());
        let connection = Connection { client_cert, ..connection(None) };
        let pem = connection.client_cert.as_ref().map(|cert| cert.client_cert_pem.as_str()).unwrap();
        for own in [Text::Inline(pem.into()), Text::Interned(3)] {
            let is_shared = matches!(own, Text::Interned(_));
            let bytes = encode(&connection, &RecordState::Open, Texts { user_agent: None, client_cert: Some(own) });
            assert!(bytes.len() < 70 || !is_shared, "{}", bytes.len());
            assert_eq!(bytes[0], RECORD_FORMAT);
            let record = decode(connection.id, &bytes, |number| (number == 3).then(|| pem.into())).unwrap();
            assert_eq!(record.connection.client_cert, connection.client_cert);
        }
        // Nodes of the version before read all other records.
        assert_eq!(encode(&connection, &RecordState::Open, Texts::default())[0], WITHOUT_CERTIFICATE);
    }

    #[test]
    fn newer_and_damaged_records_are_told_apart() {
        let connection = connection(None);
        let mut bytes =
            encode(&connection, &RecordState::Open, Texts { user_agent: Some(Text::Interned(3)), client_cert: None });
        let decode = |bytes: &[u8]| decode(connection.id, bytes, |_| None);
        assert!(matches!(decode(&bytes), Err(RecordError::NoText(3))));
        assert!(matches!(decode(&bytes[..bytes.len() - 1]), Err(RecordError::Corrupt(Some(_)))));
        assert!(matches!(decode(&[]), Err(RecordError::Corrupt(None))));
        assert!(matches!(decode(&[0, 1]), Err(RecordError::Corrupt(None))));
        bytes[0] = 3;
        assert!(matches!(decode(&bytes), Err(RecordError::Newer(3))));
    }

    proptest! {
        #[test]
        fn reading_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..200), format in any::<bool>()) {
            if format && let Some(first) = bytes.first_mut() {
                *first = 1 + *first % RECORD_FORMAT;
            }
            let _ = decode(ConnectionId::random(NodeId::random()), &bytes, |_| None);
        }
    }
}
