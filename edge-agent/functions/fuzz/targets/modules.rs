//! Modules that are valid, have what a function must export, and use all that it may import.
#![no_main]

use std::fmt::Write as _;
use std::sync::LazyLock;

use agent_functions::{IMPORTS, WITH_NUMBER};
use agent_functions_fuzz::{function, survive};
use arbitrary::Unstructured;
use libfuzzer_sys::{Corpus, fuzz_target};
use wasm_smith::{Config, Module};

static IMPORTED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut text = String::from("(module");
    for (name, parameters, answers) in IMPORTS {
        let number = if WITH_NUMBER.contains(&name) { " f64" } else { "" };
        let parameters = " i32".repeat(parameters) + number;
        let result = if answers { "(result i32)" } else { "" };
        let _ = write!(text, "(import \"edge_v1\" \"{name}\" (func (param{parameters}) {result}))");
    }
    text.push(')');
    wat::parse_str(text).expect("the list of imports is well formed")
});

static EXPORTED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    wat::parse_str(
        r#"(module
            (memory (export "memory") 1)
            (func (export "edge_alloc") (param i32) (result i32) (i32.const 0))
            (func (export "edge_handle") (param i32 i32) (result i32) (i32.const 0)))"#,
    )
    .expect("it is well formed")
});

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let mut source = Unstructured::new(bytes);
    let config = Config {
        available_imports: Some(IMPORTED.clone()),
        exports: Some(EXPORTED.clone()),
        max_memory32_bytes: 1 << 20,
        max_table_elements: 5_000,
        min_imports: 4,
        max_imports: 40,
        min_funcs: 2,
        max_instructions: 200,
        allow_start_export: true,
        // What the interpreter is built without.
        simd_enabled: false,
        relaxed_simd_enabled: false,
        threads_enabled: false,
        exceptions_enabled: false,
        gc_enabled: false,
        memory64_enabled: false,
        compact_imports_enabled: false,
        extended_const_enabled: false,
        ..Config::default()
    };
    let Ok(module) = Module::new(config, &mut source) else { return Corpus::Reject };
    survive(function(), &module.to_bytes());
    Corpus::Keep
});
