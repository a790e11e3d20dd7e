//! One function in every language: its modules do exactly the same, on the runtime of a gateway.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_core::effect::{Number, Request, Response};
use agent_core::{Effect, Event, Identity};
use agent_functions::{Engine, Function, LogLine, Outcome, ReadError, Reads, Run, Secrets, TrapKind};
use function_abi::{EventKind, LogLevel, Priority, PublishFlags};
use system_tests::function;

/// The packages of `function-examples/conformance`.
const LANGUAGES: [&str; 4] = ["conformance", "conformance-c", "conformance-zig", "conformance-assemblyscript"];

/// What is in the state when a case begins.
const STATE: [(&str, &[u8]); 3] = [("kept", b"before"), ("empty", b""), ("long", &[b'x'; 1_000])];

const BLOBS: [(&str, &[u8]); 2] = [("images/ü", b"0123456789"), ("images/empty", b"")];

/// What one payload must lead to.
struct Case {
    payload: &'static str,
    ends: Ends,
    logs: Vec<LogLine>,
}

enum Ends {
    Done(Vec<Effect>),
    /// The kind of the trap, and how its message ends.
    Failed(TrapKind, &'static str),
}

fn done(payload: &'static str, effects: impl IntoIterator<Item = Effect>) -> Case {
    Case { payload, ends: Ends::Done(effects.into_iter().collect()), logs: Vec::new() }
}

fn failed(payload: &'static str, kind: TrapKind, message: &'static str) -> Case {
    Case { payload, ends: Ends::Failed(kind, message), logs: Vec::new() }
}

impl Case {
    fn logs(mut self, lines: impl IntoIterator<Item = (LogLevel, &'static str)>) -> Self {
        self.logs = lines
            .into_iter()
            .map(|(level, text)| LogLine { level, text: text.to_owned(), fields: Vec::new() })
            .collect();
        self
    }
}

impl Case {
    /// Log lines with a field each.
    fn fields(
        mut self,
        lines: impl IntoIterator<Item = (LogLevel, &'static str, (&'static str, &'static str))>,
    ) -> Self {
        let line = |(level, text, (name, value)): (LogLevel, &str, (&str, &str))| LogLine {
            level,
            text: text.to_owned(),
            fields: vec![(name.to_owned(), value.to_owned())],
        };
        self.logs = lines.into_iter().map(line).collect();
        self
    }
}

fn emit(priority: Priority, stream: &str, body: impl Into<Vec<u8>>) -> Effect {
    Effect::Emit { stream: stream.to_owned(), body: body.into(), priority }
}

fn answer(body: impl Into<Vec<u8>>) -> Effect {
    emit(Priority::Normal, "answers", body)
}

fn put(key: &str, value: &str) -> Effect {
    Effect::StatePut { key: key.into(), value: value.into(), ttl_s: None }
}

fn delete(key: &str) -> Effect {
    Effect::StateDelete { key: key.into() }
}

fn put_for(ttl_s: u32, key: &str, value: &str) -> Effect {
    Effect::StatePut { key: key.into(), value: value.into(), ttl_s: Some(ttl_s) }
}

fn report(name: &str, value: &str) -> Effect {
    Effect::TwinReport { name: name.to_owned(), value: value.into() }
}

fn publish(qos: u8, retain: bool, topic: &str, payload: &str) -> Effect {
    let flags = PublishFlags { qos, retain };
    Effect::Publish { topic: topic.to_owned(), payload: payload.into(), flags }
}

fn enqueue(delay_ms: u32, queue: &str, body: &str) -> Effect {
    Effect::Enqueue { queue: queue.to_owned(), body: body.into(), delay_ms }
}

fn respond(status: u16, (name, value): (&str, &str), body: &str) -> Effect {
    let headers = vec![(name.to_owned(), value.to_owned())];
    Effect::Respond(Response { status, headers, body: body.into() })
}

fn count(name: &str, value: f64) -> Effect {
    Effect::Count { name: name.to_owned(), value: Number::new(value).unwrap() }
}

fn observe(name: &str, value: f64) -> Effect {
    Effect::Observe { name: name.to_owned(), value: Number::new(value).unwrap() }
}

fn blob_put(name: &str, content_type: &str, body: &str) -> Effect {
    Effect::BlobPut { name: name.to_owned(), content_type: content_type.to_owned(), body: body.into() }
}

fn blob_delete(name: &str) -> Effect {
    Effect::BlobDelete { name: name.to_owned() }
}

fn request(method: &str, tag: &str, url: &str, body: &str) -> Effect {
    Effect::Request(Request {
        url: url.to_owned(),
        method: method.to_owned(),
        headers: Vec::new(),
        body: body.into(),
        to: "conformance".to_owned(),
        timeout_ms: 10_000,
        tries: 5,
        tag: Some(tag.to_owned()),
    })
}

/// A new part of the contract is a command of the function, and a row here.
fn cases() -> Vec<Case> {
    let long = "x".repeat(1_000);
    vec![
        done("", []),
        done(
            "event",
            [answer(
                "kind=0 time_us=1700000000123456 boot=18446744073709551615 sequence=4294967297 device=dév-1 \
                 topic=conformance/ü payload=5",
            )],
        ),
        done("config unit", [answer("=celsius")]),
        done("config empty\nconfig none", [answer("="), answer("-")]),
        done("config long", [answer(["=", &"0123456789abcdef".repeat(18)].concat())]),
        done("get kept\nget none\nget empty", [answer("=before"), answer("-"), answer("=")]),
        done("get long", [answer(["=", &long].concat())]),
        done(
            "put new a b\nget new\nput new c\nget new\ndelete new\nget new\ndelete none",
            [
                put("new", "a b"),
                answer("=a b"),
                put("new", "c"),
                answer("=c"),
                delete("new"),
                answer("-"),
                delete("none"),
            ],
        ),
        done("delete kept\nget kept", [delete("kept"), answer("-")]),
        done(
            "put key/b 1\nput key/c 2\nput key/a 3\nput kez 4\ndelete key/c\nkeys key/\nkeys k\nkeys none",
            [
                put("key/b", "1"),
                put("key/c", "2"),
                put("key/a", "3"),
                put("kez", "4"),
                delete("key/c"),
                answer("=key/a"),
                answer("=key/b"),
                answer("=kept"),
                answer("=key/a"),
                answer("=key/b"),
                answer("=kez"),
            ],
        ),
        done(
            "putfor 1 a b c\nget a\nputfor 4294967295 b ",
            [put_for(1, "a", "b c"), answer("=b c"), put_for(u32::MAX, "b", "")],
        ),
        done(
            "putif kept - x\nputif kept nö x\nputif kept before x y\nputif kept befor x\nget kept\nputif none before x\nputif none - x",
            [
                answer("no"),
                answer("no"),
                put("kept", "x y"),
                answer("yes"),
                answer("no"),
                answer("=x y"),
                answer("no"),
                put("none", "x"),
                answer("yes"),
            ],
        ),
        done("secret key\nsecret none", [answer("=sésame"), answer("-")]),
        done(
            "twin battery 87\ntwin net.ß 1 2\ntwin net. ",
            [report("battery", "87"), report("net.ß", "1 2"), report("net.", "")],
        ),
        done("keys ", [answer("=empty"), answer("=kept"), answer("=long")]),
        done(
            "attribute first\nattribute path.ü\nattribute empty\nattribute none\nattribute ",
            [answer("=one"), answer("=zwölf"), answer("="), answer("-"), answer("-")],
        ),
        // The numbers of a seed are part of the contract: 11 bytes take two of them, as 16 do.
        done(
            "random\nrandom",
            [
                answer([149, 110, 235, 47, 38, 50, 215, 189, 3, 241, 102]),
                answer([82, 159, 15, 19, 87, 103, 82, 71, 148, 227, 74]),
            ],
        ),
        done(
            "emit 0 raw.1 one two\nemit 1 answers ünïcödé\nemit 0 answers ",
            [
                emit(Priority::Normal, "raw.1", "one two"),
                emit(Priority::High, "answers", "ünïcödé"),
                emit(Priority::Normal, "answers", ""),
            ],
        ),
        done(
            "publish 0 out/a on\npublish 1 out/b/c \npublish 6 out/ä x y",
            [publish(0, false, "out/a", "on"), publish(1, false, "out/b/c", ""), publish(2, true, "out/ä", "x y")],
        ),
        done(
            "enqueue 0 jobs a b\nenqueue 4294967295 jobs ",
            [enqueue(0, "jobs", "a b"), enqueue(u32::MAX, "jobs", "")],
        ),
        done("respond 404 X-Why none no such pärt", [respond(404, ("x-why", "none"), "no such pärt")]),
        done("respond 599 x-empty  ", [respond(599, ("x-empty", ""), "")]),
        done(
            "count seen 1\ncount seen 0\ncount size.bytes_2 2.5",
            [count("seen", 1.0), count("seen", 0.0), count("size.bytes_2", 2.5)],
        ),
        done("observe seen -21.5\nobserve seen 0", [observe("seen", -21.5), observe("seen", 0.0)]),
        done(
            "blobsize images/ü\nblobsize images/empty\nblobsize images/none",
            [answer("=10"), answer("=0"), answer("-")],
        ),
        done(
            "blobget 2 3 images/ü\nblobget 8 300 images/ü\nblobget 10 5 images/ü\nblobget 4294967295 1 images/ü\n\
             blobget 0 9 images/none",
            [answer("=234"), answer("=89"), answer("="), answer("="), answer("-")],
        ),
        done(
            "blobput thumbs/a text/plain hällo\nblobput thumbs/b  \nblobdelete thumbs/a",
            [
                blob_put("thumbs/a", "text/plain", "hällo"),
                blob_put("thumbs/b", "application/octet-stream", ""),
                blob_delete("thumbs/a"),
            ],
        ),
        failed("blobput images/a t x", TrapKind::NotAllowed, "Add it to its permissions, \"blobs\""),
        failed("blobdelete thumbs/../a", TrapKind::BadBlob, "which leads to another place than it says"),
        failed("blobput thumbs/a t\u{7f} x", TrapKind::BadBlob, "no text of 255 visible characters at most"),
        failed("blobsize thumbs/a", TrapKind::NotAllowed, "Add it to its permissions, \"blobs_read\""),
        failed("blobget 0 1 sha256:00", TrapKind::NotAllowed, "the only one that is read so"),
        done(
            "request PUT täg https://a.example/x?y=1 a b\nrequest GET  http://a.example ",
            [request("PUT", "täg", "https://a.example/x?y=1", "a b"), request("GET", "", "http://a.example", "")],
        ),
        done("log 0 broken\nlog 1 odd\nlog 2 hello wörld\nlog 3 ", []).logs([
            (LogLevel::Error, "broken"),
            (LogLevel::Warn, "odd"),
            (LogLevel::Info, "hello wörld"),
            (LogLevel::Debug, ""),
        ]),
        done("logwith 1 °C 31,5 too höt\nlogwith 3 a  ", [])
            .fields([(LogLevel::Warn, "too höt", ("°C", "31,5")), (LogLevel::Debug, "", ("a", ""))]),
        failed("put a b\nlog 2 so far\nfail nö good\nlog 2 never", TrapKind::Failed, ": failed: nö good")
            .logs([(LogLevel::Info, "so far")]),
        failed("dance a b", TrapKind::Failed, ": failed: unknown command: dance a b"),
        failed("emit 0 other x", TrapKind::NotAllowed, "Add it to its permissions"),
        failed("enqueue 0 other x", TrapKind::NotAllowed, "Add it to its permissions"),
        failed("secret other", TrapKind::NotAllowed, "Add it to its permissions"),
        failed("twin owner x", TrapKind::NotAllowed, "Add it to its permissions"),
        failed("twin net* x", TrapKind::BadArgument, "no control characters and no \"*\""),
        failed("count other 1", TrapKind::NotAllowed, "Add it to its permissions"),
        failed("observe other 1", TrapKind::NotAllowed, "Add it to its permissions"),
        failed("observe seen x", TrapKind::Failed, ": failed: no number: x"),
        failed("request GET t https://b.example x", TrapKind::NotAllowed, "with the port if that is not the scheme's"),
        failed("request get t https://a.example x", TrapKind::BadArgument, "\"DELETE\", \"OPTIONS\""),
        failed("respond 99 a b c", TrapKind::BadArgument, "allowed is 200 to 599"),
        failed("respond 200 a: b c", TrapKind::BadArgument, "is no header field (RFC 9110, section 5)"),
        failed("publish 0 in/a x", TrapKind::NotAllowed, "Add it to its permissions"),
        failed("publish 0 out/# x", TrapKind::BadTopic, "published to one topic, without wildcards"),
        failed("put ", TrapKind::BadState, "give it at least one byte"),
    ]
}

fn event(payload: &str) -> Event {
    Event {
        kind: EventKind::Mqtt,
        attributes: [("first", "one"), ("path.ü", "zwölf"), ("first", "two"), ("empty", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        device: "dév-1".into(),
        topic: "conformance/ü".into(),
        payload: payload.as_bytes().into(),
        identity: Some(Identity { source: "dév-1".into(), boot: u64::MAX, sequence: (1 << 32) + 1 }),
        time_us: 1_700_000_000_123_456,
    }
}

struct State(BTreeMap<Vec<u8>, Arc<[u8]>>);

impl Reads for State {
    fn state(&mut self, key: &[u8]) -> Result<Option<Arc<[u8]>>, ReadError> {
        Ok(self.0.get(key).cloned())
    }

    fn next_key(&mut self, prefix: &[u8], after: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let mut keys = self.0.keys().filter(|key| key.as_slice() > after || after < prefix);
        Ok(keys.find(|key| key.starts_with(prefix)).cloned())
    }

    fn state_bytes(&mut self) -> Result<u64, ReadError> {
        Ok(self.0.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }

    fn blob_size(&mut self, name: &str) -> Result<Option<u64>, ReadError> {
        Ok(blob(name).map(|blob| blob.len() as u64))
    }

    fn blob_piece(&mut self, name: &str, offset: u64, len: usize) -> Result<Option<Vec<u8>>, ReadError> {
        let piece = |blob: &[u8]| blob.iter().skip(offset as usize).take(len).copied().collect();
        Ok(blob(name).map(piece))
    }
}

/// What blobs there are.
fn blob(name: &str) -> Option<&'static [u8]> {
    BLOBS.iter().find(|(known, _)| *known == name).map(|(_, blob)| *blob)
}

fn run(function: &Function, event: &Event) -> Run {
    let mut state = State(STATE.into_iter().map(|(key, value)| (key.into(), value.into())).collect());
    function.run(event, &mut state, 42)
}

/// A packed function, as a gateway loads it; `None` where the compiler of its language is not installed.
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn load(name: &str) -> Option<Function> {
    let path = match function(name) {
        Ok(path) => path,
        Err(error) if std::env::var_os("CI").is_some_and(|ci| ci == "true") => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            return None;
        }
    };
    let bytes = std::fs::read(&path).unwrap();
    let secrets = [("key", "sésame"), ("other", "x")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let engine = Engine::with_secrets(Secrets::new(secrets.into()));
    let source = Arc::new(Arc::<[u8]>::from(&*bytes));
    let version = edge_agent::install::load(&engine, &bytes, source, &BTreeMap::new()).unwrap();
    Some(version.function().unwrap().clone())
}

#[test]
fn every_language_does_the_same() {
    for name in LANGUAGES {
        let Some(function) = load(name) else { continue };
        for case in cases() {
            let run = run(&function, &event(case.payload));
            let context = format!("{name}: {:?}", case.payload);
            match (case.ends, run.outcome) {
                (Ends::Done(wanted), Outcome::Done(found)) => assert_eq!(found, wanted, "{context}"),
                (Ends::Failed(kind, end), Outcome::Failed(trap)) => {
                    assert_eq!(trap.kind, kind, "{context}: {trap}");
                    assert!(trap.message.ends_with(end), "{context}: {trap}");
                }
                (_, other) => panic!("{context} ended with {other:?}"),
            }
            assert_eq!(run.logs, case.logs, "{context}");
        }
    }
}

#[test]
fn an_event_without_identity_has_sequence_0_in_every_language() {
    let mut event = event("event");
    event.identity = None;
    for function in LANGUAGES.into_iter().filter_map(load) {
        let Outcome::Done(effects) = run(&function, &event).outcome else { panic!("{function:?}") };
        let [Effect::Emit { body, .. }] = &effects[..] else { panic!("{effects:?}") };
        let text = std::str::from_utf8(body).unwrap();
        assert!(text.contains(" boot=0 sequence=0 "), "{text}");
    }
}

/// An event larger than the module's first memory: its allocator must ask for more.
#[test]
fn every_language_makes_room_for_a_large_event() {
    let payload = ["log 2 ", &"x".repeat(100_000), "\nemit 0 answers done"].concat();
    for function in LANGUAGES.into_iter().filter_map(load) {
        let run = run(&function, &event(&payload));
        let Outcome::Done(effects) = &run.outcome else { panic!("{function:?}: {run:?}") };
        assert_eq!(*effects, [answer("done")]);
        assert!(run.memory_bytes > 100_000, "{}", run.memory_bytes);
    }
}

/// Gives one function event after event, and keeps its state in between.
struct Lane {
    function: Function,
    state: State,
}

impl Lane {
    fn of(name: &str) -> Option<Self> {
        Some(Self { function: load(name)?, state: State(BTreeMap::new()) })
    }

    fn try_event(&mut self, topic: &str, payload: &[u8], time_s: u64) -> Result<Vec<String>, String> {
        let event = Event { topic: topic.into(), payload: payload.into(), time_us: time_s * 1_000_000, ..event("") };
        let effects = match self.function.run(&event, &mut self.state, 0).outcome {
            Outcome::Done(effects) => effects,
            Outcome::Failed(trap) => return Err(trap.message),
            Outcome::Abandoned(error) => panic!("{error}"),
        };
        let mut sent = Vec::new();
        for effect in effects {
            match effect {
                Effect::StatePut { key, value, .. } => drop(self.state.0.insert(key, value.into())),
                Effect::StateDelete { key } => drop(self.state.0.remove(&key)),
                Effect::Emit { stream, body, .. } => {
                    sent.push(format!("{stream} {}", String::from_utf8(body).unwrap()));
                }
                Effect::Publish { topic, payload, .. } => {
                    sent.push(format!("{topic} {}", String::from_utf8(payload).unwrap()));
                }
                other => panic!("none of these functions does this: {other:?}"),
            }
        }
        Ok(sent)
    }

    fn event(&mut self, topic: &str, payload: impl AsRef<[u8]>, time_s: u64) -> Vec<String> {
        self.try_event(topic, payload.as_ref(), time_s).unwrap()
    }

    /// How the failure of an event ends.
    fn fails(&mut self, topic: &str, payload: impl AsRef<[u8]>, end: &str) {
        let message = self.try_event(topic, payload.as_ref(), 0).unwrap_err();
        assert!(message.ends_with(end), "{message}");
    }
}

/// The example in C.
#[test]
fn the_deadband_sends_what_moved_or_was_silent() {
    let Some(mut lane) = Lane::of("deadband") else { return };
    let mut at = |value: &str, time_s| lane.event("readings/\"a\"", value, time_s);
    let record = |value: &str, time: &str| {
        vec![format!(r#"changes {{"device":"dév-1","topic":"readings/\"a\"","value":{value},"time_us":{time}}}"#)]
    };
    assert_eq!(at("21.5", 1), record("21.5", "1000000"));
    assert!(at("21.9", 2).is_empty() && at("22", 3).is_empty() && at("2.1e1", 4).is_empty());
    assert_eq!(at("22.01", 5), record("22.01", "5000000"));
    assert_eq!(at("-0.5", 6), record("-0.5", "6000000"));
    assert!(at("-0.5", 3605).is_empty());
    assert_eq!(at("-0.5", 3606), record("-0.5", "3606000000"));
    assert!(at("0e999", 3607).is_empty() && at("-1e-999", 3608).is_empty());
    assert_eq!(at("1e999", 3609), record("1e999", "3609000000"));
    for payload in NO_NUMBERS {
        lane.fails("readings/a", payload, &format!("failed: the payload is no number: {payload}"));
    }
}

/// What only begins as a number of JSON, or not even so.
const NO_NUMBERS: [&str; 12] = ["", "x", "1.", ".5", "01", "+1", "1e", "1 ", "0x1", "--1", "1.2.3", "21-3"];

/// The example in Zig.
#[test]
fn the_decoder_makes_numbers_of_registers() {
    let Some(mut lane) = Lane::of("register-decoder") else { return };
    let registers: [u16; 8] = [2301, 0xffff, 0xfb2e, 0, 0x42f6, 0xe979, 0x0001, 0x0005];
    let payload: Vec<u8> = registers.iter().flat_map(|register| register.to_be_bytes()).collect();
    assert_eq!(
        lane.event("modbus/m1/registers", &payload, 1),
        [r#"modbus/m1/values {"voltage":230.1,"current":-1.234,"power":123.456,"energy":655.41}"#]
    );
    let end = "the payload of 15 bytes ends before \"energy:u32:2\", which takes 4 more than the 3 that are left";
    lane.fails("modbus/m1/registers", &payload[..15], end);
}

/// The example in AssemblyScript.
#[test]
fn the_summary_of_a_period_comes_with_the_next() {
    let Some(mut lane) = Lane::of("hourly-summary") else { return };
    let mut at = |value: &str, time_s| lane.event("readings/a", value, time_s);
    assert!(at("1", 3600).is_empty() && at("-2.5", 7199).is_empty() && at("4e0", 7199).is_empty());
    assert!(at("1.5", 3599).is_empty(), "the clock was set back");
    assert_eq!(
        at("9", 7200),
        [
            r#"summaries {"device":"dév-1","topic":"readings/a","from_us":3600000000,"count":4,"min":-2.5,"max":4.0,"mean":1.0}"#
        ]
    );
    assert!(at("9", 7201).is_empty());
    for payload in NO_NUMBERS.into_iter().chain(["21 °C", "1e999"]) {
        lane.fails("readings/a", payload, &format!("failed: the payload is no number: {payload}"));
    }
}

/// The Extism plug-in, on the public PDK.
#[test]
fn the_plug_in_covers_fields_at_any_depth_and_counts() {
    let Some(mut lane) = Lane::of("extism-redact") else { return };
    let payload = r#"{"id":7,"name":"Ada","at":[{"email":"a@b.c","phone":null}]}"#;
    let covered = [r#"people {"at":[{"email":"***","phone":"***"}],"id":7,"name":"***"}"#];
    assert_eq!(lane.event("people/1", payload, 1), covered);
    assert_eq!(lane.event("people/1", payload, 2), covered);
    assert_eq!(lane.state.0.get(&b"covered"[..]).map(|value| value[..].to_vec()), Some(6_u64.to_le_bytes().to_vec()));
    assert_eq!(lane.event("people/1", "[ ]", 3), ["people []"]);
    let message = lane.try_event("people/1", b"{", 4).unwrap_err();
    assert!(message.contains(": failed: EOF while parsing an object at line 1 column 1"), "{message}");
}
