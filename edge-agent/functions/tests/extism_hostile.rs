//! Extism plug-ins that do harm, or try to: every limit of a function holds for them, and the end has a name.

mod common;

use agent_core::Event;
use agent_functions::fuel::PER_ACCESS;
use agent_functions::{Engine, Extism, Spec, TrapKind};
use common::plugin::{load_plugin, plugin, plugin_spec, plugin_with};
use common::{State, data, effects, event, run, trap};

fn kind_of(fields: &str, body: &str) -> TrapKind {
    trap(run(&load_plugin(&plugin_with(fields, body)))).kind
}

fn tight(change: impl FnOnce(&mut Spec), wasm: &[u8]) -> agent_functions::Function {
    let mut spec = plugin_spec();
    change(&mut spec);
    Engine::new().load(spec, wasm).unwrap()
}

const BLOCK: &str = "(call $block (i32.const 0) (i32.const 1))";

#[test]
fn every_call_is_paid_for() {
    let calls = [
        "(drop (call $input_length))".to_owned(),
        "(drop (call $input_offset))".to_owned(),
        "(drop (call $input_load_u8 (i64.const -1)))".to_owned(),
        "(drop (call $input_load_u64 (i64.const 0)))".to_owned(),
        "(drop (call $alloc (i64.const 0)))".to_owned(),
        "(drop (call $alloc (i64.const -1)))".to_owned(),
        "(call $free (call $alloc (i64.const 1000)))".to_owned(),
        "(call $free (i64.const 5))".to_owned(),
        "(drop (call $length (i64.const 16)))".to_owned(),
        "(drop (call $length_unsafe (i64.const 16)))".to_owned(),
        "(drop (call $load_u8 (i64.const 16)))".to_owned(),
        "(drop (call $load_u64 (i64.const 16)))".to_owned(),
        "(call $store_u8 (i64.const 16) (i32.const 1))".to_owned(),
        "(call $store_u64 (i64.const 16) (i64.const 1))".to_owned(),
        "(call $output_set (i64.const 16) (i64.const 4))".to_owned(),
        "(call $error_set (i64.const 0))".to_owned(),
        format!("(drop (call $config_get {BLOCK}))"),
        format!("(drop (call $var_get {BLOCK}))"),
        format!("(call $log_info {BLOCK})"),
        "(call $log_info (i64.const 0))".to_owned(),
        "(drop (call $get_log_level))".to_owned(),
        "(drop (call $http_status_code))".to_owned(),
        "(drop (call $http_headers))".to_owned(),
    ];
    let cost = |body: &str| run(&load_plugin(&plugin_with(&data(0, b"k"), body))).fuel;
    for call in calls {
        assert!(cost(&call) >= cost("") + PER_ACCESS, "{call}");
        assert_eq!(kind_of(&data(0, b"k"), &format!("(loop $l {call} (br $l))")), TrapKind::OutOfFuel, "{call}");
    }
}

/// The store is asked, and memory cleared, for fuel.
#[test]
fn work_costs_what_it_takes() {
    let cost = |body: &str| run(&load_plugin(&plugin(body))).fuel;
    let alloc = |len: u32| cost(&format!("(drop (call $alloc (i64.const {len})))"));
    assert_eq!(alloc(1_000_000) - alloc(100_000), 900_000 / 64);
    let mut state = State::default();
    let ask = format!("(loop $l (drop (call $var_get {BLOCK})) (br $l))");
    let kind = trap(load_plugin(&plugin_with(&data(0, b"k"), &ask)).run(&event(), &mut state, 0)).kind;
    assert_eq!(kind, TrapKind::OutOfFuel);
    assert!((1_000..2_000).contains(&state.asked), "{}", state.asked);
}

