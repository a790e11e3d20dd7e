//! A pipeline with its workers and its writer on a real store, and a function for it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use agent_core::event::EventKind;
use agent_core::retention::Retention;
use agent_core::{Event, Identity};
use agent_functions::Engine;
use agent_store::{Reader, Store};
use edge_agent::blobs::Blobs;
use edge_agent::clock::Clock;
use edge_agent::config;
use edge_agent::counters::Counters;
use edge_agent::install;
use edge_agent::pipeline::Pipeline;
use edge_agent::pipeline::worker;
use edge_agent::pipeline::writer::{self, Wakers};
use edge_agent::plan::{Active, Plan, Slot, TrialEnd, Version};
use function_package::Package;
use sync_protocol::records::{Class, Entry, Tally};

/// Longer than anything here takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Running {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) writer: writer::Sender,
    threads: Vec<JoinHandle<()>>,
    pub(crate) reader: Reader,
    pub(crate) runtime: tokio::runtime::Runtime,
}

impl Running {
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, Retention::default())
    }

    pub(crate) fn start_with(dir: &Path, retention: Retention) -> Self {
        let store = Store::open(dir).unwrap();
        let (writer, receiver) = writer::channel();
        let counters = Arc::new(Counters::default());
        let blobs = Blobs::open(dir, config::Blobs { max_bytes: 1 << 20, quota_bytes: 1 << 20 }).unwrap();
        let pipeline = Pipeline::new(writer.clone(), counters, Clock::start(), Arc::new(retention), blobs);
        let (reader, worker_readers) = (store.reader().unwrap(), [store.reader().unwrap(), store.reader().unwrap()]);
        let mut threads = Vec::new();
        let (for_writer, dir) = (pipeline.clone(), dir.to_owned());
        for reader in worker_readers {
            let pipeline = pipeline.clone();
            threads.push(std::thread::spawn(move || worker::work(&pipeline, reader, 1)));
        }
        threads.push(std::thread::spawn(move || {
            writer::write(&for_writer, &Wakers::default(), store, &dir, &receiver);
        }));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { pipeline, writer, threads, reader, runtime }
    }

    pub(crate) fn run(&self, name: &str, active: Active) {
        self.run_all([(name, active)]);
    }

    pub(crate) fn run_all<const N: usize>(&self, functions: [(&str, Active); N]) {
        let slots = functions.map(|(name, active)| {
            let id = self.runtime.block_on(self.writer.function(name)).unwrap();
            Arc::new(Slot::new(id, name, active))
        });
        self.pipeline.set_plan(Plan::new(slots));
    }

    /// What comes through when the event was acknowledged; closed when it never will be.
    pub(crate) fn submit(&self, sequence: u64, payload: &[u8]) -> mpsc::Receiver<()> {
        self.submit_in(None, sequence, payload)
    }

    pub(crate) fn submit_in(&self, generation: Option<u64>, sequence: u64, payload: &[u8]) -> mpsc::Receiver<()> {
        let (acknowledged, seen) = mpsc::channel();
        let event = Event {
            identity: Some(Identity { source: "d".into(), boot: 1, sequence }),
            ..Event::new(EventKind::Mqtt, "d", "a/b", payload, 0)
        };
        let acknowledge = Box::new(move |_| acknowledged.send(()).unwrap());
        self.runtime.block_on(self.pipeline.submit_in(generation, event, acknowledge));
        seen
    }

    pub(crate) fn trial_end(&self, name: &str) -> Option<TrialEnd> {
        self.pipeline.plan().find(name).unwrap().active.load().trial.as_ref().unwrap().ended()
    }

    pub(crate) fn records(&mut self) -> Vec<Vec<u8>> {
        self.waiting(Class::Normal)
    }

    pub(crate) fn waiting(&mut self, class: Class) -> Vec<Vec<u8>> {
        let range = self.reader.range(class, 0, 1_000, 1 << 20).unwrap();
        let records = range.entries.into_iter().filter_map(|entry| match entry {
            Entry::Record(record) => Some(record.body),
            Entry::Gone(_) => None,
        });
        records.collect()
    }

    pub(crate) fn gone(&mut self) -> Vec<Tally> {
        let ranges = self.reader.gone(Class::Normal, 0, 1_000).unwrap();
        let tallies = ranges.into_iter().flat_map(|range| range.entries).filter_map(|entry| match entry {
            Entry::Gone(gone) => Some(gone.tally),
            Entry::Record(_) => None,
        });
        tallies.flatten().collect()
    }

    pub(crate) fn stop(self) {
        self.pipeline.stop();
        self.writer.stop();
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

pub(crate) const MANIFEST: &str = "manifest = 1\nname = \"f\"\nversion = \"1.0.0\"\n[[trigger]]\nmqtt = \"a/#\"\n\
                        [allow]\nstreams = [\"s\"]\n";

/// Emits the event's payload, and traps on the payload "x".
const ECHO: &str = "(i32.load8_u (i32.add (local.get 0) (i32.load offset=48 (local.get 0))))";

pub(crate) fn version(trap_if: &str) -> Version {
    ready(&package(trap_if))
}

pub(crate) fn package(trap_if: &str) -> Package {
    let module = format!(
        r#"(module
            (import "edge_v1" "emit" (func $emit (param i32 i32 i32 i32 i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "s")
            (func (export "edge_alloc") (param i32) (result i32) (i32.const 1024))
            (func (export "edge_handle") (param i32 i32) (result i32)
                (if {trap_if} (then unreachable))
                (call $emit (i32.const 0) (i32.const 1)
                    (i32.add (local.get 0) (i32.load offset=48 (local.get 0))) (i32.load offset=52 (local.get 0))
                    (i32.const 0))
                (i32.const 0)))"#
    );
    Package::pack(&wat::parse_str(module).unwrap(), MANIFEST).unwrap()
}

/// What the gateway would make of it.
pub(crate) fn ready(package: &Package) -> Version {
    install::load(&Engine::new(), package.bytes(), Arc::new(package.bytes().clone()), &BTreeMap::new()).unwrap()
}

pub(crate) fn traps_on_x() -> String {
    format!("(i32.eq {ECHO} (i32.const 120))")
}

pub(crate) fn trusted(version: Version) -> Active {
    Active { current: Arc::new(version), trial: None }
}

/// Somebody who makes every commit of a record fail.
pub(crate) struct Saboteur(rusqlite::Connection);

impl Saboteur {
    pub(crate) fn at_work(dir: &Path) -> Self {
        let connection = rusqlite::Connection::open(dir.join("store.db")).unwrap();
        connection
            .execute_batch(
                "CREATE TRIGGER broken BEFORE INSERT ON outbox_normal BEGIN SELECT raise(ABORT, 'disk on fire'); END",
            )
            .unwrap();
        Self(connection)
    }

    pub(crate) fn stops(self) {
        self.0.execute_batch("DROP TRIGGER broken").unwrap();
    }
}
