//! From bytes to packets. Decoding is the codec's; what it lets pass although the standard forbids it is checked here.

use std::borrow::Cow;

use bytes::{Buf, Bytes, BytesMut};
use mqtt5_protocol::{
    FixedHeader, MqttError, Packet, PacketType, Properties, PropertyId, PropertyValue, ProtocolVersion, ReasonCode,
    is_valid_topic_name,
};

/// What a client did against the protocol, and what an MQTT 5 client is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause} (reason code 0x{:02x})", *reason as u8)]
pub(crate) struct Violation {
    pub(crate) reason: ReasonCode,
    pub(crate) cause: Cow<'static, str>,
}

impl Violation {
    pub(crate) fn new(reason: ReasonCode, cause: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, cause: cause.into() }
    }

    pub(crate) fn malformed(cause: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ReasonCode::MalformedPacket, cause)
    }

    pub(crate) fn protocol(cause: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ReasonCode::ProtocolError, cause)
    }
}

impl From<MqttError> for Violation {
    fn from(error: MqttError) -> Self {
        let reason = match error {
            MqttError::ProtocolError(_) | MqttError::DuplicatePropertyId(_) => ReasonCode::ProtocolError,
            _ => ReasonCode::MalformedPacket,
        };
        Self::new(reason, error.to_string())
    }
}

/// One whole control packet that is not decoded yet.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) header: FixedHeader,
    /// What follows the fixed header.
    pub(crate) body: Bytes,
}

/// Splits the next control packet off `buffer`; `None` when it is not complete. `max` bounds the packet with its header,
/// in bytes, and is checked as soon as the length is known.
pub(crate) fn next_frame(buffer: &mut BytesMut, max: u32) -> Result<Option<Frame>, Violation> {
    let Some((&first, rest)) = buffer.split_first() else { return Ok(None) };
    let mut remaining = 0_usize;
    for (index, &byte) in rest.iter().take(4).enumerate() {
        remaining |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 != 0 {
            continue;
        }
        if index > 0 && byte == 0 {
            // The fewest bytes must be used [MQTT-1.5.5-1].
            return Err(Violation::malformed("the remaining length has a superfluous byte"));
        }
        let header_len = 2 + index;
        let total = header_len + remaining;
        if total > max as usize {
            let cause = format!("a packet of {total} bytes exceeds the limit of {max} bytes");
            return Err(Violation::new(ReasonCode::PacketTooLarge, cause));
        }
        let Some(packet_type) = PacketType::from_u8(first >> 4) else {
            return Err(Violation::malformed("packet type 0 is reserved"));
        };
        if buffer.len() < total {
            return Ok(None);
        }
        let mut body = buffer.split_to(total).freeze();
        body.advance(header_len);
        return Ok(Some(Frame { header: FixedHeader::new(packet_type, first & 0x0f, remaining as u32), body }));
    }
    if rest.len() >= 4 {
        return Err(Violation::malformed("the remaining length is longer than four bytes"));
    }
    Ok(None)
}

impl Frame {
    /// The packet, if a client may send it as it is.
    pub(crate) fn decode(self, version: ProtocolVersion) -> Result<Packet, Violation> {
        self.check_before(version)?;
        let packet = self.parse(version)?;
        check_after(&packet, version)?;
        Ok(packet)
    }

    /// The packet as the codec reads it, with nothing behind it.
    pub(crate) fn parse(mut self, version: ProtocolVersion) -> Result<Packet, Violation> {
        let packet = Packet::decode_from_body_with_version(
            self.header.packet_type,
            &self.header,
            &mut self.body,
            version.as_u8(),
        )?;
        if self.body.has_remaining() {
            let (left, kind) = (self.body.remaining(), packet.packet_type_name());
            return Err(Violation::malformed(format!("{left} bytes too many in a {kind} packet")));
        }
        Ok(packet)
    }

