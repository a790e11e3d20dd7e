use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use sync_protocol::records::{Class, Origin, Reason, Stamp, StoreEpoch};

use super::*;

/// What lies one after the other in a range.
#[derive(Clone, Copy, Debug)]
enum Piece {
    Records(u64),
    Gone(u64),
}

use Piece::{Gone as G, Records as R};

fn record() -> Record {
    Record {
        stream: "s".into(),
        function: "f".into(),
        origin: Origin { device: "d".into(), topic: "t".into(), identity: None },
        stamp: Stamp { wall_us: 1, monotonic_us: 1, boot: 1, synchronised: true },
        body: vec![],
    }
}

fn tally(stream: &str, reason: Reason, count: u64) -> Tally {
    Tally { stream: stream.into(), reason, count }
}

fn range(first: u64, pieces: &[Piece]) -> Range {
    let entries = pieces.iter().flat_map(|piece| match piece {
        R(count) => (0..*count).map(|_| Entry::Record(record())).collect(),
        G(count) => vec![Entry::Gone(Gone { tally: vec![tally("s", Reason::Oldest, *count)] })],
    });
    Range { first, entries: entries.collect() }
}

fn request(floor: u64, ranges: Vec<Range>) -> Request {
    Request::new(StoreEpoch(1), Class::Normal, floor, ranges)
}

fn refused(ranges: Vec<Range>) -> OfferError {
    Offer::new(&request(1, ranges)).unwrap_err()
}

#[test]
fn offers_that_make_no_sense_are_refused() {
    let gone = |tally| refused(vec![Range { first: 3, entries: vec![Entry::Gone(Gone { tally })] }]);
    assert_eq!(refused(vec![]), OfferError::Nothing);
    assert_eq!(refused(vec![range(3, &[])]), OfferError::Empty(3));
    assert_eq!(refused(vec![range(0, &[R(1)])]), OfferError::Zero);
    assert_eq!(refused(vec![range(1, &[R(4_000)]), range(5_000, &[R(97)])]), OfferError::Entries(4_097));
    assert_eq!(refused(vec![range(u64::MAX, &[R(2)])]), OfferError::TooHigh(u64::MAX));
    assert_eq!(refused(vec![range(MAX_SEQUENCE, &[R(2)])]), OfferError::TooHigh(MAX_SEQUENCE));
    assert_eq!(refused(vec![range(2, &[G(MAX_SEQUENCE)])]), OfferError::TooHigh(2));
    assert_eq!(refused(vec![range(1, &[G(u64::MAX), R(1)])]), OfferError::TooHigh(1));
    assert_eq!(
        gone(vec![tally("a", Reason::Oldest, u64::MAX), tally("b", Reason::Oldest, 1)]),
        OfferError::TooHigh(3),
        "a sum that 64 bits do not hold"
    );
    for second in [1, 4, 5] {
        let ranges = vec![range(4, &[G(2)]), range(second, &[R(1)])];
        assert_eq!(refused(ranges), OfferError::Order { first: second, last: 5 });
    }
    assert_eq!(gone(vec![]), OfferError::NoCount(3));
    assert_eq!(gone(vec![tally("a", Reason::Oldest, 1), tally("b", Reason::Oldest, 0)]), OfferError::NoCount(3));
    let many: Vec<_> = (0..=MAX_TALLY).map(|n| tally(&n.to_string(), Reason::Oldest, 1)).collect();
    assert_eq!(gone(many), OfferError::Tally { first: 3, count: MAX_TALLY + 1 });
    assert_eq!(gone(vec![tally("a", Reason::Oldest, 1), tally("a", Reason::Oldest, 2)]), OfferError::Twice(3));
    let fine = request(9, vec![range(4, &[R(1), G(2)]), range(7, &[R(1)])]);
    let offer = Offer::new(&fine).unwrap();
    assert_eq!(offer.floor, 4, "what is offered is not below the floor");
    assert_eq!(offer.ranges, [Span { first: 4, last: 6 }, Span::one(7)]);
    assert_eq!(offer.records.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), [4, 7]);
    assert_eq!(offer.gone[0].0, Span { first: 5, last: 6 });
}

#[test]
fn the_last_sequence_can_be_stored_and_sent_again() {
    let mut store = Store::default();
    let last = request(u64::MAX, vec![range(MAX_SEQUENCE, &[R(1)])]);
    store.offer(&last).unwrap();
    assert_eq!(store.mark, MAX_SEQUENCE);
    assert_eq!(store.missing, Spans::between(1, MAX_SEQUENCE - 1));
    let again = store.offer(&last).unwrap();
    assert_eq!(again.duplicates, Spans::between(MAX_SEQUENCE, MAX_SEQUENCE));
    // All of it gone at once, the stored one left out.
    let plan = store.offer(&request(1, vec![range(1, &[G(MAX_SEQUENCE)])])).unwrap();
    assert_eq!(plan.gone, [NewRun { pieces: Spans::between(1, MAX_SEQUENCE - 1), stored: 1 }]);
    assert!(store.missing.is_empty());
}

