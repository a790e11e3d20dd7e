//! Delivers records to the control plane, and deletes what it confirmed.
//!
//! What goes next is decided by [`delivery`]: what is gone is told first, then records of high priority, then live ones
//! before those that have waited for long. Requests, their answers and the commits that delete are one turn: nobody else
//! changes what waits meanwhile (see [`OutboxTurn`]). Within a turn the work overlaps: while the control plane stores one
//! request, the next one is read and sent, and the one before is deleted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_core::Backoff;
use agent_store::{ErrorKind, Reader, StoreError, Write};
use sync_protocol::records::{Reply, StoreEpoch};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet, block_in_place};

use self::delivery::{Allowed, Delivery, Flight, Step};
use crate::clock::Clock;
use crate::config::Budget;
use crate::counters::Counters;
use crate::limits;
use crate::link::{self, Link, LinkError};
use crate::meter::Meter;
use crate::pipeline::writer::{Sender, Wakers};

pub mod delivery;

/// Whoever holds it may change what waits in the outbox, other than at its end: so nothing that is on its way to the control
/// plane changes before the answer comes.
pub type OutboxTurn = Arc<Mutex<()>>;

/// All that delivering takes.
#[derive(Debug)]
pub struct Uplink {
    /// Its own.
    pub reader: Reader,
    /// The store's.
    pub epoch: StoreEpoch,
    /// Where confirmations go.
    pub writer: Sender,
    /// Says when there are records.
    pub wakers: Arc<Wakers>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Shared with whoever drops records.
    pub turn: OutboxTurn,
    /// The clocks.
    pub clock: Clock,
    /// How much may go.
    pub budget: Budget,
    /// How much went.
    pub meter: Meter,
}

enum Progress {
    Some,
    None,
    OverBudget,
}

/// Why a turn came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Damaged(String),
    #[error(transparent)]
    Alarm(#[from] agent_core::uplink::Alarm),
    #[error("what was delivered could not be marked in the store; it is tried again")]
    NotMarked,
}

/// A request that was answered, or was not.
struct Landed {
    flight: Flight,
    took: Duration,
    answer: Result<(Reply, usize), LinkError>,
}

/// What was confirmed last, while it is being committed.
#[derive(Default)]
struct Marks(Option<(JoinHandle<bool>, u64)>);

