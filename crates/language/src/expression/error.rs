use super::{EXPRESSION_MAX_BYTES, PATH_STEPS_MAX};

/// The reason why a text is not an expression, and the place in the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {problem}")]
pub struct ExpressionError {
    /// Column of the place, in bytes; the first byte is column 1.
    pub column: usize,
    /// Mistake at the place, and the allowed forms.
    pub problem: ExpressionProblem,
}

/// The mistakes in a selection expression or a body path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionProblem {
    #[error("the expression is empty; write a variable such as `$request.body.action`, or a fixed key")]
    Empty,
    #[error("the text is longer than {EXPRESSION_MAX_BYTES} bytes")]
    TooLong,
    #[error("the path has more than {PATH_STEPS_MAX} steps")]
    TooDeep,
    #[error(
        "`$` begins a variable, and the only ones are `$request.body.NAME` and `${{request.body.NAME}}`; \
         write `\\$` for a dollar sign"
    )]
    UnknownVariable,
    #[error("`request.body` needs a path: `.NAME`, `['NAME']` or `[0]`")]
    ExpectedPath,
    #[error("expected a name of letters, digits, `_` and `-`; any other name is written `['NAME']`")]
    ExpectedName,
    #[error("expected `.NAME`, `['NAME']`, `[0]` or the end of the path")]
    ExpectedStep,
    #[error("expected `.NAME`, `['NAME']`, `[0]` or the closing `}}`")]
    ExpectedBrace,
    #[error("expected a quoted name or an index in the brackets: `['NAME']` or `[0]`")]
    ExpectedSelector,
    #[error("expected the closing `]`")]
    ExpectedBracket,
    #[error("the quoted name has no closing quote")]
    UnclosedQuote,
    #[error("in a quoted name `\\` is allowed only before a quote or another `\\`")]
    UnknownEscape,
    #[error("an index is a number from 0 without leading zeros, such as `[0]`")]
    BadIndex,
    #[error("{0} are not supported; a path is made of names (`.NAME`, `['NAME']`) and indexes (`[0]`)")]
    Unsupported(&'static str),
}

impl ExpressionProblem {
    /// Builds the error of this problem at the byte offset `offset`.
    pub(super) fn at(self, offset: usize) -> ExpressionError {
        ExpressionError { column: offset + 1, problem: self }
    }
}
