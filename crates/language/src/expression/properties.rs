//! Properties that hold for every expression and every message, tested with generated ones.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// A step of a path through a `Value`.
#[derive(Clone, Debug)]
enum Step {
    Name(String),
    Index(usize),
}

/// Follows `path` through a document in memory: the simplest implementation of a path.
fn at<'v>(value: &'v Value, path: &[Step]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Name(name) => value.as_object()?.get(name),
        Step::Index(index) => value.as_array()?.get(*index),
    })
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(item_text_of).collect::<Vec<_>>().join(", ")),
        item => item_text_of(item),
    }
}

fn item_text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns true if `Value` keeps the spelling of the value. It drops repeated names and rewrites escapes in objects.
fn keeps_spelling(value: &Value) -> bool {
    match value {
        Value::Object(_) => false,
        Value::Array(items) => items.iter().all(|item| !item.is_array() && !item.is_object()),
        _ => true,
    }
}

fn expression_of(path: &[Step]) -> String {
    let steps = path.iter().map(|step| match step {
        Step::Name(name) => format!("['{}']", name.replace('\\', r"\\").replace('\'', r"\'")),
        Step::Index(index) => format!("[{index}]"),
    });
    format!("${{request.body{}}}", steps.collect::<String>())
}

/// Generates one of a few names, so that paths find values and names repeat.
fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[abc]", Just("é".to_owned()), Just("'\\\"".to_owned()), Just(String::new())]
}

fn path() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(prop_oneof![name().prop_map(Step::Name), (0..4usize).prop_map(Step::Index)], 1..5)
}

/// Generates a JSON string, with or without unnecessary escapes.
fn string(content: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (content, any::<bool>()).prop_map(|(content, escaped)| {
        if !escaped {
            return Value::from(content).to_string();
        }
        let units = content.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
        format!("\"{}\"", units.collect::<String>())
    })
}

/// Generates JSON text with blanks, escapes and repeated names.
fn document() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        prop_oneof![Just("true"), Just("false"), Just("null"), Just("0.5"), Just("{ }"), Just("[\t]")]
            .prop_map(str::to_owned),
        string("\\PC{0,6}"),
    ];
    let blank = "[ \t\r\n]{0,2}";
    leaf.prop_recursive(6, 64, 5, move |value| {
        prop_oneof![
            (prop::collection::vec(value.clone(), 0..5), blank)
                .prop_map(|(items, blank)| format!("[{blank}{}{blank}]", items.join(&format!("{blank},{blank}")))),
            (prop::collection::vec((string(name()), value), 0..6), blank).prop_map(|(members, blank)| {
                let members = members.into_iter().map(|(name, value)| format!("{blank}{name}{blank}:{blank}{value}"));
                format!("{{{}{blank}}}", members.collect::<Vec<_>>().join(&format!("{blank},")))
            }),
        ]
    })
}

/// Generates text that often looks like an expression.
fn expression_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("$request.body".to_owned()),
        Just("${request.body".to_owned()),
        "[.$\\\\{}\\[\\]'\"*:?0-9a-c]{1,3}",
        "\\PC{0,4}",
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn parse(expression: &str) -> SelectionExpression {
    SelectionExpression::parse(expression).expect("a valid expression")
}

