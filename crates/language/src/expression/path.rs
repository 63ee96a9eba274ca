use super::error::{ExpressionError, ExpressionProblem as Problem};

/// Most steps of one path: `a.b[0]` has three. The number limits the stack that selection needs.
pub const PATH_STEPS_MAX: usize = 32;

/// A step from a value to a value inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The member of an object with this name.
    Name(Box<str>),
    /// The item of an array at this index.
    Index(usize),
}

/// The rule for the end of a path, which decides the characters of a name without quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// The path ends before the first character that cannot be part of it.
    Open,
    /// The path has a delimiter after it, so a name may also contain `$`.
    Delimited,
}

impl Extent {
    fn is_in_name(self, character: char) -> bool {
        character.is_alphanumeric() || matches!(character, '_' | '-') || (character == '$' && self == Extent::Delimited)
    }
}

/// A position in a text that is being parsed.
#[derive(Clone, Debug)]
pub(super) struct Scanner<'t> {
    text: &'t str,
    offset: usize,
}

impl<'t> Scanner<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Scanner { text, offset: 0 }
    }

    /// Returns the position: the number of bytes before it.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Returns the next character and moves past it.
    pub(super) fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.offset += character.len_utf8();
        Some(character)
    }

    /// Moves past `expected` if it is next. Returns true if it was.
    pub(super) fn eat(&mut self, expected: &str) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.offset += expected.len();
        }
        found
    }

    /// Returns the characters up to the first that `is_wanted` refuses, and moves past them.
    pub(super) fn take_while(&mut self, is_wanted: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let taken = &rest[..rest.find(|character| !is_wanted(character)).unwrap_or(rest.len())];
        self.offset += taken.len();
        taken
    }

    fn rest(&self) -> &'t str {
        &self.text[self.offset..]
    }
}

/// Parses the steps at the scanner's position: `.a['b c'][0]`. There may be none.
pub(super) fn steps(scanner: &mut Scanner<'_>, extent: Extent) -> Result<Vec<Step>, ExpressionError> {
    let mut steps = Vec::new();
    loop {
        let start = scanner.offset();
        if scanner.eat(".") {
            steps.push(Step::Name(name(scanner, extent)?));
        } else if scanner.eat("[") {
            steps.push(selector(scanner)?);
        } else {
            return Ok(steps);
        }
        if steps.len() > PATH_STEPS_MAX {
            return Err(Problem::TooDeep.at(start));
        }
    }
}

/// Parses a name without quotes.
pub(super) fn name(scanner: &mut Scanner<'_>, extent: Extent) -> Result<Box<str>, ExpressionError> {
    let start = scanner.offset();
    let name = scanner.take_while(|character| extent.is_in_name(character));
    if !name.is_empty() {
        return Ok(name.into());
    }
    let problem = match scanner.peek() {
        Some('*') => Problem::Unsupported("wildcards"),
        Some('.') => Problem::Unsupported("recursive descents (`..`)"),
        _ => Problem::ExpectedName,
    };
    Err(problem.at(start))
}

/// Parses a name or index in brackets, up to and including the closing bracket.
fn selector(scanner: &mut Scanner<'_>) -> Result<Step, ExpressionError> {
    let start = scanner.offset();
    let step = match scanner.peek() {
        Some('0'..='9') => Step::Index(index(scanner)?),
        Some(quote @ ('\'' | '"')) => Step::Name(quoted_name(scanner, quote)?),
        Some('*') => return Err(Problem::Unsupported("wildcards").at(start)),
        Some('?') => return Err(Problem::Unsupported("filters").at(start)),
        Some('(') => return Err(Problem::Unsupported("scripts").at(start)),
        Some('-') => return Err(Problem::Unsupported("negative indexes").at(start)),
        Some(':') => return Err(Problem::Unsupported("slices").at(start)),
        _ => return Err(Problem::ExpectedSelector.at(start)),
    };
    let end = scanner.offset();
    if scanner.eat("]") {
        return Ok(step);
    }
    let problem = match scanner.peek() {
        Some(':') => Problem::Unsupported("slices"),
        Some(',') => Problem::Unsupported("unions"),
        _ => Problem::ExpectedBracket,
    };
    Err(problem.at(end))
}

fn index(scanner: &mut Scanner<'_>) -> Result<usize, ExpressionError> {
    let start = scanner.offset();
    let digits = scanner.take_while(|character| character.is_ascii_digit());
    if digits.len() > 1 && digits.starts_with('0') {
        return Err(Problem::BadIndex.at(start));
    }
    digits.parse().map_err(|_| Problem::BadIndex.at(start))
}

fn quoted_name(scanner: &mut Scanner<'_>, quote: char) -> Result<Box<str>, ExpressionError> {
    let start = scanner.offset();
    scanner.next();
    let mut name = String::new();
    loop {
        let offset = scanner.offset();
        match scanner.next() {
            None => return Err(Problem::UnclosedQuote.at(start)),
            Some('\\') => match scanner.next() {
                Some(escaped @ ('\'' | '"' | '\\')) => name.push(escaped),
                _ => return Err(Problem::UnknownEscape.at(offset)),
            },
            Some(character) if character == quote => return Ok(name.into()),
            Some(character) => name.push(character),
        }
    }
}
