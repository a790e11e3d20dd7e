//! The program against a real broker that is killed under it.

mod common;

use std::fmt::Write as _;
use std::path::PathBuf;

use common::{Broker, Collector, Device, Gate, Passage, Seen};
use serde_json::json;
use tempfile::TempDir;

const EVENTS: u64 = 600;

/// A file of [`EVENTS`] readings, 0.125 °C (two steps of the sensor) apart: 32, 32.225, 32.45, … °F.
fn recording(folder: &TempDir) -> PathBuf {
    let mut text = String::from("timestamp,value\n");
    for n in 0..EVENTS {
        let (hour, minute) = (n / 60, n % 60);
        writeln!(text, "2026-01-01 {hour:02}:{minute:02}:00,{}", 32.0 + n as f64 * 0.225).unwrap();
    }
    let path = folder.path().join("recording.csv");
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn a_broker_that_is_killed_loses_nothing() {
    let Some(broker) = Broker::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = recording(&folder);
    let mut collector = Collector::new();
    collector.subscribe(broker.port, "sensors/+/temperature").await;
    let mut gate = Gate::new().await;
    gate.set(Passage::Open(broker.port));

    let address = gate.address.to_string();
    let file = file.to_str().unwrap();
    let device = Device::start(&[
        "--broker", &address, "--device", "t-1", "--replay", file, "--rate", "2000", "--boot", "9", "--report", "json",
    ]);
    let mut seen = Seen::default();
    while seen.arrivals() < EVENTS as usize / 3 {
        seen.add(&collector.next().await, "t-1", 9);
    }

    // At least one event arrives whose acknowledgement does not: it must come again.
    gate.set(Passage::Deaf(broker.port));
    gate.swallowed(4).await;
    gate.set(Passage::Closed);
    broker.kill();

    let broker = Broker::start().expect("it was there a moment ago");
    collector.subscribe(broker.port, "sensors/+/temperature").await;
    gate.set(Passage::Open(broker.port));

    let (status, summary, log) = device.finish().await;
    assert_eq!(status, Some(0), "{log}");
    assert_eq!(summary["published"], EVENTS);
    assert_eq!(summary["acknowledged"], EVENTS);
    assert_eq!((&summary["unacknowledged"], &summary["dropped"]), (&json!(0), &json!(0)));
    assert!(summary["reconnects"].as_u64().unwrap() >= 1, "{summary}");
    assert!(summary["resent"].as_u64().unwrap() >= 1, "{summary}");
    assert!(summary["first_ack_ms"].as_u64().unwrap() < summary["last_ack_ms"].as_u64().unwrap());

    while seen.events.len() < EVENTS as usize {
        seen.add(&collector.next().await, "t-1", 9);
    }
    for sequence in 1..=EVENTS {
        assert!(seen.events.contains_key(&sequence), "{sequence} never arrived");
    }
    assert!(seen.arrivals() > EVENTS as usize, "nothing arrived twice, so nothing was tested");
    assert_eq!(seen.events[&1].1, r#"{"time":"2026-01-01T00:00:00","fahrenheit":32.00}"#);
    assert_eq!(seen.events[&600].1, r#"{"time":"2026-01-01T09:59:00","fahrenheit":166.77}"#);
}

#[tokio::test]
async fn a_signal_ends_a_live_thermostat_when_all_is_acknowledged() {
    let Some(broker) = Broker::start() else { return };
    let mut collector = Collector::new();
    collector.subscribe(broker.port, "a/attic/b").await;
    let folder = tempfile::tempdir().unwrap();
    let boot_file = folder.path().join("boot");
    let (address, boot_file) = (format!("127.0.0.1:{}", broker.port), boot_file.to_str().unwrap());
    for boot in 1..=2 {
        let device = Device::start(&[
            "--broker",
            &address,
            "--device",
            "attic",
            "--topic",
            "a/{device}/b",
            "--rate",
            "500",
            "--window",
            "1",
            "--boot-file",
            boot_file,
            "--report",
            "json",
        ]);
        let mut seen = Seen::default();
        while seen.arrivals() < 20 {
            seen.add(&collector.next().await, "attic", boot);
        }
        device.terminate();
        let (status, summary, log) = device.finish().await;
        assert_eq!(status, Some(0), "{log}");
        assert_eq!((&summary["boot"], &summary["device"]), (&json!(boot), &json!("attic")));
        assert_eq!(summary["published"], summary["acknowledged"]);
        while (seen.events.len() as u64) < summary["published"].as_u64().unwrap() {
            seen.add(&collector.next().await, "attic", boot);
        }
    }
}

#[tokio::test]
async fn without_a_broker_a_signal_ends_it_with_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let file = recording(&folder);
    let gate = Gate::new().await;
    let address = gate.address.to_string();
    let mut device = Device::start(&[
        "--broker",
        &address,
        "--replay",
        file.to_str().unwrap(),
        "--limit",
        "3",
        "--rate",
        "1000",
        "--boot",
        "1",
        "--report",
        "json",
        "-v",
    ]);
    let device = tokio::task::spawn_blocking(move || {
        device.wait_for_log("published=3");
        device
    });
    let device = device.await.unwrap();
    device.terminate();
    let (status, summary, log) = device.finish().await;
    assert_eq!(status, Some(1), "{log}");
    assert_eq!((&summary["published"], &summary["unacknowledged"]), (&json!(3), &json!(3)));
    assert_eq!(summary["first_ack_ms"], serde_json::Value::Null);
}

#[tokio::test]
async fn mistakes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.csv");
    std::fs::write(&bad, "timestamp,value\n2013-07-04 00:00:00,69.9\n2013-07-04 01:00:00,hot\n").unwrap();
    let bad = bad.to_str().unwrap();
    for (arguments, expected) in [
        (&["--replay", bad, "--boot", "1"][..], "line 3 is \"2013-07-04 01:00:00,hot\""),
        (&["--replay", "missing.csv"], "cannot replay missing.csv"),
        (&["--device", "a/b", "--boot", "1"], "the device name has '/' at byte 1"),
        (&["--topic", "sensors/#", "--boot", "1"], "cannot publish to \"sensors/#\""),
        (&["--boot-file", "/dev/null/boot"], "/dev/null/boot"),
    ] {
        let (status, _, log) = Device::start(arguments).finish().await;
        assert_eq!(status, Some(1), "{log}");
        assert!(log.contains(expected), "{log}");
    }
    for arguments in
        [&["--window", "33"][..], &["--rate", "0"], &["--broker", "nowhere"], &["--boot", "1", "--boot-file", "x"]]
    {
        let (status, _, log) = Device::start(arguments).finish().await;
        assert_eq!(status, Some(2), "{log}");
    }
}
