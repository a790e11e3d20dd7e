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

/// Most requests that are on their way at once: one is stored there, and the next one is read here meanwhile, and sent.
pub const WINDOW: usize = 2;

/// Entries, and bytes of them, that are deleted in one commit. That takes some 2 ms, for which others wait.
const PART_ENTRIES: usize = MAX_ENTRIES / 4;
const PART_BYTES: u64 = MAX_RANGE_BYTES as u64 / 4;

/// On a link that takes longer to answer, one request is on its way at a time: what is urgent waits for all that are.
const QUICK: Duration = Duration::from_secs(1);

/// What a gateway delivers, and how.
#[derive(Debug)]
pub struct Delivery {
    epoch: StoreEpoch,
    turns: Turns,
    rate: Option<Rate>,
    size: RequestSize,
    // The turn before told what is gone.
    told_gone: bool,
    // The last answer did not take long.
    quick: bool,
    ahead: Option<Ahead>,
    // By `Class::number`: the highest sequence that anything was sent with. An answer may be given after a later request was
    // stored.
    given: [u64; 2],
}

/// What is on its way.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    lane: Lane,
    // The last sequence of it.
    last: u64,
    // The last request of it had about as much as it may.
    full: bool,
    requests: usize,
}

/// Requests that are on their way at the same time are of one lane, so that no record is in two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    // What is gone, or lost: one at a time.
    Told,
    High,
    Backlog,
    Live,
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
    /// First something that is on its way must be answered.
    Wait,
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

/// A request to be sent.
#[derive(Debug)]
pub struct Sending {
    /// The request.
    pub request: Request,
    /// What is to be remembered of it until it is answered.
    pub flight: Flight,
}

/// A request on its way.
#[derive(Debug)]
pub struct Flight {
    // What the answer is held against.
    sent: Sent,
    class: Class,
    size: u64,
    then: Then,
}

#[derive(Debug)]
enum Then {
    // In parts, see `PART_ENTRIES`.
    Delivered { parts: Vec<Vec<(u64, u64)>>, records: u64, live: Option<u64> },
    Told { id: u64 },
}

