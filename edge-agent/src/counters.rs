//! What the agent counts since it started.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts that only grow.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events that came in.
    pub received: Counter,
    /// Events that are on disk with all their effects.
    pub committed: Counter,
    /// Of these: runs of functions whose effects were committed.
    pub handled: Counter,
    /// Of these: events that a function had handled before, and that had no effect again.
    pub duplicates: Counter,
    /// Of these: runs that ended in the dead letters.
    pub dead: Counter,
    /// Runs that failed and are to be tried again.
    pub retried: Counter,
    /// Events that no function wanted; acknowledged, and not stored.
    pub unmatched: Counter,
    /// Events without the identity that the configuration says they have; handled at least once.
    pub unidentified: Counter,
    /// Records that the control plane confirmed.
    pub delivered: Counter,
    /// HTTP requests that were sent, each try counted.
    pub requests_sent: Counter,
    /// HTTP requests whose answer is on disk.
    pub requests_answered: Counter,
    /// HTTP requests that were given up.
    pub requests_failed: Counter,
    /// Times that a commit failed, after which everything in flight was thrown away and asked for again.
    pub resets: Counter,
    /// Files of watched folders that are not taken, and folders that cannot be read.
    pub files_refused: Counter,
    /// Answers of the control plane that contradicted what is known.
    pub alarms: Counter,
}

/// One count.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
