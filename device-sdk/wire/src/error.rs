use thiserror::Error;

use crate::{MAX_DEVICE_BYTES, VERSION};

/// Why a name cannot be a device's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DeviceNameError {
    /// The name has no characters.
    #[error("the device name is empty")]
    Empty,
    /// The name has more than [`MAX_DEVICE_BYTES`] bytes.
    #[error("the device name has {bytes} bytes, at most {MAX_DEVICE_BYTES} are allowed")]
    TooLong {
        /// The name's length in bytes.
        bytes: usize,
    },
    /// The name has a character that is not allowed.
    #[error("the device name has {character:?} at byte {at}; allowed are ASCII letters, digits, '-', '_', '.' and ':'")]
    Character {
        /// The first such character.
        character: char,
        /// Its offset in bytes.
        at: usize,
    },
}

/// Why an envelope could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The device's name is not one.
    #[error(transparent)]
    Device(#[from] DeviceNameError),
    /// The sequence is 0; the first event after a boot has sequence 1.
    #[error("the sequence is 0, the first event of a boot has sequence 1")]
    ZeroSequence,
    /// The buffer is too small for the header and the payload.
    #[error("the buffer has {available} bytes, the envelope and its payload need {needed}")]
    BufferTooSmall {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        available: usize,
    },
}

/// Why bytes that begin with the envelope's magic are not an envelope. Such a message must not be taken for a
/// plain payload: its sender meant it to have an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The version is one that this crate does not know.
    #[error("envelope version {version} is unknown, this reader knows {VERSION}")]
    UnknownVersion {
        /// The version byte.
        version: u8,
    },
    /// The bytes end inside the header.
    #[error("the envelope ends inside its header")]
    Truncated,
    /// A varint has more bytes than its value needs, or more than its type can hold.
    #[error("a number in the envelope is not a varint in its shortest form, or is too large for its field")]
    Varint,
    /// The device's name is not UTF-8.
    #[error("the device name in the envelope is not UTF-8")]
    DeviceNotText,
    /// The device's name is not one.
    #[error(transparent)]
    Device(#[from] DeviceNameError),
    /// The sequence is 0; the first event after a boot has sequence 1.
    #[error("the envelope's sequence is 0, the first event of a boot has sequence 1")]
    ZeroSequence,
}
