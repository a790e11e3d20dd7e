//! What each import does when it is used as it should be.

mod common;

use std::sync::Arc;

use agent_core::Effect;
use agent_core::effect::{Number, Request, Response};
use agent_functions::{Engine, LogLine, Outcome, TrapKind};
use common::{Broken, State, data, effects, event, guest, guest_with, load, run, spec, trap, trap_of};
use function_abi::{Attributes, EventHeader, LogLevel, Priority, PublishFlags};

/// Emits the `len` bytes at `at` to the stream whose name lies at 0.
fn emit(at: u32, len: u32) -> String {
    format!("(call $emit (i32.const 0) (i32.const 6) (i32.const {at}) (i32.const {len}) (i32.const 0))")
}

fn alerts() -> String {
    data(0, b"alerts")
}

fn body_of(effect: &Effect) -> &[u8] {
    match effect {
        Effect::Emit { body, .. } => body,
        other => panic!("expected a record, not {other:?}"),
    }
}

#[test]
fn the_event_arrives_as_the_contract_says() {
    let echo = guest_with(
        &alerts(),
        "(call $emit (i32.const 0) (i32.const 6) (local.get $event) (local.get $len) (i32.const 1))",
    );
    let done = effects(run(&load(&echo)));
    let [Effect::Emit { stream, body, priority: Priority::High }] = &done[..] else { panic!("{done:?}") };
    assert_eq!(stream, "alerts");
    let header = EventHeader::from_block(body).unwrap();
    assert_eq!((header.header_len, header.kind, header.time_us), (64, 0, 1_700_000_000_000_000));
    assert_eq!((header.boot, header.sequence), (7, 9));
    assert_eq!(header.device.of(body), Some(&b"sensor-1"[..]));
    assert_eq!(header.topic.of(body), Some(&b"a/b"[..]));
    assert_eq!(header.payload.of(body), Some(&b"21.5"[..]));
    assert_eq!(header.attributes.of(body), Some(&b""[..]));
    assert_eq!(body.len(), 64 + 8 + 3 + 4);
}

#[test]
fn an_event_without_identity_has_sequence_0() {
    let echo = guest_with(
        &alerts(),
        "(call $emit (i32.const 0) (i32.const 6) (local.get $event) (local.get $len) (i32.const 0))",
    );
    let mut event = event();
    event.identity = None;
    let done = effects(load(&echo).run(&event, &mut State::default(), 0));
    let header = EventHeader::from_block(body_of(&done[0])).unwrap();
    assert_eq!((header.boot, header.sequence), (0, 0));
}

#[test]
fn a_setting_is_read_if_it_fits_and_measured_if_not() {
    // The answers of four calls are stored one after the other at 100, then what was written at 200.
    let call = |slot: u32, key: u32, len: u32, cap: u32| {
        format!(
            "(i32.store (i32.const {}) (call $config_get (i32.const {key}) (i32.const {len}) (i32.const {}) (i32.const {cap})))",
            100 + slot * 4,
            200 + slot * 16
        )
    };
    let fields = [alerts(), data(10, b"unit"), data(20, b"empty"), data(30, b"none")].concat();
    let body = [call(0, 10, 4, 16), call(1, 10, 4, 6), call(2, 20, 5, 0), call(3, 30, 4, 16), emit(100, 132)].concat();
    let done = effects(run(&load(&guest_with(&fields, &body))));
    let seen = body_of(&done[0]);
    let answers: Vec<i32> = seen[..16].chunks(4).map(|four| i32::from_le_bytes(four.try_into().unwrap())).collect();
    assert_eq!(answers, [7, 7, 0, -1]);
    assert_eq!(&seen[100..107], b"celsius");
    assert_eq!(seen[116..132], [0; 16], "nothing is written that does not fit");
}

#[test]
fn the_state_is_read_through_the_store() {
    let fields = [alerts(), data(10, b"count")].concat();
    let body = [
        "(i32.store (i32.const 100) (call $state_get (i32.const 10) (i32.const 5) (i32.const 104) (i32.const 8)))",
        &emit(100, 12),
    ]
    .concat();
    let function = load(&guest_with(&fields, &body));
    let mut state = State::default();
    assert_eq!(body_of(&effects(function.run(&event(), &mut state, 0))[0])[..4], (-1_i32).to_le_bytes());
    state.values.insert(b"count".to_vec(), Arc::from(*b"abc"));
    let done = effects(function.run(&event(), &mut state, 0));
    assert_eq!(body_of(&done[0]), b"\x03\0\0\0abc\0\0\0\0\0");
    assert_eq!(state.asked, 2);
}

