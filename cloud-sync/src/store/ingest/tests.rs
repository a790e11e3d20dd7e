use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;
use sync_protocol::records::{Class, Entry, Gone, Origin, Range, Reason, Record, Stamp, StoreEpoch, Tally};

use super::*;
use crate::schema;

/// What lies one after the other in a range.
#[derive(Clone, Copy, Debug)]
enum Piece {
    Records(u64),
    Gone(u64),
}

use Piece::{Gone as G, Records as R};

const EPOCH: StoreEpoch = StoreEpoch(u64::MAX - 1);

fn record(sequence: u64) -> Record {
    Record {
        stream: format!("s{}", sequence % 3),
        function: "f".into(),
        origin: Origin { device: "d".into(), topic: "t".into(), identity: None },
        stamp: Stamp { wall_us: sequence, monotonic_us: 1, boot: 1, synchronised: true },
        body: vec![],
    }
}

/// Some of it dropped, some of it damaged.
fn tally(count: u64) -> Vec<Tally> {
    let parts = [("s0", Reason::Oldest, count.div_ceil(2)), ("s1", Reason::Damaged, count / 2)];
    let some = parts.into_iter().filter(|(_, _, count)| *count > 0);
    some.map(|(stream, reason, count)| Tally { stream: stream.into(), reason, count }).collect()
}

fn checked(class: Class, floor: u64, layout: &[(u64, Vec<Piece>)]) -> Checked {
    let ranges = layout.iter().map(|(first, pieces)| {
        let (mut next, mut entries) = (*first, Vec::new());
        for piece in pieces {
            match *piece {
                R(count) => entries.extend((next..next + count).map(|sequence| Entry::Record(record(sequence)))),
                G(count) => entries.push(Entry::Gone(Gone { tally: tally(count) })),
            }
            next += piece.count();
        }
        Range { first: *first, entries }
    });
    Checked::new(Request::new(EPOCH, class, floor, ranges.collect())).ok().unwrap()
}

impl Piece {
    fn count(self) -> u64 {
        match self {
            R(count) | G(count) => count,
        }
    }
}

fn database() -> (Connection, GatewayKey) {
    let mut connection = Connection::open_in_memory().unwrap();
    schema::migrate(&mut connection).unwrap();
    connection
        .execute(
            "INSERT INTO gateways (key, id, name, credential_hash, agent_version, enrolled_us, generation) \
             VALUES (5, 'gw', '', x'00', '', 0, 0)",
            [],
        )
        .unwrap();
    (connection, GatewayKey(5))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Stored,
    Missing,
    Gone,
}

/// What should be known, sequence by sequence.
#[derive(Default)]
struct Model {
    states: BTreeMap<u64, State>,
    runs: Vec<BTreeSet<u64>>,
    duplicates: u64,
}

impl Model {
    /// Whether the request is taken.
    fn offer(&mut self, floor: u64, layout: &[(u64, Vec<Piece>)]) -> bool {
        let (mut records, mut gone) = (Vec::new(), Vec::new());
        for (first, pieces) in layout {
            let mut next = *first;
            for piece in pieces {
                let span = next..next + piece.count();
                next = span.end;
                match piece {
                    R(_) => records.extend(span),
                    G(_) => gone.push(span),
                }
            }
        }
        let mut overtaken = Vec::new();
        for span in &gone {
            let cuts = |run: &&BTreeSet<u64>| {
                let inside = run.iter().filter(|sequence| span.contains(*sequence)).count();
                inside > 0 && inside < run.len()
            };
            for run in self.runs.iter().filter(cuts) {
                if *run.first().unwrap() > span.start || run.last().unwrap() + 1 < span.end {
                    return false;
                }
                overtaken.push(span.clone());
            }
        }
        gone.retain(|span| !overtaken.contains(span));
        for sequence in records {
            match self.states.get(&sequence) {
                Some(State::Stored | State::Gone) => self.duplicates += 1,
                None | Some(State::Missing) => _ = self.states.insert(sequence, State::Stored),
            }
        }
        for span in gone {
            let run: BTreeSet<u64> =
                span.filter(|sequence| self.states.get(sequence) != Some(&State::Stored)).collect();
            self.runs.retain(|old| old.is_disjoint(&run));
            self.states.extend(run.iter().map(|sequence| (*sequence, State::Gone)));
            self.runs.extend((!run.is_empty()).then_some(run));
        }
        for sequence in 1..floor.min(layout[0].0) {
            self.states.entry(sequence).or_insert(State::Missing);
        }
        true
    }
}

