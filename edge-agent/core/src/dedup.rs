//! Which events of a source were handled: bounded for each source, and never a matter of time.
//!
//! A source numbers its events from 1 within a boot epoch, and has at most `device_wire::WINDOW` of them on the way at
//! once. So of each epoch it is enough to remember the highest number and, for the [`WINDOW`] numbers up to it, whether
//! they were handled: what lies further back was acknowledged long ago, and what comes again from there is not a retry.
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

/// What to do with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Never seen: handle it.
    New,
    /// Handled before: acknowledge it, and do nothing.
    Duplicate,
    /// From further back than is remembered: it may or may not have been handled, so it must be refused and reported,
    /// never handled and never dropped silently.
    TooOld,
}

/// What is remembered of one source. The default is a source that was never heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    // Newest boot epoch first; never empty epochs.
    boots: Vec<Boot>,
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
#[error("{0} bytes are not a deduplication row of version 1 with 1 to {BOOTS} boot epochs")]
pub struct SeenError(usize);

const VERSION: u8 = 1;
const BOOT_BYTES: usize = 32;

impl Seen {
    /// Whether an event is new. Changes nothing.
    pub fn judge(&self, identity: &Identity) -> Verdict {
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
        } else if boot.bits >> back & 1 == 1 {
            Verdict::Duplicate
        } else {
            Verdict::New
        }
    }

    /// Remembers an event that [`judge`](Self::judge) called new.
    pub fn mark(&mut self, identity: &Identity) {
        let sequence = identity.sequence;
        match self.boots.iter_mut().find(|known| known.boot == identity.boot) {
            None => {
                let at = self.boots.partition_point(|known| known.boot > identity.boot);
                self.boots.insert(at, Boot { boot: identity.boot, high: sequence, bits: 1 });
                self.boots.truncate(BOOTS);
            }
            Some(boot) if sequence > boot.high => {
                let ahead = sequence - boot.high;
                boot.bits = if ahead >= WINDOW { 1 } else { boot.bits << ahead | 1 };
                boot.high = sequence;
            }
            Some(boot) => {
                let back = boot.high - sequence;
                if back < WINDOW {
                    boot.bits |= 1 << back;
                }
            }
        }
    }

    /// The bytes under which this is stored: a version byte, then for each boot epoch 8 bytes epoch, 8 bytes highest
    /// sequence, 16 bytes window, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + self.boots.len() * BOOT_BYTES);
        out.push(VERSION);
        for known in &self.boots {
            out.extend_from_slice(&known.boot.to_le_bytes());
            out.extend_from_slice(&known.high.to_le_bytes());
            out.extend_from_slice(&known.bits.to_le_bytes());
        }
        out
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// If the bytes are something else, which means that the store is damaged or newer than this agent.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SeenError> {
        let error = SeenError(bytes.len());
        let (&VERSION, rows) = bytes.split_first().ok_or(error)? else {
            return Err(error);
        };
        let (rows, []) = rows.as_chunks::<BOOT_BYTES>() else {
            return Err(error);
        };
        if rows.is_empty() || rows.len() > BOOTS {
            return Err(error);
        }
        let u64_at = |row: &[u8; BOOT_BYTES], at: usize| {
            row[at..at + 8].iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte))
        };
        let boots = rows
            .iter()
            .map(|row| Boot {
                boot: u64_at(row, 0),
                high: u64_at(row, 8),
                bits: u128::from(u64_at(row, 16)) | u128::from(u64_at(row, 24)) << 64,
            })
            .collect();
        Ok(Self { boots })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn id(boot: u64, sequence: u64) -> Identity {
        Identity { source: "d".into(), boot, sequence }
    }

    #[test]
    fn a_retry_is_a_duplicate_and_a_gap_may_be_filled() {
        let mut seen = Seen::default();
        assert_eq!(seen.judge(&id(1, 5)), Verdict::New);
        seen.mark(&id(1, 5));
        assert_eq!(seen.judge(&id(1, 5)), Verdict::Duplicate);
        assert_eq!(seen.judge(&id(1, 4)), Verdict::New);
        seen.mark(&id(1, 4));
        assert_eq!(seen.judge(&id(1, 4)), Verdict::Duplicate);
        seen.mark(&id(1, 5 + WINDOW));
        assert_eq!(seen.judge(&id(1, 5)), Verdict::TooOld);
        assert_eq!(seen.judge(&id(1, 6)), Verdict::New);
    }

    #[test]
    fn the_oldest_boot_epoch_is_forgotten_and_then_refused() {
        let mut seen = Seen::default();
        for boot in [10, 30, 20, 40] {
            seen.mark(&id(boot, 1));
        }
        assert_eq!(seen.judge(&id(25, 1)), Verdict::New);
        assert_eq!(seen.judge(&id(5, 1)), Verdict::TooOld);
        seen.mark(&id(50, 1));
        assert_eq!(seen.judge(&id(10, 1)), Verdict::TooOld);
        assert_eq!(seen.judge(&id(20, 1)), Verdict::Duplicate);
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert!(Seen::from_bytes(&[]).is_err());
        assert!(Seen::from_bytes(&[VERSION]).is_err());
        assert!(Seen::from_bytes(&[2; 33]).is_err());
        assert!(Seen::from_bytes(&[VERSION; 34]).is_err());
        assert!(Seen::from_bytes(&[VERSION; 1 + BOOT_BYTES * (BOOTS + 1)]).is_err());
    }

    proptest! {
        /// Against a set that remembers everything: what was marked is never new again, what was not marked is never
        /// called a duplicate, and within the promised distance nothing is too old.
        #[test]
        fn agrees_with_a_perfect_memory(events in proptest::collection::vec((0u64..3, 1u64..400), 1..300)) {
            let (mut seen, mut perfect, mut high) = (Seen::default(), HashSet::new(), [0u64; 3]);
            for (boot, sequence) in events {
                let identity = id(boot, sequence);
                match seen.judge(&identity) {
                    Verdict::New => {
                        prop_assert!(perfect.insert((boot, sequence)));
                        seen.mark(&identity);
                        high[boot as usize] = high[boot as usize].max(sequence);
                    }
                    Verdict::Duplicate => prop_assert!(perfect.contains(&(boot, sequence))),
                    Verdict::TooOld => prop_assert!(high[boot as usize] >= sequence + WINDOW),
                }
                prop_assert_eq!(Seen::from_bytes(&seen.to_bytes()), Ok(seen.clone()));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..140)) {
            if let Ok(seen) = Seen::from_bytes(&bytes) {
                let mut copy = seen.clone();
                for sequence in [0, 1, u64::MAX] {
                    seen.judge(&id(u64::MAX, sequence));
                    copy.mark(&id(u64::MAX, sequence));
                }
                let _: Vec<u8> = copy.to_bytes();
            }
        }
    }
}
