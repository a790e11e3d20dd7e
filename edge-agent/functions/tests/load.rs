//! Modules that are refused, and what is said about them.

mod common;

use agent_functions::{Engine, Limits, LoadCause, Outcome, Spec, TrapKind};
use common::{ALLOC, IMPORTS, effects, guest, load, refused, run, spec};

const HANDLE: &str = r#"(func (export "edge_handle") (param i32 i32) (result i32) (i32.const 0))"#;
const MEMORY: &str = r#"(memory (export "memory") 1)"#;

fn module(fields: &[&str]) -> Vec<u8> {
    wat::parse_str(format!("(module {})", fields.concat())).unwrap()
}

#[test]
fn what_is_no_module_is_named() {
    assert!(matches!(refused(b""), LoadCause::NotWasm(_)));
    assert_eq!(refused(b"hello world"), LoadCause::NotWasm("68 65 6c 6c 6f 20 77 6f".to_owned()));
    assert!(matches!(refused(b"(module)"), LoadCause::NotWasm(_)), "text is no binary");
    assert!(matches!(refused(b"\0asm"), LoadCause::NotWasm(_)));
    assert!(matches!(refused(b"\0asm\x02\0\0\0"), LoadCause::NotWasm(_)));
    assert_eq!(refused(&wat::parse_str("(component)").unwrap()), LoadCause::Component);
}

#[test]
fn a_module_that_is_cut_off_anywhere_is_refused() {
    let import = r#"(import "edge_v1" "log" (func (param i32 i32 i32)))"#;
    let whole = module(&[import, MEMORY, ALLOC, HANDLE]);
    load(&whole);
    for end in 0..whole.len() {
        let error = Engine::new().load(spec(), &whole[..end]).unwrap_err();
        assert!(!matches!(error.cause, LoadCause::Panicked(_)), "cut at {end}: {error}");
    }
}

#[test]
fn garbage_after_the_header_is_invalid() {
    let mut garbage = b"\0asm\x01\0\0\0".to_vec();
    garbage.extend(b"\xff\xfe garbage");
    assert!(matches!(refused(&garbage), LoadCause::Invalid(_)));
}

#[test]
fn the_module_that_panics_the_interpreter_is_refused() {
    let hostile = include_bytes!("hostile/wasmi-strict-limits-panic.wasm");
    assert_eq!(hostile.len(), 34);
    assert!(matches!(refused(hostile), LoadCause::Invalid(_)));
    effects(run(&load(&guest(""))));
}

