//! DISCONNECT, wills and the end of sessions (sections 3.1.2.5, 3.1.3.2, 3.14 and 4.1).

use std::time::Duration;

use agent_broker::{Options, QoS};
use mqtt5_protocol::packet::connect::ConnectPacket;
use mqtt5_protocol::packet::disconnect::DisconnectPacket;
use mqtt5_protocol::{PropertyId, ReasonCode, WillMessage};

use crate::common::{Client, Server, connect_packet, until};

fn with_will(version: u8, expiry: u32, delay: u32) -> ConnectPacket {
    let mut packet = connect_packet(version, "device");
    packet.will = Some(WillMessage::new("will", "gone").with_qos(QoS::ExactlyOnce).with_retain(true));
    if version == 5 {
        packet.properties.set_session_expiry_interval(expiry);
        packet.will_properties.set_will_delay_interval(delay);
    }
    packet
}

/// [MQTT-3.14.4-1, -2] of 3.1.1, [MQTT-3.14.4-1] of 5: the connection is over, whatever comes behind.
#[tokio::test]
async fn nothing_behind_a_disconnect_is_handled() {
    let server = Server::open(Options::default()).await;
    for (version, bytes) in [(4, &b"\xe0\0\x30\x04\0\x01tx\xc0\0"[..]), (5, b"\xe0\0\x30\x05\0\x01t\0x\xc0\0")] {
        let mut client = Client::connect(server.address, version, "client").await;
        client.bytes(bytes).await;
        assert_eq!(client.rest().await, b"");
    }
    assert_eq!(server.handle.stats().publishes_in, 0);
}

/// [MQTT-3.1.2-8, -10, -3.14.4-3]: only DISCONNECT with reason code 0 takes the will back.
#[tokio::test]
async fn a_will_is_taken_back_by_a_normal_disconnection_only() {
    let mut server = Server::held(Options::default()).await;
    for (version, bytes) in [(4, &b"\xe0\0"[..]), (5, b"\xe0\0"), (5, b"\xe0\x01\0"), (5, b"\xe0\x02\0\0")] {
        let (mut client, _) = Client::with(server.address, with_will(version, 0, 0)).await;
        client.bytes(bytes).await;
        assert_eq!(client.rest().await, b"");
    }
    // 0x04 asks for it; the others say that something went wrong.
    for reason in [0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x99] {
        let (mut client, _) = Client::with(server.address, with_will(5, 0, 0)).await;
        client.bytes(&[0xe0, 1, reason]).await;
        let will = server.inbound().await;
        assert_eq!((&*will.topic, will.qos, will.retain), ("will", QoS::ExactlyOnce, true), "{reason:x}");
    }
    until("everybody to be gone", || server.handle.stats().connections == 0).await;
    assert!(server.nothing_inbound());
}

/// [MQTT-3.1.2-16, -17] of 3.1.1, [MQTT-3.1.2-14, -15] of 5: quality of service, RETAIN and the will properties are
/// those that CONNECT gave; the delay is not passed on (section 3.1.3.2).
#[tokio::test]
async fn a_will_is_published_as_it_was_left() {
    let server = Server::open(Options::default()).await;
    let mut listener = Client::connect(server.address, 5, "listener").await;
    listener.wants("will", QoS::ExactlyOnce).await;
    let mut packet = with_will(5, 0, 0);
    packet.will_properties.set_payload_format_indicator(true);
    packet.will_properties.set_message_expiry_interval(100);
    packet.will_properties.set_content_type("text/plain".to_owned());
    packet.will_properties.set_response_topic("answer".to_owned());
    packet.will_properties.set_correlation_data(vec![1, 2].into());
    packet.will_properties.add_user_property("k".to_owned(), "1".to_owned());
    packet.will_properties.add_user_property("k".to_owned(), "2".to_owned());
    let (client, _) = Client::with(server.address, packet.clone()).await;
    drop(client);
    let will = listener.message().await;
    assert_eq!((will.qos, will.retain, will.payload), (QoS::ExactlyOnce, false, "gone".into()));
    for (id, _) in packet.will_properties.iter() {
        let kept = if id == PropertyId::WillDelayInterval { None } else { packet.will_properties.get_all(id) };
        assert_eq!(will.properties.get_all(id), kept, "{id:?}");
    }
    let mut late = Client::connect(server.address, 4, "late").await;
    late.wants("will", QoS::AtMostOnce).await;
    let retained = late.message().await;
    assert!(retained.retain);
}

/// [MQTT-3.1.3-9] and section 3.1.3.2.2: with the session ends the delay, be it because it has no expiry, because
/// DISCONNECT takes it away, or by a clean start.
#[tokio::test]
async fn a_delayed_will_does_not_outlive_its_session() {
    let mut server = Server::held(Options::default()).await;
    let (client, _) = Client::with(server.address, with_will(5, 0, 1_000)).await;
    drop(client);
    assert_eq!(&*server.inbound().await.topic, "will");
    let (mut client, _) = Client::with(server.address, with_will(5, 1_000, 1_000)).await;
    client.send(&DisconnectPacket::new(ReasonCode::DisconnectWithWillMessage).with_session_expiry_interval(0)).await;
    assert_eq!(&*server.inbound().await.topic, "will");
    let (client, _) = Client::with(server.address, with_will(5, 1_000, 1_000)).await;
    drop(client);
    until("the client to be gone", || server.handle.stats().connections == 0).await;
    assert!(server.nothing_inbound());
    let _clean = Client::connect(server.address, 5, "device").await;
    assert_eq!(&*server.inbound().await.topic, "will");
}

/// Section 3.14.2.2.2: DISCONNECT may change the expiry, but not from what CONNECT said was none.
#[tokio::test]
async fn a_disconnect_changes_the_expiry_of_a_session() {
    let server = Server::open(Options::default()).await;
    let leaving = async |asked: u32, given: u32| {
        let mut packet = connect_packet(5, "client");
        packet.properties.set_session_expiry_interval(asked);
        let (mut client, _) = Client::with(server.address, packet).await;
        client.send(&DisconnectPacket::normal().with_session_expiry_interval(given)).await;
        client.rest().await
    };
    assert_eq!(leaving(1, 1_000).await, b"");
    until("the client to be gone", || server.handle.stats().connections == 0).await;
    assert_eq!(server.handle.stats().sessions, 1);
    assert_eq!(leaving(1_000, 0).await, b"");
    until("the session to end", || server.handle.stats().sessions == 0).await;
    assert_eq!(leaving(0, 1).await, [0xe0, 1, 0x82]);

    // A broker that keeps no sessions told the client so, but the client did ask.
    let server = Server::open(Options { max_session_expiry: Duration::ZERO, ..Options::default() }).await;
    let mut packet = connect_packet(5, "client");
    packet.properties.set_session_expiry_interval(100);
    let (mut client, answer) = Client::with(server.address, packet).await;
    assert_eq!(answer.properties.get_session_expiry_interval(), Some(0));
    client.send(&DisconnectPacket::normal().with_session_expiry_interval(100)).await;
    assert_eq!(client.rest().await, b"");
    until("the session to end", || server.handle.stats().sessions == 0).await;
}
