//! What becomes of the ranges that a gateway offers.
//!
//! For each (gateway, epoch, class) the control plane knows sequences: each known one is stored, [missing](Here::missing)
//! for good, or [gone](Run) with a reason. The mark ends the known ones that start at 1; what is known above it are
//! islands. What is neither is open: it may still come. [`decide`] keeps that true whatever is offered.

use std::collections::BTreeSet;

use sync_protocol::records::{Entry, Gone, MAX_ENTRIES, MAX_TALLY, Range, Record, Request, Tally};

use crate::spans::{Span, Spans};

/// The highest sequence that is taken: the largest number that SQLite stores.
pub const MAX_SEQUENCE: u64 = i64::MAX as u64;

/// What a gateway offers, checked for making sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer<'a> {
    /// Below it nothing exists on the gateway any more that is not known here. One above what is offered says no more
    /// than the first sequence offered would, since what is offered does exist: so nobody declares missing what he never
    /// had.
    pub floor: u64,
    /// The ranges, in order.
    pub ranges: Vec<Span>,
    /// The records, in order.
    pub records: Vec<(u64, &'a Record)>,
    /// The runs of what is gone, in order.
    pub gone: Vec<(Span, &'a Gone)>,
}

/// Why an offer makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// It brings nothing.
    #[error("the request has no ranges; send one when there is something to tell")]
    Nothing,
    /// More than [`MAX_ENTRIES`].
    #[error("the request has {0} entries; at most {MAX_ENTRIES} are allowed")]
    Entries(usize),
    /// Sequences start at 1.
    #[error("a range starts at sequence 0; sequences start at 1")]
    Zero,
    /// A range brings nothing.
    #[error("the range from sequence {0} has no entries; leave it out")]
    Empty(u64),
    /// Its end is above [`MAX_SEQUENCE`].
    #[error("the range from sequence {0} ends above {MAX_SEQUENCE}, the highest sequence there is")]
    TooHigh(u64),
    /// Not in order.
    #[error("the range from sequence {first} begins before the one in front of it has ended, at {last}")]
    Order {
        /// Its first sequence.
        first: u64,
        /// The last of the one in front.
        last: u64,
    },
    /// A tally of more than [`MAX_TALLY`] entries.
    #[error("the tally of what is gone from sequence {first} has {count} entries; at most {MAX_TALLY} are allowed")]
    Tally {
        /// The run's first sequence.
        first: u64,
        /// How many entries.
        count: usize,
    },
    /// A tally that counts nothing.
    #[error("the tally of what is gone from sequence {0} is empty or has an entry of 0 records")]
    NoCount(u64),
    /// A tally that counts something twice.
    #[error("the tally of what is gone from sequence {0} has a pair of stream and reason twice")]
    Twice(u64),
}

impl<'a> Offer<'a> {
    /// What a request offers. Its checksum is not looked at.
    ///
    /// # Errors
    /// The request does not keep to the protocol.
    pub fn new(request: &'a Request) -> Result<Self, OfferError> {
        let entries = request.ranges.iter().fold(0_usize, |sum, range| sum.saturating_add(range.entries.len()));
        if entries > MAX_ENTRIES {
            return Err(OfferError::Entries(entries));
        }
        let first = request.ranges.first().ok_or(OfferError::Nothing)?.first;
        let floor = request.floor.min(first);
        let mut offer = Self { floor, ranges: Vec::new(), records: Vec::new(), gone: Vec::new() };
        for range in &request.ranges {
            offer.add(range)?;
        }
        Ok(offer)
    }

    fn add(&mut self, range: &'a Range) -> Result<(), OfferError> {
        let first = range.first;
        if first == 0 {
            return Err(OfferError::Zero);
        }
        if range.entries.is_empty() {
            return Err(OfferError::Empty(first));
        }
        if let Some(before) = self.ranges.last().filter(|before| before.last >= first) {
            return Err(OfferError::Order { first, last: before.last });
        }
        let mut next = first;
        for entry in &range.entries {
            if let Entry::Gone(gone) = entry {
                check(next, gone)?;
            }
            let last = entry.count().and_then(|count| next.checked_add(count.checked_sub(1)?));
            let last = last.filter(|last| *last <= MAX_SEQUENCE).ok_or(OfferError::TooHigh(first))?;
            match entry {
                Entry::Record(record) => self.records.push((next, record)),
                Entry::Gone(gone) => self.gone.push((Span { first: next, last }, gone)),
            }
            next = last + 1;
        }
        self.ranges.push(Span { first, last: next - 1 });
        Ok(())
    }
}

fn check(first: u64, gone: &Gone) -> Result<(), OfferError> {
    let count = gone.tally.len();
    if count > MAX_TALLY {
        return Err(OfferError::Tally { first, count });
    }
    if count == 0 || gone.tally.iter().any(|tally| tally.count == 0) {
        return Err(OfferError::NoCount(first));
    }
    let pairs: BTreeSet<_> = gone.tally.iter().map(|tally| (&tally.stream, tally.reason)).collect();
    if pairs.len() < count { Err(OfferError::Twice(first)) } else { Ok(()) }
}

/// Sequences that a gateway told as gone together. Where records were stored under some of them, it is in pieces; what
/// lies between two pieces is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The sequences; some.
    pub pieces: Spans,
    /// What they were: as many as there are.
    pub tally: Vec<Tally>,
}

impl Run {
    /// From the first piece to the last.
    fn extent(&self) -> Option<Span> {
        Some(Span { first: self.pieces.first()?.first, last: self.pieces.last()?.last })
    }
}

