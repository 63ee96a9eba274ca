use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde_json::Value;

use super::problem::Problem;
use super::secrets::is_secret;
use super::source::{Source, child};

const ENVIRONMENT: &str = "${env:";
const FILE: &str = "${file:";

/// Largest file that is filled in, in bytes. It is meant for a secret, not for a document.
const FILE_MAX_BYTES: u64 = 64 * 1024;

/// Replaces `${env:NAME}`, `${env:NAME:-default}` and `${file:/PATH}` in every string value. Keys are not changed. A
/// path may begin with a variable: `${file:${env:FOLDER}/name}`.
///
/// The default replaces a variable that is not set or empty, as in a shell. A file's last line feed is not part of its
/// text. A file without content, and a secret whose variable is empty, are mistakes: they may be about to be written.
/// Anything else that begins with `$` stays, including `${stageVariables.name}` and `$$`. The value of a variable or
/// file is not searched for placeholders.
pub(super) fn interpolate(source: &mut Source, environment: &dyn Fn(&str) -> Option<String>) -> Vec<Problem> {
    let mut value = std::mem::take(&mut source.value);
    let mut problems = Vec::new();
    visit_strings(&mut value, "", &mut |pointer, text| {
        let Some(mut filled) = fill(text, environment) else { return };
        source.mark_interpolated(pointer);
        if is_secret(pointer) {
            let names = filled.empty.drain(..);
            filled.mistakes.extend(names.map(|name| {
                format!("environment variable `{name}` is empty; set it or write `${{env:{name}:-default}}`")
            }));
        }
        source.note_filled_in(filled.values);
        if filled.mistakes.is_empty() {
            *text = filled.text;
        } else {
            problems.extend(filled.mistakes.into_iter().map(|mistake| source.problem(pointer, mistake)));
            source.reject(pointer);
        }
    });
    source.value = value;
    problems
}

