//! A client that others wrote, in both versions of the protocol.

use std::collections::HashMap;
use std::time::Duration;

use crate::common::{Server, soon};
use agent_broker::{Access, Options};

fn options() -> Options {
    let users = HashMap::from([("user".to_owned(), "secret".to_owned())]);
    Options { access: Access::Passwords(users), ..Options::default() }
}

#[tokio::test]
async fn rumqttc_speaks_mqtt_3_with_it() {
    use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, QoS};

    let server = Server::open(options()).await;
    let mut settings = MqttOptions::new("client", "127.0.0.1", server.address.port());
    settings.set_credentials("user", "secret").set_keep_alive(Duration::from_secs(5)).set_inflight(20);
    let (client, mut events) = AsyncClient::new(settings, 100);
    client.subscribe("a/+", QoS::ExactlyOnce).await.unwrap();
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for number in 0..10 {
            client.publish(format!("a/{number}"), qos, false, vec![qos as u8]).await.unwrap();
        }
    }
    let (mut got, mut acked, mut completed) = ([0; 3], 0, 0);
    soon("all messages and acknowledgements", async {
        while (got, acked, completed) != ([10; 3], 10, 10) {
            match events.poll().await.expect("the connection holds") {
                Event::Incoming(Incoming::Publish(packet)) => got[usize::from(packet.payload[0])] += 1,
                Event::Incoming(Incoming::PubAck(_)) => acked += 1,
                Event::Incoming(Incoming::PubComp(_)) => completed += 1,
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(server.handle.stats().publishes_in, 30);
}

#[tokio::test]
async fn rumqttc_speaks_mqtt_5_with_it() {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::Packet;
    use rumqttc::v5::{AsyncClient, Event, MqttOptions};

    let server = Server::open(options()).await;
    let mut settings = MqttOptions::new("client", "127.0.0.1", server.address.port());
    settings.set_credentials("user", "secret").set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = AsyncClient::new(settings, 100);
    client.subscribe("a/+", QoS::ExactlyOnce).await.unwrap();
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for number in 0..10 {
            client.publish(format!("a/{number}"), qos, false, vec![qos as u8]).await.unwrap();
        }
    }
    let (mut got, mut acked, mut completed) = ([0; 3], 0, 0);
    soon("all messages and acknowledgements", async {
        while (got, acked, completed) != ([10; 3], 10, 10) {
            match events.poll().await.expect("the connection holds") {
                Event::Incoming(Packet::Publish(packet)) => got[usize::from(packet.payload[0])] += 1,
                Event::Incoming(Packet::PubAck(_)) => acked += 1,
                Event::Incoming(Packet::PubComp(_)) => completed += 1,
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(server.handle.stats().publishes_in, 30);
}

#[tokio::test]
async fn rumqttc_resumes_its_session() {
    use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, QoS};

    let server = Server::open(options()).await;
    let connect = || {
        let mut settings = MqttOptions::new("client", "127.0.0.1", server.address.port());
        settings.set_credentials("user", "secret").set_clean_session(false);
        AsyncClient::new(settings, 10)
    };
    async fn next(events: &mut EventLoop, wanted: impl Fn(&Incoming) -> bool) -> Incoming {
        soon("a packet", async {
            loop {
                match events.poll().await.expect("the connection holds") {
                    Event::Incoming(packet) if wanted(&packet) => return packet,
                    _ => {}
                }
            }
        })
        .await
    }
    let (client, mut events) = connect();
    client.subscribe("t", QoS::AtLeastOnce).await.unwrap();
    next(&mut events, |packet| matches!(packet, Incoming::SubAck(_))).await;
    drop((client, events));
    crate::common::until("the client to be gone", || server.handle.stats().connections == 0).await;
    server.handle.publish("t", "kept".into(), agent_broker::QoS::AtLeastOnce, false, &[]).unwrap();
    let (_client, mut events) = connect();
    let answer = next(&mut events, |packet| matches!(packet, Incoming::ConnAck(_))).await;
    assert!(matches!(answer, Incoming::ConnAck(answer) if answer.session_present));
    let message = next(&mut events, |packet| matches!(packet, Incoming::Publish(_))).await;
    assert!(matches!(message, Incoming::Publish(message) if message.payload == "kept"));
}
