//! The exchange of one call: a connection, the request and the whole answer, with one deadline.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};

use super::backend::{Address, Backend};
use super::connect::{Body, ConnectError};
use super::lease::{Processed, Unanswered};
use super::{Answer, Call, CallError};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Longest time that a connection is kept idle when the backend announces a `Keep-Alive` timeout.
const IDLE_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Sends the request of a call and reads the answer.
pub(super) async fn exchange(backend: &Arc<Backend>, mut call: impl FnMut() -> Call) -> Result<Answer, CallError> {
    let first = call();
    let deadline = Instant::now() + first.timeout;
    let mut sent = false;
    match timeout_at(deadline, answer_by(deadline, backend, first, call, &mut sent)).await {
        Ok(result) => result,
        Err(_elapsed) => Err(CallError::TimedOut { sent }),
    }
}

async fn answer_by(
    deadline: Instant,
    backend: &Arc<Backend>,
    first: Call,
    mut again: impl FnMut() -> Call,
    sent: &mut bool,
) -> Result<Answer, CallError> {
    let answer_max_bytes = first.answer_max_bytes;
    let mut request = to_request(first);
    let mut is_second = false;
    let (mut lease, response) = loop {
        let mut lease = backend.acquire(deadline).await?;
        address_request(&mut request, backend.address(), lease.is_http2());
        *sent = true;
        let Unanswered { error, was_processed } = match lease.send(request).await {
            Ok(response) => break (lease, response),
            Err(unanswered) => unanswered,
        };
        if was_processed == Processed::Maybe {
            return Err(CallError::Lost(error));
        }
        *sent = false;
        lease.retire();
        if is_second {
            return Err(CallError::Unreachable(Arc::new(ConnectError::Closed(error))));
        }
        is_second = true;
        request = to_request(again());
    };

    lease.note_answer(response.version() == Version::HTTP_11 && !closes(response.headers()));
    let (head, body) = response.into_parts();
    let body = read(body, answer_max_bytes, head.status).await?;
    lease.finish(keep_alive(&head.headers), deadline);
    Ok(Answer { status: head.status, headers: head.headers, body })
}

fn to_request(call: Call) -> Request<Body> {
    let Call { method, path_and_query, mut headers, body, timeout: _, answer_max_bytes: _ } = call;
    if body.is_empty() && [Method::POST, Method::PUT, Method::PATCH].contains(&method) {
        // hyper sends no length for an empty body, and some servers require one with these methods (RFC 9110, section
        // 8.6).
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.headers_mut() = headers;
    *request.uri_mut() = Uri::from(path_and_query);
    request
}

/// Writes the address of a request in the form of its protocol: HTTP/1.1 has the path alone and a `Host`, HTTP/2 the
/// whole URI.
fn address_request(request: &mut Request<Body>, address: &Address, http2: bool) {
    if http2 {
        let host = request.headers_mut().remove(HOST);
        let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(if address.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = authority.or(parts.authority).or_else(|| Some(address.authority.clone()));
        parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(parts).expect("it has a scheme, an authority and a path");
        *request.version_mut() = Version::HTTP_2;
    } else {
        request.headers_mut().entry(HOST).or_insert_with(|| address.host_header.clone());
    }
}

/// Reads a body of at most `max` bytes. A body that comes in one piece is not copied.
async fn read(mut body: Incoming, max: usize, status: StatusCode) -> Result<Bytes, CallError> {
    let announced = body.size_hint().lower();
    if announced > max as u64 {
        return Err(CallError::TooLarge { status, max });
    }
    let Some(first) = next_data(&mut body).await? else { return Ok(Bytes::new()) };
    if first.len() > max {
        return Err(CallError::TooLarge { status, max });
    }
    let Some(mut data) = next_data(&mut body).await? else { return Ok(first) };
    // `announced` is at most `max`, so it fits a usize.
    let mut whole = BytesMut::with_capacity((announced as usize).max(first.len() + data.len()).min(max));
    whole.extend_from_slice(&first);
    loop {
        if whole.len() + data.len() > max {
            return Err(CallError::TooLarge { status, max });
        }
        whole.extend_from_slice(&data);
        match next_data(&mut body).await? {
            Some(next) => data = next,
            None => return Ok(whole.freeze()),
        }
    }
}

/// Returns the next piece of the body. Trailers are skipped.
async fn next_data(body: &mut Incoming) -> Result<Option<Bytes>, CallError> {
    while let Some(frame) = body.frame().await {
        match frame.map_err(CallError::Lost)?.into_data() {
            Ok(data) => return Ok(Some(data)),
            Err(_trailers) => {}
        }
    }
    Ok(None)
}

/// Returns true if the backend closes the connection after its answer: one of the names in its `Connection` headers is
/// `close`.
fn closes(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(CONNECTION).iter().map(HeaderValue::as_bytes);
    lists.flat_map(|list| list.split(|byte| *byte == b',')).any(|name| name.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// Returns the timeout of the `Keep-Alive` header, if there is one: a second less than the backend announced, since the
/// backend counts from when it sent the answer.
fn keep_alive(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(KEEP_ALIVE).and_then(|value| value.to_str().ok()).and_then(|value| {
        value.split(',').find_map(|parameter| {
            let (name, seconds) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("timeout").then(|| seconds.trim().parse::<u64>().ok())?
        })
    });
    seconds.map(|seconds| Duration::from_secs(seconds.saturating_sub(1)).min(IDLE_TIMEOUT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_says_that_it_closes_in_a_list_too() {
        let check = |values: &[&'static str], expected: bool| {
            let lists = values.iter().map(|value| (CONNECTION, HeaderValue::from_static(value)));
            assert_eq!(closes(&lists.collect()), expected, "{values:?}");
        };
        check(&[], false);
        check(&["keep-alive"], false);
        check(&["Close"], true);
        check(&["x-hop, close"], true);
        check(&["x-hop", "CLOSE ,"], true);
        check(&["closed"], false);
    }

    #[test]
    fn a_connection_is_kept_a_second_less_than_the_backend_says() {
        fn check(value: Option<&'static str>, seconds: impl Into<Option<u64>>) {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(KEEP_ALIVE, value.parse().expect("a header value"));
            }
            assert_eq!(keep_alive(&headers), seconds.into().map(Duration::from_secs), "{value:?}");
        }
        check(None, None);
        check(Some("timeout=5"), 4);
        check(Some("timeout=5, max=100"), 4);
        check(Some("max=100, Timeout = 3"), 2);
        check(Some("timeout=1"), 0);
        check(Some("timeout=0"), 0);
        check(Some("timeout=3600"), 60);
        check(Some("timeout=soon"), None);
        check(Some("max=1"), None);
    }
}
