//! Stores that were damaged in every way that we know: what is whole comes back, what is not is named.

use std::fs;
use std::path::Path;

use agent_core::effect::Effect;
use agent_core::pace::Metered;
use agent_store::{
    Deployment, ErrorKind, Item, OutcomeResult, Queue, Recovery, Store, Survey, Write, inspect, salvage_copy,
};
use sync_protocol::dead::{Note, Resolved, What};
use sync_protocol::fleet::FunctionStatus;
use sync_protocol::records::{Class, Reason};

use crate::fixture::{Fixture, bytes, dead, delivered, outcome, publish, put, raw, told};

const NORMAL: Queue = Queue::Records(Class::Normal);

/// A store with something in every table: records 1 to 3 delivered, 4 to 40 waiting.
fn full() -> Fixture {
    filled(Fixture::new())
}

/// The same as a power cut leaves it, with each of its 41 commits in the log.
fn all_in_the_log() -> tempfile::TempDir {
    let it = Fixture::new();
    // Nothing is carried over that somebody who reads must not see yet.
    let reads = rusqlite::Connection::open(it.dir.path().join("store.db")).unwrap();
    reads.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;").unwrap();
    cut_off(filled(it))
}

fn filled(mut it: Fixture) -> Fixture {
    let other = it.store.function("alert").unwrap();
    for number in 1..=40u8 {
        let mut write = it.effects(vec![
            put(&[number], &[number; 50]),
            crate::fixture::emit(Class::Normal, &[number; 300]),
            publish("t", &[number]),
        ]);
        if let Write::Outcome(outcome) = &mut write {
            outcome.seen = Some(("pump-7".into(), vec![number; 33]));
        }
        it.store.commit(&[write]).unwrap();
    }
    let deployment = Deployment {
        deployment: 1,
        status: FunctionStatus::Running,
        detail: String::new(),
        current: None,
        previous: None,
        refused: None,
    };
    let ending = Effect::StatePut { key: b"k".into(), value: b"v".into(), ttl_s: Some(1) };
    it.store
        .commit(&[
            it.emit(Class::High, b"urgent"),
            outcome(it.function, OutcomeResult::Dead(dead())),
            outcome(other, OutcomeResult::Effects(vec![ending])),
            Write::Deployment("mean".into(), Some(deployment)),
            delivered(Class::Normal, 3),
            Write::Published { up_to: 39 },
        ])
        .unwrap();
    it
}

/// As a power cut leaves it: with the log beside the database. Nobody uses it any more.
fn cut_off(it: Fixture) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["store.db", "store.db-wal", "lock"] {
        fs::copy(it.dir.path().join(file), copy.path().join(file)).unwrap();
    }
    copy
}

