//! Stores and writes to test with.

use std::path::Path;

use agent_core::StateValue;
use agent_core::effect::{Effect, Effects, Priority, PublishFlags};
use agent_core::event::{Event, EventKind, Identity};
use agent_store::{Dead, DeadKind, FailedRun, FunctionId, Outcome, OutcomeResult, Reader, Store, Write};
use rusqlite::Connection;
use sync_protocol::dead::{Letter, LetterEvent, LetterIdentity, LetterRun, Note, Payload, What};
use sync_protocol::records::{Class, Entry, Stamp, StoreEpoch};
use tempfile::TempDir;

pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    pub(crate) store: Store,
    pub(crate) reader: Reader,
    pub(crate) function: FunctionId,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, reader, function) = open(dir.path());
        Self { dir, store, reader, function }
    }

    /// As after a restart of the agent.
    pub(crate) fn reopen(self) -> Self {
        let Self { dir, store, reader, .. } = self;
        drop((store, reader));
        let (store, reader, function) = open(dir.path());
        Self { dir, store, reader, function }
    }

    /// A connection that may do what the store never would.
    pub(crate) fn raw(&self) -> Connection {
        raw(self.dir.path())
    }

    pub(crate) fn effects(&self, effects: Effects) -> Write {
        outcome(self.function, OutcomeResult::Effects(effects))
    }

    pub(crate) fn emit(&self, class: Class, body: &[u8]) -> Write {
        self.effects(vec![emit(class, body)])
    }

    pub(crate) fn bodies(&mut self, class: Class, after: u64) -> Vec<Vec<u8>> {
        let range = self.reader.range(class, after, 10_000, usize::MAX).unwrap();
        range.entries.into_iter().filter_map(body).collect()
    }
}

fn open(dir: &Path) -> (Store, Reader, FunctionId) {
    let mut store = Store::open(dir).unwrap();
    let reader = store.reader().unwrap();
    let function = store.function("mean").unwrap();
    (store, reader, function)
}

pub(crate) fn raw(dir: &Path) -> Connection {
    Connection::open(dir.join("store.db")).unwrap()
}

pub(crate) fn emit(class: Class, body: &[u8]) -> Effect {
    emit_to("means", class, body)
}

pub(crate) fn emit_to(stream: &str, class: Class, body: &[u8]) -> Effect {
    let priority = match class {
        Class::Normal => Priority::Normal,
        Class::High => Priority::High,
    };
    Effect::Emit { stream: stream.into(), body: body.into(), priority }
}

/// The body of a record; none of what is gone.
pub(crate) fn body(entry: Entry) -> Option<Vec<u8>> {
    match entry {
        Entry::Record(record) => Some(record.body),
        Entry::Gone(_) => None,
    }
}

/// The control plane has everything of a class up to here.
pub(crate) fn delivered(class: Class, up_to: u64) -> Write {
    Write::Delivered { class, ranges: vec![(1, up_to)] }
}

pub(crate) fn publish(topic: &str, payload: &[u8]) -> Effect {
    Effect::Publish { topic: topic.into(), payload: payload.into(), flags: PublishFlags { qos: 1, retain: true } }
}

pub(crate) fn put(key: &[u8], value: &[u8]) -> Effect {
    Effect::StatePut { key: key.into(), value: value.into(), ttl_s: None }
}

pub(crate) fn bytes(value: Option<StateValue>) -> Option<Vec<u8>> {
    value.map(|value| value.bytes.to_vec())
}

pub(crate) fn event() -> Event {
    Event {
        identity: Some(Identity { source: "pump-7".into(), boot: 3, sequence: 9 }),
        ..Event::new(EventKind::Mqtt, "pump-7", "plant/pump-7/temperature", *b"21.5", u64::MAX)
    }
}

pub(crate) fn stamp() -> Stamp {
    Stamp { wall_us: 1, monotonic_us: 2, boot: u64::MAX, synchronised: true }
}

pub(crate) fn dead() -> Dead {
    Dead {
        version: "1.2.0".into(),
        digest: [5; 32],
        kind: DeadKind::Trapped,
        reason: "function mean: out of fuel".into(),
        detail: "at mean::handle".into(),
        run: Some(Box::new(FailedRun {
            fuel: 900,
            memory_bytes: 65_536,
            backtrace: vec!["mean::add".into(), "edge_handle".into()],
            recording: vec![1, 255],
        })),
    }
}

/// The body of the record that tells of the letter of [`outcome`] with [`dead`].
pub(crate) fn told(epoch: StoreEpoch, letter: u64) -> Vec<u8> {
    let told = Letter {
        function: "mean".into(),
        version: "1.2.0".into(),
        digest: "05".repeat(32),
        kind: "trapped".into(),
        reason: "function mean: out of fuel".into(),
        detail: "at mean::handle".into(),
        run: Some(LetterRun {
            fuel: 900,
            memory_bytes: 65_536,
            backtrace: vec!["mean::add".into(), "edge_handle".into()],
            recording: "01ff".into(),
        }),
        event: LetterEvent {
            kind: "mqtt".into(),
            device: "pump-7".into(),
            topic: "plant/pump-7/temperature".into(),
            identity: Some(LetterIdentity { source: "pump-7".into(), boot_epoch: "3".into(), sequence: "9".into() }),
            time_us: u64::MAX,
            attributes: Vec::new(),
            payload: Payload::Text("21.5".into()),
            payload_bytes: 4,
            cut: false,
        },
    };
    serde_json::to_vec(&Note::new(epoch, letter, What::Dead(Box::new(told)))).unwrap()
}

pub(crate) fn outcome(function: FunctionId, result: OutcomeResult) -> Write {
    Write::Outcome(Outcome {
        function,
        function_name: "mean".into(),
        partition: "pump-7".into(),
        seen: None,
        uses: agent_store::Uses::Nothing,
        blobs: Vec::new(),
        event: event(),
        stamp: stamp(),
        usage: Default::default(),
        result,
    })
}
