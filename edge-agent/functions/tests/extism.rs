//! Extism plug-ins: what their calls mean.

mod common;

use std::sync::Arc;

use agent_core::{Effect, Event};
use agent_functions::{Engine, Extism, ExtismInput, LoadCause, LogLine, Outcome, Spec, TrapKind};
use common::plugin::{IMPORTS, load_plugin, plugin, plugin_spec, plugin_with};
use common::{Broken, State, data, effects, event, run, spec, trap};
use function_abi::{LogLevel, Priority, PublishFlags};

/// Puts out the input, eight bytes and then byte by byte.
const ECHO: &str = "
    (local.set $n (call $alloc (call $input_length)))
    (call $store_u64 (local.get $n) (call $input_load_u64 (i64.const 0)))
    (call $store_u8 (i64.add (local.get $n) (i64.const 8)) (call $input_load_u8 (i64.const 8)))
    (call $output_set (local.get $n) (i64.const 9))";

fn emitted(body: &[u8]) -> Effect {
    Effect::Emit { stream: "alerts".to_owned(), body: body.to_vec(), priority: Priority::Normal }
}

fn event_of(payload: &[u8]) -> Event {
    Event { payload: payload.into(), ..event() }
}

fn with(extism: Extism) -> Spec {
    Spec { extism: Some(extism), ..spec() }
}

#[test]
fn the_payload_goes_in_and_the_output_becomes_effects() {
    let function = load_plugin(&plugin(ECHO));
    let echo =
        |function: &agent_functions::Function| effects(function.run(&event_of(b"123456789"), &mut State::default(), 0));
    assert_eq!(echo(&function), [emitted(b"123456789")]);
    let both = Extism { topic: Some("out/a".to_owned()), stream: Some("alerts".to_owned()), ..Extism::default() };
    let flags = PublishFlags { qos: 1, retain: false };
    let publish = Effect::Publish { topic: "out/a".to_owned(), payload: b"123456789".to_vec(), flags };
    let function = Engine::new().load(with(both), &plugin(ECHO)).unwrap();
    assert_eq!(echo(&function), [emitted(b"123456789"), publish]);
    assert_eq!(effects(run(&load_plugin(&plugin("")))), [], "no output, no effect");
}

#[test]
fn the_whole_event_goes_in_as_json() {
    let extism = Extism { input: ExtismInput::Event, ..plugin_spec().extism.unwrap() };
    let whole = "(call $output_set (call $input_offset) (call $input_length))";
    let function = Engine::new().load(with(extism), &plugin(whole)).unwrap();
    let json = "{\"kind\":0,\"time_us\":1700000000000000,\"identity\":{\"boot\":7,\"sequence\":9},\
                \"device\":\"sensor-1\",\"topic\":\"a/b\",\"payload\":\"21.5\",\"attributes\":[]}";
    assert_eq!(effects(run(&function)), [emitted(json.as_bytes())]);
}

#[test]
fn variables_are_the_state_and_a_run_sees_its_own() {
    let fields = data(0, b"count") + &data(8, b"new");
    let key = "(call $block (i32.const 0) (i32.const 5))";
    let get = format!("(call $put_out (call $var_get {key}))");
    let mut state = State::default();
    assert_eq!(effects(load_plugin(&plugin_with(&fields, &get)).run(&event(), &mut state, 0)), []);
    state.values.insert(b"count".to_vec(), Arc::from(*b"stored"));
    assert_eq!(effects(load_plugin(&plugin_with(&fields, &get)).run(&event(), &mut state, 0)), [emitted(b"stored")]);
    assert_eq!(state.asked, 2);
    let set = format!("(call $var_set {key} (call $block (i32.const 8) (i32.const 3))) {get}");
    let put = Effect::StatePut { key: b"count".to_vec(), value: b"new".to_vec(), ttl_s: None };
    let done = effects(load_plugin(&plugin_with(&fields, &set)).run(&event(), &mut state, 0));
    assert_eq!(done, [put, emitted(b"new")]);
    let remove = format!("(call $var_set {key} (i64.const 0)) {get}");
    let done = effects(load_plugin(&plugin_with(&fields, &remove)).run(&event(), &mut state, 0));
    assert_eq!(done, [Effect::StateDelete { key: b"count".to_vec() }]);
    assert_eq!(state.asked, 3);
}

#[test]
fn configuration_is_read_by_its_key() {
    let fields = data(0, b"unit") + &data(8, b"none");
    let get = |at: u32| format!("(call $put_out (call $config_get (call $block (i32.const {at}) (i32.const 4))))");
    assert_eq!(effects(run(&load_plugin(&plugin_with(&fields, &get(0))))), [emitted(b"celsius")]);
    assert_eq!(effects(run(&load_plugin(&plugin_with(&fields, &get(8))))), []);
}

#[test]
fn logs_have_their_levels() {
    let log = |level: &str, at: u32| format!("(call $log_{level} (call $block (i32.const {at}) (i32.const 1)))");
    let body = ["error", "warn", "info", "debug", "trace"].iter().enumerate().map(|(at, level)| log(level, at as u32));
    let run = run(&load_plugin(&plugin_with(&data(0, b"abcde"), &body.collect::<String>())));
    let lines: Vec<_> = run.logs.iter().map(|line| (line.level, line.text.as_str())).collect();
    use LogLevel::{Debug, Error, Info, Warn};
    assert_eq!(lines, [(Error, "a"), (Warn, "b"), (Info, "c"), (Debug, "d"), (Debug, "e")]);
}

