//! Acknowledgements, sending again, and flow control (sections 3.4 to 3.7, 4.3, 4.4, 4.6 and 4.9).

use agent_broker::{Options, QoS};
use bytes::Bytes;
use mqtt5_protocol::packet::puback::PubAckPacket;
use mqtt5_protocol::packet::pubcomp::PubCompPacket;
use mqtt5_protocol::packet::pubrec::PubRecPacket;
use mqtt5_protocol::packet::pubrel::PubRelPacket;
use mqtt5_protocol::{Packet, ReasonCode};

use crate::common::{Client, Server, connect_packet, qos_0, qos_1, qos_2, until};

/// [MQTT-4.4.0-1, -3.3.1-1]: after a reconnection, and only then, with the same identifier and DUP; PUBREL in its
/// place.
#[tokio::test]
async fn what_is_not_acknowledged_is_sent_again_on_the_next_connection_only() {
    let server = Server::open(Options::default()).await;
    for version in [4, 5] {
        let (mut client, _) = Client::persistent(server.address, version, "client", true).await;
        client.wants("t", QoS::ExactlyOnce).await;
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce] {
            server.handle.publish("t", Bytes::from("x"), qos, false, &[]).unwrap();
        }
        let mut sent = Vec::new();
        for _ in 0..3 {
            let packet = client.message().await;
            assert!(!packet.dup);
            sent.push((packet.packet_id.unwrap(), packet.qos));
        }
        client.send(&PubRecPacket::new(sent[2].0)).await;
        assert!(matches!(client.next().await, Some(Packet::PubRel(packet)) if packet.packet_id == sent[2].0));
        client.quiet().await;
        for _ in 0..2 {
            drop(client);
            (client, _) = Client::persistent(server.address, version, "client", false).await;
            for (id, qos) in &sent[..2] {
                let again = client.message().await;
                assert_eq!((again.packet_id, again.qos, again.dup), (Some(*id), *qos, true));
            }
            assert!(matches!(client.next().await, Some(Packet::PubRel(packet)) if packet.packet_id == sent[2].0));
            client.quiet().await;
        }
        client.send(&PubAckPacket::new(sent[0].0)).await;
        client.send(&PubRecPacket::new(sent[1].0)).await;
        assert!(matches!(client.next().await, Some(Packet::PubRel(packet)) if packet.packet_id == sent[1].0));
        client.send(&PubCompPacket::new(sent[1].0)).await;
        client.send(&PubCompPacket::new(sent[2].0)).await;
        client.quiet().await;
        drop(client);
        (client, _) = Client::persistent(server.address, version, "client", false).await;
        client.quiet().await;
        drop(client);
        Client::connect(server.address, version, "client").await;
    }
}

/// [MQTT-4.3.3-1 to -6] of 5, [MQTT-4.3.3-1] of 3.1.1, and what a second PUBREC gets.
#[tokio::test]
async fn the_broker_sends_a_qos_2_message_in_four_steps() {
    let server = Server::open(Options::default()).await;
    for version in [4, 5] {
        let mut client = Client::connect(server.address, version, "client").await;
        client.wants("t", QoS::ExactlyOnce).await;
        server.handle.publish("t", Bytes::new(), QoS::ExactlyOnce, false, &[]).unwrap();
        let id = client.message().await.packet_id.unwrap();
        for _ in 0..2 {
            client.send(&PubRecPacket::new(id)).await;
            let Some(Packet::PubRel(packet)) = client.next().await else { panic!("no PUBREL") };
            assert_eq!((packet.packet_id, packet.reason_code), (id, ReasonCode::Success));
        }
        client.send(&PubCompPacket::new(id)).await;
        // The identifier is unknown now (reason code 0x92; MQTT 3.1.1 has none).
        client.send(&PubRecPacket::new(id)).await;
        let Some(Packet::PubRel(packet)) = client.next().await else { panic!("no PUBREL") };
        let expected = if version == 5 { ReasonCode::PacketIdentifierNotFound } else { ReasonCode::Success };
        assert_eq!((packet.packet_id, packet.reason_code), (id, expected));
        client.quiet().await;
    }
}

