//! Functions that do harm, or try to: each ends in a trap with a name, soon, and nobody else notices.

mod common;

use std::time::{Duration, Instant};

use agent_functions::{Engine, Function, LoadCause, MAX_STREAM_BYTES, Outcome, TrapKind, fuel};
use common::{ALLOC, IMPORTS, State, data, effects, event, guest, guest_with, load, replay, run, spec, trap, trap_of};

/// Far more than any of these needs, far less than a run without bounds would take.
const SOON: Duration = Duration::from_secs(10);

fn kind_of(fields: &str, body: &str) -> TrapKind {
    let function = load(&guest_with(fields, body));
    let before = Instant::now();
    let first = function.run(&event(), &mut State::default(), 42);
    let took = before.elapsed();
    replay(&function, &event(), State::default(), 42, &first);
    let kind = trap(first).kind;
    assert!(took < SOON, "{kind} took {took:?}");
    effects(run(&load(&guest(""))));
    kind
}

#[test]
fn endless_work_runs_out_of_fuel() {
    assert_eq!(kind_of("", "(loop $l (br $l))"), TrapKind::OutOfFuel);
    let fill = "(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br $l))";
    assert_eq!(kind_of("", fill), TrapKind::OutOfFuel);
    let copy = "(loop $l (memory.copy (i32.const 0) (i32.const 1) (i32.const 65535)) (br $l))";
    assert_eq!(kind_of("", copy), TrapKind::OutOfFuel);
    let locals = format!("(func $f (local {}))", "i64 ".repeat(1_000));
    assert_eq!(kind_of(&locals, "(loop $l (call $f) (br $l))"), TrapKind::OutOfFuel);
    let trap = trap_of("", "(loop $l (br $l))");
    assert!(trap.message.contains("used up its 10000000 units of fuel"), "{trap}");
}

/// In slices it costs what it costs at one go, and whoever runs it is asked in between.
#[test]
fn long_work_pauses_and_costs_the_same() {
    // Instructions, bulk instructions, and work of the host.
    let work = |rounds: u32| {
        let body = format!(
            "(local $i i32) (loop $l
                (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536))
                (call $random_fill (i32.const 0) (i32.const 65536))
                (drop (call $state_get (i32.const 0) (i32.const 8) (i32.const 0) (i32.const 0)))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $l (i32.lt_u (local.get $i) (i32.const {rounds}))))"
        );
        let mut state = State::default();
        let run = load(&guest(&body)).run(&event(), &mut state, 1);
        let fuel = run.fuel;
        effects(run);
        (fuel, state.pauses)
    };
    let (few, none) = work(2);
    assert!(few < fuel::SLICE && none.is_empty());
    let (many, pauses) = work(400);
    // A round costs the same in any slice.
    assert_eq!((many - few) % 398, 0);
    assert_eq!((many - few) / 398, work(3).0 - few);
    let slices = many / fuel::SLICE;
    assert!((slices - 1..=slices).contains(&(pauses.len() as u64)), "{} pauses in {many}", pauses.len());
    assert!(pauses.windows(2).all(|pair| pair[1] - pair[0] >= fuel::SLICE), "{pauses:?}");
}