fn rows<T>(connection: &Connection, sql: &str, read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
    connection.prepare(sql).unwrap().query_map([], read).unwrap().map(Result::unwrap).collect()
}

fn number(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(at).map(i64::cast_unsigned)
}

/// What is known of a class, as the tables have it, after a look at whether they agree with each other.
fn states(connection: &Connection, class: Class) -> (BTreeMap<u64, State>, u64) {
    let of = |what: &str, from: &str| {
        let sql = format!("SELECT {what} FROM {from} WHERE class = {} ORDER BY 1", class.number());
        rows(connection, &sql, |row| Ok((number(row, 0)?, number(row, 1)?)))
    };
    let (missing, gone) = (of("first, last", "missing"), of("first, last", "tombstones"));
    let mut states = BTreeMap::new();
    for (spans, state) in
        [(of("sequence, sequence", "records"), State::Stored), (missing.clone(), State::Missing), (gone, State::Gone)]
    {
        for sequence in spans.into_iter().flat_map(|(first, last)| first..=last) {
            assert_eq!(states.insert(sequence, state), None, "{sequence} is two things");
        }
    }
    let mark = of("high_water, 0", "marks").first().map_or(0, |(mark, _)| *mark);
    let islands = of("first, last", "islands");
    for spans in [&missing, &[vec![(1, mark)], islands.clone()].concat()] {
        assert!(spans.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "they touch: {spans:?}");
    }
    let known = (1..=mark).chain(islands.into_iter().flat_map(|(first, last)| first..=last));
    assert!(known.eq(states.keys().copied()), "the mark and the islands are not what is known");
    let runs = format!("SELECT count(*) FROM tombstones WHERE tally IS NOT NULL AND class = {}", class.number());
    (states, rows(connection, &runs, |row| number(row, 0))[0])
}

/// Whether the counts and sums are those of what is there.
fn assert_sums(connection: &Connection) {
    let delivered = "SELECT s.name, -1, count(*) FROM records r JOIN streams s ON s.key = r.stream GROUP BY s.name";
    let triple = |row: &rusqlite::Row<'_>| Ok(((row.get(0)?, row.get(1)?), number(row, 2)?));
    let mut expected: BTreeMap<(String, i64), u64> = rows(connection, delivered, triple).into_iter().collect();
    let stored: u64 = expected.values().sum();
    let (mut dropped, mut damaged, mut gone) = (0, 0, 0);
    for bytes in
        rows(connection, "SELECT tally FROM tombstones WHERE tally IS NOT NULL", |row| row.get::<_, Vec<u8>>(0))
    {
        for Tally { stream, reason, count } in crate::store::read_tally(&bytes).unwrap() {
            let reason_number = Reason::ALL.iter().position(|one| *one == reason).unwrap();
            *expected.entry((stream, i64::try_from(reason_number).unwrap())).or_default() += count;
            *if reason == Reason::Damaged { &mut damaged } else { &mut dropped } += count;
            gone += count;
        }
    }
    let sum = |sql: &str| rows(connection, sql, |row| number(row, 0))[0];
    assert_eq!(gone, sum("SELECT coalesce(sum(last - first + 1), 0) FROM tombstones"), "tallies are of what is gone");
    let sums = rows(connection, "SELECT stream, what, count FROM sums", triple).into_iter().collect();
    assert_eq!(expected, sums);
    let missing = damaged + sum("SELECT coalesce(sum(last - first + 1), 0) FROM missing");
    let counts = rows(connection, "SELECT stored, missing, dropped FROM gateways", |row| {
        Ok((number(row, 0)?, number(row, 1)?, number(row, 2)?))
    });
    assert_eq!(counts, [(stored, missing, dropped)]);
}