    /// What cannot be seen any more in the decoded packet.
    fn check_before(&self, version: ProtocolVersion) -> Result<(), Violation> {
        if self.header.packet_type == PacketType::Auth {
            // A CONNECT with an authentication method was refused, so there is nothing to exchange [MQTT-4.12.0-7]. Reason
            // code 0x8C (bad authentication method) does not belong in a DISCONNECT (section 3.14.2.1).
            return Err(Violation::protocol("AUTH, but no extended authentication is offered"));
        }
        if version == ProtocolVersion::V5 {
            return Ok(());
        }
        match self.header.packet_type {
            // The codec would read a reason code, which MQTT 3.1.1 does not have.
            PacketType::PubAck | PacketType::PubRec | PacketType::PubRel | PacketType::PubComp
                if self.body.len() != 2 =>
            {
                Err(Violation::malformed("an acknowledgement is not two bytes long"))
            }
            PacketType::Disconnect if !self.body.is_empty() => Err(Violation::malformed("DISCONNECT has a body")),
            PacketType::Subscribe => check_subscribe_options(&self.body),
            _ => Ok(()),
        }
    }
}

/// The codec takes QoS 3 for QoS 0 and ignores reserved bits in a SUBSCRIBE of MQTT 3.1.1 [MQTT-3-8.3-4].
fn check_subscribe_options(body: &[u8]) -> Result<(), Violation> {
    let mut rest = body.get(2..).unwrap_or_default();
    while let [high, low, tail @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        // What is too short here is refused by the codec.
        let Some((&options, tail)) = tail.get(len..).and_then(|tail| tail.split_first()) else { break };
        if options > 2 {
            return Err(Violation::malformed(format!("a subscription asks for QoS byte 0x{options:02x}")));
        }
        rest = tail;
    }
    Ok(())
}

/// What the codec decodes although it is not allowed.
fn check_after(packet: &Packet, version: ProtocolVersion) -> Result<(), Violation> {
    use PropertyId as P;
    let packet_id = |id: u16| {
        if id == 0 { Err(Violation::protocol("packet identifier 0 [MQTT-2.2.1-3]")) } else { Ok(()) }
    };
    match packet {
        Packet::Connect(connect) => {
            only(
                &connect.properties,
                &[
                    P::SessionExpiryInterval,
                    P::ReceiveMaximum,
                    P::MaximumPacketSize,
                    P::TopicAliasMaximum,
                    P::RequestResponseInformation,
                    P::RequestProblemInformation,
                    P::UserProperty,
                    P::AuthenticationMethod,
                    P::AuthenticationData,
                ],
            )?;
            only(
                &connect.will_properties,
                &[
                    P::WillDelayInterval,
                    P::PayloadFormatIndicator,
                    P::MessageExpiryInterval,
                    P::ContentType,
                    P::ResponseTopic,
                    P::CorrelationData,
                    P::UserProperty,
                ],
            )?;
            if let Some(will) = &connect.will
                && !is_valid_topic_name(&will.topic)
            {
                return Err(Violation::new(
                    ReasonCode::TopicNameInvalid,
                    format!("will topic {:?}", beginning(&will.topic)),
                ));
            }
            Ok(())
        }
        Packet::Publish(publish) => {
            publish.packet_id.map_or(Ok(()), packet_id)?;
            only(
                &publish.properties,
                &[
                    P::PayloadFormatIndicator,
                    P::MessageExpiryInterval,
                    P::TopicAlias,
                    P::ResponseTopic,
                    P::CorrelationData,
                    P::UserProperty,
                    P::ContentType,
                ],
            )?;
            let aliased = version == ProtocolVersion::V5 && publish.properties.contains(P::TopicAlias);
            if !(is_valid_topic_name(&publish.topic_name) || aliased && publish.topic_name.is_empty()) {
                let topic = beginning(&publish.topic_name);
                let cause = format!("PUBLISH to {topic:?}, which is no topic name [MQTT-3.3.2-2]");
                return Err(Violation::new(ReasonCode::TopicNameInvalid, cause));
            }
            Ok(())
        }
        Packet::PubAck(ack) => only(&ack.properties, &[P::ReasonString, P::UserProperty]),
        Packet::PubRec(ack) => only(&ack.properties, &[P::ReasonString, P::UserProperty]),
        Packet::PubRel(ack) => only(&ack.properties, &[P::ReasonString, P::UserProperty]),
        Packet::PubComp(ack) => only(&ack.properties, &[P::ReasonString, P::UserProperty]),
        Packet::Subscribe(subscribe) => {
            packet_id(subscribe.packet_id)?;
            only(&subscribe.properties, &[P::SubscriptionIdentifier, P::UserProperty])?;
            if subscribe.properties.subscription_identifiers().len() > 1 {
                return Err(Violation::protocol("more than one subscription identifier in a SUBSCRIBE"));
            }
            Ok(())
        }
        Packet::Unsubscribe(unsubscribe) => {
            packet_id(unsubscribe.packet_id)?;
            only(&unsubscribe.properties, &[P::UserProperty])
        }
        Packet::Disconnect(disconnect) => {
            only(&disconnect.properties, &[P::SessionExpiryInterval, P::ReasonString, P::UserProperty])
        }
        Packet::PingReq => Ok(()),
        Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp | Packet::Auth(_) => {
            Err(Violation::protocol(format!("a client may not send {}", packet.packet_type_name())))
        }
    }
}

