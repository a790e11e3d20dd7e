//! One gateway, and where its records are.

use serde_json::json;
use sync_protocol::fleet::FunctionStatus;
use sync_protocol::records::Reason;

use crate::world::{Gateway, World};

/// 3 delivered and 3 that wait, 5 dropped, 2 damaged, and 10 that are lost without a word.
async fn with_gaps(world: &World) -> Gateway {
    let gateway = world.gateway(&["--label", "site=north"]).await;
    gateway.send(1, &[b"1", b"2", b"3"]).await;
    let told =
        [("temperature", Reason::Oldest, 4), ("temperature", Reason::Expired, 1), ("\u{9b}2J", Reason::Damaged, 2)];
    gateway.tell_gone(14, &told).await;
    gateway
}

/// The cells of a table's rows.
fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect()
}

/// The row that begins with this cell.
fn row<'a>(text: &'a str, first: &str) -> Vec<&'a str> {
    rows(text).into_iter().find(|row| row.first() == Some(&first)).unwrap_or_else(|| panic!("no {first} in {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_shown_with_all_its_records_accounted_for() {
    let world = World::new().await;
    let gateway = with_gaps(&world).await;
    let text = world.text(&["gateway", "show", &gateway.id]);
    let header = ["STREAM", "RECORDS", "DELIVERED", "WAITING", "BYTES WAITING", "DROPPED", "MISSING", "WHY DROPPED"];
    assert_eq!(row(&text, "STREAM"), header);
    assert_eq!(row(&text, "temperature"), ["temperature", "8", "3", "?", "?", "5", "0", "expired 1, oldest 4"]);

    world.push("alert", "1.0.0");
    world.push("other", "2.0.0");
    world.text(&["deploy", "alert", "--to", "all"]);
    gateway.follow(0, |_| (FunctionStatus::RolledBack, "it trapped:\nunreachable")).await;
    world.text(&["deploy", "other", "--to", "all"]);

    let text = world.text(&["gateway", "show", &gateway.id]);
    assert_eq!(row(&text, "ID"), ["ID", &gateway.id]);
    assert_eq!(row(&text, "NAME"), ["NAME", "hall 3"]);
    assert_eq!(row(&text, "LABELS"), ["LABELS", "site=north"]);
    assert!(row(&text, "HEALTH")[1].starts_with("online, seen "), "{text}");
    assert_eq!(row(&text, "AGENT"), ["AGENT", "0.1.0"]);
    assert_eq!(row(&text, "STATE"), ["STATE", "behind what is desired"]);
    assert_eq!(row(&text, "alert"), ["alert", "1.0.0", "1.0.0", "rolled_back", "it trapped: unreachable"]);
    assert_eq!(row(&text, "other"), ["other", "2.0.0", "-", "not reported"]);
    assert_eq!(row(&text, "temperature"), ["temperature", "11", "3", "3", "321", "5", "0", "expired 1, oldest 4"]);
    assert_eq!(row(&text, "\\u{9b}2J"), ["\\u{9b}2J", "2", "0", "0", "0", "0", "2"]);
    assert_eq!(row(&text, "(unknown)"), ["(unknown)", "10", "0", "0", "0", "0", "10"]);
    assert_eq!(row(&text, "ALL STREAMS"), ["ALL STREAMS", "23", "3", "3", "321", "5", "12"]);
    assert_eq!(row(&text, "duplicates")[..2], ["duplicates", "0"]);

    let shown = world.json(&["gateway", "show", &gateway.id]);
    assert_eq!((&shown["id"], &shown["labels"]), (&json!(gateway.id), &json!({"site": "north"})));
    let temperature = json!({
        "name": "temperature",
        "delivered": 3,
        "waiting": 3,
        "waiting_bytes": 321,
        "dropped": {"expired": 1, "oldest": 4},
        "missing": 0,
    });
    assert_eq!(shown["streams"][1], temperature);

    let list = world.text(&["gateways"]);
    assert!(list.lines().next().unwrap().contains("DROPPED  MISSING"), "{list}");
    assert_eq!(row(&list, &gateway.id)[5..10], ["3", "3", "0", "5", "12"]);
    let stats = world.text(&["stats"]);
    assert_eq!((row(&stats, "dropped"), row(&stats, "missing")), (vec!["dropped", "5"], vec!["missing", "12"]));
    assert_eq!(world.json(&["stats"])["records"]["dropped"], 5);

    let unknown = world.fails(&["gateway", "show", "gw/none"]);
    assert!(unknown.contains("gw/none") && unknown.contains("unknown_gateway"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_are_listed_page_by_page() {
    let world = World::new().await;
    let gateway = with_gaps(&world).await;
    // What is told as gone together, and of which one has come, is in two pieces.
    assert_eq!(gateway.send_some(22, &[b"22"]).await, 20);
    gateway.tell_gone(21, &[("temperature", Reason::Thinned, 1), ("", Reason::Lowest, 2)]).await;

    let text = world.text(&["gateway", "gaps", &gateway.id]);
    let lines = rows(&text);
    assert_eq!(lines[0], ["EPOCH", "CLASS", "FIRST", "LAST", "KIND", "WHAT", "TOLD"]);
    let epoch = "0000000000000001";
    assert_eq!(lines[1], [epoch, "normal", "4", "13", "missing", "no reason given", "-"]);
    let what = "temperature oldest 4, temperature expired 1, \\u{9b}2J damaged 2";
    assert_eq!(lines[2][..6], [epoch, "normal", "14", "20", "gone", what]);
    assert!(lines[2][6].ends_with('Z'), "{text}");
    assert_eq!(lines[3][2..6], ["21", "21", "gone", "(unknown) lowest 2"]);
    assert_eq!(lines[4][2..6], ["23", "23", "gone", "counted with the gap before"]);
    assert_eq!(lines.len(), 5, "{text}");

    let page = world.json(&["gateway", "gaps", &gateway.id, "--limit", "1"]);
    assert_eq!((&page["gaps"][0]["kind"], page["gaps"].as_array().unwrap().len()), (&json!("missing"), 1));
    let next = page["next"].as_str().unwrap();
    let rest = world.json(&["gateway", "gaps", &gateway.id, "--cursor", next]);
    assert_eq!((&rest["gaps"][0]["first"], &rest["next"]), (&json!(14), &json!(null)));
    assert_eq!(rest["gaps"][0]["tally"][1], json!({"stream": "temperature", "reason": "expired", "count": 1}));
    let first = world.run(&["gateway", "gaps", &gateway.id, "--limit", "1"]);
    assert!(first.status == 0 && first.stderr.contains(&format!("--cursor {next}")), "{}", first.stderr);

    assert!(world.fails(&["gateway", "gaps", "gw-none"]).contains("unknown_gateway"));
    assert!(world.fails(&["gateway", "gaps", &gateway.id, "--cursor", "x"]).contains("bad_cursor"));
    assert_eq!(world.run(&["gateway", "gaps", &gateway.id, "--limit", "1001"]).status, 2);
}
