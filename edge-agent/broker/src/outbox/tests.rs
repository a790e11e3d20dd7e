use std::time::Duration;

use bytes::Bytes;
use mqtt5_protocol::Packet;
use mqtt5_protocol::packet::publish::PublishPacket;

use super::*;
use crate::wire;

const BOUNDS: Bounds = Bounds { messages: 10, bytes: 1_000 };

fn peer(window: usize) -> Peer {
    Peer { version: ProtocolVersion::V5, window, max_packet: 100, aliases: 0, reasons: true }
}

fn delivery(topic: &str, payload: &'static str, qos: QoS) -> Delivery {
    let message = Arc::new(Message::new(topic.into(), Bytes::from(payload), qos, false));
    Delivery { message, qos, retain: false, identifiers: Vec::new() }
}

fn sent(outbox: &mut Outbox, peer: &Peer, now: Instant) -> Vec<Packet> {
    let mut out = BytesMut::new();
    outbox.transmit(peer, now, 1 << 16, &mut out);
    let mut packets = Vec::new();
    while let Some(frame) = wire::next_frame(&mut out, u32::MAX).unwrap() {
        packets.push(frame.decode(ProtocolVersion::V5).unwrap());
    }
    packets
}

fn publishes(outbox: &mut Outbox, peer: &Peer, now: Instant) -> Vec<PublishPacket> {
    let packets = sent(outbox, peer, now);
    packets.into_iter().map(|packet| if let Packet::Publish(p) = packet { p } else { panic!("{packet:?}") }).collect()
}

#[test]
fn no_more_is_in_flight_than_the_client_can_take() {
    let (mut outbox, now) = (Outbox::default(), Instant::now());
    for _ in 0..3 {
        assert_eq!(outbox.offer(delivery("t", "x", QoS::AtLeastOnce), BOUNDS), Offered::Queued);
    }
    let first = publishes(&mut outbox, &peer(2), now);
    assert_eq!(first.iter().map(|p| p.packet_id).collect::<Vec<_>>(), [Some(1), Some(2)]);
    assert!(publishes(&mut outbox, &peer(2), now).is_empty());
    outbox.on_puback(2).unwrap();
    assert_eq!(publishes(&mut outbox, &peer(2), now)[0].packet_id, Some(3));
    outbox.on_puback(77).unwrap();
    assert!(outbox.on_pubrec(1, false).is_err(), "PUBREC for a QoS 1 message");
}

#[test]
fn after_a_reconnection_the_same_packets_come_again_in_order() {
    let (mut outbox, now) = (Outbox::default(), Instant::now());
    outbox.offer(delivery("a", "1", QoS::ExactlyOnce), BOUNDS);
    outbox.offer(delivery("b", "2", QoS::AtLeastOnce), BOUNDS);
    outbox.offer(delivery("c", "3", QoS::AtLeastOnce), BOUNDS);
    assert_eq!(publishes(&mut outbox, &peer(9), now).len(), 3);
    outbox.offer(delivery("d", "4", QoS::AtLeastOnce), BOUNDS);
    outbox.offer(delivery("lost", "5", QoS::AtMostOnce), BOUNDS);
    assert!(outbox.on_pubrec(1, false).unwrap());
    outbox.suspend();
    outbox.restart();
    // With a smaller window than before, in which a PUBREL takes no place.
    let again = sent(&mut outbox, &peer(1), now);
    assert!(matches!(&again[0], Packet::PubRel(p) if p.packet_id == 1));
    assert!(matches!(&again[1], Packet::Publish(p) if p.packet_id == Some(2) && p.dup && p.topic_name == "b"));
    assert_eq!(again.len(), 2);
    outbox.on_pubcomp(1);
    assert!(sent(&mut outbox, &peer(1), now).is_empty());
    outbox.on_puback(2).unwrap();
    let next = publishes(&mut outbox, &peer(1), now);
    assert_eq!((next[0].packet_id, next[0].dup, next.len()), (Some(3), true, 1));
    outbox.on_puback(3).unwrap();
    let fresh = publishes(&mut outbox, &peer(2), now);
    assert_eq!((fresh[0].packet_id, fresh[0].dup, fresh.len()), (Some(4), false, 1), "QoS 0 did not survive");
}

/// Section 4.9: the quota comes back with PUBCOMP; a PUBREL of an earlier connection never took any.
#[test]
fn a_qos_2_message_that_is_sent_again_takes_its_place_until_pubcomp() {
    let (mut outbox, now) = (Outbox::default(), Instant::now());
    for topic in ["a", "b", "c"] {
        outbox.offer(delivery(topic, "", QoS::ExactlyOnce), BOUNDS);
    }
    assert_eq!(publishes(&mut outbox, &peer(9), now).len(), 3);
    assert!(outbox.on_pubrec(3, false).unwrap());
    outbox.restart();
    assert_eq!(publishes(&mut outbox, &peer(1), now)[0].packet_id, Some(1));
    assert!(outbox.on_pubrec(1, false).unwrap());
    assert!(sent(&mut outbox, &peer(1), now).is_empty());
    outbox.on_pubcomp(1);
    let again = sent(&mut outbox, &peer(1), now);
    assert!(
        matches!(&again[..], [Packet::Publish(p), Packet::PubRel(r)] if p.packet_id == Some(2) && r.packet_id == 3)
    );
}

