//! One run of a function, on an instance that is as new, and loading it.

use std::collections::BTreeMap;

use agent_core::{Event, Filter, Identity};
use agent_functions::{Engine, Function, NoReads, Outcome, Permissions, Spec, StreamPattern};
use divan::{Bencher, black_box};
use function_abi::EventKind;
use function_package::Package;

const MINIMAL: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "edge_alloc") (param i32) (result i32) (i32.const 8))
    (func (export "edge_handle") (param i32 i32) (result i32) (i32.const 0)))"#;

const STORE_AND_READ: &str = r#"(module
    (import "edge_v1" "state_get" (func $state_get (param i32 i32 i32 i32) (result i32)))
    (import "edge_v1" "state_put" (func $state_put (param i32 i32 i32 i32)))
    (import "edge_v1" "emit" (func $emit (param i32 i32 i32 i32 i32)))
    (memory (export "memory") 1)
    (data (i32.const 65000) "sensor")
    (func (export "edge_alloc") (param i32) (result i32) (i32.const 8))
    (func (export "edge_handle") (param i32 i32) (result i32)
        (drop (call $state_get (i32.const 8) (i32.const 8) (i32.const 1024) (i32.const 64)))
        (call $state_put (i32.const 8) (i32.const 8) (i32.const 1024) (i32.const 64))
        (call $emit (i32.const 65000) (i32.const 6) (i32.const 1024) (i32.const 64) (i32.const 0))
        (i32.const 0)))"#;

/// What a module is given: a reading, or commands for the function that compares the languages.
const READING: &str = r#"{"time":"2013-07-04 00:00:00","fahrenheit":69.88}"#;
const COMMANDS: &str = "event\nget k\nput k v\nemit 0 raw.x hello";

/// Modules by name: text in this file, or packages in the target directory.
const MODULES: [&str; 9] = [
    "minimal",
    "minimal, 17 pages of memory",
    "minimal, 1000 more functions",
    "state_get, state_put, emit",
    "unit-conversion",
    "conformance",
    "conformance-c",
    "conformance-zig",
    "conformance-assemblyscript",
];

/// Store, instance, event, handler, and dropping it all.
#[divan::bench(args = MODULES)]
fn run(bencher: Bencher, module: &str) {
    let function = load_module(module);
    let payload = if module.starts_with("conformance") { COMMANDS } else { READING };
    let event = Event {
        identity: Some(Identity { source: "sensor".into(), boot: 1, sequence: 1 }),
        ..Event::new(EventKind::Mqtt, "sensor", "sensors/a/temperature", payload.as_bytes(), 1_700_000_000_000_000)
    };
    bencher.bench_local(|| match function.run(black_box(&event), &mut NoReads, 1).outcome {
        Outcome::Done(effects) => effects,
        other => panic!("{other:?}"),
    });
}

/// Checking and compiling.
#[divan::bench(args = MODULES, sample_count = 50)]
fn load(bencher: Bencher, module: &str) {
    let (spec, bytes) = source(module);
    bencher.bench_local(|| prepare(spec.clone(), &bytes));
}

fn load_module(module: &str) -> Function {
    let (spec, bytes) = source(module);
    prepare(spec, &bytes)
}

fn prepare(spec: Spec, bytes: &[u8]) -> Function {
    Engine::new().load(spec, bytes).expect("a function")
}

fn source(module: &str) -> (Spec, Vec<u8>) {
    let text = match module.split(',').next().unwrap_or_default() {
        "minimal" if module.contains("17 pages") => MINIMAL.replace("\"memory\") 1", "\"memory\") 17"),
        "minimal" if module.contains("functions") => {
            MINIMAL.replace("(module", &format!("(module {}", "(func)".repeat(1_000)))
        }
        "minimal" => MINIMAL.to_owned(),
        "state_get" => STORE_AND_READ.to_owned(),
        _ => {
            let file = system_tests::function(module).expect("a packed function");
            let package = Package::open(std::fs::read(file).expect("a file")).expect("a package");
            let spec = Spec::of(package.manifest(), &BTreeMap::new()).expect("a manifest that fits");
            return (spec, package.bytes().to_vec());
        }
    };
    let permissions = Permissions {
        streams: vec![StreamPattern::new("*").expect("a pattern")],
        publish: vec![Filter::new("#").expect("a filter")],
        ..Permissions::default()
    };
    (Spec { name: "module".to_owned(), permissions, ..Spec::default() }, wat::parse_str(text).expect("a module"))
}
