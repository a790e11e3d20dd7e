//! Sequences without a record: missing, or told as gone.

use std::collections::BTreeMap;

use sync_core::api::{Class as ApiClass, Gap, GapKind, GapQuery, Reason as ApiReason, RecordCounts, StreamCounts};
use sync_protocol::fleet;
use sync_protocol::records::{Class, Reason, Request, StoreEpoch};

use crate::records::{counts, sequences};
use crate::world::Piece::{Gone, Records};
use crate::world::{EPOCH, Gateway, World, gone, pieces, range, refused, request};

async fn gaps(world: &World, gateway: &Gateway) -> Vec<Gap> {
    let page = world.api.gaps_of(&gateway.id, &GapQuery::default()).await.unwrap();
    assert_eq!(page.next, None);
    page.gaps
}

/// First, last and what is told of them: stream, reason and count.
type Told<'a> = (u64, u64, Vec<(&'a str, ApiReason, u64)>);

/// The gaps, without what is the same in all.
fn told(gaps: &[Gap]) -> Vec<Told<'_>> {
    assert!(gaps.iter().all(|gap| (gap.kind == GapKind::Gone) == gap.told_us.is_some()));
    let mut all = Vec::new();
    for gap in gaps {
        let tally = gap.tally.iter().map(|one| (one.stream.as_str(), one.reason, one.count)).collect();
        all.push((gap.first, gap.last, tally));
    }
    all
}

fn stream(name: &str, delivered: u64, dropped: &[(ApiReason, u64)], missing: u64) -> StreamCounts {
    let dropped = dropped.iter().copied().collect();
    StreamCounts { name: name.to_owned(), delivered, dropped, missing, ..StreamCounts::default() }
}

#[tokio::test]
async fn what_lies_below_the_floor_is_missing_until_it_comes_after_all() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    assert_eq!(gateway.send(&range(1, 2, 1)).await, Ok(2));
    assert_eq!(gateway.send(&range(6, 2, 3)).await, Ok(2), "3 to 5 exist: they are waited for");
    assert_eq!(sequences(&world).await, [1, 2, 6, 7]);
    assert_eq!((counts(&world, &gateway).await.missing, gaps(&world, &gateway).await.len()), (0, 0));
    assert_eq!(gateway.send(&range(8, 1, 6)).await, Ok(8), "3 to 5 are lost");
    let expected = RecordCounts { stored: 5, missing: 3, ..RecordCounts::default() };
    assert_eq!(counts(&world, &gateway).await, expected);
    let found = gaps(&world, &gateway).await;
    assert_eq!(told(&found), [(3, 5, vec![])]);
    assert_eq!((found[0].epoch.as_str(), found[0].class), ("fedcba9876543210", ApiClass::Normal));
    assert_eq!((found[0].kind, found[0].told_us), (GapKind::Missing, None));
    let named = [stream("", 0, &[], 3), stream("even", 3, &[], 0), stream("odd", 2, &[], 0)];
    assert_eq!(world.api.streams_of(&gateway.id).await, named, "nobody knows whose they were");

    // A floor above what is offered says no more than that nothing is below it.
    assert_eq!(gateway.send(&range(10, 1, 1_000)).await, Ok(10));
    assert_eq!(counts(&world, &gateway).await.missing, 4);

    // An older request that was overtaken brings one of them after all.
    assert_eq!(gateway.send(&range(4, 1, 1)).await, Ok(10));
    assert_eq!(sequences(&world).await, [1, 2, 6, 7, 8, 10, 4]);
    let expected = RecordCounts { stored: 7, missing: 3, ..RecordCounts::default() };
    assert_eq!(counts(&world, &gateway).await, expected);
    assert_eq!(told(&gaps(&world, &gateway).await), [(3, 3, vec![]), (5, 5, vec![]), (9, 9, vec![])]);

    // And another says why one is not there.
    assert_eq!(gateway.send(&gone(5, &[("odd", Reason::Oldest, 1)])).await, Ok(10));
    let expected = RecordCounts { stored: 7, missing: 2, dropped: 1, ..RecordCounts::default() };
    assert_eq!(counts(&world, &gateway).await, expected);

    let world = world.restart().await;
    assert_eq!(counts(&world, &gateway).await, expected, "counts survive a restart");
    let oldest = (5, 5, vec![("odd", ApiReason::Oldest, 1)]);
    assert_eq!(told(&gaps(&world, &gateway).await), [(3, 3, vec![]), oldest, (9, 9, vec![])]);
    let named = [stream("", 0, &[], 2), stream("even", 5, &[], 0), stream("odd", 2, &[(ApiReason::Oldest, 1)], 0)];
    assert_eq!(world.api.streams_of(&gateway.id).await, named);
}

