/// Pauses between connection attempts: they double from the shortest to the longest, and each is shortened by
/// up to half at random, so that devices which lost the same gateway do not return at the same moment.
pub(crate) struct Backoff {
    min_ms: u32,
    max_ms: u32,
    ceiling_ms: u32,
    random: u64,
}

impl Backoff {
    /// `1 <= min_ms <= max_ms`.
    pub(crate) const fn new(min_ms: u32, max_ms: u32, seed: u64) -> Self {
        Self { min_ms, max_ms, ceiling_ms: min_ms, random: seed }
    }

    /// The next pause, in milliseconds: at most `max_ms`, and at least half of `min_ms`.
    pub(crate) fn next_pause(&mut self) -> u64 {
        let ceiling = self.ceiling_ms;
        self.ceiling_ms = ceiling.saturating_mul(2).min(self.max_ms);
        let spread = u64::from(ceiling / 2) + 1;
        u64::from(ceiling) - self.next_random() % spread
    }

    pub(crate) fn reset(&mut self) {
        self.ceiling_ms = self.min_ms;
    }

    pub(crate) fn max_ms(&self) -> u32 {
        self.max_ms
    }

    /// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): any
    /// seed will do, 0 too.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Backoff;

    proptest! {
        #[test]
        fn pauses_double_within_their_bounds(min in 1u32..=u32::MAX, more: u32, seed: u64) {
            let max = min.saturating_add(more);
            let mut backoff = Backoff::new(min, max, seed);
            let mut ceiling = u64::from(min);
            for _ in 0..40 {
                let pause = backoff.next_pause();
                prop_assert!(pause <= ceiling && pause >= ceiling.div_ceil(2), "{pause} of {ceiling}");
                ceiling = (ceiling * 2).min(u64::from(max));
            }
            prop_assert_eq!(ceiling, u64::from(max));
            backoff.reset();
            prop_assert!(backoff.next_pause() <= u64::from(min));
        }
    }

    #[test]
    fn seeds_differ() {
        let pauses = |seed| {
            let mut backoff = Backoff::new(1_000, 60_000, seed);
            [(); 4].map(|()| backoff.next_pause())
        };
        assert_eq!(pauses(1), pauses(1));
        assert_ne!(pauses(1), pauses(2));
    }
}
