//! What is sent, and how a receiver tells that it is just that: a wrong byte is an error, never throughput.

use std::fmt::Write as _;

/// Digits of a number in a payload.
const DIGITS: usize = 10;

/// Asks the backend for the connection's id.
pub(crate) const WHOAMI: &str = "{\"action\":\"whoami\"}";

/// The key of one of the routes that messages are for.
pub(crate) fn route_key(number: usize) -> String {
    format!("echo{number}")
}

/// The messages of one client: JSON with a number and padding.
pub(crate) struct Messages {
    head: String,
    tail: String,
}

impl Messages {
    /// Messages of client `client` to its route of so many, of `bytes` bytes if that is enough.
    pub(crate) fn new(client: usize, routes: usize, bytes: usize) -> Self {
        let route = route_key(client % routes.max(1));
        let head = format!("{{\"action\":\"{route}\",\"client\":{client},\"number\":\"");
        let (before, after) = ("\",\"text\":\"", "\"}");
        let padding = bytes.saturating_sub(head.len() + DIGITS + before.len() + after.len());
        Messages { head, tail: format!("{before}{}{after}", "x".repeat(padding)) }
    }

    pub(crate) fn text(&self, number: u64) -> String {
        let mut text = String::with_capacity(self.head.len() + DIGITS + self.tail.len());
        text.push_str(&self.head);
        write!(text, "{number:0DIGITS$}").expect("a string takes everything");
        text.push_str(&self.tail);
        text
    }

    /// The number of a message of this client; none if it differs from it anywhere.
    pub(crate) fn number(&self, text: &str) -> Option<u64> {
        let number = text.strip_prefix(self.head.as_str())?.strip_suffix(self.tail.as_str())?;
        if number.len() == DIGITS { number.parse().ok() } else { None }
    }
}

/// The posts to all clients: the client, its number, when it was due, padding.
pub(crate) struct Posts {
    tail: String,
}

/// What a post says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Post {
    pub(crate) client: usize,
    pub(crate) number: u64,
    pub(crate) due: u64,
}

const POST_HEAD: &str = "post ";
const POST_DUE_DIGITS: usize = 20;

impl Posts {
    /// Posts of `bytes` bytes if that is enough.
    pub(crate) fn new(bytes: usize) -> Self {
        let head = POST_HEAD.len() + DIGITS + 1 + DIGITS + 1 + POST_DUE_DIGITS + 1;
        Posts { tail: "y".repeat(bytes.saturating_sub(head)) }
    }

    pub(crate) fn text(&self, post: &Post) -> String {
        let Post { client, number, due } = post;
        format!("{POST_HEAD}{client:0DIGITS$} {number:0DIGITS$} {due:0POST_DUE_DIGITS$} {}", self.tail)
    }

    /// What a post says; none if it differs from a post anywhere.
    pub(crate) fn read(&self, text: &str) -> Option<Post> {
        let numbers = text.strip_prefix(POST_HEAD)?.strip_suffix(self.tail.as_str())?.strip_suffix(' ')?;
        let mut numbers = numbers.split(' ');
        let post = Post {
            client: numbers.next()?.parse().ok()?,
            number: numbers.next()?.parse().ok()?,
            due: numbers.next()?.parse().ok()?,
        };
        numbers.next().is_none().then_some(post)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_back_only_by_its_client_and_only_whole() {
        let messages = Messages::new(7, 3, 128);
        let text = messages.text(42);
        assert_eq!(text.len(), 128);
        assert_eq!(messages.number(&text), Some(42));
        assert_eq!(Messages::new(8, 3, 128).number(&text), None);
        assert_eq!(messages.number(&text[..127]), None);
        assert_eq!(messages.number(&text.replace("xxxx", "xxyx")), None);
    }

    #[test]
    fn a_post_is_read_back_only_whole() {
        let posts = Posts::new(128);
        let post = Post { client: 3, number: 9, due: 1_234_567 };
        let text = posts.text(&post);
        assert_eq!(text.len(), 128);
        assert_eq!(posts.read(&text), Some(post));
        assert_eq!(posts.read(&text[..127]), None);
        assert_eq!(posts.read("hello"), None);
    }
}
