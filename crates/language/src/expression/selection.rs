//! Selection of the values at several paths of one message, in one pass over the message.
//!
//! serde_json reads the message as a stream. Along the paths, `deserialize_map` and `deserialize_seq` recurse, at most
//! [`super::PATH_STEPS_MAX`] deep. Every other value is skipped as a [`RawValue`]; for that serde_json uses a loop and
//! a heap-allocated stack of one byte per level, without its recursion limit.
//!
//! A raw value is a slice of the message, so its end is known. Each visit returns that offset, from which the first
//! byte of the next value is found before serde_json reads it: only a value that begins like an object is read as one.
//! The obvious `deserialize_any` would decode numbers and strings that no path selects, and fail on `1e999`.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::path::Step;
use super::text;
use tidegate_core::json;

/// The paths of an expression's variables, as a tree: paths with the same beginning share nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Variables {
    root: Node,
    count: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    /// Variable whose path ends at this node.
    variable: Option<usize>,
    names: BTreeMap<Box<str>, Node>,
    indexes: BTreeMap<usize, Node>,
}

impl Variables {
    /// Returns the number of different paths.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Adds a path and returns its variable: its index in the values that [`Variables::select`] finds.
    pub(super) fn insert(&mut self, steps: &[Step]) -> usize {
        let end = steps.iter().fold(&mut self.root, |node, step| match step {
            Step::Name(name) => node.names.entry(name.clone()).or_default(),
            Step::Index(index) => node.indexes.entry(*index).or_default(),
        });
        *end.variable.get_or_insert_with(|| {
            self.count += 1;
            self.count - 1
        })
    }

    /// Sets in `values`, which has [`Variables::count`] items, the JSON text of each variable that the message has. Of
    /// members with the same name the last one is used. A byte order mark is ignored.
    ///
    /// # Errors
    /// Returns the error of serde_json if the message is not JSON.
    pub(super) fn select<'m>(&self, message: &'m str, values: &mut [Option<&'m str>]) -> serde_json::Result<()> {
        let message = json::without_mark(message);
        let mut deserializer = serde_json::Deserializer::from_str(message);
        let message = Message(message);
        Visit { message, start: message.skip_blanks(0), node: &self.root, values }.deserialize(&mut deserializer)?;
        deserializer.end()
    }
}

impl Node {
    /// Returns the node of a member. `name` is spelled as in the message, with quotes.
    fn member(&self, name: &str) -> Option<&Node> {
        self.names.get(&*text::of_string(name)?)
    }

    /// Clears the values that an earlier member with the same name has set.
    fn forget(&self, values: &mut [Option<&str>]) {
        if let Some(variable) = self.variable {
            values[variable] = None;
        }
        for child in self.names.values().chain(self.indexes.values()) {
            child.forget(values);
        }
    }
}

#[derive(Clone, Copy)]
struct Message<'m>(&'m str);

impl<'m> Message<'m> {
    /// Returns the first offset from `offset` on that is not a blank.
    fn skip_blanks(self, offset: usize) -> usize {
        let rest = self.0.as_bytes().get(offset..).unwrap_or_default();
        offset + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
    }

    /// Returns the offset of the value after `offset`, with one `:` or `,` between them.
    fn skip_separator(self, offset: usize) -> usize {
        self.skip_blanks(self.skip_blanks(offset) + 1)
    }

    /// Returns the offset after the closing bracket that follows `offset`.
    fn skip_close(self, offset: usize) -> usize {
        self.skip_blanks(offset) + 1
    }

    /// Returns the offset after a raw value, which is a slice of this message.
    fn end_of(self, value: &'m RawValue) -> usize {
        value.get().as_ptr().addr() - self.0.as_ptr().addr() + value.get().len()
    }
}

/// A visit of the value that starts at `start`: it sets the values that `node` selects and returns the offset after the
/// value.
struct Visit<'n, 'm, 'v> {
    message: Message<'m>,
    start: usize,
    node: &'n Node,
    values: &'v mut [Option<&'m str>],
}

impl<'m> DeserializeSeed<'m> for Visit<'_, 'm, '_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'m>>(self, deserializer: D) -> Result<usize, D::Error> {
        let Visit { message, start, node, values } = self;
        let inside = Visit { message, start, node, values: &mut *values };
        let end = match message.0.as_bytes().get(start) {
            Some(b'{') if !node.names.is_empty() => deserializer.deserialize_map(inside)?,
            Some(b'[') if !node.indexes.is_empty() => deserializer.deserialize_seq(inside)?,
            _ => message.end_of(<&'m RawValue>::deserialize(deserializer)?),
        };
        if let Some(variable) = node.variable {
            values[variable] = message.0.get(start..end);
        }
        Ok(end)
    }
}

impl<'m> Visitor<'m> for Visit<'_, 'm, '_> {
    type Value = usize;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'m>>(self, mut members: A) -> Result<usize, A::Error> {
        let Visit { message, start, node, values } = self;
        let mut end = start + 1;
        // A name is read as a raw value too: decoding it would fail for half of a surrogate pair.
        while let Some(name) = members.next_key::<&'m RawValue>()? {
            end = match node.member(name.get()) {
                Some(node) => {
                    node.forget(values);
                    let start = message.skip_separator(message.end_of(name));
                    members.next_value_seed(Visit { message, start, node, values: &mut *values })?
                }
                None => message.end_of(members.next_value::<&'m RawValue>()?),
            };
        }
        Ok(message.skip_close(end))
    }

    fn visit_seq<A: SeqAccess<'m>>(self, mut items: A) -> Result<usize, A::Error> {
        let Visit { message, start, node, values } = self;
        let mut end = start + 1;
        let mut wanted = node.indexes.iter().peekable();
        for index in 0.. {
            let next = match wanted.next_if(|(wanted, _)| **wanted == index) {
                Some((_, node)) => {
                    let start = if index == 0 { message.skip_blanks(end) } else { message.skip_separator(end) };
                    items.next_element_seed(Visit { message, start, node, values: &mut *values })?
                }
                None => items.next_element::<&'m RawValue>()?.map(|item| message.end_of(item)),
            };
            match next {
                Some(next) => end = next,
                None => break,
            }
        }
        Ok(message.skip_close(end))
    }
}
