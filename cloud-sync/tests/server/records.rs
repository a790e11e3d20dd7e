//! Records take effect once.

use reqwest::StatusCode;
use sync_core::api::{RecordCounts, RecordQuery, Stats, Streams};
use sync_protocol::records::{self, Class, Entry, MAX_ENTRIES, MAX_TALLY, Range, Reason, Request, StoreEpoch, Tally};
use sync_protocol::{MAX_BODY_BYTES, PATH_RECORDS, encode};

use crate::world::Piece::{Gone, Records};
use crate::world::{EPOCH, Gateway, World, changed, message, pieces, range, record, refused, request};

pub(crate) async fn counts(world: &World, gateway: &Gateway) -> RecordCounts {
    world.api.gateway_state(&gateway.id).await.records
}

/// The sequences stored, in the order in which they came.
pub(crate) async fn sequences(world: &World) -> Vec<u64> {
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
    let expected = RecordCounts { stored: 7, duplicates: 5 + 2 + 2, ..RecordCounts::default() };
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
async fn ranges_come_in_any_order_and_the_mark_catches_up() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    assert_eq!(gateway.send(&range(1, 2, 1)).await, Ok(2));
    let islands = request(3, vec![pieces(20, &[Records(2)]), pieces(30, &[Records(1)])]);
    assert_eq!(gateway.send(&islands).await, Ok(2), "3 to 19 exist and may still come");
    assert_eq!(gateway.send(&islands).await, Ok(2), "the same again");
    assert_eq!(gateway.send(&range(10, 10, 3)).await, Ok(2), "it grows downward");
    assert_eq!(sequences(&world).await, [1, 2, 20, 21, 30].into_iter().chain(10..=19).collect::<Vec<_>>());
    assert_eq!(counts(&world, &gateway).await.missing, 0);

    // What is known above the mark is known after a restart too.
    let world = world.restart().await;
    let gateway = gateway.at(world.server.address());
    assert_eq!(gateway.send(&islands).await, Ok(2));
    let both = request(3, vec![pieces(3, &[Records(7)]), pieces(22, &[Records(8)])]);
    assert_eq!(gateway.send(&both).await, Ok(30), "all gaps are filled");
    let mut stored = sequences(&world).await;
    stored.sort_unstable();
    assert_eq!(stored, (1..=30).collect::<Vec<_>>());
    let expected = RecordCounts { stored: 30, duplicates: 6, ..RecordCounts::default() };
    assert_eq!(counts(&world, &gateway).await, expected);
}

#[tokio::test]
async fn another_content_under_the_same_key_is_refused_and_counted() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    gateway.send(&range(1, 3, 1)).await.unwrap();
    let other = |sequence: u64, of: &mut records::Record| {
        if sequence == 3 {
            *of = record(3, "b");
        }
    };
    let wrong = changed(range(2, 4, 1), other);
    assert_eq!(gateway.send(&wrong).await, refused(409, "content_mismatch"));
    let expected = RecordCounts { stored: 3, conflicts: 1, ..RecordCounts::default() };
    assert_eq!(counts(&world, &gateway).await, expected);
    let told = pieces(10, &[Gone(&[("odd", Reason::Oldest, 3)]), Records(2)]);
    let with_more = request(9, [wrong.ranges, vec![told]].concat());
    assert_eq!(gateway.send(&with_more).await, refused(409, "content_mismatch"));
    assert_eq!(sequences(&world).await, [1, 2, 3], "nothing of the request is taken");
    let expected = RecordCounts { conflicts: 2, ..expected };
    assert_eq!(counts(&world, &gateway).await, expected, "nor is anything told");
    assert_eq!(gateway.send(&range(2, 4, 1)).await, Ok(5), "the right content still is");
}

#[tokio::test]
async fn a_mark_belongs_to_gateway_epoch_and_class() {
    let world = World::new().await;
    let (one, two) = (world.api.gateway(&[]).await, world.api.gateway(&[]).await);
    assert_eq!(one.send(&range(1, 3, 1)).await, Ok(3));
    assert_eq!(two.send(&range(1, 2, 1)).await, Ok(2), "another gateway with the same epoch");
    let of = |epoch: StoreEpoch, class: Class| Request::new(epoch, class, 1, range(1, 1, 1).ranges);
    assert_eq!(one.send(&of(EPOCH, Class::High)).await, Ok(1));
    assert_eq!(one.send(&of(StoreEpoch(EPOCH.0 + 1), Class::Normal)).await, Ok(1));
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
    // A flipped bit anywhere is seen.
    let good =
        request(2, vec![pieces(3, &[Records(1), Gone(&[("odd", Reason::Oldest, 3)])]), pieces(9, &[Records(1)])]);
    let flips: [fn(&mut Request); 6] = [
        |request| request.epoch.0 ^= 1,
        |request| request.class = Class::High,
        |request| request.floor ^= 1,
        |request| request.ranges[1].first ^= 2,
        |request| request.ranges[0].entries.truncate(1),
        |request| request.ranges[0].entries[1] = pieces(4, &[Gone(&[("odd", Reason::Lowest, 3)])]).entries[0].clone(),
    ];
    for (which, flip) in flips.into_iter().enumerate() {
        let mut flipped = good.clone();
        flip(&mut flipped);
        assert_eq!(gateway.send(&flipped).await, refused(400, "hash_mismatch"), "flip {which}");
    }

    let tally_of = |count: usize| {
        let tally = (0..count).map(|n| Tally { stream: n.to_string(), reason: Reason::Thinned, count: 1 });
        let entries = vec![Entry::Gone(records::Gone { tally: tally.collect() })];
        request(1, vec![Range { first: 1, entries }])
    };
    for bad in [
        request(1, vec![]),
        request(1, vec![Range { first: 1, entries: vec![] }]),
        request(1, vec![pieces(0, &[Records(1)])]),
        request(1, vec![Range { first: u64::MAX, ..pieces(1, &[Records(2)]) }]),
        request(1, vec![pieces(1, &[Records(2)]), pieces(2, &[Records(1)])]),
        request(1, vec![pieces(5, &[Records(1)]), pieces(2, &[Records(1)])]),
        request(1, vec![pieces(1, &[Records(4_000)]), pieces(5_000, &[Records(97)])]),
        request(1, vec![pieces(1, &[Gone(&[])])]),
        request(1, vec![pieces(1, &[Gone(&[("odd", Reason::Oldest, 0)])])]),
        request(1, vec![pieces(1, &[Gone(&[("odd", Reason::Oldest, 1), ("odd", Reason::Oldest, 1)])])]),
        request(1, vec![pieces(1, &[Gone(&[("odd", Reason::Oldest, u64::MAX - 1)])])]),
        tally_of(MAX_TALLY + 1),
    ] {
        assert_eq!(gateway.send(&bad).await, refused(400, "bad_range"), "{bad:?}");
    }

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
    assert_eq!(gateway.send(&tally_of(MAX_TALLY)).await, Ok(MAX_TALLY as u64), "the longest tally");
}

#[tokio::test]
async fn the_largest_request_is_taken() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    let most = MAX_ENTRIES as u64;
    assert_eq!(gateway.send(&range(1, most, 1)).await, Ok(most));
    // Each entry a range of its own: every other sequence.
    let alternating =
        |offset: u64| request(1, (0..most).map(|n| pieces(most + 2 * n + offset, &[Records(1)])).collect());
    assert_eq!(gateway.send(&alternating(2)).await, Ok(most));
    assert_eq!(gateway.send(&alternating(1)).await, Ok(3 * most));
    assert_eq!(counts(&world, &gateway).await.stored, 3 * most);
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
