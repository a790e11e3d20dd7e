//! What a commit stores, and what a reader gets back.

use agent_core::StateValue;
use agent_core::effect::{Effect, PublishFlags};
use agent_store::{
    DeadLetter, Deployment, EXPIRE_ROWS, ErrorKind, Installed, MAX_READ_BYTES, MAX_RECORD_BYTES, OutcomeResult,
    Publish, TRIM_BYTES, TRIM_ROWS, Write,
};
use sync_protocol::fleet::FunctionStatus;
use sync_protocol::records::{Class, Entry, Origin, Record};

use crate::fixture::{Fixture, bytes, dead, delivered, emit, event, outcome, publish, put, stamp};

#[test]
fn all_effects_of_an_outcome_are_read_back() {
    let mut it = Fixture::new();
    let mut write = it.effects(vec![
        put(b"a", b"1"),
        put(b"b", b"2"),
        put(b"a", b"3"),
        Effect::StateDelete { key: b"b".into() },
        put(b"", b""),
        emit(Class::Normal, b"n"),
        emit(Class::High, b"h"),
        publish("out/1", b"p"),
    ]);
    if let Write::Outcome(outcome) = &mut write {
        outcome.seen = Some(("pump-7".into(), vec![1, 2, 3]));
    }
    let committed = it.store.commit(&[write]).unwrap();
    assert_eq!((committed.records, committed.publishes), ([1, 1], 1));
    assert_eq!((committed.dead_letters, committed.leftover), (0, 0));

    let mut state = |partition: &str, key: &[u8]| bytes(it.reader.state(it.function, partition, key).unwrap());
    assert_eq!(state("pump-7", b"a"), Some(b"3".to_vec()));
    assert_eq!(state("pump-7", b"b"), None);
    assert_eq!(state("pump-7", b""), Some(vec![]));
    assert_eq!(state("pump-8", b"a"), None);
    assert_eq!(it.reader.seen(it.function, "pump-7", "pump-7").unwrap(), Some(vec![1, 2, 3]));
    assert_eq!(it.reader.seen(it.function, "pump-7", "pump-8").unwrap(), None);

    let range = it.reader.range(Class::High, 0, 10, usize::MAX).unwrap();
    let origin = Origin { device: "pump-7".into(), topic: "plant/pump-7/temperature".into(), identity: Some((3, 9)) };
    let record =
        Record { stream: "means".into(), function: "mean".into(), origin, stamp: stamp(), body: b"h".to_vec() };
    assert_eq!((range.first, range.entries), (1, vec![Entry::Record(record)]));
    assert_eq!(it.bodies(Class::Normal, 0), [b"n"]);

    let expected = Publish {
        id: 1,
        device: "pump-7".into(),
        topic: "out/1".into(),
        payload: (*b"p").into(),
        flags: PublishFlags { qos: 1, retain: true },
    };
    assert_eq!(it.reader.publishes(0, 10).unwrap(), [expected]);
}

#[test]
fn functions_have_numbers_and_states_of_their_own() {
    let mut it = Fixture::new();
    let other = it.store.function("alert").unwrap();
    assert_ne!(other, it.function);
    assert_eq!(it.store.function("mean").unwrap(), it.function);
    it.store.commit(&[outcome(other, OutcomeResult::Effects(vec![put(b"k", b"v")]))]).unwrap();
    let mut it = it.reopen();
    assert_eq!(it.store.function("alert").unwrap(), other);
    assert_eq!(it.reader.state(it.function, "pump-7", b"k").unwrap(), None);
    assert_eq!(bytes(it.reader.state(other, "pump-7", b"k").unwrap()), Some(b"v".to_vec()));
}