impl Uplink {
    /// Delivers for as long as the agent runs.
    pub async fn deliver(mut self, link: Arc<Link>, mut backoff: Backoff) {
        let mut delivery = Delivery::new(self.epoch, self.budget.bytes_per_second);
        loop {
            tokio::time::sleep(delivery.wait(self.now_us())).await;
            match self.turn(&link, &mut delivery).await {
                Ok(Progress::Some) => backoff.succeeded(),
                Ok(Progress::None) => self.wakers.records.notified().await,
                Ok(Progress::OverBudget) => {
                    let used = self.meter.read().bytes;
                    tracing::warn!(used, "records stay in the outbox: cloud.bytes_per_month is used up for this month");
                    tokio::time::sleep(limits::BUDGET_CHECK).await;
                }
                Err(error) => {
                    let wanted = match &error {
                        Failed::Link(error) => error.retry_after(),
                        _ => None,
                    };
                    let wait = backoff.failed().max(wanted.unwrap_or_default());
                    tracing::warn!(?wait, "records stay in the outbox: {error}");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    fn now_us(&self) -> u64 {
        self.clock.stamp().monotonic_us
    }

    fn allowed(&self) -> Allowed {
        match (self.meter.allows(self.budget, false), self.meter.allows(self.budget, true)) {
            (true, _) => Allowed::All,
            (false, true) => Allowed::Urgent,
            (false, false) => Allowed::Nothing,
        }
    }

    async fn turn(&mut self, link: &Arc<Link>, delivery: &mut Delivery) -> Result<Progress, Failed> {
        let turn = self.turn.clone();
        let _turn = turn.lock().await;
        let mut marks = Marks::default();
        let progress = self.take(link, delivery, &mut marks).await;
        delivery.gave_up();
        // Whoever has the next turn must find in the store what this one did.
        self.marked(&mut marks).await?;
        progress
    }

    // Sends one request after the other, for a while: then others have their turn.
    async fn take(&mut self, link: &Arc<Link>, delivery: &mut Delivery, marks: &mut Marks) -> Result<Progress, Failed> {
        let until = Instant::now() + limits::OUTBOX_TURN;
        let mut requests = JoinSet::new();
        let mut progress = Progress::None;
        loop {
            if requests.is_empty() {
                // What is read next begins where the store says that all before was delivered.
                self.marked(marks).await?;
            }
            let over = Instant::now() >= until || !delivery.wait(self.now_us()).is_zero();
            let step = if over { Step::Wait } else { self.step(delivery)? };
            match step {
                Step::Idle => return Ok(progress),
                Step::OverBudget => return Ok(Progress::OverBudget),
                Step::PassOver { write, damage } => {
                    self.counters.alarms.add(1);
                    tracing::error!("{damage}; it is lost, and the records after it go on");
                    self.mark(marks, vec![*write], 0).await?;
                    return Ok(Progress::Some);
                }
                Step::Send(sending) => {
                    progress = Progress::Some;
                    let body = block_in_place(|| link::pack(&sending.request));
                    let (link, flight, begun) = (link.clone(), sending.flight, Instant::now());
                    requests.spawn(async move {
                        let answer = link.records(body).await;
                        Landed { flight, took: begun.elapsed(), answer }
                    });
                }
                Step::Wait => match requests.join_next().await {
                    // Its time is over; whether there is more is for the next turn to find out.
                    None => return Ok(Progress::Some),
                    Some(landed) => {
                        let landed = landed.expect("a request that is sent does not panic, and nobody aborts it");
                        self.landed(delivery, marks, landed).await?;
                    }
                },
            }
        }
    }

    fn step(&mut self, delivery: &mut Delivery) -> Result<Step, Failed> {
        let allowed = self.allowed();
        match block_in_place(|| delivery.next(&mut self.reader, allowed)) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let damage = error.to_string();
                // The writer gives the store up, and what is whole in it is carried over.
                self.writer.abandoned(error.into());
                Err(Failed::Damaged(damage))
            }
            step => Ok(step?),
        }
    }

    async fn landed(&mut self, delivery: &mut Delivery, marks: &mut Marks, landed: Landed) -> Result<(), Failed> {
        let Landed { flight, took, answer } = landed;
        let (reply, bytes) = answer.inspect_err(|error| {
            if matches!(error, LinkError::Unreachable { retry_after: None, .. }) {
                delivery.failed();
            }
        })?;
        let confirmed = delivery.answered(flight, &reply, self.now_us(), took, bytes as u64).inspect_err(|alarm| {
            self.counters.alarms.add(1);
            tracing::error!("{alarm}");
        })?;
        self.mark(marks, confirmed.writes, confirmed.records).await
    }

    // Begins to commit what was confirmed, when what was confirmed before is committed.
    async fn mark(&mut self, marks: &mut Marks, writes: Vec<Write>, records: u64) -> Result<(), Failed> {
        self.marked(marks).await?;
        let writer = self.writer.clone();
        let metered = self.budget.bytes_per_month.map(|_| self.meter.write());
        let mark = async move {
            for write in writes {
                let group = std::iter::once(write).chain(metered.clone()).collect();
                if writer.write(group).await.is_none() {
                    return false;
                }
            }
            true
        };
        marks.0 = Some((tokio::spawn(mark), records));
        Ok(())
    }

    async fn marked(&mut self, marks: &mut Marks) -> Result<(), Failed> {
        if let Some((mark, records)) = marks.0.take() {
            if !mark.await.unwrap_or(false) {
                return Err(Failed::NotMarked);
            }
            self.counters.delivered.add(records);
        }
        Ok(())
    }
}
