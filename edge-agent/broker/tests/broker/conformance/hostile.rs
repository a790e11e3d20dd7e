//! What is malformed or out of place: the connection is closed, an MQTT 5 client is told why [MQTT-4.8.0-1 of 3.1.1,
//! MQTT-4.13.1-1 of 5], and nothing of it takes effect.

use agent_broker::{Options, QoS};
use mqtt5_protocol::{Packet, ReasonCode};

use crate::common::{Client, Server};

/// Sends bytes on a connection of its own that is established.
async fn closed(server: &Server, version: u8, bytes: &[u8], reason: ReasonCode) {
    let mut client = Client::connect(server.address, version, "hostile").await;
    client.bytes(bytes).await;
    let what = format!("version {version}: {bytes:02x?}");
    match client.next().await {
        Some(Packet::Disconnect(packet)) if version == 5 => assert_eq!(packet.reason_code, reason, "{what}"),
        None if version == 4 => {}
        other => panic!("{what}: {other:?}"),
    }
    assert!(client.next().await.is_none(), "{what}");
}

/// A packet whose body differs in that MQTT 5 has no properties behind the first `at` bytes.
async fn closed_in_both(server: &Server, first: u8, body: &[u8], at: usize, reason: ReasonCode) {
    let packet = |body: &[u8]| [&[first, body.len() as u8], body].concat();
    closed(server, 4, &packet(body), reason).await;
    closed(server, 5, &packet(&[&body[..at], &[0], &body[at..]].concat()), reason).await;
}

/// [MQTT-2.2.2-1, -2] of 3.1.1, [MQTT-2.1.3-1] of 5, and those of each packet: [MQTT-3.6.1-1, -3.8.1-1, -3.10.1-1,
/// -3.14.1-1].
#[tokio::test]
async fn reserved_flags_of_every_packet() {
    let server = Server::open(Options::default()).await;
    for version in [4, 5] {
        for first in [0x41, 0x48, 0x51, 0x60, 0x63, 0x71] {
            closed(&server, version, &[first, 2, 0, 1], ReasonCode::MalformedPacket).await;
        }
        for first in [0xc1, 0xe1, 0xe8] {
            closed(&server, version, &[first, 0], ReasonCode::MalformedPacket).await;
        }
        let mut client = Client::raw(server.address, version).await;
        client.bytes(&[&[0x11, 13, 0, 4], &b"MQTT"[..], &[version, 2, 0, 60, 0, 1, b'a']].concat()).await;
        let got = client.rest().await;
        assert!(got.is_empty() || version == 5 && got[3] == 0x81, "{got:x?}");
    }
    for first in [0x80, 0x83] {
        closed_in_both(&server, first, b"\0\x01\0\x01a\0", 2, ReasonCode::MalformedPacket).await;
    }
    for first in [0xa0, 0xa3] {
        closed_in_both(&server, first, b"\0\x01\0\x01a", 2, ReasonCode::MalformedPacket).await;
    }
    // [MQTT-3.3.1-2, -4]: DUP with QoS 0; QoS 3.
    closed_in_both(&server, 0x38, b"\0\x01a", 3, ReasonCode::MalformedPacket).await;
    closed_in_both(&server, 0x36, b"\0\x01a\0\x01", 5, ReasonCode::MalformedPacket).await;
}

/// Table 2-1: packets that only a server sends, and the reserved types.
#[tokio::test]
async fn packets_that_no_client_sends() {
    let server = Server::open(Options::default()).await;
    for version in [4, 5] {
        closed(&server, version, &[0x00, 0], ReasonCode::MalformedPacket).await;
        closed(&server, version, &[0xd0, 0], ReasonCode::ProtocolError).await;
    }
    closed(&server, 4, &[0x20, 2, 0, 0], ReasonCode::ProtocolError).await;
    closed(&server, 5, &[0x20, 3, 0, 0, 0], ReasonCode::ProtocolError).await;
    closed_in_both(&server, 0x90, b"\0\x01\0", 2, ReasonCode::ProtocolError).await;
    closed(&server, 4, &[0xb0, 2, 0, 1], ReasonCode::ProtocolError).await;
    closed(&server, 5, &[0xb0, 4, 0, 1, 0, 0], ReasonCode::ProtocolError).await;
    closed(&server, 4, &[0xf0, 0], ReasonCode::ProtocolError).await;
}

/// [MQTT-2.3.1-1] of 3.1.1, [MQTT-2.2.1-3] of 5.
#[tokio::test]
async fn packet_identifier_0() {
    let server = Server::open(Options::default()).await;
    closed_in_both(&server, 0x32, b"\0\x01a\0\0", 5, ReasonCode::ProtocolError).await;
    closed_in_both(&server, 0x34, b"\0\x01a\0\0", 5, ReasonCode::ProtocolError).await;
    closed_in_both(&server, 0x82, b"\0\0\0\x01a\0", 2, ReasonCode::ProtocolError).await;
    closed_in_both(&server, 0xa2, b"\0\0\0\x01a", 2, ReasonCode::ProtocolError).await;
    assert_eq!(server.handle.stats().publishes_in, 0);
}

