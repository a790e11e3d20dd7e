//! The packets that the broker writes. Messages to subscribers are encoded from the shared message without a copy of its
//! properties, acknowledgements straight into the buffer; the rest is left to the codec.

use bytes::{BufMut, BytesMut};
use mqtt5_protocol::packet::MqttPacket;
use mqtt5_protocol::{PacketType, PropertyId, ProtocolVersion, QoS, ReasonCode};

use crate::message::Message;

/// A PUBLISH to a subscriber.
#[derive(Debug)]
pub(crate) struct Publish<'a> {
    pub(crate) message: &'a Message,
    /// Not above the message's.
    pub(crate) qos: QoS,
    pub(crate) duplicate: bool,
    pub(crate) retain: bool,
    /// Ignored for QoS 0.
    pub(crate) packet_id: u16,
    /// Subscription identifiers of the matching subscriptions (MQTT 5).
    pub(crate) identifiers: &'a [u32],
    /// Topic alias (MQTT 5), and whether the topic still has to be named.
    pub(crate) alias: Option<(u16, bool)>,
    /// Message expiry interval that is left, in seconds (MQTT 5).
    pub(crate) expiry: Option<u32>,
}

impl Publish<'_> {
    fn properties_len(&self) -> usize {
        let identifiers: usize = self.identifiers.iter().map(|id| 1 + variable_len(*id as usize)).sum();
        self.message.properties.len()
            + identifiers
            + if self.expiry.is_some() { 5 } else { 0 }
            + if self.alias.is_some() { 3 } else { 0 }
    }

    fn topic(&self) -> &str {
        if matches!(self.alias, Some((_, false))) { "" } else { &self.message.topic }
    }

    fn remaining_len(&self, version: ProtocolVersion) -> usize {
        let properties = match version {
            ProtocolVersion::V311 => 0,
            ProtocolVersion::V5 => variable_len(self.properties_len()) + self.properties_len(),
        };
        let packet_id = if self.qos == QoS::AtMostOnce { 0 } else { 2 };
        2 + self.topic().len() + packet_id + properties + self.message.payload.len()
    }

    /// Bytes on the wire.
    pub(crate) fn len(&self, version: ProtocolVersion) -> usize {
        let remaining = self.remaining_len(version);
        1 + variable_len(remaining) + remaining
    }

    pub(crate) fn encode(&self, version: ProtocolVersion, out: &mut BytesMut) {
        let remaining = self.remaining_len(version);
        out.reserve(5 + remaining);
        let flags = u8::from(self.duplicate) << 3 | (self.qos as u8) << 1 | u8::from(self.retain);
        out.put_u8((PacketType::Publish as u8) << 4 | flags);
        put_variable(out, remaining);
        put_string(out, self.topic().as_bytes());
        if self.qos != QoS::AtMostOnce {
            out.put_u16(self.packet_id);
        }
        if version == ProtocolVersion::V5 {
            put_variable(out, self.properties_len());
            out.put_slice(&self.message.properties);
            if let Some(seconds) = self.expiry {
                out.put_u8(PropertyId::MessageExpiryInterval as u8);
                out.put_u32(seconds);
            }
            if let Some((alias, _)) = self.alias {
                out.put_u8(PropertyId::TopicAlias as u8);
                out.put_u16(alias);
            }
            for id in self.identifiers {
                out.put_u8(PropertyId::SubscriptionIdentifier as u8);
                put_variable(out, *id as usize);
            }
        }
        out.put_slice(&self.message.payload);
    }
}

/// A PUBACK, PUBREC, PUBREL or PUBCOMP. The reason and its text go to MQTT 5 clients only.
pub(crate) fn ack(
    out: &mut BytesMut,
    version: ProtocolVersion,
    kind: PacketType,
    packet_id: u16,
    reason: u8,
    text: &str,
) {
    // PUBREL is the one whose flags are not 0 [MQTT-3.6.1-1].
    out.put_u8((kind as u8) << 4 | if kind == PacketType::PubRel { 0x02 } else { 0 });
    if version == ProtocolVersion::V311 || (reason == 0 && text.is_empty()) {
        out.put_u8(2);
        out.put_u16(packet_id);
        return;
    }
    let properties = if text.is_empty() { 0 } else { 3 + text.len() };
    put_variable(out, 3 + variable_len(properties) + properties);
    out.put_u16(packet_id);
    out.put_u8(reason);
    put_variable(out, properties);
    if !text.is_empty() {
        out.put_u8(PropertyId::ReasonString as u8);
        put_string(out, text.as_bytes());
    }
}

/// Any other packet.
pub(crate) fn packet(out: &mut BytesMut, packet: &impl MqttPacket) {
    let before = out.len();
    if let Err(error) = packet.encode(out) {
        // It fails for strings that are too long or hold a NUL, and the broker's own replies hold neither.
        out.truncate(before);
        tracing::error!(packet = ?packet.packet_type(), %error, "a reply could not be encoded and was left out");
    }
}

