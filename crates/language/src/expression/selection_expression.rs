use std::borrow::Cow;

use super::error::{ExpressionError, ExpressionProblem as Problem};
use super::path::{self, Extent, Scanner};
use super::selection::Variables;
use super::text;

/// Longest selection expression and longest body path, in bytes.
pub const EXPRESSION_MAX_BYTES: usize = 1024;

/// Number of variables that are evaluated without allocating. Almost every expression has one or two.
const INLINE_VALUES: usize = 4;

/// The expression by which messages are routed: literal text and variables, such as `$request.body.action` or
/// `${request.body.service}/${request.body.action}`.
///
/// - A variable is `$request.body` followed by a path, or both in braces: `${request.body.action}`. A path consists of
///   any number of `.name`, `['any name']` and `[0]`. It may begin with an index, for a message that is an array.
/// - Without braces a variable ends before the first character that cannot continue it, and anything may follow. A name
///   consists of letters, digits, `_` and `-`; `.` or `[` always continues the path. Inside braces a name may also
///   contain `$`.
/// - All other text is literal. `\$` is a dollar sign and `\\` a backslash; before anything else `\` is literal. An
///   expression without variables selects the same key for every JSON message.
///
/// Source: AWS, "Selection expressions in API Gateway" and "Creating routes for a WebSocket API in API Gateway".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectionExpression {
    parts: Box<[Part]>,
    variables: Variables,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Variable(usize),
}

impl SelectionExpression {
    /// Compiles an expression of at most [`EXPRESSION_MAX_BYTES`] bytes, whose paths have at most
    /// [`super::PATH_STEPS_MAX`] steps each.
    ///
    /// # Errors
    /// Returns the first mistake in the expression.
    pub fn parse(expression: &str) -> Result<Self, ExpressionError> {
        if expression.is_empty() {
            return Err(Problem::Empty.at(0));
        }
        if expression.len() > EXPRESSION_MAX_BYTES {
            return Err(Problem::TooLong.at(EXPRESSION_MAX_BYTES));
        }
        let mut parts = Vec::new();
        let mut variables = Variables::default();
        let mut literal = String::new();
        let mut scanner = Scanner::new(expression);
        while let Some(character) = scanner.peek() {
            if character == '$' {
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal).into()));
                }
                parts.push(Part::Variable(variables.insert(&variable(&mut scanner)?)));
            } else if scanner.eat("\\$") {
                literal.push('$');
            } else if scanner.eat("\\\\") {
                literal.push('\\');
            } else {
                literal.extend(scanner.next());
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(SelectionExpression { parts: parts.into(), variables })
    }

    /// Returns the key that `message` selects, or `None` if the message is not JSON, even if the expression has no
    /// variable.
    ///
    /// A path without a value in the message becomes the empty string. A string becomes its content. Other values
    /// become text: `1`, `true`, `null`, `[item1, item2]`, and objects their JSON without blanks between tokens. Of
    /// members with the same name the last one is used. The key is at most as long as the literals and, for each
    /// variable, twice the message.
    pub fn evaluate<'a>(&'a self, message: &'a str) -> Option<Cow<'a, str>> {
        let mut inline = [None; INLINE_VALUES];
        let mut allocated = Vec::new();
        let values = match inline.get_mut(..self.variables.count()) {
            Some(values) => values,
            None => {
                allocated.resize(self.variables.count(), None);
                &mut allocated[..]
            }
        };
        self.variables.select(message, values).ok()?;

        let text_of = |part: &'a Part| match part {
            Part::Literal(literal) => Some(Cow::Borrowed(&**literal)),
            Part::Variable(variable) => values[*variable].map_or(Some(Cow::Borrowed("")), text::of_value),
        };
        match &*self.parts {
            [part] => text_of(part),
            parts => parts.iter().map(text_of).collect::<Option<String>>().map(Cow::Owned),
        }
    }
}

