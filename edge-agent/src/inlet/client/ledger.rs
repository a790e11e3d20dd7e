//! What is on its way on one connection: which messages that came may be acknowledged, and who waits for which PUBACK.

use std::collections::{HashMap, VecDeque};

use bytes::BytesMut;
use rumqttc::PubAck;
use tokio::sync::oneshot;

/// Messages of QoS 1 that came and are not acknowledged: that happens in the order received (MQTT 3.1.1, section 4.6).
#[derive(Debug, Default)]
pub(super) struct Inbound {
    // The number of the first one.
    first: u64,
    messages: VecDeque<Message>,
}

#[derive(Debug)]
struct Message {
    packet: u16,
    committed: bool,
}

impl Inbound {
    /// A message came with this packet identifier; answers the number under which it is known here.
    pub(super) fn came(&mut self, packet: u16) -> u64 {
        self.messages.push_back(Message { packet, committed: false });
        self.first + self.messages.len() as u64 - 1
    }

    /// The message of this number is on disk; whether that means that some can be acknowledged now.
    pub(super) fn committed(&mut self, number: u64) -> bool {
        let Some(at) = number.checked_sub(self.first) else { return false };
        if let Some(message) = self.messages.get_mut(at as usize) {
            message.committed = true;
        }
        at == 0
    }

    /// Writes the acknowledgements of all that can be acknowledged.
    pub(super) fn acknowledge(&mut self, out: &mut BytesMut) -> Result<(), rumqttc::mqttbytes::Error> {
        while let Some(message) = self.messages.pop_front_if(|message| message.committed) {
            self.first += 1;
            PubAck::new(message.packet).write(out)?;
        }
        Ok(())
    }

    /// Whether all that came is acknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

/// Publishes of QoS 1 that were sent and are not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    last: u16,
    waiting: HashMap<u16, oneshot::Sender<()>>,
}

impl Outbound {
    /// A packet identifier that nothing on its way has.
    pub(super) fn identifier(&mut self) -> u16 {
        loop {
            // Zero is none (MQTT 3.1.1, section 2.3.1). Far fewer are on their way than there are numbers.
            self.last = self.last.checked_add(1).unwrap_or(1);
            if !self.waiting.contains_key(&self.last) {
                return self.last;
            }
        }
    }

    /// A publish goes out with this identifier, and this is used when the broker has taken it.
    pub(super) fn sent(&mut self, packet: u16, taken: oneshot::Sender<()>) {
        self.waiting.insert(packet, taken);
    }

    /// The broker has taken what had this identifier.
    pub(super) fn acknowledged(&mut self, packet: u16) {
        if let Some(taken) = self.waiting.remove(&packet) {
            // Whoever waited may be gone, as the agent stops.
            let _ = taken.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rumqttc::Packet;

    use super::*;

    fn acknowledged(inbound: &mut Inbound) -> Vec<u16> {
        let mut out = BytesMut::new();
        inbound.acknowledge(&mut out).unwrap();
        let mut packets = Vec::new();
        while !out.is_empty() {
            match Packet::read(&mut out, 100).unwrap() {
                Packet::PubAck(ack) => packets.push(ack.pkid),
                other => panic!("{other:?}"),
            }
        }
        packets
    }

    proptest! {
        #[test]
        fn messages_are_acknowledged_in_order_and_only_once_they_are_on_disk(
            // Whether one comes, or else which of those that came is committed next.
            steps in proptest::collection::vec(proptest::option::of(any::<proptest::sample::Index>()), 0..200),
        ) {
            let mut inbound = Inbound::default();
            let (mut came, mut open, mut done, mut answered) = (0u16, Vec::new(), Vec::new(), 0u16);
            for step in steps {
                let mut may = false;
                match step {
                    None => {
                        came += 1;
                        open.push((inbound.came(came), came));
                    }
                    Some(_) if open.is_empty() => {}
                    Some(which) => {
                        let (number, packet) = open.swap_remove(which.index(open.len()));
                        may = inbound.committed(number);
                        done.push(packet);
                    }
                }
                let expected: Vec<u16> = (answered + 1..=came).take_while(|packet| done.contains(packet)).collect();
                prop_assert_eq!(may, !expected.is_empty());
                answered += expected.len() as u16;
                prop_assert_eq!(acknowledged(&mut inbound), expected);
                prop_assert_eq!(inbound.is_empty(), answered == came);
            }
        }
    }

    #[test]
    fn an_identifier_is_not_given_twice_at_a_time() {
        let mut outbound = Outbound::default();
        let (first, mut taken) = oneshot::channel();
        let slow = outbound.identifier();
        outbound.sent(slow, first);
        for _ in 0..u16::MAX - 1 {
            let packet = outbound.identifier();
            assert!(packet != 0 && packet != slow);
            let (sender, mut receiver) = oneshot::channel();
            outbound.sent(packet, sender);
            outbound.acknowledged(packet);
            receiver.try_recv().unwrap();
        }
        // All others were given once.
        assert_eq!(outbound.identifier(), slow + 1);
        outbound.acknowledged(slow);
        taken.try_recv().unwrap();
        // What nobody sent is nobody's.
        outbound.acknowledged(slow);
    }
}
