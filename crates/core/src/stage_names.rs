//! Sets of stage names, in the form in which one node sends them to another.

use std::collections::BTreeSet;

use bytes::Bytes;

/// Longest encoding of a set, in bytes: room for five hundred stages with the longest names.
pub const MAX_BYTES: usize = u16::MAX as usize;

/// A set of stage names in its encoded form: for each name one byte with its length, then its bytes. `B` holds the
/// encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageNames<B>(B);

impl StageNames<Bytes> {
    /// Encodes `names`, which may have any order. Leaves out a name that is longer than 255 bytes, which no stage's
    /// name is, and a name for which [`MAX_BYTES`] leaves no room.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut bytes = Vec::new();
        for name in names.into_iter().collect::<BTreeSet<_>>() {
            let Ok(length) = u8::try_from(name.len()) else { continue };
            if bytes.len() + 1 + name.len() <= MAX_BYTES {
                bytes.push(length);
                bytes.extend_from_slice(name.as_bytes());
            }
        }
        StageNames(bytes.into())
    }
}

impl<B: AsRef<[u8]>> StageNames<B> {
    /// Parses the encoding of a set. Returns `None` if the last name is cut short.
    pub fn parse(bytes: B) -> Option<Self> {
        let names = StageNames(bytes);
        let mut rest = names.0.as_ref();
        while !rest.is_empty() {
            rest = split_name(rest)?.1;
        }
        Some(names)
    }

    /// Returns true if the set contains `stage`.
    pub fn has(&self, stage: &str) -> bool {
        let mut rest = self.0.as_ref();
        while let Some((name, behind)) = split_name(rest) {
            if name == stage.as_bytes() {
                return true;
            }
            rest = behind;
        }
        false
    }

    /// Returns the same set, with a borrowed encoding.
    pub fn borrowed(&self) -> StageNames<&[u8]> {
        StageNames(self.0.as_ref())
    }

    /// Returns the encoding that [`StageNames::parse`] reads.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_ref()
    }
}

/// Splits off the first name. Returns the name and the bytes after it.
fn split_name(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_found_again_and_no_others() {
        let long = "a".repeat(256);
        let names = StageNames::new(["prod", "dev", "prod", &long]);
        assert_eq!(names.bytes(), b"\x03dev\x04prod");
        let names = StageNames::parse(names.bytes()).expect("names");
        for (stage, expected) in [("prod", true), ("dev", true), ("pro", false), ("prods", false), ("", false)] {
            assert_eq!(names.has(stage), expected, "{stage}");
        }
        assert!(!names.has(&long));
        let many: Vec<String> = (0..1000).map(|number| format!("{number:0128}")).collect();
        assert!((60_000..=MAX_BYTES).contains(&StageNames::new(many.iter().map(String::as_str)).bytes().len()));
        let none = StageNames::new([]);
        assert!(none.bytes().is_empty() && !none.has("prod"));
        assert!(StageNames::parse(b"\x05prod".as_slice()).is_none());
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..40), stage in ".*") {
            if let Some(names) = StageNames::parse(bytes.as_slice()) {
                let _ = names.has(&stage);
            }
        }
    }
}
