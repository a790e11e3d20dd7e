//! What comes in.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

pub use function_abi::EventKind;
use serde::{Deserialize, Serialize};

use crate::form;

/// One event, as every inlet hands it to the pipeline: the wire is behind it.
///
/// Cheap to clone, for several functions may want the same event. Serialised in recordings of runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// How it came to be.
    #[serde(with = "form::kind")]
    pub kind: EventKind,
    /// Who sent it: the authenticated identity where there is one, else what the configuration says.
    pub device: Arc<str>,
    /// The MQTT topic; of other events what [`EventKind`] says.
    pub topic: Arc<str>,
    /// Any bytes; an envelope, if there was one, is taken off.
    pub payload: Payload,
    /// What makes the event this event and no other; `None`: it is handled at least once, not exactly once.
    pub identity: Option<Identity>,
    /// When the gateway received it, microseconds since 1970-01-01 UTC by the gateway's clock.
    pub time_us: u64,
    /// What else is known of it, names with values; see [`EventKind`]. None of an MQTT message.
    pub attributes: Vec<(String, String)>,
}

impl Event {
    /// One without an identity and without attributes.
    pub fn new(
        kind: EventKind,
        device: impl Into<Arc<str>>,
        topic: impl Into<Arc<str>>,
        payload: impl Into<Payload>,
        time_us: u64,
    ) -> Self {
        let (device, topic, payload) = (device.into(), topic.into(), payload.into());
        Self { kind, device, topic, payload, identity: None, time_us, attributes: Vec::new() }
    }

    /// 32 bits that stand for topic and payload: FNV-1a over the topic, a byte that UTF-8 does not have, and the payload.
    /// Made to notice mistakes, not malice.
    pub fn content(&self) -> u32 {
        let bytes = self.topic.bytes().chain([0xFF]).chain(self.payload.iter().copied());
        bytes.fold(0x811C_9DC5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }
}

/// The bytes of an event.
pub type Payload = Arc<[u8]>;

/// An event's place in the life of its source: no two events of one source share it.
///
/// A source counts `sequence` from 1 within a boot epoch, and never uses an epoch twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// Who counts: the device, or the gateway itself for what comes back to it.
    pub source: Arc<str>,
    /// Grows with each start of the source.
    pub boot: u64,
    /// From 1, without gaps where the source sends.
    pub sequence: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_is_topic_and_payload_and_nothing_else() {
        let event = |device: &str, topic: &str, payload: &[u8]| Event::new(EventKind::Mqtt, device, topic, payload, 0);
        let content = event("d", "a/b", b"cd").content();
        assert_eq!(event("e", "a/b", b"cd").content(), content);
        assert_ne!(event("d", "a/b", b"ce").content(), content);
        assert_ne!(event("d", "a/c", b"cd").content(), content);
        assert_ne!(event("d", "a/bc", b"d").content(), content);
        // 0xFF, the byte between, is all there is to hash.
        assert_eq!(event("", "", b"").content(), (0x811C_9DC5u32 ^ 0xFF).wrapping_mul(0x0100_0193));
    }
}