/// What an answer allows.
#[derive(Debug)]
pub struct Confirmed {
    /// To be committed, in this order and each by itself: what else is to be committed need not wait for all of it.
    pub writes: Vec<Write>,
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
            quick: false,
            ahead: None,
            given: [0; 2],
        }
    }

    /// How long to wait before the next step. `now_us` is of a clock that never goes back.
    pub fn wait(&self, now_us: u64) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| rate.wait(now_us))
    }

    /// What to do next. While something is on its way, it is more of the same or [`Step::Wait`].
    ///
    /// # Errors
    /// The store cannot be read, or is damaged beyond one record.
    pub fn next(&mut self, reader: &mut Reader, allowed: Allowed) -> Result<Step, StoreError> {
        if let Some(ahead) = self.ahead {
            if ahead.requests >= self.window() || !ahead.full || ahead.lane == Lane::Told || allowed != Allowed::All {
                return Ok(Step::Wait);
            }
            return Ok(match self.choose(reader, allowed) {
                Ok(step @ Step::Send(_)) => step,
                // Looked at when nothing is on its way any more.
                _ => Step::Wait,
            });
        }
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

    fn window(&self) -> usize {
        if self.quick && self.rate.is_none() { WINDOW } else { 1 }
    }

    fn choose(&mut self, reader: &mut Reader, allowed: Allowed) -> Result<Step, StoreError> {
        // What was lost with a store that this one took the place of belongs to that one's epoch.
        if let Some(lost) = reader.untold()? {
            let tally =
                vec![Tally { stream: String::new(), reason: Reason::Damaged, count: lost.last - lost.first + 1 }];
            let range = Range { first: lost.first, entries: vec![Entry::Gone(Gone { tally })] };
            // Nothing is said of what lies below it.
            let request = Request::new(lost.epoch, lost.class, 1, vec![range]);
            return Ok(self.send(Lane::Told, request, u64::MAX, Then::Told { id: lost.id }));
        }
        let outbox = reader.outbox()?;
        // First what is gone; but a run that grows is never told to its end, so every other turn is that of the records.
        if !std::mem::take(&mut self.told_gone) {
            for class in Class::ALL {
                let gone = reader.gone(class, 0, limits::RANGES)?;
                if !gone.is_empty() {
                    self.told_gone = self.ahead.is_none();
                    return Ok(self.deliver(Lane::Told, class, outbox.class(class), gone));
                }
            }
        }
        let mut turns = self.turns.clone();
        let (lane, class, after) = match turns.next(outbox.class(Class::High), outbox.class(Class::Normal)) {
            None => return Ok(Step::Idle),
            Some(Next::High) => (Lane::High, Class::High, 0),
            Some(_) if allowed == Allowed::Urgent => return Ok(Step::OverBudget),
            Some(Next::Backlog) => (Lane::Backlog, Class::Normal, 0),
            Some(Next::Live { after }) => (Lane::Live, Class::Normal, after),
        };
        let paced = self.rate.map_or(u64::MAX, |rate| rate.request_bytes().max(RequestSize::LEAST));
        let bytes = usize::try_from(paced.min(self.size.bytes())).unwrap_or(usize::MAX);
        // From the mark on, and not from the first row that is there: a row that should be there is to be noticed.
        let after = match self.ahead {
            Some(ahead) if ahead.lane != lane => return Ok(Step::Wait),
            Some(ahead) => ahead.last.max(after),
            None => after,
        };
        let ranges = reader.ranges(class, after, limits::RANGES, MAX_ENTRIES, bytes)?;
        if ranges.is_empty() && self.ahead.is_some() {
            return Ok(Step::Wait);
        }
        self.turns = turns;
        if ranges.is_empty() && lane == Lane::Live {
            // What came since the backlog was noticed is settled or gone already.
            self.turns.delivered_live(outbox.class(class).next - 1);
            let ranges = reader.ranges(class, 0, limits::RANGES, MAX_ENTRIES, bytes)?;
            return Ok(self.deliver(Lane::Backlog, class, outbox.class(class), ranges));
        }
        Ok(self.deliver(lane, class, outbox.class(class), ranges))
    }

    fn deliver(&mut self, lane: Lane, class: Class, waiting: Waiting, ranges: Vec<Range>) -> Step {
        let Some(last) = ranges.last().and_then(Range::last) else { return Step::Idle };
        let entries = ranges.iter().flat_map(|range| &range.entries);
        let records = entries.filter(|entry| matches!(entry, Entry::Record(_))).count() as u64;
        let live = (lane == Lane::Live).then_some(last);
        let parts = parts(&ranges);
        // Records that came after the look at what waits may be among those that were read.
        let given = last.max(waiting.next - 1);
        let highest = &mut self.given[usize::from(class.number())];
        *highest = given.max(*highest);
        let request = Request::new(self.epoch, class, waiting.first, ranges);
        self.send(lane, request, given, Then::Delivered { parts, records, live })
    }

    fn send(&mut self, lane: Lane, request: Request, given: u64, then: Then) -> Step {
        let requests = match self.ahead {
            Some(ahead) if ahead.lane != lane => return Step::Wait,
            ahead => 1 + ahead.map_or(0, |ahead| ahead.requests),
        };
        let entries = || request.ranges.iter().flat_map(|range| &range.entries);
        let size = entries().map(size).sum();
        let full = entries().count() >= MAX_ENTRIES / 2 || size >= self.size.bytes() / 2;
        let last = request.ranges.last().and_then(Range::last).unwrap_or(0);
        self.ahead = Some(Ahead { lane, last, full, requests });
        let Request { epoch, class, floor, checksum, .. } = request;
        let sent = Sent { epoch: epoch.0, class: class.number(), checksum, floor, given };
        Step::Send(Box::new(Sending { request, flight: Flight { sent, class, size, then } }))
    }

    /// An answer came: after this time, with so many bytes on the link for both.
    ///
    /// # Errors
    /// It contradicts what is known. Nothing may be deleted.
    pub fn answered(
        &mut self,
        flight: Flight,
        reply: &Reply,
        now_us: u64,
        took: Duration,
        bytes: u64,
    ) -> Result<Confirmed, Alarm> {
        let Flight { mut sent, class, size, then } = flight;
        sent.given = sent.given.max(self.given[usize::from(class.number())]);
        self.landed();
        self.quick = took < QUICK;
        self.size.answered(size, took);
        if let Some(rate) = &mut self.rate {
            rate.spent(now_us, bytes);
        }
        let answer = Answer {
            epoch: reply.epoch.0,
            class: reply.class.number(),
            checksum: reply.checksum,
            high_water: reply.high_water,
        };
        confirms(sent, answer)?;
        Ok(match then {
            Then::Told { id } => Confirmed { writes: vec![Write::Told { id }], records: 0 },
            Then::Delivered { parts, records, live } => {
                if let Some(last) = live {
                    self.turns.delivered_live(last);
                }
                let writes = parts.into_iter().map(|ranges| Write::Delivered { class, ranges }).collect();
                Confirmed { writes, records }
            }
        })
    }

    /// No answer came.
    pub fn failed(&mut self) {
        self.landed();
        self.quick = false;
        self.size.failed();
    }

    /// Nothing is on its way any more, whatever was: no answer to it counts.
    pub fn gave_up(&mut self) {
        self.ahead = None;
    }

    fn landed(&mut self) {
        self.ahead = self.ahead.and_then(|ahead| {
            let requests = ahead.requests - 1;
            (requests > 0).then_some(Ahead { requests, ..ahead })
        });
    }
}

