//! Trace ids of calls to backends.

use std::fmt;

use http::{HeaderMap, HeaderName};

use crate::clock::Timestamp;

const TRACEPARENT: &str = "traceparent";

pub(super) const X_AMZN_TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");

/// The ids of one call: the client's own trace where it named one, otherwise a new one. W3C's trace id and the root of
/// `X-Amzn-Trace-Id` are the same 16 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace {
    trace_id: u128,
    span_id: u64,
    sampled: bool,
}

impl Trace {
    /// A new trace that begins at `now`.
    pub(super) fn new(now: Timestamp) -> Self {
        let seconds = (now.millis() / 1000) & 0xffff_ffff;
        let trace_id = (u128::from(seconds) << 96) | (rand::random::<u128>() >> 32);
        Trace { trace_id, span_id: rand::random(), sampled: false }
    }

    /// Goes on with the trace that a client's `traceparent` names, if it names one.
    pub(super) fn continuing(headers: &HeaderMap, now: Timestamp) -> Self {
        let parent = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()).and_then(parse);
        parent.unwrap_or_else(|| Trace::new(now))
    }

    /// Value of `traceparent` (W3C Trace Context, section 3.2).
    pub(super) fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

impl fmt::Display for Trace {
    /// Value of `X-Amzn-Trace-Id`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root=1-{:08x}-{:024x}", self.trace_id >> 96, self.trace_id & ((1 << 96) - 1))
    }
}

fn parse(traceparent: &str) -> Option<Trace> {
    let is_lower_hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let parts: Vec<&str> = traceparent.split('-').collect();
    let [version, trace_id, parent_id, flags, ..] = parts.as_slice() else { return None };
    let lengths = (version.len(), trace_id.len(), parent_id.len(), flags.len()) == (2, 32, 16, 2);
    if !lengths || *version == "ff" || ![version, trace_id, parent_id, flags].into_iter().all(|part| is_lower_hex(part))
    {
        return None;
    }
    let trace_id = u128::from_str_radix(trace_id, 16).ok().filter(|id| *id != 0)?;
    let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
    Some(Trace { trace_id, span_id: rand::random(), sampled })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_trace_goes_on_and_a_broken_one_does_not() {
        let check = |value: &'static str, continued: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, value.parse().unwrap());
            let trace = Trace::continuing(&headers, Timestamp(0)).traceparent();
            assert_eq!(trace.contains("0af7651916cd43dd8448eb211c80319c"), continued, "{value}");
        };
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true);
        check("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", true);
        check("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false);
        check("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false);
        check("00-0af7651916cd43dd8448eb211c80319c", false);
        check("rubbish", false);
    }

    #[test]
    fn both_headers_name_the_same_trace() {
        let trace = Trace::new(Timestamp(1_757_454_867_412));
        let root = trace.to_string().replace("Root=1-", "").replace('-', "");
        assert_eq!(root.len(), 32);
        assert!(trace.traceparent().contains(&root));
    }
}
