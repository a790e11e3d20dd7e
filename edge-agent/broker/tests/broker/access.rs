//! Access rules: what they refuse is answered as each version of the protocol allows, and counted.

use std::collections::HashMap;

use crate::common::{Client, Server, connect_packet, qos_0, qos_1, qos_2};
use agent_broker::{Access, Options, Pattern, QoS, Rule};
use bytes::Bytes;
use mqtt5_protocol::packet::connect::ConnectPacket;
use mqtt5_protocol::packet::pubrel::PubRelPacket;
use mqtt5_protocol::packet::subscribe::TopicFilter;
use mqtt5_protocol::{Packet, Properties, ReasonCode, WillMessage};

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::parse(text).expect("a pattern")).collect()
}

fn everybody(publish: &[&str], subscribe: &[&str], deny: &[&str]) -> Options {
    let rule = Rule { user: None, publish: patterns(publish), subscribe: patterns(subscribe), deny: patterns(deny) };
    Options { rules: vec![rule], ..Options::default() }
}

async fn granted(client: &mut Client, filters: &[&str]) -> Vec<u8> {
    let filters: Vec<_> = filters.iter().map(|filter| TopicFilter::new(*filter, QoS::AtLeastOnce)).collect();
    client.subscribe(&filters, Properties::new()).await
}

/// [MQTT-3.3.5-2] of MQTT 3.1.1: acknowledge or close; MQTT 5: sections 3.4.2.1 and 3.5.2.1.
#[tokio::test]
async fn a_publish_without_a_right_is_refused_in_its_turn_and_no_event() {
    let mut server = Server::held(everybody(&["may/#"], &["#"], &[])).await;
    let mut listener = Client::connect(server.address, 5, "listener").await;
    assert_eq!(granted(&mut listener, &["#"]).await, [1]);
    let mut new = Client::connect(server.address, 5, "new").await;
    new.publish(qos_1("may/a", 1, "")).await;
    new.publish(qos_1("not/a", 2, "").with_retain(true)).await;
    new.publish(qos_2("not/a", 3, "")).await;
    new.publish(qos_0("not/a", "")).await;
    new.quiet().await;
    server.inbound().await.ack.accept();
    assert_eq!(new.puback().await, 1, "acknowledgements stay in order");
    let Some(Packet::PubAck(ack)) = new.next().await else { panic!("no PUBACK") };
    assert_eq!((ack.packet_id, ack.reason_code), (2, ReasonCode::NotAuthorized));
    let Some(Packet::PubRec(ack)) = new.next().await else { panic!("no PUBREC") };
    assert_eq!((ack.packet_id, ack.reason_code), (3, ReasonCode::NotAuthorized));
    // The exchange is over, so the identifier is free.
    new.publish(qos_2("may/a", 3, "")).await;
    server.inbound().await.ack.accept();
    assert!(matches!(new.next().await, Some(Packet::PubRec(ack)) if ack.reason_code == ReasonCode::Success));
    new.send(&PubRelPacket::new(3)).await;
    assert!(matches!(new.next().await, Some(Packet::PubComp(ack)) if ack.reason_code == ReasonCode::Success));

    let mut old = Client::connect(server.address, 4, "old").await;
    old.publish(qos_0("not/a", "")).await;
    old.quiet().await;
    for packet in [qos_1("not/a", 1, ""), qos_2("not/a", 1, "")] {
        let mut old = Client::connect(server.address, 4, "old").await;
        old.publish(packet).await;
        assert!(old.next().await.is_none());
    }
    assert!(server.nothing_inbound());
    let stats = server.handle.stats();
    assert_eq!((stats.denied, stats.publishes_in, stats.retained), (6, 2, 0));
    for _ in 0..2 {
        assert_eq!(listener.message().await.topic_name, "may/a");
    }
    listener.quiet().await;
}

/// Sections 3.9.3 of both versions: 0x80 for MQTT 3.1.1, 0x87 for MQTT 5.
#[tokio::test]
async fn a_subscription_is_granted_if_all_of_it_is_allowed() {
    let server = Server::open(everybody(&[], &["a/#", "+/x", "$SYS/info"], &["a/secret"])).await;
    for (version, no) in [(4, 0x80), (5, 0x87)] {
        let mut client = Client::connect(server.address, version, "client").await;
        let answer = granted(&mut client, &["a", "a/+/b", "b/x", "#", "+/+", "b/#", "$SYS/info", "$SYS/#"]).await;
        assert_eq!(answer, [1, 1, 1, no, no, no, 1, no]);
        let answer = granted(&mut client, &["a/secret", "$share/g/b/#", "$share/g/a/#"]).await;
        assert_eq!(answer, [no, no, 1], "the group's name changes nothing");
        assert_eq!(server.handle.publish("b/y", Bytes::new(), QoS::AtMostOnce, false, &[]), Ok(0));
    }
    assert_eq!(server.handle.stats().denied, 12);
}

