//! Dead letters: listed from what gateways tell, and dealt with by commands that are delivered until they are done.

use reqwest::Method;
use serde_json::json;
use sync_core::api::{Action, DeadCommanded, DeadLetterDetail, DeadLetters, DeadQuery, Payload, Resolved};
use sync_protocol::dead::{Command, INLET, Letter, LetterEvent, MAX_LETTERS, Note, STREAM, What};
use sync_protocol::fleet;
use sync_protocol::records::{Class, Entry, Origin, Range, Record, Request, Stamp, StoreEpoch};

use crate::world::{EPOCH, Gateway, Refused, World, json, refused, wait_for};

const OLD: StoreEpoch = StoreEpoch(5);

fn dead(epoch: StoreEpoch, letter: u64, function: &str) -> Note {
    let dead = Letter {
        function: function.into(),
        version: "1.0.0".into(),
        digest: "05".repeat(32),
        kind: "trapped".into(),
        reason: "r".repeat(5_000),
        detail: "unreachable".into(),
        run: None,
        event: LetterEvent {
            kind: "mqtt".into(),
            device: "pump-7".into(),
            topic: "a/b".into(),
            identity: None,
            time_us: 1,
            attributes: vec![("a".into(), "b".into())],
            payload: Payload::Text("21.5".into()),
            payload_bytes: 4,
            cut: false,
        },
    };
    Note::new(epoch, letter, What::Dead(Box::new(dead)))
}

fn end(epoch: StoreEpoch, letter: u64, resolved: Resolved) -> Note {
    Note::new(epoch, letter, What::Resolved(resolved))
}

/// Delivers notes as the gateway's next records, and one that nobody can read.
async fn tell(gateway: &Gateway, first: u64, notes: &[Note]) {
    let bodies = notes.iter().map(|note| serde_json::to_vec(note).unwrap()).chain([b"{\"letter\":1}".to_vec()]);
    let entries = bodies.map(|body| {
        Entry::Record(Record {
            stream: STREAM.into(),
            function: "mean".into(),
            origin: Origin { device: "pump-7".into(), topic: "a/b".into(), identity: None },
            stamp: Stamp { wall_us: 77, monotonic_us: 0, boot: 0, synchronised: true },
            body,
        })
    });
    let range = Range { first, entries: entries.collect() };
    let request = Request::new(EPOCH, Class::High, 1, vec![range]);
    let last = gateway.send(&request).await.unwrap();
    assert_eq!(gateway.send(&request).await, Ok(last), "what comes again changes nothing");
}

async fn page(world: &World, query: &DeadQuery) -> Result<DeadLetters, Refused> {
    json(world.api.request(Method::GET, "/dead").query(query)).await
}

async fn listed(world: &World, query: DeadQuery) -> Vec<(String, u64)> {
    let page = page(world, &query).await.unwrap();
    page.letters.into_iter().map(|letter| (letter.epoch, letter.letter)).collect()
}

async fn numbers(world: &World) -> Vec<u64> {
    listed(world, DeadQuery::default()).await.into_iter().map(|(_, letter)| letter).collect()
}

async fn command(world: &World, id: &str, body: serde_json::Value) -> Result<DeadCommanded, Refused> {
    world.api.post(&format!("/gateways/{id}/dead"), body).await
}

/// What a gateway is told that has done this many, and whose state is as desired.
async fn commands(gateway: &Gateway, done: u64) -> Vec<Command> {
    let generation = gateway.desired(0).await.unwrap().generation;
    let ask = fleet::Request { generation, wait_s: 0, commands_done: done, report: None };
    match gateway.sync(&ask).await.unwrap() {
        fleet::Reply::Commands(commands) => commands,
        fleet::Reply::Unchanged => Vec::new(),
        fleet::Reply::Desired(desired) => panic!("{desired:?}"),
    }
}

fn many(letters: u64) -> DeadCommanded {
    DeadCommanded { letters, ..DeadCommanded::default() }
}