/// [MQTT-4.3.3-4, -4.4.0-2]: a PUBREC or PUBACK with an error ends the exchange; so do the shorter forms of section
/// 3.4.2.
#[tokio::test]
async fn an_exchange_ends_with_an_error_too() {
    let server = Server::open(Options::default()).await;
    let (mut client, _) = Client::persistent(server.address, 5, "client", true).await;
    client.wants("t", QoS::ExactlyOnce).await;
    for qos in [QoS::ExactlyOnce, QoS::AtLeastOnce, QoS::AtLeastOnce, QoS::AtLeastOnce] {
        server.handle.publish("t", Bytes::new(), qos, false, &[]).unwrap();
    }
    for id in 1..=4 {
        assert_eq!(client.message().await.packet_id, Some(id));
    }
    client.bytes(&[0x50, 3, 0, 1, 0x97]).await;
    client.bytes(&[0x40, 3, 0, 2, 0x80]).await;
    client.bytes(&[0x40, 4, 0, 3, 0x10, 0]).await;
    client.bytes(b"\x40\x09\0\x04\x87\x05\x1f\0\x02no").await;
    client.quiet().await;
    drop(client);
    let (mut client, present) = Client::persistent(server.address, 5, "client", false).await;
    assert!(present);
    client.quiet().await;
}

/// Section 4.3: an acknowledgement of the wrong kind is no acknowledgement; one that is late is none of ours any more.
#[tokio::test]
async fn acknowledgements_have_to_fit() {
    let server = Server::open(Options::default()).await;
    for version in [4, 5] {
        for (qos, wrong) in [(QoS::ExactlyOnce, 0x40), (QoS::AtLeastOnce, 0x50)] {
            let mut client = Client::connect(server.address, version, "client").await;
            client.wants("t", QoS::ExactlyOnce).await;
            client.bytes(&[0x40, 2, 0, 77, 0x70, 2, 0, 78]).await;
            client.quiet().await;
            server.handle.publish("t", Bytes::new(), qos, false, &[]).unwrap();
            let id = client.message().await.packet_id.unwrap() as u8;
            client.bytes(&[wrong, 2, 0, id]).await;
            match version {
                5 => assert_eq!(client.disconnected().await, ReasonCode::ProtocolError),
                _ => assert!(client.next().await.is_none()),
            }
        }
    }
}

/// [MQTT-4.3.3-8, -10 to -12] of 5, [MQTT-4.3.3-2] of 3.1.1: until PUBREL the identifier stands for one message,
/// whatever DUP says; afterwards for another one.
#[tokio::test]
async fn the_broker_takes_a_qos_2_message_once() {
    let server = Server::open(Options::default()).await;
    for version in [4, 5] {
        let mut subscriber = Client::connect(server.address, version, "subscriber").await;
        subscriber.wants("t", QoS::AtMostOnce).await;
        let (mut client, _) = Client::persistent(server.address, version, "client", true).await;
        for dup in [false, true, false] {
            client.publish(qos_2("t", 5, "once").with_dup(dup)).await;
            assert!(matches!(client.next().await, Some(Packet::PubRec(ack)) if ack.packet_id == 5));
        }
        drop(client);
        let (mut client, _) = Client::persistent(server.address, version, "client", false).await;
        client.publish(qos_2("t", 5, "once").with_dup(true)).await;
        assert!(matches!(client.next().await, Some(Packet::PubRec(ack)) if ack.packet_id == 5));
        for _ in 0..2 {
            client.send(&PubRelPacket::new(5)).await;
            assert!(matches!(client.next().await, Some(Packet::PubComp(ack)) if ack.packet_id == 5));
        }
        client.publish(qos_2("t", 5, "again")).await;
        assert!(matches!(client.next().await, Some(Packet::PubRec(_))));
        assert_eq!(subscriber.message().await.payload, "once");
        assert_eq!(subscriber.message().await.payload, "again");
        subscriber.quiet().await;
        // A new session knows nothing of it (section 4.1).
        let mut client = Client::connect(server.address, version, "client").await;
        client.publish(qos_2("t", 5, "anew").with_dup(true)).await;
        assert!(matches!(client.next().await, Some(Packet::PubRec(_))));
        assert_eq!(subscriber.message().await.payload, "anew");
    }
}

