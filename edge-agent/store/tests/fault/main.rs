//! The store on a disk that fails at every operation in turn: what `commit` said is there, and nothing by halves.

mod vfs;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use agent_core::effect::{Effect, Priority, PublishFlags};
use agent_core::event::{Event, EventKind};
use agent_store::{Dead, DeadKind, FunctionId, Outcome, OutcomeResult, Store, StoreError, Uses, Write, inspect};
use sync_protocol::dead::STREAM;
use sync_protocol::records::{Class, Entry, Stamp};

use vfs::{Fault, Operation};

/// What is in a store, without what is done with.
#[derive(Clone, Debug, Default, PartialEq)]
struct Content {
    // By class: how many are done, and the rest.
    records: [(u64, Vec<Vec<u8>>); 2],
    publishes: (u64, Vec<Vec<u8>>),
    state: BTreeMap<u8, Vec<u8>>,
    seen: Option<Vec<u8>>,
    dead_letters: u64,
}

/// The groups of the workload: each puts something into every table, some move the marks.
const GROUPS: u8 = 6;

/// After this one the store is closed and opened again, which carries the log over into the database.
const REOPENED_AFTER: u8 = 3;

fn outcome(function: FunctionId, seen: Option<(Arc<str>, Vec<u8>)>, result: OutcomeResult) -> Write {
    Write::Outcome(Outcome {
        function,
        function_name: "f".into(),
        partition: "p".into(),
        seen,
        uses: Uses::Nothing,
        blobs: Vec::new(),
        event: Event::new(EventKind::Mqtt, "d", "t", [], 0),
        stamp: Stamp { wall_us: 0, monotonic_us: 0, boot: 0, synchronised: false },
        usage: Default::default(),
        result,
    })
}

impl Content {
    /// The content after group `number`.
    fn with(&self, number: u8) -> Self {
        let mut next = self.clone();
        for class in Class::ALL {
            // More than a page, so that a group is never one write.
            next.records[usize::from(class.number())].1.push(vec![number; 3_000]);
        }
        next.publishes.1.push(vec![number]);
        next.state.insert(number, vec![number; 100]);
        next.seen = Some(vec![number; 33]);
        next.dead_letters += 1;
        let high = usize::from(Class::High.number());
        next.records[high].1.push(STREAM.into());
        if number % 3 == 2 {
            for (queue, (done, rest)) in next.records.iter_mut().chain([&mut next.publishes]).enumerate() {
                // All but what this group itself adds.
                let settled = rest.len() - if queue == high { 2 } else { 1 };
                *done += settled as u64;
                rest.drain(..settled);
            }
        }
        next
    }

    /// The writes that lead from here to [`with`](Self::with).
    fn writes(&self, store: &mut Store, number: u8) -> Result<Vec<Write>, StoreError> {
        let function = store.function("f")?;
        let emit = |priority| Effect::Emit { stream: "s".into(), body: vec![number; 3_000], priority };
        let effects = vec![
            emit(Priority::Normal),
            emit(Priority::High),
            Effect::Publish { topic: "t".into(), payload: [number].into(), flags: PublishFlags::default() },
            Effect::StatePut { key: vec![number], value: vec![number; 100], ttl_s: None },
        ];
        let dead = Dead {
            version: "1".into(),
            digest: [0; 32],
            kind: DeadKind::Failed,
            reason: "no".into(),
            detail: String::new(),
            run: None,
        };
        let mut writes = vec![
            outcome(function, Some(("d".into(), vec![number; 33])), OutcomeResult::Effects(effects)),
            outcome(function, None, OutcomeResult::Dead(dead)),
        ];
        if number % 3 == 2 {
            let waiting = |(done, rest): &(u64, Vec<Vec<u8>>)| done + rest.len() as u64;
            for class in Class::ALL {
                let last = waiting(&self.records[usize::from(class.number())]);
                writes.push(Write::Delivered { class, ranges: vec![(1, last)] });
            }
            writes.push(Write::Published { up_to: waiting(&self.publishes) });
        }
        Ok(writes)
    }

    fn of(store: &mut Store) -> Self {
        let mut content = Self::default();
        let function = store.function("f").unwrap();
        let mut reader = store.reader().unwrap();
        for class in Class::ALL {
            let range = reader.range(class, 0, 1_000, usize::MAX).unwrap();
            let waiting = reader.outbox().unwrap().class(class);
            assert_eq!(waiting.next - waiting.first, range.entries.len() as u64, "what waits has no gaps");
            let bodies = range.entries.into_iter().map(|entry| match entry {
                Entry::Record(record) if record.stream == STREAM => STREAM.into(),
                Entry::Record(record) => record.body,
                Entry::Gone(gone) => panic!("{gone:?}"),
            });
            content.records[usize::from(class.number())] = (waiting.first - 1, bodies.collect());
        }
        let publishes = reader.publishes(0, 1_000).unwrap();
        content.publishes = (
            publishes.first().map_or(0, |publish| publish.id - 1),
            publishes.iter().map(|publish| publish.payload.to_vec()).collect(),
        );
        for key in 0..=GROUPS {
            if let Some(value) = reader.state(function, "p", &[key]).unwrap() {
                content.state.insert(key, value.bytes.to_vec());
            }
        }
        content.seen = reader.seen(function, "p", "d").unwrap();
        content.dead_letters = reader.dead_letter_count().unwrap();
        assert_eq!(reader.dead_letters(0, 1_000).unwrap().len() as u64, content.dead_letters);
        content
    }
}

