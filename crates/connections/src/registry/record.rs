//! The record of one connection in Redis: everything that its `$disconnect` needs, whichever node sends it.
//!
//! A record is a format number and then MessagePack: an array without names, so that one more field is a new format.
//! Each record is written in the oldest format that can hold it, so that nodes of the version before read what they
//! can. Values that were added later and that an event does not need follow the array, one after the other: older
//! versions do not read them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use tidegate_core::clock::Timestamp;
use tidegate_core::id::ConnectionId;
use tidegate_core::limits::{cut_forwarded_for, cut_header};
use tidegate_core::principal::Principal;
use tidegate_core::request_context::Connection;
use tidegate_http::tls;

/// The newest format that is written and read: the only one with a client's certificate.
pub const RECORD_FORMAT: u8 = 2;

/// The format of records without a client's certificate.
const WITHOUT_CERTIFICATE: u8 = 1;

/// A connection, as Redis knows it.
#[derive(Clone, Debug)]
pub struct Record {
    pub connection: Arc<Connection>,
    pub state: RecordState,
}

/// The stage of a connection's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordState {
    Connecting,
    Open,
    Ended {
        code: u16,
        reason: Arc<str>,
        /// Number of the next attempt to deliver the event.
        attempt: u32,
    },
}

/// The reason why a record cannot be used. Other records can.
#[derive(Debug, Error)]
pub enum RecordError {
    #[error("the record has format {0}, and {RECORD_FORMAT} is the newest that this version reads")]
    Newer(u8),
    #[error("the bytes are not a record")]
    Corrupt(#[source] Option<rmp_serde::decode::Error>),
    #[error("the record refers to text number {0}, which is missing")]
    NoText(u32),
}

/// A text that stands in the record itself, or once for all records of the node.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum RecordText<'a> {
    Interned(u32),
    Inline(#[serde(borrow)] Cow<'a, str>),
}

/// Texts that the records of a node share, by their number.
pub type RecordTexts = HashMap<u32, Box<str>>;

/// Reads the texts that the records of a node share. A damaged text does not hold up the others.
pub fn texts_of(fields: Vec<(Vec<u8>, Vec<u8>)>) -> RecordTexts {
    let text = |(number, text): (Vec<u8>, Vec<u8>)| {
        Some((std::str::from_utf8(&number).ok()?.parse().ok()?, String::from_utf8(text).ok()?.into()))
    };
    fields.into_iter().filter_map(text).collect()
}

/// Formats 1 and 2.
#[derive(Serialize, Deserialize)]
struct RawRecord<'a> {
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
    user_agent: Option<RecordText<'a>>,
    /// The principal of the connection; the value of an API key is left out.
    principal: Option<Cow<'a, Principal>>,
    /// The client's certificate in PEM, from which its fields are read again.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    client_cert: Option<RecordText<'a>>,
}

/// The texts of a record that other records may share: each stands in the record, or is referred to by its number.
#[derive(Default)]
pub(super) struct OwnTexts<'a> {
    pub(super) user_agent: Option<RecordText<'a>>,
    /// The client's certificate in PEM.
    pub(super) client_cert: Option<RecordText<'a>>,
}

