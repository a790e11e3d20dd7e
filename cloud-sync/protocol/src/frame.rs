//! How a message becomes bytes: one byte for the version, then postcard.
//!
//! Postcard does not describe itself, so a field can never be added to a message of a version that is in use: a new
//! shape is a new version, and whoever reads knows from the first byte which one it holds.

use serde::{Serialize, de::DeserializeOwned};

/// The version that this crate writes, and the only one that it reads so far.
pub const VERSION: u8 = 1;

/// The media type of every body.
pub const CONTENT_TYPE: &str = "application/vnd.edge-sync+postcard";

/// The largest body either side accepts, in bytes. A range of records is cut well below it (see
/// [`MAX_RANGE_BYTES`](crate::records::MAX_RANGE_BYTES)); it bounds what one request can make the other side hold.
pub const MAX_BODY_BYTES: usize = 4 << 20;

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// No bytes at all.
    #[error("the body is empty; a version byte and a message were expected")]
    Empty,
    /// Another version.
    #[error("the body is of protocol version {0}; this side speaks version {VERSION}: update the older side")]
    Version(u8),
    /// Longer than is accepted.
    #[error("the body has {bytes} bytes or more; at most {limit} are accepted")]
    TooLong {
        /// How long it is at least.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// Not the message that was expected.
    #[error("the body is not the message that was expected: {0}")]
    Malformed(postcard::Error),
    /// Not compressed as it says.
    #[error("the body cannot be decompressed: {0}")]
    Compressed(String),
    /// Bytes after the message's end.
    #[error("the body has {0} bytes after the message's end")]
    Trailing(usize),
}

/// The bytes of a message.
pub fn encode<M: Serialize>(message: &M) -> Vec<u8> {
    postcard::to_extend(message, vec![VERSION])
        .expect("messages of this crate hold only types that postcard can write, and a Vec takes any number of bytes")
}

/// The message in these bytes.
///
/// # Errors
/// Says what is wrong with the bytes; they came from outside.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, FrameError> {
    if bytes.len() > MAX_BODY_BYTES {
        return Err(FrameError::TooLong { bytes: bytes.len(), limit: MAX_BODY_BYTES });
    }
    match bytes.split_first() {
        None => Err(FrameError::Empty),
        Some((&VERSION, body)) => match postcard::take_from_bytes(body) {
            Ok((message, [])) => Ok(message),
            Ok((_, rest)) => Err(FrameError::Trailing(rest.len())),
            Err(error) => Err(FrameError::Malformed(error)),
        },
        Some((&version, _)) => Err(FrameError::Version(version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Refusal;

    #[test]
    fn bytes_that_are_no_message_are_named() {
        let refusal = Refusal { code: "claim_used".into(), message: "used".into() };
        let mut bytes = encode(&refusal);
        assert_eq!(decode::<Refusal>(&bytes).unwrap(), refusal);
        assert!(matches!(decode::<Refusal>(&[]), Err(FrameError::Empty)));
        assert!(matches!(decode::<Refusal>(&bytes[..4]), Err(FrameError::Malformed(_))));
        bytes.push(0);
        assert!(matches!(decode::<Refusal>(&bytes), Err(FrameError::Trailing(1))));
        bytes[0] = 9;
        assert!(matches!(decode::<Refusal>(&bytes), Err(FrameError::Version(9))));
        assert!(matches!(decode::<Refusal>(&vec![1; MAX_BODY_BYTES + 1]), Err(FrameError::TooLong { .. })));
    }
}
