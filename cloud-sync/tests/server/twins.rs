//! Twins: of each property of a device the latest report counts, in whatever order the reports come.

use reqwest::Method;
use sync_core::api::{Payload, TwinQuery, Twins};
use sync_protocol::records::{Class, Entry, Origin, Range, Record, Request, Stamp, StoreEpoch};
use sync_protocol::twin::{Report, STREAM};

use crate::world::{EPOCH, Gateway, Refused, World, json, refused};

fn report(device: &str, property: &str, value: &str, wall_us: u64) -> Entry {
    let report = Report { property: property.to_owned(), value: Payload::Text(value.to_owned()) };
    record(device, serde_json::to_vec(&report).unwrap(), wall_us)
}

fn record(device: &str, body: Vec<u8>, wall_us: u64) -> Entry {
    Entry::Record(Record {
        stream: STREAM.into(),
        function: "mean".into(),
        origin: Origin { device: device.into(), topic: "a/b".into(), identity: None },
        stamp: Stamp { wall_us, monotonic_us: 0, boot: 0, synchronised: true },
        body,
    })
}

async fn tell(gateway: &Gateway, epoch: StoreEpoch, first: u64, entries: Vec<Entry>) {
    let request = Request::new(epoch, Class::Normal, 1, vec![Range { first, entries }]);
    let mark = gateway.send(&request).await.unwrap();
    assert_eq!(gateway.send(&request).await, Ok(mark), "what comes again changes nothing");
}

async fn page(world: &World, id: &str, query: &TwinQuery) -> Result<Twins, Refused> {
    json(world.api.request(Method::GET, &format!("/gateways/{id}/twins")).query(query)).await
}

async fn values(world: &World, id: &str) -> Vec<(String, String, String)> {
    let page = page(world, id, &TwinQuery::default()).await.unwrap();
    let value = |value: Payload| match value {
        Payload::Text(text) => text,
        Payload::Hex(hex) => hex,
    };
    page.properties.into_iter().map(|of| (of.device, of.property, value(of.value))).collect()
}

fn rows(rows: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    let own = |text: &&str| (*text).to_owned();
    rows.iter().map(|(device, property, value)| (own(device), own(property), own(value))).collect()
}

#[tokio::test]
async fn the_latest_report_counts_whatever_the_clock_and_the_order_say() {
    let world = World::new().await;
    let (a, b) = (world.api.gateway(&[]).await, world.api.gateway(&[]).await);
    // As a number with a sign, the older one is the greater.
    let (old, new) = (StoreEpoch(5), StoreEpoch(EPOCH.0 + 1));
    // The gateway's clock goes back, and the later sequences come first.
    tell(&a, EPOCH, 3, vec![report("d1", "battery", "third", 5), report("d2", "battery", "other", 5)]).await;
    tell(&a, EPOCH, 1, vec![report("d1", "battery", "first", 9), report("d1", "net.ip", "1", 9)]).await;
    tell(&b, EPOCH, 1, vec![report("d1", "battery", "of b", 5)]).await;
    assert_eq!(
        values(&world, &a.id).await,
        rows(&[("d1", "battery", "third"), ("d1", "net.ip", "1"), ("d2", "battery", "other")])
    );
    // A store that was recovered has a higher epoch, and begins to count anew; what an older one left comes too late.
    tell(&a, new, 1, vec![report("d1", "battery", "recovered", 1)]).await;
    tell(&a, EPOCH, 5, vec![report("d1", "battery", "late", 10)]).await;
    tell(&a, old, 1, vec![report("d1", "battery", "older", 11)]).await;
    // What nobody can read is a record, and nothing more.
    tell(&a, new, 2, vec![record("d1", b"{\"property\":1}".to_vec(), 12)]).await;

    let world = world.restart().await;
    assert_eq!(values(&world, &a.id).await[0], rows(&[("d1", "battery", "recovered")])[0]);
    assert_eq!(values(&world, &b.id).await, rows(&[("d1", "battery", "of b")]));

    let query = TwinQuery { limit: Some(2), ..TwinQuery::default() };
    let first = page(&world, &a.id, &query).await.unwrap();
    let rest = page(&world, &a.id, &TwinQuery { cursor: first.next.clone(), ..query }).await.unwrap();
    assert_eq!((first.properties.len(), rest.properties.len(), rest.next), (2, 1, None));
    let of_d1 = TwinQuery { device: Some("d1".to_owned()), limit: Some(1), ..TwinQuery::default() };
    let first = page(&world, &a.id, &of_d1).await.unwrap();
    let property = &first.properties[0];
    assert_eq!((&*property.function, property.sequence, property.wall_us), ("mean", 1, 1));
    assert_eq!(property.epoch, format!("{:016x}", new.0));
    let rest = page(&world, &a.id, &TwinQuery { cursor: first.next, ..of_d1 }).await.unwrap();
    assert_eq!((&*rest.properties[0].property, rest.next), ("net.ip", None));
    assert_eq!(page(&world, "gw-no", &TwinQuery::default()).await, refused(404, "unknown_gateway"));
    let bad = TwinQuery { cursor: Some("x".to_owned()), ..TwinQuery::default() };
    assert_eq!(page(&world, &a.id, &bad).await, refused(400, "bad_cursor"));
}
