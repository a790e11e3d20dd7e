//! What every run of every module must keep to, whatever the bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_core::event::EventKind;
use agent_core::{Effect, Event, Filter};
use agent_functions::{
    Engine, Extism, Function, Limits, LoadCause, Outcome, Permissions, ReadError, Reads, Run, Spec, StreamPattern, TrapKind,
};

/// Small, so that many runs fit into a second; what they bound is bounded the same way at any size.
fn limits() -> Limits {
    Limits { fuel: 2_000_000, memory_bytes: 1 << 20, ..Limits::default() }
}

/// A function that may do whatever a manifest can allow.
pub fn function() -> Spec {
    Spec {
        name: "fuzzed".to_owned(),
        version: "1.0.0".to_owned(),
        limits: limits(),
        permissions: Permissions {
            streams: StreamPattern::new("*").into_iter().collect(),
            publish: Filter::new("#").into_iter().collect(),
            queues: vec!["q".to_owned()],
            secrets: vec!["s".to_owned()],
            twin: vec!["*".to_owned()],
            metrics: vec!["m".to_owned()],
            blobs: "b/*".parse().into_iter().collect(),
            blobs_read: "b/*".parse().into_iter().collect(),
            ..Permissions::default()
        },
        config: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        ..Spec::default()
    }
}

/// The same as an Extism plug-in.
pub fn plugin() -> Spec {
    let extism = Extism { function: "handle".to_owned(), stream: Some("out".to_owned()), ..Extism::default() };
    Spec { extism: Some(extism), ..function() }
}

/// A state that has an answer to everything.
struct State;

impl Reads for State {
    fn state(&mut self, key: &[u8]) -> Result<Option<Arc<[u8]>>, ReadError> {
        Ok((key.len() % 3 > 0).then(|| key.into()))
    }

    fn next_key(&mut self, prefix: &[u8], after: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let mut next = after.max(prefix).to_vec();
        next.push(0);
        Ok((next.len() <= 256 && next.starts_with(prefix)).then_some(next))
    }

    fn state_bytes(&mut self) -> Result<u64, ReadError> {
        Ok(1_000)
    }

    fn blob_size(&mut self, name: &str) -> Result<Option<u64>, ReadError> {
        Ok((name.len() % 3 > 0).then_some(10_000))
    }

    fn blob_piece(&mut self, name: &str, offset: u64, len: usize) -> Result<Option<Vec<u8>>, ReadError> {
        let there = 10_000_u64.saturating_sub(offset).min(len as u64) as usize;
        Ok((name.len() % 3 > 0).then(|| vec![b'x'; there]))
    }
}

/// Loads the module, and if that goes, runs it twice: within its limits, without a fault of the interpreter, and both times
/// the same.
///
/// # Panics
/// One of that does not hold.
pub fn survive(spec: Spec, wasm: &[u8]) {
    let limits = spec.limits.clone();
    match Engine::new().load(spec, wasm) {
        Err(error) => assert!(!matches!(error.cause, LoadCause::Panicked(_)), "{error}"),
        Ok(function) => {
            let (first, second) = (run(&function), run(&function));
            within(&limits, &first);
            assert_eq!(shown(&first), shown(&second));
        }
    }
}

fn run(function: &Function) -> Run {
    let event = Event::new(EventKind::Mqtt, "device", "a/b", *b"{\"celsius\": 21.5}", 1_700_000_000_000_000);
    function.run(&event, &mut State, 7)
}

fn shown(run: &Run) -> String {
    format!("{run:?}")
}

fn within(limits: &Limits, run: &Run) {
    assert!(run.fuel <= limits.fuel && run.memory_bytes <= limits.memory_bytes, "{run:?}");
    assert!(run.logs.len() <= limits.log_lines, "{run:?}");
    let fields = run.logs.iter().flat_map(|line| &line.fields).map(|(name, value)| name.len() + value.len());
    let texts = run.logs.iter().map(|line| line.text.len());
    assert!(fields.chain(texts).sum::<usize>() <= limits.log_bytes, "{run:?}");
    match &run.outcome {
        Outcome::Done(effects) => {
            assert!(effects.len() <= limits.effects, "{run:?}");
            assert!(effects.iter().map(bytes).sum::<usize>() <= limits.output_bytes, "{run:?}");
        }
        Outcome::Failed(trap) => assert!(trap.kind != TrapKind::EngineFault, "{run:?}"),
        Outcome::Abandoned(error) => panic!("{error}"),
    }
}

fn bytes(effect: &Effect) -> usize {
    match effect {
        Effect::StatePut { key, value, .. } => key.len() + value.len(),
        Effect::Emit { body, .. } | Effect::Enqueue { body, .. } => body.len(),
        Effect::Publish { topic, payload, .. } => topic.len() + payload.len(),
        Effect::BlobPut { name, body, .. } => name.len() + body.len(),
        Effect::TwinReport { name, value } => name.len() + value.len(),
        _ => 0,
    }
}
