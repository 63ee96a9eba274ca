//! Any target with any Host headers among any others: behind the gateway's door there is one host, and it is the one that
//! both name, or the target's.
//!
//! Input: a request target, then lines with a header each.

#![no_main]

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use libfuzzer_sys::fuzz_target;
use tidegate_server::HostPattern;
use tidegate_server::target::take_host;

fuzz_target!(|input: &str| {
    let mut lines = input.split('\n');
    let Ok(mut uri) = lines.next().unwrap_or_default().parse::<Uri>() else { return };
    let mut headers = HeaderMap::new();
    for line in lines.take(100) {
        let (name, value) = line.split_once(':').unwrap_or(("host", line));
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    let (target, before) = (uri.clone(), headers.clone());
    let Ok(host) = take_host(&mut uri, &mut headers) else { return };
    assert_eq!(before.get_all(HOST).iter().count(), 1);
    assert_eq!(headers.get_all(HOST).iter().collect::<Vec<_>>(), [&*host]);
    assert!(!host.contains('@'));
    assert!(uri.scheme().is_none() && uri.authority().is_none());
    assert_eq!(uri.path_and_query(), target.path_and_query());
    let named = before.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    match target.authority() {
        None => assert_eq!(host, named),
        Some(authority) => {
            assert!(host == authority.as_str() || host == named);
            // Nobody gets past a list of hosts by a Host header that says another than the target.
            if let Ok(pattern) = HostPattern::try_from(authority.host().to_owned()) {
                assert!(pattern.matches(&host), "{authority} {named} {host}");
            }
        }
    }
    headers.remove(HOST);
    let others = before.iter().filter(|(name, _)| *name != HOST).count();
    assert_eq!(headers.len(), others, "no other header is touched");
});