/// Parses `$request.body` with its path, or the same in braces.
fn variable(scanner: &mut Scanner<'_>) -> Result<Vec<path::Step>, ExpressionError> {
    let start = scanner.offset();
    scanner.eat("$");
    let extent = if scanner.eat("{") { Extent::Delimited } else { Extent::Open };
    if !scanner.eat("request.body") {
        return Err(Problem::UnknownVariable.at(start));
    }
    let path_start = scanner.offset();
    let steps = path::steps(scanner, extent)?;
    if steps.is_empty() {
        return Err(Problem::ExpectedPath.at(path_start));
    }
    if extent == Extent::Delimited && !scanner.eat("}") {
        return Err(Problem::ExpectedBrace.at(scanner.offset()));
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, message: &str, expected: Option<&str>) {
        let expression = SelectionExpression::parse(expression).expect("a valid expression");
        assert_eq!(expression.evaluate(message).as_deref(), expected);
    }

    #[test]
    fn a_variable_is_replaced_by_the_value_at_its_path() {
        let action = "$request.body.action";
        check(action, r#"{"action":"join"}"#, Some("join"));
        check(action, r#" { "room" : [1, {"action": 0}], "action" : "join" } "#, Some("join"));
        check(action, r#"{"other":1}"#, Some(""));
        check(action, r#"{"Action":"join"}"#, Some(""));
        check(action, "{}", Some(""));
        check(action, "{ }", Some(""));
        check(action, r#"{"action":""}"#, Some(""));
        check(action, r#"{"\u0061ction":"join"}"#, Some("join"));
        check("${request.body.action}", r#"{"action":"join"}"#, Some("join"));
        check("${request.body.a.b}", r#"{"a":{"b":"c"}}"#, Some("c"));
        check("${request.body.a.b}", r#"{"a":{"x":{"b":1},"b" : "c" },"b":2}"#, Some("c"));
        check("${request.body.a.b}", r#"{"a":"b"}"#, Some(""));
        check("${request.body.a.b}", r#"{"a":[{"b":"c"}]}"#, Some(""));
        check("${request.body.a.b}", r#"{"a.b":"c"}"#, Some(""));
        check("$request.body.naïve-key_2", r#"{"naïve-key_2":"x"}"#, Some("x"));
        check("$request.body.0", r#"{"0":"x"}"#, Some("x"));
        check("$request.body.0", r#"["x"]"#, Some(""));
    }

    #[test]
    fn brackets_name_members_and_items() {
        check("${request.body['action']}", r#"{"action":"join"}"#, Some("join"));
        check("$request.body['action']", r#"{"action":"join"}"#, Some("join"));
        check(r#"${request.body["a b"].c}"#, r#"{"a b":{"c":"d"}}"#, Some("d"));
        check("${request.body['}']['']}", r#"{"}":{"":"x"}}"#, Some("x"));
        check(r#"${request.body['it\'s \\']}"#, r#"{"it's \\":"x"}"#, Some("x"));
        check("${request.body.items[0]}", r#"{"items":["a","b"]}"#, Some("a"));
        check("${request.body.items[1].id}", r#"{"items":[ {"id":1} , {"id":2} , {"id":3} ]}"#, Some("2"));
        check("${request.body.items[2]}", r#"{"items":["a","b"]}"#, Some(""));
        check("${request.body.items[0]}", r#"{"items":[]}"#, Some(""));
        check("${request.body.items[0]}", r#"{"items":{"0":"x"}}"#, Some(""));
        check("${request.body['items']['0']}", r#"{"items":{"0":"x"}}"#, Some("x"));
        check("$request.body[0]", r#"["a","b"]"#, Some("a"));
        check("$request.body[1][0].x", r#"[0, [ {"x": "y"}]]"#, Some("y"));
        check("$request.body[0]", r#"{"action":"join"}"#, Some(""));
    }

    #[test]
    fn literals_and_variables_are_joined() {
        let both = "${request.body.service}/${request.body.action}";
        check(both, r#"{"action":"join","service":"chat"}"#, Some("chat/join"));
        check(both, r#"{"service":"chat"}"#, Some("chat/"));
        check(both, "{}", Some("/"));
        check("$request.body.service/$request.body.action", r#"{"action":"join","service":"chat"}"#, Some("chat/join"));
        check("$request.body.a$request.body.b", r#"{"a":1,"b":2}"#, Some("12"));
        check("$request.body.a}*?é", r#"{"a":1}"#, Some("1}*?é"));
        check("${request.body.a}.b[0]", r#"{"a":1}"#, Some("1.b[0]"));
        check("${request.body.$ref}", r#"{"$ref":"x"}"#, Some("x"));
        check("${request.body.a}+${request.body.a}", r#"{"a":"x"}"#, Some("x+x"));
        check("${request.body.a}+${request.body.a.b}", r#"{"a":{"b": "x"}}"#, Some(r#"{"b":"x"}+x"#));
        check("${request.body.a[1]}+${request.body.a}", r#"{"a": [ 1 , 2 ]}"#, Some("2+[1, 2]"));
        check("${request.body[0]}+${request.body.x}", r#"{"x":1}"#, Some("+1"));
        let five = "$request.body.a$request.body.b$request.body.c$request.body.d$request.body.e";
        check(five, r#"{"e":5,"d":4,"c":3,"b":2,"a":1}"#, Some("12345"));
    }

    #[test]
    fn an_expression_without_variables_is_a_fixed_key() {
        check("join", "{}", Some("join"));
        check("join", " 7 ", Some("join"));
        check("join", "hello", None);
        check("join", "", None);
        check(r"\$default", "[]", Some("$default"));
        check(r"a\\\$\b\", "[]", Some(r"a\$\b\"));
        check(r"\${request.body.a}", r#"{"a":1}"#, Some("${request.body.a}"));
    }

    #[test]
    fn values_become_text() {
        let a = "$request.body.a";
        check(a, r#"{"a":1}"#, Some("1"));
        check(a, r#"{"a":-1.50E+2}"#, Some("-1.50E+2"));
        check(a, r#"{"a":12345678901234567890123}"#, Some("12345678901234567890123"));
        check(a, r#"{"a":1e999}"#, Some("1e999"));
        check(a, r#"{"a":true}"#, Some("true"));
        check(a, r#"{"a":null}"#, Some("null"));
        check(a, r#"{"a":["item1","item2"]}"#, Some("[item1, item2]"));
        check(
            a,
            r#"{"a":[1, true ,null,"x y",[1, "x"],{"b": "c"}]}"#,
            Some(r#"[1, true, null, x y, [1,"x"], {"b":"c"}]"#),
        );
        check(a, r#"{"a":{"b" : [ 1 , "c d" ]}}"#, Some(r#"{"b":[1,"c d"]}"#));
        check(a, r#"{"a":"\"\\\/\n\u00e9\ud83d\ude00"}"#, Some("\"\\/\né😀"));
        check(a, r#"{"a":"${request.body.b}","b":1}"#, Some("${request.body.b}"));
    }

    #[test]
    fn the_last_of_equal_names_counts() {
        check("$request.body.a", r#"{"a":1,"a":2}"#, Some("2"));
        check("$request.body.a", r#"{"a":1,"\u0061":2}"#, Some("2"));
        check("$request.body.a.b", r#"{"a":{"b":1},"a":{}}"#, Some(""));
        check("$request.body.a.b", r#"{"a":{"b":1},"a":null}"#, Some(""));
        check("$request.body.a.b", r#"{"a":{"b":1},"a":{"b":2}}"#, Some("2"));
        check("$request.body.a[0].b", r#"{"a":[{"b":1}],"a":[]}"#, Some(""));
    }

    #[test]
    fn a_message_that_is_not_json_selects_nothing() {
        let a = "$request.body.a";
        for message in
            ["", " ", "hello", "{", "[", "\u{feff}", "{}\u{feff}", "{}{}", "{} x", "[1,]", r#"{"a":1,}"#, r#"{"a" 1}"#]
        {
            check(a, message, None);
        }
        check(a, r#"{"a":01}"#, None);
        check(a, r#"{"a":NaN}"#, None);
        check(a, r#"{a:1}"#, None);
        check(a, "{'a':1}", None);
        check(a, "{\"a\":\"\n\"}", None);
        check(a, "{\"a\n\":1}", None);
        check(a, r#"{"a":"\x"}"#, None);
        check(a, r#"{"a":"x","b":}"#, None);
        check("$request.body[1]", "[1 2]", None);
        check("$request.body[1].a", "[1,", None);
    }

    #[test]
    fn a_lone_value_is_json() {
        for message in ["1", "1e999", r#""join""#, r#""\ud800""#, "true", "null", "[]", " [ ] "] {
            check("$request.body.a", message, Some(""));
            check("$request.body[0]", message, Some(""));
        }
    }

    #[test]
    fn half_of_a_surrogate_pair_is_a_replacement_character_where_it_is_selected() {
        check("$request.body.a", r#"{"b":"\ud800","\udc00":1,"a":2}"#, Some("2"));
        check("$request.body.a", r#"{"a":"\ud800"}"#, Some("\u{fffd}"));
        check("$request.body.a", r#"{"a":["x\udc00y"]}"#, Some("[x\u{fffd}y]"));
        check("$request.body.a", r#"{"a":"\ud800","a":2}"#, Some("2"));
        check("$request.body.a+$request.body.b", r#"{"a":"\ud800","b":"join"}"#, Some("\u{fffd}+join"));
    }

    #[test]
    fn a_byte_order_mark_before_a_message_means_nothing() {
        check("$request.body.a", "\u{feff}{\"a\":\"join\"}", Some("join"));
        check("$request.body[1]", "\u{feff} [ 1, 2 ]", Some("2"));
        check("join", "\u{feff}7", Some("join"));
        check("$request.body.a", "{\"a\":\"\u{feff}\"}", Some("\u{feff}"));
    }

    #[test]
    fn a_string_without_escapes_is_not_copied() {
        let expression = SelectionExpression::parse("$request.body.action").expect("a valid expression");
        assert!(matches!(expression.evaluate(r#"{"action":"join"}"#), Some(Cow::Borrowed("join"))));
    }

    #[track_caller]
    fn check_error(expression: &str, column: usize, problem: Problem) {
        assert_eq!(SelectionExpression::parse(expression), Err(ExpressionError { column, problem }));
    }

    #[test]
    fn a_bad_expression_is_refused_with_its_column() {
        check_error("", 1, Problem::Empty);
        check_error(&"a".repeat(1025), 1025, Problem::TooLong);
        check_error("a$", 2, Problem::UnknownVariable);
        check_error("$default", 1, Problem::UnknownVariable);
        check_error("é$request.header.x", 3, Problem::UnknownVariable);
        check_error("${stageVariables.x}", 1, Problem::UnknownVariable);
        check_error("$request.body", 14, Problem::ExpectedPath);
        check_error("${request.body}", 15, Problem::ExpectedPath);
        check_error("$request.bodyaction", 14, Problem::ExpectedPath);
        check_error("$request.body.", 15, Problem::ExpectedName);
        check_error("$request.body.a.$request.body.b", 17, Problem::ExpectedName);
        check_error("${request.body.a", 17, Problem::ExpectedBrace);
        check_error("${request.body.a b}", 17, Problem::ExpectedBrace);
        check_error("$request.body[", 15, Problem::ExpectedSelector);
        check_error("$request.body[a]", 15, Problem::ExpectedSelector);
        check_error("$request.body[0", 16, Problem::ExpectedBracket);
        check_error("$request.body['a", 15, Problem::UnclosedQuote);
        check_error(r"$request.body['\n']", 16, Problem::UnknownEscape);
        check_error("$request.body[01]", 15, Problem::BadIndex);
        check_error("$request.body[99999999999999999999]", 15, Problem::BadIndex);
        check_error("$request.body.*", 15, Problem::Unsupported("wildcards"));
        check_error("$request.body[*]", 15, Problem::Unsupported("wildcards"));
        check_error("$request.body..a", 15, Problem::Unsupported("recursive descents (`..`)"));
        check_error("$request.body[?(@.a)]", 15, Problem::Unsupported("filters"));
        check_error("$request.body[(@.length-1)]", 15, Problem::Unsupported("scripts"));
        check_error("$request.body[-1]", 15, Problem::Unsupported("negative indexes"));
        check_error("$request.body[0:2]", 16, Problem::Unsupported("slices"));
        check_error("$request.body[:2]", 15, Problem::Unsupported("slices"));
        check_error("$request.body['a','b']", 18, Problem::Unsupported("unions"));
        check_error(&format!("$request.body{}", ".a".repeat(33)), 78, Problem::TooDeep);
    }

    #[test]
    fn an_error_says_where_and_what_is_allowed() {
        let error = SelectionExpression::parse("$request.body.items[*]").expect_err("a wildcard");
        assert_eq!(
            error.to_string(),
            "column 21: wildcards are not supported; a path is made of names (`.NAME`, `['NAME']`) and indexes (`[0]`)"
        );
    }
}