#[test]
fn a_run_sees_its_own_writes() {
    let read = |slot: u32| {
        format!(
            "(i32.store (i32.const {}) (call $state_get (i32.const 10) (i32.const 1) (i32.const {}) (i32.const 8)))",
            100 + slot * 16,
            104 + slot * 16
        )
    };
    let fields = [alerts(), data(10, b"k"), data(20, b"first"), data(30, b"second")].concat();
    let put = |at: u32, len: u32| {
        format!("(call $state_put (i32.const 10) (i32.const 1) (i32.const {at}) (i32.const {len}))")
    };
    let delete = "(call $state_delete (i32.const 10) (i32.const 1))".to_owned();
    let body = [read(0), put(20, 5), read(1), put(30, 6), read(2), delete, read(3), emit(100, 64)].concat();
    let mut state = State::default();
    state.values.insert(b"k".to_vec(), Arc::from(*b"stored"));
    let done = effects(load(&guest_with(&fields, &body)).run(&event(), &mut state, 0));
    assert_eq!(state.asked, 1, "only the first read goes to the store");
    let seen = body_of(&done[3]);
    assert_eq!(&seen[..12], b"\x06\0\0\0stored\0\0");
    assert_eq!(&seen[16..25], b"\x05\0\0\0first");
    assert_eq!(&seen[32..42], b"\x06\0\0\0second");
    assert_eq!(seen[48..52], (-1_i32).to_le_bytes());
    assert_eq!(done[0], Effect::StatePut { key: b"k".to_vec(), value: b"first".to_vec(), ttl_s: None });
    assert_eq!(done[1], Effect::StatePut { key: b"k".to_vec(), value: b"second".to_vec(), ttl_s: None });
    assert_eq!(done[2], Effect::StateDelete { key: b"k".to_vec() });
}

#[test]
fn the_state_may_be_read_at_any_depth_and_in_the_allocator() {
    let wasm = wat::parse_str(format!(
        r#"(module {}
            (memory (export "memory") 1)
            {}
            (func $read (result i32)
                (call $state_get (i32.const 10) (i32.const 1) (i32.const 104) (i32.const 8)))
            (func (export "edge_alloc") (param i32) (result i32)
                (i32.store (i32.const 96) (call $read))
                (i32.const 32768))
            (table 1 funcref) (elem (i32.const 0) $state_get)
            (type $get (func (param i32 i32 i32 i32) (result i32)))
            (func (export "edge_handle") (param i32 i32) (result i32)
                (i32.store (i32.const 100)
                    (call_indirect (type $get)
                        (i32.const 10) (i32.const 1) (i32.const 104) (i32.const 8) (i32.const 0)))
                {}
                (i32.const 0)))"#,
        common::IMPORTS,
        [alerts(), data(10, b"k")].concat(),
        emit(96, 14)
    ))
    .unwrap();
    let mut state = State::default();
    state.values.insert(b"k".to_vec(), Arc::from(*b"stored"));
    let done = effects(load(&wasm).run(&event(), &mut state, 0));
    assert_eq!(body_of(&done[0]), b"\x06\0\0\0\x06\0\0\0stored");
}

#[test]
fn a_store_that_fails_abandons_the_run() {
    let zeros = |count| "(i32.const 0)".repeat(count);
    for body in [
        format!("(drop (call $state_get (i32.const 0) (i32.const 1) {}))", zeros(2)),
        format!("(drop (call $state_next {}))", zeros(6)),
        format!("(call $state_put (i32.const 0) (i32.const 1) {})", zeros(2)),
        "(drop (call $blob_size (i32.const 1024) (i32.const 8)))".to_owned(),
        format!("(drop (call $blob_get (i32.const 1024) (i32.const 8) {}))", zeros(3)),
    ] {
        let run = load(&guest_with(&data(1024, b"images/a"), &body)).run(&event(), &mut Broken, 0);
        let Outcome::Abandoned(error) = run.outcome else { panic!("{run:?}") };
        assert_eq!(error.to_string(), "the state could not be read: disk on fire");
    }
}