#[test]
fn a_dead_letter_has_the_whole_event() {
    let mut it = Fixture::new();
    let mut write = outcome(it.function, OutcomeResult::Dead(dead()));
    if let Write::Outcome(outcome) = &mut write {
        outcome.seen = Some(("pump-7".into(), vec![1]));
    }
    let committed = it.store.commit(&[write, outcome(it.function, OutcomeResult::Dead(dead()))]).unwrap();
    assert_eq!(committed.dead_letters, 2);
    assert_eq!(it.reader.dead_letter_count().unwrap(), 2);
    assert_eq!(it.reader.seen(it.function, "pump-7", "pump-7").unwrap(), Some(vec![1]));
    let letter = |id| DeadLetter { id, function: "mean".into(), event: event(), stamp: stamp(), dead: dead() };
    assert_eq!(it.reader.dead_letters(0, 10).unwrap(), [letter(1), letter(2)]);
    assert_eq!(it.reader.dead_letters(0, 1).unwrap(), [letter(1)]);
    assert_eq!(it.reader.dead_letters(1, 10).unwrap(), [letter(2)]);
    assert_eq!(it.reader.dead_letters(u64::MAX, 10).unwrap(), []);
}

#[test]
fn a_duplicate_writes_nothing() {
    let mut it = Fixture::new();
    let mut write = outcome(it.function, OutcomeResult::Nothing);
    if let Write::Outcome(outcome) = &mut write {
        outcome.seen = Some(("pump-7".into(), vec![1]));
    }
    it.store.commit(&[write]).unwrap();
    assert_eq!(it.reader.seen(it.function, "pump-7", "pump-7").unwrap(), None);
}

#[test]
fn deployments_are_set_replaced_and_removed() {
    let mut it = Fixture::new();
    let installed = |deployment| Installed {
        deployment,
        digest: [deployment as u8; 32],
        version: "1.0.0".into(),
        config: vec![("limit".into(), "40".into())],
    };
    let deployment = |number, status| Deployment {
        deployment: number,
        status,
        detail: "first events are watched".into(),
        current: Some(installed(number)),
        previous: None,
        refused: Some([1; 32]),
    };
    let set = |name: &str, deployment| Write::Deployment(name.into(), Some(deployment));
    let (trial, running) = (deployment(1, FunctionStatus::Trial), deployment(2, FunctionStatus::Running));
    it.store.commit(&[set("b", trial.clone()), set("a", trial.clone()), set("b", running.clone())]).unwrap();
    let mut it = it.reopen();
    assert_eq!(it.reader.deployments().unwrap(), [("a".into(), trial), ("b".into(), running.clone())]);
    it.store.commit(&[Write::Deployment("a".into(), None), Write::Deployment("never".into(), None)]).unwrap();
    assert_eq!(it.reader.deployments().unwrap(), [("b".into(), running)]);
}

#[test]
fn a_range_keeps_its_bounds() {
    let mut it = Fixture::new();
    let writes: Vec<_> = (0..10).map(|n| it.emit(Class::Normal, &[n; 1000])).collect();
    it.store.commit(&writes).unwrap();
    let mut range = |after, records, bytes| {
        let range = it.reader.range(Class::Normal, after, records, bytes).unwrap();
        (range.first, range.entries.len())
    };
    assert_eq!(range(0, 100, usize::MAX), (1, 10));
    assert_eq!(range(4, 3, usize::MAX), (5, 3));
    assert_eq!(range(4, 100, 3500), (5, 3));
    assert_eq!(range(4, 100, 0), (5, 1));
    assert_eq!(range(4, 0, usize::MAX), (5, 0));
    assert_eq!(range(10, 100, usize::MAX), (11, 0));
    assert_eq!(range(u64::MAX, 100, usize::MAX), (u64::MAX, 0));
}

#[test]
fn lists_keep_their_bound_in_bytes() {
    let mut it = Fixture::new();
    let large = vec![0; MAX_READ_BYTES / 2 - 100];
    let mut died = outcome(it.function, OutcomeResult::Dead(dead()));
    if let Write::Outcome(outcome) = &mut died {
        outcome.event.payload = vec![0; MAX_READ_BYTES + 1].into();
    }
    it.store.commit(&[it.effects(vec![publish("t", &large); 3]), died.clone(), died]).unwrap();
    let ids: Vec<_> = it.reader.publishes(0, 10).unwrap().into_iter().map(|publish| publish.id).collect();
    assert_eq!(ids, [1, 2]);
    assert_eq!(it.reader.publishes(2, 10).unwrap().len(), 1);
    assert_eq!(it.reader.dead_letters(0, 10).unwrap().len(), 1);
}