#[test]
fn a_run_that_was_overtaken_by_what_it_grew_to_changes_nothing() {
    let mut store = Store::default();
    let sent = |first, count| request(1, vec![range(first, &[G(count)])]);
    store.offer(&sent(4, 6)).unwrap();
    let known = store.gone.clone();
    for (first, count) in [(4, 2), (5, 3), (7, 3), (9, 1)] {
        store.offer(&sent(first, count)).unwrap();
        assert_eq!(store.gone, known);
    }
    // Neither of these can have grown to the other.
    let conflict = store.offer(&sent(9, 2)).unwrap_err();
    assert_eq!((conflict.offered, conflict.known), (Span { first: 9, last: 10 }, Span { first: 4, last: 9 }));
    assert!(store.offer(&sent(2, 3)).is_err());
}

#[test]
fn what_is_stored_is_taken_from_its_stream_or_from_the_largest() {
    let told = [tally("a", Reason::Oldest, 3), tally("b", Reason::Expired, 9), tally("a", Reason::Thinned, 2)];
    let streams = |list: &[(&str, u64)]| list.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect::<Vec<_>>();
    assert_eq!(without(&told, 0, &[]), told);
    assert_eq!(
        without(&told, 4, &streams(&[("a", 4)])),
        [tally("b", Reason::Expired, 9), tally("a", Reason::Thinned, 1)],
        "whatever the reason"
    );
    assert_eq!(
        without(&told, 8, &streams(&[("c", 2), ("a", 6)])),
        [tally("b", Reason::Expired, 6)],
        "more than there are of that stream, and a stream that was not told"
    );
    assert_eq!(without(&told, 12, &[]), [tally("a", Reason::Thinned, 2)], "nobody knows whose they are");
    assert_eq!(without(&told, 14, &streams(&[("b", 14)])), []);
}

/// The control plane's store, driven by the plans, as the server's is: it passes in only what concerns an offer.
#[derive(Default)]
struct Store {
    mark: u64,
    islands: Spans,
    missing: Spans,
    gone: Vec<Run>,
    stored: Spans,
}

impl Store {
    fn offer(&mut self, request: &Request) -> Result<Plan, GoneConflict> {
        let offer = Offer::new(request).unwrap();
        let touches = |span: &Span| {
            offer.ranges.iter().any(|range| span.first <= range.last.saturating_add(1) && span.last + 1 >= range.first)
        };
        let overlaps = |span: &Span| offer.ranges.iter().any(|range| range.intersect(*span).is_some());
        let here = Here {
            mark: self.mark,
            islands: self.islands.iter().filter(|span| span.first <= offer.floor || touches(span)).collect(),
            missing: self.missing.iter().filter(|span| overlaps(span) || span.last == self.mark).collect(),
            gone: self.gone.iter().filter(|run| run.pieces.iter().any(|span| overlaps(&span))).cloned().collect(),
        };
        let plan = decide(&here, &offer)?;

        assert!(plan.store.intersect(&self.stored).is_empty(), "stored twice");
        assert_eq!(plan.duplicates.subtract(&self.stored), Spans::new(), "taken for a duplicate");
        assert!(plan.mark >= self.mark);
        // They never touch what was not passed in: each span is a row, which is replaced as a whole.
        let islands = self.islands.subtract(&here.islands);
        let missing = self.missing.subtract(&here.missing);
        assert_eq!(islands.union(&plan.islands).iter().count(), islands.iter().count() + plan.islands.iter().count());
        assert_eq!(missing.union(&plan.missing).iter().count(), missing.iter().count() + plan.missing.iter().count());
        self.mark = plan.mark;
        self.islands = self.islands.subtract(&here.islands).union(&plan.islands);
        self.missing = self.missing.subtract(&here.missing).union(&plan.missing);
        for at in &plan.replaced {
            self.gone.retain(|run| *run != here.gone[*at]);
        }
        for ((span, gone), new) in offer.gone.iter().zip(&plan.gone) {
            let holds = |run: &Run| {
                run.extent().unwrap().intersect(*span) == Some(*span) && !run.pieces.within(*span).is_empty()
            };
            let overtaken = self.gone.iter().any(holds);
            assert_eq!(new.pieces.count() + new.stored, if overtaken { 0 } else { span.count() });
            let tally = without(&gone.tally, new.stored, &[]);
            if !new.pieces.is_empty() {
                self.gone.push(Run { pieces: new.pieces.clone(), tally });
            }
        }
        self.gone.sort_by_key(|run| run.pieces.first().unwrap().first);
        self.stored = self.stored.union(&plan.store);
        Ok(plan)
    }

