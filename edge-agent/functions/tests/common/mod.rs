//! What the tests share: small guests, an event, a state in memory.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod plugin;

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_core::{Effects, Event, Filter, Identity};
use agent_functions::record::{Frame, Player, RecordedRun, Recorder, RunResult, file};
use agent_functions::{
    Engine, Function, Limits, LoadCause, MAX_FRAMES, Outcome, Permissions, ReadError, Reads, Run, Secrets, Spec,
    StreamPattern, Trap,
};
use function_abi::EventKind;

/// Every import of the contract, named as in the contract.
pub(crate) const IMPORTS: &str = r#"
    (import "edge_v1" "config_get" (func $config_get (param i32 i32 i32 i32) (result i32)))
    (import "edge_v1" "secret_get" (func $secret_get (param i32 i32 i32 i32) (result i32)))
    (import "edge_v1" "state_get" (func $state_get (param i32 i32 i32 i32) (result i32)))
    (import "edge_v1" "state_next" (func $state_next (param i32 i32 i32 i32 i32 i32) (result i32)))
    (import "edge_v1" "blob_size" (func $blob_size (param i32 i32) (result i32)))
    (import "edge_v1" "blob_get" (func $blob_get (param i32 i32 i32 i32 i32) (result i32)))
    (import "edge_v1" "random_fill" (func $random_fill (param i32 i32)))
    (import "edge_v1" "state_put" (func $state_put (param i32 i32 i32 i32)))
    (import "edge_v1" "state_put_ttl" (func $state_put_ttl (param i32 i32 i32 i32 i32)))
    (import "edge_v1" "state_delete" (func $state_delete (param i32 i32)))
    (import "edge_v1" "emit" (func $emit (param i32 i32 i32 i32 i32)))
    (import "edge_v1" "publish" (func $publish (param i32 i32 i32 i32 i32)))
    (import "edge_v1" "enqueue" (func $enqueue (param i32 i32 i32 i32 i32)))
    (import "edge_v1" "respond" (func $respond (param i32 i32 i32 i32 i32)))
    (import "edge_v1" "twin_report" (func $twin_report (param i32 i32 i32 i32)))
    (import "edge_v1" "log_with" (func $log_with (param i32 i32 i32 i32 i32)))
    (import "edge_v1" "count" (func $count (param i32 i32 f64)))
    (import "edge_v1" "observe" (func $observe (param i32 i32 f64)))
    (import "edge_v1" "blob_put" (func $blob_put (param i32 i32 i32 i32 i32 i32)))
    (import "edge_v1" "blob_delete" (func $blob_delete (param i32 i32)))
    (import "edge_v1" "request" (func $request (param i32 i32 i32 i32 i32 i32)))
    (import "edge_v1" "log" (func $log (param i32 i32 i32)))
    (import "edge_v1" "fail" (func $fail (param i32 i32)))"#;

/// An allocator that always answers 32768, and thereby leaves the first half of the page to the test.
pub(crate) const ALLOC: &str = r#"(func (export "edge_alloc") (param i32) (result i32) (i32.const 32768))"#;

/// A module with all imports, one page of memory, `fields`, and a handler that does `body` and succeeds.
pub(crate) fn guest_with(fields: &str, body: &str) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(module {IMPORTS}
            (memory (export "memory") 1)
            {ALLOC}
            {fields}
            (func (export "edge_handle") (param $event i32) (param $len i32) (result i32)
                {body}
                (i32.const 0)))"#
    ))
    .unwrap()
}

pub(crate) fn guest(body: &str) -> Vec<u8> {
    guest_with("", body)
}

/// A data segment at `at`.
pub(crate) fn data(at: u32, bytes: &[u8]) -> String {
    let escaped: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    format!("(data (i32.const {at}) \"{escaped}\")")
}

/// May reach everything, and has two settings.
pub(crate) fn spec() -> Spec {
    Spec {
        name: "under-test".to_owned(),
        version: "1.2.3".to_owned(),
        limits: Limits::default(),
        permissions: Permissions {
            streams: vec![StreamPattern::new("alerts").unwrap(), StreamPattern::new("raw.*").unwrap()],
            publish: vec![Filter::new("out/#").unwrap()],
            queues: vec!["q".to_owned()],
            secrets: vec!["key".to_owned(), "none".to_owned()],
            twin: vec!["battery".to_owned(), "net.*".to_owned()],
            metrics: vec!["m".to_owned()],
            blobs: vec!["thumbs/*".parse().unwrap()],
            blobs_read: vec!["images/*".parse().unwrap()],
            hosts: ["a.example", "*.b.example:81"].map(|host| host.parse().unwrap()).to_vec(),
            answers: vec!["other".to_owned()],
        },
        config: BTreeMap::from([("unit".to_owned(), "celsius".to_owned()), ("empty".to_owned(), String::new())]),
        extism: None,
    }
}

/// On a gateway with two secrets.
pub(crate) fn engine() -> Engine {
    let secrets = [("key", "hunter2"), ("other", "x")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    Engine::with_secrets(Secrets::new(secrets.into()))
}

pub(crate) fn load(wasm: &[u8]) -> Function {
    engine().load(spec(), wasm).unwrap()
}

pub(crate) fn refused(wasm: &[u8]) -> LoadCause {
    let error = Engine::new().load(spec(), wasm).unwrap_err();
    assert_eq!(error.function(), "under-test");
    assert!(error.to_string().starts_with("function \"under-test\" 1.2.3 cannot be loaded: "), "{error}");
    error.cause
}

pub(crate) fn event() -> Event {
    Event {
        identity: Some(Identity { source: "sensor-1".into(), boot: 7, sequence: 9 }),
        ..Event::new(EventKind::Mqtt, "sensor-1", "a/b", *b"21.5", 1_700_000_000_000_000)
    }
}

/// A state in memory that counts how often it is asked.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) values: BTreeMap<Vec<u8>, Arc<[u8]>>,
    pub(crate) asked: usize,
    /// What other partitions hold.
    pub(crate) elsewhere: u64,
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    /// The fuel at each pause.
    pub(crate) pauses: Vec<u64>,
}