#[test]
fn numbers_are_never_given_twice() {
    let mut it = Fixture::new();
    for class in Class::ALL {
        it.store.commit(&[it.emit(class, b"1"), it.emit(class, b"2"), it.effects(vec![publish("t", b"1")])]).unwrap();
        it.store.commit(&[delivered(class, 2)]).unwrap();
    }
    it.store.commit(&[Write::Published { up_to: 2 }]).unwrap();
    assert_eq!(it.raw().query_row("SELECT count(*) FROM outbox_high", [], |row| row.get::<_, i64>(0)), Ok(0));

    let mut it = it.reopen();
    let outbox = it.reader.outbox().unwrap();
    assert_eq!((outbox.class(Class::High).first, outbox.class(Class::High).next), (3, 3));
    for class in Class::ALL {
        it.store.commit(&[it.emit(class, b"3")]).unwrap();
        let range = it.reader.range(class, 0, 10, usize::MAX).unwrap();
        assert_eq!((range.first, range.entries.len()), (3, 1));
    }
    let committed = it.store.commit(&[it.effects(vec![publish("t", b"3")])]).unwrap();
    assert_eq!((committed.records, committed.publishes), ([3, 3], 3));
    assert_eq!(it.reader.publishes(0, 10).unwrap()[0].id, 3);
}

#[test]
fn what_was_delivered_is_never_handed_out_again_though_deleted_by_and_by() {
    let mut it = Fixture::new();
    let all = 2 * TRIM_ROWS as u64 + 10;
    let effects = (0..all).map(|_| emit(Class::Normal, b"x")).collect();
    it.store.commit(&[it.effects(effects)]).unwrap();
    let committed = it.store.commit(&[delivered(Class::Normal, all - 5)]).unwrap();
    assert_eq!(committed.leftover, all - 5 - TRIM_ROWS as u64);
    assert_eq!(it.bodies(Class::Normal, 0).len(), 5);
    assert_eq!(it.reader.outbox().unwrap().class(Class::Normal).first, all - 4);

    let mut it = it.reopen();
    let range = it.reader.range(Class::Normal, 0, 10, usize::MAX).unwrap();
    assert_eq!((range.first, range.entries.len()), (all - 4, 5));
    assert_eq!(it.store.commit(&[]).unwrap().leftover, 5);
    assert_eq!(it.store.commit(&[]).unwrap().leftover, 0);
    let stored: i64 = it.raw().query_row("SELECT count(*) FROM outbox_normal", [], |row| row.get(0)).unwrap();
    assert_eq!(stored, 5);
}

#[test]
fn large_rows_are_deleted_by_their_bytes() {
    let mut it = Fixture::new();
    let body = vec![1; TRIM_BYTES / 4];
    it.store.commit(&[it.effects(vec![emit(Class::Normal, &body); 10])]).unwrap();
    let committed = it.store.commit(&[delivered(Class::Normal, 10)]).unwrap();
    assert_eq!(committed.leftover, 6);
}

#[test]
fn an_old_mark_changes_nothing_and_one_from_the_future_is_refused() {
    let mut it = Fixture::new();
    it.store.commit(&[it.emit(Class::Normal, b"1"), it.emit(Class::Normal, b"2")]).unwrap();
    it.store.commit(&[delivered(Class::Normal, 1)]).unwrap();
    it.store.commit(&[delivered(Class::Normal, 0)]).unwrap();
    assert_eq!(it.bodies(Class::Normal, 0), [b"2"]);
    for write in [delivered(Class::Normal, 3), delivered(Class::High, 1), Write::Published { up_to: u64::MAX }] {
        let error = it.store.commit(&[it.emit(Class::Normal, b"3"), write]).unwrap_err();
        assert_eq!((error.kind(), error.write()), (ErrorKind::Other, Some(1)), "{error}");
    }
    assert_eq!(it.bodies(Class::Normal, 0), [b"2"]);
}

