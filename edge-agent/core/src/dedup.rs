//! Which events of a source were handled: bounded for each source, and never a matter of time.
//!
//! A source numbers its events from 1 within a boot epoch, and has at most `device_wire::WINDOW` of them on the way at
//! once. So of each epoch it is enough to remember the highest number and, for the [`WINDOW`] numbers up to it, whether
//! they were handled: what lies further back was acknowledged long ago, and what comes again from there is not a retry.
//!
//! A counter that wraps, or that starts anew without a greater boot epoch, breaks this: its numbers are those of events
//! from far back, or of other events. The first are too old; of the second those contradict what was handled whose
//! content is still remembered ([`CONTENTS`]); the others are taken for duplicates.
//!
//! Gaps are normal, for a function sees only the topics that it asked for.

use alloc::vec::Vec;

use crate::event::Identity;

/// Numbers remembered one by one below the highest. Must be at least twice what a source may have on the way
/// (`device_wire::WINDOW` for devices of ours, the in-flight limit of a broker in between), or a retry could be taken
/// for too old; larger costs 1 bit for each source and epoch.
pub const WINDOW: u64 = 128;

/// Boot epochs remembered for each source. What a device sent just before a restart may arrive after what it sent
/// since; more than a few restarts back nothing is on the way any more. Larger costs 32 bytes for each source.
pub const BOOTS: usize = 4;

/// Contents remembered, of the newest boot epoch: those of the numbers less than this behind the highest. Must be at
/// least `device_wire::WINDOW`, which is what can honestly come again. Larger costs 4 bytes for each number and source,
/// which are written with every event.
pub const CONTENTS: u64 = 32;

/// Longest row that [`Seen::to_bytes`] writes, in bytes.
pub const MAX_ROW_BYTES: usize = 1 + 4 + CONTENTS as usize * 4 + BOOTS * BOOT_BYTES;

/// What to do with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Never seen: handle it.
    New,
    /// Handled before: acknowledge it, and do nothing.
    Duplicate,
    /// An event of the same identity but of another content was handled before: somebody counts wrongly, so it must be
    /// refused and reported.
    Contradicts,
    /// From further back than is remembered: it may or may not have been handled, so it must be refused and reported,
    /// never handled and never dropped silently.
    TooOld,
}

/// What is remembered of one source. The default is a source that was never heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    // Newest boot epoch first; never empty epochs.
    boots: Vec<Boot>,
    // Bit n: whether the content of `high - n` of the newest epoch is known; only of what was handled.
    known: u32,
    // Of the newest epoch; a sequence has its place at its remainder.
    contents: [u32; CONTENTS as usize],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Boot {
    boot: u64,
    // Highest sequence handled.
    high: u64,
    // Bit n: whether `high - n` was handled; bit 0 is always set.
    bits: u128,
}

/// Why stored bytes are not a [`Seen`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes are not a deduplication row of version 1 or {VERSION} with 1 to {BOOTS} boot epochs")]
pub struct SeenError(usize);

const VERSION: u8 = 2;
// Knew no contents.
const VERSION_1: u8 = 1;
const BOOT_BYTES: usize = 32;

impl Seen {
    /// Whether an event is new. `content` is its [`Event::content`](crate::Event::content). Changes nothing.
    ///
    /// Contents are compared as 32 bits: of the events that contradict one whose content is remembered, one in
    /// 2^32 is taken for a duplicate by chance; and a sender who means to can find one. No event is ever handled
    /// twice for it, and no retry refused.
    pub fn judge(&self, identity: &Identity, content: u32) -> Verdict {
        let Some(boot) = self.boots.iter().find(|known| known.boot == identity.boot) else {
            let oldest = self.boots.last().map(|known| known.boot);
            return match oldest {
                Some(oldest) if self.boots.len() == BOOTS && identity.boot < oldest => Verdict::TooOld,
                _ => Verdict::New,
            };
        };
        if identity.sequence > boot.high {
            return Verdict::New;
        }
        let back = boot.high - identity.sequence;
        if back >= WINDOW {
            Verdict::TooOld
        } else if boot.bits >> back & 1 == 0 {
            Verdict::New
        } else if self.boots[0].boot == boot.boot
            && back < CONTENTS
            && self.known >> back & 1 == 1
            && self.contents[place(identity.sequence)] != content
        {
            Verdict::Contradicts
        } else {
            Verdict::Duplicate
        }
    }