/// As an orderly end leaves it: one file.
fn closed(it: Fixture) -> tempfile::TempDir {
    let Fixture { dir, store, reader, .. } = it;
    drop((reader, store));
    assert!(!dir.path().join("store.db-wal").exists());
    dir
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn recover(dir: &Path) -> (Fixture, Recovery) {
    let error = Store::open(dir).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let old = inspect(dir, |_| true).unwrap().epoch;
    let (mut store, recovery) = Store::open_or_recover(dir).unwrap();
    let recovery = recovery.expect("the store was damaged");
    assert!(recovery.quarantine.join("store.db").exists());
    assert_eq!(store.epoch(), recovery.epoch);
    assert!(old.is_none_or(|old| store.epoch() > old), "the new epoch is above the old one");
    let (reader, function) = (store.reader().unwrap(), store.function("mean").unwrap());
    let copy = tempfile::tempdir().unwrap();
    let mut it = Fixture { dir: copy, store, reader, function };
    // It is a store like any other: what it lost is remembered, and nothing about it is damaged.
    let lost: Vec<_> = recovery.survey.lost().cloned().collect();
    assert!(it.reader.missing(0, 1_000).unwrap().into_iter().map(|(_, missing)| missing).eq(lost));
    it.store.commit(&[it.emit(Class::Normal, b"after")]).unwrap();
    assert_eq!(it.bodies(Class::Normal, 0).last().unwrap(), b"after");
    let survey = inspect(dir, |_| true).unwrap();
    assert!(survey.is_whole(), "{survey:?}");
    (it, recovery)
}

fn lost(survey: &Survey) -> Vec<(Queue, u64, Option<u64>)> {
    survey.lost().map(|lost| (lost.queue, lost.first, lost.last)).collect()
}

fn records(store: &Store) -> u64 {
    store.usage().iter().map(|stream| stream.records).sum()
}

fn numbers(it: &mut Fixture) -> Vec<u8> {
    it.bodies(Class::Normal, 0).iter().map(|body| body[0]).filter(|number| *number <= 40).collect()
}

#[test]
fn a_whole_store_is_not_touched() {
    let dir = cut_off(full());
    let (store, recovery) = Store::open_or_recover(dir.path()).unwrap();
    assert!(recovery.is_none());
    drop(store);
    assert!(!dir.path().join("quarantine-1").exists());
}

#[test]
fn a_flipped_bit_in_the_log_is_noticed_though_sqlite_calls_it_an_earlier_end() {
    let dir = all_in_the_log();
    // Somewhere in the last quarter of the log.
    change(&dir.path().join("store.db-wal"), |log| {
        let at = log.len() / 4 * 3;
        log[at] ^= 4;
    });
    let (mut it, recovery) = recover(dir.path());
    let kept = numbers(&mut it);
    let last = u64::from(*kept.last().unwrap());
    assert!((5..40).contains(&last), "{last}");
    assert!(lost(&recovery.survey).contains(&(NORMAL, last + 1, Some(40))), "{recovery}");
    assert!(kept.iter().map(|number| u64::from(*number)).eq(4..=last));
    assert!(recovery.to_string().contains(&format!("records of class Normal {} to 40", last + 1)), "{recovery}");
}

#[test]
fn a_log_that_is_gone_is_noticed() {
    let dir = all_in_the_log();
    fs::remove_file(dir.path().join("store.db-wal")).unwrap();
    let (_, recovery) = recover(dir.path());
    assert!(lost(&recovery.survey).contains(&(NORMAL, 4, Some(40))), "{recovery}");
    assert!(lost(&recovery.survey).contains(&(Queue::Publishes, 40, Some(40))), "{recovery}");
}

#[test]
fn of_a_file_that_is_no_database_the_missing_ranges_are_known() {
    for garbage in [vec![], vec![0xab; 20_000]] {
        let dir = closed(full());
        fs::write(dir.path().join("store.db"), &garbage).unwrap();
        let (_, recovery) = recover(dir.path());
        let expected =
            [(NORMAL, 4, Some(40)), (Queue::Records(Class::High), 1, Some(2)), (Queue::Publishes, 40, Some(40))];
        assert_eq!(lost(&recovery.survey), expected);
        assert_eq!(fs::read(recovery.quarantine.join("store.db")).unwrap(), garbage);
    }
}

#[test]
fn a_damaged_head_costs_nothing_but_the_head() {
    let dir = closed(full());
    change(&dir.path().join("store.db"), |file| file[..100].fill(0xff));
    let (mut it, recovery) = recover(dir.path());
    assert!(numbers(&mut it).into_iter().eq(4..=40), "{recovery}");
    assert_eq!(lost(&recovery.survey), []);
}

#[test]
fn a_truncated_file_gives_back_what_is_left_of_it() {
    let dir = closed(full());
    change(&dir.path().join("store.db"), |file| file.truncate(file.len() / 4096 / 2 * 4096 + 100));
    let (mut it, recovery) = recover(dir.path());
    let kept = numbers(&mut it);
    // Each that is not there is among what is missing, and each that is there is not.
    for number in 4..=40u8 {
        let named = lost(&recovery.survey).iter().any(|(queue, first, last)| {
            *queue == NORMAL && (*first..=last.unwrap_or(u64::MAX)).contains(&u64::from(number))
        });
        assert_ne!(kept.contains(&number), named, "{number}: {recovery}");
    }
}

#[test]
fn an_overwritten_page_costs_only_what_was_on_it() {
    let dir = closed(full());
    let path = dir.path().join("store.db");
    let page = fs::read(&path).unwrap().windows(300).position(|bytes| bytes == [20; 300]).unwrap() / 4096;
    change(&path, |file| file[page * 4096..][..4096].fill(0x5a));
    // Nobody reads the middle of a queue when it is opened; whoever then meets it gives the store up.
    let (mut it, recovery) = {
        let store = Store::open(dir.path()).unwrap();
        let error = store.reader().unwrap().range(Class::Normal, 19, 10, usize::MAX).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        store.condemn(&error.to_string(), &[]).unwrap();
        recover(dir.path())
    };
    let kept = numbers(&mut it);
    let [(NORMAL, first, Some(last))] = lost(&recovery.survey)[..] else { panic!("{recovery}") };
    assert!(first > 4 && last < 40 && last - first < 15, "{recovery}");
    assert!(kept.into_iter().map(u64::from).eq((4..first).chain(last + 1..=40)));
}

#[test]
fn everything_else_is_carried_over() {
    let it = full();
    it.raw().execute_batch("UPDATE outbox_normal SET body = zeroblob(length(body)) WHERE id IN (4, 9, 10)").unwrap();
    let dir = closed(it);
    let (mut it, recovery) = recover(dir.path());
    assert_eq!(lost(&recovery.survey), [(NORMAL, 4, Some(4)), (NORMAL, 9, Some(10))]);
    assert!(numbers(&mut it).into_iter().eq((5..=8).chain(11..=40)));
    let told = told(it.store.epoch(), 1);
    let [urgent, before, moved, now] = &it.bodies(Class::High, 0)[..] else { panic!("four records of high class") };
    assert_eq!((&urgent[..], now), (&b"urgent"[..], &told));
    // What was not delivered yet still says under which number it was; and that this is no more.
    let before: Note = serde_json::from_slice(before).unwrap();
    let moved: Note = serde_json::from_slice(moved).unwrap();
    assert_eq!(moved, Note { what: What::Resolved(Resolved::Moved), ..before.clone() });
    assert_ne!(before.epoch(), Some(it.store.epoch()));
    let publishes = it.reader.publishes(0, 10).unwrap();
    assert_eq!((publishes.len(), publishes[0].id, &*publishes[0].payload), (1, 1, &[40][..]));
    assert_eq!(it.reader.dead_letter_count().unwrap(), 1);
    assert_eq!(it.reader.dead_letters(0, 10).unwrap()[0].dead, dead());
    assert_eq!(it.reader.deployments().unwrap()[0].0, "mean");
    for number in 1..=40 {
        assert_eq!(bytes(it.reader.state(it.function, "pump-7", &[number]).unwrap()), Some(vec![number; 50]));
    }
    assert_eq!(it.reader.seen(it.function, "pump-7", "pump-7").unwrap(), Some(vec![40; 33]));
    let alert = it.store.function("alert").unwrap();
    let ending = it.reader.state(alert, "pump-7", b"k").unwrap().unwrap();
    assert_eq!((&*ending.bytes, ending.expires_us), (&b"v"[..], Some(i64::MAX as u64)), "the end is carried over");
    assert_eq!((it.store.state_bytes(alert), it.store.state_bytes(it.function)), (2, 40 * 51));
}

/// The control plane deploys it again; an agent that cannot start could not be told.
#[test]
fn a_damaged_deployment_does_not_keep_the_agent_from_starting() {
    let it = full();
    it.raw().execute_batch("UPDATE deployments SET value = zeroblob(length(value))").unwrap();
    let dir = closed(it);
    let (mut it, recovery) = recover(dir.path());
    assert!(recovery.to_string().contains("a deployment of \"mean\""), "{recovery}");
    assert_eq!(it.reader.deployments().unwrap(), []);
    assert!(numbers(&mut it).into_iter().eq(4..=40));
}

/// Nobody knows which of the two copies of a name is right, so neither function may lose its state.
#[test]
fn a_function_with_a_damaged_name_keeps_its_state() {
    let dir = closed(full());
    change(&dir.path().join("store.db"), |file| {
        let at = file.windows(5).rposition(|name| name == b"alert").unwrap();
        file[at] ^= 1;
    });
    let (mut it, recovery) = recover(dir.path());
    assert!(recovery.to_string().contains("\"alert\""), "{recovery}");
    let alert = it.store.function("alert").unwrap();
    assert_eq!(bytes(it.reader.state(alert, "pump-7", b"k").unwrap()), Some(b"v".to_vec()));
    assert_eq!(it.store.state_bytes(alert), 2);
}

#[test]
fn a_recovery_that_was_cut_off_is_taken_up_again() {
    for moved in 0..=2 {
        let dir = cut_off(full());
        let path = dir.path();
        fs::write(path.join("condemned"), "quarantine-4\n\nthe power went").unwrap();
        fs::create_dir(path.join("quarantine-4")).unwrap();
        for name in ["store.db-wal", "store.db"].into_iter().take(moved) {
            fs::rename(path.join(name), path.join("quarantine-4").join(name)).unwrap();
        }
        if moved == 2 {
            // A fresh store that was not filled.
            fs::copy(path.join("lock"), path.join("quarantine-4/lock")).unwrap();
            fs::write(path.join("store.db"), [1; 4096]).unwrap();
        }
        let error = Store::open(path).unwrap_err();
        assert!(error.to_string().contains("the power went"), "{error}");
        let (store, recovery) = Store::open_or_recover(path).unwrap();
        let recovery = recovery.unwrap();
        assert_eq!(recovery.quarantine, path.join("quarantine-4"));
        assert_eq!(lost(&recovery.survey), []);
        assert_eq!(recovery.survey.queues[0].whole, 37);
        drop(store);
        assert!(Store::open_or_recover(path).unwrap().1.is_none());
    }
}

#[test]
fn records_that_cannot_be_read_are_passed_over_and_remembered() {
    let mut it = full();
    it.raw().execute_batch("UPDATE outbox_normal SET checksum = 0 WHERE id = 4").unwrap();
    assert!(it.reader.range(Class::Normal, 0, 10, usize::MAX).is_err());
    let skip = |first, last| Write::Lost { class: Class::Normal, first, last, reason: "its checksum is wrong".into() };
    assert_eq!(it.store.commit(&[skip(4, 41)]).unwrap_err().kind(), ErrorKind::Other);
    // The second one comes too late, and changes nothing.
    it.store.commit(&[skip(4, 4), delivered(Class::Normal, 4), skip(3, 4)]).unwrap();
    assert_eq!(it.reader.range(Class::Normal, 0, 10, usize::MAX).unwrap().first, 5);
    let mut it = it.reopen();
    let [(1, missing)] = &it.reader.missing(0, 10).unwrap()[..] else { panic!("one range is missing") };
    assert_eq!((missing.epoch, missing.queue, missing.first, missing.last), (it.store.epoch(), NORMAL, 4, Some(4)));
    assert_eq!(missing.reason, "its checksum is wrong");
}

#[test]
fn looking_at_a_store_changes_nothing_and_disturbs_nobody() {
    let listing = |dir: &Path| {
        let mut files: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|file| file.unwrap())
            .map(|file| (file.file_name(), fs::read(file.path()).unwrap()))
            .collect();
        files.sort();
        files
    };
    for dir in [cut_off(full()), closed(full())] {
        let before = listing(dir.path());
        let (mut records, mut others) = (0, 0);
        let survey = inspect(dir.path(), |item| {
            match item {
                Item::Record { .. } => records += 1,
                _ => others += 1,
            }
            true
        })
        .unwrap();
        assert!(survey.is_whole(), "{survey:?}");
        assert_eq!((records, others), (39, 2));
        assert!(listing(dir.path()) == before);
    }
    // Beside the one that writes, and in the middle of its work.
    let mut it = full();
    assert_eq!(inspect(it.dir.path(), |_| true).unwrap().queues[0].whole, 37);
    it.store.commit(&[it.emit(Class::Normal, b"more")]).unwrap();
    assert_eq!(inspect(it.dir.path(), |_| true).unwrap().queues[0].whole, 38);
}