/// The interpreter may leave a frame on the native stack for each of these (it does for `memory.grow`), so it must come back
/// before they are too many: if it did not, this would end the process.
#[test]
fn what_loops_needs_no_native_stack() {
    let fields = "(table $t 2 funcref) (elem (i32.const 0) $f) (func $f) (data $d \"abc\") (type $none (func))";
    let zeros = "(i32.const 0) (i32.const 0) (i32.const 0)";
    let bodies = [
        "(drop (memory.grow (i32.const 60000)))".to_owned(),
        "(drop (memory.grow (i32.const 0)))".to_owned(),
        format!("(drop (i32.const 0) {})", "(memory.grow)".repeat(1_000)),
        "(drop (table.grow $t (ref.null func) (i32.const 60000)))".to_owned(),
        "(drop (table.grow $t (ref.null func) (i32.const 0)))".to_owned(),
        format!("(table.fill $t (i32.const 0) (ref.null func) (i32.const 0)) (table.copy $t $t {zeros})"),
        "(table.set $t (i32.const 1) (table.get $t (i32.const 1))) (drop (table.size $t))".to_owned(),
        format!("(memory.fill {zeros}) (memory.copy {zeros}) (memory.init $d {zeros}) (data.drop $d)"),
        "(block $a (block $b (br_table $a $b $a (local.get $event))))".to_owned(),
        "(call $f) (call_indirect $t (type $none) (i32.const 0))".to_owned(),
        "(drop (call $config_get (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 0)))".to_owned(),
        "(drop (f64.div (f64.sqrt (f64.convert_i32_s (local.get $event))) (f64.nearest (f64.const 3.5))))".to_owned(),
        "(i64.store (i32.const 8) (i64.rem_u (i64.load (i32.const 8)) (i64.popcnt (i64.const 7))))".to_owned(),
    ];
    // Three quarters of what a thread has.
    let thread = std::thread::Builder::new().stack_size(3 << 19).spawn(move || {
        for body in bodies {
            assert_eq!(kind_of(fields, &format!("(loop $l {body} (br $l))")), TrapKind::OutOfFuel, "{body}");
        }
    });
    thread.unwrap().join().unwrap();
}

/// A stretch without a branch is run at one go, so what it can leave on the native stack is bounded when it is loaded.
#[test]
fn a_function_asks_for_memory_in_a_thousand_places_at_most() {
    let grow = |places: usize| Engine::new().load(spec(), &guest(&"(drop (memory.grow (i32.const 0)))".repeat(places)));
    assert!(grow(1_000).is_ok());
    let error = grow(1_001).unwrap_err();
    assert_eq!(error.cause, LoadCause::TooManyGrowths { places: 1_001, allowed: 1_000 });
    // The same two bytes, and nothing of the kind.
    let blocks = "(block unreachable)".repeat(1_001);
    assert!(Engine::new().load(spec(), &guest(&blocks)).is_ok());
}

/// What the interpreter charges for bulk instructions: a unit for each 64 bytes, on top of the instruction.
#[test]
fn bulk_instructions_are_charged_by_the_byte() {
    let cost = |body: &str| run(&load(&guest(body))).fuel - run(&load(&guest(""))).fuel;
    let fill = |len: u32| cost(&format!("(memory.fill (i32.const 0) (i32.const 1) (i32.const {len}))"));
    assert_eq!(fill(65_536) - fill(0), 65_536 / 64);
    let copy = |len: u32| cost(&format!("(memory.copy (i32.const 0) (i32.const 64) (i32.const {len}))"));
    assert_eq!(copy(64_000) - copy(0), 64_000 / 64);
}

#[test]
fn imports_are_no_way_to_work_for_free() {
    let key = |len: u32| {
        let body = format!("(drop (call $config_get (i32.const 0) (i32.const {len}) (i32.const 0) (i32.const 0)))");
        run(&load(&guest(&body))).fuel
    };
    assert_eq!(key(65_536) - key(0), 65_536 / 16);
    for body in [
        "(call $random_fill (i32.const 0) (i32.const 65536))",
        "(call $random_fill (i32.const 0) (i32.const 0))",
        "(call $log (i32.const 0) (i32.const 0) (i32.const 65536))",
        "(drop (call $config_get (i32.const 0) (i32.const 65536) (i32.const 0) (i32.const 0)))",
        "(drop (call $state_get (i32.const 0) (i32.const 8) (i32.const 0) (i32.const 0)))",
        "(call $log_with (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 32768))",
    ] {
        assert_eq!(kind_of("", &format!("(loop $l {body} (br $l))")), TrapKind::OutOfFuel, "{body}");
    }
}

