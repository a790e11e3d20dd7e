//! What functions used and measured: added up from what gateways tell, once, and asked for by what one wants to know.

use std::collections::BTreeMap;

use reqwest::Method;
use sync_core::api::{MetricPage, MetricQuery, MetricRow, MetricValue, UsagePage, UsageQuery, UsageRow};
use sync_protocol::records::{Class, Entry, Origin, Range, Record, Request, Stamp};
use sync_protocol::usage::{Counts, Histogram, Part, STREAM, Usage, VERSION, hour_begins_us};

use crate::world::{EPOCH, Gateway, Refused, World, json, refused};

fn counts(invocations: u64, memory_peak_bytes: u64) -> Counts {
    Counts {
        invocations,
        failed: 1,
        fuel: 10 * invocations,
        busy_ns: 5_000,
        memory_peak_bytes,
        bytes_in: 3,
        bytes_out: 4,
        state_peak_bytes: 2 * memory_peak_bytes,
    }
}

fn part(hour: u32, function: &str, devices: &[(&str, Counts)]) -> Part {
    let devices = devices.iter().map(|(device, counts)| ((*device).to_owned(), *counts)).collect();
    Part { hour, function: function.into(), devices, ..Part::default() }
}

fn observed(values: impl IntoIterator<Item = f64>) -> Histogram {
    let mut values = values.into_iter().map(|value| Histogram::of(value).unwrap());
    let mut sum = values.next().unwrap();
    values.for_each(|one| sum.merge(&one));
    sum
}

fn body(parts: Vec<Part>) -> Vec<u8> {
    serde_json::to_vec(&Usage { version: VERSION, parts }).unwrap()
}

/// Delivers records of the gateway's own stream, twice.
async fn tell(gateway: &Gateway, first: u64, bodies: Vec<Vec<u8>>) {
    let entries = bodies.into_iter().map(|body| {
        Entry::Record(Record {
            stream: STREAM.into(),
            function: String::new(),
            origin: Origin { device: String::new(), topic: String::new(), identity: None },
            stamp: Stamp { wall_us: 77, monotonic_us: 0, boot: 0, synchronised: true },
            body,
        })
    });
    let range = Range { first, entries: entries.collect() };
    let request = Request::new(EPOCH, Class::High, 1, vec![range]);
    let last = gateway.send(&request).await.unwrap();
    assert_eq!(gateway.send(&request).await, Ok(last), "what comes again changes nothing");
}

async fn usage(world: &World, query: &UsageQuery) -> Result<UsagePage, Refused> {
    json(world.api.request(Method::GET, "/usage").query(query)).await
}

async fn rows(world: &World, by: &str, query: UsageQuery) -> Vec<UsageRow> {
    let page = usage(world, &UsageQuery { by: Some(by.into()), ..query }).await.unwrap();
    assert_eq!(page.next, None);
    page.usage
}

async fn metrics(world: &World, query: &MetricQuery) -> Result<MetricPage, Refused> {
    json(world.api.request(Method::GET, "/metrics").query(query)).await
}

/// Two gateways that told of three hours.
async fn told() -> (World, Gateway, Gateway) {
    let world = World::new().await;
    let (a, b) = (world.api.gateway(&[]).await, world.api.gateway(&[]).await);
    let first = part(47, "mean", &[("d1", counts(1, 9)), ("d2", counts(2, 7))]);
    // More of the same hour, the next day, and another function.
    let second = [part(47, "mean", &[("d1", counts(4, 8))]), part(48, "mean", &[("d1", counts(8, 3))])];
    let other = part(49, "alert", &[("", counts(16, 1))]);
    tell(&a, 1, vec![body(vec![first]), body(second.to_vec())]).await;
    tell(&b, 1, vec![body(vec![other])]).await;
    (world, a, b)
}

