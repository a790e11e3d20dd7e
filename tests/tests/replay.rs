//! What happened can be replayed: runs of a real agent are recorded and made again elsewhere, and a dead letter reproduces
//! its trap.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use function_package::Package;
use serde_json::Value;
use system_tests::{Inlet, Port, System, World, binary, http, wait_until};

/// Far more than any of this takes, so that a busy machine makes no test fail.
const DEADLINE: Duration = Duration::from_secs(90);

/// Keeps a text that is `more` bytes longer after each event, draws random numbers, and emits both; stumbles over a payload
/// that begins with "x".
fn keeper(version: &str, more: u32) -> Vec<u8> {
    let module = format!(
        r#"(module
            (import "edge_v1" "emit" (func $emit (param i32 i32 i32 i32 i32)))
            (import "edge_v1" "state_get" (func $state_get (param i32 i32 i32 i32) (result i32)))
            (import "edge_v1" "state_put" (func $state_put (param i32 i32 i32 i32)))
            (import "edge_v1" "random_fill" (func $random_fill (param i32 i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "done")
            (data (i32.const 8) "text")
            (func $stumble (param i32)
                (if (i32.eq (i32.load8_u (local.get 0)) (i32.const 120)) (then unreachable)))
            (func (export "edge_alloc") (param i32) (result i32) (i32.const 8192))
            (func (export "edge_handle") (param $event i32) (param i32) (result i32)
                (local $len i32)
                (local.set $len (call $state_get (i32.const 8) (i32.const 4) (i32.const 24) (i32.const 4096)))
                (if (i32.lt_s (local.get $len) (i32.const 0)) (then (local.set $len (i32.const 0))))
                (call $stumble (i32.add (local.get $event) (i32.load offset=48 (local.get $event))))
                (call $random_fill (i32.const 16) (i32.const 8))
                (local.set $len (i32.add (local.get $len) (i32.const {more})))
                (call $state_put (i32.const 8) (i32.const 4) (i32.const 24) (local.get $len))
                (call $emit (i32.const 0) (i32.const 4)
                    (i32.const 16) (i32.add (local.get $len) (i32.const 8)) (i32.const 0))
                (i32.const 0)))"#
    );
    let manifest = format!(
        "manifest = 1\nname = \"keeper\"\nversion = \"{version}\"\n[[trigger]]\nhttp = \"POST /orders\"\n\
         [allow]\nstreams = [\"done\"]\n"
    );
    Package::pack(&wat::parse_str(module).unwrap(), &manifest).unwrap().bytes().to_vec()
}

fn post(address: SocketAddr, body: &str) -> u16 {
    let token = [("authorization", "Bearer a token of some length".to_owned())];
    http::post(address, "/orders", &token, body.as_bytes()).unwrap().0
}

/// The exit status of a replay, and the lines that it says.
fn replay(arguments: &[&Path]) -> (i32, Vec<Value>) {
    let mut command = Command::new(binary("edgectl").unwrap());
    command.args(["--json", "replay"]).arg(arguments[0]).arg("--with").arg(arguments[1]);
    if let Some(other) = arguments.get(2) {
        command.arg("--against").arg(other);
    }
    let Output { status, stdout, .. } = command.output().unwrap();
    let lines = String::from_utf8(stdout).unwrap();
    (status.code().unwrap(), lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn runs_of_a_gateway_are_made_again_elsewhere_and_a_dead_letter_traps_again() {
    let port = Port::free().unwrap();
    let address = port.address();
    let config = format!("\n[http]\nlisten = \"{address}\"\ntoken = \"a token of some length\"\n");
    let mut system = System::start_with(World::new().unwrap(), Inlet::Own, &[], &config).unwrap();
    let first = system.world.write("keeper-1.wasm", keeper("1.0.0", 1)).unwrap();
    let second = system.world.write("keeper-2.wasm", keeper("2.0.0", 2)).unwrap();
    system.operator.push_file(&first).unwrap();
    system.operator.deploy("keeper", "all").unwrap();
    system.gateway.wait_for_functions(&["keeper"], DEADLINE).unwrap();
    assert_eq!(post(address, "before"), 204);

    let recording = system.world.path("keeper.edgerec");
    let record = |function: &str, runs: &str| {
        let mut command = Command::new(binary("edge-agent").unwrap());
        command.args(["record", "--function", function, "--events", runs, "--config"]).arg(system.gateway.config());
        command.arg("--output").arg(&recording).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let unknown = record("keper", "1").wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && said.contains("there are: keeper"), "{said}");
    let recorder = record("keeper", "4");
    wait_until("the recording to begin", DEADLINE, || {
        let bytes = std::fs::metadata(&recording).map_err(|error| error.to_string())?.len();
        if bytes > 0 { Ok(()) } else { Err("nothing yet".to_owned()) }
    })
    .unwrap();
    for (body, status) in [("a", 204), ("b", 204), ("x", 500), ("c", 204)] {
        assert_eq!(post(address, body), status);
    }
    let done = recorder.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && said.starts_with("4 runs of keeper"), "{said}");

    let (status, lines) = replay(&[&recording, &first]);
    let end = lines.last().unwrap();
    assert_eq!((status, &end["same"], &end["differ"], &end["state"]), (0, &4.into(), &0.into(), &Value::Array(vec![])));
    assert_eq!((&end["fuel_before"], &end["missing"]), (&end["fuel_after"], &0.into()));
    for arguments in [&[&*recording, &*second][..], &[&*recording, &*first, &*second]] {
        let (status, lines) = replay(arguments);
        let end = lines.last().unwrap();
        // Both stumble.
        assert_eq!((status, &end["same"], &end["differ"], &end["not_recorded"]), (5, &1.into(), &3.into(), &0.into()));
        assert_eq!(end["state"].as_array().unwrap().len(), 1, "{end}");
        let changed = &lines[0];
        assert_eq!((&changed["text"], &changed["differs"][0]), (&"a".into(), &"ended".into()), "{changed}");
    }

    let letter = wait_until("the dead letter", DEADLINE, || {
        let list = system.operator.run(["dead", "list"]).map_err(|error| format!("{error:#}"))?;
        let letter = list["letters"].as_array().unwrap().first().cloned();
        letter.ok_or_else(|| "there is none".to_owned())
    })
    .unwrap();
    let (gateway, number) = (letter["gateway"].as_str().unwrap(), letter["letter"].to_string());
    let saved = system.world.path("letter.edgerec");
    let shown = system.operator.run(["dead", "show", gateway, &number, "--save", saved.to_str().unwrap()]).unwrap();
    let run = &shown["dead"]["run"];
    assert_eq!(run["backtrace"], Value::from(vec!["stumble", "edge_handle"]), "{shown}");
    assert!(run["fuel"].as_u64().unwrap() > 5_000 && run["memory_bytes"] == 65_536, "{run}");
    let (status, lines) = replay(&[&saved, &first]);
    let trapped = &lines[0]["after"];
    assert_eq!((status, &trapped["backtrace"], &trapped["fuel"]), (0, &run["backtrace"], &run["fuel"]), "{lines:?}");
    let reason = shown["dead"]["reason"].as_str().unwrap();
    assert!(reason.ends_with(trapped["trap"][1].as_str().unwrap()), "{reason}: {trapped}");
    assert_eq!(trapped["trap"][0], "unreachable");

    // The same from the store itself, without a link and without the agent.
    let data = system.gateway.config().with_extension("");
    system.gateway.kill9();
    let offline = system.world.path("offline.edgerec");
    let mut doctor = Command::new(binary("edge-agent").unwrap());
    doctor.arg("doctor").arg(&data).args(["--letter", &number, "--recording"]).arg(&offline);
    let said = doctor.output().unwrap();
    assert!(said.status.success(), "{said:?}");
    assert_eq!(std::fs::read(&offline).unwrap(), std::fs::read(&saved).unwrap());
}
