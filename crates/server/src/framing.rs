//! The boundaries of the requests of an HTTP/1 connection.
//!
//! The HTTP library hides ambiguity: from a request with a `Content-Length` and a `Transfer-Encoding` it drops the
//! length, of two equal lengths it drops one, and it accepts `gzip, chunked` as chunks. A proxy in front of the gateway
//! may have read such a request otherwise, and then one request hides in another (request smuggling). So [`Framing`]
//! reads the same bytes as the library, follows them from request to request, and counts the unambiguous heads. A
//! request whose head is not among them is refused, and its connection is closed.
//!
//! [`Framing`] is at least as strict as the library: where the two could disagree about the end of a request, it stops
//! counting.
//!
//! Source: RFC 9112, sections 2.2, 6 and 7.1.

const CONTENT_LENGTH: &[u8] = b"content-length:";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";
const CHUNKED: &[u8] = b"chunked";

/// A parser that follows the bytes of a connection, in pieces of any size.
#[derive(Debug, Default)]
pub struct Framing {
    state: State,
    head: Head,
    /// Number of complete, unambiguous heads.
    whole: usize,
}

/// The part of the current head that says where the body ends.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    lengths: usize,
    length: u64,
    codings: usize,
    is_ambiguous: bool,
}

/// The position of the next byte.
#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Before a request, where empty lines are allowed.
    #[default]
    Between,
    /// In a line of a head that does not matter here.
    Line,
    /// At the beginning of a line of a head.
    LineStart,
    /// After the CR of an empty line.
    LastLine,
    /// In a header name that equals the beginning of `name` so far.
    Name {
        name: &'static [u8],
        matched: usize,
    },
    /// In the value of a `Content-Length`. With `is_over` only spaces may follow.
    Length {
        digits: usize,
        is_over: bool,
    },
    /// In the value of a `Transfer-Encoding`.
    Coding {
        matched: usize,
        is_over: bool,
    },
    /// In a body, with this number of bytes left.
    Body(u64),
    ChunkSize {
        size: u64,
        digits: usize,
    },
    ChunkExtension {
        size: u64,
    },
    ChunkSizeEnd {
        size: u64,
    },
    Chunk(u64),
    ChunkCr,
    ChunkLf,
    /// At the beginning of a line of the trailers.
    TrailerStart,
    Trailer,
    TrailerLf,
    LastTrailer,
    /// The beginning of the next request is unknown.
    Lost,
}

impl Framing {
    /// Reads the next bytes of the connection.
    pub fn read(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let [byte, behind @ ..] = rest {
            rest = match self.state {
                State::Lost => return,
                State::Body(left) => self.skip(rest, left, State::Between, State::Body),
                State::Chunk(left) => self.skip(rest, left, State::ChunkCr, State::Chunk),
                State::Line => self.skip_line(rest),
                state => {
                    self.state = self.next(state, *byte);
                    behind
                }
            };
        }
    }

    /// Returns the number of complete, unambiguous heads. It stops growing at the first ambiguous head.
    pub fn whole_heads(&self) -> usize {
        self.whole
    }

    /// Returns true if a head has begun and is not complete.
    pub fn is_in_head(&self) -> bool {
        match self.state {
            State::Line
            | State::LineStart
            | State::LastLine
            | State::Name { .. }
            | State::Length { .. }
            | State::Coding { .. } => true,
            State::Between
            | State::Body(_)
            | State::ChunkSize { .. }
            | State::ChunkExtension { .. }
            | State::ChunkSizeEnd { .. }
            | State::Chunk(_)
            | State::ChunkCr
            | State::ChunkLf
            | State::TrailerStart
            | State::Trailer
            | State::TrailerLf
            | State::LastTrailer
            | State::Lost => false,
        }
    }

