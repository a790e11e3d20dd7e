//! What a commit costs on the disk of the current directory, and how fast an outbox drains.
//!
//! `cargo run --release -p agent-store --example commit_cost`
//!
//! An outcome here is a state value put, the handled events of its source, and one record with a body of 200 bytes; the
//! sources are 50, each with a partition of its own, and what the run used is counted; the last column is the same without
//! that. Beside it, with the same settings and in the same run, one row of
//! 256 bytes is put into a table that has nothing else: what SQLite itself takes on this disk. The two take turns, and
//! the best of several turns counts, for a disk is seldom alone.
#![allow(clippy::print_stdout, reason = "it reports on the terminal")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use agent_core::dedup::Seen;
use agent_core::effect::{Effect, Priority};
use agent_core::event::{Event, EventKind, Identity};
use agent_store::{Outcome, OutcomeResult, Store, Write};
use rusqlite::{Connection, TransactionBehavior};
use sync_protocol::records::{Class, MAX_ENTRIES, MAX_RANGE_BYTES, Stamp};
use sync_protocol::usage::Counts;

type Outcomes = Result<f64, Box<dyn Error>>;

const SOURCES: u64 = 50;
const TURNS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::Builder::new().prefix("commit_cost-").tempdir_in(".")?;
    println!("group      outcomes/s   bare rows/s    share   without metering");
    for (group, commits) in [(1, 500), (64, 200), (1024, 100)] {
        let (mut ours, mut unmetered, mut bare) = (0f64, 0f64, 0f64);
        for turn in 0..TURNS {
            bare = bare.max(bare_rows(&dir.path().join(format!("bare-{group}-{turn}.db")), group, commits)?);
            let turn =
                |metered| outcomes(&dir.path().join(format!("{metered}-{group}-{turn}")), group, commits, metered);
            ours = ours.max(turn(true)?);
            unmetered = unmetered.max(turn(false)?);
        }
        println!(
            "{group:>5} {ours:>15.0} {bare:>13.0} {:>7.0}% {unmetered:>9.0} ({:+.1}%)",
            100.0 * ours / bare,
            100.0 * (unmetered / ours - 1.0)
        );
    }
    backlog(&dir.path().join("backlog"))
}

/// Outcomes a second.
fn outcomes(dir: &Path, group: u64, commits: u64, metered: bool) -> Outcomes {
    let mut store = Store::open(dir)?;
    let groups = groups(&mut store, group, commits, metered)?;
    let start = Instant::now();
    for writes in &groups {
        store.commit(writes)?;
    }
    Ok((group * commits) as f64 / start.elapsed().as_secs_f64())
}

/// Rows a second.
fn bare_rows(path: &Path, group: u64, commits: u64) -> Outcomes {
    let mut connection = Connection::open(path)?;
    let _: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    connection.execute_batch(
        "PRAGMA synchronous = FULL;
         CREATE TABLE bare (id INTEGER PRIMARY KEY, value BLOB NOT NULL)",
    )?;
    let value = [7u8; 256];
    let start = Instant::now();
    for _ in 0..commits {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut insert = transaction.prepare_cached("INSERT INTO bare (value) VALUES (?1)")?;
        for _ in 0..group {
            insert.execute([&value[..]])?;
        }
        drop(insert);
        transaction.commit()?;
    }
    Ok((group * commits) as f64 / start.elapsed().as_secs_f64())
}

/// Drains a million records, and shows what opening costs while they wait.
fn backlog(dir: &Path) -> Result<(), Box<dyn Error>> {
    let mut store = Store::open(dir)?;
    let groups = groups(&mut store, 1024, 100, true)?;
    for _ in 0..10 {
        for writes in &groups {
            store.commit(writes)?;
        }
    }
    drop(store);

    let start = Instant::now();
    let mut store = Store::open(dir)?;
    let opened = start.elapsed();
    let mut reader = store.reader()?;
    let start = Instant::now();
    let waiting = reader.outbox()?.class(Class::Normal);
    let count = waiting.next - waiting.first;
    println!("{count} records wait: open {opened:.1?}, outbox {:.1?}", start.elapsed());

    let (mut after, mut slowest) = (0, std::time::Duration::ZERO);
    let start = Instant::now();
    loop {
        let range = reader.range(Class::Normal, after, MAX_ENTRIES, MAX_RANGE_BYTES)?;
        let Some(last) = range.last() else { break };
        after = last;
        let begun = Instant::now();
        store.commit(&[Write::Delivered { class: Class::Normal, ranges: vec![(range.first, last)] }])?;
        slowest = slowest.max(begun.elapsed());
    }
    let rate = after as f64 / start.elapsed().as_secs_f64();
    println!("drained range by range: {rate:.0} records/s, slowest commit {slowest:.1?}");
    Ok(())
}

fn groups(store: &mut Store, group: u64, commits: u64, metered: bool) -> Result<Vec<Vec<Write>>, Box<dyn Error>> {
    let function = store.function("rolling-mean")?;
    let names: Vec<Arc<str>> = (0..SOURCES).map(|source| format!("sensor-{source:04}").into()).collect();
    let mut seen = vec![Seen::default(); names.len()];
    let function_name: Arc<str> = "rolling-mean".into();
    let run = Counts {
        invocations: 1,
        fuel: 9_000,
        busy_ns: 20_000,
        memory_peak_bytes: 1 << 16,
        bytes_in: 40,
        bytes_out: 272,
        failed: 0,
    };
    let mut next = 0;
    let mut outcome = || {
        let source = (next % SOURCES) as usize;
        next += 1;
        let device = names[source].clone();
        let identity = Identity { source: device.clone(), boot: 1, sequence: 1 + next / SOURCES };
        seen[source].mark(&identity, next as u32);
        let body = vec![next as u8; 200];
        Write::Outcome(Outcome {
            function,
            function_name: function_name.clone(),
            partition: device.clone(),
            seen: Some((device.clone(), seen[source].to_bytes())),
            uses: agent_store::Uses::Nothing,
            blobs: Vec::new(),
            event: Event {
                identity: Some(identity),
                ..Event::new(EventKind::Mqtt, device, "plant/line-3/temperature", [], next)
            },
            stamp: Stamp { wall_us: next, monotonic_us: next, boot: 1, synchronised: true },
            usage: if metered { run } else { Counts::default() },
            result: OutcomeResult::Effects(vec![
                Effect::StatePut { key: b"mean".to_vec(), value: next.to_le_bytes().repeat(8), ttl_s: None },
                Effect::Emit { stream: "means".into(), body, priority: Priority::Normal },
            ]),
        })
    };
    Ok((0..commits).map(|_| (0..group).map(|_| outcome()).collect()).collect())
}
