//! Opening: what is made, what is found, what is refused.

use std::fs;

use agent_store::{ErrorKind, Store};
use sync_protocol::records::Class;

use crate::fixture::{Fixture, raw};

#[test]
fn a_store_is_created_once_and_keeps_its_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("var/lib/edge");
    let epoch = Store::open(&deep).unwrap().epoch();
    assert_ne!(epoch.0, 0);
    assert_eq!(Store::open(&deep).unwrap().epoch(), epoch);
    for file in ["store.db", "store.db-wal", "store.db-shm"] {
        let _ = fs::remove_file(deep.join(file));
    }
    assert_ne!(Store::open(&deep).unwrap().epoch(), epoch);
}

#[test]
fn commits_survive_a_restart() {
    let mut it = Fixture::new();
    it.store.commit(&[it.emit(Class::Normal, b"1")]).unwrap();
    let mut it = it.reopen();
    assert_eq!(it.bodies(Class::Normal, 0), [b"1"]);
}

#[test]
fn two_agents_never_share_a_store() {
    let it = Fixture::new();
    let error = Store::open(it.dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("another process"), "{error}");
    let Fixture { dir, store, .. } = it;
    drop(store);
    Store::open(dir.path()).unwrap();
}

#[test]
fn the_store_of_a_newer_agent_is_refused_by_its_version_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    raw(dir.path()).pragma_update(None, "user_version", 7).unwrap();
    let before = fs::read(dir.path().join("store.db")).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Newer);
    assert!(error.to_string().contains("version 7"), "{error}");
    assert_eq!(fs::read(dir.path().join("store.db")).unwrap(), before);
}

#[test]
fn the_database_of_another_program_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    raw(dir.path()).execute_batch("CREATE TABLE theirs (a); PRAGMA application_id = 18").unwrap();
    let before = fs::read(dir.path().join("store.db")).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Other);
    assert!(error.to_string().contains("another program"), "{error}");
    assert_eq!(fs::read(dir.path().join("store.db")).unwrap(), before);
}

#[test]
fn a_file_that_is_no_database_is_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("store.db"), [0xab; 8192]).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("edge-agent doctor"), "{error}");
}

#[test]
fn a_directory_that_cannot_be_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), b"").unwrap();
    let error = Store::open(&dir.path().join("file")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("directory cannot be created"), "{error}");
}

#[test]
fn a_missing_table_or_number_is_corrupt() {
    for (sql, named) in [
        ("DROP TABLE publishes", "publishes"),
        ("DELETE FROM meta WHERE name = 'epoch'", "epoch"),
        ("DELETE FROM meta WHERE name = 'outbox_high'", "outbox_high"),
        ("PRAGMA user_version = 0", "version is 0"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(dir.path()).unwrap());
        raw(dir.path()).execute_batch(sql).unwrap();
        let error = Store::open(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
}