/// Refuses properties that do not belong to the packet, and values that the standard excludes.
fn only(properties: &Properties, allowed: &[PropertyId]) -> Result<(), Violation> {
    if properties.is_empty() {
        return Ok(());
    }
    for (id, value) in properties.iter() {
        if !allowed.contains(&id) {
            return Err(Violation::protocol(format!("property {id:?} does not belong to this packet")));
        }
        let wrong = match (id, value) {
            (PropertyId::TopicAlias, PropertyValue::TwoByteInteger(0)) => {
                return Err(Violation::new(ReasonCode::TopicAliasInvalid, "topic alias 0 [MQTT-3.3.2-8]"));
            }
            (PropertyId::ReceiveMaximum, PropertyValue::TwoByteInteger(0))
            | (PropertyId::MaximumPacketSize, PropertyValue::FourByteInteger(0))
            | (PropertyId::SubscriptionIdentifier, PropertyValue::VariableByteInteger(0)) => true,
            (
                PropertyId::RequestProblemInformation
                | PropertyId::RequestResponseInformation
                | PropertyId::PayloadFormatIndicator,
                PropertyValue::Byte(byte),
            ) => *byte > 1,
            (PropertyId::ResponseTopic, PropertyValue::Utf8String(topic)) => !is_valid_topic_name(topic),
            _ => false,
        };
        if wrong {
            return Err(Violation::protocol(format!("property {id:?} has a value that the standard excludes")));
        }
    }
    Ok(())
}

