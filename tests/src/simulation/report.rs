//! What came out.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use sync_protocol::records::Request;

use super::link::Fate;

/// What a simulation did, and what became of the records.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Records that functions emitted.
    pub emitted: u64,
    /// Records that the control plane has.
    pub delivered: u64,
    /// Records that it knows to have been dropped by a policy.
    pub dropped: u64,
    /// Requests that the gateway made.
    pub requests: u64,
    /// Those that were sent while another one was on its way.
    pub overlapping: u64,
    /// Requests whose answer the gateway did not hear.
    pub unheard: u64,
    /// Answers that the gateway did not believe.
    pub alarms: u64,
    /// All that is not as it must be.
    pub wrong: Vec<String>,
    /// Stands for everything that was sent, and what became of it: the same seed gives the same.
    pub trace: u64,
}

impl Report {
    pub(super) fn request(&mut self, request: &Request, fate: Fate) {
        self.requests += 1;
        self.unheard += u64::from(matches!(fate, Fate::RequestLost | Fate::AnswerLost | Fate::Late));
        let mut hasher = DefaultHasher::new();
        (self.trace, request.class, fate as u8).hash(&mut hasher);
        for range in &request.ranges {
            (range.first, range.last(), range.entries.len()).hash(&mut hasher);
        }
        self.trace = hasher.finish();
    }

    pub(super) fn expect(&mut self, what: &str, expected: u64, found: u64) {
        if found != expected {
            self.wrong.push(format!("{what}: {found} in place of {expected}"));
        }
    }

    /// Whether all is as it must be.
    pub fn is_clean(&self) -> bool {
        self.wrong.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, emitted, delivered, dropped, requests, overlapping, unheard, alarms, .. } = self;
        write!(f, "seed {seed}: {emitted} records emitted, {delivered} delivered, {dropped} dropped by a policy; ")?;
        write!(f, "{requests} requests ({overlapping} while another was on its way), ")?;
        write!(f, "{unheard} without an answer, {alarms} answers not believed")?;
        for wrong in &self.wrong {
            write!(f, "\nwrong: {wrong}")?;
        }
        Ok(())
    }
}
