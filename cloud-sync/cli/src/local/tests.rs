use super::*;

const MANIFEST: &str =
    "manifest = 1\nname = 'count'\nversion = '1.0.0'\n[[trigger]]\nmqtt = 'a/+'\n[allow]\nstreams = ['s']\n";

/// Puts what it gets under the key "k", emits what was there before, and fails where nothing comes.
const COUNT: &str = r#"(module
    (import "edge_v1" "state_get" (func $get (param i32 i32 i32 i32) (result i32)))
    (import "edge_v1" "state_put" (func $put (param i32 i32 i32 i32)))
    (import "edge_v1" "emit" (func $emit (param i32 i32 i32 i32 i32)))
    (memory (export "memory") 1)
    (data (i32.const 8) "ks")
    (func (export "edge_alloc") (param i32) (result i32) (i32.const 1024))
    (func (export "edge_handle") (param $at i32) (param i32) (result i32)
        (local $n i32)
        (if (i32.eqz (i32.load offset=52 (local.get $at))) (then (return (i32.const 7))))
        (local.set $n (call $get (i32.const 8) (i32.const 1) (i32.const 64) (i32.const 100)))
        (if (i32.gt_s (local.get $n) (i32.const 0))
            (then (call $emit (i32.const 9) (i32.const 1) (i32.const 64) (local.get $n) (i32.const 1))))
        (call $put (i32.const 8) (i32.const 1)
            (i32.add (local.get $at) (i32.load offset=48 (local.get $at))) (i32.load offset=52 (local.get $at)))
        (i32.const 0)))"#;

fn local(manifest: &str) -> Local {
    let package = Package::pack(&wat::parse_str(COUNT).unwrap(), manifest).unwrap();
    Local::load(&package, Setting::default(), SEED).unwrap()
}

/// What each of these lines makes.
fn effects(local: &mut Local, lines: &[&str]) -> Vec<String> {
    let mut numbering = Numbering::new(None, FIRST_TIME_US);
    let each = |line: &&str| {
        let ran = local.run(&numbering.read(line).unwrap());
        lines_of(&ran).join(" | ")
    };
    lines.iter().map(each).collect()
}

fn lines_of(ran: &Ran) -> Vec<String> {
    lines(ran, &[]).into_iter().map(|line| line.text).collect()
}

#[test]
fn state_belongs_to_the_partition_and_a_failed_run_leaves_none() {
    let events = [
        r#"{"topic":"a/1","device":"x","text":"one"}"#,
        r#"{"topic":"a/1","device":"y","text":"two"}"#,
        r#"{"topic":"a/2","device":"x"}"#,
        r#"{"topic":"a/2","device":"x","text":"three"}"#,
    ];
    let failed = "trap     failed  edge_handle answered 7; 0 is success";
    assert_eq!(
        effects(&mut local(MANIFEST), &events),
        ["put      k = one", "put      k = two", failed, "emit     s (urgent)  one | put      k = three"]
    );
    let topic = MANIFEST.replace("version", "partition = 'topic'\nversion");
    assert_eq!(effects(&mut local(&topic), &events)[1], "emit     s (urgent)  one | put      k = two");
    let mut function = local(&MANIFEST.replace("version", "partition = 'function'\nversion"));
    assert_eq!(effects(&mut function, &events)[3], "emit     s (urgent)  two | put      k = three");
    function.reset(SEED);
    assert_eq!(effects(&mut function, &events[..1]), ["put      k = one"]);
}

#[test]
fn what_a_gateway_would_not_run_is_not_run() {
    let events = [
        r#"{"topic":"b","text":"one"}"#,
        r#"{"topic":"a/1","text":"one","identity":{"sequence":200}}"#,
        r#"{"topic":"a/1","text":"one","identity":{"sequence":200}}"#,
        r#"{"topic":"a/1","text":"two","identity":{"sequence":200}}"#,
        r#"{"topic":"a/1","text":"old","identity":{"sequence":1}}"#,
        r#"{"topic":"a/1","text":"new","identity":null}"#,
    ];
    let found = effects(&mut local(MANIFEST), &events);
    for (line, why) in found.iter().zip(["no trigger", "put", "handled before", "another event", "too far", "emit"]) {
        assert!(line.contains(why), "{line}");
    }
}

