//! SUBSCRIBE, UNSUBSCRIBE and shared subscriptions (sections 3.8 to 3.11 and 4.8).

use agent_broker::{Options, QoS};
use bytes::Bytes;
use mqtt5_protocol::packet::puback::PubAckPacket;
use mqtt5_protocol::packet::pubrec::PubRecPacket;
use mqtt5_protocol::packet::subscribe::TopicFilter;
use mqtt5_protocol::packet::unsubscribe::UnsubscribePacket;
use mqtt5_protocol::{Packet, Properties, ReasonCode};

use crate::common::{Client, Server, connect_packet, until};

async fn unsubscribe(client: &mut Client, filters: &[&str]) -> Vec<u8> {
    let empty = UnsubscribePacket::new(9);
    let mut packet = filters.iter().fold(empty, |packet, filter| packet.add_filter(*filter));
    packet.protocol_version = client.version;
    client.send(&packet).await;
    loop {
        match client.next().await {
            Some(Packet::UnsubAck(ack)) => {
                assert_eq!(ack.packet_id, 9, "[MQTT-3.10.4-4, -5]");
                return ack.reason_codes.into_iter().map(|code| code as u8).collect();
            }
            Some(Packet::Publish(_)) => {}
            other => panic!("expected an UNSUBACK, got {other:?}"),
        }
    }
}

/// [MQTT-3.8.4-3] of both: the same filter again replaces the subscription; messages are not doubled.
#[tokio::test]
async fn subscribing_again_replaces_the_subscription() {
    let server = Server::open(Options::default()).await;
    for version in [4, 5] {
        let mut client = Client::connect(server.address, version, "client").await;
        for qos in [QoS::ExactlyOnce, QoS::AtMostOnce, QoS::AtLeastOnce] {
            let mut properties = Properties::new();
            if version == 5 {
                properties.set_subscription_identifier(1 + qos as u32);
            }
            client.subscribe(&[TopicFilter::new("a/+", qos)], properties).await;
        }
        server.handle.publish("a/b", Bytes::new(), QoS::ExactlyOnce, false, &[]).unwrap();
        let got = client.message().await;
        assert_eq!(got.qos, QoS::AtLeastOnce);
        let identifiers = if version == 5 { vec![2] } else { vec![] };
        assert_eq!(got.properties.subscription_identifiers(), identifiers);
        client.quiet().await;
    }
}

/// [MQTT-3.10.4-1 to -3, -6]; [MQTT-3.11.3-1, -2]: filters are compared as they are written, messages that were sent
/// are seen to their end, new ones do not come.
#[tokio::test]
async fn unsubscribing_ends_what_is_new_and_not_what_was_sent() {
    let server = Server::open(Options::default()).await;
    for version in [4, 5] {
        let (mut client, _) = Client::persistent(server.address, version, "client", true).await;
        client.wants("a/+", QoS::AtLeastOnce).await;
        server.handle.publish("a/b", Bytes::from("sent"), QoS::AtLeastOnce, false, &[]).unwrap();
        let first = client.message().await.packet_id.unwrap();
        let codes = unsubscribe(&mut client, &["a/b", "a/#", "A/+"]).await;
        assert_eq!(codes, if version == 5 { vec![0x11; 3] } else { vec![] });
        assert_eq!(server.handle.publish("a/b", Bytes::new(), QoS::AtMostOnce, false, &[]), Ok(1), "still subscribed");
        let codes = unsubscribe(&mut client, &["a/+", "a/+"]).await;
        assert_eq!(codes, if version == 5 { vec![0, 0x11] } else { vec![] });
        assert_eq!(server.handle.publish("a/b", Bytes::new(), QoS::AtMostOnce, false, &[]), Ok(0));
        drop(client);
        let (mut client, present) = Client::persistent(server.address, version, "client", false).await;
        assert!(present);
        let again = client.message().await;
        assert_eq!((again.payload, again.packet_id, again.dup), (Bytes::from("sent"), Some(first), true));
        client.send(&PubAckPacket::new(first)).await;
        client.quiet().await;
        Client::connect(server.address, version, "client").await;
    }
}

/// [MQTT-4.7.1-2, -3] of 3.1.1, [MQTT-4.7.1-1, -2] of 5 (`#` last and alone, `+` alone in its level); [MQTT-4.8.2-1,
/// -2]: a share name has a character and no wildcard. The answer is 0x80 and 0x8F, for this filter alone.
#[tokio::test]
async fn filters_that_are_none_are_refused_one_by_one() {
    let server = Server::open(Options::default()).await;
    let wrong = [
        "#/a",
        "a#",
        "a/#/b",
        "a/b#",
        "a+",
        "+a",
        "a/+b/c",
        "",
        "$share/g",
        "$share//a",
        "$share/g/",
        "$share/+/a",
        "$share/g#/a",
    ];
    for (version, no) in [(4, 0x80), (5, 0x8f)] {
        let mut client = Client::connect(server.address, version, "client").await;
        for filter in wrong {
            let filters = [TopicFilter::new(filter, QoS::AtLeastOnce), TopicFilter::new("ok", QoS::AtLeastOnce)];
            assert_eq!(client.subscribe(&filters, Properties::new()).await, [no, 1], "{filter:?}");
        }
        // What only looks like one: no `/` behind it (section 4.8.2).
        client.wants("$sharedevice/a", QoS::AtMostOnce).await;
        assert_eq!(server.handle.publish("$sharedevice/a", Bytes::new(), QoS::AtMostOnce, false, &[]), Ok(1));
    }
}

