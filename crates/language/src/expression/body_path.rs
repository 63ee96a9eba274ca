use std::borrow::Cow;

use super::error::{ExpressionError, ExpressionProblem as Problem};
use super::path::{self, Extent, Scanner, Step};
use super::selection::Variables;
use super::{EXPRESSION_MAX_BYTES, text};

/// The path of one value in a message: the text after `route.request.body.` in a request parameter mapping, such as
/// `user.id`, `items[0].name` or `['a b']`. A path that begins in an array begins with its index: `[0].name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyPath {
    /// Variables with the one path as variable 0.
    variables: Variables,
}

impl BodyPath {
    /// Compiles a path of at most [`EXPRESSION_MAX_BYTES`] bytes and [`super::PATH_STEPS_MAX`] steps. Names without
    /// quotes consist of letters, digits, `_`, `-` and `$`.
    ///
    /// # Errors
    /// Returns the first mistake in the path.
    pub fn parse(path: &str) -> Result<Self, ExpressionError> {
        if path.is_empty() {
            return Err(Problem::ExpectedPath.at(0));
        }
        if path.len() > EXPRESSION_MAX_BYTES {
            return Err(Problem::TooLong.at(EXPRESSION_MAX_BYTES));
        }
        let mut scanner = Scanner::new(path);
        let mut steps = Vec::new();
        if scanner.peek() != Some('[') {
            steps.push(Step::Name(path::name(&mut scanner, Extent::Delimited)?));
        }
        steps.extend(path::steps(&mut scanner, Extent::Delimited)?);
        if scanner.peek().is_some() {
            return Err(Problem::ExpectedStep.at(scanner.offset()));
        }
        if steps.len() > super::PATH_STEPS_MAX {
            return Err(Problem::TooDeep.at(scanner.offset()));
        }
        let mut variables = Variables::default();
        variables.insert(&steps);
        Ok(BodyPath { variables })
    }

    /// Returns the value at the path as text, by the rules of [`super::SelectionExpression`]. Returns `None` if the
    /// message has no such value or is not JSON: then there is nothing to map.
    pub fn evaluate<'m>(&self, message: &'m str) -> Option<Cow<'m, str>> {
        let mut values = [None];
        self.variables.select(message, &mut values).ok()?;
        let [value] = values;
        text::of_value(value?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str =
        r#" {"user": {"id": 7, "name": "Ada \u263a"}, "tags": ["a", {"b": [1, 2]}], "$ref": null, "a b": ""} "#;

    #[track_caller]
    fn check(path: &str, message: &str, expected: Option<&str>) {
        let path = BodyPath::parse(path).expect("a valid path");
        assert_eq!(path.evaluate(message).as_deref(), expected);
    }

    #[test]
    fn a_path_finds_its_value_or_nothing() {
        check("user.id", MESSAGE, Some("7"));
        check("user.name", MESSAGE, Some("Ada ☺"));
        check("user", MESSAGE, Some(r#"{"id":7,"name":"Ada \u263a"}"#));
        check("tags", MESSAGE, Some(r#"[a, {"b":[1,2]}]"#));
        check("tags[1].b[1]", MESSAGE, Some("2"));
        check("['tags'][0]", MESSAGE, Some("a"));
        check("$ref", MESSAGE, Some("null"));
        check("['a b']", MESSAGE, Some(""));
        check("[1].a", r#"[0, {"a": true}]"#, Some("true"));
        check("user.phone", MESSAGE, None);
        check("tags[2]", MESSAGE, None);
        check("user.id", "not JSON", None);
        check("user.id", r#"{"user": {"id": 7}} x"#, None);
    }

    #[track_caller]
    fn check_error(path: &str, column: usize, problem: Problem) {
        assert_eq!(BodyPath::parse(path), Err(ExpressionError { column, problem }));
    }

    #[test]
    fn a_bad_path_is_refused_with_its_column() {
        check_error("", 1, Problem::ExpectedPath);
        check_error(".a", 1, Problem::Unsupported("recursive descents (`..`)"));
        check_error("a b", 2, Problem::ExpectedStep);
        check_error("a.", 3, Problem::ExpectedName);
        check_error("*", 1, Problem::Unsupported("wildcards"));
        check_error(&format!("a{}", ".a".repeat(32)), 66, Problem::TooDeep);
        check_error(&"a".repeat(EXPRESSION_MAX_BYTES + 1), EXPRESSION_MAX_BYTES + 1, Problem::TooLong);
    }
}
