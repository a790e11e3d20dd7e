//! What the broker is for: an acknowledgement leaves when the application has committed, in order, and never otherwise.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::common::{Client, Server, connect_packet, qos_0, qos_1, qos_2, soon, until};
use agent_broker::{Inbound, Ingest, Options, QoS, Refusal, RefusalCode};
use mqtt5_protocol::packet::pubrel::PubRelPacket;
use mqtt5_protocol::{Packet, ReasonCode};
use tokio::sync::Semaphore;

#[tokio::test]
async fn a_whole_window_arrives_before_the_first_acknowledgement_and_is_acknowledged_in_order() {
    for version in [4, 5] {
        let mut server = Server::held(Options::default()).await;
        let mut client = Client::connect(server.address, version, "device").await;
        let mut held = Vec::new();
        for id in 1..=100 {
            client.publish(qos_1("t", id, &id.to_string())).await;
        }
        for id in 1..=100 {
            let inbound = server.inbound().await;
            assert_eq!(inbound.payload, id.to_string(), "in the order of sending");
            assert_eq!((&*inbound.client, &*inbound.topic), ("device", "t"));
            held.push(inbound.ack);
        }
        client.quiet().await;
        // The last one first, from a thread that tokio knows nothing of.
        let first = held.remove(0);
        std::thread::spawn(move || held.into_iter().rev().for_each(|ack| ack.accept())).join().unwrap();
        client.quiet().await;
        assert_eq!(server.handle.stats().acks_out, 0);
        first.accept();
        for id in 1..=100 {
            assert_eq!(client.puback().await, id);
        }
        assert_eq!(server.handle.stats().acks_out, 100);
        assert_eq!(server.handle.stats().publishes_in, 100);
    }
}

#[tokio::test]
async fn a_message_without_a_verdict_closes_the_connection_unacknowledged() {
    for version in [4, 5] {
        let mut server = Server::held(Options::default()).await;
        let mut client = Client::connect(server.address, version, "device").await;
        for id in 1..=3 {
            client.publish(qos_1("t", id, "")).await;
        }
        server.inbound().await.ack.accept();
        drop(server.inbound().await);
        server.inbound().await.ack.accept();
        assert_eq!(client.puback().await, 1);
        if version == 5 {
            assert_eq!(client.disconnected().await, ReasonCode::ServerBusy);
        } else {
            assert!(client.next().await.is_none());
        }
        assert_eq!(server.handle.stats().acks_out, 1);
    }
}

#[tokio::test]
async fn a_qos_0_message_without_a_verdict_disturbs_nobody() {
    let mut server = Server::held(Options::default()).await;
    let mut client = Client::connect(server.address, 4, "device").await;
    client.publish(qos_0("t", "")).await;
    drop(server.inbound().await);
    client.quiet().await;
}

#[tokio::test]
async fn a_message_has_the_generation_in_which_nothing_before_it_waited() {
    let mut server = Server::held(Options::default()).await;
    server.generation.store(7, Ordering::Relaxed);
    let mut client = Client::connect(server.address, 4, "device").await;
    client.publish(qos_1("t", 1, "")).await;
    let waits = server.inbound().await;
    assert_eq!(waits.generation, Some(7));
    server.generation.store(8, Ordering::Relaxed);
    // The first of these is still to come again, perhaps; what is not acknowledged never does.
    client.publish(qos_1("t", 2, "")).await;
    client.publish(qos_0("t", "")).await;
    let behind = server.inbound().await;
    assert_eq!(behind.generation, Some(7));
    let lossy = server.inbound().await;
    assert_eq!(lossy.generation, None);
    for (inbound, id) in [(waits, 1), (behind, 2)] {
        inbound.ack.accept();
        assert_eq!(client.puback().await, id);
    }
    // The one that waits is no matter.
    client.publish(qos_1("t", 3, "")).await;
    assert_eq!(server.inbound().await.generation, Some(8));
    lossy.ack.accept();
}

