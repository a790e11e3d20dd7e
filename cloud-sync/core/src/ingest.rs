//! What becomes of a range of records that a gateway offers.
//!
//! For each (gateway, epoch, class) the control plane keeps a high-water mark. At and below it every sequence is
//! either stored or recorded as missing; above it there is nothing. [`decide`] keeps that true whatever is offered.

/// The highest sequence that is taken: the largest number that SQLite stores.
pub const MAX_SEQUENCE: u64 = i64::MAX as u64;

/// Sequences from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The lowest.
    pub first: u64,
    /// The highest; not below `first`.
    pub last: u64,
}

impl Span {
    /// `None` if it would be empty.
    fn new(first: u64, last: u64) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// How many sequences it holds; a span that starts at 0 and ends at `u64::MAX` does not occur.
    pub fn count(self) -> u64 {
        self.last - self.first + 1
    }
}

/// A range as a gateway offers it; nothing about it is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Sequence of the first record.
    pub first: u64,
    /// Below it nothing exists on the gateway any more. One above `first` says no more than `first` itself would,
    /// since what is offered does exist.
    pub floor: u64,
    /// How many records it brings.
    pub count: usize,
}

/// Why an offer makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// It brings nothing.
    #[error("the range holds no records; send a range when there is at least one")]
    Empty,
    /// Sequences start at 1.
    #[error("the range starts at sequence 0; sequences start at 1")]
    Zero,
    /// Its end is above [`MAX_SEQUENCE`].
    #[error(
        "the range of {count} records from sequence {first} ends above {MAX_SEQUENCE}, the highest sequence there is"
    )]
    TooHigh {
        /// Its first sequence.
        first: u64,
        /// Its length.
        count: usize,
    },
}

/// What to do with an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It starts beyond the mark, and what lies between still exists on the gateway: store nothing, answer with the
    /// mark as it is, and the gateway sends from there.
    Ahead,
    /// Take it.
    Take(Plan),
}

/// How to take an offer. `store` and `duplicates` together are exactly the sequences offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be stored: what is new, and what was recorded as missing and came after all (a request that was overtaken).
    pub store: Vec<Span>,
    /// Stored already: to be compared with what is there, counted, and dropped.
    pub duplicates: Vec<Span>,
    /// What is missing from now on, in place of the spans that were passed in.
    pub missing: Vec<Span>,
    /// The new mark; never below the old one.
    pub high_water: u64,
}

