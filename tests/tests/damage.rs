//! A gateway whose disk damaged the store: it goes on by itself, delivers what is whole, and says what is not.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use system_tests::{Inlet, System, World, binary, oracle, wait_until};

/// Far more than any of this takes, so that a busy machine makes no test fail.
const DEADLINE: Duration = Duration::from_secs(60);

/// Of SQLite's default.
const PAGE_BYTES: usize = 4_096;

fn doctor(store: &Path) -> (Option<i32>, Value) {
    let output = Command::new(binary("edge-agent").unwrap()).arg("doctor").arg(store).arg("--json").output().unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

#[test]
fn a_damaged_store_is_put_aside_what_is_whole_is_delivered_and_what_is_lost_is_counted() {
    let mut system = System::start(World::new().unwrap(), Inlet::Own, &["unit-conversion"]).unwrap();
    let store = system.world.path("gateway").join("store");
    system.link.cut();
    let readings = 1_000;
    let before = system.device("before", None, 2_000.0, Some(readings)).unwrap().finish(DEADLINE).unwrap();
    assert_eq!(before.acknowledged, readings as u64);
    system.gateway.terminate(DEADLINE).unwrap();
    assert_eq!(doctor(&store).0, Some(0));

    // A page in the middle of the waiting records.
    let file = store.join("store.db");
    let mut bytes = fs::read(&file).unwrap();
    let needle = b"\"device\":\"before\",\"time\"";
    let found: Vec<usize> =
        bytes.windows(needle.len()).enumerate().filter(|(_, w)| w == needle).map(|(at, _)| at).collect();
    let page = found[found.len() / 2] / PAGE_BYTES * PAGE_BYTES;
    bytes[page..page + PAGE_BYTES].fill(0xA5);
    fs::write(&file, bytes).unwrap();
    assert_eq!(doctor(&store).0, Some(1));

    // It starts, knows its functions, and takes events.
    system.gateway.start().unwrap();
    let after = system.device("after", None, 1_000.0, Some(100)).unwrap().finish(DEADLINE).unwrap();
    system.link.restore().unwrap();
    let lost = || {
        let (_, report) = doctor(&store);
        let missing = report["missing"].as_array().unwrap_or_else(|| panic!("no missing in {report}")).clone();
        missing.iter().map(|range| range["last"].as_u64().unwrap() - range["first"].as_u64().unwrap() + 1).sum::<u64>()
    };
    let records = wait_until("everything that is whole to arrive", DEADLINE, || {
        let records = system.cloud.records("temperature").map_err(|error| format!("{error:#}"))?;
        let (there, lost) = (records.len() as u64, lost());
        let all = before.published + after.published;
        if there + lost == all { Ok(records) } else { Err(format!("{there} there and {lost} lost of {all}")) }
    })
    .unwrap();

    let lost = lost();
    assert!(lost > 0 && lost < 100, "{lost} records of one page are lost");
    let (old, new): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| record.device == "before");
    oracle::assert_exact(&[after], &new);
    let account = &oracle::judge(&[before], &old)[0];
    assert_eq!((account.missing.len() as u64, account.doubled.len()), (lost, 0), "{account:?}");
}
