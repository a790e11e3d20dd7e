//! As much of MQTT 3.1.1 as a load generator needs: it must cost less than what it measures.

use std::io::{Error, ErrorKind, Result};

/// The topic of a device.
pub(super) fn topic(device: usize) -> String {
    format!("sensors/bench-{device}/temperature")
}

/// CONNECT with a clean session and without keep-alive.
pub(super) fn connect(client: &str) -> Vec<u8> {
    let mut packet = vec![0x10, 12 + client.len() as u8];
    packet.extend_from_slice(b"\0\x04MQTT\x04\x02\0\0");
    string(&mut packet, client);
    packet
}

/// The answer to it: accepted, no session present.
pub(super) const CONNECTED: [u8; 4] = [0x20, 2, 0, 0];

/// SUBSCRIBE to some filters at QoS 1, with the packet identifier 1.
pub(super) fn subscribe<'a>(filters: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut body = vec![0, 1];
    for filter in filters {
        string(&mut body, filter);
        body.push(1);
    }
    let mut packet = vec![0x82];
    length(&mut packet, body.len());
    packet.extend(body);
    packet
}

pub(super) const DISCONNECT: [u8; 2] = [0xe0, 0];

/// PUBLISH at QoS 1 of readings to one topic. Packet and payload are of one length always, so that one is a copy of
/// another with some digits changed.
#[derive(Clone, Debug)]
pub(super) struct Template {
    bytes: Vec<u8>,
    id_at: usize,
    time_at: usize,
    degrees_at: usize,
    salt: u64,
}

/// What `time` of the first reading is. All have as many digits.
pub(super) const FIRST: u64 = 1_700_000_000_000;

impl Template {
    pub(super) fn new(topic: &str) -> Self {
        let payload = format!(r#"{{"time":{FIRST},"fahrenheit":70.01}}"#);
        let mut bytes = vec![0x32];
        length(&mut bytes, 4 + topic.len() + payload.len());
        string(&mut bytes, topic);
        let id_at = bytes.len();
        bytes.extend([0, 0]);
        let (time_at, degrees_at) = (bytes.len() + 8, bytes.len() + payload.len() - 6);
        bytes.extend_from_slice(payload.as_bytes());
        // No device says what another does: a compressor would see that.
        let salt = topic.bytes().fold(0, |salt: u64, byte| salt.wrapping_mul(31).wrapping_add(byte.into()));
        Self { bytes, id_at, time_at, degrees_at, salt }
    }

    /// Appends the packet of this reading, counted from 0, to `out`. Its packet identifier is that of [`id`].
    pub(super) fn write(&self, number: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        out[start + self.id_at..][..2].copy_from_slice(&id(number));
        digits(&mut out[start + self.time_at..][..13], FIRST + number as u64);
        // Between 10.00 and 99.99 °F.
        let degrees = 1_000 + (number as u64 ^ (self.salt << 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15) % 9_000;
        digits(&mut out[start + self.degrees_at..][..2], degrees / 100);
        digits(&mut out[start + self.degrees_at + 3..][..2], degrees % 100);
    }
}

/// The packet identifier of a packet, counted from 0.
pub(super) fn id(number: usize) -> [u8; 2] {
    ((number % 65_535 + 1) as u16).to_be_bytes()
}

/// Which reading a payload is of, by its `time`; every peer keeps that.
pub(super) fn number_of(payload: &[u8]) -> Option<usize> {
    let name = b"\"time\":";
    let at = payload.windows(name.len()).position(|window| window == name)? + name.len();
    let time = payload[at..].iter().take_while(|byte| byte.is_ascii_digit());
    let time = time.fold(0_u64, |time, byte| time * 10 + u64::from(byte - b'0'));
    time.checked_sub(FIRST).map(|number| number as usize)
}

/// The packet at the beginning of these bytes: its first byte, its body, and how many bytes it takes. `None`: it is not
/// whole yet.
pub(super) fn packet(bytes: &[u8]) -> Result<Option<(u8, &[u8], usize)>> {
    let mut length = 0;
    for (at, byte) in bytes.iter().enumerate().skip(1) {
        if at > 4 {
            return Err(Error::new(ErrorKind::InvalidData, "a length of more than four bytes"));
        }
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            let end = at + 1 + length;
            return Ok(bytes.get(at + 1..end).map(|body| (bytes[0], body, end)));
        }
    }
    Ok(None)
}

/// The packet identifier of a PUBLISH, if its QoS has one, and its payload.
pub(super) fn publish(head: u8, body: &[u8]) -> Option<(Option<[u8; 2]>, &[u8])> {
    let (&[high, low], rest) = body.split_first_chunk()?;
    let rest = rest.get(usize::from(u16::from_be_bytes([high, low]))..)?;
    if head & 0x06 == 0 {
        return Some((None, rest));
    }
    let (id, payload) = rest.split_first_chunk()?;
    Some((Some(*id), payload))
}

fn string(packet: &mut Vec<u8>, text: &str) {
    packet.extend((text.len() as u16).to_be_bytes());
    packet.extend_from_slice(text.as_bytes());
}

fn length(packet: &mut Vec<u8>, mut length: usize) {
    while length > 127 {
        packet.push(length as u8 | 0x80);
        length >>= 7;
    }
    packet.push(length as u8);
}

fn digits(at: &mut [u8], mut number: u64) {
    for digit in at.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_says_which_reading_it_is_and_is_read_back() {
        let template = Template::new(&topic(3));
        let mut bytes = Vec::new();
        for number in [0, 70_000] {
            template.write(number, &mut bytes);
        }
        let (head, body, end) = packet(&bytes).unwrap().unwrap();
        assert_eq!(end * 2, bytes.len());
        let (id, payload) = publish(head, body).unwrap();
        assert_eq!((id, number_of(payload)), (Some([0, 1]), Some(0)));
        let (head, body, _) = packet(&bytes[end..]).unwrap().unwrap();
        let (id, payload) = publish(head, body).unwrap();
        assert_eq!(
            (id, number_of(payload)),
            (Some((70_000_u32 - 65_534).to_be_bytes()[2..].try_into().unwrap()), Some(70_000))
        );
        let reading: serde_json::Value = serde_json::from_slice(payload).unwrap();
        assert!((10.0..100.0).contains(&reading["fahrenheit"].as_f64().unwrap()));
        assert_eq!(packet(&bytes[..end - 1]).unwrap(), None);
    }
}
