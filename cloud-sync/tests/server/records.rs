//! Records take effect once.

use reqwest::StatusCode;
use sync_core::api::{Class as ApiClass, RecordCounts, RecordQuery, Stats, Streams};
use sync_protocol::records::{Class, MAX_RANGE_RECORDS, StoreEpoch, range_checksum};
use sync_protocol::{MAX_BODY_BYTES, PATH_RECORDS, encode};

use crate::world::{EPOCH, Gateway, World, message, range, record, refused};

async fn counts(world: &World, gateway: &Gateway) -> RecordCounts {
    world.api.gateway_state(&gateway.id).await.records
}

/// The sequences stored, in their order.
async fn sequences(world: &World) -> Vec<u64> {
    let page = world.api.page(&RecordQuery { limit: Some(1_000), ..RecordQuery::default() }).await.unwrap();
    assert!(page.records.iter().all(|record| record.intact));
    page.records.iter().map(|record| record.sequence).collect()
}

#[tokio::test]
async fn what_is_sent_again_is_counted_and_dropped() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    assert_eq!(gateway.send(&range(1, 5, 1)).await, Ok(5));
    assert_eq!(gateway.send(&range(1, 5, 1)).await, Ok(5), "the same again");
    assert_eq!(gateway.send(&range(4, 4, 1)).await, Ok(7), "an overlap");
    assert_eq!(gateway.send(&range(2, 2, 1)).await, Ok(7), "a part of it");
    assert_eq!(sequences(&world).await, [1, 2, 3, 4, 5, 6, 7]);
    let expected = RecordCounts { stored: 7, duplicates: 5 + 2 + 2, missing: 0, conflicts: 0 };
    assert_eq!(counts(&world, &gateway).await, expected);

    let world = world.restart().await;
    let streams: Streams = world.api.get("/streams").await.unwrap();
    let streams: Vec<_> = streams.streams.into_iter().map(|stream| (stream.name, stream.records)).collect();
    assert_eq!(streams, [("even".to_owned(), 3), ("odd".to_owned(), 4)]);
    let stats: Stats = world.api.get("/stats").await.unwrap();
    assert_eq!((stats.gateways, stats.online, stats.records), (1, 1, expected));
}

#[tokio::test]
async fn requests_at_once_store_each_record_once() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    let (a, b, c) = (range(1, 20, 1), range(1, 20, 1), range(1, 10, 1));
    let (a, b, c) = tokio::join!(gateway.send(&a), gateway.send(&b), gateway.send(&c));
    assert_eq!(a.unwrap().max(b.unwrap()).max(c.unwrap()), 20);
    assert_eq!(sequences(&world).await, (1..=20).collect::<Vec<_>>());
    assert_eq!(counts(&world, &gateway).await.duplicates, 30);
}

#[tokio::test]
async fn a_gap_is_waited_for_until_the_gateway_says_that_it_is_lost() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    assert_eq!(gateway.send(&range(1, 2, 1)).await, Ok(2));
    assert_eq!(gateway.send(&range(6, 2, 3)).await, Ok(2), "3 to 5 exist: nothing is stored, send from 3");
    assert_eq!(sequences(&world).await, [1, 2]);
    assert_eq!(gateway.send(&range(6, 2, 6)).await, Ok(7), "3 to 5 are lost");
    assert_eq!(counts(&world, &gateway).await, RecordCounts { stored: 4, duplicates: 0, missing: 3, conflicts: 0 });
    let ranges = world.api.gateway_state(&gateway.id).await.missing_ranges;
    assert_eq!((ranges.len(), ranges[0].first, ranges[0].last), (1, 3, 5));
    assert_eq!((ranges[0].epoch.as_str(), ranges[0].class), ("fedcba9876543210", ApiClass::Normal));

    // An older request that was overtaken brings one of them after all.
    assert_eq!(gateway.send(&range(4, 1, 1)).await, Ok(7));
    assert_eq!(sequences(&world).await, [1, 2, 6, 7, 4]);
    assert_eq!(counts(&world, &gateway).await, RecordCounts { stored: 5, duplicates: 0, missing: 2, conflicts: 0 });
    let ranges = world.api.gateway_state(&gateway.id).await.missing_ranges;
    let ranges: Vec<_> = ranges.iter().map(|range| (range.first, range.last)).collect();
    assert_eq!(ranges, [(3, 3), (5, 5)]);
}

