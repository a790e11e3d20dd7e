use serde::{Deserialize, Serialize};

use crate::{DecodeError, EncodeError, MAGIC, MAX_HEADER_BYTES, VERSION, check_device};

/// An event's identity and its payload. See the [crate's documentation](crate) for the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The device's name, see [`check_device`].
    pub device: &'a str,
    /// The boot epoch: a number that increases with each boot of the device.
    pub boot: u32,
    /// The event's number since that boot. The first event has 1.
    pub sequence: u64,
    /// What the device has to say, in whatever encoding it likes.
    pub payload: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct Header<'a> {
    device: &'a str,
    boot: u32,
    sequence: u64,
}

const PREFIX_BYTES: usize = MAGIC.len() + 1;

impl<'a> Envelope<'a> {
    /// How many bytes [`encode`](Self::encode) writes for this envelope: at most [`MAX_HEADER_BYTES`] and the
    /// payload.
    pub fn encoded_len(&self) -> usize {
        PREFIX_BYTES
            + varint_len(self.device.len() as u64)
            + self.device.len()
            + varint_len(u64::from(self.boot))
            + varint_len(self.sequence)
            + self.payload.len()
    }

    /// Writes the envelope and its payload to the start of `out` and returns how many bytes it wrote.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if the device's name is not one, the sequence is 0, or `out` is too small. A buffer of
    /// [`MAX_HEADER_BYTES`] and the payload's length is always large enough. What `out` holds after an error is
    /// not specified.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        check_device(self.device)?;
        if self.sequence == 0 {
            return Err(EncodeError::ZeroSequence);
        }
        let (needed, available) = (self.encoded_len(), out.len());
        let out = out.get_mut(..needed).ok_or(EncodeError::BufferTooSmall { needed, available })?;

        let (prefix, rest) = out.split_at_mut(PREFIX_BYTES);
        prefix[..MAGIC.len()].copy_from_slice(&MAGIC);
        prefix[MAGIC.len()] = VERSION;
        let header = Header { device: self.device, boot: self.boot, sequence: self.sequence };
        let header_len = postcard::to_slice(&header, rest)
            .expect("a header of two numbers and a string fits where its length was reckoned")
            .len();
        rest[header_len..].copy_from_slice(self.payload);
        Ok(needed)
    }

    /// Reads an envelope. `Ok(None)` means that there is none: the bytes do not begin with [`MAGIC`] and are a
    /// plain payload.
    ///
    /// Exactly one sequence of bytes stands for each envelope: what was decoded encodes to the same bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the bytes begin with [`MAGIC`] but are not an envelope of a version known here.
    pub fn decode(bytes: &'a [u8]) -> Result<Option<Self>, DecodeError> {
        let Some(rest) = bytes.strip_prefix(&MAGIC) else {
            return Ok(None);
        };
        let (&version, rest) = rest.split_first().ok_or(DecodeError::Truncated)?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { version });
        }
        let (header, payload): (Header<'a>, _) = postcard::take_from_bytes(rest).map_err(|error| match error {
            postcard::Error::DeserializeUnexpectedEnd => DecodeError::Truncated,
            postcard::Error::DeserializeBadUtf8 => DecodeError::DeviceNotText,
            _ => DecodeError::Varint,
        })?;
        check_device(header.device)?;
        if header.sequence == 0 {
            return Err(DecodeError::ZeroSequence);
        }
        let envelope = Self { device: header.device, boot: header.boot, sequence: header.sequence, payload };
        // postcard reads a padded varint (80 00 for 0) too, and how much padding depends on the target's usize.
        if envelope.encoded_len() != bytes.len() {
            return Err(DecodeError::Varint);
        }
        Ok(Some(envelope))
    }
}

/// The bytes of a number as a varint: 7 bits each, and one for 0.
const fn varint_len(value: u64) -> usize {
    let bits = u64::BITS - value.leading_zeros();
    if bits == 0 { 1 } else { bits.div_ceil(7) as usize }
}

const _: () = assert!(
    MAX_HEADER_BYTES
        == PREFIX_BYTES
            + varint_len(crate::MAX_DEVICE_BYTES as u64)
            + crate::MAX_DEVICE_BYTES
            + varint_len(u32::MAX as u64)
            + varint_len(u64::MAX)
);