#[tokio::test]
async fn what_is_gone_is_told_with_its_reasons_and_counted_once() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    let first = request(
        1,
        vec![
            pieces(1, &[Records(2), Gone(&[("odd", Reason::Oldest, 2), ("even", Reason::Expired, 1)]), Records(1)]),
            pieces(10, &[Gone(&[("even", Reason::Thinned, 1)])]),
        ],
    );
    assert_eq!(gateway.send(&first).await, Ok(6));
    let before = gaps(&world, &gateway).await;
    let run = (3, 5, vec![("odd", ApiReason::Oldest, 2), ("even", ApiReason::Expired, 1)]);
    assert_eq!(told(&before), [run.clone(), (10, 10, vec![("even", ApiReason::Thinned, 1)])]);
    assert!(before[0].told_us.unwrap() > 1_700_000_000_000_000);

    assert_eq!(gateway.send(&first).await, Ok(6), "the same again");
    let expected = RecordCounts { stored: 3, duplicates: 3, dropped: 4, ..RecordCounts::default() };
    assert_eq!(counts(&world, &gateway).await, expected);
    assert_eq!(gaps(&world, &gateway).await, before, "with the time at which it was told first");

    // It grew on both sides before the answer had come: over what was open, and over another run.
    let grown = gone(7, &[("even", Reason::Thinned, 2), ("odd", Reason::Lowest, 3)]);
    assert_eq!(gateway.send(&grown).await, Ok(11));
    let after = gaps(&world, &gateway).await;
    let grown = (7, 11, vec![("even", ApiReason::Thinned, 2), ("odd", ApiReason::Lowest, 3)]);
    assert_eq!(told(&after), [run, grown]);
    let expected = RecordCounts { dropped: 3 + 5, ..expected };
    assert_eq!(counts(&world, &gateway).await, expected);

    let world = world.restart().await;
    let gateway = gateway.at(world.server.address());
    assert_eq!(counts(&world, &gateway).await, expected);
    assert_eq!(gaps(&world, &gateway).await, after);
    let sums = world.api.gateway_state(&gateway.id).await.gone;
    let sums: Vec<_> = sums.iter().map(|sum| (&*sum.stream, sum.reason, sum.count)).collect();
    let largest_first = [
        ("odd", ApiReason::Lowest, 3),
        ("even", ApiReason::Thinned, 2),
        ("odd", ApiReason::Oldest, 2),
        ("even", ApiReason::Expired, 1),
    ];
    assert_eq!(sums, largest_first);
    let even = [(ApiReason::Expired, 1), (ApiReason::Thinned, 2)];
    let odd = [(ApiReason::Oldest, 2), (ApiReason::Lowest, 3)];
    assert_eq!(world.api.streams_of(&gateway.id).await, [stream("even", 2, &even, 0), stream("odd", 1, &odd, 0)]);
    assert_eq!(gateway.send(&range(12, 1, 12)).await, Ok(12), "nothing of it is missing");
    assert_eq!(counts(&world, &gateway).await.missing, 0);
}

#[tokio::test]
async fn a_run_that_cuts_a_known_one_is_refused_and_counted() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    gateway.send(&gone(5, &[("odd", Reason::Oldest, 6)])).await.unwrap();
    let before = gaps(&world, &gateway).await;
    assert_eq!(told(&before), [(5, 10, vec![("odd", ApiReason::Oldest, 6)])]);
    for first in [3, 8] {
        let cut = pieces(first, &[Gone(&[("odd", Reason::Oldest, 4)])]);
        let request = request(1, vec![pieces(1, &[Records(1)]), cut]);
        assert_eq!(gateway.send(&request).await, refused(409, "gone_conflict"), "from {first}");
    }
    let expected = RecordCounts { dropped: 6, conflicts: 2, ..RecordCounts::default() };
    assert_eq!(counts(&world, &gateway).await, expected, "nothing of the requests is taken");
    assert_eq!(sequences(&world).await, Vec::<u64>::new());

    // One that lies in it is from before it grew, from a request that was overtaken.
    for first in [5, 6, 7] {
        let older = pieces(first, &[Gone(&[("odd", Reason::Oldest, 4)])]);
        assert_eq!(gateway.send(&request(1, vec![pieces(1, &[Records(1)]), older])).await, Ok(1), "from {first}");
    }
    let expected = RecordCounts { stored: 1, duplicates: 2, ..expected };
    assert_eq!((counts(&world, &gateway).await, gaps(&world, &gateway).await), (expected, before));
}

