//! Keeps records that wait within their time and their room, as [`agent_core::retention`] decides; deletes state whose time has
//! ended; and has the control plane told what functions used.
//!
//! A quota is a bound that is come back to, not one that is never passed: what is committed while a request is on its way
//! comes on top.

use std::sync::Arc;
use std::time::Duration;

use agent_core::retention::Retention;
use agent_store::{Reader, StoreError, Write};
use tokio::task::block_in_place;
use tokio::time::Instant;

use self::keeping::{Commit, Keeping};
use crate::clock::Clock;
use crate::limits;
use crate::meter::Meter;
use crate::pipeline::writer::{Sender, Wakers};
use crate::uplink::OutboxTurn;

pub mod keeping;

/// All that keeping takes.
#[derive(Debug)]
pub struct Keeper {
    /// Its own.
    pub reader: Reader,
    /// Where drops go.
    pub writer: Sender,
    /// Says when a quota is passed.
    pub wakers: Arc<Wakers>,
    /// What holds.
    pub retention: Arc<Retention>,
    /// Shared with whoever delivers.
    pub turn: OutboxTurn,
    /// The clocks.
    pub clock: Clock,
    /// Is to be remembered now and then.
    pub meter: Meter,
    /// How often the control plane is told what functions used. Whatever is not told yet when the agent ends is told when it
    /// starts: nothing goes over the link any more at its end.
    pub tell_usage: Duration,
}

impl Keeper {
    /// Keeps for as long as the agent runs.
    pub async fn keep(mut self) {
        let interval = match self.retention.shortest_ttl_us() {
            Some(ttl) => Duration::from_micros(ttl / 10).clamp(limits::KEEP_EVERY.0, limits::KEEP_EVERY.1),
            None => limits::KEEP_EVERY.1,
        };
        let mut keeping = Keeping::new(self.retention.clone());
        let mut tell_at = Instant::now();
        let mut drops = Drops { writer: self.writer.clone(), turn: self.turn.clone() };
        loop {
            let now = self.clock.stamp();
            let powered = Write::Powered { boot: now.boot, monotonic_us: now.monotonic_us };
            // Where the store does not take it, it is being opened anew; then it is told again.
            let mut writes = vec![powered, self.meter.write()];
            if Instant::now() >= tell_at {
                writes.push(Write::TellUsage { stamp: now });
                tell_at = Instant::now() + self.tell_usage;
            }
            let _ = self.writer.write(writes).await;
            if let Err(error) = keeping.round(&mut self.reader, now, &mut drops).await {
                tracing::warn!("records that wait are not kept within their time and room: {error}");
            }
            if let Err(error) = self.delete_ended_state().await {
                tracing::warn!("state whose time has ended is not deleted: {error}");
            }
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = tokio::time::sleep_until(tell_at) => {}
                () = self.wakers.quotas.notified() => {}
            }
        }
    }
}

impl Keeper {
    // In steps, so that no commit waits for long. Events that are on their way do not find these values either, whatever their
    // lane remembers, unless the clock goes back; what is put anew has another end, and stays.
    async fn delete_ended_state(&mut self) -> Result<(), StoreError> {
        let time_us = self.clock.wall_us();
        while block_in_place(|| self.reader.has_ended_state(time_us))? {
            if self.writer.write(vec![Write::StateEnded { time_us }]).await.is_none() {
                // It is being opened anew; the next round comes to it.
                break;
            }
        }
        Ok(())
    }
}

struct Drops {
    writer: Sender,
    turn: OutboxTurn,
}

impl Commit for Drops {
    async fn commit(&mut self, write: Write) -> bool {
        let _turn = self.turn.lock().await;
        self.writer.write(vec![write]).await.is_some()
    }
}