#[test]
fn every_address_is_checked() {
    let calls = [
        "(drop (call $load_u8 A))",
        "(drop (call $load_u64 A))",
        "(call $store_u8 A (i32.const 1))",
        "(call $store_u64 A (i64.const 1))",
        "(call $output_set A (i64.const 8))",
        "(call $error_set A)",
        "(drop (call $config_get A))",
        "(drop (call $var_get A))",
        "(call $var_set A (i64.const 0))",
        "(call $var_set (call $block (i32.const 0) (i32.const 1)) A)",
        "(call $log_error A)",
    ];
    for call in calls {
        for address in ["5", "-1", "-8", "4097", "1000000"] {
            let body = call.replace('A', &format!("(i64.const {address})"));
            let trap = trap(run(&load_plugin(&plugin_with(&data(0, b"k"), &body))));
            assert_eq!(trap.kind, TrapKind::BadPointer, "{body}: {trap}");
            assert!(trap.message.contains("Extism kernel"), "{trap}");
        }
    }
    let straddling = "(drop (call $load_u64 (i64.const 4090)))";
    assert_eq!(kind_of("", straddling), TrapKind::BadPointer);
    assert_eq!(kind_of("", "(call $output_set (i64.const 16) (i64.const -1))"), TrapKind::BadPointer);
    // What was freed is no block any more, and freeing twice frees nothing else.
    let freed = format!("(local.set $n {BLOCK}) (call $free (local.get $n)) (call $free (local.get $n))");
    assert_eq!(effects(run(&load_plugin(&plugin(&freed)))), []);
    assert_eq!(kind_of("", &format!("{freed} (call $log_info (local.get $n))")), TrapKind::BadPointer);
}

#[test]
fn both_memories_together_are_bounded() {
    // One page of its own, and of four pages in all.
    let load = |body: &str| tight(|spec| spec.limits.memory_bytes = 4 << 16, &plugin(body));
    let done = run(&load("(drop (call $alloc (i64.const 196000)))"));
    // Its page, and behind the input a block of the kernel: each with the 16 bytes that count for it.
    assert_eq!(done.memory_bytes, (1 << 16) + 40 + 196_000);
    effects(done);
    // Refused, as the interface has it: the answer is 0, and a plug-in that copes goes on.
    let coping = "(if (i64.ne (call $alloc (i64.const 200000)) (i64.const 0)) (then unreachable))";
    effects(run(&load(coping)));
    for gives_up in [
        "(if (i64.eqz (call $alloc (i64.const 200000))) (then unreachable))",
        "(call $store_u8 (call $alloc (i64.const 200000)) (i32.const 1))",
        "(loop $l (if (i64.eqz (call $alloc (i64.const 1000))) (then unreachable)) (br $l))",
        "(drop (call $alloc (i64.const 100000))) (if (i32.eq (memory.grow (i32.const 2)) (i32.const -1)) (then unreachable))",
        "(drop (memory.grow (i32.const 2))) (drop (call $load_u8 (call $alloc (i64.const 65536))))",
    ] {
        let trap = trap(run(&load(gives_up)));
        assert_eq!(trap.kind, TrapKind::OutOfMemory, "{gives_up}: {trap}");
        assert!(trap.message.contains("262144 are allowed"), "{trap}");
    }
}

#[test]
fn an_input_that_has_no_room_is_named() {
    let function = tight(|spec| spec.limits.memory_bytes = 2 << 16, &plugin(""));
    let event = |len: usize| Event { payload: vec![0; len].into(), ..event() };
    effects(function.run(&event(65_000), &mut State::default(), 0));
    let trap = trap(function.run(&event(65_530), &mut State::default(), 0));
    assert_eq!(trap.kind, TrapKind::EventTooLarge);
    assert!(trap.message.contains("takes 65530 bytes, its memory has room for 65536"), "{trap}");
}

