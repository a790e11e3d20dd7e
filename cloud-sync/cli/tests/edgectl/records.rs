//! Shows records.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn records_are_shown_as_tables_and_as_the_interface_has_them() {
    let world = World::new().await;
    let gateway = world.gateway(&[]).await;
    gateway.send(1, &[b"{\"mean\":1.50}", b"\x00\xff", b"\"\xc2\x9b[2J\""]).await;

    let table = world.text(&["records", "--stream", "temperature"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[1].starts_with("2026-11-03T10:00:01.000Z  temperature  dev-1   mean"), "{table}");
    assert!(lines[1].ends_with("{\"mean\":1.50}") && lines[2].ends_with("hex 00ff"), "{table}");
    assert!(lines[3].ends_with("\"\\u{9b}[2J\""), "control characters do not reach the terminal: {table}");

    let page = world.json(&["records", "--device", "dev-1", "--limit", "1"]);
    assert_eq!(page["records"][0]["body"]["json"]["mean"], 1.5);
    let next = page["next"].as_str().unwrap();
    let rest = world.json(&["records", "--device", "dev-1", "--cursor", next]);
    assert_eq!((rest["records"][0]["sequence"].as_u64(), &rest["next"]), (Some(3), &serde_json::Value::Null));
    let of = |args: &[&str]| world.json(&[&["records"], args].concat())["records"].as_array().unwrap().len();
    assert_eq!(of(&["--from", "2026-11-03T10:00:02Z"]), 2);
    assert_eq!(of(&["--to", "2026-11-03T10:00:02Z"]), 1);
    assert_eq!(of(&["--gateway", &gateway.id, "--function", "mean"]), 3);
    assert_eq!(of(&["--function", "other"]), 0);
    assert_eq!(world.json(&["streams"])["streams"], serde_json::json!([{"name": "temperature", "records": 3}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_records_than_a_page_holds_are_put_together() {
    let world = World::new().await;
    let gateway = world.gateway(&[]).await;
    gateway.send(1, &vec![&b"1"[..]; 2_500]).await;
    let page = world.json(&["records", "--limit", "2400"]);
    let sequences: Vec<u64> =
        page["records"].as_array().unwrap().iter().map(|record| record["sequence"].as_u64().unwrap()).collect();
    assert!(sequences.iter().copied().eq(1..=2_400) && page["next"].is_string());
    let all = world.json(&["records", "--limit", "9999"]);
    assert!(all["records"].as_array().unwrap().len() == 2_500 && all["next"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn following_shows_what_comes() {
    let world = World::new().await;
    let gateway = world.gateway(&[]).await;
    gateway.send(1, &[b"1"]).await;
    let mut child = world.command(&["--json", "records", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut sequence = || {
        let line = lines.next().unwrap().unwrap();
        serde_json::from_str::<serde_json::Value>(&line).unwrap()["sequence"].as_u64().unwrap()
    };
    assert_eq!(tokio::task::block_in_place(&mut sequence), 1);
    gateway.send(2, &[b"2"]).await;
    assert_eq!(tokio::task::block_in_place(&mut sequence), 2);
    child.kill().unwrap();
    child.wait().unwrap();
}
