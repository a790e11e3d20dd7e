//! An application message inside the broker: what subscribers get, whichever version published it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use mqtt5_protocol::packet::publish::PublishPacket;
use mqtt5_protocol::{Properties, PropertyId, PropertyValue, QoS};

use crate::encode::put_string;

/// A message on its way to subscribers.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) topic: Arc<str>,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// The MQTT 5 properties that travel unchanged to subscribers, encoded as they stand in a PUBLISH. Empty for most.
    pub(crate) properties: Bytes,
    /// When it is worth nothing any more (Message Expiry Interval).
    pub(crate) expires: Option<Instant>,
    /// The session that published it, for subscriptions with No Local. 0 for messages from inside.
    pub(crate) origin: u64,
}

/// Payloads up to this many bytes are copied before they are kept, for as a slice they keep the whole read buffer
/// (64 KiB at most) in memory. Longer ones hold at most four times their own length.
const COPY_BELOW: usize = 16 << 10;

impl Message {
    pub(crate) fn new(topic: Arc<str>, payload: Bytes, qos: QoS, retain: bool) -> Self {
        Self { topic, payload, qos, retain, properties: Bytes::new(), expires: None, origin: 0 }
    }

    /// The message in a PUBLISH whose topic (after its alias) is `topic`.
    pub(crate) fn from_publish(packet: &PublishPacket, topic: Arc<str>, origin: u64, now: Instant) -> Self {
        Self {
            properties: forwarded(&packet.properties),
            expires: expiry(&packet.properties, now),
            origin,
            ..Self::new(topic, packet.payload.clone(), packet.qos, packet.retain)
        }
    }

    /// The message of a will with these will properties.
    pub(crate) fn with_properties(mut self, properties: &Properties, origin: u64, now: Instant) -> Self {
        self.properties = forwarded(properties);
        self.expires = expiry(properties, now);
        self.origin = origin;
        self
    }

    /// The message with these user properties and no others.
    pub(crate) fn with_user_properties(mut self, user: &[(&str, &str)]) -> Self {
        let mut out = BytesMut::new();
        for (name, value) in user {
            out.put_u8(PropertyId::UserProperty as u8);
            put_string(&mut out, name.as_bytes());
            put_string(&mut out, value.as_bytes());
        }
        self.properties = out.freeze();
        self
    }

    /// Whether it has expired, so that nobody may be sent it any more [MQTT-3.3.2-5].
    pub(crate) fn expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// The interval to forward: what was received less the time it waited here [MQTT-3.3.2-6], in seconds.
    pub(crate) fn expiry_left(&self, now: Instant) -> Option<u32> {
        // Rounded up, so that a message which is forwarded at once keeps its interval.
        self.expires.map(|at| {
            let left = at.saturating_duration_since(now);
            u32::try_from(left.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX)
        })
    }

    /// Lets go of the read buffer.
    pub(crate) fn unshare(&mut self) {
        if self.payload.len() < COPY_BELOW {
            self.payload = Bytes::copy_from_slice(&self.payload);
        }
    }
}

fn expiry(properties: &Properties, now: Instant) -> Option<Instant> {
    let interval = properties.get_message_expiry_interval()?;
    now.checked_add(Duration::from_secs(interval.into()))
}

/// Properties that a server must pass on unaltered [MQTT-3.3.2-4, -15, -16, -17, -18, -20].
fn forwarded(properties: &Properties) -> Bytes {
    if properties.is_empty() {
        return Bytes::new();
    }
    let mut out = BytesMut::new();
    for id in [
        PropertyId::PayloadFormatIndicator,
        PropertyId::ContentType,
        PropertyId::ResponseTopic,
        PropertyId::CorrelationData,
        PropertyId::UserProperty,
    ] {
        for value in properties.get_all(id).unwrap_or_default() {
            out.put_u8(id as u8);
            match value {
                PropertyValue::Byte(byte) => out.put_u8(*byte),
                PropertyValue::Utf8String(text) => put_string(&mut out, text.as_bytes()),
                PropertyValue::BinaryData(data) => put_string(&mut out, data),
                PropertyValue::Utf8StringPair(name, value) => {
                    put_string(&mut out, name.as_bytes());
                    put_string(&mut out, value.as_bytes());
                }
                PropertyValue::TwoByteInteger(_)
                | PropertyValue::FourByteInteger(_)
                | PropertyValue::VariableByteInteger(_) => {
                    unreachable!("the codec stores no number under these identifiers")
                }
            }
        }
    }
    out.freeze()
}

/// The user properties, in order.
pub(crate) fn user_properties(properties: &Properties) -> Vec<(String, String)> {
    let values = properties.get_all(PropertyId::UserProperty).unwrap_or_default();
    values
        .iter()
        .filter_map(|value| match value {
            PropertyValue::Utf8StringPair(name, value) => Some((name.clone(), value.clone())),
            _ => None,
        })
        .collect()
}