#[test]
fn a_blob_is_read_piece_by_piece_and_the_events_own_by_its_digest() {
    let digest = "ab".repeat(32);
    let own = format!("sha256:{digest}");
    let fields = [alerts(), data(200, b"images/a"), data(300, own.as_bytes())].concat();
    let body = [
        "(i32.store (i32.const 400) (call $blob_size (i32.const 200) (i32.const 8)))
         (i32.store (i32.const 404) (call $blob_get (i32.const 200) (i32.const 8) (i32.const 1) (i32.const 420) (i32.const 4)))
         (i32.store (i32.const 408) (call $blob_get (i32.const 200) (i32.const 8) (i32.const 5) (i32.const 424) (i32.const 4)))
         (i32.store (i32.const 412) (call $blob_get (i32.const 200) (i32.const 8) (i32.const -1) (i32.const 428) (i32.const 4)))
         (i32.store (i32.const 416) (call $blob_size (i32.const 300) (i32.const 71)))",
        &emit(400, 32),
    ]
    .concat();
    let function = load(&guest_with(&fields, &body));
    let mut state = State::default();
    state.blobs.insert("images/a".to_owned(), b"0123456".to_vec());
    let told = agent_core::Event {
        attributes: vec![("digest".to_owned(), digest.clone())],
        ..agent_core::Event::new(function_abi::EventKind::Blob, "@blob", "images/a", [], 0)
    };
    let done = effects(function.run(&told, &mut state, 0));
    let expected: Vec<u8> = [7_i32, 4, 2, 0, -1].iter().flat_map(|number| number.to_le_bytes()).collect();
    assert_eq!(body_of(&done[0]), [&expected[..], b"123456\0\0\0\0\0\0"].concat());
    state.blobs.insert(own, b"xyz".to_vec());
    let done = effects(function.run(&told, &mut state, 0));
    assert_eq!(body_of(&done[0])[16..20], 3_i32.to_le_bytes());
    // A message that only says so is about no blob.
    let mut other = event();
    other.attributes.push(("digest".to_owned(), digest));
    let trap = trap(function.run(&other, &mut state, 0));
    assert_eq!(trap.kind, TrapKind::NotAllowed, "{trap}");
}

#[test]
fn blobs_are_effects_like_all_others() {
    let fields = [data(0, b"thumbs/a"), data(20, b"image/png"), data(40, b"body")].concat();
    let name = "(i32.const 0) (i32.const 8)";
    let body = format!(
        "(call $blob_put {name} (i32.const 20) (i32.const 9) (i32.const 40) (i32.const 4)) (call $blob_delete {name})"
    );
    let (name, content_type) = ("thumbs/a".to_owned(), "image/png".to_owned());
    let put = Effect::BlobPut { name: name.clone(), content_type, body: b"body".to_vec() };
    assert_eq!(effects(run(&load(&guest_with(&fields, &body)))), [put, Effect::BlobDelete { name }]);
}

#[test]
fn the_seed_decides_the_random_numbers() {
    let body = ["(call $random_fill (i32.const 100) (i32.const 11))", &emit(100, 12)].concat();
    let function = load(&guest_with(&alerts(), &body));
    let draw = |seed| body_of(&effects(function.run(&event(), &mut State::default(), seed))[0]).to_vec();
    let drawn = draw(1_234_567);
    assert_eq!(drawn[..8], 6_457_827_717_110_365_317_u64.to_le_bytes());
    assert_eq!(drawn[8..11], 3_203_168_211_198_807_973_u64.to_le_bytes()[..3]);
    assert_eq!(drawn[11], 0);
    assert_eq!(drawn, draw(1_234_567));
    assert_ne!(drawn, draw(1_234_568));
}

#[test]
fn a_message_is_published_with_its_flags() {
    let fields = [data(0, b"out/alarm"), data(20, b"on")].concat();
    let body = "(call $publish (i32.const 0) (i32.const 9) (i32.const 20) (i32.const 2) (i32.const 5))";
    let flags = PublishFlags { qos: 1, retain: true };
    assert_eq!(
        effects(run(&load(&guest_with(&fields, body)))),
        [Effect::Publish { topic: "out/alarm".to_owned(), payload: b"on".to_vec(), flags }]
    );
}

#[test]
fn log_lines_are_kept_whatever_the_outcome() {
    let fields = [data(0, b"hello"), data(10, b"no good")].concat();
    let body = "(call $log (i32.const 2) (i32.const 0) (i32.const 5))
                (call $fail (i32.const 10) (i32.const 7))
                (call $log (i32.const 2) (i32.const 0) (i32.const 5))";
    let run = run(&load(&guest_with(&fields, body)));
    assert_eq!(run.logs, [LogLine { level: LogLevel::Info, text: "hello".to_owned(), fields: Vec::new() }]);
    assert_eq!(run.logs_dropped, 0);
    let trap = trap(run);
    assert_eq!(trap.kind, TrapKind::Failed);
    assert_eq!(trap.message, "function \"under-test\" 1.2.3: failed: no good");
}

#[test]
fn an_answer_other_than_0_is_a_failure_without_effects() {
    let body = [emit(0, 1), "(return (i32.const 7))".to_owned()].concat();
    let trap = trap(run(&load(&guest_with(&alerts(), &body))));
    assert_eq!(trap.kind, TrapKind::Failed);
    assert!(trap.message.ends_with("edge_handle answered 7; 0 is success"), "{trap}");
}

