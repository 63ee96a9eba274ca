const DEFAULT: usize = 100;
const MAX: usize = 1000;

/// The largest number of entries on one page of a listing: 1 to 1000, and 100 by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimit(usize);

impl Default for PageLimit {
    fn default() -> Self {
        PageLimit(DEFAULT)
    }
}

impl PageLimit {
    /// Parses the parameter `limit` of a call.
    ///
    /// # Errors
    /// Returns the message for the caller if `text` is not a number from 1 to 1000.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let number = text.parse().ok().filter(|number| (1..=MAX).contains(number));
        number.map(PageLimit).ok_or("limit must be 1 to 1000")
    }

    /// Returns the number of entries.
    pub fn get(self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_from_1_to_1000_are_limits() {
        let check = |text: &str, expected: Option<usize>| {
            assert_eq!(PageLimit::parse(text).ok().map(PageLimit::get), expected, "{text}");
        };
        check("1", Some(1));
        check("1000", Some(1000));
        check("0", None);
        check("1001", None);
        check("-1", None);
        check("x", None);
        check("", None);
    }
}
