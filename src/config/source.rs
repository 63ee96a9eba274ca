use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::problem::{Problem, printable, push_key};
use tidegate_core::problem;

/// The values of a file, with what problems need to know about each: its line, its path and its origin. Places are JSON
/// pointers (RFC 6901).
#[derive(Debug, Default)]
pub(super) struct Source {
    pub value: Value,
    places: HashMap<String, Place>,
    /// Places that already have a problem. No other problem is reported for them or anything below them.
    rejected: HashSet<String>,
    /// Places of strings with filled-in placeholders. Problems do not print these strings.
    interpolated: HashSet<String>,
    /// Values from the environment and from files, each with the placeholder that is printed instead.
    filled_in: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
struct Place {
    line: usize,
    path: String,
}

/// Length below which a filled-in value is not hidden in messages about other places. Such a value is no secret, and
/// would be found in the middle of words.
const SECRET_MIN_CHARS: usize = 4;

impl Source {
    /// Records where the value at `pointer` is.
    pub(super) fn place(&mut self, pointer: &str, path: &str, line: usize) {
        self.places.insert(pointer.to_owned(), Place { line, path: path.to_owned() });
    }

    /// Returns a problem at `pointer`. If the file does not have this place, the line is that of the nearest place
    /// above it.
    pub(super) fn problem(&self, pointer: &str, message: impl Into<String>) -> Problem {
        let mut known = pointer;
        let place = loop {
            match self.places.get(known) {
                Some(place) => break Some(place),
                None if known.is_empty() => break None,
                None => known = parent(known),
            }
        };
        let Place { line, mut path } = place.cloned().unwrap_or(Place { line: 0, path: String::new() });
        for segment in pointer[known.len()..].split('/').skip(1) {
            push_key(&mut path, &unescape(segment));
        }
        Problem { line, path, message: printable(&message.into()) }
    }

    /// Returns a problem that another module found, with its place in the file. Its message may quote any value, so
    /// values from the environment are hidden.
    pub(super) fn locate(&self, problem: &problem::Problem) -> Problem {
        let pointer = problem.path.iter().fold(String::new(), |pointer, key| child(&pointer, key));
        self.problem(&pointer, self.hide(&problem.message))
    }

    fn hide(&self, message: &str) -> String {
        let mut hidden = message.to_owned();
        for (value, placeholder) in &self.filled_in {
            if value.chars().count() >= SECRET_MIN_CHARS {
                hidden = hidden.replace(value, placeholder);
            }
        }
        hidden
    }

    /// Suppresses further problems at `pointer` and below it.
    pub(super) fn reject(&mut self, pointer: &str) {
        self.rejected.insert(pointer.to_owned());
    }

    pub(super) fn is_rejected(&self, pointer: &str) -> bool {
        let mut pointer = pointer;
        loop {
            if self.rejected.contains(pointer) {
                return true;
            }
            if pointer.is_empty() {
                return false;
            }
            pointer = parent(pointer);
        }
    }

    /// Notes that the string at `pointer` was filled in.
    pub(super) fn mark_interpolated(&mut self, pointer: &str) {
        self.interpolated.insert(pointer.to_owned());
    }

    /// Returns true if the value at `pointer` must not be printed, because it was filled in.
    pub(super) fn is_interpolated(&self, pointer: &str) -> bool {
        self.interpolated.contains(pointer)
    }

    pub(super) fn has_interpolations(&self) -> bool {
        !self.interpolated.is_empty()
    }

    /// Notes values that were filled in, each with its placeholder.
    pub(super) fn note_filled_in(&mut self, values: impl IntoIterator<Item = (String, String)>) {
        self.filled_in.extend(values);
        // Longest first, so that a value that is part of another does not break up the longer one.
        self.filled_in.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
    }
}

/// Returns the pointer to `key` below `pointer`.
pub(super) fn child(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// Returns the pointer one level up. The root is its own parent.
pub(super) fn parent(pointer: &str) -> &str {
    pointer.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn unescape(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_the_file_does_not_have_gets_the_line_of_the_nearest_above_it() {
        let mut source = Source::default();
        source.place("", "", 1);
        source.place("/apis", "apis", 4);
        source.place("/apis/a~1b", "apis[\"a/b\"]", 7);
        let check = |pointer: &str, line: usize, path: &str| {
            let problem = source.problem(pointer, "");
            assert_eq!((problem.line, problem.path.as_str()), (line, path));
        };
        check("/apis/a~1b", 7, r#"apis["a/b"]"#);
        check("/apis/a~1b/stages/x~0y", 7, r#"apis["a/b"].stages["x~y"]"#);
        check("/apis/other", 4, "apis.other");
        check("/region", 1, "region");
        check("", 1, "");
    }

    #[test]
    fn values_of_the_environment_are_hidden_in_messages_of_other_rooms() {
        let mut source = Source::default();
        source.note_filled_in([
            ("hunter2".to_owned(), "${env:SECRET}".to_owned()),
            ("1".to_owned(), "${env:N}".to_owned()),
        ]);
        let problem = problem::Problem::at(["region"], "`http://hunter2@host:1` is wrong");
        assert_eq!(source.locate(&problem).message, "`http://${env:SECRET}@host:1` is wrong");
    }

    #[test]
    fn what_is_below_a_rejected_place_is_rejected() {
        let mut source = Source::default();
        source.reject("/apis/chat");
        let check = |pointer: &str, expected: bool| assert_eq!(source.is_rejected(pointer), expected, "{pointer}");
        check("/apis/chat", true);
        check("/apis/chat/stages", true);
        check("/apis/chatter", false);
        check("/apis", false);
        check("", false);
    }
}
