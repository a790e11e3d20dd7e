//! The one thread that writes the store: it takes all outcomes that wait, commits them in one transaction, and then
//! acknowledges. The more there is to do, the more share a commit; nobody waits for company.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use agent_core::lanes::LaneId;
use agent_core::retention::Refused;
use agent_core::{Backoff, Effects};
use agent_store::{
    BlobWrite, Committed, Dead, DeadKind, ErrorKind, FailedRun, FunctionId, Outcome, OutcomeResult, Store, StoreError,
    Write,
};
use sync_protocol::dead::INLET;
use sync_protocol::records::Stamp;
use sync_protocol::usage::Counts;
use tokio::sync::{Notify, oneshot, watch};

use super::{InFlight, Job, Pipeline};
use crate::blobs::Stored;
use crate::keeper::keeping::named;
use crate::limits;
use crate::plan::Slot;

/// Why a run could not be brought to an end: the store did not answer.
pub type Abandoned = Box<dyn std::error::Error + Send + Sync>;

/// How a run ended.
#[derive(Debug)]
pub enum Ended {
    /// With these effects.
    Done {
        /// Those that are no blobs.
        effects: Effects,
        /// What becomes of blobs.
        blobs: Vec<BlobWrite>,
        /// Their contents: held until it is written, or never will be.
        contents: Vec<Stored>,
    },
    /// The function had handled the event before.
    Duplicate,
    /// It goes to the dead letters.
    Dead(Letter),
    /// It is given to the function once more.
    Retry {
        /// Not before this time by the wall clock, microseconds since 1970-01-01 UTC.
        due_us: u64,
        /// How often it was given to the function so far.
        attempts: u32,
    },
}

/// Why an event goes to the dead letters.
#[derive(Debug)]
pub struct Letter {
    /// What sort of cause.
    pub kind: DeadKind,
    /// For a person: names the function, the cause, and what to do.
    pub reason: String,
    /// More of it.
    pub detail: String,
    /// The run that ended so, if there was one.
    pub run: Option<Box<FailedRun>>,
}

impl Ended {
    /// Whether the event counts as handled from now on.
    pub fn marks(&self) -> bool {
        match self {
            // A retry is the gateway's own, so the source's are duplicates from now on.
            Self::Done { .. } | Self::Retry { .. } => true,
            Self::Duplicate => false,
            // What is too old to be known stays unknown.
            Self::Dead(letter) => letter.kind != DeadKind::TooOld,
        }
    }
}

/// A run that is over.
pub struct Finished {
    // `None`: the event never reached a function.
    run: Option<(LaneId, Arc<Slot>)>,
    partition: Arc<str>,
    event: Arc<InFlight>,
    seen: Option<(Arc<str>, Vec<u8>)>,
    ended: Ended,
    stamp: Stamp,
    usage: Counts,
}

impl Finished {
    /// What came of giving an event to a function, and what its runs for that used.
    pub fn new(
        lane: LaneId,
        job: Job,
        seen: Option<(Arc<str>, Vec<u8>)>,
        ended: Ended,
        stamp: Stamp,
        usage: Counts,
    ) -> Self {
        Self { run: Some((lane, job.slot)), partition: job.partition, event: job.event, seen, ended, stamp, usage }
    }

    /// An event that no function was given, for it cannot be handled.
    pub fn refused(event: Arc<InFlight>, reason: String, stamp: Stamp) -> Self {
        let ended = Ended::Dead(Letter { kind: DeadKind::Refused, reason, detail: String::new(), run: None });
        let usage = Counts::default();
        Self { run: None, partition: "".into(), event, seen: None, ended, stamp, usage }
    }

