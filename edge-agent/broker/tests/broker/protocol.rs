//! What clients do wrong, byte by byte: each gets the answer of the standard, and nobody else notices.

use std::collections::HashMap;
use std::time::Duration;

use crate::common::{Client, Server, connect_packet, qos_0, qos_1, until};
use agent_broker::{Access, Options, QoS};
use mqtt5_protocol::packet::disconnect::DisconnectPacket;
use mqtt5_protocol::packet::publish::PublishPacket;
use mqtt5_protocol::packet::subscribe::{SubscribePacket, TopicFilter};
use mqtt5_protocol::packet::subscribe_options::SubscriptionOptions;
use mqtt5_protocol::packet::unsubscribe::UnsubscribePacket;
use mqtt5_protocol::{Packet, Properties, ReasonCode};

/// Sends bytes on a fresh connection of each version. MQTT 5 is told the reason; MQTT 3.1.1 is closed.
async fn refused(what: &str, bytes_v311: &[u8], bytes_v5: &[u8], reason: ReasonCode) {
    let server = Server::open(Options { max_packet_bytes: 1_000, ..Options::default() }).await;
    let mut neighbour = Client::connect(server.address, 5, "neighbour").await;
    neighbour.wants("#", QoS::AtMostOnce).await;
    let mut new = Client::connect(server.address, 5, "new").await;
    new.bytes(bytes_v5).await;
    assert_eq!(new.disconnected().await, reason, "{what}");
    let mut old = Client::connect(server.address, 4, "old").await;
    old.bytes(bytes_v311).await;
    assert!(old.next().await.is_none(), "{what}");
    neighbour.quiet().await;
    assert_eq!(server.handle.stats().publishes_in, 0, "{what}");
    until("both to be gone", || server.handle.stats().connections == 1).await;
}

#[tokio::test]
async fn malformed_packets() {
    use ReasonCode as R;
    let same = |what: &'static str, bytes: &'static [u8], reason| refused(what, bytes, bytes, reason);
    same("oversized", &[0x30, 0xff, 0x7f], R::PacketTooLarge).await;
    same("a length of five bytes", &[0x30, 0xff, 0xff, 0xff, 0xff, 0x7f], R::MalformedPacket).await;
    same("packet type 0", &[0x00, 0], R::MalformedPacket).await;
    same("reserved flags", &[0xc1, 0], R::MalformedPacket).await;
    same("SUBSCRIBE without its flags", &[0x80, 6, 0, 1, 0, 1, b'a', 0], R::MalformedPacket).await;
    same("CONNACK from a client", &[0x20, 2, 0, 0], R::ProtocolError).await;
    refused("not UTF-8", &[0x30, 3, 0, 1, 0xff], &[0x30, 4, 0, 1, 0xff, 0], R::MalformedPacket).await;
    refused("U+0000", &[0x30, 3, 0, 1, 0], &[0x30, 4, 0, 1, 0, 0], R::MalformedPacket).await;
    refused("a wildcard", &[0x30, 3, 0, 1, b'#'], &[0x30, 4, 0, 1, b'+', 0], R::TopicNameInvalid).await;
    refused("an empty topic", &[0x30, 2, 0, 0], &[0x30, 3, 0, 0, 0], R::ProtocolError).await;
    refused("QoS 3", &[0x36, 5, 0, 1, b'a', 0, 1], &[0x36, 6, 0, 1, b'a', 0, 1, 0], R::MalformedPacket).await;
    refused("identifier 0", &[0x32, 5, 0, 1, b'a', 0, 0], &[0x32, 6, 0, 1, b'a', 0, 0, 0], R::ProtocolError).await;
    refused("a cut string", &[0x30, 3, 0, 9, b'a'], &[0x30, 3, 0, 9, b'a'], R::MalformedPacket).await;
    same("AUTH", &[0xf0, 0], R::ProtocolError).await;
    refused("no filter", &[0x82, 2, 0, 1], &[0x82, 3, 0, 1, 0], R::MalformedPacket).await;
}

#[tokio::test]
async fn a_second_connect_is_refused() {
    let server = Server::open(Options::default()).await;
    let mut client = Client::connect(server.address, 5, "a").await;
    client.send(&connect_packet(5, "a")).await;
    assert_eq!(client.disconnected().await, ReasonCode::ProtocolError);
    let mut client = Client::connect(server.address, 4, "a").await;
    client.send(&connect_packet(4, "a")).await;
    assert!(client.next().await.is_none());
}

#[tokio::test]
async fn what_comes_first_must_be_a_connect_of_a_known_version_in_time() {
    let server = Server::open(Options { connect_timeout: Duration::from_millis(300), ..Options::default() }).await;
    let mut client = Client::raw(server.address, 4).await;
    client.bytes(&[0xc0, 0]).await;
    assert!(client.next().await.is_none());
    let mut client = Client::raw(server.address, 4).await;
    client.bytes(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.next().await.is_none());
    let mut client = Client::raw(server.address, 4).await;
    client.bytes(b"\x10\x0e\0\x06MQIsdp\x03\x02\0\x3c\0\0").await;
    let Some(Packet::ConnAck(answer)) = client.next().await else { panic!("no CONNACK") };
    assert_eq!(answer.reason_code, ReasonCode::UnsupportedProtocolVersion);
    assert!(client.next().await.is_none());
    let mut client = Client::raw(server.address, 4).await;
    client.bytes(b"\x10\x0c\0\x04MQ").await;
    assert!(client.next().await.is_none(), "half a CONNECT is not one");
    assert_eq!(server.handle.stats().sessions, 0);
}

