//! What a commit costs on the disk of the temporary folder, and how fast an outbox drains.
//!
//! An outcome here is a state value put, the handled events of its source, and one record with a body of 200 bytes; the
//! sources are 50, each with a partition of its own. Beside it, with the same settings, rows of 256 bytes are put into a
//! table that has nothing else: what SQLite itself takes on this disk.

use std::sync::Arc;

use agent_core::dedup::Seen;
use agent_core::effect::{Effect, Priority};
use agent_core::event::{Event, EventKind, Identity};
use agent_store::{FunctionId, Outcome, OutcomeResult, Store, Uses, Write};
use divan::Bencher;
use divan::counter::ItemsCount;
use rusqlite::{Connection, TransactionBehavior};
use sync_protocol::records::{Class, MAX_ENTRIES, MAX_RANGE_BYTES, Stamp};
use sync_protocol::usage::Counts;

const GROUPS: [u64; 3] = [1, 64, 1_024];
const SOURCES: u64 = 50;

/// Records that wait when the drain is measured.
const WAITING: u64 = 20 * 1_024;

struct Outcomes {
    function: FunctionId,
    names: Vec<Arc<str>>,
    seen: Vec<Seen>,
    next: u64,
}

impl Outcomes {
    fn new(store: &mut Store) -> Self {
        let names: Vec<Arc<str>> = (0..SOURCES).map(|source| format!("sensor-{source:04}").into()).collect();
        let seen = vec![Seen::default(); names.len()];
        Self { function: store.function("rolling-mean").expect("a function"), names, seen, next: 0 }
    }

    fn group(&mut self, outcomes: u64) -> Vec<Write> {
        (0..outcomes).map(|_| self.outcome()).collect()
    }

    fn outcome(&mut self) -> Write {
        let (number, source) = (self.next, (self.next % SOURCES) as usize);
        self.next += 1;
        let device = self.names[source].clone();
        let identity = Identity { source: device.clone(), boot: 1, sequence: 1 + number / SOURCES };
        self.seen[source].mark(&identity, number as u32);
        Write::Outcome(Outcome {
            function: self.function,
            function_name: "rolling-mean".into(),
            partition: device.clone(),
            seen: Some((device.clone(), self.seen[source].to_bytes())),
            uses: Uses::Nothing,
            blobs: Vec::new(),
            usage: Counts { invocations: 1, fuel: 20_000, busy_ns: 20_000, ..Counts::default() },
            event: Event {
                identity: Some(identity),
                ..Event::new(EventKind::Mqtt, device, "plant/line-3/temperature", [], number)
            },
            stamp: Stamp { wall_us: number, monotonic_us: number, boot: 1, synchronised: true },
            result: OutcomeResult::Effects(vec![
                Effect::StatePut { key: b"mean".to_vec(), value: number.to_le_bytes().repeat(8), ttl_s: None },
                Effect::Emit { stream: "means".into(), body: vec![number as u8; 200], priority: Priority::Normal },
            ]),
        })
    }
}

#[divan::bench(args = GROUPS, sample_size = 1)]
fn commit(bencher: Bencher, group: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = Store::open(folder.path()).expect("a store");
    let mut outcomes = Outcomes::new(&mut store);
    bencher
        .counter(ItemsCount::new(group))
        .with_inputs(|| outcomes.group(group))
        .bench_local_refs(|writes| store.commit(writes).expect("a commit"));
}

#[divan::bench(args = GROUPS, sample_size = 1)]
fn bare_rows(bencher: Bencher, group: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut connection = Connection::open(folder.path().join("bare.db")).expect("a database");
    let _: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).expect("WAL");
    connection
        .execute_batch("PRAGMA synchronous = FULL; CREATE TABLE bare (id INTEGER PRIMARY KEY, value BLOB NOT NULL)")
        .expect("a table");
    bencher.counter(ItemsCount::new(group)).bench_local(|| insert(&mut connection, group).expect("a commit"));
}

fn insert(connection: &mut Connection, rows: u64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut insert = transaction.prepare_cached("INSERT INTO bare (value) VALUES (?1)")?;
    for _ in 0..rows {
        insert.execute([&[7_u8; 256][..]])?;
    }
    drop(insert);
    transaction.commit()
}

/// All that waits is read and settled, range by range.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn drain(bencher: Bencher) {
    bencher
        .counter(ItemsCount::new(WAITING))
        .with_inputs(|| {
            let folder = tempfile::tempdir().expect("a folder");
            let mut store = Store::open(folder.path()).expect("a store");
            let mut outcomes = Outcomes::new(&mut store);
            for _ in 0..WAITING / 1_024 {
                store.commit(&outcomes.group(1_024)).expect("a commit");
            }
            (store, folder)
        })
        .bench_local_refs(|(store, _)| {
            let mut reader = store.reader().expect("a reader");
            let mut after = 0;
            loop {
                let range = reader.range(Class::Normal, after, MAX_ENTRIES, MAX_RANGE_BYTES).expect("a range");
                let Some(last) = range.last() else { break };
                after = last;
                let delivered = Write::Delivered { class: Class::Normal, ranges: vec![(range.first, last)] };
                store.commit(&[delivered]).expect("a commit");
            }
            assert_eq!(after, WAITING);
        });
}