#[test]
fn a_copy_is_salvaged_elsewhere() {
    let dir = cut_off(full());
    let out = tempfile::tempdir().unwrap();
    let to = out.path().join("new");
    let survey = salvage_copy(dir.path(), &to).unwrap();
    assert_eq!(survey.queues[0].whole, 37);
    let again = salvage_copy(dir.path(), &to).unwrap_err();
    assert!(again.to_string().contains("not empty"), "{again}");
    let store = Store::open(&to).unwrap();
    assert_ne!(Some(store.epoch()), survey.epoch);
    assert_eq!(records(&store), 41);
    assert_eq!(raw(&to).query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
}

/// What was delivered ahead of the mark is not carried over, and what is gone and was not told still is told.
#[test]
fn runs_are_carried_over_as_what_they_are() {
    let mut it = full();
    let dropped = |sequences: &[u64]| Write::Dropped {
        class: Class::Normal,
        sequences: sequences.to_vec(),
        reason: Reason::Oldest,
    };
    it.store.commit(&[dropped(&[10, 11, 12]), dropped(&[20]), Write::Powered { boot: 9, monotonic_us: 8 }]).unwrap();
    let delivered = Write::Delivered { class: Class::Normal, ranges: vec![(11, 11), (20, 24), (30, 40)] };
    it.store.commit(&[delivered, Write::Metered(Metered { month: 1, bytes: 2 })]).unwrap();
    it.raw().execute_batch("UPDATE outbox_normal SET checksum = 0 WHERE id = 4").unwrap();
    let old = it.store.epoch();
    let (mut it, recovery) = recover(closed(it).path());
    let queue = &recovery.survey.queues[0];
    assert_eq!((queue.whole, queue.settled, queue.gone[0].count), (37 - 1 - 3 - 5 - 11, 16, 3), "{recovery}");
    assert!(numbers(&mut it).into_iter().eq((5..=9).chain(13..=19).chain(25..=29)));
    let gone = it.reader.gone(Class::Normal, 0, 10).unwrap();
    assert_eq!(gone.iter().map(|run| (run.first, run.last())).collect::<Vec<_>>(), [(6, Some(8))]);
    assert_eq!(it.reader.metered().unwrap(), Metered { month: 1, bytes: 2 });
    assert_eq!(it.reader.boots().unwrap()[0].boot, 9);

    // What was lost with it is told under its own epoch, once.
    let untold = it.reader.untold().unwrap().unwrap();
    assert_eq!((untold.epoch, untold.class, untold.first, untold.last), (old, Class::Normal, 4, 4));
    it.store.commit(&[Write::Told { id: untold.id }]).unwrap();
    assert_eq!(it.reader.untold().unwrap(), None);
}

/// The answer came, and could not be written because of the damage.
#[test]
fn what_was_confirmed_when_a_store_is_given_up_is_not_carried_over() {
    let it = full();
    it.raw().execute_batch("UPDATE outbox_normal SET checksum = 0 WHERE id = 25").unwrap();
    let Fixture { dir, store, reader, .. } = it;
    drop(reader);
    let unwritten =
        [Write::Delivered { class: Class::Normal, ranges: vec![(4, 6), (20, 30)] }, Write::Published { up_to: 40 }];
    store.condemn("a page cannot be read", &unwritten).unwrap();
    let (mut it, recovery) = recover(dir.path());
    assert!(numbers(&mut it).into_iter().eq((7..=19).chain(31..=40)), "{recovery}");
    assert_eq!((lost(&recovery.survey), it.reader.publishes(0, 10).unwrap()), (vec![], vec![]));
}

#[test]
fn a_count_that_is_not_that_of_the_rows_is_named() {
    let it = full();
    it.raw().execute_batch("DELETE FROM outbox_normal WHERE id = 20").unwrap();
    let survey = inspect(it.dir.path(), |_| true).unwrap();
    assert_eq!(lost(&survey), [(NORMAL, 20, Some(20))]);
    assert!(
        survey.damage[0].contains("\"means\" has 37 records") && survey.damage[0].contains("and 38 of"),
        "{survey:?}"
    );
    it.raw().execute_batch("UPDATE streams SET records = 37").unwrap();
    let dir = closed(it);
    let error = Store::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("the table streams"), "{error}");
    recover(dir.path());
}