    /// Skips `left` bytes, or as many as `bytes` has.
    fn skip<'b>(&mut self, bytes: &'b [u8], left: u64, end: State, rest: impl Fn(u64) -> State) -> &'b [u8] {
        let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - skipped as u64;
        self.state = if left == 0 { end } else { rest(left) };
        &bytes[skipped..]
    }

    fn skip_line<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                self.state = State::LineStart;
                &bytes[end + 1..]
            }
            None => &[],
        }
    }

    fn next(&mut self, state: State, byte: u8) -> State {
        match (state, byte) {
            (State::Between, b'\r' | b'\n') => State::Between,
            (State::Between, _) => {
                self.head = Head::default();
                State::Line
            }
            (State::LineStart, b'\n') | (State::LastLine, b'\n') => self.end_head(),
            (State::LineStart, b'\r') => State::LastLine,
            (State::LineStart, b'c' | b'C') => State::Name { name: CONTENT_LENGTH, matched: 1 },
            (State::LineStart, b't' | b'T') => State::Name { name: TRANSFER_ENCODING, matched: 1 },
            (State::LineStart, _) => State::Line,
            (State::Name { name, matched }, byte) if name[matched] == byte.to_ascii_lowercase() => {
                self.name(name, matched + 1)
            }
            (State::Name { .. }, b'\n') => State::LineStart,
            (State::Name { .. }, _) => State::Line,
            (State::Length { digits, is_over }, byte) => self.length(digits, is_over, byte),
            (State::Coding { matched, is_over }, byte) => self.coding(matched, is_over, byte),
            (State::ChunkSize { size, digits }, byte) => chunk_size(size, digits, byte),
            (State::ChunkExtension { size }, b'\r') => State::ChunkSizeEnd { size },
            (State::ChunkExtension { .. }, b'\n') => State::Lost,
            (State::ChunkExtension { size }, _) => State::ChunkExtension { size },
            (State::ChunkSizeEnd { size: 0 }, b'\n') => State::TrailerStart,
            (State::ChunkSizeEnd { size }, b'\n') => State::Chunk(size),
            (State::ChunkCr, b'\r') => State::ChunkLf,
            (State::ChunkLf, b'\n') => State::ChunkSize { size: 0, digits: 0 },
            (State::TrailerStart, b'\r') => State::LastTrailer,
            // The library accepts a lone LF at the end of a trailer, but finds the end of all trailers by a CRLF.
            (State::TrailerStart | State::Trailer, b'\n') => State::Lost,
            (State::TrailerStart, _) => State::Trailer,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::Trailer, _) => State::Trailer,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::LastTrailer, b'\n') => State::Between,
            (
                State::LastLine
                | State::ChunkSizeEnd { .. }
                | State::ChunkCr
                | State::ChunkLf
                | State::TrailerLf
                | State::LastTrailer
                | State::Line
                | State::Body(_)
                | State::Chunk(_)
                | State::Lost,
                _,
            ) => State::Lost,
        }
    }

    /// Returns the state after `matched` bytes of `name`.
    fn name(&mut self, name: &'static [u8], matched: usize) -> State {
        if matched < name.len() {
            return State::Name { name, matched };
        }
        if name == CONTENT_LENGTH {
            self.head.lengths += 1;
            self.head.length = 0;
            State::Length { digits: 0, is_over: false }
        } else {
            self.head.codings += 1;
            State::Coding { matched: 0, is_over: false }
        }
    }

    fn length(&mut self, digits: usize, is_over: bool, byte: u8) -> State {
        match byte {
            b'\n' => {
                self.head.is_ambiguous |= digits == 0;
                return State::LineStart;
            }
            b' ' | b'\t' | b'\r' => return State::Length { digits, is_over: digits > 0 },
            b'0'..=b'9' if !is_over => {
                let longer = self.head.length.checked_mul(10).and_then(|it| it.checked_add(u64::from(byte - b'0')));
                if let Some(length) = longer {
                    self.head.length = length;
                    return State::Length { digits: digits.saturating_add(1), is_over };
                }
            }
            _ => {}
        }
        self.head.is_ambiguous = true;
        State::Line
    }

    fn coding(&mut self, matched: usize, is_over: bool, byte: u8) -> State {
        match byte {
            b'\n' => {
                self.head.is_ambiguous |= matched < CHUNKED.len();
                State::LineStart
            }
            b' ' | b'\t' | b'\r' => State::Coding { matched, is_over: matched > 0 },
            byte if !is_over && CHUNKED.get(matched) == Some(&byte.to_ascii_lowercase()) => {
                State::Coding { matched: matched + 1, is_over }
            }
            _ => {
                self.head.is_ambiguous = true;
                State::Line
            }
        }
    }

    fn end_head(&mut self) -> State {
        let Head { lengths, length, codings, is_ambiguous } = self.head;
        if is_ambiguous || lengths + codings > 1 {
            return State::Lost;
        }
        self.whole += 1;
        match (codings, length) {
            (0, 0) => State::Between,
            (0, length) => State::Body(length),
            _ => State::ChunkSize { size: 0, digits: 0 },
        }
    }
}

