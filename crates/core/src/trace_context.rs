//! Positions in a distributed trace, and their form in headers.

use std::fmt;

use http::{HeaderMap, HeaderName};

use crate::clock::Timestamp;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Header of AWS X-Ray.
pub const X_AMZN_TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");

/// The position in a trace at which a call continues it. It is sent to a backend with a call, and to another node with
/// a forwarded post or push.
///
/// The trace id of W3C and the root of `X-Amzn-Trace-Id` are the same 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: u128,
    pub span_id: u64,
    pub sampled: bool,
}

/// Length of a trace id and a span id together, in bytes.
pub const TRACE_PLACE_BYTES: usize = 24;

impl TraceContext {
    /// Returns the trace id and the span id, in the form in which a sampled trace is sent to peers.
    pub fn to_bytes(self) -> [u8; TRACE_PLACE_BYTES] {
        let mut bytes = [0; TRACE_PLACE_BYTES];
        let (trace_id, span_id) = bytes.split_at_mut(size_of::<u128>());
        trace_id.copy_from_slice(&self.trace_id.to_be_bytes());
        span_id.copy_from_slice(&self.span_id.to_be_bytes());
        bytes
    }

    /// Parses a position in a sampled trace. Returns `None` if an id is zero, which in every format means that there is
    /// no id.
    pub fn from_bytes(bytes: [u8; TRACE_PLACE_BYTES]) -> Option<Self> {
        let (trace_id, span_id) = bytes.split_first_chunk()?;
        let (trace_id, span_id) = (u128::from_be_bytes(*trace_id), u64::from_be_bytes(*span_id.first_chunk()?));
        (trace_id != 0 && span_id != 0).then_some(TraceContext { trace_id, span_id, sampled: true })
    }

    /// Begins a new trace. X-Ray requires the time at the beginning of a trace id.
    pub fn new(now: Timestamp, sampled: bool) -> Self {
        let seconds = (now.millis() / 1000) & 0xffff_ffff;
        let trace_id = (u128::from(seconds) << 96) | (rand::random::<u128>() >> 32);
        TraceContext { trace_id, span_id: random_span_id(), sampled }
    }

