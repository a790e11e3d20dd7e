//! What functions used and measured since the agent started: only what was committed.

use std::sync::{Mutex, PoisonError};

use agent_store::Sums;

/// By function, over all hours and devices; a function's metrics are as many as the manifests of its versions name.
#[derive(Debug, Default)]
pub struct Totals(Mutex<Sums>);

impl Totals {
    /// Adds what a commit counted.
    pub fn add(&self, counted: &Sums) {
        if !counted.is_empty() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).add_up(counted);
        }
    }

    /// What it comes to.
    pub fn read(&self) -> Sums {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
