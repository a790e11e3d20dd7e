//! What functions used and measured: counted with the effects, told once.

use agent_core::effect::{Effect, Number};
use agent_core::retention::Refused;
use agent_store::{OutcomeResult, Scheduled, Store, Sums, Uses, Write, inspect};
use sync_protocol::records::{Class, Entry, Gone, Reason};
use sync_protocol::usage::{Counts, Part, STREAM, Usage, hour_begins_us};

use crate::fixture::{Fixture, dead, delivered, emit, outcome, stamp};

const RUN: Counts = Counts {
    invocations: 1,
    failed: 0,
    fuel: 100,
    busy_ns: 20,
    memory_peak_bytes: 65_536,
    bytes_in: 4,
    bytes_out: 9,
    state_peak_bytes: 0,
};

fn at(hour: u32, usage: Counts, result: OutcomeResult, it: &Fixture) -> Write {
    let Write::Outcome(mut of) = outcome(it.function, result) else { unreachable!("an outcome was asked for") };
    of.usage = usage;
    of.stamp.wall_us = hour_begins_us(hour) + 5;
    Write::Outcome(of)
}

fn ran(hour: u32, it: &Fixture) -> Write {
    let number = |value| Number::new(value).unwrap();
    let count = Effect::Count { name: "n".into(), value: number(0.5) };
    let observe = Effect::Observe { name: "celsius".into(), value: number(-21.5) };
    at(hour, RUN, OutcomeResult::Effects(vec![count, observe]), it)
}

fn tell() -> Write {
    Write::TellUsage { stamp: stamp() }
}

/// What the control plane would have, if it had all records from here on.
fn told(it: &mut Fixture, after: u64) -> Vec<Part> {
    let entries = it.reader.range(Class::High, after, 10_000, usize::MAX).unwrap().entries;
    entries
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Record(record) if record.stream == STREAM => {
                let usage: Usage = serde_json::from_slice(&record.body).unwrap();
                assert!(usage.is_sound());
                Some(usage.parts)
            }
            _ => None,
        })
        .flatten()
        .collect()
}

/// By hour: runs, fuel, what was counted, how many values were observed.
fn summary(parts: &[Part]) -> Vec<(u32, u64, u64, f64, u64)> {
    let of = |part: &Part| {
        assert_eq!(part.function, "mean");
        let counts = part.devices["pump-7"];
        let observed = part.histograms.get("celsius").map_or(0, |values| values.count());
        let counted = part.counters.get("n").copied().unwrap_or_default();
        (part.hour, counts.invocations, counts.fuel, counted, observed)
    };
    parts.iter().map(of).collect()
}

fn rows(it: &Fixture) -> i64 {
    it.raw().query_row("SELECT count(*) FROM usage", [], |row| row.get(0)).unwrap()
}

#[test]
fn runs_are_added_up_by_hour_and_told_once_through_reopening() {
    let mut it = Fixture::new();
    // The clock is set back in between.
    it.store.commit(&[ran(7, &it), ran(7, &it), ran(8, &it)]).unwrap();
    it.store.commit(&[ran(7, &it)]).unwrap();
    let mut it = it.reopen();
    it.store.commit(&[ran(8, &it)]).unwrap();
    assert_eq!((rows(&it), told(&mut it, 0).len()), (3, 0));
    // What is in the same group is told with it, wherever it stands.
    let committed = it.store.commit(&[tell(), ran(7, &it)]).unwrap();
    assert_eq!(summary(&told(&mut it, 0)), [(7, 4, 400, 2.0, 4), (8, 2, 200, 1.0, 2)]);
    assert_eq!((committed.records[1], rows(&it)), (1, 0));
    // Nothing to tell.
    assert_eq!(it.store.commit(&[tell()]).unwrap().records[1], 1);
    let mut it = it.reopen();
    assert_eq!(it.store.commit(&[tell(), tell()]).unwrap().records[1], 1);
    it.store.commit(&[ran(8, &it), tell()]).unwrap();
    assert_eq!(summary(&told(&mut it, 1)), [(8, 1, 100, 0.5, 1)]);
}

#[test]
fn the_most_state_that_a_function_had_is_told() {
    let mut it = Fixture::new();
    let put = |key: &[u8], bytes: usize| Effect::StatePut { key: key.to_vec(), value: vec![0; bytes], ttl_s: None };
    let put_both = OutcomeResult::Effects(vec![put(b"a", 99), put(b"b", 49)]);
    let less = OutcomeResult::Effects(vec![put(b"a", 9), Effect::StateDelete { key: b"b".to_vec() }]);
    it.store.commit(&[at(7, RUN, put_both, &it)]).unwrap();
    it.store.commit(&[at(7, RUN, less, &it), ran(8, &it), tell()]).unwrap();
    let told: Vec<u64> = told(&mut it, 0).iter().map(|part| part.devices["pump-7"].state_peak_bytes).collect();
    assert_eq!(told, [150, 10]);
}

