//! Small Extism plug-ins.
#![allow(dead_code, reason = "each test program uses a part of it")]

use agent_functions::{Engine, Extism, Function, Spec};

use super::spec;

/// Every import that the public PDKs use.
pub(crate) const IMPORTS: &str = r#"
    (import "extism:host/env" "input_length" (func $input_length (result i64)))
    (import "extism:host/env" "input_offset" (func $input_offset (result i64)))
    (import "extism:host/env" "input_load_u8" (func $input_load_u8 (param i64) (result i32)))
    (import "extism:host/env" "input_load_u64" (func $input_load_u64 (param i64) (result i64)))
    (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
    (import "extism:host/env" "free" (func $free (param i64)))
    (import "extism:host/env" "length" (func $length (param i64) (result i64)))
    (import "extism:host/env" "length_unsafe" (func $length_unsafe (param i64) (result i64)))
    (import "extism:host/env" "load_u8" (func $load_u8 (param i64) (result i32)))
    (import "extism:host/env" "load_u64" (func $load_u64 (param i64) (result i64)))
    (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
    (import "extism:host/env" "store_u64" (func $store_u64 (param i64 i64)))
    (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
    (import "extism:host/env" "error_set" (func $error_set (param i64)))
    (import "extism:host/env" "config_get" (func $config_get (param i64) (result i64)))
    (import "extism:host/env" "var_get" (func $var_get (param i64) (result i64)))
    (import "extism:host/env" "var_set" (func $var_set (param i64 i64)))
    (import "extism:host/env" "log_trace" (func $log_trace (param i64)))
    (import "extism:host/env" "log_debug" (func $log_debug (param i64)))
    (import "extism:host/env" "log_info" (func $log_info (param i64)))
    (import "extism:host/env" "log_warn" (func $log_warn (param i64)))
    (import "extism:host/env" "log_error" (func $log_error (param i64)))
    (import "extism:host/env" "get_log_level" (func $get_log_level (result i32)))
    (import "extism:host/env" "http_request" (func $http_request (param i64 i64) (result i64)))
    (import "extism:host/env" "http_status_code" (func $http_status_code (result i32)))
    (import "extism:host/env" "http_headers" (func $http_headers (result i64)))"#;

/// `$block` makes a block of `len` bytes that lie at `at` in the plug-in's own memory, byte by byte as PDKs do.
const BLOCK: &str = r#"
    (func $block (param $at i32) (param $len i32) (result i64)
        (local $block i64) (local $n i32)
        (local.set $block (call $alloc (i64.extend_i32_u (local.get $len))))
        (loop $next
            (if (i32.lt_u (local.get $n) (local.get $len)) (then
                (call $store_u8
                    (i64.add (local.get $block) (i64.extend_i32_u (local.get $n)))
                    (i32.load8_u (i32.add (local.get $at) (local.get $n))))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br $next))))
        (local.get $block))
    (func $put_out (param $block i64) (call $output_set (local.get $block) (call $length (local.get $block))))"#;

/// A plug-in with all imports, one page of memory, `fields`, and a `handle` that does `body` and succeeds.
pub(crate) fn plugin_with(fields: &str, body: &str) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(module {IMPORTS} (memory (export "memory") 1) {BLOCK} {fields}
            (func (export "handle") (result i32) (local $n i64) {body} (i32.const 0)))"#
    ))
    .unwrap()
}

pub(crate) fn plugin(body: &str) -> Vec<u8> {
    plugin_with("", body)
}

/// Emits its output to "alerts".
pub(crate) fn plugin_spec() -> Spec {
    Spec { extism: Some(Extism { stream: Some("alerts".to_owned()), ..Extism::default() }), ..spec() }
}

pub(crate) fn load_plugin(wasm: &[u8]) -> Function {
    Engine::new().load(plugin_spec(), wasm).unwrap()
}
