//! What the tasks and threads around one connection share: its window, its replies, and the word to close it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::sync::Notify;

use crate::inflight::{Outcome, Slot, Window};

/// Why somebody else than its own task ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    /// Stop reading, send the acknowledgements that are still to come, then close.
    Drain,
    /// Another connection came with the same client identifier; whether it took the session over.
    TakenOver { resumed: bool },
    /// The application wants every device to send again.
    SendAgain,
}

/// One connection, as others see it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: u64,
    /// Wakes the writing half: there is something to send, or the connection is to be closed.
    pub(crate) wake: Notify,
    /// Wakes the reading half: a place in the window or among the replies is free, or the connection is to be closed.
    pub(crate) room: Notify,
    shared: Mutex<Shared>,
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) window: Window,
    /// That of the application when nothing in the window was to be acknowledged last.
    pub(crate) generation: u64,
    /// Encoded replies (SUBACK, PINGRESP, …) that wait to be written.
    pub(crate) replies: BytesMut,
    /// The reading half waits for a place in the window or among the replies.
    pub(crate) reader_waits: bool,
    pub(crate) close: Option<Close>,
}

impl Link {
    pub(crate) fn new(id: u64) -> Arc<Self> {
        Arc::new(Self { id, wake: Notify::new(), room: Notify::new(), shared: Mutex::default() })
    }

    /// The lock is held for a few instructions and never across a call to the application.
    pub(crate) fn shared(&self) -> MutexGuard<'_, Shared> {
        // Nothing in here panics halfway through a change, so what a panicking thread left is whole.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called by any thread with the verdict on a publish.
    pub(crate) fn resolve(&self, sequence: u64, outcome: Outcome) {
        if self.shared().window.resolve(sequence, outcome) {
            self.wake.notify_one();
        }
    }

    /// The slots that may be answered now, in order, `most` at a time.
    pub(crate) fn resolved(&self, most: usize, into: &mut Vec<(Slot, Outcome)>) {
        let mut shared = self.shared();
        into.extend(std::iter::from_fn(|| shared.window.pop()).take(most));
    }

    /// Asks for the end of the connection. What cannot wait overrides a drain; otherwise the first word counts.
    pub(crate) fn close(&self, close: Close) {
        let mut shared = self.shared();
        if matches!(shared.close, None | Some(Close::Drain)) {
            shared.close = Some(close);
        }
        drop(shared);
        self.wake.notify_one();
        self.room.notify_one();
    }

    /// Adds an encoded reply.
    pub(crate) fn reply(&self, encode: impl FnOnce(&mut BytesMut)) {
        encode(&mut self.shared().replies);
        self.wake.notify_one();
    }
}
