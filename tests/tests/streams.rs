//! A gateway whose link is gone for longer than it has room, or is paid for by the byte: what goes, goes as configured, and
//! every record is accounted for.

use std::time::{Duration, Instant};

use serde_json::Value;
use system_tests::{Device, Inlet, System, World, oracle, wait_until};

/// Far more than any of this takes, so that a busy machine makes no test fail.
const DEADLINE: Duration = Duration::from_secs(90);

const DEVICES: u64 = 2;
/// Far more than a MiB of records, and an even number.
const READINGS: u64 = 6_000;

/// One record for each event, one for every sixth event of a device, one for every hundredth event of all.
const FUNCTIONS: [&str; 3] = ["unit-conversion", "rolling-mean", "topic-counter"];

const STREAMS: &str = "
[[stream]]
name = \"temperature\"
quota_mib = 1
when_full = \"thin-out\"

[[stream]]
name = \"means\"
ttl_s = 1

[[stream]]
name = \"counts\"
priority = \"high\"
";

/// What the operator sees of the only gateway.
fn seen(system: &System) -> Value {
    let gateways = system.operator.run(["gateways"]).unwrap();
    let id = gateways["gateways"][0]["id"].as_str().unwrap();
    system.operator.run(["gateway", "show", id]).unwrap()
}

fn stream<'a>(gateway: &'a Value, name: &str) -> &'a Value {
    gateway["streams"].as_array().unwrap().iter().find(|stream| stream["name"] == name).unwrap()
}

/// Delivered, and dropped for this reason; nothing else became of the stream's records.
fn account(gateway: &Value, name: &str, reason: &str) -> (u64, u64) {
    let stream = stream(gateway, name);
    let dropped = stream["dropped"].as_object().unwrap();
    assert!(dropped.keys().all(|key| key == reason), "{stream}");
    assert_eq!((&stream["waiting"], &stream["missing"]), (&Value::from(0), &Value::from(0)), "{stream}");
    (stream["delivered"].as_u64().unwrap(), dropped.get(reason).map_or(0, |count| count.as_u64().unwrap()))
}

#[test]
fn what_must_go_goes_as_configured_and_every_record_is_accounted_for() {
    let system = System::start_with(World::new().unwrap(), Inlet::Own, &FUNCTIONS, STREAMS).unwrap();
    system.link.cut();
    let start =
        |number| system.device(&format!("thermostat-{number}"), None, 3_000.0, Some(READINGS as usize)).unwrap();
    let mut devices: Vec<Device> = (1..=DEVICES).map(start).collect();
    let devices: Vec<_> = devices.iter_mut().map(|device| device.finish(DEADLINE).unwrap()).collect();
    assert!(devices.iter().all(|device| device.acknowledged == READINGS), "{devices:?}");

    // The means have had their time when none of them waits any more.
    wait_until("records to be dropped", DEADLINE, || {
        let status = system.gateway.status().map_err(|error| format!("{error:#}"))?;
        let bytes = |name: &str| {
            let stream = status.records.streams.iter().find(|stream| stream.name == name);
            stream.map_or(0, |stream| stream.bytes)
        };
        if bytes("means") == 0 && bytes("temperature") <= 1 << 20 { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .unwrap();
    system.link.restore().unwrap();
    system.gateway.wait_until_drained(DEADLINE).unwrap();
    let events = DEVICES * READINGS;
    let gateway = wait_until("the control plane to know that nothing waits", DEADLINE, || {
        let gateway = seen(&system);
        if gateway["reported"]["waiting"] == 0 { Ok(gateway) } else { Err(gateway.to_string()) }
    })
    .unwrap();

    let (delivered, thinned) = account(&gateway, "temperature", "thinned");
    assert_eq!(delivered + thinned, events);
    assert!(delivered > 1_000 && thinned > 1_000, "{gateway}");
    let records = system.cloud.records("temperature").unwrap();
    assert_eq!(records.len() as u64, delivered);
    for account in oracle::judge(&devices, &records) {
        assert!(account.doubled.is_empty() && account.invented.is_empty(), "{account:?}");
    }
    assert_eq!(account(&gateway, "means", "expired"), (0, events / 6));
    assert_eq!(account(&gateway, "counts", ""), (events / 100, 0));
    assert_eq!((&gateway["records"]["missing"], &gateway["records"]["conflicts"]), (&Value::from(0), &Value::from(0)));
}

#[test]
fn a_metered_link_is_kept_to_its_rate() {
    const RATE: u64 = 10_000;
    const READINGS: u64 = 3_000;
    let config = format!("bytes_per_second = {RATE}\n");
    let system = System::start_with(World::new().unwrap(), Inlet::Own, &FUNCTIONS, &config).unwrap();
    system.link.cut();
    let mut device = system.device("thermostat-1", None, 3_000.0, Some(READINGS as usize)).unwrap();
    device.finish(DEADLINE).unwrap();

    let before = system.gateway.status().unwrap().link.bytes;
    let start = Instant::now();
    system.link.restore().unwrap();
    let status = system.gateway.wait_until_drained(DEADLINE).unwrap();
    // The last request may go ahead of its time; it has a seventh of all at most. So have reports, which are not held back.
    let bytes = (status.link.bytes - before) * 5 / 7;
    let least = Duration::from_millis(bytes * 1_000 / RATE);
    assert!(bytes > 2 * RATE && start.elapsed() >= least, "{bytes} bytes in {:?}", start.elapsed());
    assert_eq!(system.cloud.records("temperature").unwrap().len() as u64, READINGS);
}
