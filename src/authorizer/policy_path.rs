use std::borrow::Cow;

/// The name of a resource below its stage, as policies know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyPath {
    /// With names in one segment each: `%`, `/`, `*`, `?` and control characters are percent-encoded.
    pub escaped: Cow<'static, str>,
    /// With the name as it is, where that is another text.
    pub plain: Option<String>,
}

impl PolicyPath {
    /// Builds the path with `name` between `before` and `behind`.
    pub fn named(before: &str, name: &str, behind: &str) -> Self {
        let path = |name: &str| format!("{before}{name}{behind}");
        if !name.contains(is_escaped) {
            return PolicyPath { escaped: path(name).into(), plain: None };
        }
        let mut escaped = String::with_capacity(name.len() + 2 * name.len().min(16));
        for character in name.chars() {
            match is_escaped(character) {
                true => escaped.push_str(&format!("%{:02X}", u32::from(character))),
                false => escaped.push(character),
            }
        }
        PolicyPath { escaped: path(&escaped).into(), plain: Some(path(name)) }
    }
}

/// Returns `true` for characters that would end a segment, look like a wildcard, or begin an escape. Letters of every
/// script stay as they are.
fn is_escaped(character: char) -> bool {
    matches!(character, '%' | '/' | '*' | '?') || character.is_ascii_control()
}
