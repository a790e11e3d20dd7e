//! Damaged modules: whatever the bytes, loading answers and running ends.

mod common;

use std::sync::LazyLock;

use agent_functions::Outcome;
use agent_functions::{Engine, LoadCause, Spec, TrapKind};
use common::plugin::{plugin_spec, plugin_with};
use common::{State, data, event, guest_with, replay, spec};
use proptest::prelude::*;

/// Touches every kind of section and most imports.
static VALID: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let fields = [
        data(0, b"alerts"),
        data(10, b"out/x"),
        "(table $t 4 funcref) (type $none (func)) (elem (i32.const 0) $a $b)
         (global $n (mut i32) (i32.const 3))
         (func $a (global.set $n (i32.sub (global.get $n) (i32.const 1))))
         (func $b (local i64 f64) (drop (f64.div (local.get 1) (f64.convert_i64_s (local.get 0)))))
         (func $start (call $a)) (start $start)"
            .to_owned(),
    ]
    .concat();
    guest_with(
        &fields,
        "(drop (call $state_get (i32.const 0) (i32.const 6) (i32.const 200) (i32.const 16)))
         (call $random_fill (i32.const 100) (i32.const 16))
         (call_indirect (type $none) (i32.and (i32.load (i32.const 100)) (i32.const 1)))
         (block $done (loop $l (br_if $done (i32.eqz (global.get $n))) (call $a) (br $l)))
         (call $state_put (i32.const 0) (i32.const 6) (i32.const 100) (i32.const 16))
         (call $emit (i32.const 0) (i32.const 6) (local.get $event) (local.get $len) (i32.const 1))
         (call $publish (i32.const 10) (i32.const 5) (i32.const 100) (i32.const 8) (i32.const 1))
         (memory.fill (i32.const 300) (i32.const 1) (i32.const 64))
         (drop (memory.grow (i32.const 1)))",
    )
});

/// An Extism plug-in that uses what a plug-in has.
static PLUGIN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    plugin_with(
        &data(0, b"key, value"),
        "(local.set $n (call $block (i32.const 0) (i32.const 3)))
         (call $log_info (call $block (i32.const 0) (i32.const 10)))
         (drop (call $var_get (local.get $n)))
         (call $var_set (call $block (i32.const 0) (i32.const 3)) (call $block (i32.const 5) (i32.const 5)))
         (drop (call $config_get (call $block (i32.const 0) (i32.const 3))))
         (local.set $n (call $alloc (call $input_length)))
         (call $store_u64 (local.get $n) (call $input_load_u64 (i64.const 0)))
         (call $store_u8 (local.get $n) (call $load_u8 (i64.add (local.get $n) (i64.const 1))))
         (call $free (call $alloc (i64.const 100)))
         (call $put_out (local.get $n))",
    )
});

/// Loads, and runs what can be loaded, within a tenth of the usual fuel.
fn survive(wasm: &[u8]) -> Result<bool, TestCaseError> {
    survive_as(spec(), wasm)
}

fn survive_as(mut tight: Spec, wasm: &[u8]) -> Result<bool, TestCaseError> {
    tight.limits.fuel = 1_000_000;
    match Engine::new().load(tight, wasm) {
        Err(error) => {
            prop_assert!(!matches!(error.cause, LoadCause::Panicked(_)), "{error}");
            Ok(false)
        }
        Ok(function) => {
            let run = function.run(&event(), &mut State::default(), 1);
            prop_assert!(run.fuel <= 1_000_000);
            replay(&function, &event(), State::default(), 1, &run);
            if let Outcome::Failed(trap) = run.outcome {
                prop_assert!(trap.kind != TrapKind::EngineFault, "{trap}");
            }
            Ok(true)
        }
    }
}

#[test]
fn the_undamaged_module_runs() {
    assert!(survive(&VALID).unwrap());
    assert!(survive_as(plugin_spec(), &PLUGIN).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_do_no_harm(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut wasm = VALID.clone();
        for (at, byte) in changes {
            let at = at.index(wasm.len());
            wasm[at] = byte;
        }
        survive(&wasm)?;
    }

    #[test]
    fn changed_bytes_of_a_plug_in_do_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        // Behind the imports, for a plug-in whose import is damaged is only refused.
        let code = PLUGIN.len() - PLUGIN.len() / 4;
        let mut wasm = PLUGIN.clone();
        for (at, byte) in changes {
            let at = code + at.index(wasm.len() - code);
            wasm[at] = byte;
        }
        survive_as(plugin_spec(), &wasm)?;
    }

    #[test]
    fn flipped_bits_in_the_code_do_no_harm(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut wasm = VALID.clone();
        let at = wasm.len() / 2 + at.index(wasm.len() / 2);
        wasm[at] ^= 1 << bit;
        survive(&wasm)?;
    }

    #[test]
    fn cut_and_repeated_parts_do_no_harm(from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(), twice: bool) {
        let (from, to) = (from.index(VALID.len()), to.index(VALID.len()));
        let (from, to) = (from.min(to), from.max(to));
        let mut wasm = VALID[..from].to_vec();
        if twice {
            wasm.extend(&VALID[from..to]);
            wasm.extend(&VALID[from..to]);
        }
        wasm.extend(&VALID[to..]);
        survive(&wasm)?;
    }

    #[test]
    fn bytes_after_a_header_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survive(&[b"\0asm\x01\0\0\0", &bytes[..]].concat())?;
    }
}
