//! Bytes that may be a module: they begin from what the tests know, and are mutated.
#![no_main]

use agent_functions_fuzz::{function, plugin, survive};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|wasm: &[u8]| {
    survive(function(), wasm);
    survive(plugin(), wasm);
});
