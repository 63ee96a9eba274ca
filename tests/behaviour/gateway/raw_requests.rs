//! Requests as bytes: each is refused, or read in the one way in which it can be read. Whoever stands before the gateway
//! and reads otherwise would let one request hide in another.

use tidegate_testing::{RawClient, Settings, TestBackend, TestClient, TestGateway};
use tokio::io::AsyncWriteExt as _;

/// A post in chunks, from the headers on.
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";

/// The statuses of one connection's answers, and whether the connection stays open behind them.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    /// A post that is delivered; then the connection takes the next one.
    Read,
    /// Posts that are delivered, then a 400, and the end of the connection.
    RefusedBehind(usize),
}

const REFUSED: Expected = Expected::RefusedBehind(0);

struct Bench {
    gateway: TestGateway,
    client: TestClient,
    /// The line and the Host of a post to the client.
    post: String,
    marks: usize,
}

impl Bench {
    async fn start() -> (Self, TestBackend) {
        let backend = TestBackend::start().await;
        let gateway = Settings::aws_proxy(&backend).start().await;
        let (client, id) = gateway.client(&backend).await;
        let post = format!("POST /prod/@connections/{id} HTTP/1.1\r\nHost: localhost\r\n");
        (Bench { gateway, client, post, marks: 0 }, backend)
    }

    /// Sends `rest` behind the line and the Host of a post.
    async fn check_post(&mut self, what: &str, rest: &str, expected: Expected) {
        self.check(what, format!("{}{rest}", self.post).as_bytes(), expected).await;
    }

    /// Sends bytes to both listeners. Every post in them says `hi`.
    async fn check(&mut self, what: &str, bytes: &[u8], expected: Expected) {
        for address in [self.gateway.public(), self.gateway.internal()] {
            let mut caller = RawClient::connect(address).await;
            // The gateway may close before it has read everything.
            let _ = caller.stream.write_all(bytes).await;
            match expected {
                Expected::Read => {
                    assert_eq!(caller.response().await.status, 200, "{what}");
                    assert_eq!(self.client.next_text().await, "hi", "{what}");
                    self.mark(&mut caller, what).await;
                }
                Expected::RefusedBehind(delivered) => {
                    for _ in 0..delivered {
                        assert_eq!(caller.response().await.status, 200, "{what}");
                        assert_eq!(self.client.next_text().await, "hi", "{what}");
                    }
                    assert_eq!(caller.response().await.status, 400, "{what}");
                    let more = caller.end().await;
                    assert!(more.is_empty(), "{what}: {:?}", String::from_utf8_lossy(&more));
                    let mut other = RawClient::connect(address).await;
                    self.mark(&mut other, what).await;
                }
            }
        }
    }

    /// Posts something of its own: nothing else was delivered before it.
    async fn mark(&mut self, caller: &mut RawClient, what: &str) {
        self.marks += 1;
        let mark = format!("mark {}", self.marks);
        caller.send(format!("{}Content-Length: {}\r\n\r\n{mark}", self.post, mark.len()).as_bytes()).await;
        assert_eq!(caller.response().await.status, 200, "{what}: the next request");
        assert_eq!(self.client.next_text().await, mark, "{what}");
    }
}

#[tokio::test]
async fn a_request_whose_length_is_told_in_two_ways_is_refused_wherever_it_stands() {
    let (mut bench, _backend) = Bench::start().await;
    let both = "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let turned = "Transfer-Encoding: chunked\r\nCONTENT-LENGTH:2\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    bench.check_post("length, then chunks", both, REFUSED).await;
    bench.check_post("chunks, then length", turned, REFUSED).await;
    let post = bench.post.clone();
    for (what, before) in [("CRLF", "\r\n"), ("LF", "\n"), ("several", "\r\n\r\n\n")] {
        bench.check(what, format!("{before}{post}{both}").as_bytes(), REFUSED).await;
    }
    for (what, first) in [
        ("behind a length", "Content-Length: 2\r\n\r\nhi"),
        ("behind chunks", CHUNKED),
        ("behind chunks with trailers", "Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n0\r\nX: 1\r\n\r\n"),
        ("behind a length and an empty line", "Content-Length: 2\r\n\r\nhi\r\n"),
    ] {
        let pipelined = format!("{post}{first}{post}{both}");
        bench.check(what, pipelined.as_bytes(), Expected::RefusedBehind(1)).await;
        let pipelined = format!("{post}{first}{post}{first}{post}{turned}");
        bench.check(what, pipelined.as_bytes(), Expected::RefusedBehind(2)).await;
    }
    // In its own packet, behind an answer.
    let mut caller = RawClient::connect(bench.gateway.public()).await;
    caller.send(format!("{post}{CHUNKED}").as_bytes()).await;
    assert_eq!(caller.response().await.status, 200);
    caller.send(format!("\r\n{post}{both}").as_bytes()).await;
    assert_eq!((caller.response().await.status, caller.end().await), (400, Vec::new()));
    assert_eq!(bench.client.next_text().await, "hi");
}

