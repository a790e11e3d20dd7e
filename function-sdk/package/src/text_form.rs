//! Digests, keys and signatures as text: `PREFIX:` and lower-case hexadecimal digits.

use std::fmt;

/// Why a text is no digest, key or signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no {what}; it is written {form}")]
pub struct TextFormError {
    /// What it should have been.
    pub what: &'static str,
    /// How such a text looks.
    pub form: &'static str,
}

/// Writes `prefix:hex`.
pub(crate) fn write(f: &mut fmt::Formatter<'_>, prefix: &str, bytes: &[u8]) -> fmt::Result {
    write!(f, "{prefix}:")?;
    write_hex(f, bytes)
}

/// Writes lower-case hexadecimal digits.
pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Reads `prefix:hex`; upper-case digits are refused, so that equal values are equal texts.
pub(crate) fn read<const N: usize>(text: &str, prefix: &str) -> Option<[u8; N]> {
    read_hex(text.strip_prefix(prefix)?.strip_prefix(':')?)
}

/// Reads lower-case hexadecimal digits.
pub(crate) fn read_hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    if digits.bytes().any(|digit| digit.is_ascii_uppercase()) {
        return None;
    }
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

/// Serde by text where people read, by bytes where machines do. The type has `Display`, `FromStr`,
/// `fn array(&self) -> [u8; N]` and `fn from_array([u8; N]) -> Option<Self>`.
macro_rules! serde_by_text_or_bytes {
    ($name:ty, $len:literal, $what:literal) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.array())
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($what)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<$name, E> {
                        let array = <[u8; $len]>::try_from(bytes).ok();
                        array.and_then(<$name>::from_array).ok_or_else(|| E::invalid_length(bytes.len(), &self))
                    }
                }
                if deserializer.is_human_readable() {
                    deserializer.deserialize_str(Visitor)
                } else {
                    deserializer.deserialize_bytes(Visitor)
                }
            }
        }
    };
}
pub(crate) use serde_by_text_or_bytes;
