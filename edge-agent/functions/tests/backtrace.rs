//! Backtraces: the functions that were open, innermost first, by their names.

mod common;

use agent_functions::{MAX_FRAMES, Outcome};
use common::{State, event, guest_with, load, replay};

fn of(fields: &str, body: &str) -> Vec<String> {
    let function = load(&guest_with(fields, body));
    let run = function.run(&event(), &mut State::default(), 1);
    assert!(matches!(run.outcome, Outcome::Failed(_)), "{run:?}");
    replay(&function, &event(), State::default(), 1, &run)
}

#[test]
fn the_open_functions_are_named() {
    let fields = "(func $outer (param i64 i32) (result i32 f64) (call $done) (call $inner (local.get 1)) (f64.const 0))
         (func $inner (param i32) (result i32) (i32.div_s (i32.const 1) (local.get 0)))
         (func $done)";
    let lines = of(fields, "(call $outer (i64.const 5) (i32.const 0)) (drop) (drop)");
    assert_eq!(lines, ["inner", "outer", "edge_handle"]);
}

#[test]
fn calls_through_tables_and_reads_of_the_state_are_followed() {
    let fields = "(table 2 funcref) (elem (i32.const 0) $reader $breaker) (type $none (func))
         (func $reader (drop (call $state_get (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 8))))
         (func $breaker (call_indirect (type $none) (i32.const 0)) (call $reader) unreachable)";
    assert_eq!(of(fields, "(call_indirect (type $none) (i32.const 1))"), ["breaker", "edge_handle"]);
}

#[test]
fn an_import_that_ends_the_run_was_called_by_the_innermost() {
    let fields = "(func $give_up (call $fail (i32.const 0) (i32.const 0)))";
    assert_eq!(of(fields, "(call $give_up)"), ["give_up", "edge_handle"]);
}

#[test]
fn endless_recursion_is_cut_in_the_middle() {
    let lines = of("(func $deeper (call $deeper))", "(call $deeper)");
    assert_eq!(lines.len(), MAX_FRAMES + 1);
    assert_eq!((lines[0].as_str(), lines[32].as_str()), ("deeper", "edge_handle"));
    assert_eq!(lines[24], "(968 more)");
}

#[test]
fn an_endless_loop_says_where() {
    assert_eq!(of("(func $spin (loop $l (br $l)))", "(call $spin)"), ["spin", "edge_handle"]);
    let calls = of("(func $step) (func $spin (loop $l (call $step) (br $l)))", "(call $spin)");
    assert!(calls.contains(&"spin".to_owned()), "{calls:?}");
}

#[test]
fn without_names_there_are_numbers() {
    let wasm = wat::parse_str(
        "(module (memory (export \"memory\") 1) (func unreachable)
            (func (export \"edge_alloc\") (param i32) (result i32) (i32.const 8))
            (func (export \"edge_handle\") (param i32 i32) (result i32) (call 0) (i32.const 0)))",
    );
    let function = load(&wasm.unwrap());
    let run = function.run(&event(), &mut State::default(), 1);
    assert_eq!(replay(&function, &event(), State::default(), 1, &run), ["func[0]", "edge_handle"]);
}

/// One type serves many functions: the copy would be a thousand times as long as the module.
#[test]
fn a_module_that_would_grow_beyond_bounds_has_none() {
    let parameters = "i32 ".repeat(900);
    let fields = format!("(type $wide (func (param {parameters}))) {}", "(func (type $wide))".repeat(1_000));
    let function = load(&guest_with(&fields, "unreachable"));
    let run = function.run(&event(), &mut State::default(), 1);
    let Outcome::Failed(trap) = &run.outcome else { panic!("{run:?}") };
    let lines = function.backtrace(&event(), &mut State::default(), 1, trap);
    assert_eq!(lines, ["(no backtrace: its functions have too many parameters)"]);
}