type Layout = (bool, u64, Vec<(u64, Vec<Piece>)>);

fn layout() -> impl Strategy<Value = Layout> {
    let piece = prop_oneof![(1..5_u64).prop_map(R), (1..7_u64).prop_map(G)];
    let range = (0..9_u64, prop::collection::vec(piece, 1..4));
    let floor = prop_oneof![2 => Just(0_u64), 1 => 0..30_u64];
    (prop::bool::weighted(0.2), floor, 1..25_u64, prop::collection::vec(range, 1..4)).prop_map(
        |(high, floor, mut next, ranges)| {
            let place = |(gap, pieces): (u64, Vec<Piece>)| {
                let first = next + gap;
                next = first + pieces.iter().map(|piece| piece.count()).sum::<u64>();
                (first, pieces)
            };
            (high, floor, ranges.into_iter().map(place).collect())
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_tables_hold_what_is_said_of_each_sequence(
        layouts in prop::collection::vec(layout(), 1..25),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
    ) {
        let (connection, gateway) = database();
        let mut models: HashMap<Class, Model> = Class::ALL.map(|class| (class, Model::default())).into();
        // Some come again, some never.
        for which in order {
            let (high, floor, layout) = which.get(&layouts);
            let class = if *high { Class::High } else { Class::Normal };
            let outcome = ingest(&connection, gateway, &checked(class, *floor, layout), 7).unwrap();
            let model = models.get_mut(&class).unwrap();
            match (model.offer(*floor, layout), outcome) {
                (true, Outcome::HighWater(mark)) => {
                    let known = (1..).find(|sequence| !model.states.contains_key(sequence)).unwrap();
                    prop_assert_eq!(mark, known - 1);
                }
                (false, Outcome::GoneConflict(_)) => {}
                (taken, _) => prop_assert!(false, "taken: {}, and otherwise here", taken),
            }
            for (class, model) in &models {
                prop_assert_eq!(states(&connection, *class), (model.states.clone(), model.runs.len() as u64));
            }
            assert_sums(&connection);
            let duplicates: u64 = models.values().map(|model| model.duplicates).sum();
            prop_assert_eq!(rows(&connection, "SELECT duplicates FROM gateways", |row| number(row, 0)), [duplicates]);
        }
    }
}

#[test]
fn counts_end_at_the_highest_number_and_do_not_fail() {
    let (connection, gateway) = database();
    let most = i64::MAX as u64;
    for epoch in 1..=3 {
        let mut all = checked(Class::Normal, 0, &[(1, vec![G(most)])]);
        all.request.epoch = StoreEpoch(epoch);
        assert!(matches!(ingest(&connection, gateway, &all, 7), Ok(Outcome::HighWater(mark)) if mark == most));
        let mut late = checked(Class::Normal, u64::MAX, &[(most, vec![R(1)])]);
        late.request.epoch = StoreEpoch(100 + epoch);
        assert!(matches!(ingest(&connection, gateway, &late, 7), Ok(Outcome::HighWater(mark)) if mark == most));
    }
    let counts = rows(&connection, "SELECT stored, missing, dropped FROM gateways", |row| {
        Ok((number(row, 0)?, number(row, 1)?, number(row, 2)?))
    });
    assert_eq!(counts, [(3, most, most)]);
    let detail = crate::store::gateways::detail(&connection, "gw", 9).unwrap();
    let names: Vec<_> = detail.streams.iter().map(|stream| (stream.name.as_str(), stream.delivered)).collect();
    assert_eq!(names, [("s0", 0), ("s1", 3)]);
}