#[tokio::test]
async fn a_record_that_was_told_gone_is_not_stored_and_one_that_is_stored_is_not_gone() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    assert_eq!(gateway.send(&gone(1, &[("odd", Reason::Oldest, 2)])).await, Ok(2));
    // What was overtaken brings one that was told gone, and one more.
    assert_eq!(gateway.send(&range(2, 2, 1)).await, Ok(3));
    assert_eq!(sequences(&world).await, [3]);
    let expected = RecordCounts { stored: 1, duplicates: 1, dropped: 2, ..RecordCounts::default() };
    assert_eq!(counts(&world, &gateway).await, expected);

    // The answer to a request got lost, and what it had brought was given up.
    assert_eq!(gateway.send(&range(5, 2, 1)).await, Ok(3));
    let overtaken = gone(4, &[("even", Reason::Expired, 3), ("odd", Reason::Expired, 2)]);
    assert_eq!(gateway.send(&overtaken).await, Ok(8));
    assert_eq!(sequences(&world).await, [3, 5, 6]);
    let expected = RecordCounts { stored: 3, dropped: 2 + 3, ..expected };
    assert_eq!(counts(&world, &gateway).await, expected, "each is counted as one thing");
    let found = gaps(&world, &gateway).await;
    let pieces = [
        (1, 2, vec![("odd", ApiReason::Oldest, 2)]),
        (4, 4, vec![("even", ApiReason::Expired, 2), ("odd", ApiReason::Expired, 1)]),
        (7, 8, vec![]),
    ];
    assert_eq!(told(&found), pieces, "the first piece of a run has the tally of all");
    assert_eq!(gateway.send(&overtaken).await, Ok(8));
    assert_eq!((counts(&world, &gateway).await, gaps(&world, &gateway).await), (expected, found), "the same again");
    let streams = [
        stream("even", 1, &[(ApiReason::Expired, 2)], 0),
        stream("odd", 2, &[(ApiReason::Oldest, 2), (ApiReason::Expired, 1)], 0),
    ];
    assert_eq!(world.api.streams_of(&gateway.id).await, streams);
    assert_eq!(streams.iter().map(StreamCounts::all).sum::<u64>(), 8, "every sequence is in the account");
}

#[tokio::test]
async fn what_a_disk_lost_is_missing_and_not_dropped() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    let told = &[("", Reason::Damaged, 3), ("odd", Reason::Damaged, 2), ("odd", Reason::Refused, 4)];
    assert_eq!(gateway.send(&gone(1, told)).await, Ok(9));
    let expected = RecordCounts { missing: 5, dropped: 4, ..RecordCounts::default() };
    assert_eq!(counts(&world, &gateway).await, expected);
    assert_eq!(gateway.send(&range(12, 1, 12)).await, Ok(12), "10 and 11 are gone without a word");
    let expected = RecordCounts { stored: 1, missing: 7, ..expected };
    assert_eq!(counts(&world, &gateway).await, expected);
    let odd = [(ApiReason::Refused, 4)];
    let streams = [stream("", 0, &[], 5), stream("even", 1, &[], 0), stream("odd", 0, &odd, 2)];
    assert_eq!(world.api.streams_of(&gateway.id).await, streams);
    let stats: sync_core::api::Stats = world.api.get("/stats").await.unwrap();
    assert_eq!(stats.records, expected);
}

