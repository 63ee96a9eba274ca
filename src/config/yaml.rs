use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use serde_json::{Map, Number, Value};

use super::problem::{Problem, push_key};
use super::source::{Source, child};
use super::surrogates;

/// Deepest nesting of mappings and lists in a file. The parser recurses, so deeper nesting could exhaust the stack.
const NESTING_MAX: usize = 64;

/// Most duplicate keys that are reported; each costs one more pass over the text.
const DUPLICATES_MAX: usize = 20;

/// Character that is put before a key to distinguish it from an earlier one with the same name. Unicode gives it no
/// meaning.
const DUPLICATE_MARK: char = '\u{f8ff}';

/// Reads one YAML document. Returns its values, and the problems of parts that have no counterpart in JSON.
///
/// An empty document is an empty mapping. Anchors and aliases work; merge keys (`<<`) and custom tags do not. Integral
/// floats (`1e3`, `16.0`) are integers. JSON is accepted, with all of its escapes.
///
/// # Errors
/// Returns the problems of a text that cannot be read at all: not YAML, nested too deeply, or more than one document.
pub(super) fn read(text: &str) -> Result<(Source, Vec<Problem>), Vec<Problem>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(line) = too_deep(text) {
        let message = format!("brackets or blocks are nested too deeply, or not closed; allowed: {NESTING_MAX} levels");
        return Err(vec![Problem::of_file(line, message)]);
    }
    let (text, problems) = surrogates::join(text);
    let mut text = text.into_owned();
    distinguish_duplicates(&mut text);
    let documents = MarkedYaml::load_from_str(&text).map_err(|error| {
        let message = format!("not valid YAML: {}", error.info().trim_end_matches('.'));
        vec![Problem::of_file(error.marker().line(), message)]
    })?;
    if let Some(second) = documents.get(1) {
        let message = "a second document begins; allowed: one document in a file";
        return Err(vec![Problem::of_file(second.span.start.line(), message)]);
    }
    let mut reader = Reader { problems, ..Reader::default() };
    reader.source.place("", "", documents.first().map_or(1, |root| root.span.start.line().max(1)));
    let value = match documents.first() {
        None => Value::Null,
        Some(root) => reader.value(root, "", ""),
    };
    reader.source.value = if value.is_null() { Value::Object(Map::new()) } else { value };
    Ok((reader.source, reader.problems))
}

#[derive(Default)]
struct Reader {
    source: Source,
    problems: Vec<Problem>,
}