    /// Remembers an event that [`judge`](Self::judge) called new, with its content.
    pub fn mark(&mut self, identity: &Identity, content: u32) {
        let sequence = identity.sequence;
        let newest = self.boots.first().copied();
        self.mark_handled(identity.boot, sequence);
        let high = match (newest, self.boots[0]) {
            (Some(before), now) if before.boot == now.boot => {
                let ahead = now.high - before.high;
                self.known = if ahead >= CONTENTS { 0 } else { self.known << ahead };
                now.high
            }
            (_, now) => {
                self.known = 0;
                now.high
            }
        };
        if self.boots[0].boot == identity.boot && high - sequence < CONTENTS {
            self.known |= 1 << (high - sequence);
            self.contents[place(sequence)] = content;
        }
    }

    fn mark_handled(&mut self, boot: u64, sequence: u64) {
        match self.boots.iter_mut().find(|known| known.boot == boot) {
            None => {
                let at = self.boots.partition_point(|known| known.boot > boot);
                self.boots.insert(at, Boot { boot, high: sequence, bits: 1 });
                self.boots.truncate(BOOTS);
            }
            Some(known) if sequence > known.high => {
                let ahead = sequence - known.high;
                known.bits = if ahead >= WINDOW { 1 } else { known.bits << ahead | 1 };
                known.high = sequence;
            }
            Some(known) => {
                let back = known.high - sequence;
                if back < WINDOW {
                    known.bits |= 1 << back;
                }
            }
        }
    }

    /// The bytes under which this is stored, little-endian: a version byte; 4 bytes of which bit `n` says that the
    /// content of `n` below the highest sequence of the first epoch follows; these contents, 4 bytes each, `n` ascending;
    /// then for each boot epoch, the newest first, 8 bytes epoch, 8 bytes highest sequence, 16 bytes window.
    pub fn to_bytes(&self) -> Vec<u8> {
        let contents = self.known.count_ones() as usize;
        let mut out = Vec::with_capacity(1 + 4 + contents * 4 + self.boots.len() * BOOT_BYTES);
        out.push(VERSION);
        out.extend_from_slice(&self.known.to_le_bytes());
        if let Some(newest) = self.boots.first() {
            for back in known_places(self.known) {
                out.extend_from_slice(&self.contents[place(newest.high.wrapping_sub(back))].to_le_bytes());
            }
        }
        for boot in &self.boots {
            out.extend_from_slice(&boot.boot.to_le_bytes());
            out.extend_from_slice(&boot.high.to_le_bytes());
            out.extend_from_slice(&boot.bits.to_le_bytes());
        }
        out
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote, and version 1, which was the version byte and the boot epochs.
    ///
    /// # Errors
    /// If the bytes are something else, which means that the store is damaged or newer than this agent.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SeenError> {
        let error = SeenError(bytes.len());
        let (known, contents, boots) = match bytes.split_first().ok_or(error)? {
            (&VERSION_1, boots) => (0, &[][..], boots),
            (&VERSION, rest) => {
                let (known, rest) = rest.split_first_chunk().ok_or(error)?;
                let known = u32::from_le_bytes(*known);
                let (contents, boots) = rest.split_at_checked(known.count_ones() as usize * 4).ok_or(error)?;
                (known, contents, boots)
            }
            _ => return Err(error),
        };
        let (boots, []) = boots.as_chunks::<BOOT_BYTES>() else {
            return Err(error);
        };
        if boots.is_empty() || boots.len() > BOOTS {
            return Err(error);
        }
        let u64_at = |row: &[u8; BOOT_BYTES], at: usize| {
            row[at..at + 8].iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte))
        };
        let boots: Vec<Boot> = boots
            .iter()
            .map(|row| Boot {
                boot: u64_at(row, 0),
                high: u64_at(row, 8),
                bits: u128::from(u64_at(row, 16)) | u128::from(u64_at(row, 24)) << 64,
            })
            .collect();
        // The content of what was not handled.
        if known & !(boots[0].bits as u32) != 0 {
            return Err(error);
        }
        let mut seen = Self { boots, known, contents: [0; CONTENTS as usize] };
        let (contents, _) = contents.as_chunks();
        for (back, content) in known_places(known).zip(contents) {
            seen.contents[place(seen.boots[0].high.wrapping_sub(back))] = u32::from_le_bytes(*content);
        }
        Ok(seen)
    }
}

