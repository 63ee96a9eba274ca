//! Any bytes on a connection: how requests are framed does not depend on the pieces that they come in, and a first head
//! that counts has what a head needs to be read in one way.

#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use tidegate_server::framing::Framing;

const HEADERS_MAX: usize = 128;

fuzz_target!(|input: &[u8]| {
    let Some((piece, bytes)) = input.split_first() else { return };
    let mut whole = Framing::default();
    whole.read(bytes);
    let mut pieces = Framing::default();
    let mut before = 0;
    for piece in bytes.chunks(usize::from(*piece).max(1)) {
        pieces.read(piece);
        assert!(pieces.whole_heads() >= before, "heads that counted do not count any more");
        before = pieces.whole_heads();
    }
    assert_eq!((whole.whole_heads(), whole.is_in_head()), (pieces.whole_heads(), pieces.is_in_head()));

    // The library's own parser, with the first head as it sees it.
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let Ok(httparse::Status::Complete(length)) = request.parse(bytes) else { return };
    let mut head = Framing::default();
    head.read(&bytes[..length]);
    assert!(!head.is_in_head(), "a head that is over for the library is over");
    if head.whole_heads() == 0 {
        return;
    }
    let mut fields = HeaderMap::new();
    for header in request.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(header.name), HeaderValue::from_bytes(header.value)) {
            fields.append(name, value);
        }
    }
    let lengths: Vec<_> = fields.get_all("content-length").iter().collect();
    let codings: Vec<_> = fields.get_all("transfer-encoding").iter().collect();
    assert!(lengths.len() + codings.len() <= 1, "{lengths:?} {codings:?}");
    assert!(lengths.iter().all(|length| length.as_bytes().iter().all(u8::is_ascii_digit)), "{lengths:?}");
    assert!(codings.iter().all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")), "{codings:?}");
});
