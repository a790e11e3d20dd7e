//! What functions used and measured, with the real programs: the control plane has exactly what took effect, wherever the
//! agent is killed meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use function_package::Package;
use serde_json::{Value, json};
use system_tests::{Device, Inlet, Summary, System, World, http, wait_until};

/// Far more than any of this takes, so that a busy machine makes no test fail.
const DEADLINE: Duration = Duration::from_secs(120);

const DEVICES: u64 = 3;
const READINGS: u64 = 600;
const KILLS: u64 = 6;

/// Counts each event, and observes its number; traps on every tenth, after it counted.
const MODULE: &str = r#"(module
    (import "edge_v1" "count" (func $count (param i32 i32 f64)))
    (import "edge_v1" "observe" (func $observe (param i32 i32 f64)))
    (memory (export "memory") 1)
    (data (i32.const 0) "seen")
    (data (i32.const 8) "number")
    (func (export "edge_alloc") (param i32) (result i32) (i32.const 1024))
    (func (export "edge_handle") (param $event i32) (param i32) (result i32)
        (local $number i64)
        (local.set $number (i64.load offset=24 (local.get $event)))
        (call $count (i32.const 0) (i32.const 4) (f64.const 0.5))
        (call $observe (i32.const 8) (i32.const 6) (f64.convert_i64_u (local.get $number)))
        (if (i64.eqz (i64.rem_u (local.get $number) (i64.const 10))) (then unreachable))
        (i32.const 0)))"#;

const MANIFEST: &str = "manifest = 1\nname = \"meter\"\nversion = \"1.0.0\"\n[[trigger]]\nmqtt = \"sensors/#\"\n\
                        [allow]\nmetrics = [\"seen\", \"number\"]\n";

/// A system whose gateway has the function in its own configuration, so that no trial ends it.
fn start(config: &str) -> System {
    let mut system = System::start(World::new().unwrap(), Inlet::Own, &[]).unwrap();
    let package = Package::pack(&wat::parse_str(MODULE).unwrap(), MANIFEST).unwrap();
    let file = system.world.write("meter.wasm", package.bytes()).unwrap();
    system.gateway.configure(&format!("{config}\n[[function]]\npath = \"{}\"\n", file.display())).unwrap();
    system.gateway.terminate(DEADLINE).unwrap();
    system.gateway.start().unwrap();
    system.gateway.wait_for_functions(&["meter"], DEADLINE).unwrap();
    system
}

/// By device: runs, and how many of them failed.
fn runs(system: &System) -> BTreeMap<String, (u64, u64)> {
    let by = ["usage", "--function", "meter", "--by", "device"];
    let page = system.operator.run(by).unwrap();
    let of = |row: &Value| {
        let number = |key: &str| row[key].as_u64().unwrap();
        (row["device"].as_str().unwrap().to_owned(), (number("invocations"), number("failed")))
    };
    page["usage"].as_array().unwrap().iter().map(of).collect()
}

/// What was counted; how many numbers were observed, and their sum.
fn measured(system: &System) -> (Value, Value, Value) {
    let page = system.operator.run(["metrics", "--function", "meter"]).unwrap();
    let of = |name: &str, key: &str| {
        let rows = page["metrics"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == name).map_or(Value::Null, |row| row[key].clone())
    };
    let observed = of("number", "observed");
    (of("seen", "counter"), observed["count"].clone(), observed["sum"].clone())
}

fn finish(mut devices: Vec<Device>) -> Vec<Summary> {
    devices.iter_mut().map(|device| device.finish(DEADLINE).unwrap()).collect()
}

