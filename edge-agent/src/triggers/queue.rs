//! Messages: what functions put into queues, and events that are given to a function once more.
//!
//! A message stays in the store until a function has handled it, and leaves it in the transaction of that. So it takes
//! effect once, however often the agent dies over it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use agent_core::event::EventKind;
use agent_store::{Damage, Message, Reader, StoreError, Uses, Write, retry_queue};
use function_package::Trigger;
use sync_protocol::records::StoreEpoch;
use tokio::sync::Notify;
use tokio::task::block_in_place;

use crate::limits;
use crate::pipeline::writer::{Sender, Wakers};
use crate::pipeline::{Origin, Pipeline};
use crate::plan::Slot;

/// All that reading queues takes.
#[derive(Debug)]
pub struct Queues {
    /// Its own.
    pub reader: Reader,
    /// The store's.
    pub epoch: StoreEpoch,
    /// Where what cannot be read is deleted.
    pub writer: Sender,
    /// Says when there are messages.
    pub wakers: Arc<Wakers>,
    /// Where they go.
    pub pipeline: Arc<Pipeline>,
}

/// Messages that were given to the pipeline and have no outcome yet.
#[derive(Debug, Default)]
struct Taken {
    ids: Mutex<BTreeSet<u64>>,
    freed: Notify,
}

impl Taken {
    fn now(&self) -> BTreeSet<u64> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(self: &Arc<Self>, id: u64) -> Hold {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        Hold { id, taken: self.clone() }
    }
}

/// Goes with the acknowledgement, whether that is used or dropped.
struct Hold {
    id: u64,
    taken: Arc<Taken>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.taken.ids.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        self.taken.freed.notify_one();
    }
}

impl Queues {
    /// Gives messages to functions for as long as the agent runs.
    pub async fn run(mut self) {
        let (taken, pipeline) = (Arc::new(Taken::default()), self.pipeline.clone());
        loop {
            // Before the look at the plan, so that no change is missed.
            let changed = pipeline.plan_changed.notified();
            let wait = match self.round(&taken).await {
                Ok(next_us) => self.pipeline.clock.until(next_us),
                Err(error) => {
                    tracing::error!("messages wait: {error}");
                    limits::LOOK_AT_CLOCK
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.wakers.messages.notified() => {}
                () = taken.freed.notified() => {}
                () = changed => {}
            }
        }
    }

    // Hands over all that is due, within the bound. When the next one is due.
    async fn round(&mut self, taken: &Arc<Taken>) -> Result<Option<u64>, StoreError> {
        let mut next_us: Option<u64> = None;
        let plan = self.pipeline.plan();
        for slot in plan.slots() {
            for queue in queues(slot) {
                // Before the look into the store: what is not among these and is still there was never handed over.
                let out = taken.now();
                let room = limits::MESSAGES_IN_FLIGHT.saturating_sub(out.len());
                if room == 0 {
                    return Ok(None);
                }
                let now_us = self.pipeline.clock.wall_us();
                let found = block_in_place(|| self.reader.messages(&queue, now_us, limits::MESSAGES_IN_FLIGHT));
                let (messages, next) = match found {
                    Ok(found) => found,
                    Err(error) => {
                        pass_over(&self.pipeline, &self.writer, error).await?;
                        return Ok(Some(now_us));
                    }
                };
                next_us = [next_us, next].into_iter().flatten().min();
                for message in messages.into_iter().filter(|message| !out.contains(&message.id)).take(room) {
                    self.hand_over(slot, message, taken).await;
                }
            }
        }
        Ok(next_us)
    }

    async fn hand_over(&mut self, slot: &Arc<Slot>, message: Message, taken: &Arc<Taken>) {
        let Message { id, attempts, mut event, .. } = message;
        event.attributes.retain(|(name, _)| name != "message" && name != "attempt");
        if event.kind == EventKind::Queue {
            event.attributes.push(("message".to_owned(), format!("{:016x}-{id}", self.epoch.0)));
        }
        event.attributes.push(("attempt".to_owned(), (attempts + 1).to_string()));
        let hold = taken.take(id);
        let origin = Origin { uses: Uses::Message(id), attempts };
        self.pipeline.submit_to(slot, event, origin, Box::new(move |_| drop(hold))).await;
    }
}

/// Deletes a message that cannot be read: what is damaged must not stand in the way of what is not.
///
/// # Errors
/// It is another error, and nothing was deleted.
pub async fn pass_over(pipeline: &Pipeline, writer: &Sender, error: StoreError) -> Result<(), StoreError> {
    let Some(Damage::Message { id, .. }) = error.damage() else { return Err(error) };
    let write = Write::MessageLost { id: *id };
    pipeline.counters.alarms.add(1);
    tracing::error!("{error}; it is lost, and the messages after it go on");
    // If that fails too, it is found again.
    let _ = writer.write(vec![write]).await;
    Ok(())
}

/// The queues that a function reads, its retries first.
fn queues(slot: &Slot) -> Vec<String> {
    let active = slot.active.load();
    let named = active.current.triggers.iter().filter_map(|trigger| match trigger {
        Trigger::Queue { queue } => Some(queue.clone()),
        _ => None,
    });
    std::iter::once(retry_queue(&slot.name)).chain(named).collect()
}
