//! Rows that are not as they were written.

use agent_store::{Damage, Deployment, ErrorKind, OutcomeResult, Store, Write};
use sync_protocol::fleet::FunctionStatus;
use sync_protocol::records::Class;

use crate::fixture::{Fixture, dead, outcome, publish, put};

/// Flips one bit of a value, which SQLite takes for as good as any other.
fn flip(it: &Fixture, column: &str, table: &str, filter: &str) {
    let raw = it.raw();
    let mut value: Vec<u8> =
        raw.query_row(&format!("SELECT {column} FROM {table} WHERE {filter}"), [], |row| row.get(0)).unwrap();
    let middle = value.len() / 2;
    value[middle] ^= 0x10;
    assert_eq!(raw.execute(&format!("UPDATE {table} SET {column} = ?1 WHERE {filter}"), [value]), Ok(1));
    let verdict: String = raw.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}

fn with_records(class: Class) -> Fixture {
    let mut it = Fixture::new();
    let writes: Vec<_> = (1..=9).map(|n| it.emit(class, &[n; 100])).collect();
    it.store.commit(&writes).unwrap();
    it
}

#[test]
fn a_damaged_record_is_named_and_never_skipped() {
    for (class, table) in [(Class::Normal, "outbox_normal"), (Class::High, "outbox_high")] {
        let mut it = with_records(class);
        flip(&it, "body", table, "id = 5");
        assert_eq!(it.bodies(class, 0).len(), 4, "what is whole before it can still be delivered");
        let error = it.reader.range(class, 4, 10, usize::MAX).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(matches!(error.damage(), Some(Damage::Record { class: c, sequence: 5, .. }) if *c == class), "{error}");
        assert!(error.to_string().contains(&format!("record 5 of class {class:?}")), "{error}");
        assert_eq!(it.bodies(class, 5).len(), 4);
    }
}

#[test]
fn a_wrong_checksum_is_damage_too() {
    let mut it = with_records(Class::Normal);
    it.raw().execute_batch("UPDATE outbox_normal SET checksum = checksum + 1 WHERE id = 1").unwrap();
    let error = it.reader.range(Class::Normal, 0, 10, usize::MAX).unwrap_err();
    assert!(matches!(error.damage(), Some(Damage::Record { sequence: 1, .. })), "{error}");
}

#[test]
fn missing_records_are_named_and_never_skipped() {
    let mut it = with_records(Class::High);
    it.raw().execute_batch("DELETE FROM outbox_high WHERE id IN (4, 5)").unwrap();
    assert_eq!(it.bodies(Class::High, 0).len(), 3);
    let error = it.reader.range(Class::High, 3, 10, usize::MAX).unwrap_err();
    assert_eq!(error.damage(), Some(&Damage::MissingRecords { class: Class::High, first: 4, last: 5 }));
    assert!(error.to_string().contains("records 4 to 5 of class High are missing"), "{error}");
}