#[tokio::test]
async fn letters_are_listed_until_they_are_resolved() {
    let world = World::new().await;
    let (a, b) = (world.api.gateway(&[]).await, world.api.gateway(&[]).await);
    // An end may overtake its beginning; what only ended is not listed.
    let notes = [
        dead(EPOCH, 1, "mean"),
        dead(EPOCH, 2, "alert"),
        end(EPOCH, 3, Resolved::Dropped),
        end(OLD, 9, Resolved::Gone),
    ];
    tell(&a, 1, &notes).await;
    tell(&b, 1, &[dead(EPOCH, 1, "mean"), dead(OLD, 1, "mean")]).await;
    assert_eq!(numbers(&world).await, [1, 2, 1, 1]);
    tell(&a, 6, &[dead(EPOCH, 3, "mean"), dead(EPOCH, 4, "mean"), end(EPOCH, 1, Resolved::Gone)]).await;
    assert_eq!(numbers(&world).await, [2, 1, 1, 4]);
    tell(&a, 10, &[end(EPOCH, 1, Resolved::Retried), end(EPOCH, 1, Resolved::Gone)]).await;

    let world = world.restart().await;
    let of = |gateway: Option<&Gateway>, function: Option<&str>| DeadQuery {
        gateway: gateway.map(|gateway| gateway.id.clone()),
        function: function.map(str::to_owned),
        ..DeadQuery::default()
    };
    let epoch = "fedcba9876543210".to_owned();
    assert_eq!(listed(&world, of(Some(&a), None)).await, [(epoch.clone(), 2), (epoch.clone(), 4)]);
    assert_eq!(listed(&world, of(None, Some("alert"))).await, [(epoch.clone(), 2)]);
    assert_eq!(listed(&world, of(Some(&b), Some("mean"))).await, [(epoch, 1), ("0000000000000005".to_owned(), 1)]);
    assert_eq!(
        page(&world, &DeadQuery { gateway: Some("gw-no".into()), ..DeadQuery::default() }).await,
        refused(404, "unknown_gateway")
    );

    let mut query = DeadQuery { limit: Some(3), ..DeadQuery::default() };
    let first = page(&world, &query).await.unwrap();
    query.cursor = first.next.clone();
    let rest = page(&world, &query).await.unwrap();
    assert_eq!((first.letters.len(), rest.letters.len(), rest.next), (3, 1, None));
    let letter = &first.letters[0];
    assert_eq!((&letter.kind[..], &letter.device[..], &letter.topic[..]), ("trapped", "pump-7", "a/b"));
    assert_eq!((letter.wall_us, letter.reason.len(), letter.waits_for, letter.resolved), (77, 1_024, None, None));
    for (limit, cursor, code) in [(Some(0), None, "bad_limit"), (None, Some("x"), "bad_cursor")] {
        let query = DeadQuery { limit, cursor: cursor.map(str::to_owned), ..DeadQuery::default() };
        assert_eq!(page(&world, &query).await, refused(400, code));
    }

    let shown: DeadLetterDetail = world.api.get(&format!("/gateways/{}/dead/1", a.id)).await.unwrap();
    assert_eq!(shown.letter.resolved, Some(Resolved::Retried), "gone is only said of what ended before");
    let What::Dead(told) = dead(EPOCH, 1, "mean").what else { unreachable!("it is one") };
    assert_eq!(shown.dead, *told);
    for (path, status, code) in [("3000", 404, "unknown_letter"), ("x", 400, "bad_letter")] {
        let shown = world.api.get::<DeadLetterDetail>(&format!("/gateways/{}/dead/{path}", a.id)).await;
        assert_eq!(shown, refused(status, code));
    }
}

#[tokio::test]
async fn commands_come_in_order_until_they_are_done() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    tell(&gateway, 1, &[dead(EPOCH, 1, "mean"), dead(OLD, 1, "mean"), dead(EPOCH, 2, "alert")]).await;
    let retry = |letters: serde_json::Value| json!({"action": "retry", "letters": letters});
    assert_eq!(command(&world, &gateway.id, retry(json!([1, 1]))).await, Ok(many(2)));
    let again = DeadCommanded { waiting: 2, ..DeadCommanded::default() };
    assert_eq!(command(&world, &gateway.id, retry(json!([1]))).await, Ok(again));
    let drop = json!({"action": "drop", "letters": "all", "function": "alert"});
    assert_eq!(command(&world, &gateway.id, drop).await, Ok(many(1)));
    let waits = page(&world, &DeadQuery::default()).await.unwrap().letters;
    let waits: Vec<_> = waits.into_iter().map(|letter| letter.waits_for).collect();
    assert_eq!(waits, [Some(Action::Retry), Some(Action::Retry), Some(Action::Drop)]);

    let world = world.restart().await;
    let gateway = gateway.at(world.server.address());
    let expected = |number, action, epoch, letter| Command { number, action, epoch, letters: vec![letter] };
    let all = [
        // Epochs in the order of their numbers with a sign.
        expected(1, Action::Retry, EPOCH, 1),
        expected(2, Action::Retry, OLD, 1),
        expected(3, Action::Drop, EPOCH, 2),
    ];
    for _ in 0..2 {
        assert_eq!(commands(&gateway, 0).await, all);
    }
    assert_eq!(commands(&gateway, 2).await, all[2..]);
    assert_eq!(commands(&gateway, 3).await, []);
    assert_eq!(commands(&gateway, 0).await, [], "what is done is forgotten");

    // A resolution that never came is asked for once more.
    assert_eq!(command(&world, &gateway.id, retry(json!("all"))).await, Ok(many(3)));
    assert_eq!(commands(&gateway, 3).await.iter().map(|command| command.number).collect::<Vec<_>>(), [4, 5]);
    tell(&gateway, 5, &[end(EPOCH, 1, Resolved::Retried), end(OLD, 1, Resolved::Gone)]).await;
    let ended = DeadCommanded { resolved: 2, ..DeadCommanded::default() };
    assert_eq!(command(&world, &gateway.id, retry(json!([1]))).await, Ok(ended));
}