/// What to do when a commit fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum After {
    /// As the agent: the store is given up at once.
    Stop,
    /// The same group again, on the same store.
    Retry,
}

/// What the workload was told: the content after all that was confirmed, and what was on the way when it stopped.
struct Told {
    confirmed: Content,
    refused: Option<u8>,
}

fn work(dir: &Path, mut confirmed: Content, after: After) -> Told {
    let mut groups = 1..=GROUPS;
    let mut failures = 0;
    loop {
        let Ok(mut store) = Store::open(dir) else {
            if after == After::Retry && failures < 3 {
                failures += 1;
                continue;
            }
            return Told { confirmed, refused: None };
        };
        loop {
            let Some(number) = groups.next() else { return Told { confirmed, refused: None } };
            loop {
                match confirmed.writes(&mut store, number).and_then(|writes| store.commit(&writes)) {
                    Ok(_) => {
                        confirmed = confirmed.with(number);
                        break;
                    }
                    Err(_) if after == After::Retry && failures < 3 => failures += 1,
                    Err(_) => return Told { confirmed, refused: Some(number) },
                }
            }
            if number == REOPENED_AFTER {
                break;
            }
        }
    }
}

/// In memory where that is to be had: the layer knows what was synced, so the disk below need not.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Runs the workload with a fault; whether it struck.
fn run(fault: Fault, at: usize, after: After) -> Option<Operation> {
    let dir = directory();
    vfs::arm(Some((fault, at)));
    let told = work(dir.path(), Content::default(), after);
    let (_, struck) = vfs::disarm();
    let case = format!("{fault:?} at {at} ({struck:?}), then {after:?}");

    let (mut store, recovery) = Store::open_or_recover(dir.path()).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(recovery.is_none(), "{case}: {}", recovery.unwrap());
    let found = Content::of(&mut store);
    match told.refused {
        // After the point of no return nobody knows, but it is all or nothing.
        Some(number) if found == told.confirmed.with(number) => {}
        refused => assert_eq!(found, told.confirmed, "{case}, refused {refused:?}"),
    }
    // And it goes on from there.
    let writes = found.writes(&mut store, 0).unwrap();
    store.commit(&writes).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(Content::of(&mut store), found.with(0), "{case}");
    drop(store);
    let survey = inspect(dir.path(), |_| true).unwrap();
    assert!(survey.is_whole(), "{case}: {survey:?}");
    struck
}

#[test]
fn no_failure_of_the_disk_takes_back_what_was_confirmed_or_leaves_half_a_group() {
    let _alone = vfs::install();
    let dir = directory();
    vfs::arm(None);
    let told = work(dir.path(), Content::default(), After::Stop);
    let (counts, _) = vfs::disarm();
    assert!(told.refused.is_none());
    // The workload meets every sort of operation, and the layer sees the log: each commit writes and syncs it.
    for (operation, least) in
        [(Operation::Open, 4), (Operation::Write, 100), (Operation::Sync, GROUPS.into()), (Operation::ShmMap, 2)]
    {
        assert!(counts.get(&operation).is_some_and(|count| *count >= least), "{counts:?}");
    }

    let mut runs = BTreeMap::new();
    for fault in Fault::ALL {
        for after in [After::Stop, After::Retry] {
            if matches!(fault, Fault::Torn | Fault::PowerCut) && after == After::Retry {
                continue;
            }
            for at in 0.. {
                let Some(operation) = run(fault, at, after) else { break };
                *runs.entry((format!("{fault:?}"), operation)).or_insert(0) += 1;
            }
        }
    }
    assert!(runs.values().sum::<usize>() > 500, "{runs:?}");
    assert!(runs.keys().any(|(fault, operation)| fault == "SyncLost" && *operation == Operation::Sync), "{runs:?}");
}