/// [MQTT-3.1.2-24], on a connection that takes less than the one on which the message was sent first.
#[test]
fn what_has_become_too_large_for_the_client_is_not_sent_again() {
    let (mut outbox, now) = (Outbox::default(), Instant::now());
    outbox.offer(delivery("t", "12345678901234567890", QoS::AtLeastOnce), BOUNDS);
    outbox.offer(delivery("t", "short", QoS::AtLeastOnce), BOUNDS);
    assert_eq!(publishes(&mut outbox, &peer(9), now).len(), 2);
    outbox.restart();
    let mut out = BytesMut::new();
    let transmitted = outbox.transmit(&Peer { max_packet: 20, ..peer(9) }, now, 1 << 16, &mut out);
    assert_eq!((transmitted.delivered, transmitted.dropped), (1, 1));
    outbox.on_puback(1).unwrap();
    outbox.on_puback(2).unwrap();
    assert!(outbox.flight.is_empty());
}

#[test]
fn an_identifier_in_flight_is_not_given_out_again() {
    let (mut outbox, now) = (Outbox::default(), Instant::now());
    let bounds = Bounds { messages: 70_000, bytes: 70_000 };
    for _ in 0..66_000 {
        outbox.offer(delivery("t", "x", QoS::AtLeastOnce), bounds);
    }
    // The first one is never acknowledged; its identifier stays taken and everything waits for it in the end.
    let mut ids = Vec::new();
    loop {
        let round = publishes(&mut outbox, &peer(100), now);
        if round.is_empty() {
            break;
        }
        for packet in round {
            let id = packet.packet_id.unwrap();
            if id != 1 {
                outbox.on_puback(id).unwrap();
            }
            ids.push(id);
        }
    }
    assert_eq!(ids, (1..=u16::MAX).collect::<Vec<_>>());
    outbox.on_puback(1).unwrap();
    assert_eq!(publishes(&mut outbox, &peer(100), now)[0].packet_id, Some(1));
}

#[test]
fn the_queue_is_bounded_in_messages_and_bytes() {
    let mut outbox = Outbox::default();
    let bounds = Bounds { messages: 2, bytes: 10 };
    assert_eq!(outbox.offer(delivery("t", "12345678", QoS::AtLeastOnce), bounds), Offered::Queued);
    assert_eq!(outbox.offer(delivery("t", "123", QoS::AtLeastOnce), bounds), Offered::Dropped);
    assert_eq!(outbox.offer(delivery("t", "12", QoS::AtLeastOnce), bounds), Offered::Queued);
    assert_eq!(outbox.offer(delivery("t", "", QoS::AtLeastOnce), bounds), Offered::Dropped);
    outbox.transmit(&peer(9), Instant::now(), 1 << 16, &mut BytesMut::new());
    assert_eq!(outbox.offer(delivery("t", "1234567890", QoS::AtLeastOnce), bounds), Offered::Queued);
}

#[test]
fn expired_and_oversized_messages_are_left_out_and_the_interval_shrinks() {
    let (mut outbox, now) = (Outbox::default(), Instant::now());
    let expiring = |seconds| {
        let mut message = Message::new("t".into(), Bytes::new(), QoS::AtMostOnce, false);
        message.expires = Some(now + Duration::from_secs(seconds));
        Delivery { message: Arc::new(message), ..delivery("t", "", QoS::AtMostOnce) }
    };
    outbox.offer(expiring(1), BOUNDS);
    outbox.offer(expiring(10), BOUNDS);
    outbox.offer(delivery(&"long".repeat(30), "", QoS::AtLeastOnce), BOUNDS);
    let mut out = BytesMut::new();
    let transmitted = outbox.transmit(&peer(9), now + Duration::from_secs(4), 1 << 16, &mut out);
    assert_eq!((transmitted.delivered, transmitted.dropped), (1, 2));
    let frame = wire::next_frame(&mut out, u32::MAX).unwrap().unwrap();
    let Packet::Publish(packet) = frame.decode(ProtocolVersion::V5).unwrap() else { panic!("not a PUBLISH") };
    assert_eq!(packet.properties.get_message_expiry_interval(), Some(6));
    // What was sent in time does not expire any more [MQTT-4.3.3-7].
    outbox.offer(Delivery { qos: QoS::ExactlyOnce, ..expiring(10) }, BOUNDS);
    assert_eq!(publishes(&mut outbox, &peer(9), now).len(), 1);
    outbox.restart();
    assert!(publishes(&mut outbox, &peer(9), now + Duration::from_secs(20))[0].dup);
}

#[test]
fn aliases_are_given_in_turn_and_forgotten_with_the_connection() {
    let (mut outbox, now) = (Outbox::default(), Instant::now());
    let peer = Peer { aliases: 1, ..peer(9) };
    for topic in ["a", "a", "b"] {
        outbox.offer(delivery(topic, "", QoS::AtMostOnce), BOUNDS);
    }
    let got: Vec<_> = publishes(&mut outbox, &peer, now)
        .into_iter()
        .map(|packet| (packet.properties.get_topic_alias(), packet.topic_name))
        .collect();
    assert_eq!(got, [(Some(1), "a".to_owned()), (Some(1), String::new()), (None, "b".to_owned())]);
    outbox.restart();
    outbox.offer(delivery("b", "", QoS::AtMostOnce), BOUNDS);
    assert_eq!(publishes(&mut outbox, &peer, now)[0].topic_name, "b");
}