/// Section 4.8.2, [MQTT-4.8.2-3]: each message goes to one member, with the quality of service that this member was
/// granted.
#[tokio::test]
async fn members_of_a_group_have_their_own_quality_of_service() {
    let server = Server::open(Options::default()).await;
    let mut members = Vec::new();
    for (id, qos) in [("a", QoS::AtMostOnce), ("b", QoS::AtLeastOnce)] {
        let mut member = Client::connect(server.address, 5, id).await;
        member.wants("$share/g/t", qos).await;
        members.push((member, qos));
    }
    for _ in 0..4 {
        assert_eq!(server.handle.publish("t", Bytes::new(), QoS::ExactlyOnce, false, &[]), Ok(1));
    }
    for (member, qos) in &mut members {
        for _ in 0..2 {
            assert_eq!(member.message().await.qos, *qos);
        }
    }
    // Another group, and a subscription of one's own, get theirs apart.
    let (member, _) = &mut members[0];
    member.wants("$share/other/t", QoS::AtMostOnce).await;
    member.wants("t", QoS::AtMostOnce).await;
    assert_eq!(server.handle.publish("t", Bytes::new(), QoS::AtMostOnce, false, &[]), Ok(3));
    let (member, _) = &mut members[0];
    assert_eq!(unsubscribe(member, &["$share/g/t"]).await, [0]);
    for _ in 0..3 {
        assert_eq!(
            server.handle.publish("t", Bytes::new(), QoS::AtMostOnce, false, &[]),
            Ok(3),
            "b has the group for itself"
        );
    }
}

/// [MQTT-4.8.2-4, -6]: a QoS 2 message that was sent to a member is completed with this member when it comes back, and
/// what a member refuses goes to nobody else.
#[tokio::test]
async fn what_was_sent_to_a_member_stays_its_own() {
    let server = Server::open(Options::default()).await;
    let (mut first, _) = Client::persistent(server.address, 5, "first", true).await;
    first.wants("$share/g/t", QoS::ExactlyOnce).await;
    server.handle.publish("t", Bytes::from("begun"), QoS::ExactlyOnce, false, &[]).unwrap();
    let id = first.message().await.packet_id.unwrap();
    let mut second = Client::connect(server.address, 5, "second").await;
    second.wants("$share/g/t", QoS::ExactlyOnce).await;
    drop(first);
    until("the first to be gone", || server.handle.stats().connections == 1).await;
    second.quiet().await;
    let (mut first, _) = Client::persistent(server.address, 5, "first", false).await;
    let again = first.message().await;
    assert_eq!((again.packet_id, again.dup), (Some(id), true));
    first.send(&PubRecPacket::new(id)).await;
    assert!(matches!(first.next().await, Some(Packet::PubRel(_))));
    second.quiet().await;
    for _ in 0..2 {
        server.handle.publish("t", Bytes::new(), QoS::AtLeastOnce, false, &[]).unwrap();
    }
    let refused = second.message().await.packet_id.unwrap();
    first.message().await;
    second.bytes(&[0x40, 3, 0, refused as u8, 0x83]).await;
    second.quiet().await;
    first.quiet().await;
}

/// [MQTT-3.1.2-24] holds for the SUBACK and the UNSUBACK, too.
#[tokio::test]
async fn who_asks_for_more_than_it_can_be_answered_is_told_so() {
    let server = Server::open(Options::default()).await;
    let mut packet = connect_packet(5, "client");
    packet.properties.set_maximum_packet_size(30);
    let (mut client, _) = Client::with(server.address, packet.clone()).await;
    let filters = |count: usize| -> Vec<_> {
        (0..count).map(|number| TopicFilter::new(number.to_string(), QoS::AtMostOnce)).collect()
    };
    assert_eq!(client.subscribe(&filters(25), Properties::new()).await.len(), 25);
    let subscribe = mqtt5_protocol::packet::subscribe::SubscribePacket {
        packet_id: 1,
        filters: filters(26),
        properties: Properties::new(),
        protocol_version: 5,
    };
    client.send(&subscribe).await;
    assert_eq!(client.disconnected().await, ReasonCode::PacketTooLarge);
}
