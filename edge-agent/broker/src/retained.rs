//! The last message of each topic that was published with the RETAIN flag.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use mqtt5_protocol::topic_matches_filter;

use crate::message::Message;

/// Retained messages, bounded in number and in payload bytes.
#[derive(Debug)]
pub(crate) struct Retained {
    messages: BTreeMap<Arc<str>, Arc<Message>>,
    /// Payload bytes of all of them.
    bytes: usize,
    max_messages: usize,
    max_bytes: usize,
}

impl Retained {
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self { messages: BTreeMap::new(), bytes: 0, max_messages, max_bytes }
    }

    /// Keeps the message, or forgets the topic's when the payload is empty [MQTT-3.3.1-6, -7]. False when there is no
    /// room: the topic then has no retained message, rather than one that is out of date.
    pub(crate) fn set(&mut self, message: &Arc<Message>, now: Instant) -> bool {
        if let Some(old) = self.messages.remove(&message.topic) {
            self.bytes -= old.payload.len();
        }
        if message.payload.is_empty() || message.expired(now) {
            return true;
        }
        if !self.has_room(message.payload.len()) {
            self.messages.retain(|_, kept| !kept.expired(now));
            self.bytes = self.messages.values().map(|kept| kept.payload.len()).sum();
            if !self.has_room(message.payload.len()) {
                return false;
            }
        }
        self.bytes += message.payload.len();
        self.messages.insert(message.topic.clone(), message.clone());
        true
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.messages.len() < self.max_messages && self.bytes + bytes <= self.max_bytes
    }

    /// Calls `deliver` with each message whose topic matches, in the order of the topics. Looks only at topics that
    /// begin like the filter up to its first wildcard.
    pub(crate) fn matching(&self, filter: &str, now: Instant, mut deliver: impl FnMut(&Arc<Message>)) {
        let literal = filter.find(['+', '#']).map_or(filter, |wildcard| &filter[..wildcard]);
        // `sport/#` also matches `sport`.
        let prefix = if filter.ends_with("/#") { literal.strip_suffix('/').unwrap_or(literal) } else { literal };
        let range = self.messages.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        for (topic, message) in range.take_while(|(topic, _)| topic.starts_with(prefix)) {
            if topic_matches_filter(topic, filter) && !message.expired(now) {
                deliver(message);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use mqtt5_protocol::QoS;

    use super::*;

    fn message(topic: &str, payload: &'static str) -> Arc<Message> {
        Arc::new(Message::new(topic.into(), Bytes::from(payload), QoS::AtMostOnce, true))
    }

    fn found(retained: &Retained, filter: &str, now: Instant) -> Vec<String> {
        let mut found = Vec::new();
        retained.matching(filter, now, |message| found.push(message.topic.to_string()));
        found
    }

    #[test]
    fn filters_find_their_topics_and_an_empty_payload_forgets() {
        let now = Instant::now();
        let mut retained = Retained::new(10, 1_000);
        for topic in ["a", "a/b", "a/b/c", "ab", "$x/a", "b/b"] {
            assert!(retained.set(&message(topic, "1"), now));
        }
        assert_eq!(found(&retained, "a/#", now), ["a", "a/b", "a/b/c"]);
        assert_eq!(found(&retained, "a/b", now), ["a/b"]);
        assert_eq!(found(&retained, "+/b", now), ["a/b", "b/b"]);
        assert_eq!(found(&retained, "#", now), ["a", "a/b", "a/b/c", "ab", "b/b"]);
        assert_eq!(found(&retained, "$x/#", now), ["$x/a"]);
        retained.set(&message("a/b", ""), now);
        assert_eq!(found(&retained, "a/#", now), ["a", "a/b/c"]);
        assert_eq!(retained.len(), 5);
    }

    #[test]
    fn both_bounds_hold_and_expired_messages_make_room() {
        let now = Instant::now();
        let later = now + Duration::from_secs(2);
        let mut retained = Retained::new(2, 10);
        let mut short = (*message("old", "12345678")).clone();
        short.expires = Some(now + Duration::from_secs(1));
        assert!(retained.set(&Arc::new(short), now));
        assert!(!retained.set(&message("big", "123"), now), "too many bytes");
        assert!(retained.set(&message("b", "12"), now));
        assert!(!retained.set(&message("c", ""), now) || retained.len() == 2);
        assert!(!retained.set(&message("c", "1"), now), "too many messages");
        assert_eq!(found(&retained, "#", later), ["b"]);
        assert!(retained.set(&message("c", "12345678"), later));
        assert!(!retained.set(&message("c", "123456789"), later), "replacing needs room too");
        assert_eq!(found(&retained, "#", later), ["b"], "nothing out of date is left");
    }
}