#[test]
fn no_run_sees_the_memory_of_another() {
    let fields = [alerts(), "(global $n (mut i32) (i32.const 0))".to_owned()].concat();
    let body = [
        "(global.set $n (i32.add (global.get $n) (i32.const 1)))
         (i32.store (i32.const 100) (i32.add (i32.load (i32.const 100)) (global.get $n)))",
        &emit(100, 4),
    ]
    .concat();
    let function = load(&guest_with(&fields, &body));
    for _ in 0..3 {
        assert_eq!(body_of(&effects(run(&function))[0]), 1_i32.to_le_bytes());
    }
}

#[test]
fn fuel_and_memory_are_reported_and_repeat() {
    let function = load(&guest("(drop (memory.grow (i32.const 2)))"));
    let (first, second) = (run(&function), run(&function));
    assert_eq!(first.memory_bytes, 3 * 65_536);
    assert_eq!(first.fuel, second.fuel);
    let idle = run(&load(&guest("")));
    assert!(first.fuel >= idle.fuel + 2 * 65_536 / 64, "growing is paid for: {} and {}", first.fuel, idle.fuel);
}

#[test]
fn a_nan_has_the_same_bits_on_every_processor() {
    let body =
        ["(f64.store (i32.const 100) (f64.div (f64.load (i32.const 200)) (f64.load (i32.const 200))))", &emit(100, 8)]
            .concat();
    let done = effects(run(&load(&guest_with(&alerts(), &body))));
    assert_eq!(body_of(&done[0]), 0x7ff8_0000_0000_0000_u64.to_le_bytes());
}

#[test]
fn a_start_function_may_log_but_not_act() {
    let start = |body: &str| format!("(func $start {body}) (start $start) {}", alerts());
    let logs = guest_with(&start("(call $log (i32.const 1) (i32.const 0) (i32.const 6))"), "");
    assert_eq!(
        run(&load(&logs)).logs,
        [LogLine { level: LogLevel::Warn, text: "alerts".to_owned(), fields: Vec::new() }]
    );
    let acts = guest_with(&start(&emit(0, 1)), "");
    let error = Engine::new().load(spec(), &acts).unwrap_err();
    assert!(error.to_string().contains("emit: its start function may not use this"), "{error}");
    let reads = "(drop (call $state_get (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0)))";
    let error = Engine::new().load(spec(), &guest_with(&start(reads), "")).unwrap_err();
    assert!(error.to_string().contains("state_get: its start function may not use this"), "{error}");
}

#[test]
fn a_function_runs_on_many_threads_at_once() {
    let body = ["(call $random_fill (i32.const 100) (i32.const 8))", &emit(100, 8)].concat();
    let function = load(&guest_with(&alerts(), &body));
    let expected: Vec<Vec<u8>> =
        (0..4).map(|seed| body_of(&effects(function.run(&event(), &mut State::default(), seed))[0]).to_vec()).collect();
    std::thread::scope(|scope| {
        for (seed, expected) in (0..4).zip(&expected) {
            let function = function.clone();
            scope.spawn(move || {
                for _ in 0..200 {
                    let done = effects(function.run(&event(), &mut State::default(), seed));
                    assert_eq!(body_of(&done[0]), expected);
                }
            });
        }
    });
}

#[test]
fn attributes_arrive_as_the_contract_says() {
    let echo = guest_with(
        &alerts(),
        "(call $emit (i32.const 0) (i32.const 6) (local.get $event) (local.get $len) (i32.const 1))",
    );
    let mut event = event();
    event.attributes = vec![("method".into(), "GET".into()), ("path.id".into(), "7".into())];
    let done = effects(load(&echo).run(&event, &mut State::default(), 0));
    let block = body_of(&done[0]);
    let found: Vec<_> = Attributes(EventHeader::from_block(block).unwrap().attributes.of(block).unwrap()).collect();
    assert_eq!(found, [("method", "GET"), ("path.id", "7")]);
}

#[test]
fn a_message_goes_into_an_allowed_queue() {
    let fields = [data(0, b"q"), data(10, b"hello")].concat();
    let enqueue =
        |len| format!("(call $enqueue (i32.const 0) (i32.const {len}) (i32.const 10) (i32.const 5) (i32.const -1))");
    let done = effects(run(&load(&guest_with(&fields, &enqueue(1)))));
    assert_eq!(done, [Effect::Enqueue { queue: "q".into(), body: b"hello".to_vec(), delay_ms: u32::MAX }]);
    let refused = trap_of(&fields, &enqueue(2));
    assert_eq!(refused.kind, TrapKind::NotAllowed);
    assert!(
        refused.message.contains("enqueue: it may not put messages into the queue")
            && refused.message.contains("allowed: \"q\""),
        "{refused}"
    );
}