#[test]
fn missing_exports_are_named() {
    let missing = |fields: &[&str]| match refused(&module(fields)) {
        LoadCause::MissingExport { name, .. } => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(missing(&[]), "memory");
    assert_eq!(missing(&[MEMORY, HANDLE]), "edge_alloc");
    assert_eq!(missing(&[MEMORY, ALLOC]), "edge_handle");
}

#[test]
fn exports_of_another_type_are_named() {
    let wrong = |fields: &[&str]| match refused(&module(fields)) {
        LoadCause::WrongExport { name, found, .. } => (name, found),
        other => panic!("{other:?}"),
    };
    let memory = r#"(global (export "memory") i32 (i32.const 0))"#;
    assert_eq!(wrong(&[memory, ALLOC, HANDLE]), ("memory", "a global".to_owned()));
    let alloc = r#"(func (export "edge_alloc") (param i64) (result i32) (i32.const 8))"#;
    assert_eq!(wrong(&[MEMORY, alloc, HANDLE]), ("edge_alloc", "a function (i64) -> i32".to_owned()));
    let handle = r#"(func (export "edge_handle") (param i32 i32))"#;
    assert_eq!(wrong(&[MEMORY, ALLOC, handle]), ("edge_handle", "a function (i32, i32)".to_owned()));
    let handle = r#"(table (export "edge_handle") 1 funcref)"#;
    assert_eq!(wrong(&[MEMORY, ALLOC, handle]), ("edge_handle", "a table".to_owned()));
}

#[test]
fn another_version_of_the_abi_is_told_apart_from_foreign_imports() {
    let with = |import: &str| refused(&module(&[import, MEMORY, ALLOC, HANDLE]));
    let cause = with(r#"(import "edge_v2" "log" (func (param i32 i32 i32)))"#);
    assert_eq!(cause, LoadCause::AbiVersion { found: 2, ours: 1 });
    assert!(cause.to_string().contains("speaks version 2 of the ABI, this gateway version 1"), "{cause}");
    assert_eq!(
        with(r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))"#),
        LoadCause::ForeignImport { module: "wasi_snapshot_preview1".to_owned(), name: "fd_write".to_owned() }
    );
    assert!(matches!(with(r#"(import "env" "abort" (func))"#), LoadCause::ForeignImport { .. }));
    assert!(matches!(with(r#"(import "edge_vx" "log" (func))"#), LoadCause::ForeignImport { .. }));
    assert_eq!(
        with(r#"(import "edge_v1" "http" (func))"#),
        LoadCause::UnknownImport { name: "http".to_owned(), ours: 1 }
    );
    assert_eq!(
        with(r#"(import "edge_v1" "log" (func (param i32 i32) (result i64)))"#),
        LoadCause::WrongImport {
            name: "log".to_owned(),
            wanted: "a function (i32, i32, i32)".to_owned(),
            found: "a function (i32, i32) -> i64".to_owned()
        }
    );
    assert!(matches!(with(r#"(import "edge_v1" "log" (global i32))"#), LoadCause::WrongImport { .. }));
}

#[test]
fn memories_that_are_not_ours_are_refused() {
    let import = r#"(import "env" "memory" (memory 1)) (export "memory" (memory 0))"#;
    assert!(matches!(refused(&module(&[import, ALLOC, HANDLE])), LoadCause::ForeignImport { .. }));
    let import = r#"(import "edge_v1" "log" (memory 1)) (export "memory" (memory 0))"#;
    assert!(matches!(refused(&module(&[import, ALLOC, HANDLE])), LoadCause::WrongImport { .. }));
    let wide = r#"(memory (export "memory") i64 1)"#;
    assert!(matches!(refused(&module(&[wide, ALLOC, HANDLE])), LoadCause::Invalid(_)));
    assert!(matches!(refused(&module(&[MEMORY, "(memory 1)", ALLOC, HANDLE])), LoadCause::Invalid(_)));
}

/// Parts of WebAssembly that are off: each has a reason where the interpreter is configured.
#[test]
fn what_functions_cannot_use_is_refused() {
    for field in [
        "(func $f (return_call $f))",
        "(global i32 (i32.add (i32.const 1) (i32.const 2)))",
        "(func (drop (v128.const i64x2 0 0)))",
    ] {
        assert!(matches!(refused(&module(&[field, MEMORY, ALLOC, HANDLE])), LoadCause::Invalid(_)), "{field}");
    }
}

#[test]
fn a_module_that_asks_for_4_gib_is_refused_by_name() {
    let cause = refused(&module(&[r#"(memory (export "memory") 65536)"#, ALLOC, HANDLE]));
    assert_eq!(cause, LoadCause::MemoryTooLarge { asked: 4 << 30, allowed: 16 << 20 });
    let text = cause.to_string();
    assert!(text.contains("4294967296 bytes") && text.contains("16777216 are allowed"), "{text}");
    load(&module(&[r#"(memory (export "memory") 256)"#, ALLOC, HANDLE]));
}

#[test]
fn tables_items_locals_and_bytes_are_bounded() {
    let cause = refused(&module(&["(table 10000000 funcref)", MEMORY, ALLOC, HANDLE]));
    assert_eq!(cause, LoadCause::TableTooLarge { asked: 10_000_000, allowed: 10_000 });
    let halves = "(table 6000 funcref)".repeat(2);
    let cause = refused(&module(&[&halves, MEMORY, ALLOC, HANDLE]));
    assert_eq!(cause, LoadCause::TableTooLarge { asked: 12_000, allowed: 10_000 });
    let cause = refused(&module(&[&"(func)".repeat(20_000), MEMORY, ALLOC, HANDLE]));
    assert_eq!(cause, LoadCause::TooManyItems { items: 20_005, allowed: 20_000 });
    let locals = format!("(func (local {}))", "i64 ".repeat(1_001));
    let cause = refused(&module(&[&locals, MEMORY, ALLOC, HANDLE]));
    assert_eq!(cause, LoadCause::TooManyLocals { locals: 1_001, allowed: 1_000 });
    let mut small = spec();
    small.limits.module_bytes = 100;
    let wasm = guest("");
    let error = Engine::new().load(small, &wasm).unwrap_err();
    assert_eq!(error.cause, LoadCause::TooLarge { bytes: wasm.len(), allowed: 100 });
}

#[test]
fn instantiating_must_fit_into_the_fuel_of_a_run() {
    let mut poor = spec();
    poor.limits.fuel = 1_000;
    let error = Engine::new().load(poor, &module(&[MEMORY, ALLOC, HANDLE])).unwrap_err();
    assert!(matches!(error.cause, LoadCause::StartTooDear { needed: 2264, fuel: 1_000 }), "{error}");
}

#[test]
fn a_start_function_is_bounded() {
    let started = |body: &str| match refused(&module(&[
        &format!("(func $start {body}) (start $start) (table $t 1 funcref)"),
        MEMORY,
        ALLOC,
        HANDLE,
    ])) {
        LoadCause::Start(trap) => trap.kind,
        other => panic!("{other:?}"),
    };
    assert_eq!(started("(loop $l (br $l))"), TrapKind::OutOfFuel);
    assert_eq!(started("(loop $l (drop (memory.grow (i32.const 0))) (br $l))"), TrapKind::OutOfFuel);
    assert_eq!(started("unreachable"), TrapKind::Unreachable);
    assert_eq!(started("(call $start)"), TrapKind::StackOverflow);
    assert_eq!(started("(drop (i32.load (i32.const 65536)))"), TrapKind::MemoryBounds);
    assert_eq!(
        started("(loop $l (br_if $l (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) unreachable"),
        TrapKind::OutOfMemory
    );
}

#[test]
fn data_outside_of_the_memory_is_refused() {
    let cause = refused(&module(&[MEMORY, ALLOC, HANDLE, "(data (i32.const 65535) \"ab\")"]));
    assert!(matches!(&cause, LoadCause::Start(trap) if trap.kind == TrapKind::MemoryBounds), "{cause}");
}

#[test]
fn every_import_may_be_there_and_none_must() {
    load(&module(&[IMPORTS, MEMORY, ALLOC, HANDLE]));
    load(&module(&[MEMORY, ALLOC, HANDLE]));
}

#[test]
fn a_function_without_version_is_named_by_its_name() {
    let error = Engine::new().load(Spec { name: "x".to_owned(), ..Spec::default() }, b"").unwrap_err();
    assert!(error.to_string().starts_with("function \"x\" cannot be loaded: this is not"), "{error}");
}

#[test]
fn limits_of_zero_refuse_and_do_not_panic() {
    let wasm = module(&[MEMORY, ALLOC, HANDLE]);
    let with = |change: &dyn Fn(&mut Limits)| {
        let mut spec = spec();
        change(&mut spec.limits);
        Engine::new().load(spec, &wasm).map(|function| run(&function).outcome)
    };
    assert!(with(&|limits| limits.fuel = 0).is_err());
    assert!(with(&|limits| limits.memory_bytes = 0).is_err());
    assert!(with(&|limits| limits.module_bytes = 0).is_err());
    assert!(with(&|limits| limits.module_items = 0).is_err());
    let overflow = |outcome| matches!(outcome, Ok(Outcome::Failed(trap)) if trap.kind == TrapKind::StackOverflow);
    assert!(overflow(with(&|limits| limits.stack_bytes = 0)));
    assert!(overflow(with(&|limits| limits.call_depth = 0)));
    let idle = with(&|limits| {
        limits.table_elements = 0;
        limits.effects = 0;
        limits.output_bytes = 0;
        limits.state_key_bytes = 0;
        limits.state_value_bytes = 0;
        limits.log_lines = 0;
        limits.log_bytes = 0;
        limits.function_locals = 0;
    });
    assert!(matches!(idle, Ok(Outcome::Done(effects)) if effects.is_empty()));
}