#[test]
fn each_kind_of_event_has_triggers_of_its_own() {
    let triggers = "[[trigger]]\nhttp = 'PUT /limits/{device}'\n[[trigger]]\ncron = '0 7 * * *'\nname = 'morning'\n\
                    [[trigger]]\nqueue = 'q'\n[[trigger]]\ndevice = 'connected'\n[allow]";
    let mut local = local(&MANIFEST.replace("[allow]", triggers));
    let mut numbering = Numbering::new(None, FIRST_TIME_US);
    for (line, wanted) in [
        (r#"{"kind":"http","method":"PUT","topic":"/limits/oven?x=1","text":"1"}"#, true),
        (r#"{"kind":"http","topic":"/limits/oven","text":"1"}"#, false),
        (r#"{"kind":"http","method":"PUT","topic":"/limits","text":"1"}"#, false),
        (r#"{"kind":"schedule","topic":"morning","text":"1"}"#, true),
        (r#"{"kind":"schedule","topic":"evening","text":"1"}"#, false),
        (r#"{"kind":"queue","topic":"q","text":"1"}"#, true),
        (r#"{"kind":"queue","topic":"a/1","text":"1"}"#, false),
        (r#"{"kind":"device","topic":"connected","device":"d","text":"1"}"#, true),
        (r#"{"kind":"device","topic":"disconnected","device":"d","text":"1"}"#, false),
        (r#"{"topic":"morning","text":"1"}"#, false),
    ] {
        assert_eq!(local.run(&numbering.read(line).unwrap()).was_run(), wanted, "{line}");
    }
    let event = numbering.read(r#"{"kind":"http","method":"PUT","topic":"/limits/oven?x=1"}"#).unwrap();
    let seen = local.route(&event).unwrap();
    assert!(seen.attributes.contains(&("path.device".to_owned(), "oven".to_owned())), "{seen:?}");
    assert_eq!(title(1, &event), "1  PUT /limits/oven?x=1  (empty)");
}

#[test]
fn programs_get_all_of_it() {
    let mut local = local(MANIFEST);
    let mut numbering = Numbering::new(None, FIRST_TIME_US);
    let event = numbering.read(r#"{"topic":"a/1","json":{"a": 1}}"#).unwrap();
    let ran = local.run(&event);
    let shown = serde_json::to_value(Shown::new(1, &event, &ran)).unwrap();
    assert_eq!(shown["json"], serde_json::json!({"a": 1}));
    assert_eq!(shown["effects"][0], serde_json::json!({"effect": "state_put", "key": "k", "json": {"a": 1}}));
    assert!(shown["outcome"] == "done" && shown["trap"].is_null() && shown["fuel"].as_u64() > Some(1_000), "{shown}");
}

/// Does by the first byte of what it gets: "p" puts it under "k" for two seconds, "s" emits the secret "key", "r" reports it as
/// the property "battery", "l" logs it with a field; and emits the value of "k", whatever it gets.
const EFFECTS: &str = r#"(module
    (import "edge_v1" "state_get" (func $get (param i32 i32 i32 i32) (result i32)))
    (import "edge_v1" "state_put_ttl" (func $put (param i32 i32 i32 i32 i32)))
    (import "edge_v1" "secret_get" (func $secret (param i32 i32 i32 i32) (result i32)))
    (import "edge_v1" "twin_report" (func $report (param i32 i32 i32 i32)))
    (import "edge_v1" "log_with" (func $log (param i32 i32 i32 i32 i32)))
    (import "edge_v1" "emit" (func $emit (param i32 i32 i32 i32 i32)))
    (memory (export "memory") 1)
    (data (i32.const 8) "ks")
    (data (i32.const 16) "key")
    (data (i32.const 24) "battery")
    (data (i32.const 32) "\01\00\00\00\03\00\00\00n1 2")
    (func (export "edge_alloc") (param i32) (result i32) (i32.const 1024))
    (func (export "edge_handle") (param $at i32) (param i32) (result i32)
        (local $first i32) (local $n i32) (local $len i32)
        (local.set $len (i32.load offset=52 (local.get $at)))
        (local.set $at (i32.add (local.get $at) (i32.load offset=48 (local.get $at))))
        (local.set $first (i32.load8_u (local.get $at)))
        (if (i32.eq (local.get $first) (i32.const 112))
            (then (call $put (i32.const 8) (i32.const 1) (local.get $at) (local.get $len) (i32.const 2))))
        (if (i32.eq (local.get $first) (i32.const 115))
            (then (call $emit (i32.const 9) (i32.const 1) (i32.const 64)
                (call $secret (i32.const 16) (i32.const 3) (i32.const 64) (i32.const 100)) (i32.const 0))))
        (if (i32.eq (local.get $first) (i32.const 114))
            (then (call $report (i32.const 24) (i32.const 7) (local.get $at) (local.get $len))))
        (if (i32.eq (local.get $first) (i32.const 108))
            (then (call $log (i32.const 1) (local.get $at) (local.get $len) (i32.const 32) (i32.const 12))))
        (local.set $n (call $get (i32.const 8) (i32.const 1) (i32.const 64) (i32.const 100)))
        (if (i32.gt_s (local.get $n) (i32.const 0))
            (then (call $emit (i32.const 9) (i32.const 1) (i32.const 64) (local.get $n) (i32.const 0))))
        (i32.const 0)))"#;

fn local_with_effects(limits: &str) -> Local {
    let manifest = format!("{MANIFEST}secrets = ['key']\ntwin = ['battery']\n[limits]\n{limits}\n");
    let package = Package::pack(&wat::parse_str(EFFECTS).unwrap(), &manifest).unwrap();
    let secrets = BTreeMap::from([("key".to_owned(), "hunter2".to_owned())]);
    Local::load(&package, Setting { secrets, ..Setting::default() }, SEED).unwrap()
}

#[test]
fn state_ends_as_on_a_gateway_and_all_effects_are_shown() {
    let mut local = local_with_effects("");
    // A second passes from event to event.
    let events = ["put", "is there", "is no more", "secret", "report", "log"];
    let lines: Vec<String> = events.iter().map(|text| format!(r#"{{"topic":"a/1","text":"{text}"}}"#)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(
        effects(&mut local, &lines),
        [
            "put      k (for 2 s) = put | emit     s  put",
            "emit     s  put",
            "",
            "emit     s  hunter2",
            "report   battery = report",
            "log      warn  log  n=1 2",
        ]
    );
}

#[test]
fn state_is_bounded_and_makes_room_when_it_has_ended() {
    let mut local = local_with_effects("state_kib = 1");
    let put = |device: &str, time_s: u64| {
        let text = "p".repeat(700);
        format!(r#"{{"topic":"a/1","device":"{device}","text":"{text}","time_us":{}}}"#, time_s * 1_000_000)
    };
    let lines = [put("x", 100), put("x", 101), put("y", 102), put("y", 159), put("y", 160)];
    let found = effects(&mut local, &lines.each_ref().map(String::as_str));
    let ends: Vec<bool> = found.iter().map(|line| line.contains("state_full")).collect();
    // That of x ends at 103, and is deleted a minute after the last time that something was.
    assert_eq!(ends, [false, false, true, true, false], "{found:?}");
}

#[test]
fn programs_get_fields_and_reports() {
    let mut local = local_with_effects("");
    let mut numbering = Numbering::new(None, FIRST_TIME_US);
    let mut shown = |line: &str| {
        let event = numbering.read(line).unwrap();
        let ran = local.run(&event);
        serde_json::to_value(Shown::new(1, &event, &ran)).unwrap()
    };
    let put = shown(r#"{"topic":"a/1","text":"p"}"#);
    assert_eq!(put["effects"][0], serde_json::json!({"effect": "state_put", "key": "k", "ttl_s": 2, "text": "p"}));
    let report = shown(r#"{"topic":"a/2","text":"r"}"#);
    assert_eq!(report["effects"][0], serde_json::json!({"effect": "twin_report", "name": "battery", "text": "r"}));
    let log = shown(r#"{"topic":"a/2","text":"l"}"#);
    assert_eq!(log["logs"][0], serde_json::json!({"level": "warn", "text": "l", "fields": [["n", "1 2"]]}));
}