#[test]
fn a_record_that_could_never_be_delivered_is_refused() {
    let mut it = Fixture::new();
    let room = MAX_RECORD_BYTES - 100;
    it.store.commit(&[it.emit(Class::Normal, &vec![0; room])]).unwrap();
    let error = it.store.commit(&[it.emit(Class::Normal, &vec![0; MAX_RECORD_BYTES])]).unwrap_err();
    assert!(error.to_string().contains("function \"mean\" for stream \"means\""), "{error}");
    assert_eq!(it.bodies(Class::Normal, 0).len(), 1);
}

/// The statement of the n-th write fails in the middle of its group; nothing of the group is there, also after a
/// restart, and no number is lost.
#[test]
fn a_failure_in_the_middle_leaves_nothing() {
    let mut it = Fixture::new();
    it.raw()
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON state WHEN new.key = x'ff' BEGIN
                 SELECT RAISE(ABORT, 'refused by the test');
             END",
        )
        .unwrap();
    let mut first = it.effects(vec![put(b"k", b"v"), emit(Class::High, b"h"), publish("t", b"p")]);
    if let Write::Outcome(outcome) = &mut first {
        outcome.seen = Some(("pump-7".into(), vec![1]));
    }
    let group = [
        first.clone(),
        outcome(it.function, OutcomeResult::Dead(dead())),
        Write::Deployment("f".into(), None),
        delivered(Class::High, 0),
        it.effects(vec![emit(Class::Normal, b"n"), put(&[0xff], b"v")]),
        it.emit(Class::Normal, b"after"),
    ];
    let error = it.store.commit(&group).unwrap_err();
    assert_eq!(error.write(), Some(4));
    assert!(error.to_string().contains("refused by the test"), "{error}");

    let nothing = |it: &mut Fixture| {
        assert_eq!(it.reader.state(it.function, "pump-7", b"k").unwrap(), None);
        assert_eq!(it.reader.seen(it.function, "pump-7", "pump-7").unwrap(), None);
        assert_eq!(it.reader.outbox().unwrap().class(Class::Normal).next, 1);
        assert_eq!(it.reader.outbox().unwrap().class(Class::High).next, 1);
        assert_eq!(it.reader.publishes(0, 10).unwrap(), []);
        assert_eq!((it.reader.dead_letters(0, 10).unwrap(), it.reader.dead_letter_count().unwrap()), (vec![], 0));
    };
    nothing(&mut it);
    let committed = it.store.commit(&[]).unwrap();
    assert_eq!((committed.records, committed.publishes, committed.dead_letters), ([0, 0], 0, 0));
    let mut it = it.reopen();
    nothing(&mut it);
    assert_eq!(it.store.commit(&[first]).unwrap().records, [0, 1]);
    assert_eq!(it.bodies(Class::High, 0), [b"h"]);
}

/// Readers that read all the time do not keep the write-ahead log from being carried over.
#[test]
fn the_log_stays_short_beside_a_busy_reader() {
    let mut it = Fixture::new();
    let log = it.dir.path().join("store.db-wal");
    let mut longest = 0;
    for round in 0..60u64 {
        it.store.commit(&[it.effects(vec![emit(Class::Normal, &[7; 10_000]); 50])]).unwrap();
        it.reader.range(Class::Normal, round, 100, 1 << 20).unwrap();
        it.reader.outbox().unwrap();
        longest = longest.max(std::fs::metadata(&log).unwrap().len());
    }
    let written = std::fs::metadata(it.dir.path().join("store.db")).unwrap().len();
    assert!(written > 20 << 20, "{written} bytes are in the database");
    assert!(longest < 8 << 20, "the log grew to {longest} bytes");
}

