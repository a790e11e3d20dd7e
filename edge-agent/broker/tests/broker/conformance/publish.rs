//! What of a PUBLISH reaches whom (sections 3.3 and 4.7).

use std::collections::HashMap;

use agent_broker::{Options, QoS};
use bytes::Bytes;
use mqtt5_protocol::packet::subscribe::TopicFilter;
use mqtt5_protocol::packet::subscribe_options::{RetainHandling, SubscriptionOptions};
use mqtt5_protocol::{Packet, Properties, ReasonCode};

use crate::common::{Client, Server, connect_packet, qos_0, qos_1, qos_2};

/// Publishes and waits until the broker has taken it.
async fn published(client: &mut Client, packet: mqtt5_protocol::packet::publish::PublishPacket) {
    client.publish(packet).await;
    assert_eq!(client.puback().await, 1);
}

/// Sections 4.7.1.2 and 4.7.1.3, with the examples of the standard; [MQTT-4.7.2-1] for topics that begin with `$`.
#[tokio::test]
async fn wildcards_match_as_the_examples_of_the_standard_say() {
    let server = Server::open(Options::default()).await;
    let player = "sport/tennis/player1";
    let cases: [(&str, &[&str], &[&str]); 14] = [
        (
            "sport/tennis/player1/#",
            &[player, "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"],
            &["sport/tennis/player2", "sport/tennis/player10"],
        ),
        ("sport/#", &["sport", "sport/", "sport/tennis"], &["sports", "/sport"]),
        ("#", &["sport", "/", "/finance"], &["$SYS/a", "$"]),
        ("sport/tennis/+", &[player, "sport/tennis/"], &["sport/tennis/player1/ranking", "sport/tennis"]),
        ("sport/+", &["sport/"], &["sport"]),
        ("+", &["sport"], &["/finance", "$SYS"]),
        ("+/+", &["/finance", "a/"], &["$SYS/a"]),
        ("/+", &["/finance"], &["finance", "/finance/x"]),
        ("+/tennis/#", &["sport/tennis", "sport/tennis/x/y", "/tennis"], &["$SYS/tennis"]),
        ("sport/+/player1", &[player], &["sport/player1", "sport/a/b/player1"]),
        ("+/monitor/Clients", &["a/monitor/Clients"], &["$SYS/monitor/Clients"]),
        ("$SYS/#", &["$SYS", "$SYS/a/b"], &["SYS/a"]),
        ("$SYS/monitor/+", &["$SYS/monitor/Clients"], &["$SYS/monitor"]),
        ("$share/group/+/a", &["b/a"], &["$SYS/a"]),
    ];
    for version in [4, 5] {
        for (filter, matching, others) in cases {
            let mut client = Client::connect(server.address, version, "client").await;
            client.wants(filter, QoS::AtMostOnce).await;
            for topic in others.iter().chain(matching) {
                client.publish(qos_0(topic, "")).await;
            }
            for topic in matching {
                assert_eq!(client.message().await.topic_name, *topic, "{filter}");
            }
            client.quiet().await;
        }
    }
}

/// [MQTT-4.7.3-4, -1.5.4-3] of 5, [MQTT-4.7.3-4, -1.5.3-3] of 3.1.1: no normalisation, and U+FEFF is a character.
#[tokio::test]
async fn topics_are_compared_character_by_character() {
    let server = Server::open(Options::default()).await;
    let topics = [
        "ACCOUNTS",
        "Accounts",
        "/Accounts",
        "Accounts/",
        "Accounts//",
        " Accounts",
        "\u{feff}Accounts",
        "Accounts\u{e9}",
        "Accountse\u{301}",
    ];
    for version in [4, 5] {
        for topic in topics {
            let mut client = Client::connect(server.address, version, "client").await;
            client.wants(topic, QoS::AtMostOnce).await;
            for other in topics {
                client.publish(qos_0(other, "")).await;
            }
            assert_eq!(client.message().await.topic_name, topic);
            client.quiet().await;
        }
    }
    // [MQTT-4.7.3-3]: as long as a string can be.
    let long = "x/".repeat(60).to_string() + &"y".repeat(65_535 - 120);
    let mut client = Client::connect(server.address, 5, "client").await;
    client.wants(&long, QoS::AtMostOnce).await;
    client.publish(qos_0(&long, "")).await;
    assert_eq!(client.message().await.topic_name, long);
}