    /// Reads the sender's position from `headers`: from `traceparent`, or else from `X-Amzn-Trace-Id`.
    pub fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let traceparent = text(&TRACEPARENT).and_then(Self::parse_traceparent);
        traceparent.or_else(|| text(&X_AMZN_TRACE_ID).and_then(Self::parse_amzn))
    }

    /// Parses a `traceparent` (W3C Trace Context, section 3.2).
    pub fn parse_traceparent(text: &str) -> Option<Self> {
        let is_lower_hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let mut parts = text.split('-');
        let [version, trace_id, parent_id, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
        let lengths = (version.len(), trace_id.len(), parent_id.len(), flags.len()) == (2, 32, 16, 2);
        let ends = version != "00" || parts.next().is_none();
        if !lengths || !ends || version == "ff" || ![version, trace_id, parent_id, flags].into_iter().all(is_lower_hex)
        {
            return None;
        }
        Some(TraceContext {
            trace_id: u128::from_str_radix(trace_id, 16).ok().filter(|id| *id != 0)?,
            span_id: u64::from_str_radix(parent_id, 16).ok().filter(|id| *id != 0)?,
            sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        })
    }

    /// Parses `Root=1-{8 hex}-{24 hex};Parent={16 hex};Sampled=1`. A root without a parent gets a random span id.
    ///
    /// Source: AWS, "X-Ray concepts: tracing header".
    pub fn parse_amzn(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let fields = text.split(';').filter_map(|field| field.trim().split_once('='));
            fields.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let is_hex = |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
        let (time, random) = field("Root")?.strip_prefix("1-")?.split_once('-')?;
        if !is_hex(time, 8) || !is_hex(random, 24) {
            return None;
        }
        let trace_id = u128::from_str_radix(&format!("{time}{random}"), 16).ok().filter(|id| *id != 0)?;
        let parent = field("Parent").filter(|parent| is_hex(parent, 16));
        let parent = parent.and_then(|parent| u64::from_str_radix(parent, 16).ok()).filter(|id| *id != 0);
        let span_id = parent.unwrap_or_else(random_span_id);
        Some(TraceContext { trace_id, span_id, sampled: field("Sampled") == Some("1") })
    }

    /// Returns a new span in this trace.
    pub fn child(self) -> Self {
        TraceContext { span_id: random_span_id(), ..self }
    }

    /// Returns the value of `traceparent`.
    pub fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }

    /// Returns the value of `X-Amzn-Trace-Id`.
    pub fn amzn(&self) -> String {
        format!("{};Parent={:016x};Sampled={}", self.root(), self.span_id, u8::from(self.sampled))
    }

    /// Returns the trace without a span, as `X-Amzn-Trace-Id` names it.
    pub fn root(&self) -> impl fmt::Display {
        let trace_id = self.trace_id;
        fmt::from_fn(move |f| write!(f, "Root=1-{:08x}-{:024x}", trace_id >> 96, trace_id & ((1 << 96) - 1)))
    }

    /// Returns the trace without a span, as W3C names it.
    pub fn trace_id_hex(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

/// Draws a span id. It is never zero, because zero means that there is no id.
fn random_span_id() -> u64 {
    rand::random::<u64>().max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;

    #[test]
    fn a_senders_trace_goes_on_and_a_broken_one_does_not() {
        let check = |value: &str, expected: Option<(u64, bool)>| {
            let expected = expected.map(|(span_id, sampled)| TraceContext { trace_id: TRACE, span_id, sampled });
            assert_eq!(TraceContext::parse_traceparent(value), expected, "{value}");
        };
        let span = 0xb7ad_6b71_6920_3331;
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Some((span, true)));
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", Some((span, false)));
        check("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", Some((span, true)));
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", None);
        check("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None);
        check("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", None);
        check("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", None);
        check("00-00000000000000000000000000000000-b7ad6b7169203331-01", None);
        check("00-0af7651916cd43dd8448eb211c80319c", None);
        check("rubbish", None);
    }

    #[test]
    fn xrays_header_is_read_in_any_order() {
        let check = |value: &str, expected: Option<(Option<u64>, bool)>| {
            let read = TraceContext::parse_amzn(value);
            assert_eq!(read.map(|read| (read.trace_id, read.sampled)), expected.map(|(_, sampled)| (TRACE, sampled)));
            if let Some((Some(span_id), _)) = expected {
                assert_eq!(read.map(|read| read.span_id), Some(span_id), "{value}");
            }
        };
        check("Root=1-0af76519-16cd43dd8448eb211c80319c", Some((None, false)));
        check(
            "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1",
            Some((Some(0xb7ad_6b71_6920_3331), true)),
        );
        check("Sampled=0; Root=1-0af76519-16cd43dd8448eb211c80319c", Some((None, false)));
        check("Self=1-00000000-000000000000000000000000", None);
        check("Root=2-0af76519-16cd43dd8448eb211c80319c", None);
        check("Root=1-0af76519-16cd", None);
    }

    #[test]
    fn traceparent_wins_over_xrays_header() {
        let mut headers = HeaderMap::new();
        headers.insert(X_AMZN_TRACE_ID, "Root=1-00000001-000000000000000000000001".parse().unwrap());
        assert_eq!(TraceContext::of_headers(&headers).map(|context| context.trace_id), Some((1 << 96) + 1));
        let value = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        headers.insert(TRACEPARENT, value.parse().unwrap());
        assert_eq!(TraceContext::of_headers(&headers).map(|context| context.traceparent()), Some(value.to_owned()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_the_same(trace_id in 1u128.., span_id in 1u64.., sampled: bool) {
            let context = TraceContext { trace_id, span_id, sampled };
            prop_assert_eq!(TraceContext::parse_traceparent(&context.traceparent()), Some(context));
            prop_assert_eq!(TraceContext::parse_amzn(&context.amzn()), Some(context));
        }

        #[test]
        fn reading_never_panics(text in "\\PC*") {
            let _ = TraceContext::parse_traceparent(&text);
            let _ = TraceContext::parse_amzn(&text);
        }
    }
}