// The sequences of these ranges, first to last, in parts that are small enough to be deleted in one breath.
fn parts(ranges: &[Range]) -> Vec<Vec<(u64, u64)>> {
    let (mut parts, mut part, mut entries, mut bytes) = (Vec::new(), Vec::new(), 0, 0);
    for range in ranges {
        let (mut first, mut next) = (range.first, range.first);
        for entry in &range.entries {
            if entries >= PART_ENTRIES || bytes >= PART_BYTES {
                if next > first {
                    part.push((first, next - 1));
                }
                parts.push(std::mem::take(&mut part));
                (first, entries, bytes) = (next, 0, 0);
            }
            // What was read from the store has an end.
            next += entry.count().unwrap_or(0);
            entries += 1;
            bytes += size(entry);
        }
        if next > first {
            part.push((first, next - 1));
        }
    }
    parts.push(part);
    parts
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

#[cfg(test)]
mod tests {
    use sync_protocol::records::{Origin, Record, Stamp};

    use super::*;

    fn record(bytes: usize) -> Entry {
        Entry::Record(Record {
            stream: String::new(),
            function: String::new(),
            origin: Origin { device: String::new(), topic: String::new(), identity: None },
            stamp: Stamp { wall_us: 0, monotonic_us: 0, boot: 0, synchronised: false },
            body: vec![0; bytes],
        })
    }

    fn gone(count: u64) -> Entry {
        Entry::Gone(Gone { tally: vec![Tally { stream: String::new(), reason: Reason::Expired, count }] })
    }

    #[test]
    fn what_was_delivered_is_deleted_in_parts_that_together_are_all_of_it() {
        let small = |count| vec![record(1); count];
        let one = [Range { first: 5, entries: small(3) }];
        assert_eq!(parts(&one), [vec![(5, 7)]]);
        // By their number, within a range and from one to the next.
        let many = [
            Range { first: 1, entries: small(PART_ENTRIES - 1) },
            Range { first: 9_001, entries: small(PART_ENTRIES) },
        ];
        let last = PART_ENTRIES as u64 - 1;
        assert_eq!(parts(&many), [vec![(1, last), (9_001, 9_001)], vec![(9_002, 9_000 + last + 1)]]);
        // Where a part ends with a range.
        let even = [Range { first: 1, entries: small(PART_ENTRIES) }, Range { first: 9_001, entries: small(1) }];
        assert_eq!(parts(&even), [vec![(1, last + 1)], vec![(9_001, 9_001)]]);
        // By their bytes, and a run of what is gone is one entry.
        let large = PART_BYTES as usize;
        let mixed = [Range { first: 1, entries: vec![record(large), gone(1 << 40), record(large), record(1)] }];
        assert_eq!(parts(&mixed), [vec![(1, 1)], vec![(2, (1 << 40) + 2)], vec![((1 << 40) + 3, (1 << 40) + 3)]]);
    }
}