    // What is to be written of it; what it holds for that is taken out.
    fn write(&mut self, inlet: FunctionId) -> Write {
        let mut blob_writes = Vec::new();
        let result = match &mut self.ended {
            Ended::Done { effects, blobs, .. } => {
                blob_writes = std::mem::take(blobs);
                OutcomeResult::Effects(std::mem::take(effects))
            }
            Ended::Duplicate => OutcomeResult::Nothing,
            Ended::Retry { due_us, attempts } => OutcomeResult::Retry { due_us: *due_us, attempts: *attempts },
            Ended::Dead(letter) => {
                let current = self.run.as_ref().map(|(_, slot)| slot.active.load().current.clone());
                OutcomeResult::Dead(Dead {
                    version: current.as_ref().map_or_else(String::new, |current| current.version.clone()),
                    digest: current.as_ref().map_or([0; 32], |current| *current.digest.as_bytes()),
                    kind: letter.kind,
                    reason: std::mem::take(&mut letter.reason),
                    detail: std::mem::take(&mut letter.detail),
                    run: letter.run.take(),
                })
            }
        };
        let (function, function_name) = match &self.run {
            Some((_, slot)) => (slot.id, slot.name.clone()),
            None => (inlet, INLET.into()),
        };
        Write::Outcome(Outcome {
            function,
            function_name,
            partition: self.partition.clone(),
            seen: self.seen.take(),
            uses: self.event.origin.uses.clone(),
            event: self.event.event.clone(),
            stamp: self.stamp,
            usage: self.usage,
            result,
            blobs: blob_writes,
        })
    }
}

enum Message {
    Finished(Box<Finished>),
    Abandoned(Abandoned),
    Write(Vec<Write>, oneshot::Sender<Committed>),
    // The same, and there is no haste.
    Note(Vec<Write>, oneshot::Sender<Committed>),
    Function(String, oneshot::Sender<FunctionId>),
    Stop,
}

/// Where outcomes go. Bounded by what the pipeline lets in, so that nothing here blocks.
#[derive(Clone, Debug)]
pub struct Sender(mpsc::Sender<Message>);

/// The other end.
#[derive(Debug)]
pub struct Receiver(mpsc::Receiver<Message>);

/// Makes both ends.
pub fn channel() -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::channel();
    (Sender(sender), Receiver(receiver))
}

impl Sender {
    // A writer that is gone takes nothing: what is sent to it is dropped, and so not acknowledged.
    fn send(&self, message: Message) {
        let _ = self.0.send(message);
    }

    /// A run is over.
    pub fn finished(&self, finished: Finished) {
        self.send(Message::Finished(Box::new(finished)));
    }

    /// A run could not be brought to an end.
    pub fn abandoned(&self, error: Abandoned) {
        self.send(Message::Abandoned(error));
    }

    /// Commits writes that are not outcomes, all or none; answers when they are on disk. `None`: they are not, for the
    /// store failed or the agent stops. They take their place in the order of all writes when this is called, and not
    /// when the answer is waited for.
    pub fn write(&self, writes: Vec<Write>) -> impl Future<Output = Option<Committed>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Write(writes, reply));
        async { answer.await.ok() }
    }

    /// As [`write`](Self::write), together with what others write: by themselves these are only written after
    /// [`NOTE_WAIT`](limits::NOTE_WAIT).
    pub fn note(&self, writes: Vec<Write>) -> impl Future<Output = Option<Committed>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Note(writes, reply));
        async { answer.await.ok() }
    }

    /// The number of a function, which is made if there is none. `None`, and when it is asked for, as for
    /// [`write`](Self::write).
    pub fn function(&self, name: &str) -> impl Future<Output = Option<FunctionId>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Function(name.to_owned(), reply));
        async { answer.await.ok() }
    }

    /// Lets the writer end after what was sent before this.
    pub fn stop(&self) {
        self.send(Message::Stop);
    }
}

/// Who wants to know that something was committed.
#[derive(Debug, Default)]
pub struct Wakers {
    /// There are new records.
    pub records: Notify,
    /// The highest number of a publish.
    pub publishes: watch::Sender<u64>,
    /// There are messages.
    pub messages: Notify,
    /// There may be HTTP requests to be sent.
    pub requests: Notify,
    /// Records take more room than they may.
    pub quotas: Notify,
}

