/// Settings whose values are secret, by their keys from the top; `*` stands for any key and any item of a list.
const SECRETS: [&[&str]; 9] = [
    &["registry", "url"],
    &["registry", "url", "*"],
    &["registry", "password"],
    &["cluster", "secret"],
    &["tracing", "otlpHeaders", "*"],
    &["credentials", "*", "secretAccessKey"],
    &["credentials", "*", "sessionToken"],
    &["apiKeys", "*", "value"],
    &["apis", "*", "integrations", "*", "signing", "secrets", "*"],
];

/// Returns true if the value at `pointer` is a secret, or contains one.
pub(super) fn is_secret(pointer: &str) -> bool {
    let keys = || pointer.split('/').skip(1);
    let matches = |path: &&[&str]| {
        keys().count() == path.len() && keys().zip(*path).all(|(key, wanted)| *wanted == "*" || key == *wanted)
    };
    SECRETS.iter().any(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_place() {
        let check = |pointer: &str, expected: bool| assert_eq!(is_secret(pointer), expected, "{pointer}");
        check("/registry/password", true);
        check("/registry/url", true);
        check("/registry/url/1", true);
        check("/apiKeys/a~1b/value", true);
        check("/apis/chat/integrations/backend/signing/secrets/0", true);
        check("/apis/chat/integrations/backend/signing/secrets", false);
        check("/apiKeys/value", false);
        check("/registry", false);
        check("", false);
    }
}
