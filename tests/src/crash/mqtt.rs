//! As much of MQTT as it takes to see a PUBLISH and a PUBACK: the fixed header, which is the same in 3.1.1 and 5.0
//! (section 2.2 of the first, 2.1 of the second).

use std::io::{self, BufReader, Write as _};
use std::net::TcpStream;

use super::plan::Edge;
use super::proxy::{copy, end};
use super::trigger::Trigger;

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    ToGateway,
    ToDevice,
}

const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;

/// Passes packets on in one direction until the connection ends.
pub(super) fn pass(from: &TcpStream, to: &TcpStream, way: Way, trigger: &Trigger) {
    let mut packets = BufReader::new(from);
    while let Ok(()) = pass_one(&mut packets, to, way, trigger) {}
    // However one direction ends, the other ends with it.
    end(from, to);
}

fn pass_one(packets: &mut BufReader<&TcpStream>, mut to: &TcpStream, way: Way, trigger: &Trigger) -> io::Result<()> {
    let from = *packets.get_ref();
    let (header, length) = fixed_header(packets)?;
    let edges = match (way, header[0] >> 4) {
        // Quality of service 0 is acknowledged by nobody.
        (Way::ToGateway, PUBLISH) if header[0] & 0b0110 != 0 => (None, Some(Edge::Received)),
        (Way::ToDevice, PUBACK) => (Some(Edge::Committed), Some(Edge::Acknowledged)),
        _ => (None, None),
    };
    if edges.0.is_some_and(|edge| trigger.reached(edge)) {
        return Err(end(from, to));
    }
    to.write_all(&header)?;
    copy(packets, to, length)?;
    if edges.1.is_some_and(|edge| trigger.reached(edge)) {
        return Err(end(from, to));
    }
    Ok(())
}

// The header with its first byte, and how many bytes follow it.
fn fixed_header(packets: &mut impl io::Read) -> io::Result<(Vec<u8>, u64)> {
    let mut header = vec![0];
    packets.read_exact(&mut header)?;
    let mut length = 0;
    for shift in [0, 7, 14, 21] {
        let mut byte = [0];
        packets.read_exact(&mut byte)?;
        header.push(byte[0]);
        length |= u64::from(byte[0] & 0x7f) << shift;
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
