//! What waits for an edge, and kills there.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::plan::{Edge, Step};

/// Set by whoever runs the plan, pulled by the proxies: the connection that reaches the edge ends there, and with it the
/// process that is to be killed.
#[derive(Debug, Default)]
pub(super) struct Trigger {
    state: Mutex<State>,
    pulled: Condvar,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Off,
    Set {
        edge: Edge,
        remaining: u32,
        pause: Duration,
        process: Option<Pid>,
    },
    Pulled,
}

impl Trigger {
    /// Waits for a step's edge from now on, to kill this process there, if it is one.
    pub(super) fn set(&self, step: &Step, process: Option<Pid>) {
        *self.state() = State::Set { edge: step.edge, remaining: step.nth, pause: step.pause, process };
    }

    /// Waits until it is pulled. Returns false if that did not happen in time; it may yet.
    pub(super) fn wait(&self, deadline: Duration) -> bool {
        let waiting = |state: &mut State| !matches!(state, State::Pulled);
        let waited = self.pulled.wait_timeout_while(self.state(), deadline, waiting);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        matches!(*state, State::Pulled)
    }

    /// Waits for nothing any more.
    pub(super) fn clear(&self) {
        *self.state() = State::Off;
    }

    /// A connection has reached an edge. Returns whether it ends there.
    pub(super) fn reached(&self, reached: Edge) -> bool {
        let mut state = self.state();
        let State::Set { edge, remaining, pause, process } = &mut *state else { return false };
        if *edge != reached {
            return false;
        }
        *remaining -= 1;
        if *remaining > 0 {
            return false;
        }
        // With the lock held: nothing passes this edge in the meantime.
        std::thread::sleep(*pause);
        if let Some(process) = *process {
            kill(process);
        }
        *state = State::Pulled;
        self.pulled.notify_all();
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// SIGKILL, for a process that its parent has not waited for yet: so its number is nobody else's.
pub(super) fn kill(process: Pid) {
    // It may have ended already.
    let _ = kill_process(process, Signal::KILL);
}
