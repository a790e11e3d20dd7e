//! As much of MQTT as it takes to see a PUBLISH and a PUBACK: the fixed header, which is the same in 3.1.1 and 5.0
//! (section 2.2 of the first, 2.1 of the second).

use std::io::{self, Read, Write as _};
use std::net::TcpStream;

/// A packet, whole.
#[derive(Debug)]
pub(crate) struct Packet {
    bytes: Vec<u8>,
}

const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;

/// The largest that the gateway takes by default, in bytes.
const MAX_BYTES: usize = 1 << 20;

impl Packet {
    pub(crate) fn read(packets: &mut impl Read) -> io::Result<Self> {
        let (mut bytes, length) = fixed_header(packets)?;
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, format!("a packet of {length} bytes"));
        let variable = bytes.len();
        bytes.resize(variable + Some(length).filter(|length| *length <= MAX_BYTES).ok_or_else(invalid)?, 0);
        packets.read_exact(&mut bytes[variable..])?;
        Ok(Self { bytes })
    }

    /// Whether it is a PUBLISH that is to be acknowledged: nobody acknowledges quality of service 0.
    pub(crate) fn is_publish(&self) -> bool {
        self.bytes[0] >> 4 == PUBLISH && self.bytes[0] & 0b0110 != 0
    }

    pub(crate) fn is_puback(&self) -> bool {
        self.bytes[0] >> 4 == PUBACK
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
}