#[test]
fn an_answer_has_a_status_and_header_fields_that_can_be_sent() {
    let fields = [data(0, b"\x01\0\0\0\x02\0\0\0X-1"), data(40, b"body")].concat();
    let respond = |status: i32, headers: u32| {
        format!("(call $respond (i32.const {status}) (i32.const 0) (i32.const {headers}) (i32.const 40) (i32.const 4))")
    };
    let done = effects(run(&load(&guest_with(&fields, &respond(201, 11)))));
    let headers = vec![("x".to_owned(), "-1".to_owned())];
    assert_eq!(done, [Effect::Respond(Response { status: 201, headers, body: b"body".to_vec() })]);
    for (status, headers, why) in [
        (199, 11, "199 is no status"),
        (600, 11, "600 is no status"),
        (-1, 11, "no status"),
        (200, 10, "the headers are damaged"),
    ] {
        let refused = trap_of(&fields, &respond(status, headers));
        assert_eq!(refused.kind, TrapKind::BadArgument);
        assert!(refused.message.contains(why), "{refused}");
    }
    let smuggled = [data(0, b"\x01\0\0\0\x02\0\0\0x\r\n"), data(40, b"body")].concat();
    assert!(trap_of(&smuggled, &respond(200, 11)).message.contains("is no header field"));
}

/// A head of these attributes.
fn head(attributes: &[(&str, &str)]) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in attributes {
        Attributes::write(name, value, |part| head.extend_from_slice(part)).unwrap();
    }
    head
}

/// A run that lists one request.
fn requesting(url: &[u8], head: &[u8], body: &[u8]) -> agent_functions::Run {
    let fields = [data(0, url), data(8_192, head), data(16_384, body)].concat();
    let (url, head, body) = (url.len(), head.len(), body.len());
    let call = format!(
        "(call $request (i32.const 0) (i32.const {url}) (i32.const 8192) (i32.const {head}) (i32.const 16384)
            (i32.const {body}))"
    );
    run(&load(&guest_with(&fields, &call)))
}

#[test]
fn a_request_says_all_that_it_is_and_has_defaults_for_the_rest() {
    let default = Request {
        url: "https://a.example/x?y=1".into(),
        method: "GET".into(),
        headers: Vec::new(),
        body: Vec::new(),
        to: "under-test".into(),
        timeout_ms: 10_000,
        tries: 5,
        tag: None,
    };
    let url = default.url.as_bytes();
    assert_eq!(effects(requesting(url, b"", b"")), [Effect::Request(default.clone())]);
    let with_body = Request { method: "POST".into(), body: b"body".to_vec(), ..default.clone() };
    assert_eq!(effects(requesting(url, b"", b"body")), [Effect::Request(with_body)]);
    let full = head(&[
        ("method", "PUT"),
        ("header.X-Key", "1"),
        ("to", "other"),
        ("header.idempotency-key", "mine"),
        ("timeout_ms", "100"),
        ("tries", "20"),
        ("tag", "t"),
    ]);
    let all = Request {
        url: "http://c.b.example:81".into(),
        method: "PUT".into(),
        headers: vec![("x-key".into(), "1".into()), ("idempotency-key".into(), "mine".into())],
        body: b"body".to_vec(),
        to: "other".into(),
        timeout_ms: 100,
        tries: 20,
        tag: Some("t".into()),
    };
    assert_eq!(effects(requesting(all.url.as_bytes(), &full, b"body")), [Effect::Request(all)]);
}