#[tokio::test]
async fn runs_are_added_up_by_what_one_asks_for() {
    let (world, a, b) = told().await;
    let all = UsageQuery::default;
    let by_function: Vec<_> =
        rows(&world, "function", all()).await.into_iter().map(|row| (row.function.unwrap(), row.invocations)).collect();
    assert_eq!(by_function, [("alert".into(), 16), ("mean".into(), 15)]);
    // The default.
    assert_eq!(usage(&world, &all()).await.unwrap().usage.len(), 2);
    let by_day: Vec<_> =
        rows(&world, "day", all()).await.into_iter().map(|row| (row.from_us, row.invocations)).collect();
    assert_eq!(by_day, [(Some(hour_begins_us(24)), 7), (Some(hour_begins_us(48)), 24)]);
    let of_a = UsageQuery { gateway: Some(a.id.clone()), function: Some("mean".into()), ..all() };
    let found = rows(&world, "hour,device", of_a).await;
    let shown: Vec<_> = found.iter().map(|row| (row.from_us, row.device.as_deref(), row.invocations)).collect();
    let [h47, h48] = [47, 48].map(|hour| Some(hour_begins_us(hour)));
    assert_eq!(shown, [(h47, Some("d1"), 5), (h47, Some("d2"), 2), (h48, Some("d1"), 8)]);
    let wanted = UsageRow {
        from_us: h47,
        device: Some("d1".into()),
        invocations: 5,
        failed: 2,
        fuel: 50,
        busy_us: 10,
        memory_peak_bytes: 9,
        bytes_in: 6,
        bytes_out: 8,
        state_peak_bytes: 18,
        ..UsageRow::default()
    };
    assert_eq!(found[0], wanted);
    // Hours that begin in this time.
    for (from, to, runs) in [
        (Some(hour_begins_us(48)), None, vec![24]),
        (Some(hour_begins_us(47) + 1), Some(hour_begins_us(48) + 1), vec![8]),
        (None, Some(hour_begins_us(48)), vec![7]),
        (None, Some(1), vec![]),
    ] {
        let query = UsageQuery { from, to, ..all() };
        let found: Vec<u64> = rows(&world, "gateway", query).await.iter().map(|row| row.invocations).collect();
        assert_eq!(found.iter().sum::<u64>(), runs.iter().sum::<u64>(), "{from:?} {to:?}");
    }
    let devices = rows(&world, "device,gateway", UsageQuery { device: Some("".into()), ..all() }).await;
    assert_eq!((devices.len(), devices[0].gateway.as_deref()), (1, Some(b.id.as_str())));
}

#[tokio::test]
async fn pages_go_on_where_the_last_one_ended() {
    let (world, ..) = told().await;
    for by in ["hour,device", "device,hour", "gateway,function,day"] {
        let whole = rows(&world, by, UsageQuery::default()).await;
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let query = UsageQuery { by: Some(by.into()), limit: Some(1), cursor, ..UsageQuery::default() };
            let page = usage(&world, &query).await.unwrap();
            found.extend(page.usage);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(found, whole, "{by}");
    }
    for (by, cursor, code) in [
        ("week", None, "bad_by"),
        ("hour,day", None, "bad_by"),
        ("hour,hour", None, "bad_by"),
        ("hour", Some("zz"), "bad_cursor"),
        ("hour", Some("5b5d"), "bad_cursor"),
        ("hour", Some("5b2261225d"), "bad_cursor"),
    ] {
        let query = UsageQuery { by: Some(by.into()), cursor: cursor.map(Into::into), ..UsageQuery::default() };
        assert_eq!(usage(&world, &query).await, refused(400, code), "{by} {cursor:?}");
    }
    let unknown = UsageQuery { gateway: Some("no".into()), ..UsageQuery::default() };
    assert_eq!(usage(&world, &unknown).await, refused(404, "unknown_gateway"));
}

