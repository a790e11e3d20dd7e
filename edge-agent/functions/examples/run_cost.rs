//! What one run costs: `cargo run --release -p agent-functions --example run_cost [module.wasm [payload]]`.
//!
//! Without an argument it measures the smallest module that keeps the contract, a module with every import, and one
//! that stores and reads; with a path also that module, which may be an Extism plug-in. Times are nanoseconds for one
//! run: store, instance, event, handler, and dropping it all.
#![allow(clippy::print_stdout, reason = "a program for a person")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use agent_core::{Event, Filter, Identity};
use agent_functions::{
    Engine, Extism, Function, Limits, LoadCause, Outcome, Permissions, ReadError, Reads, Spec, StreamPattern,
};
use function_abi::EventKind;

/// Runs before the clock counts, and runs that count.
const WARM_UP: usize = 2_000;
const COUNTED: usize = 20_000;

const MINIMAL: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "edge_alloc") (param i32) (result i32) (i32.const 8))
    (func (export "edge_handle") (param i32 i32) (result i32) (i32.const 0)))"#;

const ALL_IMPORTS: &str = r#"(module
    (import "edge_v1" "config_get" (func $config_get (param i32 i32 i32 i32) (result i32)))
    (import "edge_v1" "state_get" (func $state_get (param i32 i32 i32 i32) (result i32)))
    (import "edge_v1" "random_fill" (func $random_fill (param i32 i32)))
    (import "edge_v1" "state_put" (func $state_put (param i32 i32 i32 i32)))
    (import "edge_v1" "state_delete" (func $state_delete (param i32 i32)))
    (import "edge_v1" "emit" (func $emit (param i32 i32 i32 i32 i32)))
    (import "edge_v1" "publish" (func $publish (param i32 i32 i32 i32 i32)))
    (import "edge_v1" "log" (func $log (param i32 i32 i32)))
    (import "edge_v1" "fail" (func $fail (param i32 i32)))
    (memory (export "memory") 1)
    (data (i32.const 65000) "sensor")
    (func (export "edge_alloc") (param i32) (result i32) (i32.const 8))
    (func (export "edge_handle") (param i32 i32) (result i32)
        HANDLER
        (i32.const 0)))"#;

const READ_WRITE_EMIT: &str = "
    (drop (call $state_get (i32.const 8) (i32.const 8) (i32.const 1024) (i32.const 64)))
    (call $state_put (i32.const 8) (i32.const 8) (i32.const 1024) (i32.const 64))
    (call $emit (i32.const 65000) (i32.const 6) (i32.const 1024) (i32.const 64) (i32.const 0))";

struct Memory(BTreeMap<Vec<u8>, Arc<[u8]>>);

impl Reads for Memory {
    fn state(&mut self, key: &[u8]) -> Result<Option<Arc<[u8]>>, ReadError> {
        Ok(self.0.get(key).cloned())
    }

    fn next_key(&mut self, _: &[u8], _: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(None)
    }

    fn state_bytes(&mut self) -> Result<u64, ReadError> {
        Ok(0)
    }

    fn blob_size(&mut self, _: &str) -> Result<Option<u64>, ReadError> {
        Ok(None)
    }

    fn blob_piece(&mut self, _: &str, _: u64, _: usize) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(None)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next();
    let payload = arguments.next().unwrap_or_else(|| r#"{"temperature":21.5,"humidity":40}"#.to_owned());
    measure("minimal", &wat::parse_str(MINIMAL)?, &payload)?;
    measure("nine imports, none used", &wat::parse_str(ALL_IMPORTS.replace("HANDLER", ""))?, &payload)?;
    measure("state_get, state_put, emit", &wat::parse_str(ALL_IMPORTS.replace("HANDLER", READ_WRITE_EMIT))?, &payload)?;
    for pages in [2, 17] {
        let module = MINIMAL.replace("\"memory\") 1", &format!("\"memory\") {pages}"));
        measure(&format!("minimal, {pages} pages of memory"), &wat::parse_str(module)?, &payload)?;
    }
    for functions in [100, 1_000] {
        let module = MINIMAL.replace("(module", &format!("(module {}", "(func)".repeat(functions)));
        measure(&format!("minimal, {functions} more functions"), &wat::parse_str(module)?, &payload)?;
    }
    if let Some(path) = path {
        measure(&path, &std::fs::read(&path)?, &payload)?;
    }
    Ok(())
}

fn measure(what: &str, wasm: &[u8], payload: &str) -> Result<(), Box<dyn Error>> {
    let spec = Spec {
        name: what.to_owned(),
        limits: Limits::default(),
        permissions: Permissions {
            streams: vec![StreamPattern::new("*")?],
            publish: vec![Filter::new("#")?],
            ..Permissions::default()
        },
        ..Spec::default()
    };
    let before = Instant::now();
    let function = match Engine::new().load(spec.clone(), wasm) {
        Err(error) if error.cause == LoadCause::Plugin => {
            let extism = Extism { stream: Some("out".to_owned()), ..Extism::default() };
            Engine::new().load(Spec { extism: Some(extism), ..spec }, wasm)?
        }
        loaded => loaded?,
    };
    let loaded = before.elapsed();
    let event = Event {
        identity: Some(Identity { source: "sensor".into(), boot: 1, sequence: 1 }),
        ..Event::new(EventKind::Mqtt, "sensor", "a/b", payload.as_bytes(), 1_700_000_000_000_000)
    };
    let mut reads = Memory(BTreeMap::new());
    let mut times = Vec::with_capacity(COUNTED);
    for at in 0..WARM_UP + COUNTED {
        let before = Instant::now();
        let fuel = run(&function, &event, &mut reads)?;
        let took = before.elapsed().as_nanos();
        if at >= WARM_UP {
            times.push((took, fuel));
        }
    }
    times.sort_unstable();
    let at = |share: f64| times[(times.len() as f64 * share) as usize].0;
    let fuel = times[0].1;
    println!(
        "{what:32} load {:7} µs   run p50 {:7} ns  p99 {:7} ns   fuel {fuel}",
        loaded.as_micros(),
        at(0.5),
        at(0.99)
    );
    Ok(())
}

fn run(function: &Function, event: &Event, reads: &mut dyn Reads) -> Result<u64, Box<dyn Error>> {
    let run = function.run(event, reads, 1);
    match run.outcome {
        Outcome::Done(_) => Ok(run.fuel),
        Outcome::Failed(trap) => Err(trap.into()),
        Outcome::Abandoned(error) => Err(error.into()),
    }
}
