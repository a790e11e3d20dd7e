//! What leads to events beside MQTT, with the real agent: HTTP routes, queues, schedules, devices that come and go; and
//! events that are tried again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use function_package::Package;
use rumqttc::{Client, MqttOptions};
use system_tests::{Inlet, Port, Record, System, World, http, wait_until};

/// Far more than any of this takes, so that a busy machine makes no test fail.
const DEADLINE: Duration = Duration::from_secs(60);

const PAYLOAD: &str = "(i32.add (local.get 0) (i32.load offset=48 (local.get 0))) (i32.load offset=52 (local.get 0))";
const ATTRIBUTES: &str =
    "(i32.add (local.get 0) (i32.load offset=56 (local.get 0))) (i32.load offset=60 (local.get 0))";
const TOPIC: &str = "(i32.add (local.get 0) (i32.load offset=40 (local.get 0))) (i32.load offset=44 (local.get 0))";

/// A packed function. In its handler the event block is local 0; at 0 lies "orders", at 16 "done".
fn function(name: &str, manifest: &str, handler: &str) -> Vec<u8> {
    let module = format!(
        r#"(module
            (import "edge_v1" "emit" (func $emit (param i32 i32 i32 i32 i32)))
            (import "edge_v1" "enqueue" (func $enqueue (param i32 i32 i32 i32 i32)))
            (import "edge_v1" "respond" (func $respond (param i32 i32 i32 i32 i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "orders")
            (data (i32.const 16) "done")
            (func (export "edge_alloc") (param i32) (result i32) (i32.const 1024))
            (func (export "edge_handle") (param i32 i32) (result i32) {handler} (i32.const 0)))"#
    );
    let manifest = format!("manifest = 1\nname = \"{name}\"\nversion = \"1.0.0\"\n{manifest}");
    Package::pack(&wat::parse_str(module).unwrap(), &manifest).unwrap().bytes().to_vec()
}

fn emit(what: &str) -> String {
    format!("(call $emit (i32.const 16) (i32.const 4) {what} (i32.const 0))")
}

/// Traps on a payload that begins with "x".
const TRAP_ON_X: &str =
    "(if (i32.eq (i32.load8_u (i32.add (local.get 0) (i32.load offset=48 (local.get 0)))) (i32.const 120))
    (then unreachable))";

struct House {
    system: System,
    http: SocketAddr,
    _port: Port,
}

/// A gateway that answers requests, with these functions.
fn house(functions: &[(&str, Vec<u8>)]) -> House {
    let port = Port::free().unwrap();
    let http = port.address();
    let config = format!("\n[http]\nlisten = \"{http}\"\ntoken = \"a token of some length\"\n");
    let system = System::start_with(World::new().unwrap(), Inlet::Own, &[], &config).unwrap();
    system.deploy(functions).unwrap();
    House { system, http, _port: port }
}

impl House {
    fn post(&self, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
        let token = [("authorization", "Bearer a token of some length".to_owned())];
        let (status, body) = http::post(self.http, path, &token, body.as_bytes())?;
        Ok((status, String::from_utf8(body)?))
    }

    fn done(&self) -> Vec<Record> {
        self.system.cloud.records("done").unwrap()
    }

    fn wait_for_records(&self, count: usize) -> Vec<Record> {
        wait_until("records in the cloud", DEADLINE, || {
            let done = self.done();
            if done.len() >= count { Ok(done) } else { Err(format!("{} of {count}", done.len())) }
        })
        .unwrap()
    }
}

/// Puts what is posted into the queue, and answers 202 with it.
fn front() -> Vec<u8> {
    function(
        "front",
        "[[trigger]]\nhttp = \"POST /orders/{machine}\"\n[allow]\nqueues = [\"orders\"]\n",
        &format!(
            "(call $enqueue (i32.const 0) (i32.const 6) {PAYLOAD} (i32.const 0))
             (call $respond (i32.const 202) (i32.const 0) (i32.const 0) {PAYLOAD})"
        ),
    )
}

/// Emits each message.
fn worker() -> Vec<u8> {
    function(
        "worker",
        "[[trigger]]\nqueue = \"orders\"\n[allow]\nstreams = [\"done\"]\n[retry]\ntries = 3\nbackoff_ms = 100\n",
        &format!("{TRAP_ON_X} {}", emit(PAYLOAD)),
    )
}

#[test]
fn a_request_is_answered_when_what_it_led_to_is_on_disk_and_takes_effect_once_through_kill_9() {
    const ORDERS: u32 = 120;
    let mut house = house(&[("front", front()), ("worker", worker())]);
    // How often each was sent until it was answered.
    let mut sent: BTreeMap<u64, u32> = BTreeMap::new();
    for number in 0..ORDERS {
        if [40, 80].contains(&number) {
            house.system.gateway.kill9();
            house.system.gateway.start().unwrap();
        }
        wait_until("an answer", DEADLINE, || {
            *sent.entry(number.into()).or_default() += 1;
            let (status, body) = house.post("/orders/m-7", &number.to_string()).map_err(|error| error.to_string())?;
            if (status, body.as_str()) == (202, number.to_string().as_str()) {
                Ok(())
            } else {
                Err(format!("{status} {body}"))
            }
        })
        .unwrap();
    }
    house.wait_for_records(ORDERS as usize);
    let status = house.system.gateway.wait_until_drained(DEADLINE).unwrap();
    assert_eq!((status.dead_letters, status.messages), (0, 0), "{status:?}");
    let mut done: BTreeMap<u64, u32> = BTreeMap::new();
    for record in house.done() {
        *done.entry(record.body.as_u64().unwrap()).or_default() += 1;
    }
    for (number, times) in sent {
        let done = done.remove(&number).unwrap_or(0);
        // Whoever asked once had it done once; a request whose answer was lost may have been done before.
        assert!((1..=times).contains(&done), "order {number} was sent {times} times and done {done} times");
    }
    assert!(done.is_empty(), "{done:?}");
}