#[tokio::test]
async fn what_is_denied_is_left_out_of_a_wider_subscription() {
    let server = Server::open(everybody(&["#"], &["#"], &["secret/#"])).await;
    server.handle.publish("secret/old", Bytes::from("x"), QoS::AtMostOnce, true, &[]).unwrap();
    let mut client = Client::connect(server.address, 5, "client").await;
    assert_eq!(granted(&mut client, &["#", "$share/g/+/new"]).await, [1, 1]);
    client.quiet().await;
    assert_eq!(server.handle.publish("secret/new", Bytes::new(), QoS::AtMostOnce, false, &[]), Ok(0));
    assert_eq!(server.handle.publish("other/new", Bytes::new(), QoS::AtMostOnce, false, &[]), Ok(2));
    for _ in 0..2 {
        assert_eq!(client.message().await.topic_name, "other/new");
    }
    client.publish(qos_1("secret/new", 1, "")).await;
    assert!(matches!(client.next().await, Some(Packet::PubAck(ack)) if ack.reason_code == ReasonCode::NotAuthorized));
}

#[tokio::test]
async fn rules_are_about_users_and_client_identifiers() {
    let users = HashMap::from([("ada".to_owned(), "1".to_owned()), ("bob".to_owned(), "2".to_owned())]);
    let rules = vec![
        Rule { publish: patterns(&["s/%u/%c"]), subscribe: patterns(&["c/%u/#"]), ..Rule::default() },
        Rule { user: Some("ada".to_owned()), subscribe: patterns(&["#"]), ..Rule::default() },
    ];
    let server = Server::open(Options { access: Access::Passwords(users), rules, ..Options::default() }).await;
    let with = |user: &str, password: &str, id: &str| {
        let mut packet = connect_packet(5, id);
        packet.username = Some(user.to_owned());
        packet.password = Some(password.into());
        packet
    };
    let (mut ada, _) = Client::with(server.address, with("ada", "1", "one")).await;
    let (mut bob, _) = Client::with(server.address, with("bob", "2", "+")).await;
    assert_eq!(granted(&mut ada, &["#", "c/bob/x"]).await, [1, 1]);
    assert_eq!(granted(&mut bob, &["#", "c/bob/x", "c/ada/x"]).await, [0x87, 1, 0x87]);
    let mut neighbour = Client::with(server.address, with("ada", "1", "two")).await.0;
    neighbour.publish(qos_1("s/ada/two", 1, "")).await;
    assert_eq!(neighbour.puback().await, 1);
    assert_eq!(ada.message().await.topic_name, "s/ada/two");
    neighbour.publish(qos_1("s/ada/one", 1, "")).await;
    assert!(
        matches!(neighbour.next().await, Some(Packet::PubAck(ack)) if ack.reason_code == ReasonCode::NotAuthorized)
    );
    // A client that calls itself `+` does not get what that would match.
    bob.publish(qos_1("s/bob/any", 1, "")).await;
    assert!(matches!(bob.next().await, Some(Packet::PubAck(ack)) if ack.reason_code == ReasonCode::NotAuthorized));
}

/// A will that could not be published is refused while there is somebody to tell: CONNACK 0x87 or return code 5.
#[tokio::test]
async fn a_will_without_a_right_is_refused_at_the_connection() {
    let mut server = Server::held(everybody(&["wills/%c"], &[], &[])).await;
    let with = |version, topic: &str| -> ConnectPacket {
        let mut packet = connect_packet(version, "client");
        packet.will = Some(WillMessage::new(topic, "gone"));
        packet
    };
    for version in [4, 5] {
        let (mut client, answer) = Client::with(server.address, with(version, "wills/other")).await;
        assert_eq!(answer.reason_code, ReasonCode::NotAuthorized);
        assert!(client.next().await.is_none());
        let (client, answer) = Client::with(server.address, with(version, "wills/client")).await;
        assert_eq!(answer.reason_code, ReasonCode::Success);
        drop(client);
        assert_eq!(&*server.inbound().await.topic, "wills/client");
    }
    assert_eq!(server.handle.stats().denied, 2);
}

/// What the agent publishes for its functions is not a client's, also under `$SYS`.
#[tokio::test]
async fn what_is_published_from_inside_needs_no_right() {
    let server = Server::open(everybody(&[], &["#", "$SYS/#"], &["$SYS/internal/#"])).await;
    let mut client = Client::connect(server.address, 5, "client").await;
    assert_eq!(granted(&mut client, &["#", "$SYS/#"]).await, [1, 1]);
    for (topic, taken) in [("alerts/1", 1), ("$SYS/load", 1), ("$SYS/internal/x", 0)] {
        assert_eq!(server.handle.publish(topic, Bytes::new(), QoS::AtLeastOnce, true, &[]), Ok(taken), "{topic}");
    }
    assert_eq!(client.message().await.topic_name, "alerts/1");
    assert_eq!(client.message().await.topic_name, "$SYS/load");
    client.publish(qos_1("$SYS/load", 1, "")).await;
    assert!(matches!(client.next().await, Some(Packet::PubAck(ack)) if ack.reason_code == ReasonCode::NotAuthorized));
    assert_eq!(server.handle.stats().denied, 1);
}
