use super::{RedisError, Value, read};

/// Text by which a script answers that there is no node key.
const MISSING: &str = "MISSING";

/// Text by which a script answers that it did its work.
pub(crate) const OK: &str = "OK";

/// The node key, as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKey {
    Live { epoch: u64 },
    Dead { epoch: u64 },
    Missing,
}

impl NodeKey {
    /// Reads a node key, or the text by which a script answers that there is none. Returns `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            Some(("live", epoch)) => Some(NodeKey::Live { epoch: epoch.parse().ok()? }),
            Some(("dead", epoch)) => Some(NodeKey::Dead { epoch: epoch.parse().ok()? }),
            Some(_) => None,
            None => (text == MISSING).then_some(NodeKey::Missing),
        }
    }

    /// Returns the key as it stands in Redis, or the text by which a script answers that there is none.
    pub fn to_text(self) -> String {
        match self {
            NodeKey::Live { epoch } => format!("live {epoch}"),
            NodeKey::Dead { epoch } => format!("dead {epoch}"),
            NodeKey::Missing => MISSING.to_owned(),
        }
    }
}

/// The answer of a script that acts for one registration of a node, if the node key allows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeAnswer {
    /// The script did its work.
    Done,
    /// The script did nothing, because this is the node key.
    Refused(NodeKey),
    /// An answer that the script does not give, or a damaged node key.
    Unexpected(String),
}

impl NodeAnswer {
    /// Reads the answer of a script.
    ///
    /// # Errors
    /// [`RedisError::Unexpected`]: the answer is not a text.
    pub fn read(answer: Value) -> Result<Self, RedisError> {
        Ok(NodeAnswer::parse(&read::<String>(answer)?))
    }

    /// Reads the text of an answer.
    pub fn parse(text: &str) -> Self {
        match NodeKey::parse(text) {
            _ if text == OK => NodeAnswer::Done,
            Some(key) => NodeAnswer::Refused(key),
            None => NodeAnswer::Unexpected(text.to_owned()),
        }
    }

    /// Returns the text of the answer.
    pub fn to_text(&self) -> String {
        match self {
            NodeAnswer::Done => OK.to_owned(),
            NodeAnswer::Refused(key) => key.to_text(),
            NodeAnswer::Unexpected(text) => text.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_about_a_node_is_read_and_has_the_text_that_it_was_read_from() {
        let check = |text: &str, expected: NodeAnswer| {
            assert_eq!(NodeAnswer::parse(text), expected, "{text}");
            assert_eq!(expected.to_text(), text);
        };
        check("OK", NodeAnswer::Done);
        check("MISSING", NodeAnswer::Refused(NodeKey::Missing));
        check("live 7", NodeAnswer::Refused(NodeKey::Live { epoch: 7 }));
        check("dead 0", NodeAnswer::Refused(NodeKey::Dead { epoch: 0 }));
        for text in ["", "gone", "live", "live x", "live 7 ", "dying 7", "STALE", "LEFT"] {
            check(text, NodeAnswer::Unexpected(text.to_owned()));
        }
    }
}
