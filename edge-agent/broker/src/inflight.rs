//! The publishes of one connection that wait for their commit. Verdicts come in any order; acknowledgements leave in the
//! order in which the publishes came [MQTT-4.6.0-2, MQTT-4.6.0-3].

use std::collections::VecDeque;

use mqtt5_protocol::QoS;

use crate::ingest::Refusal;
use crate::message::Message;

/// What became of a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Durable.
    Accepted,
    /// Will never be taken.
    Refused(Refusal),
    /// Nobody gave a verdict.
    Dropped,
}

/// One publish in the window.
#[derive(Debug)]
pub(crate) struct Slot {
    /// 0 for QoS 0 and for wills, which are not acknowledged.
    pub(crate) packet_id: u16,
    pub(crate) message: Message,
    outcome: Option<Outcome>,
}

/// The window of one connection, in the order of arrival. Its owner bounds its length.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Sequence number of the first slot.
    base: u64,
    slots: VecDeque<Slot>,
    /// Slots that will be acknowledged.
    acknowledged: usize,
}

impl Window {
    /// Takes a place at the end and returns its sequence number.
    pub(crate) fn push(&mut self, packet_id: u16, message: Message) -> u64 {
        self.acknowledged += usize::from(packet_id != 0);
        self.slots.push_back(Slot { packet_id, message, outcome: None });
        self.base + self.slots.len() as u64 - 1
    }

    /// Notes a verdict. True when the first slot now has one, that is, when there is something to pop.
    pub(crate) fn resolve(&mut self, sequence: u64, outcome: Outcome) -> bool {
        let Some(index) = sequence.checked_sub(self.base) else { return false };
        let Some(slot) = usize::try_from(index).ok().and_then(|index| self.slots.get_mut(index)) else { return false };
        slot.outcome.get_or_insert(outcome);
        index == 0
    }

    /// Takes the first slot if it has a verdict.
    pub(crate) fn pop(&mut self) -> Option<(Slot, Outcome)> {
        let outcome = self.slots.front_mut()?.outcome.take()?;
        let slot = self.slots.pop_front()?;
        self.base += 1;
        self.acknowledged -= usize::from(slot.packet_id != 0);
        Some((slot, outcome))
    }

    /// Whether a PUBACK with this identifier is still owed.
    pub(crate) fn awaits(&self, packet_id: u16) -> bool {
        self.slots.iter().any(|slot| slot.packet_id == packet_id && slot.message.qos == QoS::AtLeastOnce)
    }

    /// Publishes that wait.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Publishes that wait and will be acknowledged (QoS 1 and 2).
    pub(crate) fn unacknowledged(&self) -> usize {
        self.acknowledged
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> Message {
        Message::new("t".into(), bytes::Bytes::new(), QoS::AtLeastOnce, false)
    }

    #[test]
    fn a_later_verdict_waits_for_the_earlier_one() {
        let mut window = Window::default();
        let first = window.push(7, message());
        let second = window.push(8, message());
        assert!(!window.resolve(second, Outcome::Accepted));
        assert!(window.pop().is_none());
        assert!(window.resolve(first, Outcome::Dropped));
        assert_eq!(window.pop().map(|(slot, outcome)| (slot.packet_id, outcome)), Some((7, Outcome::Dropped)));
        assert_eq!(window.pop().map(|(slot, outcome)| (slot.packet_id, outcome)), Some((8, Outcome::Accepted)));
        assert!(window.is_empty());
    }

    proptest! {
        /// Whatever the order of the verdicts and however they mix with arrivals, slots leave in the order of arrival,
        /// each once, each with its own first verdict.
        #[test]
        fn slots_leave_in_order(order in Just((0_u16..60).collect::<Vec<_>>()).prop_shuffle(), early in 0_usize..60) {
            let mut window = Window::default();
            let mut left = Vec::new();
            let mut sequences = Vec::new();
            for id in 0..60_u16 {
                sequences.push(window.push(id + 1, message()));
            }
            for (step, id) in order.iter().enumerate() {
                let outcome = if id % 2 == 0 { Outcome::Accepted } else { Outcome::Dropped };
                window.resolve(sequences[usize::from(*id)], outcome);
                window.resolve(sequences[usize::from(*id)], Outcome::Dropped);
                if step >= early {
                    while let Some(popped) = window.pop() {
                        left.push(popped);
                    }
                }
                prop_assert_eq!(window.len(), window.unacknowledged());
            }
            while let Some(popped) = window.pop() {
                left.push(popped);
            }
            prop_assert_eq!(left.len(), 60);
            for (index, (slot, outcome)) in left.iter().enumerate() {
                prop_assert_eq!(usize::from(slot.packet_id), index + 1);
                prop_assert_eq!(outcome == &Outcome::Accepted, index % 2 == 0);
            }
        }
    }
}