/// What is known here of one (gateway, epoch, class), as far as an offer concerns it; more does no harm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// The mark.
    pub mark: u64,
    /// Islands that begin at or below the offer's floor, and those that overlap or touch one of its ranges.
    pub islands: Spans,
    /// Whole spans of what is missing: those that overlap the offer's ranges, and the one that ends at the mark, which
    /// may grow.
    pub missing: Spans,
    /// The runs of which pieces lie in the offer's ranges, in order.
    pub gone: Vec<Run>,
}

/// What to do with an offer. `store`, `duplicates` and `late` together are exactly the records offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Records to be stored: what is new, and what was missing and came after all (a request that was overtaken).
    pub store: Spans,
    /// Records that are stored already: to be compared with what is there, counted, and dropped.
    pub duplicates: Spans,
    /// Records of which the gateway had said that they are gone: counted and dropped.
    pub late: Spans,
    /// The runs offered, in the offer's order.
    pub gone: Vec<NewRun>,
    /// Which of [`Here::gone`] are replaced by these.
    pub replaced: Vec<usize>,
    /// The new mark; never below the old one.
    pub mark: u64,
    /// The islands, in place of [`Here::islands`].
    pub islands: Spans,
    /// What is missing, in place of [`Here::missing`].
    pub missing: Spans,
}

/// A run that is offered, as it can be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRun {
    /// What is gone from now on; nothing if all of it is stored, or if a request was overtaken and a known run holds it.
    pub pieces: Spans,
    /// How many of its sequences are stored here: to be taken from its tally, see [`without`].
    pub stored: u64,
}

/// A run that is offered and one that is known overlap, and each has what the other has not. Gateways let runs only grow,
/// so of two that overlap the later one holds the earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "sequences {} to {} are offered as gone, and {} to {} are known as gone together: a run of what is gone only grows. \
     A store that was restored or copied must begin a new epoch",
    offered.first, offered.last, known.first, known.last
)]
pub struct GoneConflict {
    /// What is offered.
    pub offered: Span,
    /// What is known.
    pub known: Span,
}

/// Decides on an offer.
///
/// # Errors
/// A run that it tells as gone cuts one that is known.
pub fn decide(here: &Here, offer: &Offer<'_>) -> Result<Plan, GoneConflict> {
    let known = Spans::between(1, here.mark).union(&here.islands);
    let gone: Spans = here.gone.iter().flat_map(|run| run.pieces.iter()).collect();
    let stored = known.subtract(&here.missing).subtract(&gone);

    let mut plan = Plan { mark: here.mark, ..Plan::default() };
    for (span, _) in &offer.gone {
        let Some(replaced) = replaced(here, *span)? else {
            plan.gone.push(NewRun { pieces: Spans::new(), stored: 0 });
            continue;
        };
        plan.replaced.extend(replaced);
        let there = stored.within(*span);
        let pieces = Spans::between(span.first, span.last).subtract(&there);
        plan.gone.push(NewRun { pieces, stored: there.count() });
    }

    let records: Spans = offer.records.iter().map(|(sequence, _)| Span::one(*sequence)).collect();
    plan.duplicates = records.intersect(&stored);
    plan.late = records.intersect(&gone);
    plan.store = records.subtract(&plan.duplicates).subtract(&plan.late);

    // `floor` is not above what is offered, so nothing of this is offered too.
    let ended = Spans::between(1, offer.floor.saturating_sub(1));
    let offered: Spans = offer.ranges.iter().copied().collect();
    plan.missing = here.missing.union(&ended.subtract(&known)).subtract(&offered);
    let (low, islands) = known.union(&ended).union(&offered).split_at_first(1);
    plan.mark = low.map_or(here.mark, |low| low.last);
    plan.islands = islands;
    Ok(plan)
}

/// Which known runs an offered one replaces; `None`: one has grown since this was sent, and holds it.
fn replaced(here: &Here, offered: Span) -> Result<Option<Vec<usize>>, GoneConflict> {
    let ends_before = |run: &Run| run.extent().is_none_or(|known| known.last < offered.first);
    let mut found = Vec::new();
    for (at, run) in here.gone.iter().enumerate().skip(here.gone.partition_point(ends_before)) {
        let Some(known) = run.extent().filter(|known| known.first <= offered.last) else { break };
        // Between two of its pieces all is stored, and stays so.
        if run.pieces.within(offered).is_empty() {
            continue;
        }
        if offered.intersect(known) == Some(known) {
            found.push(at);
        } else if offered.intersect(known) == Some(offered) {
            return Ok(None);
        } else {
            return Err(GoneConflict { offered, known });
        }
    }
    Ok(Some(found))
}

/// A tally without the `stored` records that turned out to be stored, of which `streams` says whose they are (as far as
/// that is known): they are taken from their stream, whatever the reason there, and what is left from the largest counts.
pub fn without(tally: &[Tally], stored: u64, streams: &[(String, u64)]) -> Vec<Tally> {
    let (mut tally, mut left) = (tally.to_vec(), stored);
    for (stream, count) in streams {
        let mut of_stream = (*count).min(left);
        for one in tally.iter_mut().filter(|one| one.stream == *stream) {
            let taken = of_stream.min(one.count);
            one.count -= taken;
            of_stream -= taken;
            left -= taken;
        }
    }
    while left > 0 {
        let Some(largest) = tally.iter_mut().max_by_key(|one| one.count).filter(|one| one.count > 0) else { break };
        let taken = left.min(largest.count);
        largest.count -= taken;
        left -= taken;
    }
    tally.retain(|one| one.count > 0);
    tally
}

#[cfg(test)]
mod tests;