#[tokio::test]
async fn metrics_are_added_up_and_percentiles_are_of_the_sum() {
    let world = World::new().await;
    let (a, b) = (world.api.gateway(&[]).await, world.api.gateway(&[]).await);
    let of = |hour, counted: f64, values: std::ops::Range<u32>| Part {
        counters: BTreeMap::from([("n".to_owned(), counted), ("celsius".to_owned(), 1.0)]),
        histograms: BTreeMap::from([("celsius".to_owned(), observed(values.map(f64::from)))]),
        ..part(hour, "mean", &[])
    };
    tell(&a, 1, vec![body(vec![of(1, 0.1, 1..50)]), body(vec![of(1, 0.2, 50..80)])]).await;
    tell(&b, 1, vec![body(vec![of(30, 4_503_599_627_370_497.0, 80..101)])]).await;

    let page = metrics(&world, &MetricQuery::default()).await.unwrap();
    let [celsius, observed, n] = &page.metrics[..] else { panic!("{page:?}") };
    assert_eq!((celsius.name.as_str(), &celsius.value), ("celsius", &MetricValue::Counter(3.0)));
    assert_eq!((n.name.as_str(), &n.value), ("n", &MetricValue::Counter(0.1 + 0.2 + 4_503_599_627_370_497.0)));
    let MetricValue::Observed(values) = observed.value else { panic!("{observed:?}") };
    assert_eq!((values.count, values.sum, values.min, values.max), (100, 5_050.0, 1.0, 100.0));
    for (found, wanted) in [(values.p50, 50.0), (values.p90, 90.0), (values.p99, 99.0f64)] {
        assert!((found - wanted).abs() <= 0.0443 * wanted, "{found} for {wanted}");
    }

    let query = MetricQuery { name: Some("n".into()), by: Some("day,gateway".into()), ..MetricQuery::default() };
    let page = metrics(&world, &query).await.unwrap();
    let places: Vec<_> = page.metrics.iter().map(|row| (row.from_us, row.gateway.clone().unwrap())).collect();
    assert_eq!(places, [(Some(0), a.id.clone()), (Some(hour_begins_us(24)), b.id.clone())]);
    assert_eq!(page.metrics[0].value, MetricValue::Counter(0.1 + 0.2));

    let (mut found, mut cursor) = (Vec::<MetricRow>::new(), None);
    loop {
        let query = MetricQuery { limit: Some(1), by: Some("hour".into()), cursor, ..MetricQuery::default() };
        let page = metrics(&world, &query).await.unwrap();
        found.extend(page.metrics);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let whole = metrics(&world, &MetricQuery { by: Some("hour".into()), ..MetricQuery::default() }).await.unwrap();
    assert_eq!((found.len(), &found), (6, &whole.metrics));
    let wrong = MetricQuery { by: Some("device".into()), ..MetricQuery::default() };
    assert_eq!(metrics(&world, &wrong).await, refused(400, "bad_by"));
}

#[tokio::test]
async fn what_no_gateway_should_say_is_stored_as_a_record_and_counts_nothing() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    let many = Part { counters: (0..2_000).map(|name| (name.to_string(), 1.0)).collect(), ..part(1, "f", &[]) };
    let negative = Part { counters: BTreeMap::from([("n".to_owned(), -1.0)]), ..part(1, "f", &[]) };
    let later = br#"{"version":2,"parts":[]}"#.to_vec();
    let broken = br#"{"version":1,"parts":[{"hour":1,"function":"f","devices":{},"counters":{},"histograms":{"h":{"count":9,"sum":1.0,"min":1.0,"max":1.0,"zero":0,"positive":{"0":1},"negative":{}}}}]}"#.to_vec();
    tell(&gateway, 1, vec![b"x".to_vec(), body(vec![many]), body(vec![negative]), later, broken]).await;
    assert!(metrics(&world, &MetricQuery::default()).await.unwrap().metrics.is_empty());
    assert_eq!(world.api.gateway_state(&gateway.id).await.records.stored, 5);
    // Sums end at the highest number.
    let most = Counts { invocations: u64::MAX, ..Counts::default() };
    let run = |counts| body(vec![part(1, "f", &[("d", counts)])]);
    tell(&gateway, 6, vec![run(most), run(most), run(counts(1, 1))]).await;
    let [row] = &rows(&world, "function", UsageQuery::default()).await[..] else { panic!("one row") };
    assert!(row.invocations > 9_000_000_000_000_000_000 && row.failed == 1, "{row:?}");
}
