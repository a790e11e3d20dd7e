//! Hands over what functions published: after the commit, in order, and again until the broker has taken it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use agent_core::Backoff;
use agent_store::{Committed, ErrorKind, Reader, Write};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use crate::inlet::Outgoing;
use crate::limits;
use crate::pipeline::writer::{Sender, Wakers};

/// Hands publishes over until the inlet is gone.
pub async fn dispatch(mut reader: Reader, writer: Sender, wakers: Arc<Wakers>, inlet: mpsc::Sender<Outgoing>) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10), 0);
    let mut window = Window { may_be_more: true, ..Window::default() };
    // The store hears of what was taken while the next ones are on their way.
    let mut telling: Option<Telling> = None;
    loop {
        let room = window.room();
        if room > 0 {
            match tokio::task::block_in_place(|| reader.publishes(window.last(), room)) {
                Ok(batch) => {
                    window.may_be_more = !batch.is_empty();
                    for publish in batch {
                        let (taken, answer) = oneshot::channel();
                        window.waiting.push_back((publish.id, Some(answer)));
                        if inlet.send(Outgoing { publish, taken }).await.is_err() {
                            return;
                        }
                    }
                }
                Err(error) => {
                    let wait = backoff.failed();
                    tracing::error!(?wait, "cannot read what functions published: {error}");
                    if error.kind() == ErrorKind::Corrupt {
                        // The writer gives the store up, and what is whole in it is carried over.
                        writer.abandoned(error.into());
                    }
                    tokio::time::sleep(wait).await;
                    continue;
                }
            }
        }
        if telling.is_none() && window.told < window.taken {
            window.told = window.taken;
            telling = Some(Box::pin(writer.write(vec![Write::Published { up_to: window.taken }])));
        }
        let went_well = tokio::select! {
            taken = window.next() => taken,
            told = told(&mut telling) => {
                telling = None;
                // What was taken stays so; the store hears of it with the next one.
                told
            }
            () = wakers.publishes.notified() => {
                window.may_be_more = true;
                continue;
            }
        };
        if went_well {
            backoff.succeeded();
        } else {
            window.start_over();
            tokio::time::sleep(backoff.failed()).await;
        }
    }
}

type Telling = Pin<Box<dyn Future<Output = Option<Committed>> + Send>>;

// Whether the store took it. Never, if nothing is told.
async fn told(telling: &mut Option<Telling>) -> bool {
    match telling {
        Some(telling) => telling.await.is_some(),
        None => std::future::pending().await,
    }
}

/// So many are handed over together, for each time costs a query; until then, the others are on their way.
const BATCH: usize = limits::PUBLISHES_IN_FLIGHT / 2;

/// What is on its way, in order.
#[derive(Default)]
struct Window {
    // Without a receiver: it was taken.
    waiting: VecDeque<(u64, Option<oneshot::Receiver<()>>)>,
    // Everything up to here was taken.
    taken: u64,
    // And the store was told so.
    told: u64,
    may_be_more: bool,
}

impl Window {
    // The last one that was handed over and not given up.
    fn last(&self) -> u64 {
        self.waiting.back().map_or(self.taken, |(id, _)| *id)
    }

    // How many may be handed over now.
    fn room(&self) -> usize {
        let room = limits::PUBLISHES_IN_FLIGHT - self.waiting.len();
        if self.may_be_more && room >= BATCH { room } else { 0 }
    }

    // Whether those that are waited for were taken, `taken` being ahead then. Never, if none is on its way.
    async fn next(&mut self) -> bool {
        let before = self.taken;
        while let Some((id, answer)) = self.waiting.front_mut() {
            match answer.as_mut().map_or(Ok(()), oneshot::Receiver::try_recv) {
                Ok(()) => self.taken = *id,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Closed) => return false,
            }
            self.waiting.pop_front();
        }
        if self.taken > before {
            return true;
        }
        // Brokers take them in order, most of them. So the last one of a batch is waited for first, and the others are there
        // by then: to be woken for each costs more than all else that is done with it.
        for (_, answer) in self.waiting.iter_mut().take(BATCH).rev() {
            if let Some(waiting) = answer {
                if waiting.await.is_err() {
                    return false;
                }
                *answer = None;
            }
        }
        for (id, _) in self.waiting.drain(..self.waiting.len().min(BATCH)) {
            self.taken = id;
        }
        if self.taken > before { true } else { std::future::pending().await }
    }

    // What follows one that was not taken is sent again, too, and stays behind it.
    fn start_over(&mut self) {
        self.waiting.clear();
        self.told = 0;
        self.may_be_more = true;
    }
}