#[tokio::test]
async fn a_refusal_tells_an_mqtt_5_client_why_and_closes_an_mqtt_3_one() {
    let mut server = Server::held(Options::default()).await;
    let refusal = || Refusal::new(RefusalCode::QuotaExceeded, "the store is full");
    let mut client = Client::connect(server.address, 5, "new").await;
    client.publish(qos_1("t", 9, "")).await;
    server.inbound().await.ack.refuse(refusal());
    let Some(Packet::PubAck(ack)) = client.next().await else { panic!("no PUBACK") };
    assert_eq!((ack.packet_id, ack.reason_code), (9, ReasonCode::QuotaExceeded));
    assert_eq!(ack.properties.iter().count(), 1, "the reason string");
    client.publish(qos_2("t", 9, "")).await;
    server.inbound().await.ack.refuse(refusal());
    assert!(matches!(client.next().await, Some(Packet::PubRec(ack)) if ack.reason_code == ReasonCode::QuotaExceeded));
    client.publish(qos_2("t", 9, "")).await;
    server.inbound().await.ack.accept();
    assert!(matches!(client.next().await, Some(Packet::PubRec(ack)) if ack.reason_code == ReasonCode::Success));

    let mut packet = connect_packet(5, "terse");
    packet.properties.set_request_problem_information(false);
    let (mut terse, _) = Client::with(server.address, packet).await;
    terse.publish(qos_1("t", 9, "")).await;
    server.inbound().await.ack.refuse(refusal());
    assert!(matches!(terse.next().await, Some(Packet::PubAck(ack)) if ack.properties.is_empty()));

    let mut old = Client::connect(server.address, 4, "old").await;
    old.publish(qos_1("t", 9, "")).await;
    server.inbound().await.ack.refuse(refusal());
    assert!(old.next().await.is_none());
    assert_eq!(server.handle.stats().refused, 4);
}

#[tokio::test]
async fn a_message_sent_again_while_the_first_one_waits_is_taken_once() {
    let mut server = Server::held(Options::default()).await;
    let mut client = Client::connect(server.address, 4, "device").await;
    client.publish(qos_1("t", 1, "")).await;
    client.publish(qos_1("t", 1, "").with_dup(true)).await;
    client.quiet().await;
    server.inbound().await.ack.accept();
    assert_eq!(client.puback().await, 1);
    client.quiet().await;
    assert!(server.nothing_inbound());
    // Once acknowledged, the identifier is free: the broker cannot know that this is the same message.
    client.publish(qos_1("t", 1, "").with_dup(true)).await;
    assert!(server.inbound().await.duplicate);
}

#[tokio::test]
async fn a_qos_2_message_is_given_to_the_application_once() {
    for version in [4, 5] {
        let mut server = Server::held(Options::default()).await;
        let mut subscriber = Client::connect(server.address, version, "subscriber").await;
        subscriber.wants("t", QoS::AtLeastOnce).await;
        let (mut client, _) = Client::persistent(server.address, version, "device", true).await;
        client.publish(qos_2("t", 7, "once")).await;
        client.publish(qos_2("t", 7, "once").with_dup(true)).await;
        client.quiet().await;
        let first = server.inbound().await;
        // The client is lost and comes back while the application still has the message.
        drop(client);
        until("the loss to be seen", || server.handle.stats().connections == 1).await;
        let (mut client, present) = Client::persistent(server.address, version, "device", false).await;
        assert!(present);
        client.publish(qos_2("t", 7, "once").with_dup(true)).await;
        client.quiet().await;
        first.ack.accept();
        assert!(matches!(client.next().await, Some(Packet::PubRec(ack)) if ack.packet_id == 7));
        client.publish(qos_2("t", 7, "once").with_dup(true)).await;
        assert!(matches!(client.next().await, Some(Packet::PubRec(ack)) if ack.packet_id == 7));
        client.send(&PubRelPacket::new(7)).await;
        assert!(matches!(client.next().await, Some(Packet::PubComp(ack)) if ack.packet_id == 7));
        assert_eq!(subscriber.message().await.payload, "once");
        subscriber.quiet().await;
        assert!(server.nothing_inbound());
        client.publish(qos_2("t", 7, "another")).await;
        let another = server.inbound().await;
        assert_eq!(another.payload, "another");
        client.send(&PubRelPacket::new(99)).await;
        let Some(Packet::PubComp(ack)) = client.next().await else { panic!("no PUBCOMP") };
        let expected = if version == 5 { ReasonCode::PacketIdentifierNotFound } else { ReasonCode::Success };
        assert_eq!(ack.reason_code, expected);
    }
}