#[tokio::test]
async fn another_content_under_the_same_key_is_refused_and_counted() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    gateway.send(&range(1, 3, 1)).await.unwrap();
    let mut changed = range(2, 4, 1);
    changed.records[1] = record(3, "b");
    changed.checksum = range_checksum(&changed.records);
    assert_eq!(gateway.send(&changed).await, refused(409, "content_mismatch"));
    assert_eq!(counts(&world, &gateway).await, RecordCounts { stored: 3, duplicates: 0, missing: 0, conflicts: 1 });
    assert_eq!(sequences(&world).await, [1, 2, 3], "nothing of the range is taken");
    assert_eq!(gateway.send(&range(2, 4, 1)).await, Ok(5), "the right content still is");
}

#[tokio::test]
async fn a_mark_belongs_to_gateway_epoch_and_class() {
    let world = World::new().await;
    let (one, two) = (world.api.gateway(&[]).await, world.api.gateway(&[]).await);
    assert_eq!(one.send(&range(1, 3, 1)).await, Ok(3));
    assert_eq!(two.send(&range(1, 2, 1)).await, Ok(2), "another gateway with the same epoch");
    let mut urgent = range(1, 1, 1);
    urgent.class = Class::High;
    assert_eq!(one.send(&urgent).await, Ok(1));
    let mut later = range(1, 1, 1);
    later.epoch = StoreEpoch(EPOCH.0 + 1);
    assert_eq!(one.send(&later).await, Ok(1));
    assert_eq!(one.send(&range(4, 1, 1)).await, Ok(4));
    assert_eq!(counts(&world, &one).await.stored, 6);
    assert_eq!(counts(&world, &two).await.stored, 2);
    let of_two = RecordQuery { gateway: Some(two.id.clone()), ..RecordQuery::default() };
    assert_eq!(world.api.page(&of_two).await.unwrap().records.len(), 2);
}

#[tokio::test]
async fn bad_ranges_are_refused_by_name_and_leave_nothing() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    let mut wrong = range(1, 2, 1);
    wrong.checksum ^= 1;
    assert_eq!(gateway.send(&wrong).await, refused(400, "hash_mismatch"));
    let mut empty = range(1, 1, 1);
    empty.records.clear();
    empty.checksum = range_checksum(&[]);
    assert_eq!(gateway.send(&empty).await, refused(400, "bad_range"));
    let mut zero = range(1, 1, 1);
    zero.first = 0;
    assert_eq!(gateway.send(&zero).await, refused(400, "bad_range"));
    let mut high = range(1, 2, 1);
    high.first = u64::MAX;
    assert_eq!(gateway.send(&high).await, refused(400, "bad_range"));
    let many = range(1, MAX_RANGE_RECORDS as u64 + 1, 1);
    assert_eq!(gateway.send(&many).await, refused(400, "too_many_records"));

    let post = |bytes: Vec<u8>| message::<()>(gateway.post(PATH_RECORDS, bytes));
    assert_eq!(post(vec![]).await, refused(400, "malformed"));
    assert_eq!(post(vec![1, 0xff, 0xff, 0xff]).await, refused(400, "malformed"));
    let mut old = encode(&range(1, 1, 1));
    old[0] = 0;
    assert_eq!(post(old).await, refused(400, "protocol_version"));
    assert_eq!(post(vec![1; MAX_BODY_BYTES + 1]).await, refused(413, "too_large"));

    assert_eq!(sequences(&world).await, Vec::<u64>::new());
    assert_eq!(counts(&world, &gateway).await, RecordCounts::default());
    assert_eq!(gateway.send(&range(1, 2, 1)).await, Ok(2), "and the gateway goes on");
}

#[tokio::test]
async fn the_largest_range_is_taken() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    let most = MAX_RANGE_RECORDS as u64;
    assert_eq!(gateway.send(&range(1, most, 1)).await, Ok(most));
}

#[tokio::test]
async fn a_path_or_method_that_does_not_exist_is_refused_in_the_protocol_s_own_form() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    let unknown = message::<()>(gateway.post("/gateway/v9/records", vec![])).await;
    assert_eq!(unknown, refused(404, "unknown_path"));
    let artifact = gateway.post(&format!("{}/sha256:00", sync_protocol::PATH_ARTIFACTS), vec![]);
    assert_eq!(message::<()>(artifact).await, refused(405, "wrong_method"));
    let health = crate::world::client().get(format!("{}/healthz", world.api.base)).send().await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);
}
