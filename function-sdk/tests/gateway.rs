//! The author's view of a gateway: what a handler reads, lists and is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use function_sdk::testing::{Gateway, LogLine};
use function_sdk::{Context, Error, Event, Json, LogLevel, Postcard, Priority, PublishFlags, Result, function};
use serde::{Deserialize, Serialize};

const MANIFEST: &str = r##"
manifest = 1
name = "test"
version = "1.0.0"

[[trigger]]
mqtt = "in/#"

[limits]
effects = 3
output_kib = 1
state_value_kib = 1
state_kib = 1

[allow]
streams = ["temp-*"]
publish = ["out/+"]
secrets = ["key", "none"]
twin = ["net.*"]

[config]
limit = 30.0
"##;

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Reading<'a> {
    celsius: f64,
    unit: &'a str,
}

/// The module is a crate's handler; several in one file only work in tests, where nothing is exported.
mod handlers {
    use super::*;

    #[function]
    pub(crate) fn on_borrowed(reading: Json<Reading<'_>>, cx: &mut Context) -> Result {
        cx.emit("temp-x", &Postcard((reading.celsius, reading.unit)))
    }

    #[function]
    pub(crate) fn on_postcard(Postcard((a, b)): Postcard<(u8, String)>, cx: &mut Context<'_>) -> Result {
        cx.emit_urgent("temp-x", &format!("{a}{b}"))
    }

    #[function]
    pub(crate) fn on_event(event: Event<'_>, cx: &mut Context) -> Result {
        let count = cx.state::<u64>("count")?.unwrap_or_default() + 1;
        cx.set_state("count", &count)?;
        cx.state_put([0xff], event.payload);
        let identity = event.identity.ok_or(Error::new("no identity"))?;
        cx.info(format!("{} {} {} {}", event.device, event.topic, identity.sequence, event.time_us));
        cx.emit("temp-x", &count.to_string())
    }

    /// Does what the payload says.
    #[function]
    pub(crate) fn on_command(command: String, cx: &mut Context) -> Result<(), std::num::ParseIntError> {
        let flags = PublishFlags { qos: 2, retain: true };
        cx.warn(&command);
        match command.as_str() {
            "own error" => "x".parse::<i32>().map(|_| ())?,
            "panic" => panic!("on purpose"),
            "publish" => cx.publish_with("out/a", b"\x01", flags).unwrap(),
            "stream" => cx.emit("alerts", "x").unwrap(),
            "stream name" => cx.emit("temp-/", "x").unwrap(),
            "topic" => cx.publish("other/a", "x").unwrap(),
            "wildcard" => cx.publish("out/+", "x").unwrap(),
            "qos" => assert!(cx.publish_with("out/a", "x", PublishFlags { qos: 3, retain: false }).is_err()),
            "effects" => (0..4).for_each(|_| cx.emit("temp-x", "x").unwrap()),
            "output" => cx.emit("temp-x", &vec![0; 1025]).unwrap(),
            "value" => cx.state_put("k", [0; 1025]),
            "put" => cx.set_state("k", &7u8).unwrap(),
            "put and fail" => {
                cx.set_state("k", &8u8).unwrap();
                cx.emit("temp-x", "x").unwrap();
                assert_eq!(cx.state::<u8>("k").unwrap(), Some(8), "a run sees its own writes");
                "x".parse::<i32>()?;
            }
            "other type" => assert!(cx.state::<String>("k").unwrap_err().to_string().contains("is no String")),
            "delete" => cx.state_delete("k"),
            "put for" => cx.set_state_for(Duration::from_secs(3), "k", &9u8).unwrap(),
            "put bytes for" => cx.state_put_for(Duration::from_secs(1), "b", "x").unwrap(),
            "too short" => {
                let error = cx.state_put_for(Duration::from_millis(999), "b", "x").unwrap_err().to_string();
                assert!(error.contains("999ms for the state \"b\"; allowed are 1 to 4294967295 seconds"), "{error}");
            }
            "keys" => {
                let keys: Vec<Vec<u8>> = cx.state_keys("").collect();
                cx.emit("temp-keys", &keys.concat()).unwrap();
            }
            "put if" => {
                assert!(!cx.state_put_if("c", Some(b"1"), "2"), "it is absent");
                assert!(cx.state_put_if("c", None, "1") && !cx.state_put_if("c", None, "3"));
                assert!(cx.state_put_if("c", Some(b"1"), "2") && cx.state_get("c").unwrap() == b"2");
            }
            "much" => cx.state_put("m", [0; 1_000]),
            "more" => cx.state_put("n", [0; 1_000]),
            "secret" => {
                assert!(
                    cx.secret("key").unwrap().as_deref() == Some("hunter2") && cx.secret("none").unwrap().is_none()
                );
            }
            "other secret" => drop(cx.secret("other")),
            "report" => cx.report("net.rssi", "-70").unwrap(),
            "report other" => cx.report("owner", "x").unwrap(),
            "report long" => cx.report("net.x", &vec![0; 16_385]).unwrap(),
            "log" => cx.log_with(LogLevel::Warn, "hot", &[("celsius", "31.5")]),
            "config" => assert!(cx.config::<i32>("limit").unwrap_err().to_string().contains("\"30.0\"")),
            "no config" => {
                assert!(cx.config::<i32>("limt").is_err() && cx.config_opt::<i32>("limt").unwrap().is_none())
            }
            "random" => {
                let (a, b) = (cx.random::<u64>(), cx.random::<f64>());
                assert!(a != cx.random::<u64>() && (0.0..1.0).contains(&b));
            }
            _ => {}
        }
        Ok(())
    }
}
use handlers::*;

