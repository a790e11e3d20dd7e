//! Numbers for the operator.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a broker has done since it was bound, and what it holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connected clients now.
    pub connections: u64,
    /// Sessions now, of connected and of absent clients.
    pub sessions: u64,
    /// Retained messages now.
    pub retained: u64,
    /// PUBLISH packets taken from clients, without those that were recognised as sent twice.
    pub publishes_in: u64,
    /// PUBACK and PUBREC packets that say yes.
    pub acks_out: u64,
    /// PUBLISH packets written to subscribers, repeated ones included.
    pub delivered: u64,
    /// Messages that a subscriber did not get because its queue was full, its packet limit too small or the message
    /// expired, and messages that could not be retained.
    pub dropped: u64,
    /// Messages that the application or an access rule refused.
    pub refused: u64,
    /// Publishes, wills and subscriptions for which the client has no right (see [`Rule`](crate::Rule)).
    pub denied: u64,
    /// Connections that were closed at once because of [`Options::max_connections`](crate::Options::max_connections).
    pub turned_away: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) publishes_in: Counter,
    pub(crate) acks_out: Counter,
    pub(crate) delivered: Counter,
    pub(crate) dropped: Counter,
    pub(crate) refused: Counter,
    pub(crate) denied: Counter,
    pub(crate) turned_away: Counter,
}