#[test]
fn the_store_is_asked_a_bounded_number_of_times() {
    let body = "(loop $l (drop (call $state_get (i32.const 0) (i32.const 8) (i32.const 0) (i32.const 0))) (br $l))";
    let mut state = State::default();
    let kind = trap(load(&guest(body)).run(&event(), &mut state, 0)).kind;
    assert_eq!(kind, TrapKind::OutOfFuel);
    assert!((1_000..2_000).contains(&state.asked), "{}", state.asked);
}

#[test]
fn reading_a_blob_is_paid_for_by_its_bytes() {
    let fields = data(0, b"images/a");
    let get = |len: u32| {
        format!("(drop (call $blob_get (i32.const 0) (i32.const 8) (i32.const 0) (i32.const 1024) (i32.const {len})))")
    };
    let mut state = State::default();
    state.blobs.insert("images/a".to_owned(), vec![7; 32_000]);
    let mut fuel = |len| load(&guest_with(&fields, &get(len))).run(&event(), &mut state, 0).fuel;
    assert_eq!(fuel(32_000) - fuel(0), 32_000 / 16);
    // Room that is not filled costs nothing.
    assert_eq!(fuel(64_000), fuel(32_000));
    let endless = format!("(loop $l {} (br $l))", get(32_000));
    assert_eq!(trap(load(&guest_with(&fields, &endless)).run(&event(), &mut state, 0)).kind, TrapKind::OutOfFuel);
    assert!(state.asked < 8_000, "{}", state.asked);
}

#[test]
fn recursion_overflows_a_stack_of_its_own() {
    assert_eq!(kind_of("(func $f (call $f))", "(call $f)"), TrapKind::StackOverflow);
    let wide = format!("(func $f (local {}) (call $f))", "i64 ".repeat(1_000));
    assert_eq!(kind_of(&wide, "(call $f)"), TrapKind::StackOverflow);
}

#[test]
fn memory_is_bounded_and_the_refusal_named() {
    let bomb = "(loop $l (br_if $l (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) unreachable";
    assert_eq!(kind_of("", bomb), TrapKind::OutOfMemory);
    let trap = trap_of("", bomb);
    assert!(trap.message.contains("16777216 are allowed"), "{trap}");
    // A function that copes with the refusal goes on.
    let run = run(&load(&guest("(drop (memory.grow (i32.const 60000)))")));
    assert_eq!(run.memory_bytes, 65_536);
    effects(run);
}

#[test]
fn the_functions_own_faults_are_told_apart() {
    assert_eq!(kind_of("", "unreachable"), TrapKind::Unreachable);
    assert_eq!(kind_of("", "(drop (i32.load (i32.const -1)))"), TrapKind::MemoryBounds);
    assert_eq!(kind_of("", "(drop (i32.div_u (i32.const 1) (i32.const 0)))"), TrapKind::Arithmetic);
    assert_eq!(kind_of("", "(drop (i32.div_s (i32.const -2147483648) (i32.const -1)))"), TrapKind::Arithmetic);
    assert_eq!(kind_of("", "(drop (i32.trunc_f32_s (f32.const nan)))"), TrapKind::Arithmetic);
    let table = "(table $t 2 funcref) (type $none (func)) (elem (i32.const 0) $two) (func $two (param i32 i32))";
    for index in ["1", "2", "0"] {
        let call = format!("(call_indirect (type $none) (i32.const {index}))");
        assert_eq!(kind_of(table, &call), TrapKind::TableBounds, "{index}");
    }
}