/// [MQTT-3.8.4-6] of 3.1.1, [MQTT-3.8.4-8] of 5: the lower of what was published and what was granted.
#[tokio::test]
async fn the_quality_of_service_is_the_lower_of_both() {
    let server = Server::open(Options::default()).await;
    let qualities = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    for version in [4, 5] {
        for granted in qualities {
            let mut client = Client::connect(server.address, version, "client").await;
            client.wants("t", granted).await;
            for published in qualities {
                server.handle.publish("t", Bytes::new(), published, false, &[]).unwrap();
                let got = client.message().await;
                assert_eq!(got.qos as u8, (granted as u8).min(published as u8));
                assert_eq!(got.packet_id.is_some(), got.qos != QoS::AtMostOnce, "[MQTT-2.2.1-2]");
            }
        }
    }
}

/// [MQTT-3.3.1-1, -3]: DUP says of each hop whether it is a repetition there.
#[tokio::test]
async fn dup_and_the_packet_identifier_are_not_passed_on() {
    let server = Server::open(Options::default()).await;
    for version in [4, 5] {
        let mut subscriber = Client::connect(server.address, version, "subscriber").await;
        subscriber.wants("t", QoS::AtLeastOnce).await;
        let mut publisher = Client::connect(server.address, version, "publisher").await;
        publisher.publish(qos_1("t", 500, "").with_dup(true)).await;
        assert_eq!(publisher.puback().await, 500);
        let got = subscriber.message().await;
        assert_eq!((got.dup, got.packet_id), (false, Some(1)));
    }
}

/// [MQTT-4.6.0-5, -6]: a topic is ordered, for each quality of service; here for all of them.
#[tokio::test]
async fn messages_of_one_publisher_arrive_in_their_order() {
    let server = Server::open(Options::default()).await;
    for version in [4, 5] {
        let mut subscriber = Client::connect(server.address, version, "subscriber").await;
        subscriber.wants("t/#", QoS::ExactlyOnce).await;
        let mut publisher = Client::connect(server.address, version, "publisher").await;
        for id in 1..=90 {
            let payload = id.to_string();
            publisher
                .publish(match id % 3 {
                    0 => qos_0("t/a", &payload),
                    1 => qos_1("t/b", id, &payload),
                    _ => qos_2("t/a", id, &payload),
                })
                .await;
        }
        for id in 1..=90 {
            assert_eq!(subscriber.message().await.payload, id.to_string());
        }
    }
}

/// [MQTT-3.3.1-5 to -12] of 3.1.1, [MQTT-3.3.1-5 to -8, -12] of 5: what is kept, replaced, forgotten, and given to
/// whom.
#[tokio::test]
async fn a_topic_keeps_the_last_message_that_was_to_be_retained() {
    let server = Server::open(Options::default()).await;
    for version in [4, 5] {
        let mut publisher = Client::connect(server.address, version, "publisher").await;
        let retained = async || {
            let mut client = Client::connect(server.address, version, "client").await;
            client.wants("r", QoS::ExactlyOnce).await;
            client.bytes(&[0xc0, 0]).await;
            match client.next().await {
                Some(Packet::Publish(got)) => {
                    assert!(got.retain && !got.dup);
                    Some((String::from_utf8(got.payload.to_vec()).unwrap(), got.qos as u8))
                }
                // PINGRESP, before which retained messages would have come.
                _ => match client.next().await {
                    Some(Packet::Publish(got)) => {
                        Some((String::from_utf8(got.payload.to_vec()).unwrap(), got.qos as u8))
                    }
                    _ => None,
                },
            }
        };
        published(&mut publisher, qos_1("r", 1, "a").with_retain(true)).await;
        published(&mut publisher, qos_1("r", 1, "not retained")).await;
        assert_eq!(retained().await, Some(("a".to_owned(), 1)), "a message without RETAIN changes nothing");
        publisher.publish(qos_0("r", "b").with_retain(true)).await;
        publisher.quiet().await;
        assert_eq!(retained().await, Some(("b".to_owned(), 0)), "a QoS 0 message replaces it, too");
        // An empty one deletes it, and reaches those who are subscribed as any other message.
        let mut client = Client::connect(server.address, version, "client").await;
        client.wants("r", QoS::AtMostOnce).await;
        assert_eq!(client.message().await.payload, "b");
        published(&mut publisher, qos_1("r", 1, "").with_retain(true)).await;
        let empty = client.message().await;
        assert_eq!((empty.payload.len(), empty.retain), (0, false));
        assert_eq!(server.handle.stats().retained, 0);
    }
}