// Where the content of a sequence lies: within the distance remembered no two share a place.
fn place(sequence: u64) -> usize {
    (sequence % CONTENTS) as usize
}

fn known_places(known: u32) -> impl Iterator<Item = u64> {
    (0..CONTENTS).filter(move |back| known >> back & 1 == 1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn id(boot: u64, sequence: u64) -> Identity {
        Identity { source: "d".into(), boot, sequence }
    }

    #[test]
    fn a_retry_is_a_duplicate_and_a_gap_may_be_filled() {
        let mut seen = Seen::default();
        assert_eq!(seen.judge(&id(1, 5), 0), Verdict::New);
        seen.mark(&id(1, 5), 0);
        assert_eq!(seen.judge(&id(1, 5), 0), Verdict::Duplicate);
        assert_eq!(seen.judge(&id(1, 4), 0), Verdict::New);
        seen.mark(&id(1, 4), 0);
        assert_eq!(seen.judge(&id(1, 4), 0), Verdict::Duplicate);
        seen.mark(&id(1, 5 + WINDOW), 0);
        assert_eq!(seen.judge(&id(1, 5), 0), Verdict::TooOld);
        assert_eq!(seen.judge(&id(1, 6), 0), Verdict::New);
    }

    #[test]
    fn the_oldest_boot_epoch_is_forgotten_and_then_refused() {
        let mut seen = Seen::default();
        for boot in [10, 30, 20, 40] {
            seen.mark(&id(boot, 1), 0);
        }
        assert_eq!(seen.judge(&id(25, 1), 0), Verdict::New);
        assert_eq!(seen.judge(&id(5, 1), 0), Verdict::TooOld);
        seen.mark(&id(50, 1), 0);
        assert_eq!(seen.judge(&id(10, 1), 0), Verdict::TooOld);
        assert_eq!(seen.judge(&id(20, 1), 0), Verdict::Duplicate);
    }

    #[test]
    fn another_content_contradicts_as_long_as_it_is_remembered() {
        let mut seen = Seen::default();
        for sequence in [1, 3, 2] {
            seen.mark(&id(1, sequence), sequence as u32);
        }
        assert_eq!(seen.judge(&id(1, 2), 2), Verdict::Duplicate);
        assert_eq!(seen.judge(&id(1, 2), 3), Verdict::Contradicts);
        seen.mark(&id(1, 1 + CONTENTS), 7);
        assert_eq!(seen.judge(&id(1, 2), 3), Verdict::Contradicts);
        assert_eq!(seen.judge(&id(1, 1), 3), Verdict::Duplicate);
        // What comes late from an older epoch changes nothing; a newer epoch takes all the room.
        seen.mark(&id(0, 9), 9);
        assert_eq!(seen.judge(&id(0, 9), 3), Verdict::Duplicate);
        assert_eq!(seen.judge(&id(1, 2), 3), Verdict::Contradicts);
        seen.mark(&id(2, 1), 1);
        assert_eq!(seen.judge(&id(1, 2), 3), Verdict::Duplicate);
        assert_eq!(seen.judge(&id(2, 1), 3), Verdict::Contradicts);
    }

    #[test]
    fn rows_of_version_1_are_read() {
        let mut row = vec![1];
        for number in [7u64, 40, 0b101, 0] {
            row.extend_from_slice(&number.to_le_bytes());
        }
        let mut seen = Seen::from_bytes(&row).unwrap();
        assert_eq!(seen.judge(&id(7, 40), 1), Verdict::Duplicate);
        assert_eq!(seen.judge(&id(7, 38), 1), Verdict::Duplicate);
        assert_eq!(seen.judge(&id(7, 39), 1), Verdict::New);
        seen.mark(&id(7, 41), 1);
        let seen = Seen::from_bytes(&seen.to_bytes()).unwrap();
        assert_eq!(seen.judge(&id(7, 41), 2), Verdict::Contradicts);
        assert_eq!(seen.judge(&id(7, 40), 2), Verdict::Duplicate);
        assert_eq!(seen.judge(&id(7, 39), 2), Verdict::New);
    }

    #[test]
    fn a_row_has_the_bytes_that_are_documented_and_a_bound() {
        let mut seen = Seen::default();
        seen.mark(&id(2, 9), 0x0403_0201);
        seen.mark(&id(2, 7), 0x0807_0605);
        let row = seen.to_bytes();
        assert_eq!(row[..13], [2, 0b101, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(row[13..].len(), BOOT_BYTES);
        for boot in 3..3 + BOOTS as u64 {
            for sequence in 1..=2 * WINDOW {
                seen.mark(&id(boot, sequence), 0);
            }
        }
        assert_eq!(seen.to_bytes().len(), MAX_ROW_BYTES);
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let good = |version: u8, known: u8, contents: usize, boots: usize| {
            let mut row = vec![version];
            if version == VERSION {
                row.extend_from_slice(&[known, 0, 0, 0]);
            }
            row.extend(std::iter::repeat_n(0xFF, contents * 4 + boots * BOOT_BYTES));
            Seen::from_bytes(&row)
        };
        assert!(good(1, 0, 0, 1).is_ok() && good(VERSION, 0b11, 2, BOOTS).is_ok());
        assert!(Seen::from_bytes(&[]).is_err());
        assert!(Seen::from_bytes(&[VERSION, 0, 0, 0]).is_err());
        assert!(good(VERSION + 1, 0, 0, 1).is_err());
        for version in [1, VERSION] {
            assert!(good(version, 0, 0, 0).is_err());
            assert!(good(version, 0, 1, 1).is_err());
            assert!(good(version, 0, 0, BOOTS + 1).is_err());
        }
        assert!(good(VERSION, 0b11, 1, 1).is_err());
        // A content of an event that was not handled.
        let mut row = vec![VERSION, 0b10, 0, 0, 0, 0, 0, 0, 0];
        for number in [7u64, 40, 0b101, 0] {
            row.extend_from_slice(&number.to_le_bytes());
        }
        assert!(Seen::from_bytes(&row).is_err());
    }

    proptest! {
        /// Against a map that remembers everything, with its content: what was marked is never new again, what was not
        /// marked is never called anything else, within the promised distance nothing is too old, and another content
        /// is a contradiction exactly as long as the content is remembered.
        #[test]
        fn agrees_with_a_perfect_memory(
            events in proptest::collection::vec((0u64..3, 1u64..200, 0u32..2), 1..400),
            restart in any::<bool>(),
        ) {
            let (mut seen, mut perfect, mut high) = (Seen::default(), HashMap::new(), [0u64; 3]);
            for (boot, sequence, content) in events {
                let identity = id(boot, sequence);
                let before = perfect.get(&(boot, sequence)).copied();
                match seen.judge(&identity, content) {
                    Verdict::New => {
                        prop_assert_eq!(before, None);
                        perfect.insert((boot, sequence), content);
                        seen.mark(&identity, content);
                        high[boot as usize] = high[boot as usize].max(sequence);
                    }
                    Verdict::TooOld => prop_assert!(high[boot as usize] >= sequence + WINDOW),
                    verdict => {
                        let newest = high.iter().rposition(|high| *high > 0).unwrap() as u64;
                        let remembered = boot == newest && high[boot as usize] - sequence < CONTENTS;
                        let contradicts = remembered && before != Some(content);
                        prop_assert!(before.is_some());
                        prop_assert_eq!(verdict == Verdict::Contradicts, contradicts);
                    }
                }
                let stored = Seen::from_bytes(&seen.to_bytes()).unwrap();
                prop_assert_eq!(stored.to_bytes(), seen.to_bytes());
                if restart {
                    seen = stored;
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            version in 0u8..4,
            known in any::<u32>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..280),
            full in any::<bool>(),
        ) {
            let mut row = vec![version];
            row.extend_from_slice(&known.to_le_bytes());
            row.extend_from_slice(&bytes);
            if full {
                // A length that fits, and windows that allow every content.
                row.resize(1 + 4 + known.count_ones() as usize * 4 + BOOT_BYTES, 0);
                let window = row.len() - 16;
                row[window..].fill(0xFF);
            }
            if let Ok(seen) = Seen::from_bytes(&row) {
                let mut copy = seen.clone();
                for sequence in [0, 1, u64::MAX] {
                    seen.judge(&id(u64::MAX, sequence), 0);
                    copy.mark(&id(u64::MAX, sequence), 0);
                }
                let _: Vec<u8> = copy.to_bytes();
            }
            prop_assert!(!(full && version == VERSION) || Seen::from_bytes(&row).is_ok());
        }
    }
}