#[test]
fn floods_of_effects_stop_at_the_limits() {
    let fields = data(0, b"alerts");
    let emit = |len: u32| {
        format!(
            "(loop $l (call $emit (i32.const 0) (i32.const 6) (i32.const 0) (i32.const {len}) (i32.const 0)) (br $l))"
        )
    };
    assert_eq!(kind_of(&fields, &emit(0)), TrapKind::TooManyEffects);
    assert_eq!(kind_of(&fields, &emit(65_000)), TrapKind::OutputTooLarge);
    for body in [
        "(call $state_put (i32.const 0) (i32.const 6) (i32.const 0) (i32.const 0))",
        "(call $state_delete (i32.const 0) (i32.const 6))",
    ] {
        assert_eq!(kind_of(&fields, &format!("(loop $l {body} (br $l))")), TrapKind::TooManyEffects);
    }
}

#[test]
fn exactly_the_limit_is_allowed() {
    let times = |count: u32| {
        let fields = [data(0, b"alerts"), "(global $n (mut i32) (i32.const 0))".to_owned()].concat();
        let body = format!(
            "(loop $l
                (call $emit (i32.const 0) (i32.const 6) (i32.const 0) (i32.const 10) (i32.const 0))
                (global.set $n (i32.add (global.get $n) (i32.const 1)))
                (br_if $l (i32.lt_u (global.get $n) (i32.const {count}))))"
        );
        guest_with(&fields, &body)
    };
    let mut tight = spec();
    (tight.limits.effects, tight.limits.output_bytes) = (4, 48);
    let load = |spec, wasm: &[u8]| Engine::new().load(spec, wasm).unwrap();
    assert_eq!(effects(run(&load(tight.clone(), &times(3)))).len(), 3);
    assert_eq!(trap(run(&load(tight.clone(), &times(4)))).kind, TrapKind::OutputTooLarge);
    tight.limits.output_bytes = 64;
    assert_eq!(effects(run(&load(tight.clone(), &times(4)))).len(), 4);
    assert_eq!(trap(run(&load(tight, &times(5)))).kind, TrapKind::TooManyEffects);
}

#[test]
fn a_flood_of_logs_is_cut_and_counted() {
    let long = "(call $log (i32.const 0) (i32.const 0) (i32.const 5000))".repeat(3);
    let run = run(&load(&guest(&long)));
    let lengths: Vec<usize> = run.logs.iter().map(|line| line.text.len()).collect();
    assert_eq!((lengths, run.logs_dropped), (vec![5_000, 3_192], 2));
    effects(run);
    let empty = "(call $log (i32.const 0) (i32.const 0) (i32.const 0))".repeat(100);
    let run = common::run(&load(&guest(&empty)));
    assert_eq!((run.logs.len(), run.logs_dropped), (64, 36));
    // A character is not cut in half.
    let mut tight = spec();
    tight.limits.log_bytes = 4;
    let function = Engine::new()
        .load(tight, &guest_with(&data(0, "aéé".as_bytes()), "(call $log (i32.const 0) (i32.const 0) (i32.const 5))"))
        .unwrap();
    let run = common::run(&function);
    assert_eq!((run.logs[0].text.as_str(), run.logs_dropped), ("aé", 1));
}

