//! Any bytes on a link between nodes: no frame panics, and what is read is written as the same bytes.
//!
//! Input: frames, each behind four bytes of length.

#![no_main]

use bytes::{Buf, Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use tidegate_connections::cluster::link::{LinkFrame, encode_answers};

fuzz_target!(|input: &[u8]| {
    let mut stream = Bytes::copy_from_slice(input);
    while let Ok(length) = stream.try_get_u32() {
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(stream.len());
        let frame = stream.split_to(length);
        let Ok(read) = LinkFrame::decode(&frame) else { continue };
        let mut written = BytesMut::new();
        let behind = read.encode(&mut written);
        written.extend_from_slice(&behind);
        assert_eq!(written[4..], frame[..], "{read:?}");
        if let LinkFrame::Answers(answers) = read {
            let answers: Vec<_> = answers.iter().collect();
            let mut again = BytesMut::new();
            encode_answers(&answers, &mut again);
            assert_eq!(again, written);
        }
    }
});