fn command(text: &str) -> Result<(), String> {
    Gateway::new(on_command_handler).manifest(MANIFEST).event("d", "in/a", text).result
}

#[test]
fn events_arrive_in_the_shape_that_the_handler_names() {
    let run = Gateway::new(on_borrowed_handler).json("d", "t", &Reading { celsius: 1.5, unit: "C" }).expect_ok();
    assert_eq!(run.emitted[0].body, postcard::to_allocvec(&(1.5, "C")).unwrap());

    let mut gateway = Gateway::new(on_postcard_handler);
    let run = gateway.event("d", "t", [7, 1, b'x']).expect_ok();
    assert_eq!((run.emitted[0].text(), run.emitted[0].priority), ("7x", Priority::High));
    let error = gateway.event("d", "t", [7, 2, b'x']).result.unwrap_err();
    assert!(
        error.contains("postcard encoding of (u8, alloc::string::String)") && error.contains("(3 bytes)"),
        "{error}"
    );
}

#[test]
fn a_wrong_payload_is_shown_around_the_place() {
    let payload = format!("{{\n\"padding\": \"{}\",\n\"celsius\": \"warm\"}}", "x".repeat(200));
    let error = Gateway::new(on_borrowed_handler).event("d", "sensors/1", payload).result.unwrap_err();
    assert!(
        error.starts_with("the payload on sensors/1 is not the JSON of Reading: invalid type: string \"warm\""),
        "{error}"
    );
    assert!(error.contains("at line 3 column 17: …") && error.contains("\"celsius\": \"warm\"}"), "{error}");
    let error = Gateway::new(on_borrowed_handler).event("d", "t", b"\x00\xff").result.unwrap_err();
    assert!(error.contains("\\u{0}\\xff (2 bytes)"), "{error}");
}

#[test]
fn state_and_identity_belong_to_the_device() {
    let mut gateway = Gateway::new(on_event_handler).manifest(MANIFEST);
    gateway.set_time_us(5);
    let run = gateway.event("d1", "in/a", "x").expect_ok();
    let line = LogLine { level: LogLevel::Info, text: "d1 in/a 1 5".to_owned(), fields: Vec::new() };
    assert_eq!(run.logs, [line]);
    assert_eq!(gateway.event("d1", "in/b", "x").emitted[0].text(), "2");
    assert_eq!(gateway.event("d2", "in/a", "x").emitted[0].text(), "1");
    assert_eq!(gateway.state::<u64>("d1", "in/a", "count"), Some(2));
    assert_eq!(gateway.state::<u64>("d3", "in/a", "count"), None);
}