#[tokio::test]
async fn a_message_is_routed_after_its_commit_even_if_its_publisher_is_gone() {
    let mut server = Server::held(Options::default()).await;
    let mut subscriber = Client::connect(server.address, 5, "subscriber").await;
    subscriber.wants("t", QoS::AtLeastOnce).await;
    let mut publisher = Client::connect(server.address, 5, "publisher").await;
    publisher.publish(qos_1("t", 1, "a").with_retain(true)).await;
    publisher.publish(qos_0("t", "b")).await;
    let (first, second) = (server.inbound().await, server.inbound().await);
    drop(publisher);
    until("the publisher to be gone", || server.handle.stats().connections == 1).await;
    second.ack.accept();
    subscriber.quiet().await;
    assert_eq!(server.handle.stats().retained, 0);
    first.ack.accept();
    assert_eq!(subscriber.message().await.payload, "a");
    assert_eq!(subscriber.message().await.payload, "b");
    assert_eq!(server.handle.stats().retained, 1);
}

/// Takes messages only while a permit is there, and accepts them.
struct Gate(Arc<Semaphore>);

impl Ingest for Gate {
    async fn submit(&self, inbound: Inbound) {
        self.0.acquire().await.expect("never closed").forget();
        inbound.ack.accept();
    }
}

#[tokio::test]
async fn acknowledgements_go_out_while_the_application_takes_no_more() {
    let gate = Arc::new(Semaphore::new(2));
    let server = Server::start(Options::default(), Gate(gate.clone())).await;
    let mut client = Client::connect(server.address, 4, "device").await;
    for id in 1..=4 {
        client.publish(qos_1("t", id, "")).await;
    }
    assert_eq!(client.puback().await, 1);
    assert_eq!(client.puback().await, 2);
    gate.add_permits(2);
    assert_eq!(client.puback().await, 3);
    assert_eq!(client.puback().await, 4);
}

/// Panics over one topic.
struct Fragile;

impl Ingest for Fragile {
    async fn submit(&self, inbound: Inbound) {
        assert_ne!(&*inbound.topic, "bad", "this panic is part of the test");
        inbound.ack.accept();
    }
}

#[tokio::test]
async fn a_panic_of_the_application_costs_one_connection() {
    let server = Server::start(Options::default(), Fragile).await;
    let mut neighbour = Client::connect(server.address, 4, "neighbour").await;
    let mut client = Client::connect(server.address, 4, "client").await;
    client.publish(qos_1("bad", 1, "")).await;
    assert!(client.next().await.is_none());
    until("the connection to be gone", || server.handle.stats().connections == 1).await;
    assert_eq!(server.handle.stats().sessions, 1);
    neighbour.publish(qos_1("good", 1, "")).await;
    assert_eq!(neighbour.puback().await, 1);
}

#[tokio::test]
async fn an_mqtt_3_client_is_not_read_beyond_the_window() {
    let mut server = Server::held(Options { receive_window: 3, ..Options::default() }).await;
    let mut client = Client::connect(server.address, 4, "device").await;
    for id in 1..=5 {
        client.publish(qos_1("t", id, "")).await;
    }
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(server.inbound().await.ack);
    }
    // The fourth one is in the broker's buffer at most; another client's message shows that the broker had time.
    let mut other = Client::connect(server.address, 4, "other").await;
    other.publish(qos_0("other", "")).await;
    assert_eq!(&*server.inbound().await.topic, "other");
    assert!(server.nothing_inbound());
    held.remove(0).accept();
    assert_eq!(client.puback().await, 1);
    assert_eq!(&*server.inbound().await.client, "device");
    assert!(server.nothing_inbound());
}