#[test]
fn a_request_that_is_malformed_or_not_allowed_ends_the_run() {
    let long = format!("https://a.example/{}", "x".repeat(4_096));
    for url in [
        "",
        "a.example",
        "ftp://a.example",
        "https://u:p@a.example",
        "https://a.example\\@evil.example/",
        "https://a.example#x",
        "https://a.example /",
        "https://a.example\r\nx: y",
        "https://127.1",
        &long,
    ] {
        let refused = trap(requesting(url.as_bytes(), b"", b""));
        assert_eq!(refused.kind, TrapKind::BadArgument, "{url}: {refused}");
        assert!(refused.message.contains("request: the URL") && refused.message.len() < 1_000, "{refused}");
    }
    assert_eq!(trap(requesting(b"https://a.example/\xff", b"", b"")).kind, TrapKind::BadText);

    for (host, shown) in [
        ("evil.example", "evil.example"),
        ("b.example:81", "b.example"),
        ("c.b.example", "c.b.example"),
        ("a.example:8443", "at port 8443"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "[::1]"),
    ] {
        let refused = trap(requesting(format!("https://{host}/").as_bytes(), b"", b""));
        assert_eq!(refused.kind, TrapKind::NotAllowed, "{refused}");
        assert!(
            refused.message.contains(shown) && refused.message.contains("allowed: \"a.example\", \"*.b.example:81\""),
            "{refused}"
        );
    }
    let elsewhere = trap(requesting(b"https://a.example", &head(&[("to", "foreign")]), b""));
    assert_eq!(elsewhere.kind, TrapKind::NotAllowed);
    assert!(elsewhere.message.contains("may not go to the function foreign"), "{elsewhere}");

    let long = "x".repeat(1_025);
    for (attributes, why) in [
        (&[("metod", "GET")][..], "allowed are method, header.NAME, to, timeout_ms, tries and tag"),
        (&[("method", "get")], "allowed are \"GET\""),
        (&[("method", "CONNECT")], "is no method"),
        (&[("method", "GET"), ("method", "GET")], "said twice"),
        (&[("to", "@retry/x")], "is no name of a function"),
        (&[("timeout_ms", "99")], "allowed is a whole number from 100 to 120000"),
        (&[("timeout_ms", "-1")], "timeout_ms is"),
        (&[("tries", "0")], "from 1 to 20"),
        (&[("tries", "99999999999999999999")], "from 1 to 20"),
        (&[("tag", &long)], "1025 bytes long"),
        (&[("header.x", "a\r\nb: c")], "is no header field"),
        (&[("header.a b", "")], "is no header field"),
        (&[("header.", "x")], "is no header field"),
        (&[("header.Host", "evil")], "is the gateway's to say"),
        (&[("header.Transfer-Encoding", "chunked")], "is the gateway's to say"),
        (&[("header.Proxy-Authorization", "x")], "is the gateway's to say"),
    ] {
        let refused = trap(requesting(b"https://a.example", &head(attributes), b""));
        assert_eq!(refused.kind, TrapKind::BadArgument, "{refused}");
        assert!(refused.message.contains(why), "{refused}");
    }
    let whole = head(&[("tag", "t")]);
    for cut in 1..whole.len() {
        let refused = trap(requesting(b"https://a.example", &whole[..cut], b""));
        assert!(refused.message.contains("the head is damaged"), "{refused}");
    }
}

/// Which keys a function finds that walks through its state: what is in the store, after what it wrote itself.
fn walk(prefix: &str, stored: &[&str], put: &[&str], delete: &[&str]) -> Vec<String> {
    // Names of one byte each; every key that is found is emitted from 200, where it then is what to go on after.
    let mut body = String::new();
    let mut fields = data(0, b"alerts") + &data(100, prefix.as_bytes());
    for (slot, (key, put)) in put.iter().map(|key| (key, true)).chain(delete.iter().map(|key| (key, false))).enumerate()
    {
        let at = 300 + slot * 8;
        fields += &data(at as u32, key.as_bytes());
        let (call, rest) = if put { ("state_put", "(i32.const 0) (i32.const 0)") } else { ("state_delete", "") };
        body += &format!("(call ${call} (i32.const {at}) (i32.const {}) {rest})", key.len());
    }
    let prefix_len = prefix.len();
    body += &format!(
        "(block $end (loop $next
            (global.set $n (call $state_next (i32.const 100) (i32.const {prefix_len})
                (i32.const 200) (global.get $n) (i32.const 200) (i32.const 8)))
            (br_if $end (i32.lt_s (global.get $n) (i32.const 0)))
            (call $emit (i32.const 0) (i32.const 6) (i32.const 200) (global.get $n) (i32.const 0))
            (br $next)))"
    );
    let function = load(&guest_with(&(fields + "(global $n (mut i32) (i32.const 0))"), &body));
    let values = stored.iter().map(|key| (key.as_bytes().to_vec(), Arc::from(*b"v"))).collect();
    let mut state = State { values, ..State::default() };
    let done = effects(function.run(&event(), &mut state, 0));
    let keys = done.iter().filter(|effect| matches!(effect, Effect::Emit { .. }));
    keys.map(|effect| String::from_utf8(body_of(effect).to_vec()).unwrap()).collect()
}

#[test]
fn the_keys_of_the_state_come_in_order_with_what_the_run_wrote() {
    assert_eq!(walk("a", &["a", "ab", "b", "0"], &[], &[]), ["a", "ab"]);
    assert_eq!(walk("", &["b", "a"], &["c", "aa"], &[]), ["a", "aa", "b", "c"]);
    assert_eq!(walk("a", &["a1", "a2", "a3"], &["a2", "a4"], &["a1", "a3"]), ["a2", "a4"]);
    assert_eq!(walk("a", &["a1"], &[], &["a1"]), [""; 0]);
    assert_eq!(walk("x", &[], &[], &[]), [""; 0]);
}

