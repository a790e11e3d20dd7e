use device_wire::WINDOW;

use crate::StartError;

/// What to do with a new event when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Refuse the new event with [`PublishError::Full`](crate::PublishError::Full): nothing that was accepted
    /// is ever dropped.
    Refuse,
    /// Drop the oldest event that was never sent, and count it in [`Counters::dropped`](crate::Counters). Its
    /// sequence is not used again, so the gap is visible to the gateway. An event that was sent may have been
    /// seen and stays until it is acknowledged; when every event in the queue is such, the new one is refused.
    DropOldestUnsent,
}

/// How a [`Session`](crate::Session) behaves. All times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How far sending may run ahead of acknowledgements: 1 to [`WINDOW`]. With 1 each event
    /// waits for the acknowledgement of the one before.
    pub window: usize,
    /// What happens to a new event when the queue is full.
    pub when_full: WhenFull,
    /// How long a connection may make no progress, which is no answer to a connect, or no acknowledgement while
    /// events wait for one, before it is given up. At least 1. Shorter than the slowest round trip plus the
    /// gateway's commit, it breaks connections that work; longer, it delays the next attempt after a link has
    /// died silently.
    pub progress_timeout_ms: u32,
    /// The longest pause after a first failure. At least 1.
    pub backoff_min_ms: u32,
    /// The longest pause of all.
    pub backoff_max_ms: u32,
    /// Seeds the jitter of the pauses. It must differ between devices (a serial number, a hash of the name), or
    /// all of them come back at the same moment after their gateway was away.
    pub seed: u64,
}

impl Settings {
    /// The full window, new events refused when the queue is full, 20 s for progress, pauses from 0.5 s to
    /// 60 s.
    pub const fn new(seed: u64) -> Self {
        Self {
            window: WINDOW,
            when_full: WhenFull::Refuse,
            progress_timeout_ms: 20_000,
            backoff_min_ms: 500,
            backoff_max_ms: 60_000,
            seed,
        }
    }

    pub(crate) fn check(&self) -> Result<(), StartError> {
        let &Self { window, progress_timeout_ms, backoff_min_ms: min_ms, backoff_max_ms: max_ms, .. } = self;
        if !(1..=WINDOW).contains(&window) {
            return Err(StartError::Window { window });
        }
        if min_ms == 0 || min_ms > max_ms {
            return Err(StartError::Backoff { min_ms, max_ms });
        }
        if progress_timeout_ms == 0 {
            return Err(StartError::ProgressTimeout);
        }
        Ok(())
    }
}
