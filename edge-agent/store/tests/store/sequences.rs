//! The outbox of a class as a model: what there is under each sequence, one by one.

use std::collections::BTreeMap;

use sync_protocol::records::{Entry, Gone, Range, Reason, Tally};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Slot {
    /// Stream and body.
    Record(String, Vec<u8>),
    /// Stream and reason.
    Gone(String, Reason),
    Settled,
}

/// What there is under 1, 2, and so on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sequences {
    slots: Vec<Slot>,
    // How many there were before the present group.
    given: usize,
}

impl Sequences {
    pub(crate) fn begin_group(&mut self) {
        self.given = self.slots.len();
    }

    pub(crate) fn push(&mut self, slot: Slot) {
        self.slots.push(slot);
    }

    /// The first sequence that is not settled, and the one that comes next.
    pub(crate) fn ends(&self) -> (u64, u64) {
        let first = self.slots.iter().position(|slot| *slot != Slot::Settled).unwrap_or(self.slots.len());
        (first as u64 + 1, self.slots.len() as u64 + 1)
    }

    /// Sequences at these percentages of those that were given, in order; 0 and 0 if there are none.
    pub(crate) fn between(&self, from: u64, to: u64) -> (u64, u64) {
        let at = |percent: u64| ((self.given as u64 * percent).div_ceil(100)).max(1).min(self.given as u64);
        (at(from.min(to)), at(from.max(to)))
    }

    fn slot(&self, sequence: u64) -> Option<&Slot> {
        self.slots.get(sequence.checked_sub(1)? as usize)
    }

    fn is_gone(&self, sequence: u64) -> bool {
        matches!(self.slot(sequence), Some(Slot::Gone(..)))
    }

    pub(crate) fn deliver(&mut self, first: u64, last: u64) {
        let (mut first, mut last) = (first.max(1), last);
        // A run that sticks out was not sent as it is now.
        if self.is_gone(first) && self.is_gone(first - 1) {
            while self.is_gone(first) {
                first += 1;
            }
        }
        if self.is_gone(last) && self.is_gone(last + 1) {
            while self.is_gone(last) {
                last -= 1;
            }
        }
        for sequence in first..=last {
            self.slots[sequence as usize - 1] = Slot::Settled;
        }
    }

    pub(crate) fn give_up(&mut self, sequences: &[u64], reason: Reason) {
        for sequence in sequences.iter().filter(|sequence| **sequence > 0) {
            let slot = &mut self.slots[*sequence as usize - 1];
            if let Slot::Record(stream, _) = slot {
                *slot = Slot::Gone(std::mem::take(stream), reason);
            }
        }
    }

    /// Loses what there is, without cutting a run in two: damage never does. What then was lost.
    pub(crate) fn lose(&mut self, first: u64, last: u64) -> (u64, u64) {
        let (mut first, mut last) = (first.max(self.ends().0), last);
        let same = |one: Option<&Slot>, other: Option<&Slot>| match (one, other) {
            (Some(one), Some(other)) => {
                !matches!(one, Slot::Record(..)) && std::mem::discriminant(one) == std::mem::discriminant(other)
            }
            _ => false,
        };
        while first <= last && same(self.slot(first - 1), self.slot(first)) {
            first += 1;
        }
        while first <= last && same(self.slot(last), self.slot(last + 1)) {
            last -= 1;
        }
        for sequence in first..=last {
            self.slots[sequence as usize - 1] = Slot::Gone(String::new(), Reason::Damaged);
        }
        (first, last)
    }

    pub(crate) fn of_stream(&self, stream: &str) -> impl Iterator<Item = u64> {
        let records = (1..).zip(&self.slots);
        records.filter_map(move |(sequence, slot)| match slot {
            Slot::Record(of, _) if of == stream => Some(sequence),
            _ => None,
        })
    }

    /// Records, and runs of what is gone, each as long as it can be; with a body alone of a record.
    pub(crate) fn blocks(&self) -> Vec<(u64, Block)> {
        let mut blocks: Vec<(u64, Block)> = Vec::new();
        let mut open = false;
        for (sequence, slot) in (1..).zip(&self.slots) {
            let was_open = std::mem::take(&mut open);
            match slot {
                Slot::Settled => {}
                Slot::Record(stream, body) => blocks.push((sequence, Block::Record(stream.clone(), body.clone()))),
                Slot::Gone(stream, reason) => {
                    open = true;
                    if !was_open {
                        blocks.push((sequence, Block::Gone(BTreeMap::new())));
                    }
                    if let Some((_, Block::Gone(tally))) = blocks.last_mut() {
                        *tally.entry((stream.clone(), *reason)).or_default() += 1;
                    }
                }
            }
        }
        blocks
    }

    /// The same of what the store hands out.
    pub(crate) fn entries(range: &Range) -> Vec<(u64, Block)> {
        let mut sequence = range.first;
        let blocks = range.entries.iter().map(|entry| {
            let first = sequence;
            sequence += entry.count().unwrap();
            let block = match entry {
                Entry::Record(record) => Block::Record(record.stream.clone(), record.body.clone()),
                Entry::Gone(Gone { tally }) => {
                    let key = |tally: &Tally| (tally.stream.clone(), tally.reason);
                    Block::Gone(tally.iter().map(|tally| (key(tally), tally.count)).collect())
                }
            };
            (first, block)
        });
        blocks.collect()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Block {
    /// Stream and body.
    Record(String, Vec<u8>),
    /// How many of which stream, for which reason.
    Gone(BTreeMap<(String, Reason), u64>),
}
