//! Which fault strikes next, and which have struck.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, ensure};

/// A fault, and how many messages pass unharmed before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike<F> {
    /// Messages.
    pub passing: u32,
    /// What strikes then.
    pub fault: F,
}

/// Shared by all connections of one way, and by whoever waits until it is over.
#[derive(Debug)]
pub(super) struct Weather<F> {
    state: Mutex<State<F>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<F> {
    coming: VecDeque<Strike<F>>,
    // Drawn, and not yet done.
    under_way: Vec<F>,
    happened: BTreeMap<F, u64>,
    // Messages of connections that came to an end; they must go through on later ones.
    held: BTreeSet<Vec<u8>>,
    complaints: Vec<String>,
}

impl<F> Default for Weather<F> {
    fn default() -> Self {
        let state = State {
            coming: VecDeque::new(),
            under_way: Vec::new(),
            happened: BTreeMap::new(),
            held: BTreeSet::new(),
            complaints: Vec::new(),
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<F: PartialEq> State<F> {
    fn end(&mut self, fault: F) {
        if let Some(at) = self.under_way.iter().position(|other| *other == fault) {
            self.under_way.swap_remove(at);
        }
    }
}

impl<F: Copy + Debug + Ord> Weather<F> {
    /// What strikes from now on, in this order.
    pub(super) fn forecast(&self, strikes: &[Strike<F>]) {
        self.state().coming.extend(strikes);
    }

    /// A message comes along. Returns what strikes it; whoever asks does it, and says [`Weather::done`] or
    /// [`Weather::failed`]. What is held comes again without harm, or there would be no end.
    pub(super) fn strikes(&self, message: &[u8]) -> Option<F> {
        let mut state = self.state();
        if state.held.contains(message) {
            return None;
        }
        let next = state.coming.front_mut()?;
        if next.passing > 0 {
            next.passing -= 1;
            return None;
        }
        let fault = state.coming.pop_front()?.fault;
        state.under_way.push(fault);
        Some(fault)
    }

    /// A fault has struck.
    pub(super) fn done(&self, fault: F) {
        let mut state = self.state();
        state.end(fault);
        *state.happened.entry(fault).or_default() += 1;
    }

    /// The connection ended before the fault had struck this message: it strikes the next one.
    pub(super) fn failed(&self, fault: F, message: &[u8]) {
        let mut state = self.state();
        state.end(fault);
        state.held.remove(message);
        state.coming.push_front(Strike { passing: 0, fault });
    }

    /// This message is held until it has gone through on another connection, from when this returns.
    pub(super) fn hold(&self, message: &[u8]) {
        self.state().held.insert(message.to_owned());
    }

    /// Waits until a message that is held was overtaken.
    pub(super) fn wait_until_overtaken(&self, message: &[u8]) {
        let held = |state: &mut State<F>| state.held.contains(message);
        drop(self.changed.wait_while(self.state(), held).unwrap_or_else(PoisonError::into_inner));
    }

    /// A message went through.
    pub(super) fn went_through(&self, message: &[u8]) {
        if self.state().held.remove(message) {
            self.changed.notify_all();
        }
    }

    /// Somebody did what it must not.
    pub(super) fn complain(&self, complaint: String) {
        self.state().complaints.push(complaint);
    }

    pub(super) fn complaints(&self) -> Vec<String> {
        self.state().complaints.clone()
    }

    /// How often each fault has struck.
    pub(super) fn happened(&self) -> BTreeMap<F, u64> {
        self.state().happened.clone()
    }

    /// Whether everything that was forecast has happened.
    pub(super) fn is_over(&self) -> Result<()> {
        let State { coming, under_way, happened, .. } = &*self.state();
        ensure!(
            coming.is_empty() && under_way.is_empty(),
            "{coming:?} to come, {under_way:?} begun, {happened:?} done"
        );
        Ok(())
    }

    /// Whether something is held.
    #[cfg(test)]
    pub(super) fn has_begun(&self) -> Result<()> {
        ensure!(!self.state().held.is_empty(), "nothing is held");
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State<F>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