#[test]
fn what_is_seen_after_a_failed_sync_and_a_new_start_is_on_the_disk() {
    let _alone = vfs::install();
    let mut forgotten = 0;
    for at in 0.. {
        let (dir, next) = (directory(), directory());
        vfs::arm(Some((Fault::SyncForgets, at)));
        // The agent is killed when a commit fails.
        let mut store = match Store::open(dir.path()) {
            Ok(store) => store,
            Err(_) => continue,
        };
        let mut confirmed = Content::default();
        let refused = (1..=GROUPS).find(|number| {
            let committed = confirmed.writes(&mut store, *number).and_then(|writes| store.commit(&writes));
            if committed.is_ok() {
                confirmed = confirmed.with(*number);
            }
            committed.is_err()
        });
        let Some(refused) = refused else {
            match vfs::disarm() {
                (_, None) => break,
                // No commit was in its way.
                (_, Some(_)) => continue,
            }
        };
        vfs::copy(dir.path(), next.path());
        // It starts again. What it sees counts: an event that comes once more is acknowledged at once.
        let mut again = Store::open(next.path()).unwrap();
        let seen = Content::of(&mut again);
        forgotten += usize::from(seen == confirmed.with(refused));
        let writes = seen.writes(&mut again, 0).unwrap();
        again.commit(&writes).unwrap();
        let confirmed = Content::of(&mut again);
        vfs::cut_power();
        drop((store, again));
        let (_, struck) = vfs::disarm();
        assert_eq!(struck, Some(Operation::Sync));

        let mut left = Store::open(next.path()).unwrap_or_else(|error| panic!("sync {at}: {error}"));
        assert_eq!(Content::of(&mut left), confirmed, "sync {at}");
    }
    assert!(forgotten > 0, "no group that was refused was seen");
}

/// Groups of some 45 pages each: the log is carried over several times.
const LARGE_GROUPS: u8 = 120;

/// What is in a store of large groups: how many records there are of each group, in order.
fn large_groups(store: &mut Store) -> Vec<u8> {
    let (mut reader, mut groups, mut after) = (store.reader().unwrap(), Vec::new(), 0);
    loop {
        let range = reader.range(Class::Normal, after, 1_000, usize::MAX).unwrap();
        let Some(last) = range.last() else { return groups };
        after = last;
        for entry in range.entries {
            let Entry::Record(record) = entry else { panic!("{entry:?}") };
            assert!(record.body.iter().all(|byte| *byte == record.body[0]), "a record in pieces");
            groups.push(record.body[0]);
        }
    }
}

fn large_group(store: &mut Store, number: u8) -> Result<(), StoreError> {
    let function = store.function("f")?;
    let emit = || Effect::Emit { stream: "s".into(), body: vec![number; 60_000], priority: Priority::Normal };
    let effects = OutcomeResult::Effects((0..3).map(|_| emit()).collect());
    store.commit(&[outcome(function, None, effects)]).map(drop)
}

#[test]
fn no_failure_while_the_log_is_carried_over_takes_back_what_was_confirmed() {
    let _alone = vfs::install();
    // Returns what was struck, and how long the log was at most.
    let run = |fault: Option<(Fault, usize)>| {
        let dir = directory();
        vfs::arm(fault);
        let (mut confirmed, mut longest) = (0, 0);
        if let Ok(mut store) = Store::open(dir.path()) {
            for number in 1..=LARGE_GROUPS {
                if large_group(&mut store, number).is_err() {
                    break;
                }
                confirmed = number;
                longest = longest.max(std::fs::metadata(dir.path().join("store.db-wal")).map_or(0, |log| log.len()));
            }
        }
        let (counts, struck) = vfs::disarm();
        let (mut store, recovery) = Store::open_or_recover(dir.path()).unwrap();
        assert!(recovery.is_none(), "{fault:?}: {}", recovery.unwrap());
        let found = large_groups(&mut store);
        let of = |groups: u8| (1..=groups).flat_map(|number| [number; 3]).collect::<Vec<_>>();
        assert!(found == of(confirmed) || found == of(confirmed + 1), "{fault:?}: {confirmed} confirmed, {found:?}");
        large_group(&mut store, 200).unwrap();
        drop(store);
        assert!(inspect(dir.path(), |_| true).unwrap().is_whole(), "{fault:?}");
        (counts, struck, longest)
    };
    let (counts, _, longest) = run(None);
    // All went into the log and from there into the database; and the log was begun anew.
    let pages = u64::from(LARGE_GROUPS) * 45;
    assert!(counts[&Operation::Write] as u64 > 3 * pages - 3_000, "{counts:?}");
    assert!(longest < pages * 4_096 / 2, "the log grew to {longest} bytes");
    let mut struck = 0;
    for fault in Fault::ALL {
        // A number of operations that has nothing to do with the length of a group.
        let step = if matches!(fault, Fault::SyncLost) { 17 } else { 1_511 };
        for at in (step..).step_by(step) {
            if run(Some((fault, at))).1.is_none() {
                break;
            }
            struck += 1;
        }
    }
    assert!(struck > 30, "{struck}");
}