#[tokio::test]
async fn only_known_users_connect_and_nobody_takes_anothers_session() {
    let users = HashMap::from([("ada".to_owned(), "1".to_owned()), ("bob".to_owned(), "2".to_owned())]);
    let mut server = Server::held(Options { access: Access::Passwords(users), ..Options::default() }).await;
    let with = |version, user: &str, password: &str| {
        let mut packet = connect_packet(version, "shared-id");
        packet.username = Some(user.to_owned());
        packet.password = Some(password.into());
        packet
    };
    for (version, expected) in [(4, ReasonCode::BadUsernameOrPassword), (5, ReasonCode::BadUsernameOrPassword)] {
        let (mut client, answer) = Client::with(server.address, with(version, "ada", "2")).await;
        assert_eq!(answer.reason_code, expected);
        assert!(client.next().await.is_none());
        let (_, answer) = Client::with(server.address, connect_packet(version, "x")).await;
        assert_eq!(answer.reason_code, expected, "without any user name");
    }
    let (mut ada, answer) = Client::with(server.address, with(5, "ada", "1")).await;
    assert_eq!(answer.reason_code, ReasonCode::Success);
    let (_, answer) = Client::with(server.address, with(5, "bob", "2")).await;
    assert_eq!(answer.reason_code, ReasonCode::NotAuthorized);
    ada.publish(qos_1("t", 1, "")).await;
    assert_eq!(&*server.inbound().await.client, "ada", "the user, not the client identifier");
}

#[tokio::test]
async fn connections_and_sessions_are_bounded() {
    let server = Server::open(Options { max_connections: 1, max_sessions: 2, ..Options::default() }).await;
    let (first, _) = Client::persistent(server.address, 5, "first", true).await;
    let mut second = Client::raw(server.address, 5).await;
    assert!(second.next().await.is_none());
    assert_eq!(server.handle.stats().turned_away, 1);
    first.leave().await;
    // The place is free once the broker has seen the end of the connection.
    until("the first one to be gone", || server.handle.stats().connections == 0).await;
    let (second, _) = Client::persistent(server.address, 5, "second", true).await;
    second.leave().await;
    until("the second one to be gone", || server.handle.stats().connections == 0).await;
    let (_, answer) = Client::with(server.address, connect_packet(5, "third")).await;
    assert_eq!(answer.reason_code, ReasonCode::QuotaExceeded);
    let (_again, present) = Client::persistent(server.address, 5, "first", false).await;
    assert!(present);
}

