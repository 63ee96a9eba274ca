//! Base64 that somebody else has written.

use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine as _};

/// Reads the standard alphabet with its padding. The bits behind the last byte may have any value, as for most readers:
/// RFC 6455's own example of a key has some. Not for ids and signatures, which must have one spelling.
const ENGINE: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// Decodes base64 that was received.
///
/// # Errors
/// Another alphabet, no padding where it must be, or a length that base64 does not have.
pub fn decode(text: impl AsRef<[u8]>) -> Result<Vec<u8>, DecodeError> {
    ENGINE.decode(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_bits_do_not_matter_and_all_else_does() {
        for (text, expected) in [("", &b""[..]), ("aGk=", b"hi"), ("aGl=", b"hi"), ("aA==", b"h"), ("aP==", b"h")] {
            assert_eq!(decode(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["aGk", "aGk==", "aG k=", "aG-_", "a===", "=", "aGk=aGk="] {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}