impl Reader {
    fn value(&mut self, node: &MarkedYaml<'_>, pointer: &str, path: &str) -> Value {
        match &node.data {
            YamlData::Value(scalar) => self.scalar(scalar, pointer),
            YamlData::Sequence(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    let (pointer, path) = (child(pointer, &index.to_string()), format!("{path}[{index}]"));
                    self.source.place(&pointer, &path, item.span.start.line());
                    list.push(self.value(item, &pointer, &path));
                }
                Value::Array(list)
            }
            YamlData::Mapping(entries) => {
                let mut mapping = Map::new();
                for (key, value) in entries {
                    self.entry(key, value, &mut mapping, pointer, path);
                }
                Value::Object(mapping)
            }
            YamlData::Tagged(tag, _) => {
                self.reject(pointer, format!("tag `{}` is unknown; allowed: values without a tag", tag.suffix))
            }
            YamlData::Alias(_) | YamlData::BadValue | YamlData::Representation(..) => {
                self.reject(pointer, "the value does not fit its tag, or an alias is inside its own anchor")
            }
        }
    }

    fn entry(
        &mut self,
        key: &MarkedYaml<'_>,
        value: &MarkedYaml<'_>,
        mapping: &mut Map<String, Value>,
        pointer: &str,
        path: &str,
    ) {
        let line = key.span.start.line();
        let scalar = match &key.data {
            YamlData::Value(scalar) => scalar,
            _ => {
                let Problem { path, .. } = self.source.problem(pointer, "");
                let message = "a key is a list, a mapping or tagged; allowed: text".to_owned();
                return self.problems.push(Problem { line, path, message });
            }
        };
        let (name, kind) = match scalar {
            Scalar::String(name) => (name.to_string(), None),
            Scalar::Integer(number) => (number.to_string(), Some("a number")),
            Scalar::FloatingPoint(number) => (number.to_string(), Some("a number")),
            Scalar::Boolean(boolean) => (boolean.to_string(), Some("a boolean")),
            Scalar::Null => ("null".to_owned(), Some("null")),
        };
        let is_duplicate = name.starts_with(DUPLICATE_MARK);
        let name = name.trim_start_matches(DUPLICATE_MARK);
        let (child_pointer, mut child_path) = (child(pointer, name), path.to_owned());
        push_key(&mut child_path, name);
        let message = if is_duplicate {
            "the key occurs twice; allowed: once".to_owned()
        } else if let Some(kind) = kind {
            format!("the key is {kind}; allowed: text, so put it in quotes")
        } else if name == "<<" {
            "merge keys are not supported; write the keys themselves".to_owned()
        } else {
            self.source.place(&child_pointer, &child_path, line);
            let value = self.value(value, &child_pointer, &child_path);
            mapping.insert(name.to_owned(), value);
            return;
        };
        self.problems.push(Problem { line, path: child_path, message });
    }

    fn scalar(&mut self, scalar: &Scalar<'_>, pointer: &str) -> Value {
        match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(boolean) => Value::Bool(*boolean),
            Scalar::Integer(number) => Value::Number((*number).into()),
            Scalar::String(text) => Value::String(text.to_string()),
            Scalar::FloatingPoint(number) => match finite(number.into_inner()) {
                Some(number) => Value::Number(number),
                None => self.reject(pointer, "the number is infinite or undefined; allowed: finite numbers"),
            },
        }
    }

    fn reject(&mut self, pointer: &str, message: impl Into<String>) -> Value {
        self.problems.push(self.source.problem(pointer, message));
        self.source.reject(pointer);
        Value::Null
    }
}

/// Returns a float as a JSON number: an integer if it is one, as long as floats are exact.
pub(super) fn finite(number: f64) -> Option<Number> {
    const EXACT_BELOW: f64 = 9_007_199_254_740_992.0; // 2^53
    if number.fract() == 0.0 && number.abs() < EXACT_BELOW {
        return Some((number as i64).into());
    }
    Number::from_f64(number)
}

/// Marks each key that repeats an earlier one of its mapping. The parser, which stops at a duplicate, then reads on,
/// and every duplicate is reported with its path.
fn distinguish_duplicates(text: &mut String) {
    for _ in 0..DUPLICATES_MAX {
        let Err(error) = MarkedYaml::load_from_str(text) else { return };
        if error.info() != "duplicated key in mapping" {
            return;
        }
        let Some((position, first)) = text.char_indices().nth(error.marker().index()) else { return };
        let position = if matches!(first, '"' | '\'') { position + 1 } else { position };
        text.insert(position, DUPLICATE_MARK);
    }
}