#[test]
fn what_comes_out_is_bounded_and_must_be_allowed() {
    let out = |len: u32| plugin(&format!("(call $put_out (call $alloc (i64.const {len})))"));
    let load = |wasm: &[u8]| tight(|spec| spec.limits.output_bytes = 1_000, wasm);
    assert_eq!(effects(run(&load(&out(994)))).len(), 1);
    assert_eq!(trap(run(&load(&out(995)))).kind, TrapKind::OutputTooLarge);
    let to = |stream: Option<&str>, topic: Option<&str>| {
        let (stream, topic) = (stream.map(str::to_owned), topic.map(str::to_owned));
        let extism = Some(Extism { stream, topic, ..Extism::default() });
        trap(run(&Engine::new().load(Spec { extism, ..common::spec() }, &out(1)).unwrap())).kind
    };
    assert_eq!(to(Some("other"), None), TrapKind::NotAllowed);
    assert_eq!(to(None, Some("other")), TrapKind::NotAllowed);
    assert_eq!(to(Some("a*"), None), TrapKind::BadStream);
    assert_eq!(to(None, Some("out/#")), TrapKind::BadTopic);
    let vars = format!("(loop $l (call $var_set {BLOCK} {BLOCK}) (br $l))");
    assert_eq!(kind_of(&data(0, b"k"), &vars), TrapKind::TooManyEffects);
    assert_eq!(kind_of("", &format!("(call $var_set {BLOCK} (call $alloc (i64.const 65537)))")), TrapKind::BadState);
    assert_eq!(kind_of("", "(call $var_set (i64.const 0) (i64.const 0))"), TrapKind::BadState);
    assert_eq!(kind_of("", "(drop (call $var_get (call $alloc (i64.const 257))))"), TrapKind::BadState);
}

#[test]
fn logs_and_errors_are_bounded_and_text() {
    let flood = run(&load_plugin(&plugin(
        "(loop $l
        (call $log_info (call $alloc (i64.const 5000)))
        (local.set $n (i64.add (local.get $n) (i64.const 1)))
        (br_if $l (i64.lt_u (local.get $n) (i64.const 100))))",
    )));
    let bytes: usize = flood.logs.iter().map(|line| line.text.len()).sum();
    assert_eq!((flood.logs.len(), bytes, flood.logs_dropped), (2, 8_192, 99));
    assert!(flood.memory_bytes < 80_000, "a line that was taken is freed: {}", flood.memory_bytes);
    effects(flood);
    let long = trap(run(&load_plugin(&plugin("(call $error_set (call $alloc (i64.const 100000)))"))));
    assert!(long.kind == TrapKind::Failed && long.message.len() < 2_000, "{}", long.message.len());
    assert_eq!(kind_of(&data(0, b"\xff"), &format!("(call $log_info {BLOCK})")), TrapKind::BadText);
    assert_eq!(kind_of(&data(0, b"\xff"), &format!("(drop (call $config_get {BLOCK}))")), TrapKind::BadText);
}

#[test]
fn requests_are_refused_with_a_reason() {
    let trap = trap(run(&load_plugin(&plugin("(drop (call $http_request (i64.const 0) (i64.const 0)))"))));
    assert_eq!(trap.kind, TrapKind::NotAllowed);
    assert!(trap.message.contains("a plug-in cannot make requests"), "{trap}");
}

#[test]
fn the_start_function_and_the_initialiser_have_the_same_bounds() {
    let start = |body: &str| {
        let fields = format!("{} (func $start {body}) (start $start)", data(0, b"k"));
        Engine::new().load(plugin_spec(), &plugin_with(&fields, "")).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(start(&format!("(call $log_info {BLOCK})")), Ok(()));
    assert!(start(&format!("(call $var_set {BLOCK} (i64.const 0))")).unwrap_err().contains("start function may not"));
    assert!(start(&format!("(drop (call $var_get {BLOCK}))")).unwrap_err().contains("start function may not"));
    assert!(start("(loop $l (br $l))").unwrap_err().contains("fuel"));
    assert!(start("(drop (call $load_u8 (i64.const 5)))").unwrap_err().contains("Extism kernel"));
    let initialiser = r#"(func (export "_initialize") (loop $l (br $l)))"#;
    assert_eq!(kind_of(initialiser, ""), TrapKind::OutOfFuel);
    assert_eq!(kind_of("(func $f (call $f))", "(call $f)"), TrapKind::StackOverflow);
}
