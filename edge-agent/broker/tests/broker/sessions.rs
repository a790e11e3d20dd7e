//! Sessions, subscriptions, retained messages and wills, as subscribers see them.

use std::time::Duration;

use crate::common::{Client, Server, connect_packet, qos_0, qos_1, until};
use agent_broker::{Options, PublishError, QoS};
use bytes::Bytes;
use mqtt5_protocol::packet::connect::ConnectPacket;
use mqtt5_protocol::packet::puback::PubAckPacket;
use mqtt5_protocol::packet::pubcomp::PubCompPacket;
use mqtt5_protocol::packet::pubrec::PubRecPacket;
use mqtt5_protocol::packet::subscribe::TopicFilter;
use mqtt5_protocol::packet::subscribe_options::{RetainHandling, SubscriptionOptions};
use mqtt5_protocol::{Packet, Properties, ReasonCode, WillMessage};

#[tokio::test]
async fn a_second_connection_takes_the_first_ones_place() {
    let server = Server::open(Options::default()).await;
    for version in [4, 5] {
        let (mut first, _) = Client::persistent(server.address, version, "client", true).await;
        first.wants("t", QoS::AtLeastOnce).await;
        let (mut second, present) = Client::persistent(server.address, version, "client", false).await;
        assert!(present);
        if version == 5 {
            assert_eq!(first.disconnected().await, ReasonCode::SessionTakenOver);
        } else {
            assert!(first.next().await.is_none());
        }
        assert_eq!(server.handle.publish("t", Bytes::from("x"), QoS::AtLeastOnce, false, &[]), Ok(1));
        assert_eq!(second.message().await.payload, "x");
        // A clean start ends the session with its subscriptions.
        let _third = Client::connect(server.address, version, "client").await;
        assert_eq!(server.handle.publish("t", Bytes::new(), QoS::AtLeastOnce, false, &[]), Ok(0));
        assert_eq!(server.handle.stats().sessions, 1);
    }
}

