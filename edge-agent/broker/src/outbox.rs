//! What one subscriber is still to get: the queue, and what was sent and not acknowledged yet. It survives the connection.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use mqtt5_protocol::{PacketType, ProtocolVersion, QoS};

use crate::encode::{self, Publish};
use crate::message::Message;
use crate::wire::Violation;

/// A message for this subscriber.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) message: Arc<Message>,
    /// The lower of the message's and the subscription's.
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Subscription identifiers.
    pub(crate) identifiers: Vec<u32>,
}

/// How far a QoS 1 or 2 delivery is.
#[derive(Debug, Clone)]
enum Flight {
    /// PUBLISH sent, PUBACK or PUBREC awaited.
    Published(Delivery),
    /// PUBREL sent, PUBCOMP awaited. `counts`: its PUBLISH was sent on this connection, so it is one of those that the
    /// client's Receive Maximum bounds until PUBCOMP (section 4.9).
    Released { counts: bool },
}

/// Limits of the queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) messages: usize,
    /// Payload bytes.
    pub(crate) bytes: usize,
}

/// What the connected client can take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) version: ProtocolVersion,
    /// Deliveries that may be unacknowledged: the lower of its Receive Maximum and ours.
    pub(crate) window: usize,
    /// Bytes of a packet.
    pub(crate) max_packet: usize,
    /// Topic aliases that it remembers.
    pub(crate) aliases: u16,
    /// Whether it wants reason strings (section 3.1.2.11.7).
    pub(crate) reasons: bool,
}

/// Whether a delivery found room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    Queued,
    /// The queue is full.
    Dropped,
    /// QoS 0 for an absent subscriber is not kept.
    Absent,
}

/// Numbers of one [`Outbox::transmit`].
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Transmitted {
    /// PUBLISH packets written.
    pub(crate) delivered: u64,
    /// Messages thrown away because they expired or exceed the client's packet limit.
    pub(crate) dropped: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Delivery>,
    queued_bytes: usize,
    /// In the order of sending, which is also that of the packet identifiers, from the oldest one on.
    flight: VecDeque<(u16, Flight)>,
    /// How many of `flight`, from the front, were sent on this connection. The others are to be sent again
    /// [MQTT-4.4.0-1], in order [MQTT-4.6.0-1].
    sent: usize,
    last_id: u16,
    /// Topic aliases given out on this connection.
    aliases: HashMap<Arc<str>, u16>,
}

impl Outbox {
    /// A new connection: everything in flight is sent again.
    pub(crate) fn restart(&mut self) {
        self.sent = 0;
        self.aliases.clear();
        for (_, flight) in &mut self.flight {
            if let Flight::Released { counts } = flight {
                *counts = false;
            }
        }
    }

    /// The connection is gone: what is not kept for absent subscribers goes.
    pub(crate) fn suspend(&mut self) {
        self.queue.retain(|delivery| delivery.qos != QoS::AtMostOnce);
        self.queued_bytes = self.queue.iter().map(|delivery| delivery.message.payload.len()).sum();
    }

    pub(crate) fn offer(&mut self, delivery: Delivery, bounds: Bounds) -> Offered {
        let bytes = self.queued_bytes + delivery.message.payload.len();
        if self.queue.len() >= bounds.messages || bytes > bounds.bytes {
            return Offered::Dropped;
        }
        self.queued_bytes = bytes;
        self.queue.push_back(delivery);
        Offered::Queued
    }

    /// Writes what may be sent now, until `out` holds `limit` bytes.
    pub(crate) fn transmit(&mut self, peer: &Peer, now: Instant, limit: usize, out: &mut BytesMut) -> Transmitted {
        let mut transmitted = Transmitted::default();
        let mut window = self.places_to_send_again(peer);
        while out.len() < limit && self.sent < self.flight.len() {
            let (packet_id, flight) = &self.flight[self.sent];
            match flight {
                // No other packet is held back [MQTT-4.9.0-3].
                Flight::Published(_) if window == 0 => break,
                Flight::Published(delivery) => {
                    let publish = publish(delivery, *packet_id, true, None, now);
                    if publish.len(peer.version) > peer.max_packet {
                        // It fitted the last connection, but not this one.
                        self.flight.remove(self.sent);
                        transmitted.dropped += 1;
                        continue;
                    }
                    publish.encode(peer.version, out);
                    transmitted.delivered += 1;
                    window -= 1;
                }
                Flight::Released { .. } => encode::ack(out, peer.version, PacketType::PubRel, *packet_id, 0, ""),
            }
            self.sent += 1;
        }
        if self.sent < self.flight.len() {
            return transmitted;
        }
        while out.len() < limit {
            let Some(next) = self.queue.front() else { break };
            let packet_id = match next.qos {
                QoS::AtMostOnce => 0,
                QoS::AtLeastOnce | QoS::ExactlyOnce if self.flight.len() >= peer.window => break,
                QoS::AtLeastOnce | QoS::ExactlyOnce => match self.free_id() {
                    Some(id) => id,
                    None => break,
                },
            };
            let Some(delivery) = self.queue.pop_front() else { break };
            self.queued_bytes -= delivery.message.payload.len();
            // A client must not be sent what it cannot take; the message counts as sent [MQTT-3.1.2-24, -25].
            let len = publish(&delivery, packet_id, false, None, now).len(peer.version);
            if delivery.message.expired(now) || len > peer.max_packet {
                transmitted.dropped += 1;
                continue;
            }
            // The packet that introduces an alias is three bytes longer, and its length field may grow by one.
            let alias =
                if len + 4 <= peer.max_packet { self.alias(&delivery.message.topic, peer.aliases) } else { None };
            publish(&delivery, packet_id, false, alias, now).encode(peer.version, out);
            transmitted.delivered += 1;
            if packet_id != 0 {
                self.last_id = packet_id;
                self.flight.push_back((packet_id, Flight::Published(delivery)));
                self.sent += 1;
            }
        }
        transmitted
    }

