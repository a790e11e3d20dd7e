//! What is sent to the control plane, and what its answers change: without a socket, a clock or a task, so that it can be
//! tried against any link in any order of things.

use std::time::Duration;

use agent_core::pace::{Rate, RequestSize};
use agent_core::uplink::{Alarm, Answer, Next, Sent, Turns, Waiting, confirms};
use agent_store::{Damage, Reader, StoreError, Write};
use sync_protocol::records::{
    Class, Entry, Gone, MAX_ENTRIES, MAX_RANGE_BYTES, Range, Reason, Reply, Request, StoreEpoch, Tally,
};

use crate::limits;

/// What a gateway delivers, and how.
#[derive(Debug)]
pub struct Delivery {
    epoch: StoreEpoch,
    turns: Turns,
    rate: Option<Rate>,
    size: RequestSize,
    // The turn before told what is gone.
    told_gone: bool,
}

/// What may go, by the month's budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Everything.
    All,
    /// What is gone, and records of high priority.
    Urgent,
    /// Nothing.
    Nothing,
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Send this, and call [`Delivery::answered`] or [`Delivery::failed`]. Until then nothing else may change what waits.
    Send(Box<Sending>),
    /// What could not be read must not hold up what can: commit this, and go on.
    PassOver {
        /// To be committed.
        write: Box<Write>,
        /// What was found; an alarm.
        damage: StoreError,
    },
    /// Nothing waits.
    Idle,
    /// What waits is not allowed now.
    OverBudget,
}

/// A request on its way.
#[derive(Debug)]
pub struct Sending {
    /// The request.
    pub request: Request,
    // What the answer is held against.
    given: u64,
    size: u64,
    then: Then,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    Delivered { records: u64, live: Option<u64> },
    Told { id: u64 },
}

/// What an answer allows.
#[derive(Debug)]
pub struct Confirmed {
    /// To be committed.
    pub write: Write,
    /// How many records it confirms.
    pub records: u64,
}

impl Delivery {
    /// From a store of this epoch, at no more than so many bytes in a second.
    pub fn new(epoch: StoreEpoch, bytes_per_second: Option<u64>) -> Self {
        Self {
            epoch,
            turns: Turns::default(),
            rate: bytes_per_second.map(Rate::new),
            size: RequestSize::new(MAX_RANGE_BYTES as u64),
            told_gone: false,
        }
    }