/// Why the writer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to.
    Stopped,
    /// The store is damaged, and given up. It is recovered when the agent starts anew; everything that reads it must let
    /// go of it before.
    Damaged,
}

/// Writes until it is told to stop, or the store is found to be damaged.
pub fn write(pipeline: &Pipeline, wakers: &Wakers, mut store: Store, dir: &Path, receiver: &Receiver) -> End {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10), store.epoch().0);
    let mut group = Group::default();
    let mut leftover = 0;
    guard(pipeline, wakers, &mut store);
    loop {
        let stop = group.gather(&receiver.0, leftover == 0);
        match group.commit(pipeline, &mut store) {
            Ok(committed) => {
                backoff.succeeded();
                leftover = committed.leftover;
                guard(pipeline, wakers, &mut store);
                pipeline.totals.add(store.counted());
                group.settle(pipeline, wakers, &committed);
            }
            Err(error) => {
                tracing::error!(
                    "{error}; nothing of {} outcomes was acknowledged, and all in flight comes again",
                    group.outcomes.len()
                );
                let Group { outcomes, requests, .. } = std::mem::take(&mut group);
                pipeline.throw_away();
                // Only now: whoever hears that an event was dropped sends it again at once.
                drop(outcomes);
                match error.downcast_ref::<StoreError>() {
                    Some(damaged) if damaged.kind() == ErrorKind::Corrupt => {
                        let unwritten: Vec<Write> = requests.into_iter().flat_map(|(writes, _)| writes).collect();
                        match store.condemn(&damaged.to_string(), &unwritten) {
                            Ok(()) => return End::Damaged,
                            Err(error) => tracing::error!("{error}"),
                        }
                    }
                    _ => drop(store),
                }
                match reopen(pipeline, dir, &mut backoff) {
                    Ok(next) => store = next,
                    Err(end) => return end,
                }
                guard(pipeline, wakers, &mut store);
            }
        }
        if stop {
            return End::Stopped;
        }
    }
}

// Sees to it that what waits stays within its room.
fn guard(pipeline: &Pipeline, wakers: &Wakers, store: &mut Store) {
    let usage = named(store.usage());
    if pipeline.retention.is_over(usage.clone()) {
        wakers.quotas.notify_one();
    }
    let refused = pipeline.retention.refused(usage);
    if refused != *store.refused() {
        match &refused {
            Refused::None => tracing::info!("there is room again for the records of every stream"),
            Refused::Streams(streams) => {
                tracing::warn!(?streams, "the records of these streams are refused: they are full")
            }
            Refused::All => tracing::warn!("all records are refused: the outbox is full"),
        }
        store.refuse(refused);
    }
}

// Without a store nothing can be acknowledged, so there is nothing else to do than to try again, until the agent stops.
fn reopen(pipeline: &Pipeline, dir: &Path, backoff: &mut Backoff) -> Result<Store, End> {
    while !pipeline.is_stopping() {
        std::thread::sleep(backoff.failed());
        match Store::open(dir) {
            Ok(store) => return Ok(store),
            Err(error) => {
                tracing::error!("{error}");
                if error.kind() == ErrorKind::Corrupt {
                    return Err(End::Damaged);
                }
            }
        }
    }
    Err(End::Stopped)
}

/// What shares a transaction.
#[derive(Default)]
struct Group {
    outcomes: Vec<Finished>,
    requests: Vec<(Vec<Write>, oneshot::Sender<Committed>)>,
    functions: Vec<(String, oneshot::Sender<FunctionId>)>,
    abandoned: Option<Abandoned>,
}