    /// How many PUBLISH packets may be sent again now: the client's Receive Maximum may be lower than on the last connection.
    fn places_to_send_again(&self, peer: &Peer) -> usize {
        if self.sent == self.flight.len() {
            return 0;
        }
        let counts = |(_, flight): &&(u16, Flight)| !matches!(flight, Flight::Released { counts: false });
        peer.window.saturating_sub(self.flight.iter().take(self.sent).filter(counts).count())
    }

    /// Identifiers are given out in turn, so those in flight lie between the oldest one and the last one: the next is
    /// free unless it is the oldest one's, after 65,535 others.
    fn free_id(&self) -> Option<u16> {
        let next = if self.last_id == u16::MAX { 1 } else { self.last_id + 1 };
        self.flight.front().is_none_or(|(oldest, _)| *oldest != next).then_some(next)
    }

    /// The alias of the topic and whether it is new. Topics get one in the order in which they come, while there are any.
    fn alias(&mut self, topic: &Arc<str>, most: u16) -> Option<(u16, bool)> {
        if most == 0 {
            return None;
        }
        if let Some(&alias) = self.aliases.get(topic) {
            return Some((alias, false));
        }
        let next = u16::try_from(self.aliases.len() + 1).ok().filter(|next| *next <= most)?;
        self.aliases.insert(topic.clone(), next);
        Some((next, true))
    }

    /// PUBACK. One for an identifier that is not in flight is ignored: after a reconnection it may be late.
    pub(crate) fn on_puback(&mut self, packet_id: u16) -> Result<(), Violation> {
        match self.find(packet_id) {
            Some((index, Flight::Published(delivery))) if delivery.qos == QoS::AtLeastOnce => self.finish(index),
            Some(_) => return Err(Violation::protocol(format!("PUBACK for {packet_id}, a QoS 2 message"))),
            None => {}
        }
        Ok(())
    }

    /// PUBREC; true if the identifier is known, which the PUBREL then tells an MQTT 5 client.
    pub(crate) fn on_pubrec(&mut self, packet_id: u16, failed: bool) -> Result<bool, Violation> {
        match self.find(packet_id) {
            Some((_, Flight::Published(delivery))) if delivery.qos != QoS::ExactlyOnce => {
                Err(Violation::protocol(format!("PUBREC for {packet_id}, a QoS 1 message")))
            }
            // The client does not want it: the exchange is over (section 4.3.3).
            Some((index, _)) if failed => {
                self.finish(index);
                Ok(true)
            }
            Some((index, _)) => {
                self.flight[index].1 = Flight::Released { counts: true };
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// PUBCOMP.
    pub(crate) fn on_pubcomp(&mut self, packet_id: u16) {
        if let Some((index, Flight::Released { .. })) = self.find(packet_id) {
            self.finish(index);
        }
    }

    /// Clients acknowledge in order, so the search ends near the front.
    fn find(&self, packet_id: u16) -> Option<(usize, &Flight)> {
        let found = self.flight.iter().enumerate().find(|(_, (id, _))| *id == packet_id);
        found.map(|(index, (_, flight))| (index, flight))
    }

    fn finish(&mut self, index: usize) {
        self.flight.remove(index);
        if index < self.sent {
            self.sent -= 1;
        }
    }
}

fn publish(
    delivery: &Delivery,
    packet_id: u16,
    duplicate: bool,
    alias: Option<(u16, bool)>,
    now: Instant,
) -> Publish<'_> {
    Publish {
        message: &delivery.message,
        qos: delivery.qos,
        duplicate,
        retain: delivery.retain,
        packet_id,
        identifiers: &delivery.identifiers,
        alias,
        expiry: delivery.message.expiry_left(now),
    }
}

#[cfg(test)]
mod tests;