#[test]
fn usage_and_metrics_are_exactly_what_took_effect_through_kill_9() {
    let mut system = start("\n[usage]\nevery_s = 1\n");
    let device = |number| system.device(&format!("meter-{number}"), None, 100.0, Some(READINGS as usize)).unwrap();
    let devices: Vec<Device> = (1..=DEVICES).map(device).collect();

    // The agent is gone at any moment of its work; the link at every other one, so that what was sent is sent again.
    for kill in 0..KILLS {
        wait_until("some events to be handled", DEADLINE, || {
            let events = system.gateway.status().map_err(|error| format!("{error:#}"))?.events;
            let moved = events.handled + events.dead;
            if moved >= 100 + 37 * kill { Ok(()) } else { Err(format!("{moved} are")) }
        })
        .unwrap();
        if kill % 2 == 0 {
            system.link.cut();
        }
        system.gateway.kill9();
        system.link.restore().unwrap();
        system.gateway.start().unwrap();
    }
    let summaries = finish(devices);
    assert!(summaries.iter().all(|summary| summary.published == READINGS), "{summaries:?}");

    let of_each = (READINGS, READINGS / 10);
    let wanted: BTreeMap<_, _> = (1..=DEVICES).map(|number| (format!("meter-{number}"), of_each)).collect();
    let took_effect = DEVICES * (READINGS - READINGS / 10);
    // 1 + 2 + … without every tenth.
    let sum: u64 = (1..=READINGS).filter(|number| number % 10 != 0).sum::<u64>() * DEVICES;
    let wanted_measures = (json!(took_effect as f64 / 2.0), json!(took_effect), json!(sum as f64));
    wait_until("the control plane to have all", DEADLINE, || {
        let found = (runs(&system), measured(&system));
        if found == (wanted.clone(), wanted_measures.clone()) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .unwrap();

    // Once more through a stop: nothing is told twice.
    assert!(system.gateway.terminate(DEADLINE).unwrap().success());
    system.gateway.start().unwrap();
    system.gateway.wait_until_drained(DEADLINE).unwrap();
    assert_eq!((runs(&system), measured(&system)), (wanted, wanted_measures));

    // What it is made of, and by hour.
    let usage = system.operator.run(["usage", "--by", "function,hour"]).unwrap();
    let rows = usage["usage"].as_array().unwrap();
    let total = |key: &str| rows.iter().map(|row| row[key].as_u64().unwrap()).sum::<u64>();
    let names = 4 + 8 + 6 + 8;
    assert_eq!(total("bytes_out"), took_effect * names);
    assert!(total("fuel") > 1_000 && total("busy_us") > 0 && total("bytes_in") >= DEVICES * READINGS, "{usage}");
    assert!(
        rows.iter().all(|row| row["state_peak_bytes"].is_u64()
            && row["memory_peak_bytes"] == 65_536
            && row["from_us"].is_u64()),
        "{usage}"
    );
    let metrics = system.operator.run(["metrics", "--by", "gateway"]).unwrap();
    let observed = metrics["metrics"].as_array().unwrap().iter().find(|row| row["name"] == "number").unwrap();
    let p90 = observed["observed"]["p90"].as_f64().unwrap();
    assert!((p90 / 540.0 - 1.0).abs() < 0.05, "{observed}");
}

#[test]
fn the_agent_shows_what_is_used_while_it_runs() {
    let system = start("");
    finish(vec![system.device("meter-1", None, 1_000.0, Some(20)).unwrap()]);
    let address = system.gateway.status_address();
    let status: Value = serde_json::from_str(&http::get_text(address, "/status", None).unwrap()).unwrap();
    let usage = &status["usage"][0];
    assert_eq!((&usage["function"], &usage["invocations"], &usage["failed"]), (&json!("meter"), &json!(20), &json!(2)));
    assert_eq!((&usage["counters"]["seen"], &usage["observed"]["number"]["count"]), (&json!(9.0), &json!(18)));
    let page = http::get_text(address, "/metrics", None).unwrap();
    for line in [
        "edge_runs_handled_total 18",
        "edge_runs_dead_total 2",
        "edge_function_invocations_total{function=\"meter\"} 20",
        "edge_function_failures_total{function=\"meter\"} 2",
        "edge_function_counter_total{function=\"meter\",name=\"seen\"} 9",
        "edge_function_observed_bucket{function=\"meter\",name=\"number\",le=\"8\"} 8",
        "edge_function_observed_bucket{function=\"meter\",name=\"number\",le=\"+Inf\"} 18",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
}
