/// A pattern in which `*` stands for any characters and `?` for exactly one.
///
/// Matching never backtracks over a `*`: each piece between two stars is searched once, from the left, after the end of
/// the previous piece. Without `?` the time is linear in the length of the text for every pattern. A piece with `?`
/// takes at most the length of the text times the length of the piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wildcard {
    /// Pieces between the stars. A pattern without a star is one piece.
    pieces: Box<[Piece]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    text: Box<str>,
    chars: usize,
    has_question_mark: bool,
}

impl Wildcard {
    /// Compiles a pattern. Every text is a valid pattern.
    pub fn new(pattern: &str) -> Self {
        let piece = |text: &str| Piece {
            text: text.into(),
            chars: text.chars().count(),
            has_question_mark: text.contains('?'),
        };
        Wildcard { pieces: pattern.split('*').map(piece).collect() }
    }

    /// Returns true if the pattern matches the whole of `text`.
    pub fn matches(&self, text: &str) -> bool {
        let (first, rest) = match &*self.pieces {
            [] => return text.is_empty(),
            [only] => return only.at_start_of(text) == Some(text.len()),
            [first, rest @ ..] => (first, rest),
        };
        let (last, middle) = match rest {
            [] => return false,
            [middle @ .., last] => (last, middle),
        };
        let Some(mut start) = first.at_start_of(text) else { return false };
        for piece in middle {
            match piece.find_in(&text[start..]) {
                Some(length) => start += length,
                None => return false,
            }
        }
        last.is_end_of(&text[start..])
    }
}

impl Piece {
    /// Returns the number of bytes that the piece matches at the start of `text`.
    fn at_start_of(&self, text: &str) -> Option<usize> {
        if !self.has_question_mark {
            return text.starts_with(&*self.text).then_some(self.text.len());
        }
        let mut rest = text.chars();
        for wanted in self.text.chars() {
            let found = rest.next()?;
            if wanted != '?' && wanted != found {
                return None;
            }
        }
        Some(text.len() - rest.as_str().len())
    }

    /// Returns the end of the first match of the piece in `text`.
    fn find_in(&self, text: &str) -> Option<usize> {
        if !self.has_question_mark {
            return text.find(&*self.text).map(|at| at + self.text.len());
        }
        text.char_indices().find_map(|(at, _)| self.at_start_of(&text[at..]).map(|length| at + length))
    }

    fn is_end_of(&self, text: &str) -> bool {
        if !self.has_question_mark {
            return text.ends_with(&*self.text);
        }
        let start = text.char_indices().rev().nth(self.chars.saturating_sub(1)).map(|(at, _)| at);
        start.is_some_and(|start| self.at_start_of(&text[start..]).is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_stand_for_anything_and_question_marks_for_one_character() {
        let check = |pattern: &str, text: &str, expected: bool| {
            assert_eq!(Wildcard::new(pattern).matches(text), expected, "{pattern} {text}");
        };
        check("", "", true);
        check("", "a", false);
        check("*", "", true);
        check("*", "anything/at:all", true);
        check("a", "a", true);
        check("a", "ab", false);
        check("a*", "a", true);
        check("a*", "abc", true);
        check("*c", "abc", true);
        check("*c", "abcd", false);
        check("a*c", "ac", true);
        check("a*c", "abc", true);
        check("a*a", "a", false);
        check("a*b*c", "a-b-b-c", true);
        check("*a*a*a*b", "aaab", true);
        check("*a*a*a*b", "aaaa", false);
        check("**", "x", true);
        check("?", "a", true);
        check("?", "", false);
        check("?", "ab", false);
        check("?", "é", true);
        check("a?c*", "abcd", true);
        check("*?", "", false);
        check("*?", "x", true);
        check("*?b", "ab", true);
        check("*?b", "b", false);
        check("*a?c*e", "xxabcde", true);
        check("*a?c*e", "xxaxxcde", false);
        check("*é?", "caféx", true);
        check("A", "a", false);
    }

    #[test]
    fn a_hostile_pattern_takes_no_longer_than_a_plain_one() {
        let pattern = Wildcard::new(&format!("{}b", "*a".repeat(2000)));
        let text = "a".repeat(200_000);
        let started = Instant::now();
        assert!(!pattern.matches(&text));
        assert!(started.elapsed() < Duration::from_secs(2));
    }

    /// Matches by trying every possibility.
    fn tried(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', rest @ ..] => (0..=text.len()).any(|skipped| tried(rest, &text[skipped..])),
            ['?', rest @ ..] => !text.is_empty() && tried(rest, &text[1..]),
            [first, rest @ ..] => text.first() == Some(first) && tried(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_trying_everything(pattern in "[ab?*é]{0,8}", text in "[abé]{0,8}") {
            let [p, t] = [&pattern, &text].map(|text| text.chars().collect::<Vec<_>>());
            prop_assert_eq!(Wildcard::new(&pattern).matches(&text), tried(&p, &t));
        }

        #[test]
        fn any_pattern_and_any_text_never_panic(pattern in ".*", text in ".*") {
            let _ = Wildcard::new(&pattern).matches(&text);
        }
    }
}
