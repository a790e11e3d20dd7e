//! What functions used and measured.

use std::collections::BTreeMap;

use sync_protocol::usage::{Counts, Histogram, Part};

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn usage_and_metrics_are_shown_as_tables_and_as_json() {
    let world = World::new().await;
    let gateway = world.gateway(&[]).await;
    let counts = Counts {
        invocations: 3,
        failed: 1,
        fuel: 9_000,
        busy_ns: 1_500_000_000,
        memory_peak_bytes: 131_072,
        bytes_in: 40,
        bytes_out: 7,
        state_peak_bytes: 5_000,
    };
    let mut celsius = Histogram::of(21.456).unwrap();
    celsius.merge(&Histogram::of(-3.0).unwrap());
    // 2026-11-03T10:00:00Z.
    let part = Part {
        hour: 498_250,
        function: "mean".into(),
        devices: [("pump-7\u{1b}[2J".to_owned(), counts), (String::new(), counts)].into(),
        counters: BTreeMap::from([("rejected".to_owned(), 2.5)]),
        histograms: BTreeMap::from([("celsius".to_owned(), celsius)]),
    };
    gateway.tell_usage(1, vec![part]).await;

    let all = world.text(&["usage", "--by", "hour,gateway,function,device"]);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let [header, others, pump] = &all.lines().map(words).collect::<Vec<_>>()[..] else { panic!("{all}") };
    assert_eq!(
        header.join(" "),
        "FROM GATEWAY FUNCTION DEVICE RUNS FAILED FUEL BUSY S PEAK KIB BYTES IN BYTES OUT STATE KIB"
    );
    assert_eq!(others[1..].join(" "), format!("{} mean (others) 3 1 9000 1.500 128 40 7 4", gateway.id));
    assert!(others[0].starts_with("2026-11-03T10:00:00"), "{all}");
    assert_eq!(pump[3], "pump-7\\u{1b}[2J");
    let sum = world.text(&["usage", "--function", "mean", "--gateway", &gateway.id, "--from", "2026-11-03T10:00:00Z"]);
    assert_eq!(words(sum.lines().nth(1).unwrap()).join(" "), "- - mean - 6 2 18000 3.000 128 80 14 4");
    assert_eq!(world.text(&["usage", "--to", "2026-11-03T10:00:00Z"]).lines().count(), 1);
    let first = world.run(&["usage", "--by", "device", "--limit", "1"]);
    let page = world.json(&["usage", "--by", "device", "--limit", "1"]);
    let next = page["next"].as_str().unwrap();
    assert!(first.stderr.contains(&format!("--cursor {next}")), "{}", first.stderr);
    assert_eq!(world.json(&["usage", "--by", "device", "--cursor", next])["usage"][0]["invocations"], 3);
    assert!(world.fails(&["usage", "--by", "week"]).contains("allowed are hour, day, gateway, function, device"));

    let metrics = world.text(&["metrics"]);
    let [header, celsius, rejected] = &metrics.lines().map(words).collect::<Vec<_>>()[..] else { panic!("{metrics}") };
    assert_eq!(header.join(" "), "FUNCTION NAME FROM GATEWAY COUNT SUM MIN P50 P90 P99 MAX");
    assert_eq!(celsius.join(" "), "mean celsius - - 2 18.46 -3 -2.954 21.46 21.46 21.46");
    assert_eq!(rejected.join(" "), "mean rejected - - - 2.5 - - - - -");
    let by_day = world.json(&["metrics", "--by", "day,gateway", "--name", "rejected"]);
    assert_eq!(
        (&by_day["metrics"][0]["gateway"], &by_day["metrics"][0]["counter"]),
        (&gateway.id.clone().into(), &2.5.into())
    );
}