fn chunk_size(size: u64, digits: usize, byte: u8) -> State {
    let digit = match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        b'\r' if digits > 0 => return State::ChunkSizeEnd { size },
        b';' | b' ' | b'\t' if digits > 0 => return State::ChunkExtension { size },
        _ => return State::Lost,
    };
    let longer = size.checked_mul(16).and_then(|size| size.checked_add(u64::from(digit)));
    longer.map_or(State::Lost, |size| State::ChunkSize { size, digits: digits.saturating_add(1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a text in pieces of several sizes. `heads` is the expected number of unambiguous heads.
    fn check(text: &str, heads: usize) {
        for piece in [1, 2, 3, 7, 1000] {
            let mut framing = Framing::default();
            text.as_bytes().chunks(piece).for_each(|bytes| framing.read(bytes));
            assert_eq!(framing.whole_heads(), heads, "{text:?} in pieces of {piece}");
        }
    }

    const NEXT: &str = "GET / HTTP/1.1\r\n\r\n";

    #[test]
    fn requests_are_followed_to_their_end() {
        for request in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\n\n",
            "\r\n\nPOST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nCONTENT-LENGTH:\t005 \r\n\r\nGET /",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nX: content-length: 5\r\nX-Content-Length: 7\r\nContent-Length-X: 7\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\na\r\n0A;x=\"y\"\r\n0123456789\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked \r\n\r\n0\r\nContent-Length: 9\r\nX: y\r\n\r\n",
        ] {
            check(&format!("{request}{NEXT}{request}{NEXT}"), 4);
        }
    }

    #[test]
    fn nothing_counts_behind_what_can_be_read_in_two_ways() {
        for head in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5, 5",
            "Content-Length: +5",
            "Content-Length: 5 5",
            "Content-Length:",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: chunkedx",
            "Transfer-Encoding: chunk ed",
            "Transfer-Encoding:",
        ] {
            check(&format!("{NEXT}POST / HTTP/1.1\r\n{head}\r\n\r\n0\r\n\r\n{NEXT}"), 1);
        }
        for chunks in [
            "zz\r\n",
            "\r\n0\r\n\r\n",
            "1\na\r\n0\r\n\r\n",
            "1\r\nab\r\n0\r\n\r\n",
            "1;a\nb\r\na\r\n0\r\n\r\n",
            "fffffffffffffffff\r\n",
            "0\r\nX: y\n\r\n\r\n",
            "0\r\n\n\r\n",
        ] {
            check(&format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{NEXT}"), 1);
        }
    }

    #[test]
    fn a_head_is_told_from_what_is_between_and_behind() {
        let mut framing = Framing::default();
        for (bytes, expected) in [
            ("\r\n", false),
            ("P", true),
            ("OST / HTTP/1.1\r\nContent-Le", true),
            ("ngth: 2\r", true),
            ("\n\r", true),
            ("\n", false),
            ("h", false),
            ("i\r\n", false),
            ("G", true),
        ] {
            framing.read(bytes.as_bytes());
            assert_eq!(framing.is_in_head(), expected, "{bytes:?}");
        }
    }
}
