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
    Local::load(&package, &BTreeMap::new(), SEED).unwrap()
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
