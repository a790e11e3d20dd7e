//! Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

/// Whether SIGINT or SIGTERM came.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Arc<AtomicBool>);

/// SIGINT or SIGTERM came.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// How often whoever waits looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Stop {
    /// Takes the signals from now on, so that what was started can be stopped and removed.
    pub(crate) fn on_signals() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut interrupt, mut terminate) = {
            let _entered = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        let stop = Self(Arc::default());
        let flag = stop.0.clone();
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            });
            flag.store(true, Ordering::Relaxed);
        });
        Ok(stop)
    }

    /// Goes on, unless a signal came.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
    }

    /// Waits for a signal.
    pub(crate) fn wait(&self) {
        while self.check().is_ok() {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}
