//! CONNECT and CONNACK (sections 3.1 and 3.2), and sessions (section 4.1).

use std::collections::HashMap;
use std::time::Duration;

use agent_broker::{Access, Options, QoS};
use bytes::Bytes;
use mqtt5_protocol::{Packet, PropertyId, PropertyValue, ReasonCode};

use crate::common::{Client, Server, connect_packet, until};

/// A CONNECT from its flags and what stands behind the keep-alive.
fn connect(version: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x10, 10 + rest.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', version, flags, 0, 60];
    bytes.extend_from_slice(rest);
    bytes
}

/// What comes back to bytes on a fresh connection, until it is closed.
async fn answer(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut client = Client::raw(server.address, 4).await;
    client.bytes(bytes).await;
    client.rest().await
}

/// [MQTT-3.1.4-5, -3.2.2-4, -5] of 3.1.1, [MQTT-3.1.4-6, -3.2.2-6, -3.2.2-7] of 5: no data behind a rejected CONNECT is
/// processed, and the answer says that there is no session.
#[tokio::test]
async fn a_rejected_connection_gets_its_connack_and_nothing_else() {
    let users = HashMap::from([("ada".to_owned(), "1".to_owned())]);
    let server = Server::open(Options { access: Access::Passwords(users), ..Options::default() }).await;
    let mut bytes = connect(4, 2, b"\0\x01a");
    bytes.extend_from_slice(b"\x30\x04\0\x01tx\x82\x06\0\x01\0\x01t\0\xc0\0");
    assert_eq!(answer(&server, &bytes).await, [0x20, 2, 0, 4]);
    let mut bytes = connect(5, 2, b"\0\0\x01a");
    bytes.extend_from_slice(b"\x30\x05\0\x01t\0x\xc0\0");
    let got = answer(&server, &bytes).await;
    assert_eq!((got[0], got[2], got[3], got.len()), (0x20, 0, 0x86, usize::from(got[1]) + 2));
    let stats = server.handle.stats();
    assert_eq!((stats.publishes_in, stats.sessions), (0, 0));
}

/// [MQTT-3.2.0-1]; a client need not wait for the CONNACK (section 3.1.4).
#[tokio::test]
async fn the_connack_comes_first_whatever_is_sent_behind_the_connect() {
    let server = Server::open(Options::default()).await;
    let mut client = Client::raw(server.address, 4).await;
    let mut bytes = connect(4, 2, b"\0\x01a");
    bytes.extend_from_slice(b"\xc0\0\x82\x06\0\x07\0\x01t\0\x30\x04\0\x01tx");
    client.bytes(&bytes).await;
    assert!(matches!(client.next().await, Some(Packet::ConnAck(_))));
    assert!(matches!(client.next().await, Some(Packet::PingResp)));
    assert!(matches!(client.next().await, Some(Packet::SubAck(ack)) if ack.packet_id == 7));
    assert_eq!(client.message().await.payload, "x");
}

/// [MQTT-3.1.2-3, -13, -14, -15, -22] of 3.1.1, [MQTT-3.1.2-3, -11, -12, -13] of 5; also section 3.1.3: what the flags
/// announce has to be there, and nothing else.
#[tokio::test]
async fn connect_flags_have_to_agree_with_each_other_and_with_the_payload() {
    let server = Server::open(Options::default()).await;
    let cases: [(&str, u8, &[u8], &[u8]); 8] = [
        ("reserved", 0x03, b"\0\x01a", b""),
        ("will QoS without a will", 0x0a, b"\0\x01a", b""),
        ("will retain without a will", 0x22, b"\0\x01a", b""),
        ("will QoS 3", 0x1e, b"\0\x01a", b"\0\x01w\0\x01p"),
        ("no will where one is announced", 0x06, b"\0\x01a", b""),
        ("no user name where one is announced", 0x82, b"\0\x01a", b""),
        ("no client identifier", 0x02, b"", b""),
        ("a byte too many", 0x02, b"\0\x01a", b"x"),
    ];
    for (what, flags, id, rest) in cases {
        let v311 = connect(4, flags, &[id, rest].concat());
        assert_eq!(answer(&server, &v311).await, b"", "{what}: MQTT 3.1.1 has no return code for it [MQTT-3.1.4-1]");
        // No properties, and none of the will if there is one.
        let will = if rest.starts_with(b"\0\x01w") { &b"\0"[..] } else { b"" };
        let got = answer(&server, &connect(5, flags, &[b"\0", id, will, rest].concat())).await;
        assert_eq!((got[0], got[2], got[3]), (0x20, 0, 0x81), "{what}");
    }
    assert_eq!(answer(&server, &connect(4, 0x42, b"\0\x01a\0\x01s")).await, b"", "a password without a user name");
}