#[test]
fn what_nobody_answers_is_told_and_why() {
    let house = house(&[
        ("front", front()),
        ("failing", function("failing", "[[trigger]]\nhttp = \"POST /fail\"\n[retry]\ntries = 3\n", "unreachable")),
        ("silent", function("silent", "[[trigger]]\nhttp = \"POST /silent\"\n", "")),
    ]);
    assert_eq!(house.post("/silent", "").unwrap(), (204, String::new()));
    let (status, body) = house.post("/nowhere", "").unwrap();
    assert_eq!((status, body.contains("no function has a route for /nowhere")), (404, true), "{body}");
    let (status, body) = house.post("/orders/%ff", "").unwrap();
    assert_eq!((status, body.contains("percent-encoded")), (400, true), "{body}");
    let (status, _) = house.post("/orders/m", &"x".repeat(300 << 10)).unwrap();
    assert_eq!(status, 413);
    let (status, body) = http::post(house.http, "/silent", &[], b"").unwrap();
    assert_eq!(status, 401, "{}", String::from_utf8_lossy(&body));
    let (status, body) = house.post("/fail", "{}").unwrap();
    assert_eq!((status, body.contains("function failing failed")), (500, true), "{body}");
    // It is not tried again behind the caller's back.
    let status = house.system.gateway.status().unwrap();
    assert_eq!((status.dead_letters, status.messages), (1, 0), "{status:?}");
}

#[test]
fn a_message_that_fails_is_tried_again_and_ends_in_the_dead_letters() {
    let house = house(&[("front", front()), ("worker", worker())]);
    for body in ["x1", "2"] {
        assert_eq!(house.post("/orders/m", body).unwrap().0, 202);
    }
    house.wait_for_records(1);
    let status = wait_until("the tries to be over", DEADLINE, || {
        let status = house.system.gateway.status().map_err(|error| format!("{error:#}"))?;
        if status.dead_letters == 1 { Ok(status) } else { Err(format!("{status:?}")) }
    })
    .unwrap();
    assert_eq!((status.events.retried, status.messages), (2, 0), "{status:?}");
    assert_eq!(house.done().len(), 1);
}

#[test]
fn a_function_that_would_read_anothers_queue_is_refused() {
    let house = house(&[("front", front()), ("worker", worker())]);
    let other = function("other", "[[trigger]]\nqueue = \"orders\"\n", "");
    let file = house.system.world.write("other.wasm", other).unwrap();
    house.system.operator.push_file(&file).unwrap();
    house.system.operator.deploy("other", "all").unwrap();
    let detail = wait_until("it to be refused", DEADLINE, || {
        let functions = house.system.gateway.status().map_err(|error| format!("{error:#}"))?.functions;
        let other = functions.iter().find(|function| function.name == "other" && function.status == "failed");
        other.map(|other| other.detail.clone()).ok_or(format!("{functions:?}"))
    })
    .unwrap();
    assert!(detail.contains("it reads the queue \"orders\", which the function worker does"), "{detail}");
}

#[test]
fn a_schedule_comes_each_time_once_and_what_was_missed_is_made_up_for() {
    let ticker = function(
        "ticker",
        "[[trigger]]\ncron = \"* * * * * *\"\nname = \"tick\"\nmissed = \"all\"\n[allow]\nstreams = [\"done\"]\n",
        &emit(ATTRIBUTES),
    );
    let mut house = house(&[("ticker", ticker)]);
    house.wait_for_records(2);
    house.system.gateway.kill9();
    let killed = std::time::Instant::now();
    wait_until("some moments to pass", DEADLINE, || {
        if killed.elapsed() > Duration::from_secs(3) { Ok(()) } else { Err("not yet") }
    })
    .unwrap();
    house.system.gateway.start().unwrap();
    let records = house.wait_for_records(8);
    let mut due: Vec<u64> = records.iter().map(due_s).collect();
    due.sort_unstable();
    let expected: Vec<u64> = (due[0]..).take(due.len()).collect();
    assert_eq!(due, expected, "each second, once");
}

/// The second for which a moment came: of the attribute `due_us`, which is the first one.
fn due_s(record: &Record) -> u64 {
    let hex = record.body.as_str().unwrap();
    let bytes: Vec<u8> =
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
    let text = String::from_utf8_lossy(&bytes);
    let digits: String = text.split("due_us").nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect();
    digits.parse::<u64>().unwrap() / 1_000_000
}

#[test]
fn functions_are_told_of_devices_that_come_and_go() {
    let watcher = function("watcher", "[[trigger]]\ndevice = \"both\"\n[allow]\nstreams = [\"done\"]\n", &emit(TOPIC));
    let house = house(&[("watcher", watcher)]);
    let broker = house.system.gateway.broker();
    let mut options = MqttOptions::new("pump-7", broker.ip().to_string(), broker.port());
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut connection) = Client::new(options, 10);
    assert!(connection.recv_timeout(DEADLINE).unwrap().is_ok());
    house.wait_for_records(1);
    client.disconnect().unwrap();
    while connection.recv_timeout(Duration::from_millis(100)).is_ok_and(|event| event.is_ok()) {}
    let records = house.wait_for_records(2);
    let seen: Vec<(&str, String)> = records.iter().map(|record| (record.device.as_str(), text(record))).collect();
    assert_eq!(seen, [("pump-7", "connected".to_owned()), ("pump-7", "disconnected".to_owned())]);
}

fn text(record: &Record) -> String {
    let hex = record.body.as_str().unwrap();
    (0..hex.len() / 2).map(|at| char::from(u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())).collect()
}
