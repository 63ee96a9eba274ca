use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use url::form_urlencoded;

use super::Destination;

/// Separators of a query string. Some backends read `;` as `&`.
const SEPARATORS: [char; 2] = ['&', ';'];

/// The names that the gateway writes into the calls of an `HTTP_PROXY` integration. A client's headers and query
/// parameters of these names are left out of them.
///
/// Names are compared as backends read them: [`header_key`], [`parameter_key`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenNames {
    headers: Vec<String>,
    parameters: Vec<String>,
}

impl TakenNames {
    /// Collects the names of `destinations`, and those in the query string of the integration's own URL.
    pub fn new<'a>(own_query: Option<&str>, destinations: impl IntoIterator<Item = &'a Destination>) -> Self {
        let own = own_query.into_iter().flat_map(parameters).map(|(key, _)| key);
        let mut taken = TakenNames { headers: Vec::new(), parameters: own.filter(|key| !key.is_empty()).collect() };
        for destination in destinations {
            match destination {
                Destination::Header(name) => taken.headers.push(header_key(name.as_str()).into_owned()),
                Destination::QueryString(name) => taken.parameters.push(parameter_key(name)),
            }
        }
        taken
    }

    /// Returns true if a header has one of these names.
    pub fn has_header(&self, name: &HeaderName) -> bool {
        !self.headers.is_empty() && {
            let key = header_key(name.as_str());
            self.headers.iter().any(|taken| *taken == key)
        }
    }

    /// Removes the parameters that have one of these names from a client's query string.
    pub fn remove_parameters<'a>(&self, query: &'a str) -> Cow<'a, str> {
        let is_taken = |key: &String| self.parameters.contains(key);
        if !parameters(query).any(|(key, _)| is_taken(&key)) {
            return Cow::Borrowed(query);
        }
        let kept: String = parameters(query).filter(|(key, _)| !is_taken(key)).map(|(_, text)| text).collect();
        Cow::Owned(kept.trim_end_matches(SEPARATORS).to_owned())
    }
}

/// Folds the names of a header that some backend reads as one: WSGI, CGI, PHP and Rack turn both `X-User` and `x_user`
/// into `HTTP_X_USER`, and some do so with every character that is neither a letter nor a digit.
///
/// A name of small letters, digits and `-` alone is its own key.
pub fn header_key(name: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.bytes().all(is_plain) {
        return Cow::Borrowed(name);
    }
    let fold = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    Cow::Owned(name.chars().map(fold).collect())
}

/// Folds the decoded names of a query parameter that some backend reads as one: PHP writes `.` and blanks as `_`, drops
/// blanks before a name and ends it at a NUL; PHP, Rack and Node's `qs` end it at `[`; ASP.NET ignores case.
pub fn parameter_key(name: &str) -> String {
    let name = name.trim_start_matches(' ');
    let end = name.find(['[', '\0']).filter(|end| *end > 0).unwrap_or(name.len());
    let fold = |c: char| if matches!(c, '.' | ' ') { '_' } else { c.to_ascii_lowercase() };
    name[..end].chars().map(fold).collect()
}

/// Counts the headers that some backend reads under this name.
pub fn count_headers(headers: &HeaderMap, name: &HeaderName) -> usize {
    let key = header_key(name.as_str());
    headers
        .keys()
        .filter(|name| header_key(name.as_str()) == key)
        .map(|name| headers.get_all(name).iter().count())
        .sum()
}

/// Counts the parameters of a query string that some backend reads under this name.
pub fn count_parameters(query: &str, name: &str) -> usize {
    let key = parameter_key(name);
    parameters(query).filter(|(other, _)| *other == key).count()
}

/// Splits a query string into its parameters: the key of each, and its text with the separator after it.
fn parameters(query: &str) -> impl Iterator<Item = (String, &str)> {
    query.split_inclusive(SEPARATORS).map(|text| {
        let name = text.trim_end_matches(SEPARATORS);
        let name = name.split_once('=').map_or(name, |(name, _)| name);
        let decoded = form_urlencoded::parse(name.as_bytes()).next().map(|(name, _)| parameter_key(&name));
        (decoded.unwrap_or_default(), text)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(own_query: &str, mapped: &[&str]) -> TakenNames {
        let destinations: Vec<Destination> =
            mapped.iter().map(|name| Destination::parse(&format!("integration.request.{name}")).unwrap()).collect();
        TakenNames::new(Some(own_query), &destinations)
    }

    #[test]
    fn parameters_of_taken_names_are_removed_however_they_are_spelled() {
        let taken = taken("fixed=1&other", &["querystring.user", "querystring.x_y", "header.x-user"]);
        let check = |query: &str, expected: &str| assert_eq!(taken.remove_parameters(query), expected, "{query}");
        check("", "");
        check("a=1&b=%20&&c", "a=1&b=%20&&c");
        check("user=admin", "");
        check("a=1&user=admin&b=2", "a=1&b=2");
        check("a=1&user", "a=1");
        check("%75ser=x&a", "a");
        check("USER=x&User=y&a=user", "a=user");
        check("user[]=x&user%5Brole%5D=y&userid=1", "userid=1");
        check("+user=x&%20user=y&user%00z=1", "");
        check("x.y=1&x+y=2&x%20y=3&x-y=4", "x-y=4");
        check("a=1;user=admin;b=2", "a=1;b=2");
        check("a=1;user=admin&b=2", "a=1;b=2");
        check("fixed=2&FIXED[x]=3&other=&x-user=1", "x-user=1");
        check("%ff=1&user=2", "%ff=1");
    }

    #[test]
    fn headers_are_compared_as_backends_read_them() {
        let taken = taken("", &["header.x-user", "header.Tenant_Id"]);
        let check = |name: &'static str, expected: bool| {
            assert_eq!(taken.has_header(&HeaderName::from_static(name)), expected, "{name}");
        };
        check("x-user", true);
        check("x_user", true);
        check("x.user", true);
        check("tenant-id", true);
        check("tenant_id", true);
        check("xuser", false);
        check("x-user-id", false);
    }

    #[test]
    fn all_spellings_of_a_name_are_counted() {
        let mut headers = HeaderMap::new();
        for name in ["x-token", "x_token", "x-token", "x-tokens"] {
            headers.append(HeaderName::from_static(name), http::HeaderValue::from_static("1"));
        }
        assert_eq!(count_headers(&headers, &HeaderName::from_static("x-token")), 3);
        assert_eq!(count_headers(&headers, &HeaderName::from_static("token")), 0);
        assert_eq!(count_parameters("token=1&Token=2;%74oken[]=3&tokens=4", "token"), 3);
        assert_eq!(count_parameters("", "token"), 0);
    }

    proptest! {
        #[test]
        fn nothing_of_a_taken_name_is_left_and_all_else_is(query in "[a-cA-C%&;=+._\\[0-9]{0,40}") {
            let taken = taken("a=1", &["querystring.b_c"]);
            let left = taken.remove_parameters(&query);
            prop_assert_eq!(count_parameters(&left, "a") + count_parameters(&left, "b_c"), 0);
            for text in query.split(SEPARATORS) {
                let is_taken = count_parameters(text, "a") + count_parameters(text, "b_c") > 0;
                prop_assert!(is_taken || left.split(SEPARATORS).any(|other| other == text) || text.is_empty());
            }
        }
    }
}