/// [MQTT-1.5.3-1, -2] of 3.1.1, [MQTT-1.5.4-1, -2, -1.5.7-1] of 5: in topics, filters and properties.
#[tokio::test]
async fn strings_that_are_no_utf_8_or_hold_u_0000() {
    let server = Server::open(Options::default()).await;
    // A lone byte, an overlong form, a surrogate, beyond U+10FFFF, cut off, U+0000.
    for text in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"a\0b"] {
        let string = [&[0, text.len() as u8], text].concat();
        closed_in_both(&server, 0x30, &string, string.len(), ReasonCode::MalformedPacket).await;
        closed_in_both(&server, 0x82, &[b"\0\x01", &string[..], b"\0"].concat(), 2, ReasonCode::MalformedPacket).await;
        closed_in_both(&server, 0xa2, &[b"\0\x01", &string[..]].concat(), 2, ReasonCode::MalformedPacket).await;
        let user = [&[0x26, 0, 1, b'k'], &string[..]].concat();
        let body = [b"\0\x01a", &[user.len() as u8][..], &user].concat();
        closed(&server, 5, &[&[0x30, body.len() as u8], &body[..]].concat(), ReasonCode::MalformedPacket).await;
    }
}

/// Section 2.2.3 of 3.1.1; section 2.1.4 and [MQTT-1.5.5-1] of 5.
#[tokio::test]
async fn lengths_that_are_wrong() {
    let server = Server::open(Options { max_packet_bytes: 1_000, ..Options::default() }).await;
    for version in [4, 5] {
        closed(&server, version, &[0x30, 0xff, 0xff, 0xff, 0xff, 0x7f], ReasonCode::MalformedPacket).await;
        closed(&server, version, &[0x30, 0xff, 0xff, 0xff, 0x7f], ReasonCode::PacketTooLarge).await;
        closed(&server, version, &[0xc0, 0x80, 0x00], ReasonCode::MalformedPacket).await;
        // A string that is longer than its packet; packets without what they need.
        closed(&server, version, &[0x30, 3, 0, 9, b'a'], ReasonCode::MalformedPacket).await;
        for first in [0x30, 0x32, 0x40, 0x50, 0x62, 0x70, 0x82, 0xa2] {
            closed(&server, version, &[first, 0], ReasonCode::MalformedPacket).await;
        }
        closed(&server, version, &[0xc0, 1, 0], ReasonCode::MalformedPacket).await;
    }
    closed_in_both(&server, 0x82, b"\0\x01", 2, ReasonCode::MalformedPacket).await; // [MQTT-3.8.3-3 of 3.1.1, -2 of 5]
    closed_in_both(&server, 0xa2, b"\0\x01", 2, ReasonCode::MalformedPacket).await; // [MQTT-3.10.3-2]
    closed_in_both(&server, 0x82, b"\0\x01\0\x01a", 2, ReasonCode::MalformedPacket).await; // no options
    closed(&server, 4, &[0x40, 3, 0, 1, 0], ReasonCode::MalformedPacket).await; // a reason code
    closed(&server, 4, &[0xe0, 1, 0], ReasonCode::MalformedPacket).await;
    closed(&server, 5, b"\x30\x05\0\x01a\x80\0", ReasonCode::MalformedPacket).await; // a property length of two bytes
    closed(&server, 5, b"\x82\x08\0\x01\x80\0\0\x01a\0", ReasonCode::MalformedPacket).await;
    closed(&server, 5, b"\xa2\x07\0\x01\x80\0\0\x01a", ReasonCode::MalformedPacket).await;
    closed(&server, 5, b"\x40\x05\0\x01\0\x80\0", ReasonCode::MalformedPacket).await;
    closed(&server, 5, b"\xe0\x03\0\x80\0", ReasonCode::MalformedPacket).await;
    closed(&server, 5, b"\x30\x04\0\x01a\x05", ReasonCode::MalformedPacket).await; // properties beyond the end
}

