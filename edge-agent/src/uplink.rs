//! Delivers records to the control plane, and deletes what it confirmed.
//!
//! What goes next is decided by [`delivery`]: what is gone is told first, then records of high priority, then live ones
//! before those that have waited for long. A request, its answer and the commit that deletes are one turn: nobody else
//! changes what waits meanwhile (see [`OutboxTurn`]).

use std::sync::Arc;
use std::time::Instant;

use agent_core::Backoff;
use agent_store::{ErrorKind, Reader, StoreError, Write};
use sync_protocol::records::StoreEpoch;
use tokio::sync::Mutex;
use tokio::task::block_in_place;

use self::delivery::{Allowed, Confirmed, Delivery, Sending, Step};
use crate::clock::Clock;
use crate::config::Budget;
use crate::counters::Counters;
use crate::limits;
use crate::link::{Link, LinkError};
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
    #[error("{0} could not be marked in the store; it is tried again")]
    NotMarked(&'static str),
}

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

    async fn turn(&mut self, link: &Link, delivery: &mut Delivery) -> Result<Progress, Failed> {
        let turn = self.turn.clone();
        let _turn = turn.lock().await;
        let allowed = self.allowed();
        let step = match block_in_place(|| delivery.next(&mut self.reader, allowed)) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let damage = error.to_string();
                // The writer gives the store up, and what is whole in it is carried over.
                self.writer.abandoned(error.into());
                return Err(Failed::Damaged(damage));
            }
            step => step?,
        };
        match step {
            Step::Idle => Ok(Progress::None),
            Step::OverBudget => Ok(Progress::OverBudget),
            Step::PassOver { write, damage } => {
                self.counters.alarms.add(1);
                tracing::error!("{damage}; it is lost, and the records after it go on");
                self.mark(*write, "what is lost").await?;
                Ok(Progress::Some)
            }
            Step::Send(sending) => {
                let Confirmed { write, records } = self.send(link, delivery, *sending).await?;
                self.mark(write, "what was delivered").await?;
                self.counters.delivered.add(records);
                Ok(Progress::Some)
            }
        }
    }

    async fn send(&mut self, link: &Link, delivery: &mut Delivery, sending: Sending) -> Result<Confirmed, Failed> {
        let start = Instant::now();
        let (reply, bytes) = link.records(&sending.request).await.inspect_err(|error| {
            if matches!(error, LinkError::Unreachable { retry_after: None, .. }) {
                delivery.failed();
            }
        })?;
        let confirmed = delivery.answered(sending, &reply, self.now_us(), start.elapsed(), bytes as u64);
        Ok(confirmed.inspect_err(|alarm| {
            self.counters.alarms.add(1);
            tracing::error!("{alarm}");
        })?)
    }

    async fn mark(&mut self, write: Write, what: &'static str) -> Result<(), Failed> {
        let mut writes = vec![write];
        if self.budget.bytes_per_month.is_some() {
            writes.push(self.meter.write());
        }
        match self.writer.write(writes).await {
            Some(_) => Ok(()),
            None => Err(Failed::NotMarked(what)),
        }
    }
}
