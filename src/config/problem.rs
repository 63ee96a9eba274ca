use std::fmt;
use std::path::Path;

/// A mistake in a configuration, or a warning, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1. 0 if the problem has no line.
    pub line: usize,
    /// Place in the file, such as `apis.chat.routes.$connect.target`. Empty for the file as a whole.
    pub path: String,
    /// Message: what is wrong, then what is allowed. It never contains a value from the environment.
    pub message: String,
}

impl Problem {
    /// Returns a problem of the file as a whole.
    pub(super) fn of_file(line: usize, message: impl Into<String>) -> Self {
        Problem { line, path: String::new(), message: printable(&message.into()) }
    }

    /// Returns the problem as one line, `FILE:LINE: PATH: MESSAGE`, without the parts that it does not have.
    pub fn in_file<'a>(&'a self, file: &'a Path) -> impl fmt::Display + 'a {
        fmt::from_fn(move |formatter| {
            write!(formatter, "{}:", file.display())?;
            if self.line > 0 {
                write!(formatter, "{}:", self.line)?;
            }
            if !self.path.is_empty() {
                write!(formatter, " {}:", self.path)?;
            }
            write!(formatter, " {}", self.message)
        })
    }
}

/// Escapes control characters, so that a message stays on one line.
pub(super) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => printable.extend(character.escape_default()),
            false => printable.push(character),
        }
    }
    printable
}

/// Appends a key to a path: `.key`, or `["key"]` if it contains anything but ASCII letters, digits, `_`, `-` and `$`.
pub(super) fn push_key(path: &mut String, key: &str) {
    let is_plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$'));
    if !is_plain {
        path.push_str(&format!("[{key:?}]"));
    } else if path.is_empty() {
        path.push_str(key);
    } else {
        path.push('.');
        path.push_str(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_joined_by_dots_and_odd_ones_are_quoted() {
        let check = |keys: &[&str], expected: &str| {
            let mut path = String::new();
            keys.iter().for_each(|key| push_key(&mut path, key));
            assert_eq!(path, expected);
        };
        check(&["apis", "chat", "routes", "$connect", "target"], "apis.chat.routes.$connect.target");
        check(&["routes", "send message", "target"], r#"routes["send message"].target"#);
        check(&["a.b"], r#"["a.b"]"#);
        check(&["routes", ""], r#"routes[""]"#);
        check(&["line\nbreak", "\"x"], r#"["line\nbreak"]["\"x"]"#);
    }

    #[test]
    fn a_problem_is_one_line_without_the_parts_that_it_does_not_have() {
        let check = |line: usize, path: &str, expected: &str| {
            let problem = Problem { line, path: path.to_owned(), message: "is wrong".to_owned() };
            assert_eq!(problem.in_file(Path::new("a.yaml")).to_string(), expected);
        };
        check(3, "apis.chat", "a.yaml:3: apis.chat: is wrong");
        check(3, "", "a.yaml:3: is wrong");
        check(0, "apis.chat", "a.yaml: apis.chat: is wrong");
        check(0, "", "a.yaml: is wrong");
    }
}