#[tokio::test]
async fn every_record_of_a_stream_is_delivered_waiting_dropped_or_missing() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    let sent = request(1, vec![pieces(1, &[Records(10), Gone(&[("even", Reason::Oldest, 3)])])]);
    gateway.send(&sent).await.unwrap();
    let waits = |name: &str, waiting| fleet::StreamReport { name: name.to_owned(), waiting, bytes: 100 * waiting };
    let report = fleet::Report {
        agent_version: "0.2.0".to_owned(),
        generation: 0,
        uptime_s: 1,
        epoch: EPOCH,
        waiting: 7,
        streams: vec![waits("new", 5), waits("even", 2)],
        handled: 0,
        dead_letters: 0,
        functions: vec![],
    };
    gateway.sync(&fleet::Request { generation: 0, wait_s: 0, commands_done: 0, report: Some(report) }).await.unwrap();
    let streams = world.api.streams_of(&gateway.id).await;
    let dropped = BTreeMap::from([(ApiReason::Oldest, 3)]);
    let name = str::to_owned;
    let expected = [
        StreamCounts { name: name("even"), delivered: 5, waiting: 2, waiting_bytes: 200, dropped, missing: 0 },
        StreamCounts { name: name("new"), waiting: 5, waiting_bytes: 500, ..StreamCounts::default() },
        stream("odd", 5, &[], 0),
    ];
    assert_eq!(streams, expected);
    assert_eq!(streams.iter().map(StreamCounts::all).collect::<Vec<_>>(), [10, 5, 5]);
}

#[tokio::test]
async fn pages_lead_through_all_gaps_once() {
    let world = World::new().await;
    let (gateway, other) = (world.api.gateway(&[]).await, world.api.gateway(&[]).await);
    // Of two epochs and two classes, missing and gone in turns; the number of the second epoch has its highest bit set.
    let epochs = [StoreEpoch(7), EPOCH];
    for (epoch, class) in epochs.into_iter().flat_map(|epoch| Class::ALL.map(|class| (epoch, class))) {
        let ranges = vec![
            pieces(2, &[Records(1), Gone(&[("odd", Reason::Oldest, 2)]), Records(1)]),
            pieces(9, &[Gone(&[("even", Reason::Lowest, 1)])]),
        ];
        assert_eq!(gateway.send(&Request::new(epoch, class, 2, ranges)).await, Ok(5));
        assert_eq!(gateway.send(&Request::new(epoch, class, 8, range(10, 1, 1).ranges)).await, Ok(7), "8 may come");
        assert_eq!(gateway.send(&Request::new(epoch, class, 9, range(11, 1, 1).ranges)).await, Ok(11));
    }
    other.send(&gone(1, &[("odd", Reason::Oldest, 1)])).await.unwrap();
    assert_eq!(counts(&world, &gateway).await.dropped, 4 * 3);

    let all = gaps(&world, &gateway).await;
    let spans: Vec<_> = all.iter().map(|gap| (gap.first, gap.last, gap.kind)).collect();
    let (missing, gone) = (GapKind::Missing, GapKind::Gone);
    let of_one = [(1, 1, missing), (3, 4, gone), (6, 8, missing), (9, 9, gone)];
    assert_eq!(spans, of_one.repeat(4));
    let places: Vec<_> = all.chunks(4).map(|of_one| (of_one[0].epoch.as_str(), of_one[0].class)).collect();
    let (first, second) = ("fedcba9876543210", "0000000000000007");
    let (normal, high) = (ApiClass::Normal, ApiClass::High);
    assert_eq!(places, [(first, normal), (first, high), (second, normal), (second, high)]);

    for limit in [1, 3, 16, 17] {
        let (mut query, mut walked) = (GapQuery { limit: Some(limit), cursor: None }, Vec::new());
        loop {
            let page = world.api.gaps_of(&gateway.id, &query).await.unwrap();
            assert!(page.gaps.len() <= limit as usize);
            walked.extend(page.gaps);
            match page.next {
                Some(next) => query.cursor = Some(next),
                None => break,
            }
        }
        assert_eq!(walked, all, "{limit} a page");
    }

    for (limit, cursor, code) in [(0, None, "bad_limit"), (1_001, None, "bad_limit"), (1, Some("zz"), "bad_cursor")] {
        let query = GapQuery { limit: Some(limit), cursor: cursor.map(str::to_owned) };
        assert_eq!(world.api.gaps_of(&gateway.id, &query).await, refused(400, code));
    }
    let path = format!("/gateways/{}/gaps?kind=gone", gateway.id);
    assert_eq!(world.api.get::<serde_json::Value>(&path).await, refused(400, "bad_query"));
}
