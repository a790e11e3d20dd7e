//! What is refused, and that nothing makes the decoder panic.

use proptest::prelude::*;

use super::*;

fn decode(bytes: &[u8], version: ProtocolVersion) -> Result<Packet, Violation> {
    next_frame(&mut BytesMut::from(bytes), 1 << 20)?.expect("a whole packet").decode(version)
}

fn reason(bytes: &[u8], version: ProtocolVersion) -> ReasonCode {
    decode(bytes, version).expect_err("it is against the protocol").reason
}

#[test]
fn what_the_codec_lets_pass_is_refused() {
    use ProtocolVersion::{V5, V311};
    use ReasonCode as R;
    for (bytes, version, expected) in [
        (&[0x82, 6, 0, 1, 0, 1, b'a', 3][..], V311, R::MalformedPacket), // SUBSCRIBE with QoS 3
        (&[0x82, 6, 0, 1, 0, 1, b'a', 0x41], V311, R::MalformedPacket),  // reserved bits
        (&[0x82, 6, 0, 0, 0, 1, b'a', 1], V311, R::ProtocolError),       // packet identifier 0
        (&[0x40, 3, 0, 1, 0], V311, R::MalformedPacket),                 // PUBACK with a reason code
        (&[0xe0, 1, 0], V311, R::MalformedPacket),                       // DISCONNECT with a reason code
        (&[0xc0, 1, 0], V311, R::MalformedPacket),                       // PINGREQ with a body
        (&[0x36, 5, 0, 1, b'a', 0, 1], V311, R::MalformedPacket),        // PUBLISH with QoS 3
        (&[0x30, 3, 0, 1, b'#'], V311, R::TopicNameInvalid),             // wildcard
        (&[0x30, 2, 0, 0], V311, R::ProtocolError),                      // empty topic
        (&[0x30, 3, 0, 1, 0xff], V311, R::MalformedPacket),              // not UTF-8
        (&[0x30, 5, 0, 3, 0xed, 0xa0, 0x80], V311, R::MalformedPacket),  // a surrogate
        (&[0x30, 3, 0, 1, 0], V311, R::MalformedPacket),                 // U+0000
        (&[0x32, 5, 0, 1, b'a', 0, 0], V311, R::ProtocolError),          // packet identifier 0
        (&[0x20, 2, 0, 0], V311, R::ProtocolError),                      // CONNACK from a client
        (&[0x30, 6, 0, 1, b'a', 2, 0x0b, 1], V5, R::ProtocolError),      // subscription identifier from a client
        (&[0x30, 7, 0, 1, b'a', 3, 0x23, 0, 0], V5, R::TopicAliasInvalid),
        (&[0x30, 6, 0, 1, b'a', 2, 0x01, 2], V5, R::ProtocolError), // payload format 2
        (&[0x30, 6, 0, 1, b'a', 2, 0x7f, 2], V5, R::MalformedPacket), // unknown property
        (&[0xf0, 0], V5, R::ProtocolError),
        (&[0x30, 6, 0, 1, b'a', 0x80, 0, b'x'], V5, R::MalformedPacket), // a property length of two bytes
    ] {
        assert_eq!(reason(bytes, version), expected, "{bytes:x?}");
    }
    assert!(matches!(decode(&[0xe0, 0], V311), Ok(Packet::Disconnect(_))));
    assert!(matches!(decode(&[0x30, 7, 0, 0, 3, 0x23, 0, 1, b'x'], V5), Ok(Packet::Publish(_))));
}

#[test]
fn a_packet_over_the_limit_is_refused_before_it_is_read() {
    let error = next_frame(&mut BytesMut::from(&[0x30, 0xff, 0x7f][..]), 1_000).unwrap_err();
    assert_eq!(error.reason, ReasonCode::PacketTooLarge);
    assert_eq!(error.to_string(), "a packet of 16386 bytes exceeds the limit of 1000 bytes (reason code 0x95)");
}

#[test]
fn the_remaining_length_is_at_most_four_bytes_and_the_shortest() {
    assert!(next_frame(&mut BytesMut::from(&[0x30, 0x80, 0x80, 0x80][..]), u32::MAX).unwrap().is_none());
    assert!(next_frame(&mut BytesMut::from(&[0x30, 0x80, 0x80, 0x80, 0x80][..]), u32::MAX).is_err());
    assert!(next_frame(&mut BytesMut::from(&[0x30, 0x80, 0x00][..]), u32::MAX).is_err());
}

proptest! {
    /// No bytes from outside make the decoder panic, and what is left undecoded is kept.
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), five in any::<bool>()) {
        let version = if five { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(frame)) = next_frame(&mut buffer, 4_096) {
            let _ = frame.decode(version);
        }
    }

    /// The same with a fixed header that is right, so that the bodies are reached.
    #[test]
    fn arbitrary_bodies_never_panic(
        first in any::<u8>(),
        body in proptest::collection::vec(any::<u8>(), 0..120),
        five in any::<bool>(),
    ) {
        let version = if five { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
        let mut buffer = BytesMut::from(&[first, body.len() as u8][..]);
        buffer.extend_from_slice(&body);
        if let Ok(Some(frame)) = next_frame(&mut buffer, 4_096) {
            let _ = frame.decode(version);
        }
    }

    /// A valid CONNECT with bytes changed or cut reaches every corner of the longest packet.
    #[test]
    fn a_damaged_connect_never_panics(changes in proptest::collection::vec((0_usize..60, any::<u8>()), 0..6), cut in 0_usize..60) {
        let mut body = b"\0\x04MQTT\x05\xee\0\x3c\x05\x11\0\0\0\x0a\0\x02id\x05\x18\0\0\0\x01\0\x01w\0\x01p\0\x01u\0\x01s".to_vec();
        for (at, byte) in changes {
            if let Some(place) = body.get_mut(at) {
                *place = byte;
            }
        }
        body.truncate(body.len().saturating_sub(cut / 2));
        let mut buffer = BytesMut::from(&[0x10, body.len() as u8][..]);
        buffer.extend_from_slice(&body);
        if let Ok(Some(frame)) = next_frame(&mut buffer, 4_096) {
            let _ = frame.decode(ProtocolVersion::V5);
        }
    }
}