/// Decides on an offer. `missing` are the recorded missing spans that overlap it, in order; more do no harm.
///
/// # Errors
/// The offer is no range of sequences.
pub fn decide(high_water: u64, missing: &[Span], offer: Offer) -> Result<Decision, OfferError> {
    let Offer { first, floor, count } = offer;
    let more = count.checked_sub(1).ok_or(OfferError::Empty)?;
    if first == 0 {
        return Err(OfferError::Zero);
    }
    let last = u64::try_from(more)
        .ok()
        .and_then(|more| first.checked_add(more))
        .filter(|last| *last <= MAX_SEQUENCE)
        .ok_or(OfferError::TooHigh { first, count })?;

    let mut plan = Plan { high_water: high_water.max(last), ..Plan::default() };

    // At and below the mark: missing sequences are filled, all others are there.
    let known_last = last.min(high_water);
    let mut next = first;
    for span in missing {
        let Some(found) = Span::new(span.first.max(next), span.last.min(known_last)) else {
            plan.missing.push(*span);
            continue;
        };
        plan.duplicates.extend(Span::new(next, found.first - 1));
        plan.store.push(found);
        plan.missing.extend(Span::new(span.first, found.first - 1));
        plan.missing.extend(Span::new(found.last + 1, span.last));
        next = found.last + 1;
    }
    plan.duplicates.extend(Span::new(next, known_last));

    // Above it.
    if last > high_water {
        let wanted = high_water + 1; // both are at most MAX_SEQUENCE
        if first > wanted {
            if floor < first {
                return Ok(Decision::Ahead);
            }
            plan.missing.extend(Span::new(wanted, first - 1));
        }
        plan.store.extend(Span::new(first.max(wanted), last));
    }
    Ok(Decision::Take(plan))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn take(high_water: u64, missing: &[Span], first: u64, floor: u64, count: usize) -> Plan {
        match decide(high_water, missing, Offer { first, floor, count }).unwrap() {
            Decision::Take(plan) => plan,
            Decision::Ahead => panic!("expected to be taken"),
        }
    }

    #[test]
    fn offers_that_are_no_ranges_are_refused() {
        let decide = |first, count| decide(7, &[], Offer { first, floor: 1, count });
        assert_eq!(decide(8, 0), Err(OfferError::Empty));
        assert_eq!(decide(0, 1), Err(OfferError::Zero));
        assert!(matches!(decide(u64::MAX, 2), Err(OfferError::TooHigh { .. })));
        assert!(matches!(decide(MAX_SEQUENCE, 2), Err(OfferError::TooHigh { .. })));
        assert!(matches!(decide(1, usize::MAX), Err(OfferError::TooHigh { .. })));
    }

    #[test]
    fn the_last_sequence_can_be_stored_and_sent_again() {
        let plan = take(0, &[], MAX_SEQUENCE, u64::MAX, 1);
        assert_eq!(plan.high_water, MAX_SEQUENCE);
        assert_eq!(plan.missing, [Span { first: 1, last: MAX_SEQUENCE - 1 }]);
        let again = take(MAX_SEQUENCE, &[], MAX_SEQUENCE, 1, 1);
        assert_eq!(again.duplicates, [Span { first: MAX_SEQUENCE, last: MAX_SEQUENCE }]);
        assert_eq!((again.store.len(), again.high_water), (0, MAX_SEQUENCE));
    }

    #[test]
    fn a_gap_waits_for_what_exists_and_records_what_does_not() {
        assert_eq!(decide(4, &[], Offer { first: 7, floor: 5, count: 2 }), Ok(Decision::Ahead));
        assert_eq!(decide(4, &[], Offer { first: 7, floor: 6, count: 2 }), Ok(Decision::Ahead));
        let plan = take(4, &[], 7, 7, 2);
        assert_eq!(plan.missing, [Span { first: 5, last: 6 }]);
        assert_eq!((plan.store, plan.high_water), (vec![Span { first: 7, last: 8 }], 8));
    }

    #[test]
    fn what_was_missing_and_comes_after_all_is_stored() {
        let plan = take(10, &[Span { first: 3, last: 8 }], 2, 1, 4);
        assert_eq!(plan.duplicates, [Span { first: 2, last: 2 }]);
        assert_eq!(plan.store, [Span { first: 3, last: 5 }]);
        assert_eq!(plan.missing, [Span { first: 6, last: 8 }]);
        assert_eq!(plan.high_water, 10);
    }

    /// The control plane's store as sets of sequences, driven by the plans.
    #[derive(Default)]
    struct Store {
        stored: BTreeSet<u64>,
        missing: Vec<Span>,
        high_water: u64,
    }

    impl Store {
        fn offer(&mut self, offer: Offer) -> Result<Decision, OfferError> {
            let (first, last) = (offer.first, offer.first.saturating_add(offer.count as u64));
            let (near, far): (Vec<_>, Vec<_>) =
                self.missing.iter().partition(|span| span.first <= last && span.last >= first);
            let decision = decide(self.high_water, &near, offer);
            if let Ok(Decision::Take(plan)) = &decision {
                for sequence in plan.store.iter().flat_map(|span| span.first..=span.last) {
                    assert!(self.stored.insert(sequence), "{sequence} stored twice");
                }
                for sequence in plan.duplicates.iter().flat_map(|span| span.first..=span.last) {
                    assert!(self.stored.contains(&sequence), "{sequence} taken for a duplicate");
                }
                let offered: u64 = plan.store.iter().chain(&plan.duplicates).map(|span| span.count()).sum();
                assert_eq!(offered, offer.count as u64, "every record offered is either stored or a duplicate");
                assert!(plan.high_water >= self.high_water);
                self.missing = far;
                self.missing.extend(&plan.missing);
                self.missing.sort_by_key(|span| span.first);
                self.high_water = plan.high_water;
            }
            self.is_whole();
            decision
        }

        fn lost(&self) -> BTreeSet<u64> {
            self.missing.iter().flat_map(|span| span.first..=span.last).collect()
        }

        /// Up to the mark each sequence is exactly once stored or missing; above it there is nothing.
        fn is_whole(&self) {
            let mut all: Vec<u64> = self.missing.iter().flat_map(|span| span.first..=span.last).collect();
            all.extend(&self.stored);
            all.sort_unstable();
            assert!(all.iter().copied().eq(1..=self.high_water), "{all:?} is not 1..={}", self.high_water);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Produce(u64),
        Evict(u64),
        Send { skip: u64, count: usize },
        Deliver { which: usize, answer_arrives: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..6_u64).prop_map(Step::Produce),
            (1..4_u64).prop_map(Step::Evict),
            (0..4_u64, 1..6_usize).prop_map(|(skip, count)| Step::Send { skip, count }),
            (any::<usize>(), any::<bool>()).prop_map(|(which, answer_arrives)| Step::Deliver { which, answer_arrives }),
        ]
    }

    proptest! {
        #[test]
        fn anything_offered_leaves_the_store_whole(
            offers in prop::collection::vec((0..40_u64, 0..45_u64, 0..12_usize), 1..40),
        ) {
            let mut store = Store::default();
            for (first, floor, count) in offers {
                let (mark, lost) = (store.high_water, store.lost());
                match store.offer(Offer { first, floor, count }) {
                    Ok(Decision::Take(_)) => {
                        let new: BTreeSet<u64> = store.lost().difference(&lost).copied().collect();
                        prop_assert!(new.iter().all(|sequence| (mark + 1..floor).contains(sequence)));
                    }
                    Ok(Decision::Ahead) => prop_assert!(first > mark + 1 && floor < first && store.high_water == mark),
                    Err(_) => prop_assert!(first == 0 || count == 0),
                }
            }
        }

        /// A gateway that drops what it must, on a link that loses, doubles and reorders.
        #[test]
        fn nothing_is_lost_but_what_the_gateway_dropped(steps in prop::collection::vec(step(), 1..80)) {
            let (mut store, mut flight) = (Store::default(), Vec::new());
            let (mut low, mut end, mut dropped) = (1_u64, 1_u64, BTreeSet::new());
            for step in steps {
                match step {
                    Step::Produce(count) => end += count,
                    Step::Evict(count) => {
                        let to = end.min(low + count);
                        dropped.extend(low..to);
                        low = to;
                    }
                    Step::Send { skip, count } => {
                        let first = low + skip;
                        let count = count.min(usize::try_from(end.saturating_sub(first)).unwrap());
                        if count > 0 {
                            flight.push(Offer { first, floor: low, count });
                        }
                    }
                    // Delivered by copy: it stays in flight and may come again.
                    Step::Deliver { which, answer_arrives } => {
                        if let Some(offer) = (!flight.is_empty()).then(|| flight[which % flight.len()]) {
                            store.offer(offer).unwrap();
                            if answer_arrives {
                                low = low.max(store.high_water + 1);
                            }
                        }
                    }
                }
            }
            if low < end {
                let rest = Offer { first: low, floor: low, count: usize::try_from(end - low).unwrap() };
                prop_assert!(matches!(store.offer(rest), Ok(Decision::Take(_))));
                prop_assert_eq!(store.high_water, end - 1);
            }
            prop_assert!(store.lost().is_subset(&dropped));
        }
    }
}
