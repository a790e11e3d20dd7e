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
        let len = self.body.len();
        let packet = self.parse(version)?;
        check_after(&packet, version)?;
        if version == ProtocolVersion::V5 && shortest(&packet).is_some_and(|shortest| shortest < len) {
            // The codec takes `80 00` for a length of 0.
            return Err(Violation::malformed("a variable byte integer has a superfluous byte [MQTT-1.5.5-1]"));
        }
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

/// Bytes of the body of an MQTT 5 packet with properties, if all variable byte integers in it are as short as they can be.
fn shortest(packet: &Packet) -> Option<usize> {
    let string = |text: &str| 2 + text.len();
    Some(match packet {
        Packet::Connect(connect) => {
            let will = connect
                .will
                .as_ref()
                .map_or(0, |will| connect.will_properties.encoded_len() + string(&will.topic) + 2 + will.payload.len());
            let user = connect.username.as_deref().map_or(0, string);
            let password = connect.password.as_ref().map_or(0, |password| 2 + password.len());
            10 + connect.properties.encoded_len() + string(&connect.client_id) + will + user + password
        }
        Packet::Publish(publish) => {
            let head = string(&publish.topic_name) + if publish.packet_id.is_some() { 2 } else { 0 };
            head + publish.properties.encoded_len() + publish.payload.len()
        }
        Packet::Subscribe(subscribe) => {
            let filters: usize = subscribe.filters.iter().map(|wanted| string(&wanted.filter) + 1).sum();
            2 + subscribe.properties.encoded_len() + filters
        }
        Packet::Unsubscribe(unsubscribe) => {
            let filters: usize = unsubscribe.filters.iter().map(|filter| string(filter)).sum();
            2 + unsubscribe.properties.encoded_len() + filters
        }
        // In these the properties may be left out, with or without what stands before them.
        Packet::PubAck(ack) => 3 + ack.properties.encoded_len(),
        Packet::PubRec(ack) => 3 + ack.properties.encoded_len(),
        Packet::PubRel(ack) => 3 + ack.properties.encoded_len(),
        Packet::PubComp(ack) => 3 + ack.properties.encoded_len(),
        Packet::Disconnect(disconnect) => 1 + disconnect.properties.encoded_len(),
        _ => return None,
    })
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
            let exchanges = |id| connect.properties.contains(id);
            if exchanges(P::AuthenticationData) && !exchanges(P::AuthenticationMethod) {
                return Err(Violation::protocol("authentication data without a method (section 3.1.2.11.10)"));
            }
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
            if publish.topic_name.is_empty() && !aliased {
                return Err(Violation::protocol("PUBLISH without a topic name (section 3.3.4)"));
            }
            if !publish.topic_name.is_empty() && !is_valid_topic_name(&publish.topic_name) {
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
mod tests;
