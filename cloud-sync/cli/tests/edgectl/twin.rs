//! Twins.

use serde_json::json;
use sync_protocol::dead::Payload;

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn what_devices_are_is_shown() {
    let world = World::new().await;
    let gateway = world.gateway(&[]).await;
    let text = |text: &str| Payload::Text(text.to_owned());
    let reports = [
        ("pump-7", "battery", text("87")),
        ("pump-7", "net.name", text("hall\u{9b}2J")),
        ("pump-8", "raw", Payload::Hex("ff00".to_owned())),
        ("pump-7", "battery", text("86")),
    ];
    gateway.report(1, &reports).await;

    let shown = world.text(&["twin", "show", &gateway.id]);
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with("DEVICE") && lines.len() == 4, "{shown}");
    for (line, parts) in lines[1..].iter().zip([
        ["pump-7", "battery", "86", "2026-", "mean"],
        ["pump-7", "net.name", "hall\\u{9b}2J", "2026-", "mean"],
        ["pump-8", "raw", "hex ff00", "2026-", "mean"],
    ]) {
        assert!(parts.iter().all(|part| line.contains(part)), "{shown}\n{parts:?}");
    }
    assert_eq!(world.text(&["twin", "show", &gateway.id, "pump-8"]).lines().count(), 2);
    assert_eq!(world.text(&["twin", "show", &gateway.id, "none"]).lines().count(), 1);
    let first = world.run(&["twin", "show", &gateway.id, "--limit", "1"]);
    let page = world.json(&["twin", "show", &gateway.id, "--limit", "1"]);
    let next = page["next"].as_str().unwrap();
    assert!(first.stderr.contains(&format!("--cursor {next}")), "{}", first.stderr);
    let rest = world.json(&["twin", "show", &gateway.id, "--cursor", next]);
    assert_eq!((&rest["properties"][0]["property"], &rest["next"]), (&json!("net.name"), &json!(null)));
    assert_eq!(page["properties"][0]["value"], json!({"text": "86"}));
    assert!(world.fails(&["twin", "show", "gw-none"]).contains("unknown_gateway"));
    assert_eq!(world.run(&["twin", "show"]).status, 2);
}