/// A DISCONNECT from the server, which only MQTT 5 knows.
pub(crate) fn disconnect(out: &mut BytesMut, reason: ReasonCode) {
    out.put_slice(&[(PacketType::Disconnect as u8) << 4, 1, reason as u8]);
}

/// A string or binary data behind its two-byte length. Everything that comes here was once read behind such a length or
/// was checked against it.
pub(crate) fn put_string(out: &mut BytesMut, data: &[u8]) {
    let len = u16::try_from(data.len()).unwrap_or(u16::MAX);
    out.put_u16(len);
    out.put_slice(&data[..usize::from(len)]);
}

/// Bytes of a variable byte integer.
fn variable_len(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

fn put_variable(out: &mut BytesMut, mut value: usize) {
    while value > 0x7f {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use mqtt5_protocol::Packet;
    use mqtt5_protocol::packet::publish::PublishPacket;
    use proptest::prelude::*;

    use super::*;
    use crate::wire;

    fn qos() -> impl Strategy<Value = QoS> {
        (0_u8..3).prop_map(QoS::from)
    }

    proptest! {
        /// What is written is what the codec reads.
        #[test]
        fn a_publish_is_read_as_it_was_written(
            topic in "[a-zäß/]{1,40}",
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            qos in qos(),
            packet_id in 1_u16..,
            flags in any::<(bool, bool, bool)>(),
            identifiers in proptest::collection::vec(1_u32..268_435_455, 0..4),
            user in proptest::collection::vec(("[a-z]{0,9}", "[a-z]{0,9}"), 0..4),
            seconds in proptest::option::of(1_u32..1_000_000),
            alias in proptest::option::of((1_u16.., any::<bool>())),
        ) {
            let now = Instant::now();
            let mut source = PublishPacket::new("", Bytes::new(), qos);
            source.payload = payload.into();
            for (name, value) in &user {
                source.properties.add_user_property(name.clone(), value.clone());
            }
            source.properties.set_content_type("text".to_owned());
            let mut message = Message::from_publish(&source, topic.as_str().into(), 1, now);
            message.expires = seconds.map(|seconds| now + Duration::from_secs(seconds.into()));
            let publish = Publish {
                message: &message,
                qos,
                duplicate: flags.0 && qos != QoS::AtMostOnce,
                retain: flags.1,
                packet_id,
                identifiers: &identifiers,
                alias,
                expiry: message.expiry_left(now),
            };
            for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
                if version == ProtocolVersion::V311 && alias.is_some() {
                    continue;
                }
                let mut out = BytesMut::new();
                publish.encode(version, &mut out);
                prop_assert_eq!(out.len(), publish.len(version));
                let frame = wire::next_frame(&mut out, u32::MAX).unwrap().unwrap();
                prop_assert!(out.is_empty());
                // The codec is asked directly: a broker itself would refuse subscription identifiers from a client.
                let Packet::Publish(read) = frame.parse(version).unwrap() else { panic!("not a PUBLISH") };
                prop_assert_eq!(&read.payload, &message.payload);
                prop_assert_eq!((read.qos, read.retain, read.dup), (qos, publish.retain, publish.duplicate));
                prop_assert_eq!(read.packet_id, (qos != QoS::AtMostOnce).then_some(packet_id));
                prop_assert_eq!(&read.topic_name, publish.topic());
                if version == ProtocolVersion::V5 {
                    prop_assert_eq!(read.properties.subscription_identifiers(), identifiers.clone());
                    prop_assert_eq!(crate::message::user_properties(&read.properties), user.clone());
                    prop_assert_eq!(read.properties.get_message_expiry_interval(), seconds);
                    prop_assert_eq!(read.properties.get_topic_alias(), alias.map(|(alias, _)| alias));
                    prop_assert_eq!(read.properties.get_content_type(), Some("text".to_owned()));
                }
            }
        }
    }

    #[test]
    fn acknowledgements_have_the_bytes_of_the_standard() {
        let mut out = BytesMut::new();
        ack(&mut out, ProtocolVersion::V5, PacketType::PubAck, 0x1234, 0, "");
        assert_eq!(out.split(), &[0x40, 2, 0x12, 0x34][..]);
        ack(&mut out, ProtocolVersion::V311, PacketType::PubRel, 1, 0x92, "ignored");
        assert_eq!(out.split(), &[0x62, 2, 0, 1][..]);
        ack(&mut out, ProtocolVersion::V5, PacketType::PubRec, 1, 0x97, "no");
        assert_eq!(out.split(), &[0x50, 9, 0, 1, 0x97, 5, 0x1f, 0, 2, b'n', b'o'][..]);
        disconnect(&mut out, ReasonCode::ServerShuttingDown);
        assert_eq!(out.split(), &[0xe0, 1, 0x8b][..]);
    }
}
