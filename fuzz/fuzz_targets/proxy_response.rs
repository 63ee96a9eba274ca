//! Any bytes as the answer of a backend: no panic, and what is read is a status, headers and a body that HTTP can carry.
//!
//! Input: the answer.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidegate_integration::proxy_answer;

fuzz_target!(|input: &[u8]| {
    if let Ok(answer) = proxy_answer::parse(&Bytes::copy_from_slice(input)) {
        assert!((100..600).contains(&answer.status.as_u16()));
        assert!(answer.body.is_none_or(|body| body.len() <= input.len()), "a body out of nothing");
    }
});