/// Encodes a record. `texts` are the connection's own.
pub(super) fn encode(connection: &Connection, state: &RecordState, texts: OwnTexts<'_>) -> Vec<u8> {
    let (state, attempt, code, reason) = match state {
        RecordState::Connecting => (b'c', 0, 0, ""),
        RecordState::Open => (b'o', 0, 0, ""),
        RecordState::Ended { code, reason, attempt } => (b'e', *attempt, *code, &**reason),
    };
    let principal = connection.principal.load();
    let encoded = RawRecord {
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
    push(&mut bytes, &encoded);
    if connection.port != 0 || connection.forwarded_for.is_some() {
        push(&mut bytes, &connection.port);
    }
    if let Some(forwarded_for) = &connection.forwarded_for {
        push(&mut bytes, forwarded_for);
    }
    bytes
}

fn push(bytes: &mut Vec<u8>, value: &impl Serialize) {
    rmp_serde::encode::write(bytes, value).expect("a record of plain values fits into memory");
}

/// Reads a record. `text` returns the texts that the records of its node share.
///
/// # Errors
/// [`RecordError::Newer`] if a later version wrote the record, [`RecordError::Corrupt`], and [`RecordError::NoText`].
pub fn decode(
    id: ConnectionId,
    bytes: &[u8],
    header_max_bytes: usize,
    text: impl Fn(u32) -> Option<Box<str>>,
) -> Result<Record, RecordError> {
    let values = match bytes {
        [WITHOUT_CERTIFICATE..=RECORD_FORMAT, values @ ..] => values,
        [format, ..] if *format > RECORD_FORMAT => return Err(RecordError::Newer(*format)),
        _ => return Err(RecordError::Corrupt(None)),
    };
    let mut values = rmp_serde::Deserializer::from_read_ref(values);
    let encoded = RawRecord::deserialize(&mut values).map_err(|error| RecordError::Corrupt(Some(error)))?;
    let port: Option<u16> = next(&mut values)?;
    let forwarded_for: Option<&str> = next(&mut values)?;
    let state = match encoded.state {
        b'c' => RecordState::Connecting,
        b'o' => RecordState::Open,
        b'e' => {
            RecordState::Ended { code: encoded.code, reason: encoded.reason.into(), attempt: encoded.attempt.max(1) }
        }
        _ => return Err(RecordError::Corrupt(None)),
    };
    let text = |own: Option<RecordText<'_>>| match own {
        None => Ok(None),
        Some(RecordText::Inline(text)) => Ok(Some(Box::<str>::from(text))),
        Some(RecordText::Interned(number)) => text(number).ok_or(RecordError::NoText(number)).map(Some),
    };
    let (user_agent, client_cert) = (text(encoded.user_agent)?, text(encoded.client_cert)?);
    let user_agent = user_agent.map(|agent| match cut_header(&agent, header_max_bytes) {
        cut if cut.len() < agent.len() => cut.into(),
        _ => agent,
    });
    let connection = Connection {
        id,
        api_id: encoded.api_id.into(),
        stage: encoded.stage.into(),
        connected_at: Timestamp(encoded.connected_at),
        configuration: 0,
        host: encoded.host.into(),
        callback_secure: encoded.secure,
        secure: encoded.secure,
        source_ip: encoded.source_ip,
        user_agent,
        principal: ArcSwapOption::new(encoded.principal.map(|principal| Arc::new(principal.into_owned()))),
        client_cert: client_cert.and_then(|pem| tls::client_cert_of_pem(&pem)).map(Arc::new),
        port: port.unwrap_or_default(),
        forwarded_for: forwarded_for.and_then(|way| cut_forwarded_for(way, header_max_bytes)).map(Into::into),
        topics: Default::default(),
    };
    Ok(Record { connection: Arc::new(connection), state })
}