impl Group {
    // Takes all messages that wait, within the bound, and waits for the first one if so told; true if it is time to stop.
    fn gather(&mut self, receiver: &mpsc::Receiver<Message>, mut wait: bool) -> bool {
        // How long what is there can wait.
        let mut until: Option<Instant> = None;
        loop {
            let next = match until {
                _ if !wait => receiver.try_recv().ok(),
                None => receiver.recv().ok(),
                Some(until) => receiver.recv_timeout(until.saturating_duration_since(Instant::now())).ok(),
            };
            let Some(message) = next else { return false };
            wait &= matches!(message, Message::Note(..));
            match message {
                Message::Finished(finished) => self.outcomes.push(*finished),
                Message::Abandoned(error) => self.abandoned = Some(error),
                Message::Write(writes, reply) => self.requests.push((writes, reply)),
                Message::Note(writes, reply) => {
                    self.requests.push((writes, reply));
                    until.get_or_insert_with(|| Instant::now() + limits::NOTE_WAIT);
                }
                Message::Function(name, reply) => self.functions.push((name, reply)),
                Message::Stop => return true,
            }
            if self.outcomes.len() + self.requests.len() >= limits::GROUP {
                return false;
            }
        }
    }

    fn commit(&mut self, pipeline: &Pipeline, store: &mut Store) -> Result<Committed, Abandoned> {
        if let Some(error) = self.abandoned.take() {
            return Err(error);
        }
        for (name, reply) in self.functions.drain(..) {
            let _ = reply.send(store.function(&name)?);
        }
        // What belongs to a generation that was thrown away must not be written: its lane began anew from the store.
        self.outcomes.retain(|finished| finished.run.as_ref().is_none_or(|(lane, _)| pipeline.is_current(*lane)));
        let inlet = store.function(INLET)?;
        let mut writes: Vec<Write> = self.outcomes.iter_mut().map(|finished| finished.write(inlet)).collect();
        for (request, _) in &self.requests {
            writes.extend_from_slice(request);
        }
        Ok(store.commit(&writes)?)
    }

    fn settle(&mut self, pipeline: &Pipeline, wakers: &Wakers, committed: &Committed) {
        // Before what was reserved for contents is given back.
        pipeline.blobs.committed(committed.blob_bytes);
        let counters = &pipeline.counters;
        let mut lanes = BTreeMap::new();
        for finished in self.outcomes.drain(..) {
            if let Some((lane, _)) = finished.run {
                *lanes.entry(lane).or_insert(0) += 1;
            }
            match finished.ended {
                Ended::Done { .. } => counters.handled.add(1),
                Ended::Duplicate => counters.duplicates.add(1),
                Ended::Dead(_) => counters.dead.add(1),
                Ended::Retry { .. } => counters.retried.add(1),
            }
            if finished.event.committed() {
                counters.committed.add(1);
            }
        }
        if !lanes.is_empty() {
            pipeline.settle(&lanes);
        }
        for (_, reply) in self.requests.drain(..) {
            let _ = reply.send(*committed);
        }
        wakers.records.notify_one();
        wakers
            .publishes
            .send_if_modified(|highest| std::mem::replace(highest, committed.publishes) != committed.publishes);
        if committed.messages > 0 {
            wakers.messages.notify_one();
            wakers.requests.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTE: Write = Write::Published { up_to: 1 };

    #[test]
    fn a_note_is_written_with_others_or_after_a_while() {
        let (sender, receiver) = channel();
        let gathered = |wait| {
            let (mut group, began) = (Group::default(), Instant::now());
            assert!(!group.gather(&receiver.0, wait));
            (group.requests.len(), began.elapsed() >= limits::NOTE_WAIT)
        };
        // Whatever comes first, and however long this takes: they share a commit.
        drop((sender.note(vec![NOTE]), sender.write(Vec::new())));
        assert_eq!(gathered(true).0, 2);
        drop((sender.write(Vec::new()), sender.note(vec![NOTE])));
        assert_eq!(gathered(true).0, 2);
        drop((sender.note(vec![NOTE]), sender.note(vec![NOTE])));
        assert_eq!(gathered(true), (2, true));
        // The store has something to do, and waits for nobody.
        assert_eq!(gathered(false).0, 0);
        drop(sender.note(vec![NOTE]));
        assert_eq!(gathered(false).0, 1);
    }
}