proptest! {
    #[test]
    fn parsing_and_evaluating_any_text_never_panics(expression in expression_text(), message in ".{0,40}") {
        if let Ok(expression) = SelectionExpression::parse(&expression) {
            let _ = expression.evaluate(&message);
        }
        if let Ok(path) = BodyPath::parse(&expression) {
            let _ = path.evaluate(&message);
        }
        let _ = UriTemplate::parse(&expression);
        let _ = Source::parse(&expression);
        let _ = Destination::parse(&expression);
        let _ = RouteParameter::parse(&expression);
    }

    #[test]
    fn a_damaged_document_never_panics_and_is_json_only_if_serde_json_says_so(
        paths in prop::collection::vec(path(), 1..4),
        document in document(),
        cut in any::<prop::sample::Index>(),
        inserted in "[\\[\\]{}\",:\\\\0a ]?",
    ) {
        let expression = parse(&paths.iter().map(|path| expression_of(path)).collect::<String>());
        let cut = document.floor_char_boundary(cut.index(document.len()));
        for message in [document[..cut].to_owned(), format!("{}{inserted}{}", &document[..cut], &document[cut..])] {
            // Damage can leave half of a surrogate pair, which makes no difference.
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&message).is_ok();
            prop_assert_eq!(expression.evaluate(&message).is_some(), is_json);
        }
    }

    #[test]
    fn selecting_agrees_with_walking_a_document_in_memory(
        paths in prop::collection::vec(path(), 1..6),
        document in document(),
    ) {
        let value: Value = serde_json::from_str(&document).expect("generated JSON");
        let pretty = serde_json::to_string_pretty(&value).expect("a value is JSON");
        let expression = parse(&paths.iter().map(|path| expression_of(path)).collect::<Vec<_>>().join("|"));
        let found: Vec<_> = paths.iter().map(|path| at(&value, path)).collect();

        let expected = found.iter().map(|value| value.map(text_of).unwrap_or_default()).collect::<Vec<_>>().join("|");
        prop_assert_eq!(expression.evaluate(&pretty), Some(expected.as_str().into()));
        if found.iter().flatten().all(|value| keeps_spelling(value)) {
            prop_assert_eq!(expression.evaluate(&document), Some(expected.into()));
        }
        for (path, value) in paths.iter().zip(found) {
            let selected = parse(&expression_of(path)).evaluate(&document).expect("JSON").into_owned();
            match value {
                None => prop_assert_eq!(selected, ""),
                Some(value) if value.is_object() => {
                    prop_assert_eq!(&serde_json::from_str::<Value>(&selected).expect("an object is its JSON"), value);
                }
                Some(_) => {}
            }
        }
    }
}

/// Runs `test` on a stack that recursion over the depth of a message would overflow.
fn with_a_small_stack(test: fn()) {
    let thread = std::thread::Builder::new().stack_size(256 * 1024).spawn(test).expect("a thread starts");
    thread.join().expect("the test passes");
}

#[test]
fn a_message_100_000_levels_deep_costs_no_stack() {
    with_a_small_stack(|| {
        let depth = 100_000;
        let arrays = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let objects = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));

        assert_eq!(parse("$request.body.a").evaluate(&arrays).as_deref(), Some(""));
        assert_eq!(parse("fixed").evaluate(&objects).as_deref(), Some("fixed"));
        assert_eq!(parse("$request.body[0]").evaluate(&arrays).as_deref(), Some(&arrays[1..2 * depth - 1]));
        assert_eq!(parse("$request.body.a").evaluate(&objects).as_deref(), Some(&objects[5..objects.len() - 1]));
        let wrapped = format!("{{\"x\":[{objects} , 1]}}");
        assert_eq!(parse("$request.body.x").evaluate(&wrapped), Some(format!("[{objects}, 1]").into()));
        let unclosed = "[".repeat(128 * 1024);
        assert_eq!(parse("$request.body.a").evaluate(&unclosed), None);
        assert_eq!(parse("$request.body[0]").evaluate(&unclosed), None);
    });
}

#[test]
fn the_deepest_path_costs_little_stack() {
    with_a_small_stack(|| {
        let path = ".a[0]".repeat(PATH_STEPS_MAX / 2);
        let message = format!("{}\"x\"{}", "{\"a\":[".repeat(PATH_STEPS_MAX / 2), "]}".repeat(PATH_STEPS_MAX / 2));
        assert_eq!(parse(&format!("$request.body{path}")).evaluate(&message).as_deref(), Some("x"));
    });
}