#[test]
fn every_pointer_of_every_import_is_checked() {
    let bad = [("65536", "1"), ("65535", "2"), ("-1", "1"), ("-1", "-1"), ("0", "-1"), ("1", "65536"), ("-1", "0")];
    let good = "(i32.const 0) (i32.const 6)";
    // Where a pointer and a length go is marked with P.
    let calls = [
        format!("(drop (call $config_get P {good}))"),
        format!("(drop (call $config_get {good} P))"),
        format!("(drop (call $secret_get P {good}))"),
        format!("(drop (call $secret_get {good} P))"),
        format!("(drop (call $state_get P {good}))"),
        format!("(drop (call $state_get {good} P))"),
        "(call $random_fill P)".to_owned(),
        "(drop (call $blob_size P))".to_owned(),
        format!("(drop (call $blob_get P (i32.const 0) {good}))"),
        format!("(drop (call $blob_get {good} (i32.const 0) P))"),
        format!("(call $blob_put P {good} {good})"),
        format!("(call $blob_put {good} P {good})"),
        format!("(call $blob_put {good} {good} P)"),
        "(call $blob_delete P)".to_owned(),
        format!("(call $state_put P {good})"),
        format!("(call $state_put {good} P)"),
        format!("(call $state_put_ttl P {good} (i32.const 1))"),
        format!("(call $state_put_ttl {good} P (i32.const 1))"),
        "(call $state_delete P)".to_owned(),
        format!("(call $emit P {good} (i32.const 0))"),
        format!("(call $emit {good} P (i32.const 0))"),
        format!("(call $publish P {good} (i32.const 0))"),
        format!("(call $publish {good} P (i32.const 0))"),
        format!("(call $twin_report P {good})"),
        format!("(call $twin_report {good} P)"),
        "(call $count P (f64.const 1))".to_owned(),
        "(call $observe P (f64.const 1))".to_owned(),
        format!("(call $request P {good} {good})"),
        format!("(call $request {good} P {good})"),
        format!("(call $request {good} {good} P)"),
        "(call $log (i32.const 0) P)".to_owned(),
        format!("(call $log_with (i32.const 0) P {good})"),
        format!("(call $log_with (i32.const 0) {good} P)"),
        "(call $fail P)".to_owned(),
    ];
    let fields = data(0, b"alerts");
    for call in calls {
        for (at, len) in bad {
            let body = call.replace('P', &format!("(i32.const {at}) (i32.const {len})"));
            let trap = trap_of(&fields, &body);
            assert_eq!(trap.kind, TrapKind::BadPointer, "{body}: {trap}");
            assert!(trap.message.contains("the memory has 65536 bytes"), "{trap}");
        }
    }
}

#[test]
fn nothing_at_the_end_of_memory_is_still_inside() {
    effects(run(&load(&guest("(call $random_fill (i32.const 65536) (i32.const 0))"))));
}

#[test]
fn text_that_is_not_utf8_is_named() {
    let fields = data(0, b"\xff\xfe");
    let two = "(i32.const 0) (i32.const 2)";
    for (body, what) in [
        (format!("(drop (call $config_get {two} {two}))"), "config_get: the key"),
        (format!("(call $emit {two} {two} (i32.const 0))"), "emit: the stream"),
        (format!("(call $publish {two} {two} (i32.const 0))"), "publish: the topic"),
        (format!("(call $count {two} (f64.const 1))"), "count: the name"),
        (format!("(call $request {two} {two} {two})"), "request: the URL"),
        (format!("(call $log (i32.const 0) {two})"), "log: the text"),
        (format!("(call $log_with (i32.const 0) {two} (i32.const 0) (i32.const 0))"), "log_with: the text"),
        (format!("(drop (call $secret_get {two} {two}))"), "secret_get: the key"),
        (format!("(call $twin_report {two} {two})"), "twin_report: the name"),
        (format!("(drop (call $blob_size {two}))"), "blob_size: the name"),
        (format!("(call $blob_delete {two})"), "blob_delete: the name"),
    ] {
        let trap = trap_of(&fields, &body);
        assert_eq!(trap.kind, TrapKind::BadText, "{body}: {trap}");
        assert!(trap.message.contains(what), "{trap}");
    }
    // The message of a failure is shown as far as it can be.
    let trap = trap_of(&fields, &format!("(call $fail {two})"));
    assert_eq!((trap.kind, trap.message.ends_with("failed: ��")), (TrapKind::Failed, true), "{trap}");
}

