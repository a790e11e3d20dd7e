//! What devices publish and the gateway acknowledges reaches the cloud, once: through a cut link, `kill -9` and SIGTERM.

use std::time::Duration;

use sync_core::api::RecordCounts;
use system_tests::{Device, Inlet, Summary, System, World, oracle, wait_until};

/// Far more than any of this takes, so that a busy machine makes no test fail.
const DEADLINE: Duration = Duration::from_secs(60);

/// One record for each event; one for every sixth event of a device; one for every hundredth event of all.
const FUNCTIONS: [&str; 3] = ["unit-conversion", "rolling-mean", "topic-counter"];

const DEVICES: usize = 3;

fn system() -> System {
    System::start(World::new().unwrap(), Inlet::Own, &FUNCTIONS).unwrap()
}

fn devices(system: &System, rate: f64, readings: usize) -> Vec<Device> {
    let start = |number| system.device(&format!("thermostat-{number}"), None, rate, Some(readings)).unwrap();
    (1..=DEVICES).map(start).collect()
}

fn finish(mut devices: Vec<Device>) -> Vec<Summary> {
    devices.iter_mut().map(|device| device.finish(DEADLINE).unwrap()).collect()
}

/// Waits until this many runs of functions are on disk.
fn wait_for_runs(system: &System, runs: u64) {
    wait_until("functions to run", DEADLINE, || {
        let handled = system.gateway.status().map_err(|error| format!("{error:#}"))?.events.handled;
        if handled >= runs { Ok(()) } else { Err(format!("{handled} of {runs} runs")) }
    })
    .unwrap();
}

/// Every event had its effects once: those that are a record, and those on the state that later records are made of.
fn assert_all_effects_once(system: &System, devices: &[Summary], readings: u64) {
    for device in devices {
        assert_eq!((device.published, device.acknowledged), (readings, readings), "{device:?}");
    }
    let status = system.gateway.wait_until_drained(DEADLINE).unwrap();
    assert_eq!((status.dead_letters, status.records.alarms), (0, 0), "{status:?}");
    oracle::assert_exact(devices, &system.cloud.records("temperature").unwrap());

    let means = system.cloud.records("means").unwrap();
    for device in devices {
        let of_device = means.iter().filter(|mean| mean.device == device.device).count() as u64;
        assert_eq!(of_device, readings / 6, "{}", device.device);
    }
    let counts = system.cloud.records("counts").unwrap();
    assert_eq!(counts.len() as u64, devices.len() as u64 * readings / 100);
    assert!(counts.iter().all(|count| count.body["events"] == 100), "{counts:?}");

    let stats = system.cloud.stats().unwrap().records;
    assert_eq!((stats.missing, stats.conflicts), (0, 0));
}

#[test]
fn a_cut_link_delays_records_and_loses_none() {
    let system = system();
    let readings = 1_200;
    let devices = devices(&system, 400.0, readings);
    wait_for_runs(&system, 300);
    system.link.cut();

    // The gateway goes on acknowledging, and keeps what it cannot deliver.
    let devices = finish(devices);
    let waiting = system.gateway.status().unwrap().records.waiting;
    assert!(waiting > 1_000, "{waiting} records wait");
    let arrived = || {
        let RecordCounts { stored, duplicates, .. } = system.cloud.stats().unwrap().records;
        stored + duplicates
    };
    let before = arrived();

    system.link.restore().unwrap();
    assert_all_effects_once(&system, &devices, readings as u64);
    // The answer to what was under way at the cut was lost, and so it came twice, and was refused once.
    assert_eq!(arrived(), before + waiting);
}

#[test]
fn kill_9_loses_nothing_that_was_acknowledged_and_doubles_nothing() {
    let mut system = system();
    let readings = 1_500;
    let devices = devices(&system, 300.0, readings);
    for _ in 0..4 {
        // Counted from each start of the agent.
        wait_for_runs(&system, 400);
        system.gateway.kill9();
        system.gateway.start().unwrap();
    }
    let devices = finish(devices);
    // Not all of them lost each of the four connections: who waits to connect again can sleep through a short life.
    assert!(devices.iter().all(|device| device.reconnects > 0), "{devices:?}");
    assert_all_effects_once(&system, &devices, readings as u64);
}

#[test]
fn sigterm_under_load_settles_what_is_in_flight_and_the_next_start_goes_on() {
    let mut system = system();
    let readings = 1_200;
    let devices = devices(&system, 300.0, readings);
    for _ in 0..2 {
        wait_for_runs(&system, 400);
        let status = system.gateway.terminate(Duration::from_secs(20)).unwrap();
        assert!(status.success(), "{status}");
        system.gateway.start().unwrap();
    }
    let devices = finish(devices);
    assert_all_effects_once(&system, &devices, readings as u64);
}