#[test]
fn the_manifest_says_what_shares_state() {
    let seen = |partition: &str| {
        let manifest = MANIFEST.replace("[[trigger]]", &format!("partition = \"{partition}\"\n[[trigger]]"));
        let mut gateway = Gateway::new(on_event_handler).manifest(&manifest);
        let events = [("d1", "in/a"), ("d1", "in/b"), ("d2", "in/a")];
        events.map(|(device, topic)| gateway.event(device, topic, "").emitted[0].text().to_owned())
    };
    assert_eq!(seen("device"), ["1", "2", "1"]);
    assert_eq!(seen("topic"), ["1", "1", "2"]);
    assert_eq!(seen("function"), ["1", "2", "3"]);
}

#[test]
fn what_is_not_allowed_ends_the_run_and_is_named() {
    for (text, part) in [
        ("stream", "the stream \"alerts\" is not allowed"),
        ("stream name", "\"temp-/\""),
        ("topic", "the topic \"other/a\" is not allowed"),
        ("wildcard", "\"out/+\" is no topic"),
        ("effects", "more than 3 effects"),
        ("output", "more than 1 KiB"),
        ("value", "\"k\" has 1025 bytes"),
        ("other secret", "the secret \"other\" is not allowed"),
        ("report other", "the property \"owner\" is not allowed"),
        ("report long", "has 16385 bytes; allowed are 16384"),
        ("panic", "panicked: on purpose"),
        ("own error", "invalid digit"),
    ] {
        let error = command(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    for text in ["publish", "qos", "config", "no config", "random", "delete", "put if", "too short"] {
        assert_eq!(command(text), Ok(()), "{text}");
    }
}

#[test]
fn a_failed_run_leaves_nothing_but_its_log() {
    let mut gateway = Gateway::new(on_command_handler).manifest(MANIFEST);
    gateway.event("d", "in/a", "put").expect_ok();
    let run = gateway.event("d", "in/a", "put and fail");
    assert!(run.result.is_err() && run.emitted.is_empty() && run.logs.len() == 1);
    assert_eq!(gateway.state::<u8>("d", "in/a", "k"), Some(7));
    gateway.event("d", "in/a", "other type").expect_ok();
    gateway.event("d", "in/a", "delete").expect_ok();
    assert_eq!(gateway.state::<u8>("d", "in/a", "k"), None);
}

#[test]
fn publishes_keep_their_flags() {
    let run = Gateway::new(on_command_handler).manifest(MANIFEST).event("d", "in/a", "publish").expect_ok();
    let message = &run.published[0];
    assert_eq!((message.topic.as_str(), &*message.payload), ("out/a", &[1][..]));
    assert_eq!(message.flags, PublishFlags { qos: 2, retain: true });
}

#[test]
#[should_panic(expected = "no trigger of test matches the topic \"other\"")]
fn a_test_with_a_topic_that_no_trigger_takes_is_wrong() {
    let _ = Gateway::new(on_command_handler).manifest(MANIFEST).event("d", "other", "");
}

#[test]
#[should_panic(expected = "did you mean \"limit\"?")]
fn a_test_with_a_configuration_key_that_is_not_declared_is_wrong() {
    let _ = Gateway::new(on_command_handler).manifest(MANIFEST).config("limi", 1).event("d", "in/a", "");
}

#[test]
fn json_of_maps_can_be_emitted_and_other_keys_are_an_error() {
    use function_sdk::ToBytes;
    let good = BTreeMap::from([("a", 1)]);
    assert_eq!(&*Json(good).to_bytes().unwrap(), b"{\"a\":1}");
    let bad = BTreeMap::from([((1, 2), 1)]);
    assert!(Json(bad).to_bytes().unwrap_err().to_string().contains("as JSON: key must be a string"));
}

#[test]
fn state_ends_by_the_events_time() {
    let mut gateway = Gateway::new(on_command_handler).manifest(MANIFEST);
    gateway.set_time_us(1_000_000);
    gateway.event("d", "in/a", "put for").expect_ok();
    gateway.event("d", "in/a", "put bytes for").expect_ok();
    assert_eq!(gateway.state::<u8>("d", "in/a", "k"), Some(9));
    assert_eq!(
        gateway.event("d", "in/a", "keys").expect_ok().emitted[0].text(),
        "k",
        "b has ended at this very moment"
    );
    assert_eq!(gateway.event("d", "in/a", "keys").expect_ok().emitted[0].text(), "");
    assert_eq!(gateway.state::<u8>("d", "in/a", "k"), None);
}

#[test]
fn the_state_of_all_partitions_has_a_bound() {
    let mut gateway = Gateway::new(on_command_handler).manifest(MANIFEST);
    gateway.event("d1", "in/a", "much").expect_ok();
    gateway.event("d1", "in/a", "much").expect_ok();
    let error = gateway.event("d2", "in/a", "more").result.unwrap_err();
    assert!(error.contains("would come to 2002 bytes; allowed are 1024"), "{error}");
    gateway.event("d2", "in/a", "keys").expect_ok();
}

#[test]
fn secrets_reports_and_fields_come_to_the_test() {
    let mut gateway = Gateway::new(on_command_handler).manifest(MANIFEST).secret("key", "hunter2");
    gateway.event("d", "in/a", "secret").expect_ok();
    let reported = gateway.event("d", "in/a", "report").expect_ok().reported;
    assert_eq!((reported[0].name.as_str(), &*reported[0].value), ("net.rssi", &b"-70"[..]));
    let line = &gateway.event("d", "in/a", "log").expect_ok().logs[1];
    assert_eq!((line.level, line.text.as_str()), (LogLevel::Warn, "hot"));
    assert_eq!(line.fields, [("celsius".to_owned(), "31.5".to_owned())]);
}

/// Stores each blob of `raw` once more, in upper case, piece by piece.
#[function]
fn on_blob(event: Event<'_>, cx: &mut Context) -> Result {
    let name = event.blob().ok_or(Error::new("no blob"))?;
    let (mut copy, mut room) = (Vec::new(), [0; 3]);
    while let Some(read) = cx.blob_read(&name, copy.len() as u32, &mut room).filter(|read| *read > 0) {
        copy.extend(room[..read].to_ascii_uppercase());
    }
    if cx.blob_size(event.topic) != Some(copy.len() as u32) {
        return Err(Error::new("another size"));
    }
    cx.blob_put("out/copy", "", &copy)?;
    cx.blob_delete("out/old");
    if cx.blob_size("masks/a").is_some() { cx.blob_put("raw/own", "", "") } else { Ok(()) }
}

#[test]
fn blobs_are_read_and_stored_as_the_manifest_allows() {
    let manifest = "manifest = 1\nname = 'f'\nversion = '1.0.0'\n[[trigger]]\nblob = 'raw/*'\n[allow]\nblobs = ['out/*']\n\
                    blobs_read = ['masks/*']\n";
    let mut gateway = Gateway::new(on_blob_handler).manifest(manifest);
    gateway.store_blob("out/old", "x");
    let run = gateway.blob("raw/a", "text/plain", "abcdefgh").expect_ok();
    assert_eq!((run.blobs[0].name.as_str(), run.blobs[0].body.as_slice()), ("out/copy", &b"ABCDEFGH"[..]));
    assert_eq!(run.blobs[0].content_type, "application/octet-stream");
    assert_eq!((gateway.stored_blob("out/copy"), gateway.stored_blob("out/old")), (Some(&b"ABCDEFGH"[..]), None));
    gateway.store_blob("masks/a", "x");
    let run = gateway.blob("raw/a", "text/plain", "other");
    assert!(run.result.unwrap_err().contains("under [allow] blobs") && run.blobs.is_empty());
    assert_eq!(gateway.stored_blob("out/copy"), Some(&b"ABCDEFGH"[..]), "a failed run leaves nothing behind");
}