/// [MQTT-3.3.2-2, -4.7.3-1]; sections 3.3.2.3, 3.3.4: what a PUBLISH may not hold.
#[tokio::test]
async fn a_publish_that_cannot_be_one() {
    let server = Server::open(Options::default()).await;
    for topic in ["#", "a/+", "+", "a#"] {
        let string = [&[0, topic.len() as u8], topic.as_bytes()].concat();
        closed_in_both(&server, 0x30, &string, string.len(), ReasonCode::TopicNameInvalid).await;
    }
    closed_in_both(&server, 0x30, b"\0\0", 2, ReasonCode::ProtocolError).await;
    let cases: [(&[u8], ReasonCode); 8] = [
        (b"\x0b\x01", ReasonCode::ProtocolError), // [MQTT-3.3.4-6]: a subscription identifier
        (b"\x01\x02", ReasonCode::ProtocolError), // payload format 2
        (b"\x01\0\x01\0", ReasonCode::ProtocolError), // payload format twice
        (b"\x23\0\0", ReasonCode::TopicAliasInvalid), // [MQTT-3.3.2-8]
        (b"\x23\xff\xff", ReasonCode::TopicAliasInvalid), // [MQTT-3.3.2-9]
        (b"\x08\0\x03a/+", ReasonCode::ProtocolError), // [MQTT-3.3.2-14]: a wildcard in the response topic
        (b"\x11\0\0\0\x01", ReasonCode::ProtocolError), // a property of CONNECT
        (b"\x02\0\0", ReasonCode::MalformedPacket), // a cut property
    ];
    for (properties, reason) in cases {
        let body = [b"\0\x01a", &[properties.len() as u8][..], properties].concat();
        closed(&server, 5, &[&[0x30, body.len() as u8], &body[..]].concat(), reason).await;
    }
    assert_eq!(server.handle.stats().publishes_in, 0);
}

/// [MQTT-3-8.3-4] of 3.1.1; [MQTT-3.8.3-5] and sections 3.8.2.1.2 and 3.8.3.1 of 5.
#[tokio::test]
async fn subscription_options_that_are_reserved() {
    let server = Server::open(Options::default()).await;
    for options in [0x03, 0x04, 0x40, 0x80] {
        closed(&server, 4, &[0x82, 6, 0, 1, 0, 1, b'a', options], ReasonCode::MalformedPacket).await;
    }
    for options in [0x03, 0x30, 0x40, 0x80] {
        closed(&server, 5, &[0x82, 7, 0, 1, 0, 0, 1, b'a', options], ReasonCode::MalformedPacket).await;
    }
    for properties in [&b"\x0b\0"[..], b"\x0b\x01\x0b\x02", b"\x23\0\x01"] {
        let body = [b"\0\x01", &[properties.len() as u8][..], properties, b"\0\x01a\0"].concat();
        closed(&server, 5, &[&[0x82, body.len() as u8], &body[..]].concat(), ReasonCode::ProtocolError).await;
    }
}

/// Sections 3.4.2.1 to 3.7.2.1 and 3.14.2.1: reason codes that the packet does not have.
#[tokio::test]
async fn reason_codes_that_do_not_exist() {
    let server = Server::open(Options::default()).await;
    for first in [0x40, 0x50, 0x62, 0x70] {
        closed(&server, 5, &[first, 3, 0, 1, 0x55], ReasonCode::MalformedPacket).await;
    }
    closed(&server, 5, &[0x62, 3, 0, 1, 0x87], ReasonCode::MalformedPacket).await;
    closed(&server, 5, &[0xe0, 1, 0x01], ReasonCode::MalformedPacket).await;
}

/// Packets are found in the stream however it is cut.
#[tokio::test]
async fn packets_arrive_in_any_pieces() {
    let server = Server::open(Options::default()).await;
    for (version, bytes) in [
        (4, &b"\x82\x06\0\x01\0\x01t\0\x32\x07\0\x01t\0\x09hi\xc0\0"[..]),
        (5, b"\x82\x07\0\x01\0\0\x01t\0\x32\x08\0\x01t\0\x09\0hi\xc0\0"),
    ] {
        for size in [1, 3, bytes.len()] {
            let mut client = Client::connect(server.address, version, "client").await;
            for piece in bytes.chunks(size) {
                client.bytes(piece).await;
            }
            let mut got = Vec::new();
            for _ in 0..4 {
                got.push(client.next().await.expect("an answer"));
            }
            assert!(got.iter().any(|packet| matches!(packet, Packet::SubAck(_))));
            assert!(got.iter().any(|packet| matches!(packet, Packet::PubAck(ack) if ack.packet_id == 9)));
            assert!(got.iter().any(|packet| matches!(packet, Packet::Publish(packet) if packet.payload == "hi")));
            assert!(got.iter().any(|packet| matches!(packet, Packet::PingResp)));
        }
    }
}

/// [MQTT-4.8.0-1]: what came before the violation counts, what came behind it does not.
#[tokio::test]
async fn nothing_behind_a_violation_is_handled() {
    let server = Server::open(Options::default()).await;
    let mut listener = Client::connect(server.address, 4, "listener").await;
    listener.wants("#", QoS::AtMostOnce).await;
    closed(&server, 4, b"\x30\x04\0\x01a1\xc1\0\x30\x04\0\x01a2", ReasonCode::MalformedPacket).await;
    assert_eq!(listener.message().await.payload, "1");
    listener.quiet().await;
}
