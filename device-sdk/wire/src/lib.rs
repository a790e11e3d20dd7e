//! The bytes between a device and a gateway: the envelope that gives an event its identity.
//!
//! An MQTT payload with an envelope says which event it is: (device, boot epoch, sequence). A gateway uses that
//! to give each event its effect once, however often it arrives. A payload without an envelope is an ordinary
//! payload: it is handled at least once.
//!
//! # Layout, version 1
//!
//! | bytes | what |
//! |---|---|
//! | `FF 45 56` | magic: `0xFF`, then `E`, `V` |
//! | `01` | version |
//! | varint | length of the device's name, 1 to 64 |
//! | that many | the device's name: ASCII letters, digits, `-`, `_`, `.` and `:` |
//! | varint | boot epoch, 32 bits: increases with each boot of the device |
//! | varint | sequence, 64 bits: 1 for the first event after a boot, then 2, 3, … |
//! | the rest | the payload, as the function will see it; it may be empty |
//!
//! From the length of the name on, the header is [postcard]'s encoding of `(name, boot, sequence)`. `0xFF` never
//! begins UTF-8 text (RFC 3629, section 3), hence no JSON; it is not the first byte of a CBOR item (RFC 8949,
//! section 3.2.1, "break") nor of a protobuf message (wire type 7 does not exist). A raw binary payload of
//! another kind that happens to begin with the four bytes would be taken for an envelope.
//!
//! # By hand, for instance in C
//!
//! A varint carries 7 bits a byte, the lowest first; every byte but the last has its top bit set, and there is
//! no byte more than needed (LEB128, unsigned):
//!
//! ```c
//! size_t put_varint(uint8_t *out, uint64_t value) {
//!     size_t n = 0;
//!     while (value >= 0x80) { out[n++] = (uint8_t)value | 0x80; value >>= 7; }
//!     out[n++] = (uint8_t)value;
//!     return n;
//! }
//! ```
//!
//! The device `t-1` in its boot 3 sends its event 300 with the payload `{"c":21}`:
//!
//! ```text
//! FF 45 56          magic
//! 01                version
//! 03                the name has 3 bytes
//! 74 2D 31          t - 1
//! 03                boot 3
//! AC 02             300 = 0b10_0101100: the low 7 bits are 0x2C, with the top bit 0xAC; then 0b10 = 0x02
//! 7B 22 63 22 3A 32 31 7D   {"c":21}
//! ```
//!
//! ```
//! use device_wire::Envelope;
//!
//! let event = Envelope { device: "t-1", boot: 3, sequence: 300, payload: br#"{"c":21}"# };
//! let mut bytes = [0; 32];
//! let length = event.encode(&mut bytes)?;
//! assert_eq!(bytes[..length], *b"\xFFEV\x01\x03t-1\x03\xAC\x02{\"c\":21}");
//! assert_eq!(Envelope::decode(&bytes[..length]).unwrap(), Some(event));
//! assert_eq!(Envelope::decode(br#"{"c":21}"#).unwrap(), None);
//! # Ok::<(), device_wire::EncodeError>(())
//! ```
//!
//! [postcard]: https://postcard.jamesmunns.com/wire-format
#![no_std]

mod envelope;
mod error;

pub use envelope::Envelope;
pub use error::{DecodeError, DeviceNameError, EncodeError};

/// The first bytes of every envelope, before the version.
pub const MAGIC: [u8; 3] = [0xFF, b'E', b'V'];

/// The version that this crate writes, and the only one that it reads.
pub const VERSION: u8 = 1;

/// The longest device name, in bytes. It fits into one topic level with room to spare, and keeps the length
/// varint at one byte.
pub const MAX_DEVICE_BYTES: usize = 64;

/// The most bytes that an envelope adds to its payload: magic, version, length, name, boot (at most 5 bytes as
/// a varint) and sequence (at most 10).
pub const MAX_HEADER_BYTES: usize = MAGIC.len() + 1 + 1 + MAX_DEVICE_BYTES + 5 + 10;

/// How far a device may run ahead of its acknowledgements: an event may be sent only while its sequence is less
/// than `WINDOW` above the oldest event that is not acknowledged. So at most this many are outstanding, and an
/// event that arrives for the first time is never more than `WINDOW - 1` behind the newest one.
///
/// A gateway remembers, for each boot of a device, which of the last so many sequences it has seen, and treats
/// what is older as seen. That memory must span at least `2 * WINDOW` (this project's gateway keeps 128 and
/// asserts the relation when it is compiled): a device that ran further ahead than the memory reaches would
/// see first sendings discarded as duplicates. The factor of two leaves room for copies which a broken
/// connection still delivers late. Larger: more RAM in each device and a longer memory in each gateway; smaller: fewer events
/// per round trip on slow links.
pub const WINDOW: usize = 32;

/// Whether a name can be a device's name.
///
/// # Errors
///
/// [`DeviceNameError`] if it is empty, longer than [`MAX_DEVICE_BYTES`], or has a character other than ASCII
/// letters, digits, `-`, `_`, `.` and `:` (so that it is safe as an MQTT topic level, an MQTT client identifier
/// and a file name on Unix).
pub fn check_device(name: &str) -> Result<(), DeviceNameError> {
    if name.is_empty() {
        return Err(DeviceNameError::Empty);
    }
    if name.len() > MAX_DEVICE_BYTES {
        return Err(DeviceNameError::TooLong { bytes: name.len() });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    match name.char_indices().find(|&(_, c)| !allowed(c)) {
        Some((at, character)) => Err(DeviceNameError::Character { character, at }),
        None => Ok(()),
    }
}