#[tokio::test]
async fn an_absent_client_gets_its_messages_later_up_to_the_bound() {
    for version in [4, 5] {
        let server = Server::open(Options { session_queue: 3, ..Options::default() }).await;
        let (mut client, present) = Client::persistent(server.address, version, "client", true).await;
        assert!(!present);
        client.wants("t", QoS::ExactlyOnce).await;
        client.leave().await;
        until("the client to be gone", || server.handle.stats().connections == 0).await;
        for (number, qos) in [(1, QoS::AtMostOnce), (2, QoS::AtLeastOnce), (3, QoS::ExactlyOnce)] {
            server.handle.publish("t", Bytes::from(number.to_string()), qos, false, &[]).unwrap();
        }
        for number in 4..8 {
            server.handle.publish("t", Bytes::from(number.to_string()), QoS::AtLeastOnce, false, &[]).unwrap();
        }
        assert_eq!(server.handle.stats().dropped, 3);
        let (mut client, present) = Client::persistent(server.address, version, "client", false).await;
        assert!(present);
        let got = [client.message().await, client.message().await, client.message().await];
        assert_eq!(got.each_ref().map(|packet| packet.payload.clone()), ["2", "3", "4"]);
        assert_eq!(got.each_ref().map(|packet| packet.qos as u8), [1, 2, 1]);
        client.quiet().await;
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_is_delivered_again() {
    let server = Server::open(Options::default()).await;
    let (mut client, _) = Client::persistent(server.address, 5, "client", true).await;
    client.wants("t", QoS::ExactlyOnce).await;
    for (payload, qos) in [("a", QoS::AtLeastOnce), ("b", QoS::AtLeastOnce), ("c", QoS::ExactlyOnce)] {
        server.handle.publish("t", Bytes::from(payload), qos, false, &[]).unwrap();
    }
    let first = client.message().await.packet_id.unwrap();
    let second = client.message().await.packet_id.unwrap();
    let third = client.message().await.packet_id.unwrap();
    client.send(&PubAckPacket::new(first)).await;
    client.send(&PubRecPacket::new(third)).await;
    assert!(matches!(client.next().await, Some(Packet::PubRel(p)) if p.packet_id == third));
    drop(client);
    let (mut client, _) = Client::persistent(server.address, 5, "client", false).await;
    let again = client.message().await;
    assert_eq!((again.packet_id, again.dup, again.payload), (Some(second), true, Bytes::from("b")));
    assert!(matches!(client.next().await, Some(Packet::PubRel(p)) if p.packet_id == third));
    client.send(&PubAckPacket::new(second)).await;
    client.send(&PubCompPacket::new(third)).await;
    client.quiet().await;
    drop(client);
    let (mut client, _) = Client::persistent(server.address, 5, "client", false).await;
    client.quiet().await;
}

#[tokio::test]
async fn no_more_is_delivered_than_the_client_can_take() {
    let server = Server::open(Options::default()).await;
    let mut packet = connect_packet(5, "client");
    packet.properties.set_receive_maximum(2);
    let (mut client, _) = Client::with(server.address, packet).await;
    client.wants("t", QoS::AtLeastOnce).await;
    for _ in 0..3 {
        server.handle.publish("t", Bytes::new(), QoS::AtLeastOnce, false, &[]).unwrap();
    }
    let first = client.message().await.packet_id.unwrap();
    client.message().await;
    client.quiet().await;
    client.send(&PubAckPacket::new(first)).await;
    client.message().await;
}

#[tokio::test]
async fn a_session_expires() {
    let server = Server::open(Options::default()).await;
    let mut packet = connect_packet(5, "client");
    packet.properties.set_session_expiry_interval(1);
    let (client, _) = Client::with(server.address, packet).await;
    client.leave().await;
    until("the client to be gone", || server.handle.stats().connections == 0).await;
    assert_eq!(server.handle.stats().sessions, 1);
    until("the session to expire", || server.handle.stats().sessions == 0).await;
    let (_, present) = Client::persistent(server.address, 5, "client", false).await;
    assert!(!present);
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_holds_nobody_up() {
    let server = Server::open(Options { session_queue: 10, ..Options::default() }).await;
    let mut deaf = Client::connect(server.address, 4, "deaf").await;
    deaf.wants("t", QoS::AtMostOnce).await;
    let mut hears = Client::connect(server.address, 4, "hears").await;
    hears.wants("t", QoS::AtMostOnce).await;
    let mut publisher = Client::connect(server.address, 4, "publisher").await;
    // More than the sockets between the broker and the deaf one can hold.
    let payload = "x".repeat(200_000);
    for id in 1..=200 {
        publisher.publish(qos_1("t", id, &payload)).await;
        assert_eq!(publisher.puback().await, id);
        assert_eq!(hears.message().await.payload.len(), payload.len());
    }
    assert!(server.handle.stats().dropped > 0);
    // Its connection can be taken over although the last write to it is not through.
    let _again = Client::connect(server.address, 4, "deaf").await;
    until("the deaf one to be gone", || server.handle.stats().connections == 3).await;
}

#[tokio::test]
async fn a_burst_reaches_a_subscriber_that_reads() {
    let mut server = Server::held(Options::default()).await;
    let mut subscriber = Client::connect(server.address, 4, "subscriber").await;
    subscriber.wants("#", QoS::AtMostOnce).await;
    let mut publishers = Vec::new();
    let mut held = Vec::new();
    for number in 0..5 {
        let mut publisher = Client::connect(server.address, 4, &number.to_string()).await;
        for id in 1..=1_000 {
            publisher.publish(qos_1("t", id, "")).await;
        }
        for _ in 1..=1_000 {
            held.push(server.inbound().await.ack);
        }
        publishers.push(publisher);
    }
    held.into_iter().for_each(|ack| ack.accept());
    for _ in 0..5_000 {
        subscriber.message().await;
    }
    assert_eq!(server.handle.stats().dropped, 0);
}

#[tokio::test]
async fn retained_messages_come_with_the_subscription_as_it_asks() {
    let server = Server::open(Options::default()).await;
    let mut publisher = Client::connect(server.address, 5, "publisher").await;
    publisher.publish(qos_1("r/1", 1, "old").with_retain(true)).await;
    publisher.publish(qos_1("r/1", 2, "new").with_retain(true)).await;
    publisher.publish(qos_1("r/2", 3, "gone").with_retain(true)).await;
    publisher.publish(qos_1("r/2", 4, "").with_retain(true)).await;
    for id in 1..=4 {
        assert_eq!(publisher.puback().await, id);
    }
    assert_eq!(server.handle.stats().retained, 1);
    for version in [4, 5] {
        let mut client = Client::connect(server.address, version, "client").await;
        client.wants("r/#", QoS::AtMostOnce).await;
        let got = client.message().await;
        assert_eq!((&*got.topic_name, got.payload, got.retain, got.qos), ("r/1", "new".into(), true, QoS::AtMostOnce));
        publisher.publish(qos_1("r/3", 5, "live").with_retain(true)).await;
        publisher.puback().await;
        assert!(!client.message().await.retain, "a live message does not carry the flag");
        publisher.publish(qos_1("r/3", 5, "").with_retain(true)).await;
        publisher.puback().await;
        client.message().await;
    }
    let mut client = Client::connect(server.address, 5, "client").await;
    let with = |handling| {
        let options = SubscriptionOptions {
            retain_handling: handling,
            retain_as_published: true,
            ..SubscriptionOptions::new(QoS::AtMostOnce)
        };
        [TopicFilter::with_options("r/#", options)]
    };
    client.subscribe(&with(RetainHandling::DoNotSend), Properties::new()).await;
    client.quiet().await;
    client.subscribe(&with(RetainHandling::SendAtSubscribeIfNew), Properties::new()).await;
    client.quiet().await;
    client.subscribe(&with(RetainHandling::SendAtSubscribe), Properties::new()).await;
    assert_eq!(client.message().await.payload, "new");
    publisher.publish(qos_0("r/1", "flagged").with_retain(true)).await;
    assert!(client.message().await.retain, "retain as published");
}

#[tokio::test]
async fn overlapping_subscriptions_deliver_once_with_their_identifiers() {
    let server = Server::open(Options::default()).await;
    let mut client = Client::connect(server.address, 5, "client").await;
    for (filter, qos, identifier) in [("a/#", QoS::AtMostOnce, 7), ("a/+", QoS::AtLeastOnce, 300)] {
        let mut properties = Properties::new();
        properties.set_subscription_identifier(identifier);
        client.subscribe(&[TopicFilter::new(filter, qos)], properties).await;
    }
    client.publish(qos_1("a/b", 1, "")).await;
    let mut got = None;
    for _ in 0..2 {
        match client.next().await {
            Some(Packet::Publish(packet)) => got = Some(packet),
            Some(Packet::PubAck(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    let got = got.expect("a PUBLISH");
    let mut identifiers = got.properties.subscription_identifiers();
    identifiers.sort_unstable();
    assert_eq!((got.qos, identifiers), (QoS::AtLeastOnce, vec![7, 300]));
    client.quiet().await;

    let mut client = Client::connect(server.address, 5, "client").await;
    let options = SubscriptionOptions { no_local: true, ..SubscriptionOptions::default() };
    client.subscribe(&[TopicFilter::with_options("a", options)], Properties::new()).await;
    client.publish(qos_0("a", "own")).await;
    client.quiet().await;
    server.handle.publish("a", Bytes::from("others'"), QoS::AtMostOnce, false, &[]).unwrap();
    assert_eq!(client.message().await.payload, "others'");
}

#[tokio::test]
async fn a_shared_subscription_spreads_messages_over_who_is_there() {
    let server = Server::open(Options::default()).await;
    let mut members = Vec::new();
    for (version, id) in [(4, "a"), (5, "b")] {
        let mut member = Client::connect(server.address, version, id).await;
        member.wants("$share/group/t/+", QoS::AtMostOnce).await;
        members.push(member);
    }
    for number in 0..10 {
        assert_eq!(server.handle.publish("t/x", number.to_string().into(), QoS::AtMostOnce, false, &[]), Ok(1));
    }
    for member in &mut members {
        for _ in 0..5 {
            member.message().await;
        }
        member.quiet().await;
    }
    let mut last = members.remove(0);
    drop(members);
    until("one to be gone", || server.handle.stats().connections == 1).await;
    for _ in 0..2 {
        server.handle.publish("t/x", Bytes::new(), QoS::AtMostOnce, false, &[]).unwrap();
        last.message().await;
    }
}

fn with_will(version: u8, id: &str, delay: u32) -> ConnectPacket {
    let mut packet = connect_packet(version, id);
    packet.will = Some(WillMessage::new("will", "gone").with_qos(QoS::AtLeastOnce));
    if version == 5 {
        packet.will_properties.add_user_property("k".to_owned(), "v".to_owned());
        packet.will_properties.set_will_delay_interval(delay);
        packet.properties.set_session_expiry_interval(if delay > 0 { 3_600 } else { 0 });
        packet.clean_start = delay == 0;
    }
    packet
}

#[tokio::test]
async fn a_will_is_an_event_of_its_device_and_reaches_subscribers_after_its_commit() {
    for version in [4, 5] {
        let mut server = Server::held(Options::default()).await;
        let mut subscriber = Client::connect(server.address, 5, "subscriber").await;
        subscriber.wants("will", QoS::AtLeastOnce).await;
        let (client, _) = Client::with(server.address, with_will(version, "device", 0)).await;
        client.leave().await;
        let (mut client, _) = Client::with(server.address, with_will(version, "device", 0)).await;
        client.publish(qos_1("last", 1, "")).await;
        assert_eq!(&*server.inbound().await.topic, "last", "no will after a DISCONNECT");
        drop(client);
        let will = server.inbound().await;
        assert_eq!((&*will.client, &*will.topic, &will.payload[..]), ("device", "will", &b"gone"[..]));
        assert_eq!(will.user_properties.len(), usize::from(version == 5));
        subscriber.quiet().await;
        will.ack.accept();
        assert_eq!(subscriber.message().await.payload, "gone");
    }
}

#[tokio::test]
async fn wills_follow_a_protocol_error_a_disconnect_that_asks_for_it_and_a_clean_takeover() {
    let mut server = Server::held(Options::default()).await;
    let (mut client, _) = Client::with(server.address, with_will(5, "device", 0)).await;
    client.bytes(&[0xf0, 0]).await;
    assert_eq!(&*server.inbound().await.topic, "will");
    let (mut client, _) = Client::with(server.address, with_will(5, "device", 0)).await;
    client.bytes(&[0xe0, 1, 0x04]).await;
    assert_eq!(&*server.inbound().await.topic, "will");
    let (_client, _) = Client::with(server.address, with_will(5, "device", 100)).await;
    let _other = Client::connect(server.address, 5, "device").await;
    assert_eq!(&*server.inbound().await.topic, "will", "the session has ended, so the delay does not count");
}

#[tokio::test]
async fn a_delayed_will_is_withdrawn_when_the_client_comes_back() {
    let mut server = Server::held(Options::default()).await;
    let (client, _) = Client::with(server.address, with_will(5, "device", 3_000)).await;
    drop(client);
    until("the client to be gone", || server.handle.stats().connections == 0).await;
    let (client, answer) = Client::with(server.address, with_will(5, "device", 1)).await;
    assert!(answer.session_present);
    let began = std::time::Instant::now();
    drop(client);
    assert_eq!(&*server.inbound().await.topic, "will");
    assert!(began.elapsed() >= Duration::from_millis(900), "after its delay, not {:?}", began.elapsed());
    assert!(server.nothing_inbound(), "the first will was withdrawn");
    // A session that ends with a clean start takes its delayed will along.
    let (client, _) = Client::with(server.address, with_will(5, "device", 3_000)).await;
    drop(client);
    until("the client to be gone", || server.handle.stats().connections == 0).await;
    let _clean = Client::connect(server.address, 5, "device").await;
    assert_eq!(&*server.inbound().await.topic, "will");
}

#[tokio::test]
async fn messages_from_inside_are_checked_like_others() {
    let server = Server::open(Options { max_packet_bytes: 1_000, ..Options::default() }).await;
    for topic in ["", "a/+", "#", "a\0", &"x".repeat(70_000)] {
        let error = server.handle.publish(topic, Bytes::new(), QoS::AtMostOnce, false, &[]).unwrap_err();
        assert!(matches!(error, PublishError::Topic { .. }), "{error}");
    }
    let error = server.handle.publish("a", vec![0; 1_000].into(), QoS::AtMostOnce, false, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot publish to \"a\": topic and payload are 1001 bytes, max_packet_bytes is 1000"
    );
    server.handle.publish("a", Bytes::from("1"), QoS::AtMostOnce, true, &[]).unwrap();
    assert_eq!(server.handle.stats().retained, 1);
}