/// Section 3.1.2.11: properties that may not be there, twice, or with that value; [MQTT-4.12.0-1] for a method that is
/// not supported.
#[tokio::test]
async fn connect_properties_that_the_standard_excludes() {
    let server = Server::open(Options::default()).await;
    let cases: [(&str, &[u8], u8); 12] = [
        ("session expiry twice", b"\x11\0\0\0\x01\x11\0\0\0\x01", 0x82),
        ("receive maximum 0", b"\x21\0\0", 0x82),
        ("maximum packet size 0", b"\x27\0\0\0\0", 0x82),
        ("request problem information 2", b"\x17\x02", 0x82),
        ("request response information 2", b"\x19\x02", 0x82),
        ("a topic alias, which is of PUBLISH", b"\x23\0\x01", 0x82),
        ("a server's property", b"\x13\0\x01", 0x82),
        ("an unknown property", b"\x7f\0", 0x81),
        ("a cut property", b"\x11\0\0", 0x81),
        ("authentication data without a method", b"\x16\0\x01x", 0x82),
        ("a method that is not supported", b"\x15\0\x01x", 0x8c),
        ("a user property that is no UTF-8", b"\x26\0\x01k\0\x01\xff", 0x81),
    ];
    for (what, properties, code) in cases {
        let rest = [&[properties.len() as u8], properties, b"\0\x01a"].concat();
        let got = answer(&server, &connect(5, 2, &rest)).await;
        assert_eq!((got[0], got[2], got[3]), (0x20, 0, code), "{what}");
    }
    // [MQTT-1.5.5-1]
    assert_eq!(answer(&server, &connect(5, 2, b"\x80\0\0\x01a")).await[3], 0x81);
    let allowed = b"\x11\0\0\0\x01\x21\0\x01\x22\0\x01\x17\0\x19\x01\x26\0\x01k\0\x01v\x26\0\x01k\0\x01v";
    let mut client = Client::raw(server.address, 5).await;
    client.bytes(&connect(5, 2, &[&[allowed.len() as u8], &allowed[..], b"\0\x01a"].concat())).await;
    assert!(matches!(client.next().await, Some(Packet::ConnAck(ack)) if ack.reason_code == ReasonCode::Success));
}

/// [MQTT-3.1.3-5]: 1 to 23 letters and digits must be taken; what is beyond is the server's choice.
#[tokio::test]
async fn client_identifiers_that_are_taken() {
    let server = Server::open(Options::default()).await;
    for version in [4, 5] {
        for id in
            ["0", "abcdefghijklmnopqrstuvw", "0123456789ABCDEFGHIJKLM", "NOPQRSTUVWXYZ", "ä/+#€", &"x".repeat(256)]
        {
            Client::connect(server.address, version, id).await;
        }
        let (_, answer) = Client::with(server.address, connect_packet(version, &"x".repeat(257))).await;
        assert_eq!(answer.reason_code, ReasonCode::ClientIdentifierNotValid);
    }
}

