//! How long to wait before trying again.

use core::time::Duration;

/// Exponential backoff with jitter: each failure doubles the wait up to a maximum, and of each wait a random part of up
/// to a half is left out, so that a fleet that lost its control plane does not come back in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
    random: u64,
}

impl Backoff {
    /// Waits `first` after one failure, never more than `longest`. The seed decides the jitter; give each gateway its own.
    pub fn new(first: Duration, longest: Duration, seed: u64) -> Self {
        Self { first, longest, failures: 0, random: seed }
    }

    /// It worked: the next failure is a first one.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// It failed: how long to wait.
    pub fn failed(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        let full = doubled.min(self.longest);
        self.random = self.random.wrapping_add(STEP);
        full.mul_f64(1.0 - share(self.random) / 2.0)
    }
}

/// What a state of SplitMix64 (Steele, Lea, Flood 2014) moves on by: small, and good enough for spreading.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// At least 0 and less than 1, by the state.
fn share(state: u64) -> f64 {
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^= mixed >> 31;
    (mixed >> 40) as f64 / (1u64 << 24) as f64
}

/// A wait in milliseconds, longer by up to a quarter: never shorter, for somebody asked for it. The seed and the number of the
/// attempt decide by how much; give each gateway seeds of its own.
pub fn spread_ms(wait_ms: u64, seed: u64, attempts: u32) -> u64 {
    let state = seed.wrapping_add(STEP.wrapping_mul(u64::from(attempts)));
    wait_ms.saturating_add((wait_ms as f64 * share(state) / 4.0) as u64)
}

/// How long an event waits until it is given to its function once more, in milliseconds: `backoff_ms` after the first
/// attempt, twice as long after each further one, an hour at most. Without jitter: what is spread by it are fleets.
pub fn retry_after_ms(backoff_ms: u32, attempts: u32) -> u64 {
    const LONGEST_MS: u64 = 3_600_000;
    let doubled = 1u64.checked_shl(attempts.saturating_sub(1)).unwrap_or(u64::MAX);
    u64::from(backoff_ms).saturating_mul(doubled).min(LONGEST_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_wait_twice_as_long_each_time() {
        let waits: std::vec::Vec<u64> = (1..=5).map(|attempts| retry_after_ms(1_000, attempts)).collect();
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000]);
        assert_eq!((retry_after_ms(1_000, 100), retry_after_ms(u32::MAX, u32::MAX)), (3_600_000, 3_600_000));
    }

    #[test]
    fn what_is_spread_is_never_sooner_and_differs() {
        let waits: std::collections::BTreeSet<u64> = (0..100).map(|seed| spread_ms(10_000, seed, 1)).collect();
        assert!(waits.len() > 90 && waits.iter().all(|wait| (10_000..12_500).contains(wait)), "{waits:?}");
        assert_ne!(spread_ms(10_000, 7, 1), spread_ms(10_000, 7, 2));
    }

    #[test]
    fn waits_double_up_to_the_longest_and_start_again() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(5));
        for seed in 0..50 {
            let mut backoff = Backoff::new(first, longest, seed);
            for failure in 0..70 {
                let full = first.saturating_mul(1 << failure.min(20)).min(longest);
                let wait = backoff.failed();
                assert!(wait <= full && wait >= full / 2, "failure {failure}: {wait:?} of {full:?}");
            }
            backoff.succeeded();
            assert!(backoff.failed() <= first);
        }
    }

    #[test]
    fn two_gateways_do_not_keep_step() {
        let mut one = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), 1);
        let mut two = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), 2);
        assert!((0..8).any(|_| one.failed() != two.failed()));
    }
}
