use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn read(line: &str) -> Result<Event, String> {
    Numbering::new(Some(2), FIRST_TIME_US).read(line)
}

#[test]
fn everything_but_the_topic_has_a_default() {
    let mut numbering = Numbering::new(Some(2), FIRST_TIME_US);
    let first = numbering.read(r#"{"topic":"sensors/s1/t","json":{"a": 1.0}}"#).unwrap();
    assert_eq!((&*first.device, &*first.payload, first.time_us), ("s1", &br#"{"a": 1.0}"#[..], FIRST_TIME_US));
    let identity = |event: &Event| event.identity.as_ref().map(|identity| (identity.boot, identity.sequence));
    assert_eq!(identity(&first), Some((1, 1)));
    let second = numbering.read(r#"{"topic":"sensors/s1/t","text":"x","time":"2026-11-03T10:00:00Z"}"#).unwrap();
    assert_eq!((identity(&second), second.time_us), (Some((1, 2)), 1_793_700_000_000_000));
    let third = numbering.read(r#"{"topic":"a","device":"s1","hex":"ff","identity":{"sequence":9}}"#).unwrap();
    assert_eq!((identity(&third), third.time_us), (Some((1, 9)), 1_793_700_001_000_000));
    assert_eq!(&*third.payload, b"\xff");
    let fourth = numbering.read(r#"{"topic":"a","device":"s1","base64":"AQ==","identity":null}"#).unwrap();
    assert_eq!((identity(&fourth), &*fourth.payload), (None, &b"\x01"[..]));
    assert_eq!(identity(&numbering.read(r#"{"topic":"a","device":"s1"}"#).unwrap()), Some((1, 10)));
    assert_eq!(&*numbering.read(r#"{"topic":"a"}"#).unwrap().device, "a", "no second level");
}

#[test]
fn a_recording_of_mosquitto_is_a_fixture() {
    let text = r#"{"tst":"2026-11-03T11:00:00.250000+0100","topic":"a/b","qos":1,"retain":0,"mid":7,"payloadlen":2,"payload":"{}"}"#;
    let event = read(text).unwrap();
    assert_eq!((&*event.payload, event.time_us), (&b"{}"[..], 1_793_700_000_250_000));
    let json = r#"{"tst":"2026-11-03T10:00:00Z","topic":"a/b","payload":{"c": [1]}}"#;
    assert_eq!(&*read(json).unwrap().payload, br#"{"c": [1]}"#);
}

#[test]
fn nothing_comes_after_the_last_number() {
    let mut numbering = Numbering::new(None, u64::MAX);
    let last = format!(r#"{{"topic":"a","identity":{{"sequence":{}}}}}"#, u64::MAX);
    for line in [last.as_str(), r#"{"topic":"a"}"#] {
        let event = numbering.read(line).unwrap();
        assert_eq!((event.identity.map(|of| of.sequence), event.time_us), (Some(u64::MAX), u64::MAX));
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (line, why) in [
        ("{", "column 1: EOF"),
        ("{}", "missing field `topic`"),
        (r#"{"topc":"a"}"#, "unknown field `topc`"),
        (r#"{"topic":"a/+"}"#, "wildcard"),
        (r#"{"topic":"a","json":1,"text":"x"}"#, "more than one payload"),
        (r#"{"topic":"a","hex":"0"}"#, "\"hex\" is none"),
        (r#"{"topic":"a","time":"now"}"#, "its time is \"now\""),
        (r#"{"topic":"a","identity":{"sequence":0}}"#, "its sequence is 0"),
        (r#"{"topic":"a","kind":"mail"}"#, "unknown variant `mail`"),
        (r#"{"topic":"a","kind":"http"}"#, "it is the path"),
        (r#"{"topic":"a","kind":"device"}"#, "\"connected\" or \"disconnected\""),
        (r#"{"topic":"connected","kind":"device"}"#, "it has no \"device\""),
        (r#"{"topic":"","kind":"queue"}"#, "its topic is empty"),
        (r#"{"topic":"a","method":"GET"}"#, "only requests have"),
    ] {
        let error = read(line).unwrap_err();
        assert!(error.contains(why), "{line}: {error}");
    }
}

#[test]
fn other_events_have_what_a_gateway_says_of_them() {
    let mut numbering = Numbering::new(None, 7);
    let mut read = |line: &str| {
        let event = numbering.read(line).unwrap();
        let attributes: Vec<String> = event.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(event.identity, None);
        // What was written is read as the same.
        let written = serde_json::to_string(&Incoming::of(&event)).unwrap();
        assert_eq!(Numbering::new(None, 0).read(&written), Ok(event.clone()));
        format!("{:?} {} {} {}", event.kind, event.device, event.topic, attributes.join(" "))
    };
    assert_eq!(read(r#"{"kind":"http","topic":"/a?b=1"}"#), "Http @http /a method=GET query=b=1");
    let put = r#"{"kind":"http","method":"PUT","topic":"/a","attributes":{"header.x":"y"}}"#;
    assert_eq!(read(put), "Http @http /a header.x=y method=PUT");
    assert_eq!(read(r#"{"kind":"schedule","topic":"s","time_us":5}"#), "Schedule @schedule s due_us=5 missed=0");
    assert_eq!(
        read(r#"{"kind":"queue","topic":"q","device":"d","attributes":{"attempt":"2"}}"#),
        "Queue d q attempt=2 message=0000000000000001-1"
    );
    assert_eq!(read(r#"{"kind":"device","topic":"connected","device":"d"}"#), "Device d connected ");
}

fn any_event() -> impl Strategy<Value = Event> {
    let json = r#"\{"[a-z]": (1\.0|"ä\\\\n"|\[ \])\}"#.prop_map(String::into_bytes);
    let payload = prop_oneof![json, "\\PC{0,9}|a\nb".prop_map(String::into_bytes), vec(any::<u8>(), 0..40)];
    let identity = proptest::option::of((any::<u64>(), 1..=u64::MAX));
    ("[^+#\0]{1,20}", "\\PC{0,20}", payload, identity, any::<u64>()).prop_map(
        |(topic, device, payload, identity, time_us)| Event {
            identity: identity.map(|(boot, sequence)| Identity { source: device.as_str().into(), boot, sequence }),
            ..Event::new(EventKind::Mqtt, device, topic, payload, time_us)
        },
    )
}

proptest! {
    #[test]
    fn an_event_survives_its_line(event in any_event()) {
        let written = serde_json::to_string(&Incoming::of(&event)).unwrap();
        prop_assert!(!written.contains('\n'), "{}", written);
        prop_assert_eq!(read(&written), Ok(event), "{}", written);
    }

    #[test]
    fn hostile_lines_never_panic(line in "[\\{\\}\":,a-z0-9é. -]{0,60}", time in "[0-9TZ:+.é-]{0,30}") {
        let _ = read(&line);
        let _ = read(&format!(r#"{{"topic":"a","time":"{time}"}}"#));
    }
}
