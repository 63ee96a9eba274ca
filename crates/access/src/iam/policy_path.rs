use std::borrow::Cow;

/// The path of a resource below its stage, as policies name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyPath {
    /// Path in which each name is one segment: `%`, `/`, `*`, `?` and control characters are percent-encoded.
    pub escaped: Cow<'static, str>,
    /// Path with the name unescaped, if that differs from `escaped`.
    pub plain: Option<String>,
}

impl PolicyPath {
    /// Builds the path of `before`, `name` and `behind`.
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

/// Returns true for characters that would end a segment, look like a wildcard, or begin an escape. Letters of every
/// script stay as they are.
fn is_escaped(character: char) -> bool {
    matches!(character, '%' | '/' | '*' | '?') || character.is_ascii_control()
}
