//! Dead letters from their beginning to their end, with the real programs: an operator sees what a function could not
//! handle, repairs the function, and has each event handled once, wherever the agent is killed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use function_package::Package;
use serde_json::Value;
use system_tests::{Inlet, Port, System, World, http, wait_until};

/// Far more than any of this takes, so that a busy machine makes no test fail.
const DEADLINE: Duration = Duration::from_secs(90);

/// Enough for three commands, so that the agent can be killed between them.
const LETTERS: usize = 220;

/// Emits each payload to the stream `done`; `first` comes before that.
fn worker(version: &str, first: &str) -> Vec<u8> {
    let payload = "(i32.add (local.get 0) (i32.load offset=48 (local.get 0))) (i32.load offset=52 (local.get 0))";
    let module = format!(
        r#"(module
            (import "edge_v1" "emit" (func $emit (param i32 i32 i32 i32 i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "done")
            (func (export "edge_alloc") (param i32) (result i32) (i32.const 1024))
            (func (export "edge_handle") (param i32 i32) (result i32)
                {first}
                (call $emit (i32.const 0) (i32.const 4) {payload} (i32.const 0))
                (i32.const 0)))"#
    );
    let manifest = format!(
        "manifest = 1\nname = \"worker\"\nversion = \"{version}\"\n[[trigger]]\nhttp = \"POST /orders\"\n\
         [allow]\nstreams = [\"done\"]\n"
    );
    Package::pack(&wat::parse_str(module).unwrap(), &manifest).unwrap().bytes().to_vec()
}

/// Traps on a payload that begins with "x".
const TRAP_ON_X: &str =
    "(if (i32.eq (i32.load8_u (i32.add (local.get 0) (i32.load offset=48 (local.get 0)))) (i32.const 120))
    (then unreachable))";

fn deploy(system: &System, version: &str, package: Vec<u8>) {
    let file = system.world.write(&format!("worker-{version}.wasm"), package).unwrap();
    system.operator.push_file(&file).unwrap();
    system.operator.deploy("worker", "all").unwrap();
    wait_until("it to run", DEADLINE, || {
        let functions = system.gateway.status().map_err(|error| format!("{error:#}"))?.functions;
        let runs = functions.iter().any(|function| function.version == version && function.runs());
        if runs { Ok(()) } else { Err(format!("{functions:?}")) }
    })
    .unwrap();
}

fn post(address: SocketAddr, body: &str) -> u16 {
    let token = [("authorization", "Bearer a token of some length".to_owned())];
    http::post(address, "/orders", &token, body.as_bytes()).unwrap().0
}

fn listed(system: &System) -> Vec<Value> {
    let list = system.operator.run(["dead", "list", "--limit", "1000", "--function", "worker"]).unwrap();
    list["letters"].as_array().unwrap().clone()
}

fn wait_for_letters(system: &System, count: usize) -> Vec<Value> {
    wait_until("the list of dead letters", DEADLINE, || {
        let letters = listed(system);
        if letters.len() == count { Ok(letters) } else { Err(format!("{} of {count}", letters.len())) }
    })
    .unwrap()
}

/// What was emitted, and how often.
fn done(system: &System) -> BTreeMap<String, u32> {
    let mut done = BTreeMap::new();
    for record in system.cloud.records("done").unwrap() {
        let hex = record.body.as_str().unwrap();
        let bytes = (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap());
        *done.entry(String::from_utf8(bytes.collect()).unwrap()).or_default() += 1;
    }
    done
}

#[test]
fn what_failed_is_seen_repaired_and_takes_effect_once_through_kill_9() {
    let port = Port::free().unwrap();
    let address = port.address();
    let config = format!("\n[http]\nlisten = \"{address}\"\ntoken = \"a token of some length\"\n");
    let mut system = System::start_with(World::new().unwrap(), Inlet::Own, &[], &config).unwrap();
    deploy(&system, "1.0.0", worker("1.0.0", TRAP_ON_X));
    let gateway = system.operator.run(["gateways"]).unwrap()["gateways"][0]["id"].as_str().unwrap().to_owned();

    assert_eq!(post(address, "fine"), 204);
    let failing: Vec<String> = (0..LETTERS).map(|number| format!("x{number}")).collect();
    for body in &failing {
        assert_eq!(post(address, body), 500);
    }
    let letters = wait_for_letters(&system, LETTERS);
    let letter = letters[0]["letter"].to_string();
    let shown = system.operator.run(["dead", "show", &gateway, &letter]).unwrap();
    assert_eq!(
        (&shown["gateway"], &shown["dead"]["event"]["payload"]["text"]),
        (&gateway.clone().into(), &"x0".into())
    );
    let reason = shown["dead"]["reason"].as_str().unwrap();
    assert!(reason.contains("worker") && reason.contains("1.0.0"), "{reason}");

    system.operator.run(["dead", "drop", &gateway, &letter]).unwrap();
    wait_for_letters(&system, LETTERS - 1);
    let shown = system.operator.run(["dead", "show", &gateway, &letter]).unwrap();
    assert_eq!(shown["resolved"], "dropped");

    deploy(&system, "2.0.0", worker("2.0.0", ""));
    // It is told while the gateway is offline.
    system.link.cut();
    let said = system.operator.run(["dead", "retry", &gateway, "--all"]).unwrap();
    assert_eq!(said["letters"], LETTERS - 1);
    assert!(listed(&system).iter().all(|letter| letter["waits_for"] == "retry"));
    system.link.restore().unwrap();
    let mut left = LETTERS as u64 - 1;
    while left > 0 {
        left = wait_until("a command to be carried out", DEADLINE, || {
            let now = system.gateway.status().map_err(|error| format!("{error:#}"))?.dead_letters;
            if now < left { Ok(now) } else { Err(format!("{now} dead letters")) }
        })
        .unwrap();
        system.gateway.kill9();
        system.gateway.start().unwrap();
    }
    wait_for_letters(&system, 0);
    let expected: BTreeSet<&str> = failing.iter().skip(1).map(String::as_str).chain(["fine"]).collect();
    let done = wait_until("every event to be handled", DEADLINE, || {
        let done = done(&system);
        if done.len() >= expected.len() { Ok(done) } else { Err(format!("{} of {}", done.len(), expected.len())) }
    })
    .unwrap();
    // Nothing is left that could come to it.
    let status = system.gateway.wait_until_drained(DEADLINE).unwrap();
    assert_eq!((status.dead_letters, status.messages), (0, 0), "{status:?}");
    assert_eq!(done, self::done(&system));
    assert!(done.keys().map(String::as_str).eq(expected));
    assert!(done.values().all(|times| *times == 1), "{done:?}");
}
