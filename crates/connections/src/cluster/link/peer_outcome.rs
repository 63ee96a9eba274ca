//! The outcomes of calls of a peer, and their bytes. Pure: bytes in, values out.

use bytes::{Buf as _, BufMut as _, BytesMut};

use super::codec::{Decoded, MalformedField};

/// Size of the answer to one call, in bytes: its id and its outcome.
const ANSWER_BYTES: usize = 9;

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerOutcome {
    /// The frame is written as a whole, or the connection closes.
    Done,
    /// The connection is gone, or not there yet.
    Gone,
    /// The connection's send buffer is full.
    Full,
    /// The data are larger than the owner allows.
    TooLarge,
    /// The owner may not serve now, and nothing was written.
    Unavailable,
    /// The rate of the connection's usage plan is exceeded.
    Throttled,
    /// The quota of the connection's usage plan is used up.
    QuotaExceeded,
}

/// Outcomes of many calls, by their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerOutcomes<'a>(&'a [u8]);

impl<'a> PeerOutcomes<'a> {
    /// Decodes the answers in `bytes`.
    pub(super) fn decode(bytes: &'a [u8]) -> Decoded<Self> {
        let is_known = |answer: &[u8]| answer.last().is_some_and(|outcome| PeerOutcome::from_u8(*outcome).is_some());
        let (answers, rest) = bytes.as_chunks::<ANSWER_BYTES>();
        if rest.is_empty() && answers.iter().all(|answer| is_known(answer)) {
            Ok(PeerOutcomes(bytes))
        } else {
            Err(MalformedField)
        }
    }

    /// Returns the id and the outcome of each call.
    pub fn iter(&self) -> impl Iterator<Item = (u64, PeerOutcome)> + use<'a> {
        self.0.as_chunks::<ANSWER_BYTES>().0.iter().filter_map(|answer| {
            let mut answer = answer.as_slice();
            Some((answer.try_get_u64().ok()?, PeerOutcome::from_u8(answer.try_get_u8().ok()?)?))
        })
    }

    /// Returns the encoded answers.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Appends `answers`.
    pub(super) fn put(answers: &[(u64, PeerOutcome)], out: &mut BytesMut) {
        for (id, outcome) in answers {
            out.put_u64(*id);
            out.put_u8(outcome.to_u8());
        }
    }
}

impl PeerOutcome {
    fn to_u8(self) -> u8 {
        match self {
            PeerOutcome::Done => 0,
            PeerOutcome::Gone => 1,
            PeerOutcome::Full => 2,
            PeerOutcome::TooLarge => 3,
            PeerOutcome::Unavailable => 4,
            PeerOutcome::Throttled => 5,
            PeerOutcome::QuotaExceeded => 6,
        }
    }

    pub(super) fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => PeerOutcome::Done,
            1 => PeerOutcome::Gone,
            2 => PeerOutcome::Full,
            3 => PeerOutcome::TooLarge,
            4 => PeerOutcome::Unavailable,
            5 => PeerOutcome::Throttled,
            6 => PeerOutcome::QuotaExceeded,
            _ => return None,
        })
    }
}
