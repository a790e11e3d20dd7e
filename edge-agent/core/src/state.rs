//! Values of a function's state that end by themselves.

use alloc::sync::Arc;

/// A value of the state, and until when it is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateValue {
    /// The value.
    pub bytes: Arc<[u8]>,
    /// For events that were received at this time or later it is absent, microseconds since 1970-01-01 UTC; `None`: it stays.
    pub expires_us: Option<u64>,
}

impl StateValue {
    /// Whether it is there for an event that was received at this time.
    pub fn is_there(&self, time_us: u64) -> bool {
        self.expires_us.is_none_or(|expires_us| time_us < expires_us)
    }
}

/// When a value ends that an event of this time put for so many seconds. By the event's time and by nothing else, so that a
/// run gives the same whenever it is repeated.
pub fn expiry_us(time_us: u64, ttl_s: Option<u32>) -> Option<u64> {
    ttl_s.map(|ttl_s| time_us.saturating_add(u64::from(ttl_s) * 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_there_until_its_last_moment_and_not_in_it() {
        let value = |ttl_s| StateValue { bytes: Arc::from(*b"v"), expires_us: expiry_us(1_000_000, ttl_s) };
        assert!(value(Some(2)).is_there(2_999_999) && !value(Some(2)).is_there(3_000_000));
        assert!(value(None).is_there(u64::MAX));
        assert_eq!(expiry_us(u64::MAX - 1, Some(1)), Some(u64::MAX));
    }
}