impl Reads for State {
    fn state(&mut self, key: &[u8]) -> Result<Option<Arc<[u8]>>, ReadError> {
        self.asked += 1;
        Ok(self.values.get(key).cloned())
    }

    fn next_key(&mut self, prefix: &[u8], after: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.asked += 1;
        let mut keys = self.values.keys().filter(|key| key.as_slice() > after || after < prefix);
        Ok(keys.find(|key| key.starts_with(prefix)).cloned())
    }

    fn state_bytes(&mut self) -> Result<u64, ReadError> {
        self.asked += 1;
        let bytes = self.values.iter().map(|(key, value)| (key.len() + value.len()) as u64);
        Ok(self.elsewhere + bytes.sum::<u64>())
    }

    fn blob_size(&mut self, name: &str) -> Result<Option<u64>, ReadError> {
        self.asked += 1;
        Ok(self.blobs.get(name).map(|blob| blob.len() as u64))
    }

    fn blob_piece(&mut self, name: &str, offset: u64, len: usize) -> Result<Option<Vec<u8>>, ReadError> {
        self.asked += 1;
        let piece = |blob: &Vec<u8>| blob.iter().skip(offset as usize).take(len).copied().collect();
        Ok(self.blobs.get(name).map(piece))
    }

    fn pause(&mut self, fuel: u64) {
        self.pauses.push(fuel);
    }
}

/// A state that cannot be read.
pub(crate) struct Broken;

impl Reads for Broken {
    fn state(&mut self, _: &[u8]) -> Result<Option<Arc<[u8]>>, ReadError> {
        Err(ReadError("disk on fire".into()))
    }

    fn next_key(&mut self, _: &[u8], _: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Err(ReadError("disk on fire".into()))
    }

    fn state_bytes(&mut self) -> Result<u64, ReadError> {
        Err(ReadError("disk on fire".into()))
    }

    fn blob_size(&mut self, _: &str) -> Result<Option<u64>, ReadError> {
        Err(ReadError("disk on fire".into()))
    }

    fn blob_piece(&mut self, _: &str, _: u64, _: usize) -> Result<Option<Vec<u8>>, ReadError> {
        Err(ReadError("disk on fire".into()))
    }
}

pub(crate) fn run(function: &Function) -> Run {
    let run = function.run(&event(), &mut State::default(), 42);
    replay(function, &event(), State::default(), 42, &run);
    run
}

/// A recorded run, and what the recording's player and the backtrace make of it: the same. Whatever the module.
pub(crate) fn replay(function: &Function, event: &Event, mut state: State, seed: u64, first: &Run) -> Vec<String> {
    let recorded = record(function, event, &mut state, seed);
    assert!(recorded.complete);
    assert_eq!(RunResult::of(function, first).as_ref(), Some(&recorded.result));
    let mut bytes = file::HEADER.to_vec();
    assert!(file::write(&mut bytes, &Frame::Run(Box::new(recorded.clone()))));
    let frames: Vec<_> = file::Frames::new(&bytes[..]).unwrap().collect();
    let [Ok(Frame::Run(read)), Err(file::Damage::NoEnd)] = frames.as_slice() else { panic!("{frames:?}") };
    assert_eq!(**read, recorded);
    let played = Player::new(1).play(function, read).unwrap();
    assert_eq!(played.result, recorded.result);
    let lines = played.backtrace;
    if let Outcome::Failed(trap) = &first.outcome {
        assert!(!lines.is_empty() && lines.len() <= MAX_FRAMES + 2, "{lines:?}");
        let said = lines.last().filter(|line| line.starts_with('('));
        let fine = ["(after 1000000 calls", "(none: it failed when"];
        assert!(said.is_none_or(|said| fine.iter().any(|fine| said.starts_with(fine))), "{trap}: {lines:?}");
    }
    lines
}

pub(crate) fn record(function: &Function, event: &Event, state: &mut State, seed: u64) -> RecordedRun {
    let mut recorder = Recorder::new(state, 1 << 30);
    let run = function.run(event, &mut recorder, seed);
    let (reads, complete) = recorder.finish();
    let result = RunResult::of(function, &run).unwrap();
    RecordedRun { partition: event.device.to_string(), event: event.clone(), seed, reads, complete, result }
}

pub(crate) fn effects(run: Run) -> Effects {
    match run.outcome {
        Outcome::Done(effects) => effects,
        other => panic!("expected success, not {other:?}"),
    }
}

pub(crate) fn trap(run: Run) -> Trap {
    match run.outcome {
        Outcome::Failed(trap) => {
            assert!(trap.message.starts_with("function \"under-test\" 1.2.3: "), "{trap}");
            trap
        }
        other => panic!("expected a trap, not {other:?}"),
    }
}

/// Loads and runs a handler that must trap.
pub(crate) fn trap_of(fields: &str, body: &str) -> Trap {
    trap(run(&load(&guest_with(fields, body))))
}