#[test]
fn keys_of_the_state_are_found_in_order_within_function_and_partition() {
    let mut it = Fixture::new();
    let other = it.store.function("alert").unwrap();
    let puts = [b"b".as_slice(), b"a", b"ab", b"\xff"].map(|key| put(key, b"v")).to_vec();
    it.store.commit(&[it.effects(puts), outcome(other, OutcomeResult::Effects(vec![put(b"aa", b"v")]))]).unwrap();
    let mut next = |prefix: &[u8], after: &[u8]| it.reader.next_key(it.function, "pump-7", prefix, after, 0).unwrap();
    assert_eq!(next(b"", b""), Some(b"a".to_vec()));
    assert_eq!(next(b"a", b"a"), Some(b"ab".to_vec()));
    assert_eq!(next(b"a", b"ab"), None);
    assert_eq!(next(b"", b"b"), Some(b"\xff".to_vec()));
    assert_eq!((next(b"c", b""), next(b"", b"\xff")), (None, None));
}

/// What the function puts for so many seconds, by an event of this time.
fn put_for(it: &Fixture, time_us: u64, puts: &[(&[u8], Option<u32>)]) -> Write {
    let effects =
        puts.iter().map(|(key, ttl_s)| Effect::StatePut { key: key.to_vec(), value: b"v".to_vec(), ttl_s: *ttl_s });
    let mut write = it.effects(effects.collect());
    if let Write::Outcome(outcome) = &mut write {
        outcome.event.time_us = time_us;
    }
    write
}

#[test]
fn values_end_by_the_time_of_events_and_are_deleted_in_steps() {
    let mut it = Fixture::new();
    let write = put_for(&it, 5_000_000, &[(b"a", None), (b"b", Some(1)), (b"c", Some(2)), (b"d", Some(u32::MAX))]);
    it.store.commit(&[write]).unwrap();
    let mut it = it.reopen();
    let ends =
        |it: &mut Fixture, key: &[u8]| it.reader.state(it.function, "pump-7", key).unwrap().map(|of| of.expires_us);
    assert_eq!(ends(&mut it, b"a"), Some(None));
    assert_eq!(
        it.reader.state(it.function, "pump-7", b"b").unwrap(),
        Some(StateValue { bytes: b"v".as_slice().into(), expires_us: Some(6_000_000) }),
        "it is there until it is deleted"
    );
    let next = |it: &mut Fixture, after: &[u8], time_us| {
        it.reader.next_key(it.function, "pump-7", b"", after, time_us).unwrap()
    };
    assert_eq!(next(&mut it, b"a", 5_999_999), Some(b"b".to_vec()));
    assert_eq!(next(&mut it, b"a", 6_000_000), Some(b"c".to_vec()));
    assert_eq!(next(&mut it, b"a", u64::MAX), None);
    assert!(!it.reader.has_ended_state(5_999_999).unwrap() && it.reader.has_ended_state(6_000_000).unwrap());
    it.store.commit(&[Write::StateEnded { time_us: 6_000_000 }]).unwrap();
    assert_eq!((ends(&mut it, b"b"), ends(&mut it, b"c")), (None, Some(Some(7_000_000))));
    assert_eq!(it.store.state_bytes(it.function), 6);
    // What is put without an end stays, and what is put anew before the deletion is not deleted.
    let writes = [
        put_for(&it, 6_500_000, &[(b"c", None)]),
        put_for(&it, 1_000_000_000, &[(b"d", Some(1))]),
        Write::StateEnded { time_us: 1_000_999_999 },
    ];
    it.store.commit(&writes).unwrap();
    assert_eq!((ends(&mut it, b"c"), ends(&mut it, b"d")), (Some(None), Some(Some(1_001_000_000))));

    let keys: Vec<Vec<u8>> = (0..EXPIRE_ROWS as u32 + 1).map(|key| key.to_be_bytes().to_vec()).collect();
    let puts: Vec<(&[u8], Option<u32>)> = keys.iter().map(|key| (key.as_slice(), Some(1))).collect();
    it.store.commit(&[put_for(&it, 0, &puts)]).unwrap();
    it.store.commit(&[Write::StateEnded { time_us: 1_000_000 }]).unwrap();
    assert!(it.reader.has_ended_state(1_000_000).unwrap());
    it.store.commit(&[Write::StateEnded { time_us: 1_000_000 }]).unwrap();
    assert!(!it.reader.has_ended_state(1_000_000).unwrap());
    assert_eq!(it.store.state_bytes(it.function), 6, "a, c and d");
}

