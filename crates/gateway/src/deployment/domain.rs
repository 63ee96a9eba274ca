use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Deployment, Stage};
use tidegate_core::problem::Problem;

/// The compiled custom domains, which map base paths to APIs and stages.
#[derive(Debug, Default)]
pub(super) struct Domains(HashMap<String, Vec<Mapping>>);

#[derive(Debug)]
struct Mapping {
    /// Segments of the mapping key; none for the empty key.
    segments: Vec<String>,
    deployment: Arc<Deployment>,
    stage: Arc<Stage>,
}

/// An API, a stage, and the segments after the mapping key.
type Mapped<'d, 'a, 'p> = (&'d Arc<Deployment>, &'d Arc<Stage>, &'a [Cow<'p, str>]);

impl Domains {
    /// Compiles `domainNames`.
    pub(super) fn compile(
        domain_names: &BTreeMap<String, tidegate_resources::DomainName>,
        apis: &BTreeMap<String, tidegate_resources::Api>,
        compiled: &HashMap<Arc<str>, Arc<Deployment>>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut domains = HashMap::new();
        for (name, domain) in domain_names {
            if !is_domain(name) {
                problems.push(Problem::at(
                    ["domainNames", name],
                    "not a domain name; allowed: a host name in lower case without a port, such as `chat.example.com` \
                     or `*.example.com`",
                ));
            }
            let mut mappings: Vec<Mapping> = Vec::new();
            for (index, mapping) in domain.api_mappings.iter().enumerate() {
                let index = index.to_string();
                let at = |field| ["domainNames", name.as_str(), "apiMappings", index.as_str(), field];
                let key = &mapping.api_mapping_key;
                let Some(segments) = segments_of(key) else {
                    problems.push(Problem::at(
                        at("apiMappingKey"),
                        format!("`{key}` is not a base path; allowed: segments of letters, digits and `$-_.+!*'()` with `/` between"),
                    ));
                    continue;
                };
                if mappings.iter().any(|known| known.segments == segments) {
                    problems.push(Problem::at(at("apiMappingKey"), format!("the key `{key}` is used twice")));
                    continue;
                }
                let Some(api) = apis.get(&mapping.api_id) else {
                    problems.push(Problem::at(at("apiId"), format!("there is no API `{}`", mapping.api_id)));
                    continue;
                };
                if !api.stages.contains_key(&mapping.stage) {
                    let message = format!("API `{}` has no stage `{}`", mapping.api_id, mapping.stage);
                    problems.push(Problem::at(at("stage"), message));
                    continue;
                }
                // An API that could not be compiled has reported its mistakes.
                let Some(deployment) = compiled.get(mapping.api_id.as_str()) else { continue };
                let Some(stage) = deployment.stage(&mapping.stage) else { continue };
                mappings.push(Mapping { segments, deployment: Arc::clone(deployment), stage: Arc::clone(stage) });
            }
            // The longest matching key wins.
            mappings.sort_by_key(|mapping| std::cmp::Reverse(mapping.segments.len()));
            domains.insert(name.clone(), mappings);
        }
        Domains(domains)
    }

    /// Returns true if `host` is one of the domains.
    pub(super) fn has(&self, host: &str) -> bool {
        self.mappings(host).is_some()
    }

    /// Returns the API and the stage of a path on a domain, and the segments after the mapping key.
    pub(super) fn resolve<'a, 'p>(&self, host: &str, segments: &'a [Cow<'p, str>]) -> Option<Mapped<'_, 'a, 'p>> {
        self.mappings(host)?.iter().find_map(|mapping| {
            let rest = segments.get(mapping.segments.len()..)?;
            let fits = mapping.segments.iter().zip(segments).all(|(key, segment)| key == segment);
            // After an empty key there may be nothing or `@connections`: the stage's name is not part of the path.
            fits.then_some((&mapping.deployment, &mapping.stage, rest))
        })
    }

    /// Returns the base path of a stage on a domain, such as `/beta`; empty for the empty key.
    pub(super) fn base_path(&self, host: &str, api_id: &str, stage: &str) -> Option<String> {
        let mappings = self.mappings(host)?.iter();
        let mapping = mappings.rev().find(|it| *it.deployment.api_id == *api_id && *it.stage.name == *stage)?;
        Some(mapping.segments.iter().map(|segment| format!("/{segment}")).collect())
    }

    fn mappings(&self, host: &str) -> Option<&Vec<Mapping>> {
        if self.0.is_empty() {
            return None;
        }
        let name = bare_host(host).to_ascii_lowercase();
        self.0.get(&name).or_else(|| self.0.get(&format!("*.{}", name.split_once('.')?.1)))
    }
}

/// Returns a Host without its port and without the dot of the root.
pub(super) fn bare_host(host: &str) -> &str {
    let end = if host.starts_with('[') { host.find(']').map_or(host.len(), |end| end + 1) } else { host.len() };
    let name = host[..end].split_once(':').filter(|_| !host.starts_with('[')).map_or(&host[..end], |(name, _)| name);
    name.strip_suffix('.').unwrap_or(name)
}

fn segments_of(key: &str) -> Option<Vec<String>> {
    if key.is_empty() {
        return Some(Vec::new());
    }
    let is_right = |segment: &str| {
        !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"$-_.+!*'()".contains(&byte))
    };
    key.split('/').all(is_right).then(|| key.split('/').map(str::to_owned).collect())
}

fn is_domain(name: &str) -> bool {
    let plain = name.strip_prefix("*.").unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && plain.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_without_port_and_final_dot() {
        let check = |host: &str, expected: &str| assert_eq!(bare_host(host), expected);
        check("chat.example.com", "chat.example.com");
        check("chat.example.com:8443", "chat.example.com");
        check("chat.example.com.:443", "chat.example.com");
        check("[::1]:8443", "[::1]");
        check("[::1]", "[::1]");
        check("127.0.0.1:80", "127.0.0.1");
    }

    #[test]
    fn domains_and_keys_are_checked() {
        for name in ["chat.example.com", "*.example.com", "localhost", "a-b.c1"] {
            assert!(is_domain(name), "{name}");
        }
        for name in ["", "Chat.example.com", "a..b", "a.b:80", "*", "a.*.b", "-a.b", "ä.b"] {
            assert!(!is_domain(name), "{name}");
        }
        assert_eq!(segments_of(""), Some(Vec::new()));
        assert_eq!(segments_of("v1/chat"), Some(vec!["v1".to_owned(), "chat".to_owned()]));
        for key in ["/", "/a", "a/", "a//b", "a b", "a?b", "@connections"] {
            assert_eq!(segments_of(key), None, "{key}");
        }
    }
}