#[tokio::test]
async fn a_command_wakes_the_gateway_that_waits() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    tell(&gateway, 1, &[dead(EPOCH, 1, "mean")]).await;
    let generation = gateway.desired(0).await.unwrap().generation;
    let seen = world.api.gateway_state(&gateway.id).await.last_seen_us;
    let waiting = {
        let gateway = gateway.clone();
        let ask = fleet::Request { generation, wait_s: 50, commands_done: 0, report: None };
        tokio::spawn(async move { gateway.sync(&ask).await })
    };
    wait_for("the request that waits", || async {
        (world.api.gateway_state(&gateway.id).await.last_seen_us > seen).then_some(())
    })
    .await;
    command(&world, &gateway.id, json!({"action": "drop", "letters": [1]})).await.unwrap();
    assert!(matches!(waiting.await.unwrap(), Ok(fleet::Reply::Commands(commands)) if commands.len() == 1));
}

#[tokio::test]
async fn many_letters_are_several_commands_and_none_is_without_a_bound() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    let letters = MAX_LETTERS as u64 + 1;
    let notes: Vec<Note> = (1..=letters).map(|letter| dead(EPOCH, letter, "mean")).collect();
    tell(&gateway, 1, &notes).await;
    assert_eq!(command(&world, &gateway.id, json!({"action": "drop", "letters": "all"})).await, Ok(many(letters)));
    let lengths: Vec<usize> = commands(&gateway, 0).await.iter().map(|command| command.letters.len()).collect();
    assert_eq!(lengths, [MAX_LETTERS, 1]);
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_and_why() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    tell(&gateway, 1, &[dead(EPOCH, 1, INLET), dead(EPOCH, 2, "mean")]).await;
    for (body, status, code) in [
        (json!({"action": "retry", "letters": [2, 1]}), 400, "not_retriable"),
        (json!({"action": "drop", "letters": [2, 3]}), 404, "unknown_letter"),
        (json!({"action": "drop", "letters": []}), 400, "bad_letters"),
        (json!({"action": "drop", "letters": [1], "function": "mean"}), 400, "bad_letters"),
        (json!({"action": "drop", "letters": "some"}), 400, "bad_json"),
    ] {
        assert_eq!(command(&world, &gateway.id, body.clone()).await, refused(status, code), "{body}");
    }
    assert_eq!(commands(&gateway, 0).await, [], "nothing of what was refused is done");
    let all = DeadCommanded { not_retriable: 1, ..many(1) };
    assert_eq!(command(&world, &gateway.id, json!({"action": "retry", "letters": "all"})).await, Ok(all));
    let absurd = fleet::Request { generation: 0, wait_s: 0, commands_done: u64::MAX, report: None };
    assert_eq!(gateway.sync(&absurd).await, refused(400, "bad_command"));
}

/// The control plane's database is an older copy that was put back: a command that it gives next must not count as
/// done.
#[tokio::test]
async fn a_gateway_that_has_done_more_than_was_given_gets_the_next_command() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    tell(&gateway, 1, &[dead(EPOCH, 1, "mean")]).await;
    command(&world, &gateway.id, json!({"action": "drop", "letters": [1]})).await.unwrap();
    let given = commands(&gateway, 40).await;
    assert_eq!(given.iter().map(|command| command.number).collect::<Vec<_>>(), [41]);
    assert_eq!(commands(&gateway, 41).await, []);
}
