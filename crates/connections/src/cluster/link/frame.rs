//! The frames of a link, and their bytes. Pure: bytes in, values out.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut, TryGetError};
use thiserror::Error;
use tokio_util::codec::LengthDelimitedCodec;

use super::codec::{self, MalformedField};
use super::peer_outcome::{PeerOutcome, PeerOutcomes};
use crate::session::REASON_MAX_BYTES;
use tidegate_core::data_type::DataType;
use tidegate_core::id::ConnectionId;
use tidegate_core::stage_names::StageNames;
use tidegate_core::trace_context::TraceContext;

/// Largest frame, in bytes: the largest message that a configuration may allow, and room for its head. A frame that
/// announces more ends the link before anything of it is read or memory is reserved for it.
pub const FRAME_MAX_BYTES: usize = 64 * 1024 * 1024 + 1024;

/// Largest data that are copied, in bytes. On their way out they are copied into one buffer with their neighbours. On
/// their way in they are copied out of the read buffer, all of which a frame of a slow client would otherwise keep
/// alive.
pub(super) const COPY_MAX_BYTES: usize = 16 * 1024;

const LENGTH_BYTES: usize = 4;

const POST_TEXT: u8 = 1;
const POST_BINARY: u8 = 2;
const GET: u8 = 3;
const DELETE: u8 = 4;
const ANSWERS: u8 = 5;
const INFO: u8 = 6;
const PING: u8 = 7;
const PONG: u8 = 8;
const GOODBYE: u8 = 9;
const RENEW: u8 = 10;
const ASK: u8 = 32;

/// Flags of a target: a place in a trace follows; names of stages follow after it.
const TRACED: u8 = 1;
const STAGED: u8 = 2;