#[tokio::test]
async fn a_silent_client_is_closed_and_one_that_pings_is_not() {
    let server = Server::open(Options::default()).await;
    let with = |version, id: &str| {
        let mut packet = connect_packet(version, id);
        packet.keep_alive = 1;
        packet
    };
    let (mut new, _) = Client::with(server.address, with(5, "new")).await;
    let (mut old, _) = Client::with(server.address, with(4, "old")).await;
    let (mut lively, _) = Client::with(server.address, with(4, "lively")).await;
    let began = std::time::Instant::now();
    let pings = async {
        loop {
            lively.quiet().await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let closed = async {
        assert_eq!(new.disconnected().await, ReasonCode::KeepAliveTimeout);
        assert!(old.next().await.is_none());
    };
    tokio::select! {
        () = pings => {}
        () = closed => {}
    }
    assert!(began.elapsed() >= Duration::from_millis(1_400), "1.5 times the keep-alive, not {:?}", began.elapsed());
    lively.quiet().await;
}

#[tokio::test]
async fn subscriptions_are_granted_or_refused_one_by_one() {
    let server = Server::open(Options { max_subscriptions: 2, ..Options::default() }).await;
    for (version, invalid, quota) in [(4, 0x80, 0x80), (5, 0x8f, 0x97)] {
        let mut client = Client::connect(server.address, version, "client").await;
        let filters: Vec<_> =
            ["a", "b#", "b/#", "c", "a"].iter().map(|f| TopicFilter::new(*f, QoS::AtLeastOnce)).collect();
        assert_eq!(client.subscribe(&filters, Properties::new()).await, [1, invalid, 1, quota, 1]);
        let mut packet = UnsubscribePacket::new(3).add_filter("a").add_filter("z").add_filter("b#");
        packet.protocol_version = version;
        client.send(&packet).await;
        let Some(Packet::UnsubAck(answer)) = client.next().await else { panic!("no UNSUBACK") };
        if version == 5 {
            let codes: Vec<_> = answer.reason_codes.iter().map(|code| *code as u8).collect();
            assert_eq!(codes, [0, 0x11, 0x8f]);
        }
        client.publish(qos_0("a", "unsubscribed")).await;
        client.publish(qos_0("b", "kept")).await;
        assert_eq!(client.message().await.payload, "kept");
    }
    let mut client = Client::connect(server.address, 5, "client").await;
    let options = SubscriptionOptions { no_local: true, ..SubscriptionOptions::default() };
    let packet = SubscribePacket::new(1).add_filter_with_options(TopicFilter::with_options("$share/g/a", options));
    client.send(&packet).await;
    assert_eq!(client.disconnected().await, ReasonCode::ProtocolError);
}

#[tokio::test]
async fn topic_aliases_stand_for_their_topic() {
    let mut server = Server::held(Options::default()).await;
    let mut client = Client::connect(server.address, 5, "client").await;
    client.publish(qos_0("first", "1").with_topic_alias(3)).await;
    client.publish(qos_0("", "2").with_topic_alias(3)).await;
    client.publish(qos_0("second", "3").with_topic_alias(3)).await;
    client.publish(qos_0("", "4").with_topic_alias(3)).await;
    for topic in ["first", "first", "second", "second"] {
        assert_eq!(&*server.inbound().await.topic, topic);
    }
    client.publish(qos_0("", "5").with_topic_alias(4)).await;
    assert_eq!(client.disconnected().await, ReasonCode::ProtocolError);
    let mut client = Client::connect(server.address, 5, "client").await;
    client.publish(qos_0("t", "").with_topic_alias(33)).await;
    assert_eq!(client.disconnected().await, ReasonCode::TopicAliasInvalid);
}

#[tokio::test]
async fn a_disconnect_cannot_give_a_session_an_expiry_that_had_none() {
    let server = Server::open(Options::default()).await;
    let mut client = Client::connect(server.address, 5, "client").await;
    client.send(&DisconnectPacket::normal().with_session_expiry_interval(9)).await;
    assert_eq!(client.disconnected().await, ReasonCode::ProtocolError);
    let (mut client, _) = Client::persistent(server.address, 5, "client", true).await;
    client.send(&DisconnectPacket::normal().with_session_expiry_interval(0)).await;
    assert!(client.next().await.is_none());
    until("the session to end", || server.handle.stats().sessions == 0).await;
}

#[tokio::test]
async fn properties_reach_the_application_and_the_subscribers() {
    let mut server = Server::held(Options::default()).await;
    let mut subscriber = Client::connect(server.address, 5, "subscriber").await;
    subscriber.wants("t", QoS::AtMostOnce).await;
    let mut publisher = Client::connect(server.address, 5, "publisher").await;
    let packet = qos_0("t", "x")
        .with_payload_format_indicator(true)
        .with_message_expiry_interval(100)
        .with_response_topic("answer".to_owned())
        .with_correlation_data(vec![1, 2, 3])
        .with_content_type("text/plain".to_owned())
        .with_user_property("k".to_owned(), "1".to_owned())
        .with_user_property("k".to_owned(), "2".to_owned());
    publisher.publish(packet.clone()).await;
    let inbound = server.inbound().await;
    let expected = [("k".to_owned(), "1".to_owned()), ("k".to_owned(), "2".to_owned())];
    assert_eq!(inbound.user_properties, expected);
    inbound.ack.accept();
    let PublishPacket { properties, .. } = subscriber.message().await;
    let left = properties.get_message_expiry_interval().expect("an expiry interval");
    assert!((99..=100).contains(&left));
    for (id, value) in packet.properties.iter().filter(|(id, _)| *id as u8 != 2) {
        assert!(properties.get_all(id).is_some_and(|got| got.contains(value)), "{id:?}");
    }
}

#[tokio::test]
async fn user_properties_from_inside_reach_the_subscribers_that_know_such() {
    let server = Server::open(Options::default()).await;
    for version in [4, 5] {
        let mut subscriber = Client::connect(server.address, version, "subscriber").await;
        subscriber.wants("t", QoS::AtMostOnce).await;
        let user = [("event-boot", "7"), ("event-sequence", "1")];
        assert_eq!(server.handle.publish("t", "x".into(), QoS::AtMostOnce, false, &user), Ok(1));
        let message = subscriber.message().await;
        let found = message
            .properties
            .get_all(mqtt5_protocol::PropertyId::UserProperty)
            .map_or(0, |properties| properties.len());
        assert_eq!((message.payload, found), ("x".into(), if version == 5 { 2 } else { 0 }));
    }
}

#[tokio::test]
async fn the_client_is_not_sent_what_it_cannot_take() {
    let server = Server::open(Options::default()).await;
    let mut packet = connect_packet(5, "small");
    packet.properties.set_maximum_packet_size(30);
    let (mut small, _) = Client::with(server.address, packet).await;
    small.wants("#", QoS::AtLeastOnce).await;
    let mut publisher = Client::connect(server.address, 5, "publisher").await;
    publisher.publish(qos_1("t", 1, &"x".repeat(30))).await;
    publisher.publish(qos_1("t", 2, "short")).await;
    assert_eq!(small.message().await.payload, "short");
    assert_eq!(server.handle.stats().dropped, 1);
}