#[test]
fn an_error_or_another_code_than_0_is_a_failure_without_effects() {
    let fields = data(0, b"no good");
    let error = "(call $error_set (call $block (i32.const 0) (i32.const 7)))";
    let end = |body: String| {
        let trap = trap(run(&load_plugin(&plugin_with(&fields, &body))));
        assert_eq!(trap.kind, TrapKind::Failed);
        trap.message
    };
    assert!(end(format!("{error} {ECHO} (return (i32.const -1))")).ends_with("1.2.3: failed: no good"));
    assert!(end(format!("{error} {ECHO}")).ends_with("failed: no good"));
    assert!(end("(return (i32.const 7))".to_owned()).ends_with("failed: \"handle\" answered 7; 0 is success"));
    let taken_back = format!("{error} (call $error_set (i64.const 0))");
    assert_eq!(effects(run(&load_plugin(&plugin_with(&fields, &taken_back)))), []);
}

#[test]
fn the_manifest_names_the_function_and_an_initialiser_runs_first() {
    let module = |initialiser: &str| {
        wat::parse_str(format!(
            r#"(module {IMPORTS} (memory (export "memory") 1) (global $done (mut i64) (i64.const 0))
                (func (export "{initialiser}") (global.set $done (call $alloc (i64.const 1))))
                (func (export "other") (call $output_set (global.get $done) (call $length (global.get $done)))))"#
        ))
        .unwrap()
    };
    let other = Extism { function: "other".to_owned(), ..plugin_spec().extism.unwrap() };
    for (initialiser, output) in [("_initialize", true), ("__wasm_call_ctors", true), ("main", false)] {
        let function = Engine::new().load(with(other.clone()), &module(initialiser)).unwrap();
        assert_eq!(effects(run(&function)) == [emitted(b"\0")], output, "{initialiser}");
    }
}

#[test]
fn a_store_that_fails_abandons_the_run() {
    let body = "(drop (call $var_get (call $block (i32.const 0) (i32.const 1))))";
    let run = load_plugin(&plugin(body)).run(&event(), &mut Broken, 0);
    assert!(matches!(run.outcome, Outcome::Abandoned(_)), "{run:?}");
}

#[test]
fn runs_repeat_and_see_nothing_of_each_other() {
    let body = "(local.set $n (call $alloc (i64.const 64)))
        (call $output_set (local.get $n) (i64.const 64))
        (call $store_u8 (local.get $n) (i32.add (call $load_u8 (local.get $n)) (i32.const 1)))";
    let function = load_plugin(&plugin(body));
    let first = run(&function);
    let second = run(&function);
    assert_eq!(first.fuel, second.fuel);
    let mut once = [0; 64];
    once[0] = 1;
    assert_eq!(effects(first), [emitted(&once)]);
    assert_eq!(effects(second), [emitted(&once)]);
}

#[test]
fn what_cannot_be_run_as_a_plug_in_is_named() {
    let refused = |spec: Spec, wasm: &[u8]| Engine::new().load(spec, wasm).unwrap_err().cause;
    let cause = refused(spec(), &plugin(""));
    assert_eq!(cause, LoadCause::Plugin);
    assert!(cause.to_string().contains("[extism]"), "{cause}");
    let other = Extism { function: "other".to_owned(), ..Extism::default() };
    let cause = refused(with(other), &plugin(""));
    assert_eq!(cause, LoadCause::NoPluginFunction { name: "other".to_owned(), known: "\"handle\"".to_owned() });
    let memory = Extism { function: "memory".to_owned(), ..Extism::default() };
    assert!(matches!(refused(with(memory), &plugin("")), LoadCause::WrongPluginFunction { .. }));
    let module = |fields: &str| {
        let handle = r#"(func (export "handle") (result i32) (i32.const 0))"#;
        refused(plugin_spec(), &wat::parse_str(format!("(module {fields} {handle})")).unwrap())
    };
    assert!(matches!(module(""), LoadCause::MissingExport { name: "memory", .. }));
    let imports = |module: &str, name: &str, ty: &str| format!(r#"(import "{module}" "{name}" {ty})"#);
    assert!(matches!(
        module(&imports("extism:host/user", "mine", "(func (param i64) (result i64))")),
        LoadCause::ForeignPluginImport { .. }
    ));
    assert!(matches!(
        module(&imports("wasi_snapshot_preview1", "fd_write", "(func (param i32 i32 i32 i32) (result i32))")),
        LoadCause::ForeignPluginImport { .. }
    ));
    assert!(matches!(module(&imports("edge_v1", "log", "(func)")), LoadCause::ForeignPluginImport { .. }));
    assert_eq!(
        module(&imports("extism:host/env", "teleport", "(func)")),
        LoadCause::UnknownPluginImport { name: "teleport".to_owned() }
    );
    assert!(matches!(module(&imports("extism:host/env", "alloc", "(func)")), LoadCause::WrongImport { .. }));
}

#[test]
fn log_lines_are_kept_whatever_the_outcome() {
    let body = "(call $log_info (call $block (i32.const 0) (i32.const 2))) unreachable";
    let run = run(&load_plugin(&plugin_with(&data(0, b"hi"), body)));
    assert_eq!(run.logs, [LogLine { level: LogLevel::Info, text: "hi".to_owned(), fields: Vec::new() }]);
    assert_eq!(trap(run).kind, TrapKind::Unreachable);
}
