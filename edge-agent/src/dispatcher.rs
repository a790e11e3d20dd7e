//! Hands over what functions published: after the commit, in order, and again until the broker has taken it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use agent_core::Backoff;
use agent_store::{ErrorKind, Publish, Reader, Write};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use crate::inlet::Outgoing;
use crate::limits;
use crate::pipeline::writer::{Sender, Wakers};

/// Hands publishes over until the inlet is gone: none that is more than `unnoted` after the last one of which the store knows
/// that it was taken, for so many go out again after a power failure.
pub async fn dispatch(
    mut reader: Reader,
    writer: Sender,
    wakers: Arc<Wakers>,
    inlet: mpsc::Sender<Outgoing>,
    unnoted: u64,
) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10), 0);
    let mut window = Window::new(unnoted);
    let mut committed = wakers.publishes.subscribe();
    // The store hears of what was taken while the next ones are on their way.
    let mut telling: Option<Telling> = None;
    loop {
        if window.room() > 0 && window.ahead.is_empty() {
            match tokio::task::block_in_place(|| reader.publishes(window.last(), limits::PUBLISHES_READ)) {
                Ok(read) => window.read(read),
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
        for _ in 0..window.room() {
            let Some(publish) = window.ahead.pop_front() else { break };
            let (taken, answer) = oneshot::channel();
            window.waiting.push_back((publish.id, Some(answer)));
            if inlet.send(Outgoing { publish, taken }).await.is_err() {
                return;
            }
        }
        if telling.is_none() && window.told < window.taken {
            telling = Some(tell(&writer, window.taken, window.is_pressing()));
        }
        let went_well = tokio::select! {
            taken = window.next() => taken,
            told = told(&mut telling) => {
                telling = None;
                // What was taken stays so; if the store has not heard of it, it does with the next one.
                window.told = told.unwrap_or(window.told);
                told.is_some()
            }
            // The sender is among the wakers, which are here.
            _ = committed.changed() => {
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

/// What the store knows then; `None` if it failed.
type Telling = Pin<Box<dyn Future<Output = Option<u64>> + Send>>;

// In most cases with what others write, which costs no commit of its own.
fn tell(writer: &Sender, up_to: u64, pressing: bool) -> Telling {
    let write = vec![Write::Published { up_to }];
    if pressing {
        let written = writer.write(write);
        Box::pin(async move { written.await.map(|_| up_to) })
    } else {
        let written = writer.note(write);
        Box::pin(async move { written.await.map(|_| up_to) })
    }
}

// What came of it. Never, if nothing is told.
async fn told(telling: &mut Option<Telling>) -> Option<u64> {
    match telling {
        Some(telling) => telling.await,
        None => std::future::pending().await,
    }
}

/// So many are handed over together, for each time costs a change of threads; until then, the others are on their way.
const BATCH: usize = limits::PUBLISHES_IN_FLIGHT / 2;

/// What is on its way, in order.
struct Window {
    // How far it may be ahead of what the store knows.
    unnoted: u64,
    // Without a receiver: it was taken.
    waiting: VecDeque<(u64, Option<oneshot::Receiver<()>>)>,
    // Those that come next, as far as they were read.
    ahead: VecDeque<Publish>,
    // Everything up to here was taken.
    taken: u64,
    // And the store knows that.
    told: u64,
    may_be_more: bool,
}

impl Window {
    fn new(unnoted: u64) -> Self {
        Self { unnoted, waiting: VecDeque::new(), ahead: VecDeque::new(), taken: 0, told: 0, may_be_more: true }
    }

    // These come next.
    fn read(&mut self, publishes: Vec<Publish>) {
        // What is before the first one that waits is not in the store any more.
        if let Some(first) = publishes.first().filter(|_| self.taken == 0) {
            (self.taken, self.told) = (first.id - 1, first.id - 1);
        }
        self.may_be_more = !publishes.is_empty();
        self.ahead = publishes.into();
    }

    // The last one that was handed over and not given up.
    fn last(&self) -> u64 {
        self.waiting.back().map_or(self.taken, |(id, _)| *id)
    }

    // How many may be handed over now.
    fn room(&self) -> usize {
        let unnoted = (self.told + self.unnoted).saturating_sub(self.last());
        let room = (limits::PUBLISHES_IN_FLIGHT - self.waiting.len()).min(unnoted as usize);
        if (self.may_be_more || !self.ahead.is_empty()) && room >= BATCH { room } else { 0 }
    }

    // Whether there would soon be no room if the store did not hear of what was taken.
    fn is_pressing(&self) -> bool {
        self.taken - self.told >= self.unnoted / 2
    }

    // Whether those that are waited for were taken, `taken` being ahead then. Never, if none is on its way.
    async fn next(&mut self) -> bool {
        let before = self.taken;
        let all_well = self.settle();
        if !all_well || self.taken > before {
            return all_well;
        }
        // Brokers take them in order, most of them. So the last one of a batch is waited for first, and the others are there
        // by then: to be woken for each costs more than all else that is done with it.
        for (_, answer) in self.waiting.iter_mut().take(BATCH).rev() {
            if let Some(waiting) = answer {
                if waiting.await.is_err() {
                    // Those before it may have been taken, and need not be sent again.
                    self.settle();
                    return false;
                }
                *answer = None;
            }
        }
        self.settle();
        if self.taken > before { true } else { std::future::pending().await }
    }

    // Takes note of those that were taken, up to the first one that was not yet; false: it never will be.
    fn settle(&mut self) -> bool {
        while let Some((id, answer)) = self.waiting.front_mut() {
            match answer.as_mut().map_or(Ok(()), oneshot::Receiver::try_recv) {
                Ok(()) => self.taken = *id,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Closed) => return false,
            }
            self.waiting.pop_front();
        }
        true
    }

    // What follows one that was not taken is sent again, too, and stays behind it.
    fn start_over(&mut self) {
        self.waiting.clear();
        self.ahead.clear();
        self.may_be_more = true;
    }
}

#[cfg(test)]
mod tests {
    use agent_core::effect::PublishFlags;

    use super::*;

    const UNNOTED: u64 = 128;

    /// A window of so many, numbered from 1, and who says that they were taken.
    fn window(publishes: u64) -> (Window, VecDeque<oneshot::Sender<()>>) {
        let (taken, waiting): (VecDeque<_>, VecDeque<_>) = (1..=publishes)
            .map(|id| {
                let (taken, answer) = oneshot::channel();
                (taken, (id, Some(answer)))
            })
            .unzip();
        (Window { waiting, ..Window::new(UNNOTED) }, taken)
    }

    /// What comes of waiting, and up to where all were taken then; `None`: it goes on.
    fn next(window: &mut Window) -> Option<(bool, u64)> {
        let went_well = {
            let mut next = std::pin::pin!(window.next());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            match next.as_mut().poll(&mut context) {
                std::task::Poll::Ready(went_well) => went_well,
                std::task::Poll::Pending => return None,
            }
        };
        Some((went_well, window.taken))
    }

    #[test]
    fn what_was_taken_is_known_in_whatever_order_it_was() {
        let (mut window, mut taken) = window(BATCH as u64 + 2);
        assert_eq!(next(&mut window), None);
        // The last of the batch, and then, step by step, those before it.
        let last = taken.remove(BATCH - 1).unwrap();
        last.send(()).unwrap();
        assert_eq!(next(&mut window), None);
        taken.pop_front().unwrap().send(()).unwrap();
        assert_eq!(next(&mut window), Some((true, 1)));
        assert_eq!(next(&mut window), None);
        for taken in taken.drain(..BATCH - 2) {
            taken.send(()).unwrap();
        }
        assert_eq!(next(&mut window), Some((true, BATCH as u64)));
        assert_eq!(next(&mut window), None);
        taken.drain(..).for_each(|taken| taken.send(()).unwrap());
        assert_eq!(next(&mut window), Some((true, BATCH as u64 + 2)));
        assert_eq!(next(&mut window), None);
    }

    #[test]
    fn what_was_taken_before_one_that_was_not_is_not_sent_again() {
        for polled in [false, true] {
            let (mut window, mut taken) = window(BATCH as u64);
            assert!(!polled || next(&mut window).is_none());
            taken.drain(..3).for_each(|taken| taken.send(()).unwrap());
            drop(taken);
            assert_eq!(next(&mut window).map(|(went_well, _)| went_well), Some(false));
            assert_eq!(window.taken, 3);
            window.start_over();
            assert_eq!((window.last(), window.room()), (3, limits::PUBLISHES_IN_FLIGHT));
        }
    }

    #[test]
    fn one_that_was_taken_while_others_are_waited_for_is_not_asked_again() {
        let (mut window, mut taken) = window(2);
        taken.pop_back().unwrap().send(()).unwrap();
        assert_eq!(next(&mut window), None);
        assert!(window.waiting[1].1.is_none());
        drop(taken);
        assert_eq!(next(&mut window), Some((false, 0)));
    }

    #[test]
    fn no_more_goes_out_than_may_go_out_again() {
        let publish = |id| Publish {
            id,
            device: "d".into(),
            topic: "t".into(),
            payload: [].into(),
            flags: PublishFlags::default(),
        };
        let mut window = Window::new(UNNOTED);
        window.read((1_001..=1_500).map(publish).collect());
        assert_eq!((window.taken, window.told), (1_000, 1_000));
        // All is taken at once, and the store hears of nothing.
        let mut sent = 0;
        while window.room() > 0 {
            for _ in 0..window.room() {
                window.taken = window.ahead.pop_front().unwrap().id;
                sent += 1;
            }
            assert_eq!(window.is_pressing(), sent >= UNNOTED / 2);
        }
        assert_eq!(sent, UNNOTED);
        window.told = window.taken;
        assert!(window.room() > 0 && !window.is_pressing());
        // A connection that is lost changes nothing of what the store knows.
        window.start_over();
        assert_eq!((window.told, window.last()), (1_128, 1_128));
    }
}