#[test]
fn damage_at_the_ends_of_a_queue_is_found_on_opening() {
    let missing = |first, last| Damage::MissingRecords { class: Class::Normal, first, last };
    for (sql, expected) in [
        ("DELETE FROM outbox_normal WHERE id = 1", Some(missing(1, 1))),
        ("DELETE FROM outbox_normal WHERE id < 9", Some(missing(1, 8))),
        ("UPDATE meta SET value = -1 WHERE name = 'outbox_normal'", None),
        ("UPDATE meta SET value = 1024 WHERE name = 'outbox_normal'", None),
        ("UPDATE outbox_normal SET id = -1 WHERE id = 1", None),
        ("UPDATE outbox_normal SET id = 9223372036854775807 WHERE id = 9", None),
        ("UPDATE outbox_normal SET checksum = 0 WHERE id = 9", None),
        ("UPDATE outbox_normal SET checksum = 0 WHERE id = 1", None),
    ] {
        let it = with_records(Class::Normal);
        it.raw().execute_batch(sql).unwrap();
        let Fixture { dir, store, reader, .. } = it;
        drop((store, reader));
        let error = Store::open(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{sql}: {error}");
        if expected.is_some() {
            assert_eq!(error.damage(), expected.as_ref());
        }
    }
}

#[test]
fn damaged_state_and_handled_events_are_named() {
    let mut it = Fixture::new();
    let mut write = it.effects(vec![put(b"key", b"value")]);
    if let Write::Outcome(outcome) = &mut write {
        outcome.seen = Some(("source-1".into(), vec![1; 33]));
    }
    it.store.commit(&[write]).unwrap();
    flip(&it, "value", "state", "true");
    flip(&it, "value", "seen", "true");
    let error = it.reader.state(it.function, "pump-7", b"key").unwrap_err();
    assert!(matches!(error.damage(), Some(Damage::State { key, .. }) if key == b"key"), "{error}");
    let error = it.reader.seen(it.function, "pump-7", "source-1").unwrap_err();
    assert!(matches!(error.damage(), Some(Damage::Seen { of, .. }) if of == "source-1"), "{error}");
}

#[test]
fn a_value_under_the_key_of_another_is_damage() {
    let mut it = Fixture::new();
    it.store.commit(&[it.effects(vec![put(b"a", b"value")])]).unwrap();
    it.raw().execute_batch("UPDATE state SET key = x'62'").unwrap();
    assert!(it.reader.state(it.function, "pump-7", b"b").unwrap_err().damage().is_some());
}

#[test]
fn damaged_publishes_dead_letters_and_deployments_are_named() {
    let mut it = Fixture::new();
    let deployment = Deployment {
        deployment: 1,
        status: FunctionStatus::Failed,
        detail: "no such file".into(),
        current: None,
        previous: None,
        refused: None,
    };
    it.store
        .commit(&[
            it.effects(vec![publish("t", b"1"), publish("t", b"2"), publish("t", b"3")]),
            outcome(it.function, OutcomeResult::Dead(dead())),
            outcome(it.function, OutcomeResult::Dead(dead())),
            Write::Deployment("mean".into(), Some(deployment)),
        ])
        .unwrap();
    flip(&it, "body", "publishes", "id = 2");
    flip(&it, "body", "dead_letters", "id = 2");
    flip(&it, "value", "deployments", "true");

    assert_eq!(it.reader.publishes(0, 10).unwrap().len(), 1);
    let error = it.reader.publishes(1, 10).unwrap_err();
    assert!(matches!(error.damage(), Some(Damage::Publish { id: 2, .. })), "{error}");
    assert_eq!(it.reader.publishes(2, 10).unwrap().len(), 1);
    it.raw().execute_batch("DELETE FROM publishes WHERE id = 2").unwrap();
    let error = it.reader.publishes(1, 10).unwrap_err();
    assert_eq!(error.damage(), Some(&Damage::MissingPublishes { first: 2, last: 2 }));

    assert_eq!(it.reader.dead_letters(0, 10).unwrap().len(), 1);
    let error = it.reader.dead_letters(1, 10).unwrap_err();
    assert!(matches!(error.damage(), Some(Damage::DeadLetter { id: 2, .. })), "{error}");

    let error = it.reader.deployments().unwrap_err();
    assert!(matches!(error.damage(), Some(Damage::Deployment { function, .. }) if function == "mean"), "{error}");
}

/// A mark that jumped would have the store take what waits for delivered, and delete it.
#[test]
fn a_damaged_mark_hides_no_records() {
    let mut it = with_records(Class::Normal);
    it.raw().execute_batch("UPDATE meta SET value = 8 WHERE name = 'outbox_normal'").unwrap();
    for error in [it.reader.range(Class::Normal, 0, 10, usize::MAX).unwrap_err(), it.reader.outbox().unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("outbox_normal"), "{error}");
    }
}

/// A name that changed would give the function a new number, and so take its state away.
#[test]
fn a_damaged_function_name_is_found_on_opening() {
    let it = Fixture::new();
    let Fixture { dir, store, reader, .. } = it;
    drop((store, reader));
    let path = dir.path().join("store.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(4).rposition(|name| name == b"mean").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("functions"), "{error}");
}

/// A page of the outbox overwritten: SQLite itself says so, and it is not taken for an empty outbox.
#[test]
fn a_damaged_page_is_an_error() {
    let mut it = Fixture::new();
    let effects: Vec<_> = (0..2000).map(|_| crate::fixture::emit(Class::Normal, &[3; 200])).collect();
    it.store.commit(&[it.effects(effects)]).unwrap();
    let root = it
        .raw()
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'outbox_normal'", [], |row| {
            row.get::<_, i64>(0).map(i64::cast_unsigned)
        })
        .unwrap() as usize;
    let Fixture { dir, store, reader, .. } = it;
    drop((store, reader));
    let path = dir.path().join("store.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let page = (root - 1) * 4096;
    bytes[page..page + 4096].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

/// How much state a function has is checked on opening, and against the state itself when somebody looks.
#[test]
fn a_wrong_count_of_state_is_found() {
    let mut it = Fixture::new();
    it.store.commit(&[it.effects(vec![crate::fixture::put(b"key", b"value")])]).unwrap();
    it.raw().execute_batch("DELETE FROM state").unwrap();
    let survey = agent_store::inspect(it.dir.path(), |_| true).unwrap();
    assert!(survey.damage[0].contains("has 0 bytes of state, and 8 were counted"), "{:?}", survey.damage);
    it.raw().execute_batch("UPDATE functions SET state_bytes = 0").unwrap();
    let error = it.reader.state_bytes(it.function).unwrap_err();
    assert!(error.to_string().contains("0 is not the number of bytes of state that was stored"), "{error}");
    let Fixture { dir, store, reader, .. } = it;
    drop((store, reader));
    assert_eq!(Store::open(dir.path()).unwrap_err().kind(), ErrorKind::Corrupt);
    let (store, recovery) = Store::open_or_recover(dir.path()).unwrap();
    assert!(recovery.is_some());
    assert_eq!(store.state_bytes(agent_store::FunctionId(1)), 0);
}

/// The time of a value's end is part of what its checksum is over.
#[test]
fn a_damaged_end_of_a_value_is_named() {
    let mut it = Fixture::new();
    it.store.commit(&[it.effects(vec![crate::fixture::put(b"key", b"value")])]).unwrap();
    it.raw().execute_batch("UPDATE state SET expires_us = 1").unwrap();
    assert!(it.reader.state(it.function, "pump-7", b"key").unwrap_err().damage().is_some());
}
