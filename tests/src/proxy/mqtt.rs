//! As much of MQTT as it takes to see a PUBLISH and a PUBACK: the fixed header, which is the same in 3.1.1 and 5.0
//! (section 2.2 of the first, 2.1 of the second).

use std::io::{self, Read, Write as _};
use std::net::TcpStream;

/// A packet, whole.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    // Where the variable header begins.
    variable: usize,
}

const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBACK: u8 = 9;

/// The largest that the gateway takes by default, in bytes.
const MAX_BYTES: usize = 1 << 20;

impl Packet {
    pub(crate) fn read(packets: &mut impl Read) -> io::Result<Self> {
        let (mut bytes, length) = fixed_header(packets)?;
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, format!("a packet of {length} bytes"));
        let variable = bytes.len();
        bytes.resize(variable + Some(length).filter(|length| *length <= MAX_BYTES).ok_or_else(invalid)?, 0);
        packets.read_exact(&mut bytes[variable..])?;
        Ok(Self { bytes, variable })
    }

    /// Whether it is a PUBLISH that is to be acknowledged: nobody acknowledges quality of service 0.
    pub(crate) fn is_publish(&self) -> bool {
        self.bytes[0] >> 4 == PUBLISH && self.bytes[0] & 0b0110 != 0
    }

    pub(crate) fn is_puback(&self) -> bool {
        self.bytes[0] >> 4 == PUBACK
    }

    pub(crate) fn is_suback(&self) -> bool {
        self.bytes[0] >> 4 == SUBACK
    }

    /// The packet identifier of a PUBLISH that is to be acknowledged, or of a PUBACK.
    pub(crate) fn identifier(&self) -> Option<u16> {
        let at = if self.is_publish() { self.after_topic()? } else { self.variable };
        Some(u16::from_be_bytes(self.bytes.get(at..at + 2)?.try_into().ok()?))
    }

    /// Topic and payload of a PUBLISH that is to be acknowledged: the same each time that it is sent.
    pub(crate) fn message(&self) -> Option<Vec<u8>> {
        let end = self.after_topic()?;
        Some([&self.bytes[self.variable..end], self.bytes.get(end + 2..)?].concat())
    }

    /// The payload of a PUBLISH that is to be acknowledged, in MQTT 3.1.1.
    pub(crate) fn payload(&self) -> Option<&[u8]> {
        self.bytes.get(self.after_topic()? + 2..)
    }

    // A PUBLISH begins with its topic, which begins with its length (3.1.1, section 3.3.2.1).
    fn after_topic(&self) -> Option<usize> {
        let length = self.bytes.get(self.variable..self.variable + 2)?;
        let end = self.variable + 2 + usize::from(u16::from_be_bytes(length.try_into().ok()?));
        (end <= self.bytes.len()).then_some(end)
    }

    pub(crate) fn pass(&self, mut to: &TcpStream) -> io::Result<()> {
        to.write_all(&self.bytes)
    }
}

// The header with its first byte, and how many bytes follow it.
fn fixed_header(packets: &mut impl Read) -> io::Result<(Vec<u8>, usize)> {
    let mut header = vec![0];
    packets.read_exact(&mut header)?;
    let mut length = 0;
    for shift in [0, 7, 14, 21] {
        let mut byte = [0];
        packets.read_exact(&mut byte)?;
        header.push(byte[0]);
        length |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok((header, length));
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the length of an MQTT packet has more than 4 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_as_the_standard_says() {
        let read = |bytes: &[u8]| fixed_header(&mut &*bytes).map(|(header, length)| (header.len(), length));
        assert_eq!(read(&[0x32, 0x7f]).unwrap(), (2, 127));
        assert_eq!(read(&[0x32, 0x80, 0x01]).unwrap(), (3, 128));
        assert_eq!(read(&[0x40, 0xff, 0xff, 0xff, 0x7f]).unwrap(), (5, 268_435_455));
        assert!(read(&[0x40, 0xff, 0xff, 0xff, 0xff, 0x01]).is_err());
    }

    #[test]
    fn a_publish_is_the_same_message_under_another_identifier() {
        let read = |bytes: &[u8]| Packet::read(&mut &*bytes).unwrap();
        let first = read(&[0x32, 6, 0, 1, b't', 0, 9, b'p']);
        let again = read(&[0x3a, 6, 0, 1, b't', 1, 4, b'p']);
        assert_eq!((first.identifier(), again.identifier()), (Some(9), Some(0x104)));
        assert_eq!(first.message(), Some(vec![0, 1, b't', b'p']));
        assert_eq!(first.message(), again.message());
        assert_eq!(first.payload(), Some(&b"p"[..]));
        let puback = read(&[0x40, 2, 0, 9]);
        assert_eq!((puback.is_publish(), puback.is_puback(), puback.identifier()), (false, true, Some(9)));
        // A topic that would end beyond its packet.
        assert_eq!(read(&[0x32, 3, 0, 9, b't']).message(), None);
        assert!(Packet::read(&mut &[0x32, 0xff, 0xff, 0xff, 0x7f][..]).is_err());
    }
}