    /// How long to wait before the next step. `now_us` is of a clock that never goes back.
    pub fn wait(&self, now_us: u64) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| rate.wait(now_us))
    }

    /// What to do next.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged beyond one record.
    pub fn next(&mut self, reader: &mut Reader, allowed: Allowed) -> Result<Step, StoreError> {
        if allowed == Allowed::Nothing {
            return Ok(Step::OverBudget);
        }
        match self.choose(reader, allowed) {
            Err(error) => match error.damage() {
                Some(Damage::Record { class, sequence, .. }) => Ok(pass_over(*class, *sequence, *sequence, error)),
                Some(Damage::MissingRecords { class, first, last }) => Ok(pass_over(*class, *first, *last, error)),
                _ => Err(error),
            },
            step => step,
        }
    }

    fn choose(&mut self, reader: &mut Reader, allowed: Allowed) -> Result<Step, StoreError> {
        // What was lost with a store that this one took the place of belongs to that one's epoch.
        if let Some(lost) = reader.untold()? {
            let tally =
                vec![Tally { stream: String::new(), reason: Reason::Damaged, count: lost.last - lost.first + 1 }];
            let range = Range { first: lost.first, entries: vec![Entry::Gone(Gone { tally })] };
            // Nothing is said of what lies below it.
            let request = Request::new(lost.epoch, lost.class, 1, vec![range]);
            return Ok(Step::Send(Box::new(Sending {
                request,
                given: u64::MAX,
                size: 0,
                then: Then::Told { id: lost.id },
            })));
        }
        let outbox = reader.outbox()?;
        // First what is gone; but a run that grows is never told to its end, so every other turn is that of the records.
        if !std::mem::take(&mut self.told_gone) {
            for class in Class::ALL {
                let gone = reader.gone(class, 0, limits::RANGES)?;
                if !gone.is_empty() {
                    self.told_gone = true;
                    return Ok(self.send(class, outbox.class(class), gone, None));
                }
            }
        }
        let (class, after) = match self.turns.next(outbox.class(Class::High), outbox.class(Class::Normal)) {
            None => return Ok(Step::Idle),
            Some(Next::High) => (Class::High, None),
            Some(_) if allowed == Allowed::Urgent => return Ok(Step::OverBudget),
            Some(Next::Backlog) => (Class::Normal, None),
            Some(Next::Live { after }) => (Class::Normal, Some(after)),
        };
        let paced = self.rate.map_or(u64::MAX, |rate| rate.request_bytes().max(RequestSize::LEAST));
        let bytes = usize::try_from(paced.min(self.size.bytes())).unwrap_or(usize::MAX);
        // From the mark on, and not from the first row that is there: a row that should be there is to be noticed.
        let mut live = after;
        let mut ranges = reader.ranges(class, after.unwrap_or(0), limits::RANGES, MAX_ENTRIES, bytes)?;
        if live.is_some() && ranges.is_empty() {
            // What came since the backlog was noticed is settled or gone already.
            self.turns.delivered_live(outbox.class(class).next - 1);
            live = None;
            ranges = reader.ranges(class, 0, limits::RANGES, MAX_ENTRIES, bytes)?;
        }
        Ok(match ranges.last().and_then(Range::last) {
            Some(last) => self.send(class, outbox.class(class), ranges, live.map(|_| last)),
            None => Step::Idle,
        })
    }

    fn send(&self, class: Class, waiting: Waiting, ranges: Vec<Range>, live: Option<u64>) -> Step {
        let entries = || ranges.iter().flat_map(|range| &range.entries);
        let records = entries().filter(|entry| matches!(entry, Entry::Record(_))).count() as u64;
        let size = entries().map(size).sum();
        // Records that came after the look at what waits may be among those that were read.
        let given = ranges.last().and_then(Range::last).unwrap_or(0).max(waiting.next - 1);
        let request = Request::new(self.epoch, class, waiting.first, ranges);
        let then = Then::Delivered { records, live };
        Step::Send(Box::new(Sending { request, given, size, then }))
    }

    /// An answer came: after this time, with so many bytes on the link for both.
    ///
    /// # Errors
    /// It contradicts what is known. Nothing may be deleted.
    pub fn answered(
        &mut self,
        sending: Sending,
        reply: &Reply,
        now_us: u64,
        took: Duration,
        bytes: u64,
    ) -> Result<Confirmed, Alarm> {
        self.size.answered(sending.size, took);
        if let Some(rate) = &mut self.rate {
            rate.spent(now_us, bytes);
        }
        let Sending { request, given, then, .. } = sending;
        let Request { epoch, class, floor, checksum, ranges } = request;
        let sent = Sent { epoch: epoch.0, class: class.number(), checksum, floor, given };
        let answer = Answer {
            epoch: reply.epoch.0,
            class: reply.class.number(),
            checksum: reply.checksum,
            high_water: reply.high_water,
        };
        confirms(sent, answer)?;
        Ok(match then {
            Then::Told { id } => Confirmed { write: Write::Told { id }, records: 0 },
            Then::Delivered { records, live } => {
                if let Some(last) = live {
                    self.turns.delivered_live(last);
                }
                let ranges = ranges.iter().filter_map(|range| Some((range.first, range.last()?))).collect();
                Confirmed { write: Write::Delivered { class, ranges }, records }
            }
        })
    }

    /// No answer came.
    pub fn failed(&mut self) {
        self.size.failed();
    }
}

fn pass_over(class: Class, first: u64, last: u64, damage: StoreError) -> Step {
    let write = Box::new(Write::Lost { class, first, last, reason: damage.to_string() });
    Step::PassOver { write, damage }
}

// About what an entry takes before it is compressed.
fn size(entry: &Entry) -> u64 {
    match entry {
        Entry::Record(record) => {
            let texts = [&record.stream, &record.function, &record.origin.device, &record.origin.topic];
            (texts.map(String::len).iter().sum::<usize>() + record.body.len() + 64) as u64
        }
        Entry::Gone(gone) => 32 * gone.tally.len() as u64,
    }
}