    /// Every known sequence is exactly one of stored, missing and gone.
    fn states(&self) -> BTreeMap<u64, State> {
        let mut all = BTreeMap::new();
        let gone = self.gone.iter().flat_map(|run| run.pieces.iter()).map(|span| (span, State::Gone));
        let kinds = self.stored.iter().map(|span| (span, State::Stored));
        for (span, state) in kinds.chain(self.missing.iter().map(|span| (span, State::Missing))).chain(gone) {
            for sequence in span.first..=span.last {
                assert_eq!(all.insert(sequence, state), None, "{sequence} is two things");
            }
        }
        let known = Spans::between(1, self.mark).union(&self.islands);
        assert_eq!(all.keys().map(|sequence| Span::one(*sequence)).collect::<Spans>(), known);
        assert!(self.islands.first().is_none_or(|island| island.first > self.mark + 1), "the mark is behind");
        for run in &self.gone {
            assert_eq!(run.tally.iter().map(|one| one.count).sum::<u64>(), run.pieces.count());
        }
        all
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Stored,
    Missing,
    Gone,
}

/// The same, sequence by sequence.
#[derive(Default)]
struct Model {
    states: HashMap<u64, State>,
    runs: Vec<BTreeSet<u64>>,
}

impl Model {
    /// How many records are stored, duplicates, and late; `None` if the request is refused.
    fn offer(&mut self, floor: u64, ranges: &[(u64, Vec<Piece>)]) -> Option<(u64, u64, u64)> {
        let (mut records, mut gone) = (vec![], vec![]);
        for (first, pieces) in ranges {
            let mut next = *first;
            for piece in pieces {
                match piece {
                    R(count) => records.extend(next..next + count),
                    G(count) => gone.push((next, next + count - 1)),
                }
                next += match piece {
                    R(count) | G(count) => count,
                };
            }
        }
        let mut overtaken = vec![];
        for (first, last) in &gone {
            for run in &self.runs {
                let cut = run.iter().any(|sequence| (first..=last).contains(&sequence));
                let all = run.first().unwrap() >= first && run.last().unwrap() <= last;
                if cut && !all {
                    let holds = run.first().unwrap() <= first && run.last().unwrap() >= last;
                    overtaken.push(*holds.then_some(first)?);
                }
            }
        }
        gone.retain(|(first, _)| !overtaken.contains(first));
        let mut counts = (0, 0, 0);
        for sequence in records {
            match self.states.get(&sequence) {
                Some(State::Stored) => counts.1 += 1,
                Some(State::Gone) => counts.2 += 1,
                None | Some(State::Missing) => {
                    counts.0 += 1;
                    self.states.insert(sequence, State::Stored);
                }
            }
        }
        for (first, last) in gone {
            let run: BTreeSet<u64> =
                (first..=last).filter(|sequence| self.states.get(sequence) != Some(&State::Stored)).collect();
            self.runs.retain(|old| old.is_disjoint(&run));
            self.states.extend(run.iter().map(|sequence| (*sequence, State::Gone)));
            self.runs.extend((!run.is_empty()).then_some(run));
        }
        for sequence in 1..floor.min(ranges[0].0) {
            self.states.entry(sequence).or_insert(State::Missing);
        }
        Some(counts)
    }
}

type Layout = (u64, Vec<(u64, Vec<Piece>)>);

fn layout() -> impl Strategy<Value = Layout> {
    let piece = prop_oneof![(1..5_u64).prop_map(R), (1..7_u64).prop_map(G)];
    let range = (0..9_u64, prop::collection::vec(piece, 1..4));
    // Often all is open below, sometimes it ended.
    let floor = prop_oneof![2 => Just(0_u64), 1 => 0..30_u64];
    (floor, 1..25_u64, prop::collection::vec(range, 1..4)).prop_map(|(floor, mut next, ranges)| {
        let place = |(gap, pieces): (u64, Vec<Piece>)| {
            let first = next + gap;
            let count: u64 = pieces
                .iter()
                .map(|piece| match piece {
                    R(count) | G(count) => *count,
                })
                .sum();
            next = first + count;
            (first, pieces)
        };
        (floor, ranges.into_iter().map(place).collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn plans_do_what_is_said_of_each_sequence(
        layouts in prop::collection::vec(layout(), 1..25),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
    ) {
        // Some come again, some never.
        let (mut store, mut model) = (Store::default(), Model::default());
        for which in order {
            let (floor, ranges) = which.get(&layouts);
            let sent = request(*floor, ranges.iter().map(|(first, pieces)| range(*first, pieces)).collect());
            let expected = model.offer(*floor, ranges);
            match store.offer(&sent) {
                Ok(plan) => {
                    let found = (plan.store.count(), plan.duplicates.count(), plan.late.count());
                    prop_assert_eq!(Some(found), expected);
                }
                Err(_) => prop_assert_eq!(expected, None),
            }
            let states: BTreeMap<u64, State> = model.states.iter().map(|(sequence, state)| (*sequence, *state)).collect();
            prop_assert_eq!(store.states(), states);
            prop_assert_eq!(
                store.gone.iter().flat_map(|run| run.pieces.iter()).collect::<Spans>(),
                model.runs.iter().flatten().map(|sequence| Span::one(*sequence)).collect::<Spans>()
            );
            prop_assert_eq!(store.gone.len(), model.runs.len());
        }
    }
}