#[test]
fn a_value_is_put_for_some_time() {
    let fields = [data(0, b"k"), data(10, b"value")].concat();
    let put = |ttl: i32| {
        format!("(call $state_put_ttl (i32.const 0) (i32.const 1) (i32.const 10) (i32.const 5) (i32.const {ttl}))")
    };
    let done = effects(run(&load(&guest_with(&fields, &put(-1)))));
    assert_eq!(done, [Effect::StatePut { key: b"k".to_vec(), value: b"value".to_vec(), ttl_s: Some(u32::MAX) }]);
    let refused = trap_of(&fields, &put(0));
    assert_eq!(refused.kind, TrapKind::BadArgument);
    assert!(refused.message.contains("state_put_ttl: the value of \"k\" is to be there for 0 seconds"), "{refused}");
}

#[test]
fn a_secret_is_read_only_if_it_is_allowed() {
    let fields = [alerts(), data(10, b"key"), data(20, b"none"), data(30, b"other")].concat();
    let call = |at: u32, len: u32, out: u32| {
        format!(
            "(i32.store (i32.const {}) (call $secret_get (i32.const {at}) (i32.const {len}) (i32.const {out}) (i32.const 16)))",
            out - 4
        )
    };
    let body = [call(10, 3, 104), call(20, 4, 124), emit(100, 28)].concat();
    let done = effects(run(&load(&guest_with(&fields, &body))));
    assert_eq!(body_of(&done[0])[..11], *b"\x07\0\0\0hunter2");
    assert_eq!(body_of(&done[0])[20..24], (-1_i32).to_le_bytes());
    let refused =
        trap_of(&fields, &format!("(drop (call $secret_get (i32.const 30) (i32.const 5) {0} {0}))", "(i32.const 0)"));
    assert_eq!(refused.kind, TrapKind::NotAllowed);
    assert!(refused.message.contains(r#"the secret "other"; allowed: "key", "none""#), "{refused}");
}

#[test]
fn a_log_line_may_have_fields() {
    let mut encoded = Vec::new();
    for (name, value) in [("celsius", "31.5"), ("", "")] {
        Attributes::write(name, value, |part| encoded.extend_from_slice(part)).unwrap();
    }
    let fields = [data(0, b"hot"), data(100, &encoded)].concat();
    let log = |len: usize| {
        format!("(call $log_with (i32.const 1) (i32.const 0) (i32.const 3) (i32.const 100) (i32.const {len}))")
    };
    let line = |fields: &[(&str, &str)]| LogLine {
        level: LogLevel::Warn,
        text: "hot".to_owned(),
        fields: fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    let run = run(&load(&guest_with(&fields, &log(encoded.len()))));
    assert_eq!((run.logs, run.logs_dropped), (vec![line(&[("celsius", "31.5"), ("", "")])], 0));
    let refused = trap_of(&fields, &log(encoded.len() - 1));
    assert_eq!(
        (refused.kind, refused.message.contains("log_with: the fields are damaged")),
        (TrapKind::BadArgument, true)
    );
    // What has no room beside the text is left out as a whole: 3 bytes, and 8 + 7 + 4 for the first field.
    let mut tight = spec();
    for (room, kept, dropped) in [(29, 1, 1), (30, 2, 0), (21, 1, 1), (10, 0, 1)] {
        tight.limits.log_bytes = room;
        let function = Engine::new().load(tight.clone(), &guest_with(&fields, &log(encoded.len()))).unwrap();
        let run = common::run(&function);
        assert_eq!((run.logs[0].fields.len(), run.logs_dropped), (kept, dropped), "{room}");
    }
}

#[test]
fn a_property_of_the_device_is_reported() {
    let fields = [data(0, b"net.rssi"), data(20, b"-70"), data(40, b"net*"), data(50, b"owner")].concat();
    let report = |at: u32, len: u32, value: u32| {
        format!("(call $twin_report (i32.const {at}) (i32.const {len}) (i32.const 20) (i32.const {value}))")
    };
    let done = effects(run(&load(&guest_with(&fields, &report(0, 8, 3)))));
    assert_eq!(done, [Effect::TwinReport { name: "net.rssi".to_owned(), value: b"-70".to_vec() }]);
    for (call, kind, why) in [
        (report(50, 5, 3), TrapKind::NotAllowed, r#"the property "owner"; allowed: "battery", "net.*""#),
        (report(40, 4, 3), TrapKind::BadArgument, "no control characters and no"),
        (report(0, 0, 3), TrapKind::BadArgument, "1 to 128 bytes"),
        (report(0, 8, 16_385), TrapKind::BadArgument, "is 16385 bytes long, 16384 are allowed"),
    ] {
        let refused = trap_of(&fields, &call);
        assert_eq!(refused.kind, kind, "{refused}");
        assert!(refused.message.contains(why), "{refused}");
    }
}

#[test]
fn the_state_of_a_function_has_a_bound() {
    let fields = [data(0, b"ab"), data(10, b"12345678")].concat();
    let put = |key: u32, len: u32| {
        format!("(call $state_put (i32.const {key}) (i32.const 1) (i32.const 10) (i32.const {len}))")
    };
    let delete = "(call $state_delete (i32.const 0) (i32.const 1))";
    let mut tight = spec();
    tight.limits.state_bytes = 20;
    let ends = |body: &str, stored: &[(&[u8], &[u8])]| {
        let values = stored.iter().map(|(key, value)| (key.to_vec(), Arc::from(*value))).collect();
        let mut state = State { values, elsewhere: 7, ..State::default() };
        let run = Engine::new().load(tight.clone(), &guest_with(&fields, body)).unwrap().run(&event(), &mut state, 0);
        let kind = match run.outcome {
            Outcome::Done(_) => None,
            Outcome::Failed(trap) => Some((trap.kind, trap.message)),
            Outcome::Abandoned(error) => panic!("{error}"),
        };
        (kind, state.asked)
    };
    assert_eq!(ends("", &[]), (None, 0), "who puts nothing does not ask");
    assert_eq!(ends(&put(0, 8), &[]), (None, 1));
    let (kind, _) = ends(&(put(0, 8) + &put(1, 4)), &[]);
    let (kind, message) = kind.unwrap();
    assert_eq!((kind, kind.name()), (TrapKind::StateFull, "state_full"));
    assert!(message.contains("its state would come to 21 bytes, 20 are allowed, and 7 are taken"), "{message}");
    // What is replaced or deleted makes room, and what the run itself put before does not count twice.
    assert_eq!(ends(&put(0, 8), &[(b"a", b"12345678")]), (None, 2));
    assert_eq!(ends(&(put(0, 8) + &put(0, 1) + &put(1, 8)), &[]), (None, 1));
    assert_eq!(ends(&(delete.to_owned() + &put(1, 8)), &[(b"a", b"12345678")]), (None, 3));
    assert!(ends(&put(1, 8), &[(b"a", b"12345678")]).0.is_some());
}

#[test]
fn what_is_counted_is_finite_and_allowed_and_counters_only_grow() {
    let fields = [data(0, b"m"), data(10, b"other")].concat();
    let measure = |import: &str, at: u32, len: u32, number: &str| {
        format!("(call ${import} (i32.const {at}) (i32.const {len}) (f64.const {number}))")
    };
    let all = [measure("count", 0, 1, "2.5"), measure("observe", 0, 1, "-3"), measure("count", 0, 1, "0")].concat();
    let number = |value| Number::new(value).unwrap();
    let ran = run(&load(&guest_with(&fields, &all)));
    assert_eq!(ran.bytes_out, 3 * (1 + 8));
    assert_eq!(
        effects(ran),
        [
            Effect::Count { name: "m".into(), value: number(2.5) },
            Effect::Observe { name: "m".into(), value: number(-3.0) },
            Effect::Count { name: "m".into(), value: number(0.0) },
        ]
    );
    for (import, number, why) in [
        ("count", "-1", "count: -1 for \"m\": a counter only grows"),
        ("count", "nan", "is no finite number"),
        ("count", "inf", "is no finite number"),
        ("observe", "-inf", "observe: -inf for \"m\" is no finite number"),
    ] {
        let refused = trap_of(&fields, &measure(import, 0, 1, number));
        assert_eq!(refused.kind, TrapKind::BadArgument, "{refused}");
        assert!(refused.message.contains(why), "{refused}");
    }
    for import in ["count", "observe"] {
        for (at, len) in [(10, 5), (0, 0), (0, 2)] {
            let refused = trap_of(&fields, &measure(import, at, len, "1"));
            assert_eq!(refused.kind, TrapKind::NotAllowed, "{refused}");
            assert!(refused.message.contains("allowed: \"m\""), "{refused}");
        }
    }
    // A failed run counts nothing.
    let failing = [measure("count", 0, 1, "1"), "unreachable".to_owned()].concat();
    assert_eq!(run(&load(&guest_with(&fields, &failing))).bytes_out, 0);
}