#[test]
fn every_run_that_has_an_outcome_counts_and_no_other() {
    let mut it = Fixture::new();
    let failed = Counts { failed: 1, bytes_out: 0, ..RUN };
    let moment = Scheduled { function: "mean".into(), schedule: "hourly".into(), up_to_us: 1 };
    let mut served = ran(1, &it);
    if let Write::Outcome(of) = &mut served {
        of.uses = Uses::Moment(moment);
    }
    let writes = [
        at(1, failed, OutcomeResult::Dead(dead()), &it),
        at(1, failed, OutcomeResult::Retry { due_us: 1, attempts: 1 }, &it),
        at(1, Counts::default(), OutcomeResult::Nothing, &it),
        // It never reached a function.
        at(1, Counts::default(), OutcomeResult::Dead(dead()), &it),
        served.clone(),
        // Its outcome changes nothing: the moment was served.
        served,
        tell(),
    ];
    it.store.commit(&writes).unwrap();
    let [part] = &told(&mut it, 0)[..] else { panic!("one part") };
    let wanted = Counts { invocations: 3, failed: 2, fuel: 300, busy_ns: 60, bytes_in: 12, ..RUN };
    assert_eq!(part.devices["pump-7"], wanted);
    assert_eq!(part.counters["n"], 0.5);
    assert_eq!(it.store.counted().parts(), std::slice::from_ref(part));
}

#[test]
fn a_failed_commit_counts_nothing() {
    let mut it = Fixture::new();
    it.store.commit(&[ran(1, &it)]).unwrap();
    let refused = delivered(Class::Normal, 99);
    for last in [refused.clone(), tell()] {
        it.store.commit(&[ran(1, &it), last.clone(), refused.clone()]).unwrap_err();
        assert!(it.store.counted().is_empty());
    }
    let mut it = it.reopen();
    it.store.commit(&[ran(1, &it), refused.clone()]).unwrap_err();
    it.store.commit(&[ran(1, &it), tell()]).unwrap();
    assert_eq!(summary(&told(&mut it, 0)), [(1, 2, 200, 1.0, 2)]);
}

#[test]
fn rows_are_few_however_many_commits_there_are() {
    let mut it = Fixture::new();
    for number in 0..1_000 {
        it.store.commit(&[ran(number / 600, &it)]).unwrap();
        // Commits without a run add nothing.
        it.store.commit(&[]).unwrap();
    }
    assert!(rows(&it) < 256, "{}", rows(&it));
    let mut it = it.reopen();
    it.store.commit(&[tell()]).unwrap();
    assert_eq!(summary(&told(&mut it, 0)), [(0, 600, 60_000, 300.0, 600), (1, 400, 40_000, 200.0, 400)]);
}

/// A clock that jumps with every event.
#[test]
fn hours_without_end_are_told_before_they_fill_the_memory() {
    let mut it = Fixture::new();
    let run = |hour: u32, it: &Fixture| at(hour, RUN, OutcomeResult::Effects(vec![]), it);
    for group in 0..20 {
        let writes: Vec<Write> = (0..500).map(|number| run(group * 500 + number, &it)).collect();
        it.store.commit(&writes).unwrap();
    }
    let before = told(&mut it, 0).len();
    assert!(before >= 2 * agent_store::MAX_APART, "{before}");
    it.store.commit(&[tell()]).unwrap();
    assert_eq!(told(&mut it, 0).len(), 10_000);
}

#[test]
fn what_a_policy_drops_is_told_as_gone() {
    let mut it = Fixture::new();
    it.store.refuse(Refused::Streams(vec![STREAM.into()]));
    it.store.commit(&[ran(1, &it), tell()]).unwrap();
    let entries = it.reader.range(Class::High, 0, 10, usize::MAX).unwrap().entries;
    let [Entry::Gone(Gone { tally })] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!((tally[0].stream.as_str(), tally[0].reason, tally[0].count), (STREAM, Reason::Refused, 1));
}

#[test]
fn usage_is_carried_over_into_a_fresh_store_but_for_a_row_that_is_damaged() {
    let mut it = Fixture::new();
    for _ in 0..3 {
        it.store.commit(&[ran(1, &it), it.effects(vec![emit(Class::Normal, b"x")])]).unwrap();
    }
    assert!(inspect(it.dir.path(), |_| true).unwrap().is_whole());
    it.raw().execute_batch("UPDATE usage SET checksum = checksum - 1 WHERE id = 2").unwrap();
    let Fixture { dir, store, reader, function } = it;
    drop((store, reader));
    let error = Store::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("row 2 of the table usage"), "{error}");
    let (store, recovery) = Store::open_or_recover(dir.path()).unwrap();
    let damage = recovery.unwrap().survey.damage;
    assert!(damage.iter().any(|line| line.starts_with("row 2 of the table usage: ")), "{damage:?}");
    let reader = store.reader().unwrap();
    let mut it = Fixture { dir, store, reader, function };
    it.store.commit(&[tell()]).unwrap();
    assert_eq!(summary(&told(&mut it, 0)), [(1, 2, 200, 1.0, 2)]);
    assert_eq!(*it.store.counted(), Sums::default());
}