/// A function may end very many values, and looking for them must not read those that stay.
#[test]
fn values_that_end_are_found_by_their_index() {
    let it = Fixture::new();
    for sql in [
        "SELECT EXISTS (SELECT 1 FROM state WHERE expires_us <= ?1)",
        "SELECT function, partition, key, length(key) + length(value) FROM state WHERE expires_us <= ?1 \
         ORDER BY expires_us LIMIT ?2",
    ] {
        let raw = it.raw();
        let mut plan = raw.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let count = plan.parameter_count();
        let plan = plan.query_map(rusqlite::params_from_iter(vec![1; count]), |row| row.get::<_, String>(3)).unwrap();
        let plan: Vec<String> = plan.map(Result::unwrap).collect();
        assert!(plan.iter().any(|step| step.contains("INDEX state_expiring (expires_us<?)")), "{plan:?}");
        assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{plan:?}");
    }
}

#[test]
fn the_state_of_each_function_is_counted() {
    let mut it = Fixture::new();
    let other = it.store.function("alert").unwrap();
    it.store.commit(&[it.effects(vec![put(b"a", b"12345"), put(b"bb", b""), put(b"a", b"123")])]).unwrap();
    it.store.commit(&[outcome(other, OutcomeResult::Effects(vec![put(b"a", b"1")]))]).unwrap();
    assert_eq!((it.store.state_bytes(it.function), it.store.state_bytes(other)), (6, 2));
    let refused = it.store.commit(&[it.effects(vec![put(b"c", b"1")]), Write::Published { up_to: 9 }]);
    assert!(refused.is_err());
    let mut it = it.reopen();
    assert_eq!(it.store.state_bytes(it.function), 6);
    it.store
        .commit(&[it.effects(vec![Effect::StateDelete { key: b"a".into() }, Effect::StateDelete { key: b"x".into() }])])
        .unwrap();
    assert_eq!((it.reader.state_bytes(it.function).unwrap(), it.reader.state_bytes(other).unwrap()), (2, 2));
    let functions = it.reader.functions().unwrap();
    let found: Vec<_> = functions.iter().map(|of| (of.id, &*of.name, of.state_bytes)).collect();
    assert_eq!(found, [(it.function, "mean", 2), (other, "alert", 2)]);
}

#[test]
fn a_report_is_a_record_of_the_gateways_own_stream() {
    let mut it = Fixture::new();
    let report = |name: &str, value: &[u8]| Effect::TwinReport { name: name.into(), value: value.into() };
    it.store.commit(&[it.effects(vec![report("battery", b"87"), report("raw", b"\xff\0")])]).unwrap();
    let range = it.reader.range(Class::Normal, 0, 10, usize::MAX).unwrap();
    let found: Vec<_> = range
        .entries
        .into_iter()
        .map(|entry| match entry {
            Entry::Record(Record { stream, origin, body, .. }) => {
                (stream, origin.device, String::from_utf8(body).unwrap())
            }
            Entry::Gone(gone) => panic!("{gone:?}"),
        })
        .collect();
    let record = |body: &str| ("@twin".to_owned(), "pump-7".to_owned(), body.to_owned());
    assert_eq!(
        found,
        [
            record(r#"{"property":"battery","value":{"text":"87"}}"#),
            record(r#"{"property":"raw","value":{"hex":"ff00"}}"#)
        ]
    );
    // As with the dead letters: full is full.
    it.store.refuse(agent_core::retention::Refused::Streams(vec!["@twin".into()]));
    it.store.commit(&[it.effects(vec![report("battery", b"86")])]).unwrap();
    assert!(matches!(it.reader.range(Class::Normal, 2, 10, usize::MAX).unwrap().entries[..], [Entry::Gone(_)]));
}