#[tokio::test]
async fn an_mqtt_5_client_that_exceeds_the_receive_maximum_is_closed() {
    let mut server = Server::held(Options { receive_window: 2, ..Options::default() }).await;
    let (mut client, answer) = Client::with(server.address, connect_packet(5, "device")).await;
    assert_eq!(answer.properties.get_receive_maximum(), Some(2));
    for id in 1..=3 {
        client.publish(qos_1("t", id, "")).await;
    }
    assert_eq!(client.disconnected().await, ReasonCode::ReceiveMaximumExceeded);
    // QoS 2 messages count until PUBCOMP.
    let mut client = Client::connect(server.address, 5, "other").await;
    for _ in 0..2 {
        server.inbound().await.ack.accept();
    }
    for id in 1..=2 {
        client.publish(qos_2("t", id, "")).await;
        server.inbound().await.ack.accept();
        assert!(matches!(client.next().await, Some(Packet::PubRec(_))));
    }
    client.publish(qos_1("t", 3, "")).await;
    assert_eq!(client.disconnected().await, ReasonCode::ReceiveMaximumExceeded);
}

#[tokio::test]
async fn a_shutdown_lets_pending_acknowledgements_out_and_takes_nothing_more() {
    let mut server = Server::held(Options::default()).await;
    let mut new = Client::connect(server.address, 5, "new").await;
    let mut old = Client::connect(server.address, 4, "old").await;
    let mut idle = Client::connect(server.address, 5, "idle").await;
    new.publish(qos_1("t", 1, "")).await;
    let first = server.inbound().await;
    old.publish(qos_1("t", 2, "")).await;
    let second = server.inbound().await;
    let address = server.address;
    let handle = server.handle.clone();
    let stopped = server.stop();
    assert_eq!(idle.disconnected().await, ReasonCode::ServerShuttingDown);
    until("the idle one to be gone", || handle.stats().connections == 2).await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody is accepted any more");
    // The future that holds the inbox is gone with the server; what is sent now is neither read nor acknowledged.
    new.publish(qos_1("t", 3, "")).await;
    assert!(!stopped.is_finished());
    first.ack.accept();
    assert_eq!(new.puback().await, 1);
    assert_eq!(new.disconnected().await, ReasonCode::ServerShuttingDown);
    second.ack.accept();
    assert_eq!(old.puback().await, 2);
    assert!(old.next().await.is_none());
    soon("the broker to stop", stopped).await.unwrap();
    assert_eq!(handle.stats().publishes_in, 2);
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever() {
    let mut server = Server::held(Options { shutdown_timeout: Duration::from_millis(50), ..Options::default() }).await;
    let mut client = Client::connect(server.address, 4, "device").await;
    client.publish(qos_1("t", 1, "")).await;
    let inbound = server.inbound().await;
    soon("the broker to stop", server.stop()).await.unwrap();
    assert!(client.next().await.is_none());
    // A verdict that comes too late is harmless.
    inbound.ack.accept();
}

#[tokio::test]
async fn when_the_store_fails_everybody_is_closed_without_an_acknowledgement_and_may_come_back() {
    let mut server = Server::held(Options::default()).await;
    let mut new = Client::connect(server.address, 5, "new").await;
    let mut old = Client::connect(server.address, 4, "old").await;
    new.publish(qos_1("t", 1, "")).await;
    let _first = server.inbound().await;
    old.publish(qos_1("t", 1, "")).await;
    let _second = server.inbound().await;
    server.handle.disconnect_all();
    assert_eq!(new.disconnected().await, ReasonCode::ServerBusy);
    assert!(old.next().await.is_none());
    assert_eq!(server.handle.stats().acks_out, 0);
    let mut again = Client::connect(server.address, 4, "old").await;
    again.publish(qos_1("t", 1, "")).await;
    server.inbound().await.ack.accept();
    assert_eq!(again.puback().await, 1);
}
