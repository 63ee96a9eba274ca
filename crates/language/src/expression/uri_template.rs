use std::collections::BTreeMap;
use std::fmt;

/// An integration URI in which `${stageVariables.NAME}` stands for the value of a stage variable.
///
/// Source: AWS, "Using Amazon API Gateway stage variables".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UriTemplate {
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    StageVariable(Box<str>),
}

/// The reason why a text is not a URI template, and the column of the place in bytes; the first byte is column 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriTemplateError {
    #[error("column {column}: `${{` has no closing `}}`")]
    Unclosed { column: usize },
    #[error(
        "column {column}: `${{{variable}}}` is not known in a URI; allowed: `${{stageVariables.NAME}}` with a name of \
         1 to 64 letters, digits and `_`"
    )]
    UnknownVariable { column: usize, variable: String },
}

/// The error of a stage that has no variable with this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stage has no variable named {0}")]
pub struct MissingVariable(pub String);

impl UriTemplate {
    /// Compiles a URI. Only `${` is special; any other `$` is part of the URI.
    pub fn parse(uri: &str) -> Result<Self, UriTemplateError> {
        let mut parts = Vec::new();
        let mut rest = uri;
        while let Some((literal, behind)) = rest.split_once("${") {
            let column = uri.len() - rest.len() + literal.len() + 1;
            let (variable, behind) = behind.split_once('}').ok_or(UriTemplateError::Unclosed { column })?;
            let name = variable
                .strip_prefix("stageVariables.")
                .filter(|name| is_stage_variable_name(name))
                .ok_or_else(|| UriTemplateError::UnknownVariable { column, variable: variable.to_owned() })?;
            parts.extend([Part::Literal(literal.into()), Part::StageVariable(name.into())]);
            rest = behind;
        }
        parts.push(Part::Literal(rest.into()));
        Ok(UriTemplate { parts: parts.into() })
    }

    /// Returns the URI with the values of one stage, inserted unchanged: a value may contain a host, a path or a query.
    pub fn resolve(&self, stage_variables: &BTreeMap<String, String>) -> Result<String, MissingVariable> {
        let values = self.parts.iter().map(|part| match part {
            Part::Literal(literal) => Ok(&**literal),
            Part::StageVariable(name) => {
                stage_variables.get(&**name).map(String::as_str).ok_or_else(|| MissingVariable(name.to_string()))
            }
        });
        values.collect()
    }

    /// Checks that each variable in the authority, the part between `//` and the next `/`, changes only a host name or
    /// a port.
    ///
    /// # Errors
    /// Returns [`VariableInHost`] for the first variable whose value has other characters.
    pub fn check_host(&self, stage_variables: &BTreeMap<String, String>) -> Result<(), VariableInHost> {
        let mut authority = false;
        let mut seen = String::new();
        for part in &*self.parts {
            match part {
                Part::Literal(literal) => {
                    seen.push_str(literal);
                    if let Some((_, behind)) = seen.split_once("://") {
                        authority = !behind.contains(['/', '?', '#']);
                    }
                }
                // Without a scheme yet, the value is the beginning of the URI and may be all of it.
                Part::StageVariable(name) if authority => {
                    let value = stage_variables.get(&**name).map_or("", String::as_str);
                    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
                    if !value.bytes().all(is_host) {
                        return Err(VariableInHost(name.to_string()));
                    }
                }
                Part::StageVariable(_) => {}
            }
        }
        Ok(())
    }
}

/// The error of a variable in the host of a URI whose value would change more than the host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("variable `{0}` is in the host of the URL; allowed in its value: letters, digits, `-`, `.`, `_` and `:`")]
pub struct VariableInHost(pub String);

impl fmt::Display for UriTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Literal(literal) => formatter.write_str(literal),
            Part::StageVariable(name) => write!(formatter, "${{stageVariables.{name}}}"),
        })
    }
}

/// Returns true if a stage variable may have the name `name`: `[A-Za-z0-9_]{1,64}`.
///
/// Source: AWS, "Amazon API Gateway stage variables reference for REST APIs in API Gateway".
pub(super) fn is_stage_variable_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage_variables() -> BTreeMap<String, String> {
        [("host", "127.0.0.1:9000"), ("path", "ws"), ("nested", "${stageVariables.path}")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[track_caller]
    fn check(uri: &str, expected: Result<&str, &str>) {
        let template = UriTemplate::parse(uri).expect("a valid template");
        let expected = expected.map(str::to_owned).map_err(|name| MissingVariable(name.to_owned()));
        assert_eq!(template.resolve(&stage_variables()), expected);
        assert_eq!(template.to_string(), uri);
    }

    #[test]
    fn stage_variables_are_put_in() {
        check("http://localhost/a", Ok("http://localhost/a"));
        check("", Ok(""));
        check("http://${stageVariables.host}/${stageVariables.path}", Ok("http://127.0.0.1:9000/ws"));
        check("${stageVariables.path}${stageVariables.path}", Ok("wsws"));
        check("http://h/$a/{b}?c=$", Ok("http://h/$a/{b}?c=$"));
        check("http://h/${stageVariables.nested}", Ok("http://h/${stageVariables.path}"));
        check("http://h/é${stageVariables.other}", Err("other"));
    }

    #[track_caller]
    fn check_error(uri: &str, expected: UriTemplateError) {
        assert_eq!(UriTemplate::parse(uri), Err(expected));
    }

    #[test]
    fn other_variables_are_refused_with_their_column() {
        let unknown =
            |column, variable: &str| UriTemplateError::UnknownVariable { column, variable: variable.to_owned() };
        check_error("http://h/${stageVariables.a", UriTemplateError::Unclosed { column: 10 });
        check_error("http://h/${env:HOST}", unknown(10, "env:HOST"));
        check_error("${stageVariables.path}/${request.body.a}", unknown(24, "request.body.a"));
        check_error("${stageVariables.}", unknown(1, "stageVariables."));
        check_error("${stageVariables.a-b}", unknown(1, "stageVariables.a-b"));
        check_error("${}", unknown(1, ""));
    }
}