/// [MQTT-3.3.4-9, -10, -4.9.0-1 to -3]: a full window holds back PUBLISH packets with QoS 1 and 2 and nothing else, in
/// both directions.
#[tokio::test]
async fn a_full_window_holds_nothing_back_but_publishes() {
    let mut server = Server::held(Options { receive_window: 2, ..Options::default() }).await;
    let mut packet = connect_packet(5, "client");
    packet.properties.set_receive_maximum(1);
    let (mut client, _) = Client::with(server.address, packet).await;
    client.wants("t", QoS::ExactlyOnce).await;
    for _ in 0..2 {
        server.handle.publish("t", Bytes::new(), QoS::ExactlyOnce, false, &[]).unwrap();
    }
    let first = client.message().await.packet_id.unwrap();
    client.quiet().await;
    client.wants("other", QoS::AtMostOnce).await;
    // Its own window, full with messages that wait for their verdict.
    for id in 1..=2 {
        client.publish(qos_1("in", id, "")).await;
    }
    let held = [server.inbound().await.ack, server.inbound().await.ack];
    client.quiet().await;
    client.publish(qos_0("in", "")).await;
    server.inbound().await.ack.accept();
    client.wants("another", QoS::AtMostOnce).await;
    client.send(&PubRecPacket::new(first)).await;
    assert!(matches!(client.next().await, Some(Packet::PubRel(packet)) if packet.packet_id == first));
    client.quiet().await;
    client.send(&PubCompPacket::new(first)).await;
    assert!(client.message().await.packet_id.is_some_and(|second| second != first), "the place is free with PUBCOMP");
    held.into_iter().for_each(|ack| ack.accept());
    assert_eq!([client.puback().await, client.puback().await], [1, 2]);
    client.publish(qos_1("in", 1, "")).await;
    server.inbound().await.ack.accept();
    assert_eq!(client.puback().await, 1, "the places are free again");
}

/// [MQTT-3.1.2-5] of 3.1.1, [MQTT-3.1.2-23, -4.5.0-1] of 5: an absent client's QoS 1 and 2 messages wait in order, QoS
/// 0 ones do not.
#[tokio::test]
async fn messages_for_an_absent_client_wait_in_order() {
    let server = Server::open(Options::default()).await;
    for version in [4, 5] {
        let (mut client, _) = Client::persistent(server.address, version, "client", true).await;
        client.wants("#", QoS::ExactlyOnce).await;
        client.leave().await;
        until("the client to be gone", || server.handle.stats().connections == 0).await;
        let mut publisher = Client::connect(server.address, version, "publisher").await;
        publisher.publish(qos_0("a", "0")).await;
        publisher.publish(qos_1("a", 1, "1")).await;
        assert_eq!(publisher.puback().await, 1);
        publisher.publish(qos_2("b", 2, "2")).await;
        assert!(matches!(publisher.next().await, Some(Packet::PubRec(_))));
        publisher.leave().await;
        let (mut client, present) = Client::persistent(server.address, version, "client", false).await;
        assert!(present);
        let got = [client.message().await, client.message().await];
        assert_eq!(
            got.each_ref().map(|packet| (packet.payload.clone(), packet.dup)),
            [("1".into(), false), ("2".into(), false)]
        );
        client.quiet().await;
        drop(client);
        Client::connect(server.address, version, "client").await;
        until("everybody to be gone", || server.handle.stats().connections == 0).await;
    }
}