/// [MQTT-3.8.4-3] of 3.1.1, [MQTT-3.8.4-4, -3.3.1-9 to -11] of 5.
#[tokio::test]
async fn retained_messages_come_again_with_each_subscription_that_asks() {
    let server = Server::open(Options::default()).await;
    server.handle.publish("r", Bytes::from("kept"), QoS::AtMostOnce, true, &[]).unwrap();
    let mut client = Client::connect(server.address, 4, "client").await;
    for _ in 0..3 {
        client.wants("r", QoS::AtMostOnce).await;
        assert_eq!(client.message().await.payload, "kept");
    }
    let mut client = Client::connect(server.address, 5, "client").await;
    let with = |filter: &str, retain_handling| {
        let options = SubscriptionOptions { retain_handling, ..SubscriptionOptions::default() };
        [TopicFilter::with_options(filter, options)]
    };
    client.subscribe(&with("r", RetainHandling::SendAtSubscribeIfNew), Properties::new()).await;
    assert_eq!(client.message().await.payload, "kept");
    client.subscribe(&with("r", RetainHandling::SendAtSubscribeIfNew), Properties::new()).await;
    client.subscribe(&with("r", RetainHandling::DoNotSend), Properties::new()).await;
    client.subscribe(&with("$share/g/r", RetainHandling::SendAtSubscribe), Properties::new()).await;
    client.quiet().await;
    client.subscribe(&with("+", RetainHandling::SendAtSubscribeIfNew), Properties::new()).await;
    assert_eq!(client.message().await.payload, "kept", "another filter is a new subscription");
}

/// [MQTT-3.8.3-3]: messages go back to nobody who asked not to get its own, be they live or retained.
#[tokio::test]
async fn no_local_holds_for_retained_messages() {
    let server = Server::open(Options::default()).await;
    let mut client = Client::connect(server.address, 5, "client").await;
    published(&mut client, qos_1("own", 1, "").with_retain(true)).await;
    published(&mut client, qos_1("own", 1, "x").with_retain(true)).await;
    server.handle.publish("others", Bytes::from("y"), QoS::AtMostOnce, true, &[]).unwrap();
    let options = SubscriptionOptions { no_local: true, ..SubscriptionOptions::default() };
    client.subscribe(&[TopicFilter::with_options("#", options)], Properties::new()).await;
    assert_eq!(client.message().await.topic_name, "others");
    client.quiet().await;
}

/// [MQTT-3.3.2-7, -9, -10, -12]: an alias of a client ends with the connection, and all up to the maximum are taken.
#[tokio::test]
async fn a_clients_topic_alias_lasts_as_long_as_the_connection() {
    let mut server = Server::held(Options::default()).await;
    let (mut client, _) = Client::persistent(server.address, 5, "client", true).await;
    let most = {
        let (_, answer) = Client::with(server.address, connect_packet(5, "other")).await;
        answer.properties.get_topic_alias_maximum().expect("aliases are taken")
    };
    for alias in 1..=most {
        client.publish(qos_0(&format!("t/{alias}"), "").with_topic_alias(alias)).await;
    }
    for alias in (1..=most).rev() {
        client.publish(qos_0("", "").with_topic_alias(alias)).await;
    }
    for alias in (1..=most).chain((1..=most).rev()) {
        assert_eq!(*server.inbound().await.topic, format!("t/{alias}"));
    }
    let (mut client, present) = Client::persistent(server.address, 5, "client", false).await;
    assert!(present);
    client.publish(qos_0("", "").with_topic_alias(1)).await;
    assert_eq!(client.disconnected().await, ReasonCode::ProtocolError);
    assert!(server.nothing_inbound());
}

/// [MQTT-3.1.2-26, -27]: the broker gives no more aliases than the client remembers, and none on its own.
#[tokio::test]
async fn the_broker_gives_as_many_aliases_as_the_client_takes() {
    let server = Server::open(Options::default()).await;
    for most in [0, 1, 2] {
        let mut packet = connect_packet(5, "client");
        if most > 0 {
            packet.properties.set_topic_alias_maximum(most);
        }
        let (mut client, _) = Client::with(server.address, packet).await;
        client.wants("#", QoS::AtMostOnce).await;
        for topic in ["a", "b", "c", "a", "b", "c"] {
            client.publish(qos_0(topic, topic)).await;
        }
        let mut aliases = HashMap::<u16, Bytes>::new();
        for _ in 0..6 {
            let got = client.message().await;
            let topic = match (got.topic_name.as_str(), got.properties.get_topic_alias()) {
                ("", alias) => aliases[&alias.expect("an alias in place of the topic")].clone(),
                (_, None) => got.payload.clone(),
                (_, Some(alias)) => {
                    assert!((1..=most).contains(&alias));
                    aliases.entry(alias).insert_entry(got.payload.clone()).get().clone()
                }
            };
            assert_eq!(topic, got.payload);
        }
        assert_eq!(aliases.len(), usize::from(most));
    }
}
