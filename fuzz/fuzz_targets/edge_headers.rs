//! Any list of origins against any Origin, and any Host against any pattern: no panic, and nothing is allowed that is
//! neither listed nor below what is listed.
//!
//! Input: a pattern, a line feed, a header's value.

#![no_main]

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use tidegate_gateway::deployment::AllowedOrigins;
use tidegate_server::HostPattern;

fuzz_target!(|input: &str| {
    let Some((pattern, value)) = input.split_once('\n') else { return };
    if let (Ok(allowed), Ok(origin)) =
        (AllowedOrigins::parse(Some(&[pattern.to_owned()])), HeaderValue::from_str(value))
    {
        let mut headers = HeaderMap::new();
        headers.insert("origin", origin);
        if allowed.check(&headers).is_ok() {
            let host = pattern.to_ascii_lowercase().rsplit("//").next().unwrap_or_default().replace("*.", "");
            let bare = host.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(':');
            assert!(value.contains(bare), "{pattern} allowed {value}");
        }
    }
    if let Ok(pattern) = HostPattern::try_from(pattern.to_owned()) {
        let _ = pattern.matches(value);
    }
});