/// Reads the next value after the array of a record, if there is one.
fn next<'a, T: Deserialize<'a>>(
    values: &mut rmp_serde::Deserializer<rmp_serde::decode::ReadRefReader<'a, [u8]>>,
) -> Result<Option<T>, RecordError> {
    match T::deserialize(values) {
        Ok(value) => Ok(Some(value)),
        // The bytes end where a value would begin.
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(None),
        Err(error) => Err(RecordError::Corrupt(Some(error))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use tidegate_core::id::NodeId;

    fn connection(user_agent: Option<&str>) -> Connection {
        Connection {
            id: ConnectionId::random(NodeId::random()),
            api_id: "chat".into(),
            stage: "prod".into(),
            connected_at: Timestamp(1_790_295_749_887),
            configuration: 0,
            host: "chat.example.com:8443".into(),
            callback_secure: true,
            secure: true,
            source_ip: IpAddr::from([203, 0, 113, 7]),
            user_agent: user_agent.map(Into::into),
            principal: ArcSwapOption::empty(),
            client_cert: None,
            port: 8443,
            forwarded_for: Some("203.0.113.7, 10.0.0.1".into()),
            topics: Default::default(),
        }
    }

    #[test]
    fn a_record_holds_all_that_a_disconnect_event_needs() {
        let connection = connection(Some("Mozilla/5.0"));
        let ended = RecordState::Ended { code: 4001, reason: "kicked \u{0} ä".into(), attempt: 7 };
        for state in [RecordState::Connecting, RecordState::Open, ended] {
            let inline = RecordText::Inline("Mozilla/5.0".into());
            for user_agent in [inline, RecordText::Interned(3)] {
                let bytes = encode(&connection, &state, OwnTexts { user_agent: Some(user_agent), client_cert: None });
                assert!(bytes.len() < 120, "{}", bytes.len());
                let text = |number: u32| (number == 3).then(|| "Mozilla/5.0".into());
                let record = decode(connection.id, &bytes, 512, text).unwrap();
                assert_eq!(record.state, state);
                assert_eq!(format!("{:?}", record.connection), format!("{:?}", Arc::new(&connection)));
            }
        }
    }

    #[test]
    fn a_header_of_which_another_node_kept_more_is_cut() {
        let connection = connection(None);
        let agent = "ä".repeat(15_000);
        for own in [RecordText::Inline(agent.as_str().into()), RecordText::Interned(3)] {
            let bytes = encode(&connection, &RecordState::Open, OwnTexts { user_agent: Some(own), client_cert: None });
            let record = decode(connection.id, &bytes, 513, |_| Some(agent.as_str().into())).unwrap();
            assert_eq!(record.connection.user_agent.as_deref(), Some(&*"ä".repeat(256)));
        }
    }

    #[test]
    fn a_clients_certificate_is_read_again_from_its_text() {
        let issued = rcgen::generate_simple_self_signed(["partner.test".to_owned()]).unwrap();
        let client_cert = tls::client_cert(issued.cert.der()).map(Arc::new);
        assert!(client_cert.is_some());
        let connection = Connection { client_cert, ..connection(None) };
        let pem = connection.client_cert.as_ref().map(|cert| cert.client_cert_pem.as_str()).unwrap();
        for own in [RecordText::Inline(pem.into()), RecordText::Interned(3)] {
            let is_shared = matches!(own, RecordText::Interned(_));
            let bytes = encode(&connection, &RecordState::Open, OwnTexts { user_agent: None, client_cert: Some(own) });
            assert!(bytes.len() < 100 || !is_shared, "{}", bytes.len());
            assert_eq!(bytes[0], RECORD_FORMAT);
            let record = decode(connection.id, &bytes, 512, |number| (number == 3).then(|| pem.into())).unwrap();
            assert_eq!(record.connection.client_cert, connection.client_cert);
        }
        // Nodes of the version before can read all other records.
        assert_eq!(encode(&connection, &RecordState::Open, OwnTexts::default())[0], WITHOUT_CERTIFICATE);
    }

    #[test]
    fn versions_before_and_after_the_clients_way_was_kept_read_each_others_records() {
        let read =
            |connection: &Connection, bytes: &[u8]| decode(connection.id, bytes, 512, |_| None).unwrap().connection;
        let way = connection(None);
        let bytes = encode(&way, &RecordState::Open, OwnTexts::default());
        // The version before reads only the array, whatever follows it.
        let before: RawRecord<'_> = rmp_serde::from_slice(&bytes[1..]).unwrap();
        assert_eq!((bytes[0], &*before.host), (WITHOUT_CERTIFICATE, "chat.example.com:8443"));
        // The version before writes only the array.
        let mut old = vec![WITHOUT_CERTIFICATE];
        rmp_serde::encode::write(&mut old, &before).unwrap();
        assert_eq!((read(&way, &old).port, &read(&way, &old).forwarded_for), (0, &None));
        for (port, forwarded_for, length) in [(0, None, 0), (443, None, 3), (0, Some("a, b"), 6)] {
            let forwarded_for = forwarded_for.map(Into::into);
            let connection = Connection { port, forwarded_for, ..connection(None) };
            let bytes = encode(&connection, &RecordState::Open, OwnTexts::default());
            assert_eq!(bytes.len(), old.len() + length, "{connection:?}");
            let read = read(&connection, &bytes);
            assert_eq!((read.port, &read.forwarded_for), (port, &connection.forwarded_for));
        }
        assert!(matches!(decode(way.id, &bytes[..bytes.len() - 1], 512, |_| None), Err(RecordError::Corrupt(Some(_)))));
    }

    #[test]
    fn newer_and_damaged_records_are_told_apart() {
        let connection = connection(None);
        let mut bytes = encode(
            &connection,
            &RecordState::Open,
            OwnTexts { user_agent: Some(RecordText::Interned(3)), client_cert: None },
        );
        let decode = |bytes: &[u8]| decode(connection.id, bytes, 512, |_| None);
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
            let _ = decode(ConnectionId::random(NodeId::random()), &bytes, 512, |_| None);
        }
    }
}
