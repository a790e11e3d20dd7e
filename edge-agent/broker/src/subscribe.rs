//! SUBSCRIBE and UNSUBSCRIBE: what is granted, and the retained messages that come with it.

use std::sync::PoisonError;

use bytes::BytesMut;
use mqtt5_protocol::packet::MqttPacket;
use mqtt5_protocol::packet::suback::{SubAckPacket, SubAckReasonCode};
use mqtt5_protocol::packet::subscribe::{SubscribePacket, TopicFilter};
use mqtt5_protocol::packet::subscribe_options::RetainHandling;
use mqtt5_protocol::packet::unsuback::{UnsubAckPacket, UnsubAckReasonCode};
use mqtt5_protocol::packet::unsubscribe::UnsubscribePacket;
use mqtt5_protocol::{ProtocolVersion, ReasonCode};
use tokio::time::Instant;

use crate::connection::Connection;
use crate::encode;
use crate::hub::lower;
use crate::ingest::Ingest;
use crate::outbox::Delivery;
use crate::subscriptions::{Filter, Wish};
use crate::wire::{Violation, beginning};

impl<I: Ingest> Connection<I> {
    pub(crate) fn on_subscribe(&self, packet: SubscribePacket) -> Result<(), Violation> {
        let version = self.hello.peer.version;
        let mut answer = match version {
            ProtocolVersion::V311 => SubAckPacket::new_v311(packet.packet_id),
            ProtocolVersion::V5 => SubAckPacket::new(packet.packet_id),
        };
        let identifier = packet.properties.get_subscription_identifier();
        let wanted = packet.filters.iter();
        if wanted.clone().any(|wanted| wanted.options.no_local && wanted.filter.starts_with("$share/")) {
            return Err(Violation::protocol("No Local on a shared subscription [MQTT-3.8.3-4]"));
        }
        for wanted in wanted {
            answer.reason_codes.push(self.subscribe(wanted, identifier));
        }
        self.answer_all(&answer)
    }

    /// Answers a packet that asked for many things at once. Each has its byte in the answer, so that a client which can
    /// take less than it asks for cannot be answered.
    fn answer_all(&self, answer: &impl MqttPacket) -> Result<(), Violation> {
        let mut encoded = BytesMut::new();
        encode::packet(&mut encoded, answer);
        let (bytes, most) = (encoded.len(), self.hello.peer.max_packet);
        if bytes > most {
            let cause =
                format!("an answer of {bytes} bytes; the client's Maximum Packet Size is {most} [MQTT-3.1.2-24]");
            return Err(Violation::new(ReasonCode::PacketTooLarge, cause));
        }
        self.link.reply(|out| out.extend_from_slice(&encoded));
        Ok(())
    }

    fn subscribe(&self, wanted: &TopicFilter, identifier: Option<u32>) -> SubAckReasonCode {
        let client = &self.seat.client_id;
        let Some(filter) = Filter::parse(&wanted.filter) else {
            tracing::warn!(%client, filter = beginning(&wanted.filter), "a subscription is refused: not a topic filter");
            return SubAckReasonCode::TopicFilterInvalid;
        };
        if !self.seat.rights.may_subscribe(filter.topic) {
            self.hub.counters.denied.add(1);
            tracing::warn!(%client, filter = beginning(&wanted.filter), "a subscription is refused: no access rule allows it");
            return SubAckReasonCode::NotAuthorized;
        }
        let options = wanted.options;
        let wish = Wish {
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            identifier,
        };
        let mut topics = self.hub.topics.write().unwrap_or_else(PoisonError::into_inner);
        {
            let mut place = self.seat.place();
            // A connection that was taken over has no say in the session any more.
            if !place.belongs_to(&self.link) {
                return SubAckReasonCode::UnspecifiedError;
            }
            let filters = &mut place.session.filters;
            if filters.len() >= self.hub.options.max_subscriptions && !filters.contains(&*wanted.filter) {
                tracing::warn!(%client, filter = beginning(&wanted.filter), "a subscription is refused: max_subscriptions");
                return SubAckReasonCode::QuotaExceeded;
            }
            filters.insert(wanted.filter.as_str().into());
        }
        let new = topics.subscriptions.insert(filter, self.seat.id, self.seat.clone(), wish);
        let wants_retained = match options.retain_handling {
            RetainHandling::SendAtSubscribe => true,
            RetainHandling::SendAtSubscribeIfNew => new,
            RetainHandling::DoNotSend => false,
        };
        // Shared subscriptions get no retained messages (section 4.8.2).
        if wants_retained && filter.group.is_none() {
            topics.retained.matching(filter.topic, Instant::now().into_std(), |message| {
                // No Local says nothing of how long ago the client published it [MQTT-3.8.3-3].
                let own = options.no_local && message.origin == self.seat.id;
                if own || !self.seat.rights.may_receive(&message.topic) {
                    return;
                }
                let delivery = Delivery {
                    message: message.clone(),
                    qos: lower(message.qos, options.qos),
                    retain: true,
                    identifiers: identifier.into_iter().collect(),
                };
                self.hub.offer(&self.seat, delivery, self.hub.retained_bounds());
            });
        }
        SubAckReasonCode::from_qos(options.qos)
    }

    pub(crate) fn on_unsubscribe(&self, packet: UnsubscribePacket) -> Result<(), Violation> {
        let mut answer = match self.hello.peer.version {
            ProtocolVersion::V311 => UnsubAckPacket::new_v311(packet.packet_id),
            ProtocolVersion::V5 => UnsubAckPacket::new(packet.packet_id),
        };
        for text in &packet.filters {
            answer.reason_codes.push(match Filter::parse(text) {
                None => UnsubAckReasonCode::TopicFilterInvalid,
                Some(filter) => {
                    let mut topics = self.hub.topics.write().unwrap_or_else(PoisonError::into_inner);
                    let mut place = self.seat.place();
                    if place.belongs_to(&self.link) && place.session.filters.remove(&**text) {
                        topics.subscriptions.remove(filter, self.seat.id);
                        UnsubAckReasonCode::Success
                    } else {
                        UnsubAckReasonCode::NoSubscriptionExisted
                    }
                }
            });
        }
        self.answer_all(&answer)
    }
}
