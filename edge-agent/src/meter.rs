//! What goes over the link to the control plane, for whoever pays for it by the byte.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_core::pace::{Metered, month};
use agent_store::Write;

use crate::clock::Clock;
use crate::config::Budget;

/// Counts the bytes of a month. Heads and bodies are counted as they are sent and received; what TLS, TCP and IP add is
/// not, and is some five per cent of large requests.
#[derive(Clone, Debug)]
pub struct Meter {
    clock: Clock,
    metered: Arc<Mutex<Metered>>,
}

impl Meter {
    /// Goes on from what was counted before.
    pub fn new(clock: Clock, metered: Metered) -> Self {
        Self { clock, metered: Arc::new(Mutex::new(metered)) }
    }

    /// So many bytes went over the link.
    pub fn add(&self, bytes: usize) {
        self.metered().add(month(self.clock.wall_us()), bytes as u64);
    }

    /// Whether records may go, of high priority or not.
    pub fn allows(&self, budget: Budget, high: bool) -> bool {
        let now = month(self.clock.wall_us());
        budget.bytes_per_month.is_none_or(|limit| self.metered().allows(now, limit, high))
    }

    /// What was counted.
    pub fn read(&self) -> Metered {
        *self.metered()
    }

    /// What the store is to remember.
    pub fn write(&self) -> Write {
        Write::Metered(self.read())
    }

    fn metered(&self) -> MutexGuard<'_, Metered> {
        self.metered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
