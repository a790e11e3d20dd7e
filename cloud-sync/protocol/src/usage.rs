//! What functions used and measured, as a gateway tells the control plane of it.
//!
//! What a run used is added up on the gateway, in the transaction of its effects; so are the counters and observations
//! among these. Now and then what has come together since the last time becomes records of the stream [`STREAM`], whose
//! bodies are [`Usage`]s in JSON, and begins anew, in one transaction. The control plane adds each of them to what it has, in the
//! transaction that stores the record. So the sum is what was committed, however often anybody dies in between; and what
//! a retention policy drops of the stream is told as every record that is gone is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod histogram;

pub use histogram::{Histogram, MAX_RELATIVE_ERROR, NotAHistogram};

/// The stream. No function can name it: names that begin with `@` are the gateway's own.
pub const STREAM: &str = "@usage";

/// The version of [`Usage`].
pub const VERSION: u32 = 1;

/// Most entries (devices, counters and histograms, over all parts) of one record: the control plane changes a row for each
/// while others who write wait.
pub const MAX_ENTRIES: usize = 1_024;

/// Microseconds of an hour.
const HOUR_US: u64 = 3_600_000_000;

/// The hour of a moment (microseconds since 1970-01-01 UTC), counted from 1970-01-01 00:00 UTC.
pub const fn hour(wall_us: u64) -> u32 {
    let hour = wall_us / HOUR_US;
    // In 490,000 years.
    if hour > u32::MAX as u64 { u32::MAX } else { hour as u32 }
}

/// When an hour begins, microseconds since 1970-01-01 UTC.
pub const fn hour_begins_us(hour: u32) -> u64 {
    hour as u64 * HOUR_US
}

/// The body of a record: what has come together since the one before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// [`VERSION`].
    pub version: u32,
    /// By hour and function.
    pub parts: Vec<Part>,
}

/// What one function used and measured within one hour.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// The [`hour`] of the gateway's wall clock in which the runs ended.
    pub hour: u32,
    /// The function.
    pub function: String,
    /// What runs used, by the device of their event. The empty name stands for all devices that were one too many to be
    /// counted apart.
    pub devices: BTreeMap<String, Counts>,
    /// By name: what was counted; finite, not negative.
    pub counters: BTreeMap<String, f64>,
    /// By name: what was observed.
    pub histograms: BTreeMap<String, Histogram>,
}

/// What runs used. Every run counts that has an outcome, whether that is effects, a failure or another try; a duplicate is
/// no run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Runs.
    pub invocations: u64,
    /// Of these: that failed or were ended.
    pub failed: u64,
    /// Units of fuel.
    pub fuel: u64,
    /// Time that workers spent on them, in nanoseconds.
    pub busy_ns: u64,
    /// The most memory that one run had, in bytes.
    pub memory_peak_bytes: u64,
    /// Bytes of payloads and attributes (names and values) that they were given.
    pub bytes_in: u64,
    /// Bytes of the effects that took place, as the limit `output_kib` counts them.
    pub bytes_out: u64,
    /// The most bytes of state, keys and values over all partitions, that the function had when one of them was committed.
    #[serde(default)]
    pub state_peak_bytes: u64,
}

impl Counts {
    /// Adds what other runs used; a peak is that of both.
    pub fn add(&mut self, other: &Self) {
        let Self { invocations, failed, fuel, busy_ns, memory_peak_bytes, bytes_in, bytes_out, state_peak_bytes } =
            self;
        for (sum, more) in [
            (invocations, other.invocations),
            (failed, other.failed),
            (fuel, other.fuel),
            (busy_ns, other.busy_ns),
            (bytes_in, other.bytes_in),
            (bytes_out, other.bytes_out),
        ] {
            *sum = sum.saturating_add(more);
        }
        *memory_peak_bytes = (*memory_peak_bytes).max(other.memory_peak_bytes);
        *state_peak_bytes = (*state_peak_bytes).max(other.state_peak_bytes);
    }
}

/// A counter's sum: it ends at the largest number instead of becoming infinite.
pub fn add_counts(one: f64, other: f64) -> f64 {
    (one + other).min(f64::MAX)
}

impl Part {
    /// How many entries it has.
    pub fn entries(&self) -> usize {
        self.devices.len() + self.counters.len() + self.histograms.len()
    }
}

impl Usage {
    /// Whether it is of this version, and such as a gateway may send.
    pub fn is_sound(&self) -> bool {
        let entries: usize = self.parts.iter().map(Part::entries).sum();
        let counters = self.parts.iter().flat_map(|part| part.counters.values());
        self.version == VERSION
            && entries <= MAX_ENTRIES
            && counters.into_iter().all(|value| value.is_finite() && *value >= 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_begins_when_it_does() {
        assert_eq!((hour(0), hour(HOUR_US - 1), hour(HOUR_US)), (0, 0, 1));
        assert_eq!(hour(hour_begins_us(490_000)), 490_000);
        assert_eq!(hour(u64::MAX), u32::MAX);
    }

    #[test]
    fn counts_add_up_and_peaks_do_not() {
        let one = Counts {
            invocations: 1,
            failed: 1,
            fuel: 2,
            busy_ns: 3,
            memory_peak_bytes: 9,
            bytes_in: 4,
            bytes_out: u64::MAX,
            state_peak_bytes: 5,
        };
        let mut sum = Counts { memory_peak_bytes: 7, state_peak_bytes: 6, ..one };
        sum.add(&one);
        let wanted = Counts {
            invocations: 2,
            failed: 2,
            fuel: 4,
            busy_ns: 6,
            memory_peak_bytes: 9,
            bytes_in: 8,
            bytes_out: u64::MAX,
            state_peak_bytes: 6,
        };
        assert_eq!(sum, wanted);
        assert_eq!(add_counts(f64::MAX, f64::MAX), f64::MAX);
    }

    #[test]
    fn what_no_gateway_may_send_is_seen() {
        let part = |value| Part { counters: BTreeMap::from([("a".to_owned(), value)]), ..Part::default() };
        let of = |version, parts| Usage { version, parts }.is_sound();
        assert!(of(VERSION, vec![part(1.5)]));
        assert!(
            !of(VERSION + 1, vec![part(1.5)]) && !of(VERSION, vec![part(-1.0)]) && !of(VERSION, vec![part(f64::NAN)])
        );
        assert!(!of(VERSION, vec![part(1.0); MAX_ENTRIES + 1]));
    }
}