#[tokio::test]
async fn lengths_are_read_in_one_way_or_not_at_all() {
    let (mut bench, _backend) = Bench::start().await;
    for value in ["2", "002", " 2", "\t2 \t", "00000000000000000000000000000000000000002"] {
        bench.check_post(value, &format!("Content-Length:{value}\r\n\r\nhi"), Expected::Read).await;
    }
    for value in ["", "+2", "-2", "0x2", "2 2", "2,2", "2, 2", "2;", "two", "2.0", "99999999999999999999999", "\u{b2}"]
    {
        bench.check_post(value, &format!("Content-Length: {value}\r\n\r\nhi"), REFUSED).await;
    }
    for (what, rest) in [
        ("two that differ", "Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi"),
        ("two that do not", "Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi"),
        ("a blank before the colon", "Content-Length : 2\r\n\r\nhi"),
        ("a tab before the colon", "Content-Length\t: 2\r\n\r\nhi"),
        ("a blank before the name", "X: a\r\n Content-Length: 2\r\n\r\nhi"),
        ("on the next line", "Content-Length:\r\n 2\r\n\r\nhi"),
    ] {
        bench.check_post(what, rest, REFUSED).await;
    }
}

#[tokio::test]
async fn chunked_is_the_one_transfer_coding_and_is_there_once() {
    let (mut bench, _backend) = Bench::start().await;
    let body = "2\r\nhi\r\n0\r\n\r\n";
    for value in ["chunked", "Chunked", "CHUNKED \t"] {
        bench.check_post(value, &format!("Transfer-Encoding: {value}\r\n\r\n{body}"), Expected::Read).await;
    }
    for value in [
        "",
        "gzip",
        "identity",
        "gzip, chunked",
        "identity, chunked",
        "chunked, chunked",
        "chunked, gzip",
        ", chunked",
        "chunked,",
        "xchunked",
        "chunkedx",
        "chunked;q=1",
        "\"chunked\"",
        "chunked chunked",
    ] {
        bench.check_post(value, &format!("Transfer-Encoding: {value}\r\n\r\n{body}"), REFUSED).await;
    }
    for (what, head) in [
        ("twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ("behind another", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"),
        ("before another", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
        ("a blank before the colon", "Transfer-Encoding : chunked"),
        ("on the next line", "Transfer-Encoding:\r\n chunked"),
        ("behind a bare CR", "X: a\rTransfer-Encoding: chunked"),
    ] {
        bench.check_post(what, &format!("{head}\r\n\r\n{body}"), REFUSED).await;
    }
    let old = bench.post.replace("HTTP/1.1", "HTTP/1.0");
    bench.check("HTTP/1.0", format!("{old}{CHUNKED}").as_bytes(), REFUSED).await;
}

#[tokio::test]
async fn chunks_are_read_in_one_way_and_malformed_ones_are_400() {
    let (mut bench, _backend) = Bench::start().await;
    for body in [
        "2\r\nhi\r\n0\r\n\r\n",
        "1\r\nh\r\n01\r\ni\r\n00\r\n\r\n",
        "2;name\r\nhi\r\n0;x=\"y\"\r\n\r\n",
        "2 ; a=b\r\nhi\r\n0\r\n\r\n",
        "2\r\nhi\r\n0\r\nX-Trailer: 1\r\nContent-Length: 9\r\n\r\n",
    ] {
        bench.check_post(body, &format!("Transfer-Encoding: chunked\r\n\r\n{body}"), Expected::Read).await;
    }
    for body in [
        "zz\r\nhi\r\n0\r\n\r\n",
        "\r\nhi\r\n0\r\n\r\n",
        " 2\r\nhi\r\n0\r\n\r\n",
        "+2\r\nhi\r\n0\r\n\r\n",
        "-2\r\nhi\r\n0\r\n\r\n",
        "0x2\r\nhi\r\n0\r\n\r\n",
        "2 2\r\nhi\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhi\r\n0\r\n\r\n",
        "2\nhi\r\n0\r\n\r\n",
        "2\rXhi\r\n0\r\n\r\n",
        "2;a\nb\r\nhi\r\n0\r\n\r\n",
        "2\r\nhi0\r\n\r\n",
        "2\r\nhi\n0\r\n\r\n",
        "1\r\nhi\r\n0\r\n\r\n",
        "2\r\nhi\r\n0\r\nno colon\r\n\r\n",
        "2\r\nhi\r\n0\r\nX: 1\rY\r\n\r\n",
    ] {
        bench.check_post(body, &format!("Transfer-Encoding: chunked\r\n\r\n{body}"), REFUSED).await;
    }
    let endless = format!("Transfer-Encoding: chunked\r\n\r\n2;{}\r\nhi\r\n0\r\n\r\n", "x".repeat(20_000));
    bench.check_post("an endless extension", &endless, REFUSED).await;
}

#[tokio::test]
async fn lines_are_lines_and_nothing_hides_in_them() {
    let (mut bench, _backend) = Bench::start().await;
    let (post, rest) = (bench.post.clone(), "Content-Length: 2\r\n\r\nhi");
    for (what, bytes) in [
        ("an empty line before", format!("\r\n{post}{rest}")),
        ("lines that end with LF alone", format!("{post}{rest}").replace("\r\n", "\n")),
        ("a length behind 100 lines", format!("{post}{}{rest}", "X: y\r\n".repeat(100))),
        ("a value that looks like a header", format!("{post}X: Transfer-Encoding: chunked\r\n{rest}")),
        ("a name that ends like a header", format!("{post}X-Transfer-Encoding: chunked\r\n{rest}")),
        ("a name that begins like a header", format!("{post}Content-Length-X: 9\r\n{rest}")),
    ] {
        bench.check(what, bytes.as_bytes(), Expected::Read).await;
    }
    for (what, header) in [
        ("a folded line", "X: a\r\n b"),
        ("a folded line with a tab", "X: a\r\n\tb"),
        ("a folded first line", " X: a"),
        ("a bare CR", "X: a\rb"),
        ("a NUL", "X: a\0b"),
        ("a NUL in a name", "X\0: a"),
        ("a control character", "X: a\x01b"),
        ("no colon", "X"),
        ("no name", ": a"),
        ("a blank in a name", "X y: a"),
        ("a blank before the colon", "X : a"),
    ] {
        bench.check(what, format!("{post}{header}\r\n{rest}").as_bytes(), REFUSED).await;
    }
    for (what, from, to) in [
        ("a blank before the line", "POST ", " POST "),
        ("two blanks", "POST ", "POST  "),
        ("a tab", "POST ", "POST\t"),
        ("a NUL in the path", "/prod", "/\0prod"),
        ("a bare CR in the line", "/prod", "/\rprod"),
        ("no version", " HTTP/1.1", ""),
        ("another version", "HTTP/1.1", "HTTP/1.2"),
        ("a version in lower case", "HTTP/1.1", "http/1.1"),
        ("a blank behind the version", "HTTP/1.1", "HTTP/1.1 "),
    ] {
        bench.check(what, format!("{}{rest}", post.replacen(from, to, 1)).as_bytes(), REFUSED).await;
    }
}

#[tokio::test]
async fn heads_and_bodies_that_come_byte_by_byte_are_the_same() {
    let (mut bench, _backend) = Bench::start().await;
    let first = format!("{}{CHUNKED}", bench.post);
    let both = format!("{}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", bench.post);
    let mut caller = RawClient::connect(bench.gateway.public()).await;
    caller.stream.set_nodelay(true).unwrap();
    for byte in format!("{first}{first}{both}").bytes() {
        // The gateway closes behind the head that it refuses.
        let _ = caller.stream.write_all(&[byte]).await;
        tokio::task::yield_now().await;
    }
    for status in [200, 200, 400] {
        assert_eq!(caller.response().await.status, status);
    }
    assert!(caller.end().await.is_empty());
    assert_eq!((bench.client.next_text().await, bench.client.next_text().await), ("hi".to_owned(), "hi".to_owned()));
}