/// As much of a client's text as belongs in a message or a log: the first 100 bytes, at most.
pub(crate) fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(100)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8], version: ProtocolVersion) -> Result<Packet, Violation> {
        next_frame(&mut BytesMut::from(bytes), 1 << 20)?.expect("a whole packet").decode(version)
    }

    fn reason(bytes: &[u8], version: ProtocolVersion) -> ReasonCode {
        decode(bytes, version).expect_err("it is against the protocol").reason
    }

    #[test]
    fn what_the_codec_lets_pass_is_refused() {
        use ProtocolVersion::{V5, V311};
        use ReasonCode as R;
        for (bytes, version, expected) in [
            (&[0x82, 6, 0, 1, 0, 1, b'a', 3][..], V311, R::MalformedPacket), // SUBSCRIBE with QoS 3
            (&[0x82, 6, 0, 1, 0, 1, b'a', 0x41], V311, R::MalformedPacket),  // reserved bits
            (&[0x82, 6, 0, 0, 0, 1, b'a', 1], V311, R::ProtocolError),       // packet identifier 0
            (&[0x40, 3, 0, 1, 0], V311, R::MalformedPacket),                 // PUBACK with a reason code
            (&[0xe0, 1, 0], V311, R::MalformedPacket),                       // DISCONNECT with a reason code
            (&[0xc0, 1, 0], V311, R::MalformedPacket),                       // PINGREQ with a body
            (&[0x36, 5, 0, 1, b'a', 0, 1], V311, R::MalformedPacket),        // PUBLISH with QoS 3
            (&[0x30, 3, 0, 1, b'#'], V311, R::TopicNameInvalid),             // wildcard
            (&[0x30, 2, 0, 0], V311, R::TopicNameInvalid),                   // empty topic
            (&[0x30, 3, 0, 1, 0xff], V311, R::MalformedPacket),              // not UTF-8
            (&[0x30, 5, 0, 3, 0xed, 0xa0, 0x80], V311, R::MalformedPacket),  // a surrogate
            (&[0x30, 3, 0, 1, 0], V311, R::MalformedPacket),                 // U+0000
            (&[0x32, 5, 0, 1, b'a', 0, 0], V311, R::ProtocolError),          // packet identifier 0
            (&[0x20, 2, 0, 0], V311, R::ProtocolError),                      // CONNACK from a client
            (&[0x30, 6, 0, 1, b'a', 2, 0x0b, 1], V5, R::ProtocolError),      // subscription identifier from a client
            (&[0x30, 7, 0, 1, b'a', 3, 0x23, 0, 0], V5, R::TopicAliasInvalid),
            (&[0x30, 6, 0, 1, b'a', 2, 0x01, 2], V5, R::ProtocolError), // payload format 2
            (&[0x30, 6, 0, 1, b'a', 2, 0x7f, 2], V5, R::MalformedPacket), // unknown property
            (&[0xf0, 0], V5, R::ProtocolError),
        ] {
            assert_eq!(reason(bytes, version), expected, "{bytes:x?}");
        }
        assert!(matches!(decode(&[0xe0, 0], V311), Ok(Packet::Disconnect(_))));
        assert!(matches!(decode(&[0x30, 7, 0, 0, 3, 0x23, 0, 1, b'x'], V5), Ok(Packet::Publish(_))));
    }

    #[test]
    fn a_packet_over_the_limit_is_refused_before_it_is_read() {
        let error = next_frame(&mut BytesMut::from(&[0x30, 0xff, 0x7f][..]), 1_000).unwrap_err();
        assert_eq!(error.reason, ReasonCode::PacketTooLarge);
        assert_eq!(error.to_string(), "a packet of 16386 bytes exceeds the limit of 1000 bytes (reason code 0x95)");
    }

    #[test]
    fn the_remaining_length_is_at_most_four_bytes_and_the_shortest() {
        assert!(next_frame(&mut BytesMut::from(&[0x30, 0x80, 0x80, 0x80][..]), u32::MAX).unwrap().is_none());
        assert!(next_frame(&mut BytesMut::from(&[0x30, 0x80, 0x80, 0x80, 0x80][..]), u32::MAX).is_err());
        assert!(next_frame(&mut BytesMut::from(&[0x30, 0x80, 0x00][..]), u32::MAX).is_err());
    }

    proptest! {
        /// No bytes from outside make the decoder panic, and what is left undecoded is kept.
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), five in any::<bool>()) {
            let version = if five { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(frame)) = next_frame(&mut buffer, 4_096) {
                let _ = frame.decode(version);
            }
        }

        /// The same with a fixed header that is right, so that the bodies are reached.
        #[test]
        fn arbitrary_bodies_never_panic(
            first in any::<u8>(),
            body in proptest::collection::vec(any::<u8>(), 0..120),
            five in any::<bool>(),
        ) {
            let version = if five { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
            let mut buffer = BytesMut::from(&[first, body.len() as u8][..]);
            buffer.extend_from_slice(&body);
            if let Ok(Some(frame)) = next_frame(&mut buffer, 4_096) {
                let _ = frame.decode(version);
            }
        }

        /// A valid CONNECT with bytes changed or cut reaches every corner of the longest packet.
        #[test]
        fn a_damaged_connect_never_panics(changes in proptest::collection::vec((0_usize..60, any::<u8>()), 0..6), cut in 0_usize..60) {
            let mut body = b"\0\x04MQTT\x05\xee\0\x3c\x05\x11\0\0\0\x0a\0\x02id\x05\x18\0\0\0\x01\0\x01w\0\x01p\0\x01u\0\x01s".to_vec();
            for (at, byte) in changes {
                if let Some(place) = body.get_mut(at) {
                    *place = byte;
                }
            }
            body.truncate(body.len().saturating_sub(cut / 2));
            let mut buffer = BytesMut::from(&[0x10, body.len() as u8][..]);
            buffer.extend_from_slice(&body);
            if let Ok(Some(frame)) = next_frame(&mut buffer, 4_096) {
                let _ = frame.decode(ProtocolVersion::V5);
            }
        }
    }
}