/// Returns the line where nesting exceeds [`NESTING_MAX`]. The depth is estimated from above: indentation and the
/// indicators `- `, `? ` and `: ` open blocks, and all brackets count, also in quotes. Closing brackets in quotes can
/// hide nesting up to the parser's own bound on brackets, 255.
fn too_deep(text: &str) -> Option<usize> {
    let mut blocks: Vec<usize> = Vec::new();
    let mut brackets = 0_usize;
    for (index, line) in text.lines().enumerate() {
        let mut rest = line.trim_start_matches([' ', '\t']);
        if rest.is_empty() || rest.starts_with('#') {
            continue;
        }
        let mut column = line.len() - rest.len();
        blocks.retain(|block| *block < column);
        blocks.push(column);
        while let Some(after) = rest.strip_prefix(['-', '?', ':']).filter(|after| after.starts_with([' ', '\t'])) {
            rest = after.trim_start_matches([' ', '\t']);
            column = line.len() - rest.len();
            blocks.push(column);
        }
        for byte in rest.bytes() {
            match byte {
                b'[' | b'{' => brackets += 1,
                b']' | b'}' => brackets = brackets.saturating_sub(1),
                _ => continue,
            }
            if brackets > NESTING_MAX {
                return Some(index + 1);
            }
        }
        if blocks.len() > NESTING_MAX {
            return Some(index + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Value {
        let (source, problems) = read(text).unwrap_or_else(|problems| panic!("{problems:?} in {text}"));
        assert_eq!(problems, [], "{text}");
        source.value
    }

    #[test]
    fn what_is_json_is_read_as_json() {
        for text in [
            r#"{}"#,
            r#"{"a":1,"b":[true,false,null,"",{}],"c":{"":[]}}"#,
            r#"{"a":"\" \\ \/ \b \f \n \r \t \u00e9 \u0000 \uFFFF \u2028"}"#,
            r#"{"a":"\ud83d\ude00"}"#,
            r#"{"\uD83D\uDE00":"a\uD83D\uDE00\ud83d\ude00b \u0041"}"#,
            r#"{"a":"\\ud83d\\ude00 \\\ud83d\ude00 \"\ud83d\ude00"}"#,
            r#"{"a":"é😀 # no comment: - ? [x] {y} 'z' & * ! | > % @ `"}"#,
            r#"{"a":[0,-1,1.5,-2.5e-3,1E-2,9007199254740991]}"#,
            r#"{"true":"true","null":"~","1":"1","yes":"no","<":"<<"}"#,
            "\t{\t\"a\"\t:\t[\t1\t,\t\"x\"\t]\t}\t",
            "{\r\n\t\"a\": [\r\n\t\t1,\r\n\t\t2\r\n\t]\r\n}\r\n",
            "{\n\"a\"\n:\n1\n,\n\"b\"\n:\n{\n}\n}\n",
            "{\"a\"\r:\r1\r}",
            "  {\"a\":\n    \"b\"}",
            "{\"\u{7f}\u{85}\u{2028}\":\"\u{7f}\u{85}\u{2028}\u{e000}\"}",
        ] {
            let expected: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"));
            assert_eq!(values(text), expected, "{text}");
            assert_eq!(values(&format!("\u{feff}{text}")), expected, "with a mark: {text}");
        }
    }

    #[test]
    fn json_has_keys_of_any_length() {
        let key = "k".repeat(2000);
        assert_eq!(values(&format!("{{\"{key}\":{{\"{key}\" : 1}}}}"))[&key][&key], 1);
    }

    #[test]
    fn halves_of_a_pair_are_joined_in_double_quotes_and_nowhere_else() {
        let check = |text: &str, expected: &str| assert_eq!(values(text)["a"], expected, "{text}");
        check("a: \"\\ud83d\\ude00\"\n", "😀");
        check("# \"é\\ud83d\nb: ü\r\na: \"x\\\n  \\ud83d\\ude00\"\n", "x😀");
        check("a: '\\ud83d\\ude00'\n", r"\ud83d\ude00");
        check("a: \\ud83d\\ude00\n", r"\ud83d\ude00");
        check("a: |-\n  \"\\ud83d\\ude00\"\nb: \"\\ud83d\\ude00\"\n", r#""\ud83d\ude00""#);
        check("{\"a\": '\"\\ud83d\"'}\n", "\"\\ud83d\"");
        check("b: &x \"\\ud83d\\ude00\"\na: *x\n", "😀");
        check("a: &x\"y !!str\n  \"\\ud83d\\ude00\"\n", "😀");
    }

    #[test]
    fn half_of_a_pair_is_named_with_its_line() {
        let check = |text: &str, expected: &[(usize, &str)]| {
            let (_, problems) = read(text).expect("YAML");
            let told: Vec<(usize, &str)> = problems.iter().map(|p| (p.line, &p.message[..8])).collect();
            assert_eq!(told, expected, "{text}");
        };
        check("{\n\"a\": \"\\ud83d\",\n\"\\uDE00\": 1}", &[(2, r"`\ud83d`"), (3, r"`\uDE00`")]);
        check("a: \"x\n  \\ud83d\\ud83d\\ude00\"\n", &[(2, r"`\ud83d`")]);
        check("a: \"\\ude00\\ud83d\"\n", &[(1, r"`\ude00`"), (1, r"`\ud83d`")]);
    }
}