/// A frame of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkFrame<'a> {
    /// Writes `data` to a connection.
    Post { id: u64, to: Target<'a>, data_type: DataType, data: Bytes },
    /// Describes a connection.
    Get { id: u64, to: Target<'a> },
    /// Closes a connection.
    Delete { id: u64, to: Target<'a>, code: u16, reason: &'a str },
    /// Renews the sender's lease in Redis, which the sender does not reach. Answered like a GET. Since protocol 2.
    Renew { id: u64, epoch: u64, lease_millis: u32 },
    /// Says or does something about many connections: `head` says what, and `data` go to them.
    Ask { id: u64, head: &'a [u8], data: Bytes },
    /// The outcomes of calls.
    Answers(PeerOutcomes<'a>),
    /// The description that a GET requested, in the format that backends get, or the answer to a request or a renewal.
    Info { id: u64, info: Bytes },
    /// Asks whether the peer is there.
    Ping,
    /// Answers a ping.
    Pong,
    /// Says that the sender leaves for good and has answered every call. Nothing follows.
    Goodbye,
}

/// The connection that a call is about, and the API in whose name it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    pub connection: ConnectionId,
    pub api_id: &'a str,
    /// The place of the call in a trace. Only places in sampled traces are sent.
    pub trace: Option<TraceContext>,
    /// The stages to which the connection must belong, or `None` for every stage. Since protocol 3.
    pub stages: Option<StageNames<&'a [u8]>>,
}

/// An error: the bytes are no frame of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a frame of the link protocol")]
pub struct MalformedFrame;

/// Cuts a stream of bytes into frames of at most `max` bytes.
pub(super) fn delimiter(max: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().length_field_length(LENGTH_BYTES).max_frame_length(max).new_codec()
}

/// Appends one frame to `out`: its length, then the bytes that `write` appends, then the bytes that `write` returns,
/// which the caller has to send behind `out`.
pub(super) fn delimit(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut) -> Bytes) -> Bytes {
    let start = out.len();
    out.put_bytes(0, LENGTH_BYTES);
    let rest = write(out);
    let length = out.len() - start - LENGTH_BYTES + rest.len();
    // FRAME_MAX_BYTES fits into 32 bits; nothing larger is ever queued.
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    rest
}

impl<'a> LinkFrame<'a> {
    /// Reads a frame, which comes without its length.
    ///
    /// # Errors
    /// The kind is unknown, a field is cut short or has an impossible value, or something follows the last field.
    pub fn decode(frame: &'a Bytes) -> Result<Self, MalformedFrame> {
        let mut rest: &'a [u8] = frame;
        let kind = rest.try_get_u8()?;
        let read = match kind {
            POST_TEXT | POST_BINARY => {
                let (id, to) = (rest.try_get_u64()?, Target::decode(&mut rest)?);
                let data_type = if kind == POST_BINARY { DataType::Binary } else { DataType::Text };
                return Ok(LinkFrame::Post { id, to, data_type, data: data_of(frame, rest) });
            }
            ASK => {
                let (id, length) = (rest.try_get_u64()?, rest.try_get_u32()?);
                let length = usize::try_from(length).map_err(|_| MalformedFrame)?;
                let head = codec::split(&mut rest, length)?;
                return Ok(LinkFrame::Ask { id, head, data: data_of(frame, rest) });
            }
            GET => LinkFrame::Get { id: rest.try_get_u64()?, to: Target::decode(&mut rest)? },
            DELETE => {
                let (id, to, code) = (rest.try_get_u64()?, Target::decode(&mut rest)?, rest.try_get_u16()?);
                let reason = codec::short_text(&mut rest)?;
                if reason.len() > REASON_MAX_BYTES {
                    return Err(MalformedFrame);
                }
                LinkFrame::Delete { id, to, code, reason }
            }
            ANSWERS => return Ok(LinkFrame::Answers(PeerOutcomes::decode(rest)?)),
            INFO => {
                let id = rest.try_get_u64()?;
                return Ok(LinkFrame::Info { id, info: Bytes::copy_from_slice(rest) });
            }
            PING => LinkFrame::Ping,
            PONG => LinkFrame::Pong,
            GOODBYE => LinkFrame::Goodbye,
            RENEW => LinkFrame::Renew {
                id: rest.try_get_u64()?,
                epoch: rest.try_get_u64()?,
                lease_millis: rest.try_get_u32()?,
            },
            _ => return Err(MalformedFrame),
        };
        Ok(codec::end(rest, read)?)
    }

    /// Appends the frame and its length to `out`. Returns the data that are too large to be copied: the caller has to
    /// send them behind `out`.
    pub fn encode(&self, out: &mut BytesMut) -> Bytes {
        delimit(out, |out| {
            let mut behind = Bytes::new();
            match self {
                LinkFrame::Post { id, to, data_type, data } => {
                    out.put_u8(match data_type {
                        DataType::Text => POST_TEXT,
                        DataType::Binary => POST_BINARY,
                    });
                    out.put_u64(*id);
                    to.encode(out);
                    behind = put_data(out, data);
                }
                LinkFrame::Ask { id, head, data } => {
                    out.put_u8(ASK);
                    out.put_u64(*id);
                    // No head is that large: what is queued fits into a frame.
                    out.put_u32(u32::try_from(head.len()).unwrap_or(u32::MAX));
                    out.put_slice(head);
                    behind = put_data(out, data);
                }
                LinkFrame::Get { id, to } => {
                    out.put_u8(GET);
                    out.put_u64(*id);
                    to.encode(out);
                }
                LinkFrame::Delete { id, to, code, reason } => {
                    out.put_u8(DELETE);
                    out.put_u64(*id);
                    to.encode(out);
                    out.put_u16(*code);
                    codec::put_short_text(out, reason);
                }
                LinkFrame::Renew { id, epoch, lease_millis } => {
                    out.put_u8(RENEW);
                    out.put_u64(*id);
                    out.put_u64(*epoch);
                    out.put_u32(*lease_millis);
                }
                LinkFrame::Answers(answers) => {
                    out.put_u8(ANSWERS);
                    out.put_slice(answers.bytes());
                }
                LinkFrame::Info { id, info } => {
                    out.put_u8(INFO);
                    out.put_u64(*id);
                    out.put_slice(info);
                }
                LinkFrame::Ping => out.put_u8(PING),
                LinkFrame::Pong => out.put_u8(PONG),
                LinkFrame::Goodbye => out.put_u8(GOODBYE),
            }
            behind
        })
    }
}

impl<'a> Target<'a> {
    fn decode(rest: &mut &'a [u8]) -> Result<Self, MalformedFrame> {
        let (connection, api_id, flags) = (codec::id(rest)?, codec::short_text(rest)?, rest.try_get_u8()?);
        if flags & !(TRACED | STAGED) != 0 {
            return Err(MalformedFrame);
        }
        let trace = if flags & TRACED == 0 { None } else { Some(codec::trace(rest)?) };
        let stages = if flags & STAGED == 0 { None } else { Some(codec::stages(rest, |names| names)?) };
        Ok(Target { connection, api_id, trace, stages })
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_slice(&self.connection.to_bytes());
        codec::put_short_text(out, self.api_id);
        let trace = self.trace.filter(|trace| trace.sampled);
        let (is_traced, is_staged) = (u8::from(trace.is_some()), u8::from(self.stages.is_some()));
        out.put_u8((is_traced * TRACED) | (is_staged * STAGED));
        codec::put_trace(out, trace);
        if let Some(stages) = &self.stages {
            codec::put_stages(out, stages);
        }
    }
}

/// Appends a frame with `answers` and its length to `out`.
pub fn encode_answers(answers: &[(u64, PeerOutcome)], out: &mut BytesMut) {
    delimit(out, |out| {
        out.put_u8(ANSWERS);
        PeerOutcomes::put(answers, out);
        Bytes::new()
    });
}

impl From<MalformedField> for MalformedFrame {
    fn from(_: MalformedField) -> Self {
        MalformedFrame
    }
}

impl From<TryGetError> for MalformedFrame {
    fn from(_: TryGetError) -> Self {
        MalformedFrame
    }
}

/// Returns `rest`, the data at the end of `frame`, in memory of their own if they are small.
fn data_of(frame: &Bytes, rest: &[u8]) -> Bytes {
    if rest.len() <= COPY_MAX_BYTES { Bytes::copy_from_slice(rest) } else { frame.slice(frame.len() - rest.len()..) }
}

/// Appends `data` to `out`, or returns them if they are too large to be copied.
fn put_data(out: &mut BytesMut, data: &Bytes) -> Bytes {
    if data.len() > COPY_MAX_BYTES {
        return data.clone();
    }
    out.put_slice(data);
    Bytes::new()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_util::codec::Decoder as _;

    use super::*;
    use tidegate_core::id::{CONNECTION_ID_BYTES, NodeId};

    fn encoded(frame: &LinkFrame<'_>) -> BytesMut {
        let mut out = BytesMut::new();
        let behind = frame.encode(&mut out);
        out.extend_from_slice(&behind);
        out
    }

    fn cut(mut stream: BytesMut) -> Vec<Bytes> {
        let mut delimiter = delimiter(FRAME_MAX_BYTES);
        std::iter::from_fn(|| delimiter.decode(&mut stream).unwrap().map(BytesMut::freeze)).collect()
    }

    fn all(data: &Bytes) -> Vec<LinkFrame<'static>> {
        let connection = ConnectionId::random(NodeId::random());
        let to = Target { connection, api_id: "chat", trace: None, stages: None };
        let traced = Target { trace: Some(TraceContext { trace_id: 7 << 64, span_id: 8, sampled: true }), ..to };
        let staged = Target { stages: StageNames::parse(b"\x03dev\x04prod".as_slice()), ..to };
        let nowhere = Target { stages: StageNames::parse(b"".as_slice()), ..traced };
        vec![
            LinkFrame::Post { id: 7, to: staged, data_type: DataType::Binary, data: data.clone() },
            LinkFrame::Get { id: 8, to: Target { stages: staged.stages, ..traced } },
            LinkFrame::Delete { id: 9, to: nowhere, code: 1000, reason: "bye" },
            LinkFrame::Post { id: 1, to, data_type: DataType::Text, data: data.clone() },
            LinkFrame::Post { id: 5, to: traced, data_type: DataType::Text, data: data.clone() },
            LinkFrame::Delete { id: 6, to: traced, code: 1000, reason: "" },
            LinkFrame::Post { id: u64::MAX, to, data_type: DataType::Binary, data: data.clone() },
            LinkFrame::Get { id: 2, to },
            LinkFrame::Ask { id: 5, head: b"who is there?", data: data.clone() },
            LinkFrame::Ask { id: 6, head: b"", data: data.clone() },
            LinkFrame::Delete { id: 3, to, code: 4001, reason: "kicked" },
            LinkFrame::Renew { id: 5, epoch: u64::MAX, lease_millis: 5000 },
            LinkFrame::Info { id: 4, info: data.clone() },
            LinkFrame::Ping,
            LinkFrame::Pong,
            LinkFrame::Goodbye,
        ]
    }

    #[test]
    fn what_is_said_is_heard() {
        for size in [0, 1, COPY_MAX_BYTES, COPY_MAX_BYTES + 1, 100_000] {
            let frames = all(&Bytes::from(vec![7; size]));
            let mut stream = BytesMut::new();
            frames.iter().for_each(|frame| stream.extend_from_slice(&encoded(frame)));
            let cut = cut(stream);
            let decoded: Vec<_> = cut.iter().map(|frame| LinkFrame::decode(frame).unwrap()).collect();
            assert_eq!(decoded, frames);
        }
    }

    #[test]
    fn without_stages_a_frame_is_what_earlier_versions_read() {
        let connection = ConnectionId::from_bytes([9; CONNECTION_ID_BYTES]);
        let to = Target { connection, api_id: "chat", trace: None, stages: None };
        let mut expected = vec![0, 0, 0, 31, POST_TEXT, 0, 0, 0, 0, 0, 0, 0, 5];
        expected.extend([9; CONNECTION_ID_BYTES]);
        expected.extend([4, b'c', b'h', b'a', b't', 0, b'h', b'i']);
        let post = LinkFrame::Post { id: 5, to, data_type: DataType::Text, data: Bytes::from_static(b"hi") };
        assert_eq!(encoded(&post), expected);
        let trace = Some(TraceContext { trace_id: 7, span_id: 8, sampled: true });
        let mut expected = vec![0, 0, 0, 53, GET, 0, 0, 0, 0, 0, 0, 0, 6];
        expected.extend([9; CONNECTION_ID_BYTES]);
        expected.extend([4, b'c', b'h', b'a', b't', 1]);
        expected.extend([[0; 15].as_slice(), &[7], &[0; 7], &[8]].concat());
        assert_eq!(encoded(&LinkFrame::Get { id: 6, to: Target { trace, ..to } }), expected);
    }

    #[test]
    fn every_kind_of_frame_has_the_bytes_that_earlier_versions_read() {
        let check = |frame: LinkFrame<'_>, kind: u8, fields: &[&[u8]]| {
            let fields = fields.concat();
            let length = u32::try_from(1 + fields.len()).unwrap().to_be_bytes();
            assert_eq!(encoded(&frame), [&length[..], &[kind], &fields].concat(), "{frame:?}");
        };
        let call = [0, 0, 0, 0, 0, 0, 0, 5];
        let connection = [9; CONNECTION_ID_BYTES];
        let stages = StageNames::parse(b"\x03dev\x04prod".as_slice());
        let to = Target { connection: ConnectionId::from_bytes(connection), api_id: "chat", trace: None, stages };
        let target: [&[u8]; 3] = [&connection, b"\x04chat\x02", b"\x00\x09\x03dev\x04prod"];
        let (target, data) = (target.concat(), Bytes::from_static(b"hi"));
        let post = |data_type| LinkFrame::Post { id: 5, to, data_type, data: data.clone() };
        check(post(DataType::Text), 1, &[&call, &target, b"hi"]);
        check(post(DataType::Binary), 2, &[&call, &target, b"hi"]);
        check(LinkFrame::Get { id: 5, to }, 3, &[&call, &target]);
        let delete = LinkFrame::Delete { id: 5, to, code: 4001, reason: "bye" };
        check(delete, 4, &[&call, &target, b"\x0f\xa1\x03bye"]);
        let outcomes = [&call[..], &[6]].concat();
        check(LinkFrame::Answers(PeerOutcomes::decode(&outcomes).unwrap()), 5, &[&outcomes]);
        check(LinkFrame::Info { id: 5, info: data.clone() }, 6, &[&call, b"hi"]);
        check(LinkFrame::Ping, 7, &[]);
        check(LinkFrame::Pong, 8, &[]);
        check(LinkFrame::Goodbye, 9, &[]);
        let renew = LinkFrame::Renew { id: 5, epoch: 258, lease_millis: 5000 };
        check(renew, 10, &[&call, &[0, 0, 0, 0, 0, 0, 1, 2], &[0, 0, 0x13, 0x88]]);
        let ask = LinkFrame::Ask { id: 5, head: b"who?", data: data.clone() };
        check(ask, 32, &[&call, b"\x00\x00\x00\x04who?hi"]);
    }

    #[test]
    fn answers_are_many_in_a_frame() {
        let answers: Vec<_> = (0..1000).map(|id| (id, PeerOutcome::from_u8((id % 7) as u8).unwrap())).collect();
        let mut out = BytesMut::new();
        encode_answers(&answers, &mut out);
        let frame = cut(out).remove(0);
        let Ok(LinkFrame::Answers(decoded)) = LinkFrame::decode(&frame) else { panic!() };
        assert_eq!(decoded.iter().collect::<Vec<_>>(), answers);
    }

    #[test]
    fn a_frame_that_is_cut_short_or_too_long_is_refused() {
        for frame in all(&Bytes::new()) {
            let whole = encoded(&frame).split_off(LENGTH_BYTES).freeze();
            for length in 0..whole.len() {
                assert_eq!(LinkFrame::decode(&whole.slice(..length)), Err(MalformedFrame), "{frame:?} cut to {length}");
            }
            if !matches!(frame, LinkFrame::Post { .. } | LinkFrame::Ask { .. } | LinkFrame::Info { .. }) {
                let mut longer = BytesMut::from(&whole[..]);
                longer.put_u8(0);
                assert_eq!(LinkFrame::decode(&longer.freeze()), Err(MalformedFrame), "{frame:?}");
            }
        }
    }

    #[test]
    fn a_frame_that_announces_too_much_is_refused_before_anything_is_reserved() {
        for announced in [u32::MAX, u32::try_from(FRAME_MAX_BYTES).unwrap() + 1] {
            let mut stream = BytesMut::from(&announced.to_be_bytes()[..]);
            assert!(delimiter(FRAME_MAX_BYTES).decode(&mut stream).is_err());
            assert!(stream.capacity() < 1024);
        }
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        let check = |bytes: &[u8]| assert_eq!(LinkFrame::decode(&Bytes::copy_from_slice(bytes)), Err(MalformedFrame));
        check(b"");
        check(&[0]);
        check(&[11]);
        check(&[ANSWERS, 0, 0, 0, 0, 0, 0, 0, 1, 7]);
        check(&[ANSWERS, 0, 0, 0, 0, 0, 0, 0, 1]);
        let mut api_not_utf8 = vec![GET; 23];
        api_not_utf8.extend([1, 0xff]);
        check(&api_not_utf8);
        let mut long_reason = vec![DELETE; 23];
        long_reason.extend([0, 0, 0, 0, 124]);
        long_reason.extend([b'a'; 124]);
        check(&long_reason);
        for flag in [4, 8, 0x80] {
            let mut unknown_flag = vec![GET; 23];
            unknown_flag.extend([0, flag]);
            check(&unknown_flag);
        }
        let mut stage_cut_short = vec![GET; 23];
        stage_cut_short.extend([0, STAGED, 0, 3, 3, b'd', b'e']);
        check(&stage_cut_short);
        let mut no_trace_id = vec![GET; 23];
        no_trace_id.extend([0, 1]);
        no_trace_id.extend([0; 24]);
        check(&no_trace_id);
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = LinkFrame::decode(&bytes.into());
        }

        #[test]
        fn what_is_read_is_written_the_same(kind in 1..11_u8, bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut frame = BytesMut::from(&[kind][..]);
            frame.extend_from_slice(&bytes);
            let frame = frame.freeze();
            if let Ok(read) = LinkFrame::decode(&frame) {
                prop_assert_eq!(&encoded(&read)[LENGTH_BYTES..], &frame[..]);
            }
        }
    }
}
