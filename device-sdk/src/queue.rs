use heapless::Vec;

/// The events that are not acknowledged yet, in the order of their sequences, in memory that is reserved once.
///
/// An event stays in its slot from the time it is accepted until it is acknowledged or dropped: only the
/// indices in `order` move.
pub(crate) struct Queue<'a, const EVENTS: usize, const PAYLOAD: usize> {
    slots: [Pending<'a, PAYLOAD>; EVENTS],
    /// A permutation of all slots. The first `len` are the pending events, the rest are free.
    order: [u16; EVENTS],
    len: usize,
}

pub(crate) struct Pending<'a, const PAYLOAD: usize> {
    pub(crate) sequence: u64,
    pub(crate) topic: &'a str,
    pub(crate) payload: Vec<u8, PAYLOAD>,
}

impl<'a, const EVENTS: usize, const PAYLOAD: usize> Queue<'a, EVENTS, PAYLOAD> {
    pub(crate) fn new() -> Self {
        const {
            assert!(EVENTS >= 1, "a queue of no events accepts nothing");
            assert!(EVENTS <= u16::MAX as usize, "slots are numbered with 16 bits");
        }
        Self {
            slots: [const { Pending { sequence: 0, topic: "", payload: Vec::new() } }; EVENTS],
            order: core::array::from_fn(|slot| slot as u16),
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len == EVENTS
    }

    /// Adds an event behind the others. The queue must not be full, and the payload must fit.
    pub(crate) fn push(&mut self, sequence: u64, topic: &'a str, payload: &[u8]) {
        let slot = &mut self.slots[usize::from(self.order[self.len])];
        slot.sequence = sequence;
        slot.topic = topic;
        slot.payload.clear();
        slot.payload.extend_from_slice(payload).expect("the caller checked the payload's length");
        self.len += 1;
    }

    /// The event at a position, counted from the oldest. `position < len()`.
    pub(crate) fn get(&self, position: usize) -> &Pending<'a, PAYLOAD> {
        &self.slots[usize::from(self.order[..self.len][position])]
    }

    /// Takes an event out; those behind it move up. `position < len()`.
    pub(crate) fn remove(&mut self, position: usize) {
        self.order[position..self.len].rotate_left(1);
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;
    use std::vec::Vec;

    use super::Queue;

    proptest! {
        /// The queue does what a growing vector does, with removals anywhere.
        #[test]
        fn behaves_as_a_vector(operations in proptest::collection::vec(any::<Option<usize>>(), 0..200)) {
            let mut queue = Queue::<5, 8>::new();
            let mut model: Vec<u64> = Vec::new();
            for (sequence, operation) in (1..).zip(operations) {
                match operation {
                    None if !queue.is_full() => {
                        queue.push(sequence, "t", &sequence.to_le_bytes());
                        model.push(sequence);
                    }
                    Some(position) if !model.is_empty() => {
                        let position = position % model.len();
                        queue.remove(position);
                        model.remove(position);
                    }
                    _ => {}
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.is_full(), model.len() == 5);
                for (position, &sequence) in model.iter().enumerate() {
                    prop_assert_eq!(queue.get(position).sequence, sequence);
                    prop_assert_eq!(&queue.get(position).payload[..], &sequence.to_le_bytes());
                }
            }
        }
    }
}
