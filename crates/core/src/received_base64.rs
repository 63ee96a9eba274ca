//! Decoding of base64 that other programs have written.

use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine as _};

/// The decoder: standard alphabet, padding required. Unused bits of the last character may have any value, as in most
/// decoders: a key that RFC 6455 shows as an example has such bits. Not for ids and signatures, which must have only
/// one spelling.
const ENGINE: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// Decodes `text`.
///
/// # Errors
/// Returns an error if `text` has a character outside the standard alphabet, wrong padding, or a length that base64
/// cannot have.
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
