//! The name of a package's bytes.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::text_form::{self, TextFormError, serde_by_text_or_bytes};

/// SHA-256 over a whole package; as text `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A digest that was computed elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn array(&self) -> [u8; 32] {
        self.0
    }

    fn from_array(bytes: [u8; 32]) -> Option<Self> {
        Some(Self(bytes))
    }
}

serde_by_text_or_bytes!(Digest, 32, "a digest");

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text_form::write(f, "sha256", &self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = TextFormError;

    fn from_str(text: &str) -> Result<Self, TextFormError> {
        let form = "sha256: and 64 digits 0-9a-f";
        text_form::read(text, "sha256").map(Self).ok_or(TextFormError { what: "digest", form })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // FIPS 180-2, appendix B.1: SHA-256 of "abc".
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_digest_survives_its_text_and_both_kinds_of_format() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string(), ABC);
        assert_eq!(ABC.parse(), Ok(digest));
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{ABC}\""));
        assert_eq!(serde_json::from_str::<Digest>(&format!("\"{ABC}\"")).unwrap(), digest);
        let bytes = postcard::to_allocvec(&digest).unwrap();
        assert_eq!(bytes.len(), 33);
        assert_eq!(postcard::from_bytes::<Digest>(&bytes).unwrap(), digest);
        assert!(postcard::from_bytes::<Digest>(&[2, 1, 1]).is_err());
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "sha256:", &ABC[..70], &ABC.to_uppercase(), &ABC.replace("sha256", "sha512"), "sha256:zz"] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        assert!(ABC.replace("ba78", "BA78").parse::<Digest>().is_err());
    }
}