/// Calls `visit` with every string below `value` and its JSON pointer.
fn visit_strings(value: &mut Value, pointer: &str, visit: &mut dyn FnMut(&str, &mut String)) {
    match value {
        Value::String(text) => visit(pointer, text),
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                visit_strings(item, &child(pointer, &index.to_string()), visit);
            }
        }
        Value::Object(entries) => {
            for (key, entry) in entries {
                visit_strings(entry, &child(pointer, key), visit);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[derive(Debug, Default, PartialEq)]
struct Filled {
    text: String,
    /// The values that were filled in, each with its placeholder.
    values: Vec<(String, String)>,
    /// Variables that are set but empty.
    empty: Vec<String>,
    mistakes: Vec<String>,
}

/// Fills in `text`. Returns `None` if it has no placeholder.
fn fill(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Option<Filled> {
    let (before, mut opening, mut rest) = split_at_opening(text)?;
    let mut filled = Filled { text: before.to_owned(), ..Filled::default() };
    loop {
        let folder = rest.strip_prefix(ENVIRONMENT).filter(|_| opening == FILE).and_then(|rest| rest.split_once('}'));
        let (folder, behind) = folder.map_or((None, rest), |(folder, behind)| (Some(folder), behind));
        let Some((inside, after)) = behind.split_once('}') else {
            filled.mistakes.push(malformed(opening));
            return Some(filled);
        };
        match (opening, folder) {
            (FILE, None) => filled.file(inside),
            (FILE, Some(folder)) => match look_up(folder, environment) {
                Ok((folder, _)) => filled.file(&format!("{folder}{inside}")),
                Err(mistake) => filled.mistakes.push(mistake),
            },
            _ => filled.variable(inside, environment),
        }
        let Some((between, next_opening, next)) = split_at_opening(after) else {
            filled.text.push_str(after);
            return Some(filled);
        };
        filled.text.push_str(between);
        (opening, rest) = (next_opening, next);
    }
}

/// Splits `text` at its first placeholder. Returns the text before it, its opening, and the text after the opening.
fn split_at_opening(text: &str) -> Option<(&str, &'static str, &str)> {
    let splits = [ENVIRONMENT, FILE]
        .into_iter()
        .filter_map(|opening| text.split_once(opening).map(|(before, behind)| (before, opening, behind)));
    splits.min_by_key(|(before, ..)| before.len())
}

fn malformed(opening: &str) -> String {
    match opening {
        FILE => "malformed `${file:`; allowed: `${file:/PATH}` with an absolute path without `}`, or \
                 `${file:${env:NAME}/PATH}`"
            .to_owned(),
        _ => "malformed `${env:`; allowed: `${env:NAME}` or `${env:NAME:-default}`, NAME of letters, digits and `_`, \
              the default without `${` and `}`"
            .to_owned(),
    }
}

/// Returns the value of `NAME` or `NAME:-default`, and the name if the value is the variable's and not the default.
///
/// # Errors
/// Returns a mistake if the placeholder is malformed, or the variable is not set and has no default.
fn look_up<'a>(
    inside: &'a str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<(String, Option<&'a str>), String> {
    let (name, default) = inside.split_once(":-").map_or((inside, None), |(name, default)| (name, Some(default)));
    if !is_name(name) || default.is_some_and(|default| default.contains("${")) {
        return Err(malformed(ENVIRONMENT));
    }
    match (environment(name), default) {
        (Some(value), Some(default)) if value.is_empty() => Ok((default.to_owned(), None)),
        (Some(value), _) => Ok((value, Some(name))),
        (None, Some(default)) => Ok((default.to_owned(), None)),
        (None, None) => {
            Err(format!("environment variable `{name}` is not set; set it or write `${{env:{name}:-default}}`"))
        }
    }
}

impl Filled {
    fn variable(&mut self, inside: &str, environment: &dyn Fn(&str) -> Option<String>) {
        match look_up(inside, environment) {
            Ok((value, name)) => {
                self.text.push_str(&value);
                self.empty.extend(name.filter(|_| value.is_empty()).map(str::to_owned));
                self.values.extend(name.map(|name| (value, format!("${{env:{name}}}"))));
            }
            Err(mistake) => self.mistakes.push(mistake),
        }
    }

    fn file(&mut self, path: &str) {
        if !path.starts_with('/') {
            return self.mistakes.push(malformed(FILE));
        }
        match read(Path::new(path)) {
            Ok(value) => {
                self.text.push_str(&value);
                self.values.push((value, format!("${{file:{path}}}")));
            }
            Err(error) => self.mistakes.push(format!("could not read the file `{path}`: {error}")),
        }
    }
}

/// Reads the text of a file without its last line feed.
///
/// # Errors
/// Returns an error if the file cannot be read, is too large, is empty, or is not UTF-8.
fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(io::Error::other(format!("it is larger than {FILE_MAX_BYTES} bytes")));
    }
    // The library's own error would print bytes of the file.
    let mut text = String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))?;
    text.truncate(text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n')).unwrap_or(&text).len());
    if text.trim().is_empty() { Err(io::Error::other("it is empty")) } else { Ok(text) }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "PORT" => Some("8080".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${env:PORT}".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_and_defaults_are_filled_in() {
        let check = |text: &str, expected: &str| {
            let filled = fill(text, &environment).expect("something to fill in");
            assert_eq!((filled.text.as_str(), filled.mistakes.as_slice()), (expected, [].as_slice()), "{text}");
        };
        check("${env:PORT}", "8080");
        check("a${env:PORT}b${env:PORT}c", "a8080b8080c");
        check("${env:PORT:-1}", "8080");
        check("${env:MISSING:-1}", "1");
        check("${env:MISSING:-}", "");
        check("${env:MISSING:-http://a:1/}", "http://a:1/");
        check("${env:EMPTY}", "");
        check("${env:EMPTY:-1}", "1");
        check("${env:NESTED}", "${env:PORT}");
        check("$${env:PORT}", "$8080");
        check("${env:PORT}/${stageVariables.path}", "8080/${stageVariables.path}");
    }

    #[test]
    fn other_uses_of_the_dollar_sign_stay() {
        let check = |text: &str| assert_eq!(fill(text, &environment), None, "{text}");
        check("");
        check("$default");
        check("$$");
        check("${stageVariables.path}");
        check("${ENV:PORT}");
        check("${env}");
    }

    #[test]
    fn each_mistake_of_a_text_is_named() {
        let check = |text: &str, expected: &[&str]| {
            let filled = fill(text, &environment).expect("something to fill in");
            assert_eq!(filled.mistakes.len(), expected.len(), "{text}: {:?}", filled.mistakes);
            for (mistake, expected) in filled.mistakes.iter().zip(expected) {
                assert!(mistake.starts_with(expected), "{text}: {mistake}");
            }
        };
        check(
            "${env:MISSING}",
            &["environment variable `MISSING` is not set; set it or write `${env:MISSING:-default}`"],
        );
        check("${env:A}${env:B}", &["environment variable `A`", "environment variable `B`"]);
        check("${env:PORT", &["malformed `${env:`"]);
        check("${env:}", &["malformed"]);
        check("${env:1A}", &["malformed"]);
        check("${env:A-b}", &["malformed"]);
        check("${env: PORT}", &["malformed"]);
        check("${env:A:-${env:PORT}}", &["malformed"]);
    }

    #[test]
    fn files_are_filled_in_without_their_last_line_feed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).expect("a written file");
            path.display().to_string()
        };
        let check = |text: &str, expected: &str| {
            let filled = fill(text, &environment).expect("something to fill in");
            assert_eq!((filled.text.as_str(), filled.mistakes.as_slice()), (expected, [].as_slice()), "{text}");
        };
        let secret = file("secret", b"hunter2\n");
        check(&format!("${{file:{secret}}}"), "hunter2");
        check(&format!("a${{file:{secret}}}b${{env:PORT}}"), "ahunter2b8080");
        check(&format!("${{env:PORT}}${{file:{secret}}}"), "8080hunter2");
        check(&format!("${{file:{}}}", file("windows", b"hunter2\r\n")), "hunter2");
        check(&format!("${{file:{}}}", file("lines", b"a\n\n")), "a\n");

        let default = folder.path().display();
        check(&format!("${{file:${{env:MISSING:-{default}}}/secret}}!"), "hunter2!");

        let check = |text: &str, expected: &str| {
            let filled = fill(text, &environment).expect("something to fill in");
            assert!(filled.mistakes.len() == 1 && filled.mistakes[0].contains(expected), "{:?}", filled.mistakes);
        };
        check("${file:relative}", "malformed `${file:`");
        check("${file:", "malformed `${file:`");
        check("${file:${env:PORT}", "malformed `${file:`");
        check("${file:${env:PORT}/a}", "malformed `${file:`");
        check("${file:${env:MISSING}/a}", "environment variable `MISSING` is not set");
        check("${file:/not/there}", "could not read the file `/not/there`: No such file");
        check(&format!("${{file:{}}}", file("empty", b"")), "it is empty");
        check(&format!("${{file:{}}}", file("blank", b" \n\n")), "it is empty");
        check(&format!("${{file:{}}}", file("binary", b"\xff")), "it is not UTF-8");
        check(&format!("${{file:{}}}", file("large", &[b'a'; 65 * 1024])), "it is larger than 65536 bytes");
    }
}