#[test]
fn what_is_not_allowed_is_refused_by_name() {
    let fields = [data(0, b"secrets"), data(20, b"other/x"), data(40, b"$SYS/x")].concat();
    let emit = "(call $emit (i32.const 0) (i32.const 7) (i32.const 0) (i32.const 0) (i32.const 0))";
    let trap = trap_of(&fields, emit);
    assert_eq!(trap.kind, TrapKind::NotAllowed);
    assert!(trap.message.contains(r#"the stream "secrets"; allowed: "alerts", "raw.*""#), "{trap}");
    for (at, len) in [(20, 7), (40, 6)] {
        let publish =
            format!("(call $publish (i32.const {at}) (i32.const {len}) (i32.const 0) (i32.const 0) (i32.const 0))");
        assert_eq!(trap_of(&fields, &publish).kind, TrapKind::NotAllowed);
    }
    let fields = [data(0, b"images/a"), data(20, b"thumbs/a"), data(40, b"sha256:00"), data(60, b"../etc")].concat();
    for (call, kind) in [
        ("(drop (call $blob_size (i32.const 20) (i32.const 8)))", TrapKind::NotAllowed),
        ("(drop (call $blob_size (i32.const 40) (i32.const 9)))", TrapKind::NotAllowed),
        ("(drop (call $blob_size (i32.const 60) (i32.const 6)))", TrapKind::BadBlob),
        ("(call $blob_delete (i32.const 0) (i32.const 8))", TrapKind::NotAllowed),
        ("(call $blob_delete (i32.const 40) (i32.const 9))", TrapKind::BadBlob),
        ("(call $blob_delete (i32.const 60) (i32.const 6))", TrapKind::BadBlob),
    ] {
        let trap = trap_of(&fields, call);
        assert_eq!(trap.kind, kind, "{call}: {trap}");
    }
    let fields = [data(0, b"secrets"), data(20, b"other/x"), data(40, b"$SYS/x")].concat();
    let mut closed = spec();
    closed.permissions = Default::default();
    let function = Engine::new().load(closed, &guest_with(&fields, emit)).unwrap();
    assert!(common::trap(run(&function)).message.contains("allowed: none"));
}

#[test]
fn bad_topics_streams_and_numbers_are_named() {
    let long = "x".repeat(MAX_STREAM_BYTES + 1);
    let fields = [
        data(0, b"out/+"),
        data(10, b"out/#"),
        data(20, b"out/\0"),
        data(30, b"al*"),
        data(40, b"out/x"),
        data(50, b"alerts"),
        data(60, b"@twin"),
        data(100, long.as_bytes()),
    ]
    .concat();
    let publish = |at: u32, len: u32, flags: i32| {
        trap_of(
            &fields,
            &format!(
                "(call $publish (i32.const {at}) (i32.const {len}) (i32.const 0) (i32.const 0) (i32.const {flags}))"
            ),
        )
    };
    let emit = |at: u32, len: usize, priority: i32| {
        trap_of(
            &fields,
            &format!(
                "(call $emit (i32.const {at}) (i32.const {len}) (i32.const 0) (i32.const 0) (i32.const {priority}))"
            ),
        )
    };
    let wildcard = publish(0, 5, 0);
    assert_eq!(wildcard.kind, TrapKind::BadTopic);
    assert!(wildcard.message.contains(r#""out/+" holds the wildcard '+'"#), "{wildcard}");
    assert_eq!(publish(10, 5, 0).kind, TrapKind::BadTopic);
    assert_eq!(publish(20, 5, 0).kind, TrapKind::BadTopic);
    assert_eq!(publish(0, 0, 0).kind, TrapKind::BadTopic);
    assert_eq!(publish(40, 5, 3).kind, TrapKind::BadArgument);
    assert_eq!(publish(40, 5, 8).kind, TrapKind::BadArgument);
    assert_eq!(publish(40, 5, -1).kind, TrapKind::BadArgument);
    assert_eq!(emit(30, 3, 0).kind, TrapKind::BadStream);
    assert_eq!(emit(30, 0, 0).kind, TrapKind::BadStream);
    assert_eq!(emit(100, long.len(), 0).kind, TrapKind::BadStream);
    assert_eq!(emit(60, 5, 0).kind, TrapKind::BadStream, "the gateway's own");
    assert_eq!(emit(50, 6, 2).kind, TrapKind::BadArgument);
    assert_eq!(trap_of("", "(call $log (i32.const 4) (i32.const 0) (i32.const 0))").kind, TrapKind::BadArgument);
    assert_eq!(trap_of("", "(call $log (i32.const -1) (i32.const 0) (i32.const 0))").kind, TrapKind::BadArgument);
}

#[test]
fn keys_and_values_are_bounded() {
    for body in [
        "(call $state_put (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))",
        "(call $state_put (i32.const 0) (i32.const 257) (i32.const 0) (i32.const 0))",
        "(call $state_delete (i32.const 0) (i32.const 257))",
        "(drop (call $state_get (i32.const 0) (i32.const 257) (i32.const 0) (i32.const 0)))",
        "(drop (memory.grow (i32.const 1)))
         (call $state_put (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 65537))",
    ] {
        assert_eq!(trap_of("", body).kind, TrapKind::BadState, "{body}");
    }
}

fn with_alloc(body: &str) -> Function {
    let wasm = format!(
        r#"(module {IMPORTS} (memory (export "memory") 1)
            (func (export "edge_alloc") (param i32) (result i32) {body})
            (func (export "edge_handle") (param i32 i32) (result i32) (i32.const 0)))"#
    );
    load(&wat::parse_str(wasm).unwrap())
}

#[test]
fn the_allocator_is_not_trusted() {
    for (answer, why) in [
        ("0", "no room"),
        ("4", "not divisible by 8"),
        ("65528", "do not fit"),
        ("65536", "do not fit"),
        ("-8", "do not fit"),
    ] {
        let trap = trap(run(&with_alloc(&format!("(i32.const {answer})"))));
        assert_eq!(trap.kind, TrapKind::BadAlloc, "{trap}");
        assert!(trap.message.contains(why), "{trap}");
    }
    assert_eq!(trap(run(&with_alloc("unreachable"))).kind, TrapKind::Unreachable);
    assert_eq!(trap(run(&with_alloc("(loop $l (br $l)) (i32.const 8)"))).kind, TrapKind::OutOfFuel);
    // The last place where the event fits: 79 bytes.
    effects(run(&with_alloc("(i32.const 65456)")));
}

#[test]
fn an_event_that_no_memory_can_hold_is_named() {
    let mut large = event();
    large.payload = vec![0; 17 << 20].into();
    let run = load(&guest("")).run(&large, &mut State::default(), 0);
    let trap = trap(run);
    assert_eq!(trap.kind, TrapKind::EventTooLarge);
    assert!(trap.message.contains("17825867 bytes"), "{trap}");
}

#[test]
fn a_long_message_of_failure_is_cut() {
    let Outcome::Failed(trap) = run(&load(&guest("(call $fail (i32.const 0) (i32.const 60000))"))).outcome else {
        panic!("it must fail")
    };
    assert!(trap.message.len() < 1_200, "{}", trap.message.len());
}

#[test]
fn one_engine_serves_good_functions_after_bad_ones() {
    let engine = Engine::new();
    let good = engine
        .load(
            spec(),
            &guest_with(
                &data(0, b"alerts"),
                "(call $emit (i32.const 0) (i32.const 6) (i32.const 0) (i32.const 1) (i32.const 0))",
            ),
        )
        .unwrap();
    let expected = effects(run(&good));
    for body in ["(loop $l (br $l))", "unreachable", "(call $random_fill (i32.const -1) (i32.const -1))"] {
        let bad = engine.load(spec(), &guest(body)).unwrap();
        trap(run(&bad));
        engine.load(spec(), include_bytes!("hostile/wasmi-strict-limits-panic.wasm")).unwrap_err();
        assert_eq!(effects(run(&good)), expected);
    }
    let wasm = format!(r#"(module (memory (export "memory") 1) {ALLOC})"#);
    engine.load(spec(), &wat::parse_str(wasm).unwrap()).unwrap_err();
    assert_eq!(effects(run(&good)), expected);
}