/// [MQTT-3.1.3-6 to -9] of 3.1.1, [MQTT-3.1.3-6, -7, -3.2.2-16] of 5.
#[tokio::test]
async fn a_client_without_an_identifier_gets_one_of_its_own() {
    let server = Server::open(Options::default()).await;
    let _first = Client::connect(server.address, 4, "").await;
    let _second = Client::connect(server.address, 4, "").await;
    assert_eq!(server.handle.stats().connections, 2);
    let mut packet = connect_packet(4, "");
    packet.clean_start = false;
    let (mut client, answer) = Client::with(server.address, packet).await;
    assert_eq!(answer.reason_code, ReasonCode::ClientIdentifierNotValid);
    assert!(client.next().await.is_none());

    let mut packet = connect_packet(5, "");
    packet.clean_start = false;
    packet.properties.set_session_expiry_interval(100);
    let (client, answer) = Client::with(server.address, packet).await;
    let Some(PropertyValue::Utf8String(id)) = answer.properties.get(PropertyId::AssignedClientIdentifier) else {
        panic!("no assigned identifier: {answer:?}")
    };
    client.leave().await;
    let (_client, present) = Client::persistent(server.address, 5, id, false).await;
    assert!(present, "it can be used as any other");
}

/// [MQTT-3.1.2-4 to -6, -3.2.2-1 to -3] of 3.1.1, [MQTT-3.1.2-4 to -6, -3.2.2-2, -3] of 5.
#[tokio::test]
async fn session_present_says_whether_there_is_one() {
    let server = Server::open(Options::default()).await;
    for version in [4, 5] {
        let present = async |clean: bool, kept: bool| {
            let mut packet = connect_packet(version, "client");
            // For MQTT 3.1.1 both are one flag.
            packet.clean_start = clean;
            if version == 5 && kept {
                packet.properties.set_session_expiry_interval(100);
            }
            let (client, answer) = Client::with(server.address, packet).await;
            client.leave().await;
            until("the client to be gone", || server.handle.stats().connections == 0).await;
            answer.session_present
        };
        assert!(!present(false, true).await, "nothing to resume");
        assert!(present(false, true).await);
        assert!(!present(true, false).await, "a clean start discards it");
        assert!(!present(false, true).await, "and what began clean without an expiry is not kept");
        assert!(present(false, version == 4).await);
        assert_eq!(present(false, true).await, version == 4, "without an expiry it ended with its connection");
        present(true, false).await;
    }
}

/// A session belongs to the client identifier, not to the version (section 4.1).
#[tokio::test]
async fn a_client_may_come_back_with_the_other_version() {
    let server = Server::open(Options::default()).await;
    for (first, second) in [(4, 5), (5, 4)] {
        let (mut client, _) = Client::persistent(server.address, first, "client", true).await;
        client.wants("t", QoS::AtLeastOnce).await;
        client.leave().await;
        until("the client to be gone", || server.handle.stats().connections == 0).await;
        server.handle.publish("t", Bytes::from("kept"), QoS::AtLeastOnce, false, &[]).unwrap();
        let (mut client, present) = Client::persistent(server.address, second, "client", false).await;
        assert!(present);
        assert_eq!(client.message().await.payload, "kept");
        Client::connect(server.address, 5, "client").await;
    }
}

/// [MQTT-3.2.2-21, -22]; sections 3.2.2.3.2 and 3.2.2.3.14: the client is told what it does not get.
#[tokio::test]
async fn a_client_is_told_where_the_broker_decides_otherwise() {
    let options = Options {
        max_keep_alive: Duration::from_secs(60),
        max_session_expiry: Duration::from_secs(9),
        receive_window: 7,
        max_packet_bytes: 1_000,
        ..Options::default()
    };
    let server = Server::open(options).await;
    let mut packet = connect_packet(5, "client");
    packet.keep_alive = 120;
    packet.properties.set_session_expiry_interval(100);
    let told = Client::with(server.address, packet).await.1.properties;
    assert_eq!((told.get_server_keep_alive(), told.get_session_expiry_interval()), (Some(60), Some(9)));
    assert_eq!((told.get_receive_maximum(), told.get_maximum_packet_size()), (Some(7), Some(1_000)));
    let mut packet = connect_packet(5, "client");
    packet.keep_alive = 30;
    packet.properties.set_session_expiry_interval(5);
    let told = Client::with(server.address, packet).await.1.properties;
    assert_eq!((told.get_server_keep_alive(), told.get_session_expiry_interval()), (None, None));
}
