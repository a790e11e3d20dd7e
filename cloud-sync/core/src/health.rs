//! Whether a gateway is there.

use serde::{Deserialize, Serialize};
use sync_protocol::fleet::MAX_WAIT_S;

/// A gateway that was heard of within this many seconds is online. A healthy one is heard of at least every
/// [`MAX_WAIT_S`] seconds, when its wait for news is over; this leaves room for one more wait and a slow link. Smaller
/// would call a healthy gateway offline, larger would show a dead one for longer.
pub const ONLINE_WITHIN_S: u64 = 2 * MAX_WAIT_S as u64 + 20;

/// How a gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Heard of within [`ONLINE_WITHIN_S`].
    Online,
    /// Not heard of for longer.
    Offline,
    /// Enrolled, and not heard of since.
    NeverSeen,
}

/// The health of a gateway that was last heard of at `last_seen_us`, at `now_us`; both in microseconds of one clock.
/// If that clock was set back, the gateway counts as just heard of.
pub fn health(last_seen_us: Option<u64>, now_us: u64) -> Health {
    match last_seen_us {
        None => Health::NeverSeen,
        Some(seen) if now_us.saturating_sub(seen) <= ONLINE_WITHIN_S * 1_000_000 => Health::Online,
        Some(_) => Health::Offline,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_online_until_the_threshold_has_passed() {
        let limit = ONLINE_WITHIN_S * 1_000_000;
        assert_eq!(health(None, 5), Health::NeverSeen);
        assert_eq!(health(Some(7), 7 + limit), Health::Online);
        assert_eq!(health(Some(7), 8 + limit), Health::Offline);
        assert_eq!(health(Some(9), 8), Health::Online);
    }
}
