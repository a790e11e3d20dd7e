//! Dead letters.

use serde_json::json;
use sync_protocol::dead::{INLET, Letter, LetterEvent, LetterIdentity, LetterRun, Note, Payload, Resolved, What};
use sync_protocol::records::StoreEpoch;

use crate::world::World;

fn dead(letter: u64, function: &str, payload: Payload) -> Note {
    let dead = Letter {
        function: function.into(),
        version: "1.2.0".into(),
        digest: "05".repeat(32),
        kind: "trapped".into(),
        reason: "function mean:\n\u{9b}2J out of fuel".into(),
        detail: "at mean::handle".into(),
        run: Some(LetterRun {
            fuel: 900,
            memory_bytes: 65_536,
            backtrace: vec!["mean::add".into(), "edge_handle".into()],
            recording: "00".into(),
        }),
        event: LetterEvent {
            kind: "mqtt".into(),
            device: "pump-7".into(),
            topic: "plant/pump-7".into(),
            identity: Some(LetterIdentity { source: "pump-7".into(), boot_epoch: "3".into(), sequence: "9".into() }),
            time_us: 1_793_700_000_000_000,
            attributes: vec![("attempt".into(), "2".into())],
            payload,
            payload_bytes: 300,
            cut: true,
        },
    };
    Note::new(StoreEpoch(1), letter, What::Dead(Box::new(dead)))
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_shown_retried_and_dropped() {
    let world = World::new().await;
    let gateway = world.gateway(&[]).await;
    let text = || Payload::Text("{\"v\":\n1}".into());
    let letters = [dead(1, "mean", text()), dead(2, "mean", Payload::Hex("ff00".into())), dead(3, INLET, text())];
    gateway.tell(1, &letters).await;

    let list = world.text(&["dead", "list"]);
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[0].starts_with("GATEWAY") && lines.len() == 4, "{list}");
    for part in [&gateway.id, "pump-7", "plant/pump-7", "trapped", "function mean: \\u{9b}2J out of fuel"] {
        assert!(lines[1].contains(part), "{list}\n{part}");
    }
    assert_eq!(world.text(&["dead", "list", "--function", INLET, "--gateway", &gateway.id]).lines().count(), 2);
    let first = world.run(&["dead", "list", "--limit", "1"]);
    let page = world.json(&["dead", "list", "--limit", "1"]);
    let next = page["next"].as_str().unwrap();
    assert!(first.stderr.contains(&format!("--cursor {next}")), "{}", first.stderr);
    assert_eq!(world.json(&["dead", "list", "--cursor", next])["letters"][0]["letter"], 2);

    let shown = world.text(&["dead", "show", &gateway.id, "1"]);
    for part in [
        "out of fuel",
        "at mean::handle",
        "mean 1.2.0",
        "event 9 of boot 3 of pump-7",
        "attempt: 2",
        "65536 bytes",
        "mean::add",
    ] {
        assert!(shown.contains(part), "{shown}\n{part}");
    }
    assert!(shown.contains("300 bytes, not all of which is shown") && shown.ends_with("\n{\"v\":\n1}\n"), "{shown}");
    assert!(world.text(&["dead", "show", &gateway.id, "2"]).ends_with("\nhex ff00\n"));
    assert_eq!(world.json(&["dead", "show", &gateway.id, "1"])["dead"]["event"]["payload"]["text"], "{\"v\":\n1}");

    let retried = world.text(&["dead", "retry", &gateway.id, "--all"]);
    assert!(retried.contains("2 to be retried as soon as the gateway hears of it\n1 never reached"), "{retried}");
    let again = world.json(&["dead", "retry", &gateway.id, "1"]);
    assert_eq!((&again["letters"], &again["waiting"]), (&json!(0), &json!(1)));
    assert!(world.text(&["dead", "list"]).contains("retry waits for the gateway"));
    let dropped = world.text(&["dead", "drop", &gateway.id, "--all", "--function", INLET]);
    assert_eq!(dropped, "1 to be dropped as soon as the gateway hears of it\n");

    let ends = [(1, Resolved::Retried), (2, Resolved::Retried), (3, Resolved::Dropped)];
    let ends = ends.map(|(letter, resolved)| Note::new(StoreEpoch(1), letter, What::Resolved(resolved)));
    gateway.tell(4, &ends).await;
    assert_eq!(world.text(&["dead", "list"]).lines().count(), 1);
    assert!(world.text(&["dead", "show", &gateway.id, "3"]).contains("dropped"));
    assert_eq!(world.text(&["dead", "drop", &gateway.id, "--all"]), "there are no such dead letters\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said() {
    let world = World::new().await;
    let gateway = world.gateway(&[]).await;
    gateway.tell(1, &[dead(1, INLET, Payload::Hex(String::new()))]).await;
    let refused = world.fails(&["dead", "retry", &gateway.id, "1"]);
    assert!(refused.contains("never reached a function") && refused.contains("drop them"), "{refused}");
    assert!(world.fails(&["dead", "drop", &gateway.id, "7"]).contains("unknown_letter"));
    assert!(world.fails(&["dead", "show", "gw-none", "1"]).contains("unknown_gateway"));
    for args in [
        &["dead", "drop", "gw"][..],
        &["dead", "drop", "gw", "1", "--all"],
        &["dead", "retry", "gw", "1", "--function", "f"],
    ] {
        assert_eq!(world.run(args).status, 2, "{args:?}");
    }
}
